"""Intervals over images of the runs of a study: what they would have scored on other images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from botvision.metrics.bootstrap import RESAMPLES, ImageSampler, interval_of, per_image_stem
from botvision.studies.outcome import Place, SeedRun, evaluation_at, score_of

EQUAL = 1e-6  # a score from the file of single images may differ from the summary's by its rounding


class Bootstrap:
    """Scores of runs over samples of their images: runs on as many images are given the same samples.

    Args:
        resamples: Number of samples.
        seed: Of the draws.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.resamples, self._sampler = resamples, ImageSampler(resamples, seed)

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
                sampled = self._sampler.sampled(path, metric, group)
                if abs(sampled.whole - (score_of(run, metric, place) or 0.0)) > EQUAL:
                    raise ValueError(f"{run.folder.name}/{path.name} does not give the run's score")
                means += sign * sampled.samples / len(pairs)
                marks.add(sampled.mark)
                images = sampled.images
        if len(marks) > 1:
            raise ValueError("the runs were not measured on the same images")
        found = interval_of(means)
        return found.low, found.high, images


def per_image_file(run: SeedRun, metric: str, place: Place | None = None) -> tuple[Path | None, int | None]:
    """Return where a run says what it made of single images, None if it does not; and of which group."""
    if place is None:
        return run.folder / f"{per_image_stem(metric)}.npz", None
    found = evaluation_at(run, place)
    return (None, None) if found is None else (found.per_image, found.group)
