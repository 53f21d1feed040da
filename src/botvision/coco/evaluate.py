"""Average precision of boxes and masks as COCO defines it: the twelve numbers of pycocotools, and more.

hotcoco does the matching, many times faster than pycocotools. The numbers are read from its arrays here: a
summary as pycocotools makes it knows no AP at another number of detections than 100.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np

from botvision.coco.results import FoundObjects, read_results
from botvision.coco.truth import KINDS, CocoTruth, Kind, read_truth

# The twelve, in the order of pycocotools' `stats`.
NUMBERS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar_max", "ar_small", "ar_medium", "ar_large"),
)
ALL, SMALL, MEDIUM, LARGE = range(4)  # areas, as they lie in the arrays: all, < 32^2, up to 96^2, larger


@dataclass(frozen=True)
class ClassMetrics:
    """Results of one class, fractions 0..1; not-a-number where the ground truth has none of it.

    Attributes:
        images: that hold at least one instance.
        instances: in the ground truth, without crowds.
        ar: average recall at the largest number of detections.
    """

    id: int
    name: str
    images: int
    instances: int
    ap: float
    ap50: float
    ar: float


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's numbers over a whole data set, fractions 0..1; not-a-number where the ground truth has nothing.

    AP is the mean over IoU .50:.05:.95, over classes, and over 101 recalls. Small is an area below 32x32
    pixels, large above 96x96.

    Attributes:
        kind: "bbox" or "segm".
        images: of the ground truth, those without any object included.
        instances: in the ground truth, without crowds.
        max_detections: of one class in one image, the highest scores first; AP, `ar_max` and AR by size are
            taken at this number.
        ar1: average recall at one detection; `ar10` at ten, or at `max_detections` if that is less.
        per_class: in ascending order of category ids.
        precision50: mean over classes of the precision at the recalls 0, 0.01, ..., 1, at IoU .50; empty if
            the ground truth has nothing.
        precision75: the same at IoU .75.
        precision: the same, mean over all ten IoUs.
    """

    kind: Kind
    images: int
    instances: int
    max_detections: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar_max: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: tuple[ClassMetrics, ...]
    precision50: tuple[float, ...]
    precision75: tuple[float, ...]
    precision: tuple[float, ...]

    def numbers(self) -> dict[str, float]:
        """Return the twelve by name, in the order of pycocotools."""
        return {name: getattr(self, name) for name in NUMBERS}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; not-a-number, which JSON lacks, becomes None."""
        values = {**asdict(self), "per_class": [asdict(entry) for entry in self.per_class]}
        return {key: _plain(value) for key, value in values.items()}


def evaluate_coco(
    truth: CocoTruth | Mapping[str, Any] | str | Path,
    results: Sequence[Mapping[str, Any]] | str | Path,
    kind: Kind,
    max_detections: int = 100,
    *,
    name: str | None = None,
) -> CocoMetrics:
    """Return the numbers of COCO results.

    Args:
        truth: COCO instances as a dict or a JSON file, or what `read_truth` made of them.
        results: made by `Instances.records`, or a JSON file of them. Their order decides between equals.
        kind: "bbox" or "segm". For masks a box beside the mask is not looked at.
        max_detections: the highest scores of one class in one image that count, as pycocotools counts them.
        name: of the results, for messages; by default the file's.

    Raises:
        ValueError: a record that cannot be used (unknown image or category, no score, a mask of another size,
            ...), no masks in the ground truth, another kind, or a number below 1.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected bbox or segm, got {kind!r}")
    if max_detections < 1:
        raise ValueError(f"max_detections: expected a number above 0, got {max_detections}")
    truth = read_truth(truth)
    index = truth.index(kind)
    records, file = read_results(results)
    found = FoundObjects(records, truth, kind, name or file)
    evaluation = hotcoco.COCOeval(index, found.index(), kind)
    evaluation.params.max_dets = [min(1, max_detections), min(10, max_detections), max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    arrays = evaluation.eval
    if arrays is None:
        raise RuntimeError("hotcoco accumulated nothing")
    # IoUs (T), recalls (R), classes (K), areas (A), detections (M): (T, R, K, A, M) and (T, K, A, M).
    return _metrics(arrays["precision"], arrays["recall"], truth, kind, max_detections)


def _metrics(
    precision: np.ndarray, recall: np.ndarray, truth: CocoTruth, kind: Kind, max_detections: int
) -> CocoMetrics:
    def ap(iou: int | None = None, area: int = ALL) -> float:
        return _mean((precision if iou is None else precision[[iou]])[..., area, 2])

    def ar(area: int = ALL, detections: int = 2) -> float:
        return _mean(recall[..., area, detections])

    curves = precision[:, :, :, ALL, 2]
    known = (curves > -1).all(axis=(0, 1))  # (K,)
    mean = curves[:, :, known].mean(axis=2) if known.any() else np.empty((len(curves), 0))  # (T, R)
    counts = truth.counts()
    instances, images = counts.sum(axis=1).tolist(), (counts > 0).sum(axis=1).tolist()
    return CocoMetrics(
        kind=kind,
        images=len(truth.images),
        instances=sum(instances),
        max_detections=max_detections,
        ap=ap(), ap50=ap(0), ap75=ap(5),
        ap_small=ap(area=SMALL), ap_medium=ap(area=MEDIUM), ap_large=ap(area=LARGE),
        ar1=ar(detections=0), ar10=ar(detections=1), ar_max=ar(),
        ar_small=ar(SMALL), ar_medium=ar(MEDIUM), ar_large=ar(LARGE),
        per_class=tuple(
            ClassMetrics(
                *category, images[k], instances[k],
                _mean(curves[:, :, k]), _mean(curves[0, :, k]), _mean(recall[:, k, ALL, 2]),
            )
            for k, category in enumerate(truth.categories)
        ),
        precision50=tuple(mean[0].tolist()),
        precision75=tuple(mean[5].tolist()),
        precision=tuple(mean.mean(axis=0).tolist()),
    )  # fmt: skip


def _mean(values: np.ndarray) -> float:
    """Mean of the numbers that there are; -1 stands for those that there are not."""
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
