"""Which detections match which objects, image by image: from these AP follows for any sample of the images.

Matching looks at one image at a time, so it is done once. A bootstrap then only counts the images anew, which
takes milliseconds a sample where COCO's own way takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import hotcoco
import numpy as np
import numpy.typing as npt

from botvision.coco.results import FoundObjects, read_results
from botvision.coco.sides import SideAccuracy
from botvision.coco.truth import CocoTruth, Kind, read_truth
from botvision.io.files import replacing

THRESHOLDS = 10  # IoU .50:.05:.95
RECALLS = np.linspace(0.0, 1.0, 101)
CELLS = 4_000_000  # of the largest array of a step: samples x detections
HIT, MISS, IGNORED = 1, 0, -1
T = TypeVar("T")


@dataclass(frozen=True)
class Matches:
    """The detections of a data set, held against its objects; I images, K classes, N detections.

    Attributes:
        images: int64 (I,), ids in ascending order.
        objects: int32 (K, I), how many of each class an image has, crowds aside.
        category: int32 (N,), place of the class, ascending.
        image: int32 (N,), place of the image; within a class in descending order of scores, in which COCO's
            code goes through them.
        state: int8 (10, N), for each IoU: 1 matches an object, 0 does not, -1 does not count (it lies in a
            crowd).
    """

    images: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    image: npt.NDArray[np.int32]
    state: npt.NDArray[np.int8]

    def average_precision(self, weights: npt.NDArray[np.integer], iou: int | None = None) -> np.ndarray:
        """Return COCO's AP of samples of the images.

        Args:
            weights: whole numbers (S, I): how often each sample has each image. All ones is the data set.
            iou: place of one IoU, 0 for AP50; None for the mean over all ten.

        Returns:
            float64 (S,), fractions; not-a-number for a sample without any object.
        """
        ious = range(THRESHOLDS) if iou is None else (iou,)
        total, classes = np.zeros(len(weights)), np.zeros(len(weights), dtype=np.int64)
        edges = np.searchsorted(self.category, np.arange(len(self.objects) + 1))
        for k in np.flatnonzero(self.objects.any(axis=1)):
            mine = slice(edges[k], edges[k + 1])
            step = max(1, CELLS // max(1, mine.stop - mine.start))
            for first in range(0, len(weights), step):
                part = slice(first, first + step)
                chosen = weights[part].astype(np.int64)
                objects = chosen @ self.objects[k].astype(np.int64)
                counts = chosen[:, self.image[mine]]  # (S, n)
                before = np.cumsum(counts, axis=1)
                found = np.zeros(len(objects))
                for t in ious:
                    found += _class_ap(counts, before, self.state[t, mine], objects)
                total[part] += np.where(objects > 0, found / len(ious), 0.0)
                classes[part] += objects > 0
        with np.errstate(invalid="ignore"):
            return total / classes


def match_coco(
    truth: CocoTruth | Mapping[str, Any] | str | Path,
    results: Sequence[Mapping[str, Any]] | str | Path,
    kind: Kind,
    max_detections: int = 100,
) -> Matches:
    """Match COCO results to ground truth; arguments and errors are those of `evaluate_coco`."""
    truth = read_truth(truth)
    index, (records, name) = truth.index(kind), read_results(results)
    evaluation = hotcoco.COCOeval(index, FoundObjects(records, truth, kind, name).index(), kind)
    evaluation.params.max_dets = [max_detections]
    evaluation.params.area_rng = evaluation.params.area_rng[:1]
    evaluation.params.area_rng_lbl = evaluation.params.area_rng_lbl[:1]
    category, image, state = [], [], []
    for k in range(len(truth.categories)):
        evaluation.params.cat_ids = [k + 1]  # one by one: the records of all would fill the memory
        evaluation.evaluate()
        places, states, scores = [np.empty(0, np.int32)], [np.empty((THRESHOLDS, 0), np.int8)], [np.empty(0)]
        for record in filter(None, evaluation.eval_imgs):
            matched = np.array(record["dtMatched"], dtype=bool).reshape(THRESHOLDS, -1)
            ignored = np.array(record["dtIgnore"], dtype=bool).reshape(THRESHOLDS, -1)
            states.append(np.where(ignored, IGNORED, np.where(matched, HIT, MISS)).astype(np.int8))
            places.append(np.full(matched.shape[1], record["image_id"] - 1, dtype=np.int32))
            scores.append(np.array(record["dtScores"], dtype=np.float64))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        image.append(np.concatenate(places)[order])
        state.append(np.concatenate(states, axis=1)[:, order])
        category.append(np.full(len(order), k, dtype=np.int32))
    objects = truth.counts().astype(np.int32)
    columns = np.concatenate(category), np.concatenate(image), np.concatenate(state, axis=1)
    return Matches(truth.images, objects, *columns)


def save_matches(
    matches: Mapping[Kind, Matches], path: str | Path, sides: SideAccuracy | None = None
) -> None:
    """Write the matches of boxes, masks or both, and of sides, as one compressed ``.npz``, or nothing."""
    parts = {**matches, **({} if sides is None else {"side": sides})}
    arrays = {f"{kind}_{name}": v for kind, found in parts.items() for name, v in vars(found).items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_matches(path: str | Path, kind: Kind) -> Matches | None:
    """Read what `save_matches` wrote; None if it holds none of that kind.

    Raises:
        ValueError: the file is not such a file.
    """
    return _load(path, kind, Matches)


def load_sides(path: str | Path) -> SideAccuracy | None:
    """Read the sides that `save_matches` wrote; None if there are none.

    Raises:
        ValueError: the file is not such a file.
    """
    return _load(path, "side", SideAccuracy)


def _load(path: str | Path, prefix: str, kind: Callable[..., T]) -> T | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            own = [name for name in arrays if name.startswith(f"{prefix}_")]
            return kind(**{name.removeprefix(f"{prefix}_"): arrays[name] for name in own}) if own else None
    except (ValueError, TypeError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"{path}: not a file of matches ({' '.join(str(error).split())})") from None


def _class_ap(counts: np.ndarray, before: np.ndarray, state: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """AP of one class at one IoU, float64 (S,).

    Precision only rises at a hit, so the curve's upper envelope has its corners there. Copies of a detection
    lie side by side, so that the last copy of a hit stands for all of them.

    Args:
        counts: (S, n), how often a sample has each detection.
        before: (S, n), the sum of the counts up to and with each detection.
        state: (n,).
        objects: (S,), in each sample.
    """
    hits = np.flatnonzero(state == HIT)
    if not len(hits):
        return np.zeros(len(counts))
    right = np.cumsum(counts[:, hits], axis=1)
    counted = before[:, hits]
    ignored = np.flatnonzero(state == IGNORED)
    if len(ignored):
        sums = np.cumsum(counts[:, ignored], axis=1)
        places = np.searchsorted(ignored, hits)  # so many of them come before the hit
        counted = counted - np.where(places > 0, sums[:, np.maximum(places - 1, 0)], 0)
    envelope = np.maximum.accumulate((right / np.maximum(counted, 1))[:, ::-1], axis=1)[:, ::-1]
    # The recalls that are reached at a hit and not at the one before have the envelope's value there.
    reached = np.searchsorted(RECALLS, right / np.maximum(objects, 1)[:, None], side="right")
    return (envelope * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
