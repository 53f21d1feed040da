"""Objects of an image: in from detectors, targets and results, out as results."""

import numpy as np
import pytest
import torch

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
    assert pixels.masks.rles == runs.masks.rles
    parts = torch.where(found()["masks"], 0.5, 0.49)[:, None]  # as torchvision's own detectors have them
    assert Instances.of(found() | {"masks": parts}).masks.rles == runs.masks.rles  # pyrefly: ignore
    assert (np.stack(list(pixels.masks)) == found()["masks"].numpy()).all()


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
    assert (np.stack(list(kept.masks)) == found()["masks"][:2].numpy()).all()
    truth = Instances.of({key: value for key, value in found().items() if key != "scores"})
    assert truth.above(0.6) is truth


def test_no_objects():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": [], "masks": np.zeros((0, 9, 9))}
    assert len(Instances.of(empty).above(0.5)) == len(Instances.of_records([], [1])) == 0
