"""Paired bootstrap over images: what trained networks would have scored on other images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from botvision.evaluation.coco_files import Kind
from botvision.evaluation.coco_matches import load_matches, load_sides
from botvision.evaluation.predictions import load_predictions
from botvision.evaluation.seeds import LEVEL
from botvision.study.result import Place, SeedRun, evaluation_at, score_of

RESAMPLES = 1000
EQUAL = 1e-6  # a score from the file of single images may differ from the summary's by its rounding

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
        whole: Of all images, each once.
        samples: float64 (S,).
        images: Number of images.
        mark: By which the images, in their order and with their ground truth, are told.
    """

    whole: float
    samples: npt.NDArray[np.float64]
    images: int
    mark: bytes


class Bootstrap:
    """Scores of runs over samples of their images: runs on as many images are given the same samples.

    Args:
        resamples: Number of samples.
        seed: Of the draws.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.resamples, self._seed = resamples, seed
        self._measured: dict[tuple[Path, str, int | None], Sampled] = {}
        self._drawn: dict[int, npt.NDArray[np.int32]] = {}

    def interval(
        self, pairs: Sequence[tuple[SeedRun, SeedRun]], metric: str, place: Place | None = None
    ) -> tuple[float, float, int]:
        """Return the 95 % interval of the mean difference of pairs of runs, and the number of images.

        Every sample of images is the same for all of the runs, so that what makes an image hard for both
        cancels out.

        Args:
            pairs: At least one; the second run is subtracted.
            metric: Name.
            place: On an axis; None for the runs' own evaluation.

        Raises:
            ValueError: There is no such interval, and why.
        """
        means, marks, images = np.zeros(self.resamples), set(), 0
        for pair in pairs:
            for run, sign in zip(pair, (1, -1), strict=True):
                path, group = per_image_file(run, metric, place)
                if path is None or not path.is_file():
                    raise ValueError("the runs kept nothing of single images")
                found = self._sampled(path, metric, group)
                if abs(found.whole - (score_of(run, metric, place) or 0.0)) > EQUAL:
                    raise ValueError(f"{run.folder.name}/{path.name} does not give the run's score")
                means += sign * found.samples / len(pairs)
                marks.add(found.mark)
                images = found.images
        if len(marks) > 1:
            raise ValueError("the runs were not measured on the same images")
        tail = 50 * (1 - LEVEL)
        low, high = np.nanpercentile(means, [tail, 100 - tail])
        return float(low), float(high), images

    def _sampled(self, path: Path, metric: str, group: int | None) -> Sampled:
        key = path, metric, group
        if key not in self._measured:
            self._measured[key] = self._measure(path, metric, group)
        return self._measured[key]

    def _measure(self, path: Path, metric: str, group: int | None) -> Sampled:
        if metric == "top1":
            said = load_predictions(path)
            said = said if group is None else said.of_group(group)
            count = len(said.target)
            whole, samples = (said.accuracy(weights) for weights in self._weights(count))
            return Sampled(float(whole[0]), samples, count, said.target.tobytes())
        if metric == SIDES:
            sides = load_sides(path)
            if sides is None:
                raise ValueError(f"{path.name} has nothing of {metric}")
            whole, samples = (sides.of_samples(weights) for weights in self._weights(len(sides.images)))
            mark = sides.images.tobytes() + sides.parts.tobytes()
            return Sampled(float(whole[0]), samples, len(sides.images), mark)
        if metric not in AP:
            raise ValueError(f"{metric} is not known for single images")
        kind, iou = AP[metric]
        matches = load_matches(path, kind)
        if matches is None:
            raise ValueError(f"{path.name} has nothing of {metric}")
        count = len(matches.images)
        whole, samples = (matches.average_precision(weights, iou) for weights in self._weights(count))
        return Sampled(float(whole[0]), samples, count, matches.images.tobytes() + matches.objects.tobytes())

    def _weights(self, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Every image once, and how often each sample has each image: (1, count), (S, count)."""
        if count not in self._drawn:
            draws = np.random.default_rng([self._seed, count])
            rows = [
                np.bincount(draws.integers(0, count, count), minlength=count) for _ in range(self.resamples)
            ]
            self._drawn[count] = np.stack(rows).astype(np.int32)
        return np.ones((1, count), dtype=np.int32), self._drawn[count]


def per_image_file(run: SeedRun, metric: str, place: Place | None = None) -> tuple[Path | None, int | None]:
    """Return where a run says what it made of single images, None if it does not; and of which group."""
    if place is None:
        return run.folder / ("matches.npz" if metric in AP or metric == SIDES else "predictions.npz"), None
    found = evaluation_at(run, place)
    return (None, None) if found is None else (found.per_image, found.group)
