"""COCO's records all at once, many times faster than one by one.

Each function answers None, or False, unless it is sure that every record is as the checks of `coco_checks`
want it; those then say which one is not, or that all are, in a form that files of COCO do not have.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import mask as rle

from botvision.coco.checks import MOST_LETTERS

LARGEST = 2**53  # beyond, whole numbers are not exact as floats: no pixel, no score
MOST_PIXELS = 2**31
_FIRST, _END, _BEYOND = ord("0"), ord("0") + 32, ord("0") + 64  # letters below _END end a run

Records = Sequence[Mapping[str, Any]]
Sizes = Mapping[int, tuple[int, int] | None]


@dataclass(frozen=True)
class Annotations:
    """Ground truth by columns, N objects and crowds.

    Attributes:
        images: ids.
        categories: ids.
        boxes: float64 (N, 4), x, y, width, height in pixels.
        areas: float64 (N,), in pixels.
        crowd: bool (N,).
        masks: polygons or an RLE each; None if they cannot be used.
    """

    images: list[int]
    categories: list[int]
    boxes: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]
    masks: list[Any] | None


@dataclass(frozen=True)
class Detections:
    """Results of one kind by columns, N of them.

    Attributes:
        rows: float64 (N, 7): image, box (x, y, width, height; zeros for masks), score, category.
        masks: an RLE each; None for boxes.
        areas: float64 (N,), of the masks in pixels; None for boxes.
    """

    rows: npt.NDArray[np.float64]
    masks: list[dict[str, Any] | list[list[float]]] | None = None
    areas: npt.NDArray[np.float64] | None = None


def usual_annotations(records: Records, sizes: Sizes, categories: Collection[int]) -> Annotations | None:
    """Ground truth with boxes, areas and masks.

    Args:
        records: annotations.
        sizes: (height, width) of the images by their ids.
        categories: ids.
    """
    images, kinds = known_ids(records, "image_id", sizes), known_ids(records, "category_id", categories)
    boxes, areas, masks = (
        usual_boxes(records),
        numbers(column(records, "area")),
        column(records, "segmentation"),
    )
    if images is None or kinds is None or boxes is None or areas is None or masks is None:
        return None
    own = [sizes[image] for image in images]
    outlined = [type(mask) is list for mask in masks]
    others = [place for place, polygons in enumerate(outlined) if not polygons]
    if None in own or not are_polygons([mask for mask, yes in zip(masks, outlined, strict=True) if yes]):
        return None
    if rle_areas([masks[k] for k in others], [own[k] for k in others]) is None:
        return None
    crowd = np.fromiter((bool(record.get("iscrowd")) for record in records), np.bool_, len(records))
    return Annotations(images, kinds, boxes, areas, crowd, masks)


def usual_results(
    records: Records, sizes: Sizes, categories: Collection[int], masks: bool
) -> Detections | None:
    """Results with boxes, or with masks.

    Args:
        records: results.
        sizes: (height, width) of the images by their ids.
        categories: ids.
        masks: of results as masks; else as boxes.
    """
    images, kinds = known_ids(records, "image_id", sizes), known_ids(records, "category_id", categories)
    scores = numbers(column(records, "score"))
    if images is None or kinds is None or scores is None:
        return None
    if max((*images, *kinds), default=0) > LARGEST:
        return None
    rows = np.zeros((len(records), 7))
    rows[:, 0], rows[:, 5], rows[:, 6] = images, scores, kinds
    if masks:
        found = column(records, "segmentation")
        areas = None if found is None else rle_areas(found, [sizes[image] for image in images])
        return None if areas is None else Detections(rows, found, areas)
    boxes = usual_boxes(records)
    if boxes is None:
        return None
    rows[:, 1:5] = boxes
    return Detections(rows)


def column(records: Records, key: str) -> list[Any] | None:
    """The values of a key that every record has."""
    try:
        return list(map(itemgetter(key), records))
    except KeyError:
        return None


def known_ids(records: Records, key: str, known: Collection[int]) -> list[int] | None:
    """Ids that are all among the known ones; what is known was checked before."""
    values = column(records, key)
    if values is None or not _only(values, int) or not set(known) >= set(values):
        return None
    return values


def numbers(values: Sequence[Any] | None) -> npt.NDArray[np.float64] | None:
    """float64 (N,): finite numbers of usual size, no truth values."""
    if values is None or not _only(values, int, float):
        return None
    try:
        found = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return found if bool((np.abs(found) < LARGEST).all()) else None


def usual_boxes(records: Records) -> npt.NDArray[np.float64] | None:
    """float64 (N, 4): x, y, width, height, the last two at least 0."""
    values = column(records, "bbox")
    if values is None or not _only(values, list) or not set(map(len, values)) <= {4}:
        return None
    flat = numbers(list(chain.from_iterable(values)))
    if flat is None:
        return None
    boxes = flat.reshape(-1, 4)
    return boxes if bool((boxes[:, 2:] >= 0).all()) else None


def are_polygons(masks: Sequence[list[Any]]) -> bool:
    """Whether each is a list of one or more polygons, each flat, of three or more points."""
    rings = list(chain.from_iterable(masks))
    if not all(masks) or not _only(rings, list):
        return False
    lengths = np.fromiter(map(len, rings), np.int64, len(rings))
    if (lengths < 6).any() or (lengths % 2).any():
        return False
    try:
        return math.isfinite(sum(map(sum, rings)))  # no sum of anything but finite numbers is one
    except (TypeError, OverflowError):
        return False


def rle_areas(
    masks: Sequence[Any], sizes: Sequence[tuple[int, int] | None]
) -> npt.NDArray[np.float64] | None:
    """float64 (N,): pixels of RLEs that fill exactly (height, width) of their images, compressed or not."""
    stated, counts = None, None
    if _only(masks, dict) and None not in sizes:
        stated, counts = column(masks, "size"), column(masks, "counts")
    if stated is None or counts is None or not _only(stated, list) or list(map(tuple, stated)) != list(sizes):
        return None
    pixels = [height * width for height, width in stated]
    if max(pixels, default=0) >= MOST_PIXELS:
        return None
    filled = _fill(counts, pixels)
    try:  # refuses runs below 0, and more than the size holds
        return rle.area(list(masks)).astype(np.float64) if filled else None
    except (ValueError, TypeError, OverflowError):
        return None


def _fill(counts: Sequence[Any], pixels: Sequence[int]) -> bool:
    """Whether the run lengths fill so many pixels (lists) or as many or more (letters), each."""
    if _only(counts, str):
        return _fill_compressed(counts, pixels)
    letters = [(runs, area) for runs, area in zip(counts, pixels, strict=True) if type(runs) is str]
    lists = [(runs, area) for runs, area in zip(counts, pixels, strict=True) if type(runs) is list]
    if len(letters) + len(lists) < len(counts):
        return False
    return all(
        _only(runs, int) and min(runs, default=-1) >= 0 and sum(runs) == area for runs, area in lists
    ) and _fill_compressed([runs for runs, _ in letters], [area for _, area in letters])


def _fill_compressed(counts: Sequence[str], pixels: Sequence[int]) -> bool:
    """Whether the letters are run lengths that fill so many pixels or more, each."""
    whole, ends = "".join(counts), "".join([runs[-1:] for runs in counts])
    if len(ends) < len(counts) or not whole.isascii() or max(ends, default="0") >= chr(_END):
        return False
    letters = np.frombuffer(whole.encode("ascii"), dtype=np.uint8)
    if len(letters) and (letters.min() < _FIRST or letters.max() >= _BEYOND):
        return False
    if _in_a_row(letters >= _END, MOST_LETTERS):
        return False
    size = [1, 0]
    mask: dict[str, Any] = {"size": size, "counts": ""}  # one for all, which saves a tenth of the loop
    for runs, area in zip(counts, pixels, strict=True):
        size[1], mask["counts"] = area - 1, runs
        try:
            rle.area(mask)
        except ValueError:
            continue  # too many for one pixel less
        return False  # the codec would count missing ones as zeros
    return True


def _in_a_row(flags: npt.NDArray[np.bool_], length: int) -> bool:
    """Whether so many flags in a row are set."""
    together = 1  # flags[k] says whether so many from the k-th on are set
    while together < length:
        step = min(together, length - together)
        flags = flags[:-step] & flags[step:]
        together += step
    return bool(flags.any())


def _only(values: Any, *kinds: type) -> bool:  # noqa: ANN401  any iterable
    return set(map(type, values)) <= set(kinds)
