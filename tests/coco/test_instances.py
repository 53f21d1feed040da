"""Objects of an image: in from detectors, targets and results, out as results."""

import json
import math

import numpy as np
import pytest
import torch
from hotcoco import mask as rle

from botvision.coco.instances import Instances
from botvision.coco.masks import encode


def found(count=3) -> dict:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 9, (count, 2)).astype(np.float32)
    return {
        "boxes": torch.from_numpy(np.hstack([corners, corners + 3])),
        "labels": torch.arange(count) % 2 + 1,
        "scores": torch.linspace(0.9, 0.3, count),
        "masks": torch.from_numpy(rng.random((count, 12, 15)) > 0.5),
    }


def test_pixels_and_run_lengths_are_the_same():
    pixels = Instances.of(found(), (12, 15))
    runs = Instances.of(found() | {"masks": encode(found()["masks"])}, (12, 15))
    assert pixels.masks is not None
    assert runs.masks is not None
    assert pixels.masks == runs.masks
    parts = torch.where(found()["masks"], 0.5, 0.49)[:, None]  # as torchvision's own detectors have them
    assert Instances.of(found() | {"masks": parts}).masks == runs.masks
    assert (np.stack([pixels.mask(k) for k in range(3)]) == found()["masks"].numpy()).all()


def test_out_as_results_and_back():
    first = Instances.of(found())
    records = first.records(7, [3, 90])
    assert [record["category_id"] for record in records] == [3, 90, 3]
    again = Instances.of_records(records, [3, 90])
    assert again.boxes == pytest.approx(first.boxes, abs=0.01)
    assert (again.labels == first.labels).all()
    assert np.array_equal(again.scores, first.scores)  # pyrefly: ignore
    assert again.records(7, [3, 90]) == records
    with pytest.raises(ValueError, match="category id 90 of a result is none of the 1 categories"):
        Instances.of_records(records, [3])


def test_those_above_a_threshold():
    kept = Instances.of(found()).above(0.6)
    assert kept.labels.tolist() == [1, 2]
    assert kept.masks is not None
    assert (np.stack([kept.mask(k) for k in range(2)]) == found()["masks"][:2].numpy()).all()
    truth = Instances.of({key: value for key, value in found().items() if key != "scores"})
    assert truth.above(0.6) is truth


def test_each_object_once():
    """A disc in the hole of a ring shares its box, not its mask; a second class of one object goes."""
    ring, disc = np.zeros((2, 9, 9), np.uint8)
    ring[:], ring[1:8, 1:8], disc[1:8, 1:8] = 1, 0, 1
    boxes = np.array([[0, 0, 9, 9], [1, 1, 8, 8], [0, 0, 9, 9]], np.float32)
    labels, scores = [1, 2, 3], [0.6, 0.7, 0.8]
    seen = {"boxes": boxes, "labels": labels, "scores": scores, "masks": np.stack([ring, disc, ring])}
    assert Instances.of(seen).distinct().labels.tolist() == [2, 3]
    assert Instances.of(seen | {"masks": None}).distinct().labels.tolist() == [3]
    assert Instances.of(seen | {"masks": None}).distinct(0.7).labels.tolist() == [2, 3]  # 49 of 81 cells
    truth = Instances.of({key: value for key, value in seen.items() if key != "scores"})
    assert truth.distinct() is truth


def test_no_objects():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": [], "masks": np.zeros((0, 9, 9))}
    assert len(Instances.of(empty).above(0.5).distinct()) == len(Instances.of_records([], [1])) == 0


def test_records_hold_plain_values_and_the_original_category():
    mask = torch.zeros(1, 30, 40, dtype=torch.uint8)
    mask[0, 1:21, :10] = 255
    one = {
        "boxes": torch.tensor([[0.123456, 1, 10.5, 21.25]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.1]),
        "masks": mask,
    }
    (record,) = Instances.of(one).records(7, [3, 90])
    assert {k: v for k, v in record.items() if k != "segmentation"} == {
        "image_id": 7, "category_id": 90, "bbox": [0.12, 1.0, 10.38, 20.25], "score": 0.1
    }  # fmt: skip
    assert record["segmentation"]["size"] == [30, 40]
    assert rle.area(record["segmentation"]) == 200
    (again,) = Instances.of(one | {"masks": [record["segmentation"]]}).records(7, [3, 90])
    assert json.dumps(again) == json.dumps(record)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    assert Instances.of(nothing).records(7, [3]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_a_step_apart_stay_apart(dtype):
    near = torch.nextafter(torch.tensor(1.0, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    scores = torch.stack([near, torch.nextafter(near, torch.tensor(0.0, dtype=dtype))])
    two = {"boxes": torch.zeros(2, 4), "labels": torch.ones(2, dtype=torch.long), "scores": scores}
    records = Instances.of(two).records(1, [1])
    assert records[0]["score"] > records[1]["score"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [3]}, "image 7: labels 3 to 3, expected 1 to 2"),
        ({"labels": [0]}, "image 7: labels 0 to 0, expected 1 to 2"),
        ({"scores": [0.1, 0.2]}, "image 7: 1 boxes, 1 labels, 2 scores; expected as many of each"),
        ({"scores": None}, "image 7: 1 boxes, 1 labels; expected as many of each"),
        ({"masks": []}, "image 7: 1 boxes, 1 labels, 1 scores, 0 masks; expected as many of each"),
        ({"scores": [math.nan]}, "image 7: boxes or scores are not finite"),
        ({"masks": np.zeros((1, 4, 4))}, "masks of float64 (1, 4, 4), expected bool or uint8 (N, H, W)"),
        ({"masks": np.zeros((4, 4), bool)}, "masks of bool (4, 4), expected"),
    ],
)
def test_detections_that_make_no_record_are_refused(change, message):
    given = {"boxes": np.zeros((1, 4)), "labels": [1], "scores": [0.5], "masks": None} | change
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is compared whole
        Instances.of(given).records(7, [3, 90])
    assert str(error.value).startswith(message)
