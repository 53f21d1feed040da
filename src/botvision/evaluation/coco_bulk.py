"""COCO's records all at once, many times faster than one by one.

Each function answers None, or False, unless it is sure that every record is as the checks of `coco_checks`
want it; those then say which one is not, or that all are, in a form that files of COCO do not have.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import mask as rle

LARGEST = 2**53  # beyond, whole numbers are not exact as floats: no pixel, no score
MOST_PIXELS = 2**31
_FIRST, _END, _BEYOND = ord("0"), ord("0") + 32, ord("0") + 64  # letters below _END end a run

Records = Sequence[Mapping[str, Any]]
Sizes = Mapping[int, tuple[int, int] | None]


def usual_annotations(
    records: Records, sizes: Sizes, categories: Collection[int]
) -> list[dict[str, Any]] | None:
    """Ground truth with boxes, areas and masks, numbered from 1, as hotcoco takes it.

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
    outlined = [type(mask) is list for mask in masks]
    outlines = [mask for mask, polygons in zip(masks, outlined, strict=True) if polygons]
    others = [place for place, polygons in enumerate(outlined) if not polygons]
    own = [sizes[image] for image in images]
    if not are_polygons(outlines) or not are_rles([masks[k] for k in others], [own[k] for k in others]):
        return None
    if None in own:
        return None
    rows = zip(images, kinds, boxes.tolist(), areas.tolist(), masks, records, strict=True)
    return [
        {
            "id": number, "image_id": image, "category_id": kind, "bbox": box, "area": area,
            "iscrowd": int(bool(record.get("iscrowd"))), "segmentation": mask,
        }
        for number, (image, kind, box, area, mask, record) in enumerate(rows, 1)
    ]  # fmt: skip


def usual_results(
    records: Records, sizes: Sizes, categories: Collection[int], masks: bool
) -> list[dict[str, Any]] | None:
    """Results with the fields of one kind alone, as hotcoco takes them.

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
    values: Sequence[object] | None
    if masks:
        field, values = "segmentation", column(records, "segmentation")
        if values is None or not are_rles(values, [sizes[image] for image in images]):
            return None
    else:
        boxes = usual_boxes(records)
        field, values = "bbox", None if boxes is None else boxes.tolist()
        if values is None:
            return None
    return [
        {"image_id": image, "category_id": kind, "score": score, field: value}
        for image, kind, score, value in zip(images, kinds, scores.tolist(), values, strict=True)
    ]


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
    if not all(masks) or not _only(rings, list) or not _only(chain.from_iterable(rings), int, float):
        return False
    lengths = np.array(list(map(len, rings)), dtype=np.int64)
    if (lengths < 6).any() or (lengths % 2).any():
        return False
    try:
        return math.isfinite(sum(map(sum, rings)))  # it would not be if one of them were not
    except OverflowError:
        return False


def are_rles(masks: Sequence[Any], sizes: Sequence[tuple[int, int] | None]) -> bool:
    """Whether each is an RLE that fills exactly (height, width) of its image, compressed or not."""
    if not _only(masks, dict) or None in sizes:
        return False
    stated, counts = column(masks, "size"), column(masks, "counts")
    if stated is None or counts is None or stated != [list(size) for size in sizes if size is not None]:
        return False
    pixels = [height * width for height, width in stated]
    if max(pixels, default=0) >= MOST_PIXELS:
        return False
    text, plain = [], True
    for mask, runs, area in zip(masks, counts, pixels, strict=True):
        if type(runs) is str:
            text.append((mask, runs, area))
        else:
            plain = plain and type(runs) is list and _only(runs, int) and min(runs, default=-1) >= 0
            plain = plain and sum(runs) == area
    return plain and _are_compressed(text)


def _are_compressed(masks: Sequence[tuple[dict[str, Any], str, int]]) -> bool:
    """Whether RLEs, each with its letters and its number of pixels, have runs that fill these pixels."""
    if not masks:
        return True
    whole, ends = "".join(runs for _, runs, _ in masks), "".join(runs[-1:] for _, runs, _ in masks)
    if not whole.isascii() or len(ends) < len(masks) or max(ends) >= chr(_END):
        return False
    letters = np.frombuffer(whole.encode("ascii"), dtype=np.uint8)
    if letters.min() < _FIRST or letters.max() >= _BEYOND:
        return False
    try:
        rle.area([mask for mask, _, _ in masks])  # refuses runs below 0, and more than the size holds
    except (ValueError, TypeError, OverflowError):
        return False
    return not any(_fits({"size": [1, pixels - 1], "counts": runs}) for _, runs, pixels in masks)


def _fits(mask: dict[str, Any]) -> bool:
    """Whether the runs take no more than the size; the codec counts missing ones at the end as zeros."""
    try:
        rle.area(mask)
    except ValueError:
        return False
    return True


def _only(values: Any, *kinds: type) -> bool:  # noqa: ANN401  any iterable
    return set(map(type, values)) <= set(kinds)
