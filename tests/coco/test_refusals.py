"""Results and ground truth that cannot be used: one line that names the record."""

import contextlib
import gc
import json
import math

import numpy as np
import pytest
from hotcoco import mask as rle

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.raw import read_json
from botvision.coco.results import kinds_in
from botvision.coco.truth import read_truth
from tests.coco.scenes import scene_of_boxes

GOOD = {"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [0, 0, 5, 5]}
SQUARE = rle.encode(np.ones((100, 100), np.uint8, order="F"))["counts"].decode()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bbox", {"image_id": 9}, "image_id 9 is not in the ground truth's list"),
        ("bbox", {"image_id": "one"}, "image_id is 'one', expected a whole number from 0"),
        ("bbox", {"score": None}, "score is missing, expected a number"),
        ("bbox", {"score": math.nan}, "score is nan, expected a number"),
        ("bbox", {"bbox": None}, "bbox is missing, expected [x, y, width, height]"),
        ("bbox", {"bbox": [0, 0, -5, 5]}, "bbox is [0, 0, -5, 5], expected [x, y, width, height]"),
        ("bbox", {"bbox": [0, 0, 5]}, "bbox is [0, 0, 5], expected [x, y, width, height]"),
        ("segm", {}, "segmentation is None, expected run lengths"),
        (
            "segm",
            {"segmentation": [[0, 0, 5, 0, 5, 5]]},
            "segmentation is [[0, 0, 5, 0, 5, 5]], expected run lengths",
        ),
        (
            "segm",
            {"segmentation": {"size": [100, 99], "counts": SQUARE}},
            "mask of size [100, 99], expected the image's [100, 100]",
        ),
        *(
            ("segm", {"segmentation": {"size": [100, 100], "counts": counts}}, f"mask: {fault}")
            for counts, fault in (
                ("", "counts are '', expected run lengths"),
                (None, "counts are None, expected run lengths"),
                ("!", "run lengths with a letter that is none, or without an end"),
                ("é", "run lengths with a letter that is none, or without an end"),
                ("\u20ac", "run lengths with a letter that is none, or without an end"),
                (SQUARE[:-1], "run lengths with a letter that is none, or without an end"),
                (SQUARE + "1", "invalid RLE: total counts 10001 exceed h*w=10000"),
                ([5, 9994], "run lengths cover fewer than 100 x 100 pixels"),
                ([-1, 10001], ""),
                ([0.5, 9999.5], ""),
            )
        ),
    ],
)
def test_bad_results_are_refused_in_one_line_that_names_the_record(kind, change, message):
    truth = scene_of_boxes([[0, 0, 10, 10]])
    records = [{**GOOD, "segmentation": {"size": [100, 100], "counts": SQUARE}}, {**GOOD, **change}]
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is compared whole
        evaluate_coco(truth, records, kind)
    assert str(error.value).startswith(f"results: result 2: {message}")


@pytest.mark.parametrize("content", ["{}", '"text"', "[1]", "[[]]"])
def test_results_that_are_no_list_of_objects_are_refused_by_file_name(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"results\.json: expected a list of objects"):
        evaluate_coco(scene_of_boxes([]), path, "bbox")


@pytest.mark.parametrize("content", [b"", b"[", b"\xff\xfe\x00", b"[" * 100000])
def test_files_that_are_no_json_are_refused_by_name(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json: not valid JSON"):
        evaluate_coco(scene_of_boxes([]), path, "bbox")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("score", [0.1, 2.2250738585072011e-308, 5e-324, 123456789012345678901234567890])
def test_files_are_read_as_python_reads_them(tmp_path, encoding, score):
    content = {
        "records": [{"score": score, "name": "Fl\u00fcgel \U0001f985", "mask": None, "crowd": True}] * 3
    }
    path = tmp_path / "results.json"
    path.write_bytes(json.dumps(content).encode(encoding))
    read = read_json(path)
    assert read == content
    assert type(read["records"][0]["score"]) is type(score)


def test_what_only_python_calls_json_is_refused_by_record(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "score": math.nan}]))
    with pytest.raises(ValueError, match=r"results\.json: result 2: score is nan, expected a number"):
        evaluate_coco(scene_of_boxes([]), path, "bbox")


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("content", ["[]", "["])
def test_reading_leaves_the_garbage_collector_as_it_was(tmp_path, collecting, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    was = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with contextlib.suppress(ValueError):
            read_json(path)
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if was else gc.disable)()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "no list 'images', expected images, annotations and categories"),
        ({"images": [{"id": 1}, {"id": 1}]}, "image 1: the id occurs twice"),
        ({"images": [{"id": -1}]}, "images[0]: id is -1, expected a whole number from 0"),
        ({"images": [3]}, "images[0]: id is None, expected a whole number from 0"),
        ({"images": []}, "annotation 10 of image 1: there is no image with id 1"),
        ({"categories": []}, "no categories, expected at least one"),
        ({"categories": [{"id": 5}]}, "annotation 10 of image 1: there is no category with id 2"),
        (
            {"annotations": [{"id": 4, "image_id": 1, "category_id": 2}]},
            "annotation 4 of image 1: bbox is None",
        ),
    ],
)
def test_bad_ground_truth_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is compared
        evaluate_coco({**scene_of_boxes([[0, 0, 9, 9]]), **change}, [], "bbox")
    assert str(error.value).startswith(f"ground truth: {message}")


@pytest.mark.parametrize("mask", [None, [], [[1, 1, 2]], [[1, 1, 2, 2, 3, math.inf]]])
def test_ground_truth_without_usable_masks_serves_boxes_and_refuses_masks(mask):
    truth = scene_of_boxes([[0, 0, 5, 5]])
    truth["annotations"][0]["segmentation"] = mask
    assert evaluate_coco(truth, [GOOD], "bbox").ap == pytest.approx(1)
    with pytest.raises(
        ValueError, match=r"ground truth: annotation 10 of image 1: (no segmentation|a polygon)"
    ):
        evaluate_coco(truth, [], "segm")
    assert kinds_in([], read_truth(truth)) == ["bbox"]


def test_masks_need_the_size_of_their_image():
    truth = scene_of_boxes([[0, 0, 5, 5]])
    del truth["images"][0]["height"]
    with pytest.raises(ValueError, match="image 1 has no height and width, which masks need"):
        evaluate_coco(truth, [], "segm")
    truth["annotations"] = []
    record = {**GOOD, "segmentation": {"size": [100, 100], "counts": SQUARE}}
    message = "results: result 1: image 1 has no height and width in the ground truth, which masks need"
    with pytest.raises(ValueError, match=f"^{message}$"):
        evaluate_coco(truth, [record], "segm")


@pytest.mark.parametrize(("kind", "count"), [("box", 100), ("bbox", 0)])
def test_other_kinds_and_no_detections_are_refused(kind, count):
    with pytest.raises(ValueError, match=r"^(kind|max_detections): expected"):
        evaluate_coco(scene_of_boxes([]), [], kind, count)
