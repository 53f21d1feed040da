"""Side accuracy, worked by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from botvision.coco.matches import load_matches, load_sides, match_coco, save_matches
from botvision.coco.sides import side_accuracy

LEFT, RIGHT, HOOD = 3, 5, 8
CATEGORIES = [
    {"id": LEFT, "name": "left_door"},
    {"id": RIGHT, "name": "Right Door"},
    {"id": HOOD, "name": "hood"},
]


def truth(*objects: tuple[int, int, list[float]], crowd: int = 0) -> dict[str, Any]:
    """Image, category, box; two images."""
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, category, box) in enumerate(objects, 1)
    ]
    if crowd:
        annotations[crowd - 1]["iscrowd"] = 1
    images = [{"id": number, "height": 100, "width": 200, "file_name": f"{number}.jpg"} for number in (9, 7)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def found(*detections: tuple[int, int, list[float], float]) -> list[dict[str, Any]]:
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in detections]


def counts(objects: dict[str, Any], detections: list[dict[str, Any]]) -> tuple[int, int, int]:
    measured = side_accuracy(objects, detections)
    assert measured is not None
    return int(measured.parts.sum()), int(measured.found.sum()), int(measured.right.sum())


A, B = [0.0, 0, 40, 40], [100.0, 0, 40, 40]


def test_a_scene_by_hand():
    objects = truth((7, LEFT, A), (7, RIGHT, B), (7, HOOD, [50, 50, 40, 40]), (9, LEFT, A), (9, RIGHT, B))
    detections = found(
        (7, RIGHT, A, 0.9),  # at the place of the left one: found, the side is wrong
        (7, LEFT, A, 0.8),  # right, but the place is taken
        (7, RIGHT, [100, 0, 40, 21], 0.3),  # IoU 21 / 40: right
        (7, LEFT, [50, 50, 40, 40], 0.9),  # no door there
        (7, HOOD, B, 1.0),  # no door
        (9, LEFT, [0, 0, 40, 19], 0.9),  # IoU 19 / 40: not found
    )
    measured = side_accuracy(objects, detections)
    assert measured is not None
    assert measured.images.tolist() == [7, 9]
    assert (measured.parts.tolist(), measured.found.tolist(), measured.right.tolist()) == (
        [2, 2],
        [2, 0],
        [1, 0],
    )
    assert measured.accuracy == 0.5


def test_the_higher_score_decides_and_among_equal_ones_the_first():
    objects = truth((7, LEFT, A))
    assert counts(objects, found((7, RIGHT, A, 0.4), (7, LEFT, A, 0.5))) == (1, 1, 1)
    assert counts(objects, found((7, RIGHT, A, 0.5), (7, LEFT, A, 0.4))) == (1, 1, 0)
    assert counts(objects, found((7, RIGHT, A, 0.5), (7, LEFT, A, 0.5))) == (1, 1, 0)
    assert counts(objects, found((7, LEFT, A, 0.5), (7, RIGHT, A, 0.5))) == (1, 1, 1)


def test_the_nearest_object_is_taken_whatever_its_side():
    objects = truth((7, LEFT, [0, 0, 40, 40]), (7, RIGHT, [10, 0, 40, 40]))
    # IoU 36 / 44 with the left one, 34 / 46 with the right one; then the other one is all that is left.
    assert counts(objects, found((7, RIGHT, [4, 0, 40, 40], 0.9))) == (2, 1, 0)
    assert counts(objects, found((7, LEFT, [4, 0, 40, 40], 0.9), (7, RIGHT, [4, 0, 40, 40], 0.8))) == (
        2,
        2,
        2,
    )


def test_half_an_overlap_is_enough():
    assert counts(truth((7, LEFT, A)), found((7, LEFT, [0, 0, 40, 20], 0.9))) == (1, 1, 1)


def test_crowds_are_no_parts():
    objects = truth((7, LEFT, A), (7, LEFT, B), crowd=2)
    assert counts(objects, found((7, LEFT, A, 0.9), (7, RIGHT, B, 0.9))) == (1, 1, 1)


def test_without_anything_found_there_is_no_accuracy():
    measured = side_accuracy(truth((7, LEFT, A)), [])
    assert measured is not None
    assert math.isnan(measured.accuracy)
    assert int(measured.parts.sum()) == 1


def test_without_pairs_there_is_nothing_to_measure():
    objects = truth((7, LEFT, A))
    objects["categories"] = [{"id": LEFT, "name": "left_door"}, {"id": RIGHT, "name": "right_mirror"}]
    assert side_accuracy(objects, []) is None


def test_pairs_do_not_mix():
    objects = truth((7, LEFT, A))
    objects["categories"] += [{"id": 20, "name": "left_mirror"}, {"id": 21, "name": "right_mirror"}]
    assert counts(objects, found((7, 20, A, 0.9))) == (1, 0, 0)


def test_results_that_cannot_be_used_are_named():
    with pytest.raises(ValueError, match=r"^results: result 1: image_id 8 is not in"):
        side_accuracy(truth((7, LEFT, A)), found((8, LEFT, A, 0.5)))
    mask = {
        "image_id": 7,
        "category_id": LEFT,
        "score": 0.5,
        "segmentation": {},
    }  # not looked at, but counted
    with pytest.raises(ValueError, match=r"^results: result 2: image_id 8 is not in"):
        side_accuracy(truth((7, LEFT, A)), [mask, *found((8, LEFT, A, 0.5))])


def test_samples_of_images_and_the_way_through_a_file(tmp_path: Path):
    objects = truth((7, LEFT, A), (7, RIGHT, B), (9, LEFT, A))
    detections = found((7, LEFT, A, 0.9), (7, LEFT, B, 0.9), (9, LEFT, A, 0.9))
    sides = side_accuracy(objects, detections)
    path = tmp_path / "matches.npz"
    save_matches({"bbox": match_coco(objects, detections, "bbox")}, path, sides)
    again = load_sides(path)
    assert again is not None
    # of image 7 one of two is right, of image 9 the only one
    samples = again.of_samples(np.array([[1, 1], [2, 0], [0, 3], [2, 1], [0, 0]]))
    np.testing.assert_allclose(samples, [2 / 3, 1 / 2, 1, 3 / 5, math.nan])
    assert load_matches(path, "bbox") is not None
    save_matches({"bbox": match_coco(objects, detections, "bbox")}, path)
    assert load_sides(path) is None
