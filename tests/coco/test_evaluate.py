"""AP against pycocotools, a hand-worked scene, the reference results of COCO's own code, and bad files."""

import contextlib
import copy
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from botvision.coco.evaluate import NUMBERS, CocoMetrics, evaluate_coco
from botvision.coco.instances import Instances
from botvision.coco.results import kinds_in
from botvision.coco.truth import Kind, read_truth
from tests.coco.scenes import Scene, crowds_as_rle, random_scene, scene_of_boxes

DATA = Path(os.environ.get("BOTVISION_DATA") or Path(__file__).parents[3] / "shared" / "data")
REFERENCE = DATA / "coco_eval_ref" / "dataset" / "cocoapi"
TOLERANCE = 1e-10  # the same arithmetic on the same numbers; only the order of a sum may differ


def pycocotools(scene: Scene, kind: Kind, max_detections: int) -> tuple[dict[str, float], Any]:
    """The twelve numbers, AP at any number of detections, and the precision (T, R, K, A, M) behind them."""
    unwanted = {"bbox": "segmentation", "segm": "bbox"}[kind]
    results: Any = [{k: v for k, v in r.items() if k != unwanted} for r in copy.deepcopy(scene.results)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(scene.truth)  # pyrefly: ignore
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.maxDets = [min(1, max_detections), min(10, max_detections), max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
        precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
        if max_detections == 100:
            evaluation.summarize()
            return dict(zip(NUMBERS, evaluation.stats.tolist(), strict=True)), precision
    cuts = [precision[..., 0, 2], precision[0, ..., 0, 2], precision[5, ..., 0, 2]]
    cuts += [precision[..., area, 2] for area in (1, 2, 3)]
    cuts += [recall[..., 0, 0], recall[..., 0, 1], *(recall[..., area, 2] for area in range(4))]
    means = [float(cut[cut > -1].mean()) if (cut > -1).any() else -1.0 for cut in cuts]
    return dict(zip(NUMBERS, means, strict=True)), precision


def assert_equal(ours: CocoMetrics, theirs: dict[str, float]) -> None:
    for name, value in ours.numbers().items():
        expected = theirs[name]
        if expected == -1:
            assert math.isnan(value), name
        else:
            assert value == pytest.approx(expected, abs=TOLERANCE, rel=0), name


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(12))
def test_twelve_numbers_equal_pycocotools(seed: int, kind: Kind):
    scene = crowds_as_rle(random_scene(seed))
    theirs, precision = pycocotools(scene, kind, 100)
    ours = evaluate_coco(scene.truth, scene.results, kind)
    assert_equal(ours, theirs)
    for k, entry in enumerate(ours.per_class):
        curve = precision[:, :, k, 0, 2]
        expected = curve.mean() if (curve > -1).any() else math.nan
        assert entry.ap == pytest.approx(expected, abs=TOLERANCE, rel=0, nan_ok=True)


@pytest.mark.parametrize("max_detections", [1, 3, 10, 30, 500])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_other_numbers_of_detections_equal_pycocotools_arrays(max_detections: int, kind: Kind):
    scene = random_scene(100)
    theirs, _ = pycocotools(scene, kind, max_detections)
    assert_equal(evaluate_coco(scene.truth, scene.results, kind, max_detections), theirs)


@pytest.mark.parametrize("max_detections", [100, 140, 400])
def test_more_than_100_objects_of_a_class_in_an_image_equal_pycocotools(max_detections: int):
    """As nuclei are: at 100 detections even perfect results leave objects unfound."""
    truth = scene_of_boxes([[10 * (i % 15), 10 * (i // 15), 8, 8] for i in range(210)])
    truth["images"][0] |= {"height": 200, "width": 200}
    random = np.random.default_rng(0)
    results = [
        {"image_id": 1, "category_id": 2, "bbox": [x + shift, y, w, h], "score": float(random.random())}
        for shift, (x, y, w, h) in zip(
            random.choice([0, 1, 2, 9], 210), [a["bbox"] for a in truth["annotations"]], strict=True
        )
    ]
    results = [{**r, "bbox": [float(v) for v in r["bbox"]]} for r in results]
    theirs, _ = pycocotools(Scene(truth, results), "bbox", max_detections)
    ours = evaluate_coco(truth, results, "bbox", max_detections)
    assert_equal(ours, theirs)
    at_100 = evaluate_coco(truth, results, "bbox").ar_max
    assert (ours.ar_max > at_100) == (max_detections > 100)


def test_the_random_scenes_hold_what_they_promise():
    scenes = [crowds_as_rle(random_scene(seed)) for seed in range(12)]
    annotations = [a for scene in scenes for a in scene.truth["annotations"]]
    assert sum(a["iscrowd"] for a in annotations) > 10
    assert {type(a["segmentation"]) for a in annotations} == {list, dict}
    areas = np.array([a["area"] for a in annotations])
    assert min(np.histogram(areas, [0, 32**2, 96**2, 1e9])[0]) > 10
    empty = with_results = 0
    for scene in scenes:
        filled = {a["image_id"] for a in scene.truth["annotations"]}
        empty += len({i["id"] for i in scene.truth["images"]} - filled)
        with_results += len({r["image_id"] for r in scene.results} - filled)
        scores = [r["score"] for r in scene.results]
        assert len(set(scores)) < len(scores)
    assert empty > 10
    assert with_results > 5


def test_a_scene_worked_by_hand():
    """Two objects of one class; found: the first exactly, then nothing real, then the second at IoU .70.

    At IoU .50 to .70 the precision is 1 up to recall .5 (51 of the 101 recalls) and 2/3 behind it; above, the
    second is not found and the precision behind .5 is 0. The IoU of a 10x10 box and its 10x7 part is exactly
    .70, and counts at that threshold, as pycocotools compares (at least).
    """
    truth = scene_of_boxes([[0, 0, 10, 10], [50, 50, 10, 10]])
    boxes = [[0, 0, 10, 10], [20, 20, 5, 5], [50, 50, 10, 7]]
    found = [
        {"image_id": 1, "category_id": 2, "bbox": box, "score": score}
        for box, score in zip(boxes, (0.9, 0.8, 0.7), strict=True)
    ]
    metrics = evaluate_coco(truth, found, "bbox")
    easy, hard = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert metrics.ap50 == pytest.approx(easy)
    assert metrics.ap75 == pytest.approx(hard)
    assert metrics.ap == pytest.approx((5 * easy + 5 * hard) / 10)
    assert (metrics.ar1, metrics.ar_max) == (pytest.approx(0.5), pytest.approx(0.75))
    assert metrics.precision50 == pytest.approx([1.0] * 51 + [2 / 3] * 50)
    assert metrics.precision75 == pytest.approx([1.0] * 51 + [0.0] * 50)
    assert metrics.precision == pytest.approx([1.0] * 51 + [1 / 3] * 50)
    assert math.isnan(metrics.ap_large)
    assert metrics.to_dict()["ap_large"] is None
    json.dumps(metrics.to_dict(), allow_nan=False)
    entry = metrics.per_class[0]
    assert (entry.name, entry.images, entry.instances) == ("thing", 1, 2)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference results: set BOTVISION_DATA")
@pytest.mark.parametrize(
    ("kind", "expected"), [("bbox", (0.505, 0.697, 0.573)), ("segm", (0.320, 0.562, 0.299))]
)
def test_reference_results_of_coco(kind: Kind, expected: tuple[float, ...]):
    results = REFERENCE / f"instances_val2014_fake{kind}100_results.json"
    metrics = evaluate_coco(REFERENCE / "instances_val2014_100.json", results, kind)
    assert tuple(round(v, 3) for v in (metrics.ap, metrics.ap50, metrics.ap75)) == expected


def test_size_of_a_result_is_its_masks_even_with_a_box_beside_it():
    """pycocotools would take the box's area, and so another AP by size."""
    scene = random_scene(3)
    alone = [{k: v for k, v in r.items() if k != "bbox"} for r in scene.results]
    assert evaluate_coco(scene.truth, scene.results, "segm") == evaluate_coco(scene.truth, alone, "segm")


def test_id_zero_is_an_object_as_any_other():
    scene = random_scene(5)
    shifted = copy.deepcopy(scene.truth)
    for annotation in shifted["annotations"]:
        annotation["id"] -= 1
    assert evaluate_coco(shifted, scene.results, "bbox") == evaluate_coco(scene.truth, scene.results, "bbox")


def test_no_results_are_an_ap_of_zero_and_no_truth_is_none():
    truth = scene_of_boxes([[0, 0, 10, 10]])
    assert evaluate_coco(truth, [], "bbox").ap == 0
    nothing = evaluate_coco({**truth, "annotations": []}, [], "bbox")
    assert math.isnan(nothing.ap)
    assert (nothing.precision50, nothing.instances) == ((), 0)
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_truth_read_once_serves_both_kinds():
    scene = random_scene(4)
    truth = read_truth(scene.truth)
    for kind in ("bbox", "segm", "bbox"):
        assert evaluate_coco(truth, scene.results, kind) == evaluate_coco(scene.truth, scene.results, kind)
    assert kinds_in(scene.results, truth) == ["bbox", "segm"]
    assert kinds_in([{"score": 1.0, "bbox": []}], truth) == ["bbox"]


def test_files_are_read_and_left_as_they_are(tmp_path):
    scene = random_scene(6)
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(scene.truth))
    results.write_text(json.dumps(scene.results))
    before = (truth.read_bytes(), results.read_bytes())
    metrics = evaluate_coco(str(truth), results, "segm")
    assert metrics == evaluate_coco(scene.truth, scene.results, "segm")
    assert before == (truth.read_bytes(), results.read_bytes())


def test_evaluation_is_silent(capfd):
    scene = random_scene(7)
    evaluate_coco(scene.truth, scene.results, "segm", 300)
    assert capfd.readouterr() == ("", "")


def test_ground_truth_fed_back_as_records_is_perfect():
    scene = crowds_as_rle(random_scene(8))
    ids = [category["id"] for category in scene.truth["categories"]]
    coco = hotcoco.COCO(scene.truth)
    records = []
    for image in scene.truth["images"]:
        objects = [a for a in coco.load_anns(coco.get_ann_ids([image["id"]])) if not a["iscrowd"]]
        boxes = torch.tensor([a["bbox"] for a in objects]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([ids.index(a["category_id"]) + 1 for a in objects], dtype=torch.int64)
        size = (len(objects), image["height"], image["width"])
        masks = np.array([coco.ann_to_mask(a) for a in objects], dtype=bool).reshape(size)
        found = {"boxes": boxes, "labels": labels, "scores": torch.ones(len(objects)), "masks": masks}
        records += Instances.of(found).records(image["id"], ids)
    for kind in ("bbox", "segm"):
        numbers = evaluate_coco(scene.truth, json.loads(json.dumps(records)), kind, 100)
        assert (numbers.ap, numbers.ar_max) == (pytest.approx(1), pytest.approx(1))
