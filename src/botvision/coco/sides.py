"""Classes that are the left and the right of the same thing, and whether detections tell them apart.

AP mixes two things: whether a part is found, and whether its side is right. This looks at the second alone.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import mask as codec

from botvision.coco.results import FoundObjects, read_results
from botvision.coco.truth import CocoTruth, read_truth

IOU = 0.5

_LETTERS = {"l": "left", "lh": "left", "r": "right", "rh": "right"}
_OTHER = {"left": "right", "right": "left"}

Key = tuple[str, tuple[str, ...]]
"""A name without its sides, and its sides."""


def side_twins(names: Sequence[str]) -> dict[int, int]:
    """Find the classes that a mirror turns into each other.

    Two names are twins if they differ in nothing but that one says left where the other says right: as a word
    (left_door, Door Left, LeftDoor, leftdoor), or as the letters L and R or LH and RH beside another word
    (mirror_l, L-mirror, door.RH). Case and what stands between the words are not looked at. Names of which
    several are alike in this are nobody's twins.

    Args:
        names: of the classes.

    Returns:
        For the place of each class that has a twin, that of the twin; both directions are there.
    """
    keys = [_key(name) for name in names]
    counts = Counter(keys)
    places = {key: place for place, key in enumerate(keys) if key[1] and counts[key] == 1}
    mirrored = ((skeleton, tuple(_OTHER[side] for side in sides)) for skeleton, sides in places)
    return {
        place: places[twin] for place, twin in zip(places.values(), mirrored, strict=True) if twin in places
    }


def _key(name: str) -> Key:
    """What is left of a name without its sides, and these in the order in which they come."""
    words = re.sub(r"(?<=[^\W_A-Z])(?=[A-Z])", " ", name)  # leftDoor
    parts: list[str] = []
    sides: list[str] = []
    tokens = [word.lower() for word in re.split(r"[\W_]+", words) if word]
    alone = len(tokens) == 1  # the letters L and R, as others of the alphabet, are no sides
    for token in tokens:
        if token in _LETTERS and not alone:
            sides.append(_LETTERS[token])
            parts.append("*")
        else:
            sides += re.findall("left|right", token)
            parts.append(re.sub("left|right", "*", token))
    return "".join(parts), tuple(sides)


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
    twins = side_twins([category.name for category in truth.categories])
    if not twins:
        return None
    pairs = np.array([min(k, twins.get(k, -1)) for k in range(len(truth.categories))])  # -1: no twin
    records, name = read_results(results)
    boxes = {number: record for number, record in enumerate(records, 1) if "bbox" in record}
    found = FoundObjects([*boxes.values()], truth, "bbox", name, [*boxes])
    (image, category), count = truth.places, len(pairs)
    parts, hits, right = (np.zeros(len(truth.images), dtype=np.int32) for _ in range(3))
    objects = np.flatnonzero((pairs[category] >= 0) & ~truth.crowd)
    np.add.at(parts, image[objects], 1)
    order = np.argsort(-found.scores, kind="stable")
    order = order[pairs[found.categories[order]] >= 0]
    detected = _grouped(found.images[order] * count + pairs[found.categories[order]], order)
    for group, mine in _grouped(image[objects] * count + pairs[category[objects]], objects).items():
        theirs = detected.get(group, order[:0])
        for detection, taken in _take(found.boxes[theirs], truth.boxes[mine]):
            hits[group // count] += 1
            right[group // count] += found.categories[theirs[detection]] == category[mine[taken]]
    return SideAccuracy(truth.images, parts, hits, right)


def _grouped(keys: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """Values by key, in their order."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    return dict(zip(found.tolist(), np.split(values[order], starts[1:]), strict=False))


def _take(detections: npt.NDArray[np.float64], objects: npt.NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Places of the detections, in their order, and of the objects that they take, if any."""
    if not len(detections):
        return
    overlaps = np.array(codec.iou(detections, objects, [False] * len(objects)))  # (detections, objects)
    for place, row in enumerate(overlaps):
        best = int(row.argmax())
        if row[best] >= IOU:
            yield place, best
            overlaps[:, best] = -1.0
