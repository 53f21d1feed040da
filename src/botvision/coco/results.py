"""COCO's results: detections as JSON records, read and checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import numpy.typing as npt

from botvision.coco.annotations import OUTSIDE, OUTSIDE_PART
from botvision.coco.doubts import fractions
from botvision.coco.masks import read_rles
from botvision.coco.problems import (
    Records,
    are_objects,
    boxes,
    converted,
    numbers,
    places,
    short,
    whole_numbers,
)
from botvision.coco.raw import read_json
from botvision.coco.truth import KINDS, CocoTruth, Kind
from botvision.io.errors import DataError

FIELDS: Mapping[Kind, str] = {"bbox": "bbox", "segm": "segmentation"}


def read_results(
    results: Sequence[Mapping[str, Any]] | str | Path,
) -> tuple[Sequence[Mapping[str, Any]], str]:
    """Return the records of COCO results, and a name for messages.

    Raises:
        DataError: not JSON, or not a list of objects.
    """
    name = str(results) if isinstance(results, str | Path) else "results"
    data = read_json(results) if isinstance(results, str | Path) else results
    if not isinstance(data, Sequence) or not are_objects(data):
        held = _held(data) if isinstance(data, Mapping) else ""
        raise DataError(f"{name}: expected a list of objects with image_id, category_id, score, ...{held}")
    return data, name


def _held(content: Mapping[str, Any]) -> str:
    """What a file holds in place of results."""
    if "images" in content and "categories" in content:
        return "; these are COCO annotations, as --truth takes them"
    if "predictions" in content:
        return "; these predictions are for people, results.json lies beside them"
    return f", got an object with {', '.join(map(short, [*content][:4])) or 'nothing in it'}"


def refuse_others(results: Sequence[Mapping[str, Any]], truth: CocoTruth, name: str, called: str) -> None:
    """Refuse results that are all of images, or all of categories, that the ground truth does not list.

    Args:
        results: COCO's records.
        truth: the ground truth.
        name: of the results, for messages.
        called: name of the truth.

    Raises:
        DataError: one line.
    """
    for key, known, what in (
        ("image_id", truth.images, "an image"),
        ("category_id", _ids(truth), "a category"),
    ):
        given = whole_numbers([record.get(key) for record in results])
        if len(given) and (given >= 0).all() and (places(given, known) < 0).all():
            listed = f"{known.min()} to {known.max()}" if len(known) > 1 else f"{known[0]} alone"
            line = f"no result is of {what} of {called}, which has {listed} ({key} {given[0]} the first of "
            raise DataError(f"{name}: {line}{len(given)}): results on other data, or numbered otherwise")


def doubts(results: Sequence[Mapping[str, Any]], truth: CocoTruth, name: str) -> list[str]:
    """Return lines on what is odd about results that can be evaluated, one for each kind.

    Args:
        results: COCO's records.
        truth: the ground truth.
        name: of the results, for messages.
    """
    images = places(whole_numbers([record.get("image_id") for record in results]), truth.images)
    lines = [
        f"{name}: {key} that is text or decimal is read as a whole number ({count} of them)"
        for key in ("image_id", "category_id")
        if (count := converted([record.get(key) for record in results]))
    ]
    with_objects = np.flatnonzero(truth.counts().sum(axis=0))
    without = with_objects[~np.isin(with_objects, images)]
    if len(without):
        which = f"{len(without)} of the {len(with_objects)} images that have objects"
        first = f"image {truth.images[without[0]]} the first"
        lines.append(f"{name}: no results for {which} ({first}): their objects count as missed")
    found = boxes([record.get("bbox") for record in results])
    known = (images >= 0) & np.isfinite(found).all(axis=1) & (found[:, 2:] > 0).all(axis=1)
    found, sides, numbered = found[known], truth.sizes[images[known]][:, ::-1], np.flatnonzero(known) + 1
    high = found[:, :2] + found[:, 2:]
    lines += [problem.line for problem in fractions(high, sides, name)]
    reach = np.maximum(-found[:, :2], high - sides)
    over = reach > np.maximum(OUTSIDE, OUTSIDE_PART * sides) + 1e-6
    far = np.flatnonzero(over.any(axis=1) & sides.all(axis=1))
    if len(far):
        what = f"{len(far)} of {len(found)} boxes reach up to {reach[far].max():.1f} pixels outside the image"
        lines.append(f"{name}: {what} (result {numbered[far[0]]} the first): expected x, y, width, height")
    scores = np.array([record.get("score") for record in results], dtype=object)[known]
    kinds = whole_numbers([record.get("category_id") for record in results])[known]
    seen = {*zip(images[known].tolist(), kinds.tolist(), map(tuple, found.tolist()), scores, strict=True)}
    if len(seen) < len(found):
        again = f"{len(found) - len(seen)} of {len(found)} results are there before, to the score"
        lines.append(f"{name}: {again}: all but the first of each count as wrong")
    return lines


def kinds_in(results: Sequence[Mapping[str, Any]], truth: CocoTruth) -> list[Kind]:
    """Return what can be evaluated: what the results carry; without any results, what the truth has."""
    if results:
        return [kind for kind in KINDS if any(FIELDS[kind] in record for record in results)]
    return [kind for kind in KINDS if kind == "bbox" or truth.no_masks is None]


def of_other_categories(results: Sequence[Mapping[str, Any]], truth: CocoTruth) -> int:
    """Return how many results are of categories that the ground truth does not list."""
    return int(_unlisted(whole_numbers([record.get("category_id") for record in results]), truth).sum())


def _unlisted(kinds: npt.NDArray[np.int64], truth: CocoTruth) -> npt.NDArray[np.bool_]:
    return (kinds >= 0) & (places(kinds, _ids(truth)) < 0)


def _ids(truth: CocoTruth) -> npt.NDArray[np.int64]:
    return np.array([category.id for category in truth.categories], dtype=np.int64)


class FoundObjects:
    """N results of one kind by columns, checked against the ground truth.

    Results of categories that the ground truth does not list are left out, unless all are: as pycocotools has
    it, they count neither for nor against a detector.

    Args:
        results: COCO's records; those of the other kind, a box beside a mask, say, are not looked at.
        truth: whose images and categories they name.
        kind: boxes or masks.
        name: of the results, for messages.
        counted: number of each result, for messages; by default 1, 2, ...

    Attributes:
        images: int64 (N), places.
        categories: int64 (N), places.
        scores: float64 (N).
        boxes: float64 (N, 4), x, y, width, height; zeros for masks.

    Raises:
        DataError: one line that names the first record that cannot be used, and why.
    """

    def __init__(
        self,
        results: Sequence[Mapping[str, Any]],
        truth: CocoTruth,
        kind: Kind,
        name: str = "results",
        counted: Sequence[int] | None = None,
    ) -> None:
        self._truth = truth
        counted = counted or range(1, len(results) + 1)
        kinds = whole_numbers([record.get("category_id") for record in results])
        others = _unlisted(kinds, truth)
        if others.any() and not others.all():
            kept = np.flatnonzero(~others).tolist()
            results, counted, kinds = [results[k] for k in kept], [counted[k] for k in kept], kinds[kept]
        records = Records(results, lambda k: (f"{name}: result {counted[k]}", None, None))
        self.images = _known(records, "image_id", truth.images)
        self.categories = _known(records, "category_id", _ids(truth), kinds)
        scores = records.column("score")
        self.scores = numbers(scores)
        records.refuse(
            np.isnan(self.scores), "annotation", lambda k: f"score is {_said(scores[k])}, expected a number"
        )
        given = records.column(FIELDS[kind])
        self.boxes = np.zeros((len(results), 4))
        self._masks: list[dict[str, Any] | list[list[float]]] | None = None
        if kind == "bbox":
            self.boxes, expected = boxes(given), "expected [x, y, width, height]"
            bad = ~(np.isfinite(self.boxes).all(axis=1) & (self.boxes[:, 2:] >= 0).all(axis=1))
            records.refuse(bad, "box", lambda k: f"bbox is {_said(given[k])}, {expected}")
        else:
            unknown = (truth.sizes[self.images] == 0).any(axis=1)
            needed = "image {} has no height and width in the ground truth, which masks need".format
            records.refuse(unknown, "size", lambda k: needed(truth.images[self.images[k]]))
            sound = np.flatnonzero(records.sound).tolist()
            rles, self._areas, faults = read_rles({k: given[k] for k in sound}, truth.sizes[self.images])
            self._masks = [*rles.values()]
            broken = np.zeros(len(given), dtype=bool)
            broken[[*faults]] = True
            records.refuse(broken, "segmentation", lambda k: faults[k])
        for problem in records.problems:
            raise DataError(problem.line)

    def index(self) -> hotcoco.COCO:
        """Return hotcoco's index of them; sizes are those of the boxes or masks alone."""
        columns = [self.images + 1, self.boxes, self.scores, self.categories + 1]
        index = self._truth.index("bbox" if self._masks is None else "segm")
        loaded = index.load_res(np.column_stack(columns), segmentation=self._masks)
        if self._masks is not None:
            loaded.update_anns(ids=np.arange(1, len(self._masks) + 1), area=self._areas)
        return loaded


def _known(
    records: Records, key: str, known: npt.NDArray[np.int64], ids: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Places of the ids that results name; what is none, or not known, is refused."""
    given = records.column(key)
    ids = whole_numbers(given) if ids is None else ids
    found, expected = places(ids, known), "expected a whole number from 0"
    records.refuse(ids < 0, "annotation", lambda k: f"{key} is {_said(given[k])}, {expected}")
    records.refuse(found < 0, "annotation", lambda k: f"{key} {given[k]} is not in the ground truth's list")
    return found


def _said(value: object) -> str:
    return "missing" if value is None else short(value)
