"""Paired bootstrap over images: what trained networks would have scored on other images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from botvision.coco.matches import load_matches, load_sides
from botvision.coco.truth import Kind
from botvision.metrics.predictions import load_predictions
from botvision.metrics.seeds import LEVEL, Interval

Found = TypeVar("Found")

RESAMPLES = 1000

# Metric -> kind of matches, place of the IoU (None: mean over all ten).
AP: Mapping[str, tuple[Kind, int | None]] = {
    "box_ap": ("bbox", None),
    "box_ap50": ("bbox", 0),
    "mask_ap": ("segm", None),
    "mask_ap50": ("segm", 0),
}
SIDES = "side_accuracy"


@dataclass(frozen=True)
class Sampled:
    """A run's score over samples of its images.

    Attributes:
        whole: of all images, each once.
        samples: float64 (S,).
        images: number of images.
        mark: by which the images, in their order and with their ground truth, are told.
    """

    whole: float
    samples: npt.NDArray[np.float64]
    images: int
    mark: bytes


class ImageSampler:
    """Scores of evaluations over samples of their images: as many images are given the same samples.

    What makes an image hard for two networks so cancels out in the difference of their samples.

    Args:
        resamples: number of samples S.
    """

    def __init__(self, resamples: int = RESAMPLES) -> None:
        self.resamples = resamples
        self._measured: dict[tuple[Path, str, int | None], Sampled] = {}
        self._drawn: dict[int, npt.NDArray[np.int32]] = {}

    def sampled(self, path: Path, metric: str, group: int | None = None) -> Sampled:
        """Return the score by a file of single images; a file is read once.

        Args:
            path: `predictions*.npz` for "top1", `matches*.npz` for the metrics of `AP` and side accuracy.
            metric: its name.
            group: of the images only those of this interval of a quantity; None for all.

        Raises:
            ValueError: no such file, or nothing of the metric in it.
        """
        key = path, metric, group
        if key not in self._measured:
            self._measured[key] = self._measure(path, metric, group)
        return self._measured[key]

    def _measure(self, path: Path, metric: str, group: int | None) -> Sampled:
        if metric == "top1":
            said = load_predictions(path)
            said = said if group is None else said.of_group(group)
            score, marks = said.accuracy, (said.target,)
        elif metric == SIDES:
            sides = _known(load_sides(path), path, metric)
            score, marks = sides.of_samples, (sides.images, sides.parts)
        elif metric in AP:
            kind, iou = AP[metric]
            matches = _known(load_matches(path, kind), path, metric)
            score, marks = partial(matches.average_precision, iou=iou), (matches.images, matches.objects)
        else:
            raise ValueError(f"{metric} is not known for single images")
        whole, samples = (score(weights) for weights in self._weights(len(marks[0])))
        return Sampled(float(whole[0]), samples, len(marks[0]), b"".join(mark.tobytes() for mark in marks))

    def _weights(self, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Every image once, and how often each sample has each image: (1, count), (S, count)."""
        if count not in self._drawn:
            draws = np.random.default_rng([0, count])
            samples = (draws.integers(0, count, count) for _ in range(self.resamples))
            rows = [np.bincount(chosen, minlength=count) for chosen in samples]
            self._drawn[count] = np.stack(rows).astype(np.int32)
        return np.ones((1, count), dtype=np.int32), self._drawn[count]


def _known(found: Found | None, path: Path, metric: str) -> Found:
    if found is None:
        raise ValueError(f"{path.name} has nothing of {metric}")
    return found


def interval_of(samples: npt.NDArray[np.float64]) -> Interval:
    """Return the 95 % interval of samples (S,); those that are not-a-number do not count."""
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(samples, [tail, 100 - tail])
    return Interval(float(low), float(high))


def per_image_file(table: Path, metric: str) -> Path:
    """Return where an evaluation keeps what it made of single images, beside its `eval*.json`."""
    kind = "matches" if metric in AP or metric == SIDES else "predictions"
    return table.with_name(f"{kind}{table.stem.removeprefix('eval')}.npz")
