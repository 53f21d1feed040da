"""Are parts named with the right side, where left and right are classes of their own?

AP mixes two things: whether a part is found, and whether its side is right. This looks at the second alone.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import mask as rle

from botvision.coco.checks import box_of, known_id, number_of
from botvision.coco.files import CocoTruth, read_results, read_truth
from botvision.coco.sides import side_twins

IOU = 0.5

Objects = dict[tuple[int, int], list[Mapping[str, Any]]]  # by image and by pair of classes


@dataclass(frozen=True)
class SideAccuracy:
    """Parts of classes that have a twin on the other side, I images.

    Attributes:
        images: int64 (I,), ids in ascending order.
        parts: int32 (I,), how many the ground truth has.
        found: int32 (I,), how many of these were found at their place, under the name of either side.
        right: int32 (I,), how many of those found have the right name.
    """

    images: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int32]
    found: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]

    @property
    def accuracy(self) -> float:
        """The share of the found parts with the right name; not-a-number if none was found."""
        found = int(self.found.sum())
        return int(self.right.sum()) / found if found else math.nan

    def of_samples(self, weights: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Return the accuracy of samples of the images, float64 (S,); weights (S, I) are whole numbers."""
        with np.errstate(invalid="ignore"):
            return (weights @ self.right.astype(np.int64)) / (weights @ self.found.astype(np.int64))


def side_accuracy(
    truth: CocoTruth | Mapping[str, Any] | str | Path,
    results: Sequence[Mapping[str, Any]] | str | Path,
) -> SideAccuracy | None:
    """Measure whether left and right are told apart, by boxes.

    In each image and for each pair of classes, such as left_door and right_door, the detections of both take
    turns by descending score (equal ones in their order): each takes the object of either class, not taken
    before, with which it overlaps most, if the IoU is at least 0.5. Such an object is found; its side is
    right if the classes are the same. Crowds are no objects.

    Args:
        truth: as for `evaluate_coco`; its categories' names say which are pairs.
        results: as for `evaluate_coco`; those without a box are not looked at.

    Returns:
        None if no two classes are the left and the right of the same thing.

    Raises:
        ValueError: A record that cannot be used.
    """
    truth = read_truth(truth)
    ids = [category.id for category in truth.categories]
    twins = side_twins([category.name for category in truth.categories])
    if not twins:
        return None
    pair_of = {ids[place]: min(ids[place], ids[twin]) for place, twin in twins.items()}
    objects: Objects = defaultdict(list)
    for record in truth.coco.load_anns(truth.coco.get_ann_ids()):
        pair = pair_of.get(record["category_id"])
        if pair is not None and not record.get("iscrowd"):
            objects[record["image_id"], pair].append(record)
    detections = _detections(results, truth, pair_of)
    images = np.array(sorted(truth.sizes), dtype=np.int64)
    parts, found, right = (np.zeros(len(images), dtype=np.int32) for _ in range(3))
    for (image, pair), those in objects.items():
        place = int(np.searchsorted(images, image))
        parts[place] += len(those)
        for detection, taken in _take(those, detections.get((image, pair), [])):
            found[place] += 1
            right[place] += detection["category_id"] == taken["category_id"]
    return SideAccuracy(images, parts, found, right)


def _detections(
    results: Sequence[Mapping[str, Any]] | str | Path, truth: CocoTruth, pair_of: Mapping[int, int]
) -> Objects:
    """Checked results of the classes that have a twin, by descending score."""
    records, name = read_results(results)
    categories = {category.id for category in truth.categories}
    kept: Objects = defaultdict(list)
    for number, record in enumerate(records, 1):
        where = f"{name}: result {number}"
        category = known_id(record, "category_id", categories, where)
        if category in pair_of and "bbox" in record:
            image = known_id(record, "image_id", truth.sizes, where)
            values = {"bbox": box_of(record, where), "score": number_of(record, "score", where)}
            kept[image, pair_of[category]].append({"category_id": category, **values})
    for those in kept.values():
        those.sort(key=lambda record: -record["score"])
    return kept


def _take(
    objects: Sequence[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Detections in their order and the object that each of them takes, if any."""
    if not detections:
        return []
    theirs, ours = (
        np.array([record["bbox"] for record in records], np.float64) for records in (detections, objects)
    )
    overlaps = np.array(rle.iou(theirs, ours, [False] * len(objects)))  # (detections, objects)
    taken = []
    for place, detection in enumerate(detections):
        best = int(overlaps[place].argmax())
        if overlaps[place, best] >= IOU:
            taken.append((detection, objects[best]))
            overlaps[:, best] = -1.0
    return taken
