"""The truth that a run is measured with, and the file it is read from, give the same numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.masks import encode
from botvision.coco.read import parse_coco
from botvision.coco.truth import KINDS, read_truth
from botvision.config.data import DetectionDataConfig
from botvision.data.detection import DetectionDataset, open_detection

SIDE = 120
ODD: list[dict[str, Any]] = [
    {"bbox": [10, 10, 0, 30]},
    {"bbox": [10, 10, 30, 0], "area": 0, "segmentation": [[10, 10, 40, 10, 40, 10]]},
    {"segmentation": {"size": [SIDE, SIDE], "counts": [SIDE * SIDE]}},
    {"area": None},
    {"area": 0},
    {"area": -4.5},
    {"area": 1e12},
    {"bbox": [-0.5, 5, 30, 30]},
    {"iscrowd": 1},
]


def record(number: int, place: int, **other: Any) -> dict[str, Any]:
    """A triangle in a box of 40 x 40 pixels: as a mask it is small (800), as a box medium (1600)."""
    x, y = 10 + 20 * (place % 4), 10 + 15 * (place % 5)
    fields = {"id": number, "image_id": 1 + place % 3, "category_id": 1 + place % 2, "bbox": [x, y, 40, 40]}
    outline = {"segmentation": [[x, y, x + 40, y, x + 40, y + 40]], "iscrowd": 0}
    return {key: value for key, value in {**fields, **outline, **other}.items() if value is not None}


def written(root: Path, odd: dict[str, Any], masks: bool) -> Path:
    """Three images; every second of twelve objects is odd, two lack their area."""
    (root / "train").mkdir()
    for number in (1, 2, 3):
        pixels = np.full((SIDE, SIDE, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(root / "train" / f"{number}.png")
    records = [record(place + 1, place, **(odd if place % 2 else {"area": 900})) for place in range(12)]
    for each in (records[0], records[3]):
        each.pop("area", None)
    if not masks:
        for each in records:
            del each["segmentation"]
    images = [{"id": n, "file_name": f"{n}.png", "height": SIDE, "width": SIDE} for n in (1, 2, 3)]
    categories = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    path = root / "instances_train.json"
    path.write_text(json.dumps({"images": images, "annotations": records, "categories": categories}))
    return path


def opened(root: Path) -> DetectionDataset:
    return open_detection(DetectionDataConfig(root=str(root), val_is_train=True)).val


def results() -> list[dict[str, Any]]:
    """A detection for two thirds of the objects, and as many of the wrong category."""
    found = []
    for place in (0, 1, 3, 4, 6, 7, 9, 10):
        own = record(0, place)
        x, y, side, _ = own["bbox"]
        mask = np.zeros((1, SIDE, SIDE), dtype=np.uint8)
        mask[0, y : y + side, x : x + side] = np.tri(side).T
        rest = {"image_id": own["image_id"], "bbox": [x + 1, y, side, side], "segmentation": encode(mask)[0]}
        found.append({"category_id": own["category_id"], "score": 0.9 - place / 20, **rest})
        found.append({"category_id": 3 - own["category_id"], "score": 0.3, **rest})
    return found


@settings(max_examples=300, deadline=None)
@given(st.text("".join(map(chr, range(40, 126))), max_size=4) | st.lists(st.integers(0, 9), max_size=5))
@example("4m")
@example("7]")
@example("x3:8")
def test_what_is_a_mask_for_one_is_a_mask_for_the_other(counts: Any) -> None:
    mask = {"size": [4, 3], "counts": counts}
    own = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": mask}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 3}],
        "annotations": [own],
        "categories": [{"id": 1, "name": "thing"}],
    }
    usable = read_truth(content).no_masks is None
    file = parse_coco(content, "a.json")
    assert usable == (not any(problem.fatal for problem in file.problems))


@pytest.mark.parametrize("field", ["area", "bbox"])
def test_a_number_too_large_for_any_float_is_one_line(field: str) -> None:
    huge = 10**400
    own = record(1, 0, **{field: huge if field == "area" else [0, 0, huge, 1]})
    content = {
        "images": [{"id": 1, "height": SIDE, "width": SIDE}],
        "annotations": [own],
        "categories": [{"id": 1}],
    }
    with pytest.raises(ValueError, match=f"annotation 1 of image 1: {field} is .*10+"):
        read_truth(content)


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("masks", [True, False])
def test_odd_annotations_count_the_same(tmp_path: Path, odd: dict[str, Any], masks: bool) -> None:
    path = written(tmp_path, odd, masks)
    truth, found = opened(tmp_path).ground_truth(), results()
    for kind in KINDS if masks else KINDS[:1]:
        one, other = evaluate_coco(truth, found, kind), evaluate_coco(path, found, kind)
        assert one.to_dict() == other.to_dict()
        assert one.instances == 12 - 6 * odd.get("iscrowd", 0)
        assert 0 < one.ap < 1


def test_a_missing_area_is_the_mask_s_and_without_mask_the_box_s(tmp_path: Path) -> None:
    sizes = {}
    for masks in (True, False):
        (tmp_path / str(masks)).mkdir()
        path = written(tmp_path / str(masks), {"area": None}, masks)
        content = json.loads(path.read_text())
        for each in content["annotations"]:
            each.pop("area", None)
        path.write_text(json.dumps(content))
        for truth in (path, opened(path.parent).ground_truth()):
            metrics = evaluate_coco(truth, results(), "bbox").to_dict()
            sizes.setdefault(masks, []).append([metrics["ap_small"] is None, metrics["ap_medium"] is None])
    assert sizes == {True: [[False, True]] * 2, False: [[True, False]] * 2}
