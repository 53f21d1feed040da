"""Instance masks: pixels, polygons and COCO's run lengths (RLE).

Polygons are rasterised by the rule of COCO's own tools (a pixel belongs to a polygon if the outline, sampled
at five times the resolution, surrounds it), so that areas and overlaps equal theirs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hotcoco import mask as rle_codec
from torch import Tensor

from botvision.io.errors import DataError

Masks = npt.NDArray[np.uint8]
Rle = dict[str, Any]
"""COCO's compressed run lengths, column by column: {"size": [height, width], "counts": str or bytes}."""

_FIRST = ord("0")  # of the 64 letters of compressed run lengths; the upper 32 say that the run goes on


def encode(masks: Tensor | npt.NDArray[Any]) -> list[Rle]:
    """Masks to compressed run lengths that JSON can hold.

    Args:
        masks: (N, H, W), uint8 or bool; what is not 0 belongs to the instance.

    Returns:
        N records {"size": [H, W], "counts": str}.
    """
    pixels = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    if not len(pixels):
        return []
    planes = np.asfortranarray((pixels != 0).astype(np.uint8).transpose(1, 2, 0))
    return [{"size": list(rle["size"]), "counts": _text(rle["counts"])} for rle in rle_codec.encode(planes)]


def decode(rles: Sequence[Rle], size: tuple[int, int]) -> Masks:
    """Run lengths to pixels.

    Args:
        rles: N records of one size.
        size: (H, W), used where N is 0.

    Returns:
        uint8 (N, H, W) of 0 and 1; not contiguous.

    Raises:
        DataError: one line, if the run lengths are broken.
    """
    if not rles:
        return np.zeros((0, *size), dtype=np.uint8)
    try:
        return rle_codec.decode(list(rles)).transpose(2, 0, 1)
    except ValueError as error:
        raise DataError(f"run lengths of a mask: {error}") from error


def decode_into(rles: Sequence[Rle], out: Masks, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Decode run lengths into some of many masks.

    They are decoded column by column, and turning that into rows is what takes the time: here only the box
    around each mask is turned.

    Args:
        rles: n records of the size of `out`.
        out: (N, H, W), zeros.
        places: (n,), which of `out` they become.

    Returns:
        Their smallest boxes, as :func:`rle_boxes` gives them.

    Raises:
        DataError: as for :func:`decode`.
    """
    size, boxes = (out.shape[1], out.shape[2]), rle_boxes(rles)
    for rle, place, box in zip(rles, places.tolist(), boxes.astype(np.int64).tolist(), strict=True):
        left, top, right, bottom = box
        out[place, top:bottom, left:right] = decode([rle], size)[0, top:bottom, left:right]
    return boxes


def rasterise(objects: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> Masks:
    """Polygons to pixels; what lies outside the frame is cut off.

    Args:
        objects: for each of N instances its polygons, each flat: x1, y1, x2, y2, x3, y3, ...; in pixels.
        size: (H, W) of the frame.

    Returns:
        uint8 (N, H, W) of 0 and 1; not contiguous.
    """
    return decode(polygons_to_rles(objects, size), size)


def polygons_to_rles(objects: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> list[Rle]:
    """One compressed run-length record for each instance; arguments as for :func:`rasterise`."""
    flat = [polygon for polygons in objects for polygon in polygons]
    if not flat:
        return []
    pieces = rle_codec.frPyObjects(flat, *size)
    rles, start = [], 0
    for polygons in objects:
        stop = start + len(polygons)
        rles.append(pieces[start] if len(polygons) == 1 else rle_codec.merge(pieces[start:stop]))
        start = stop
    return rles


def compress(counts: Sequence[int], size: tuple[int, int]) -> bytes:
    """Plain run lengths (zeros, ones, zeros, ...) in compressed form.

    Raises:
        DataError: one line, if they are no run lengths of that size.
    """
    try:
        return rle_codec.frPyObjects({"size": list(size), "counts": list(counts)}, *size)["counts"]
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(str(error)) from error


def empty_rle(size: tuple[int, int]) -> Rle:
    """The run lengths of a mask (H, W) without pixels."""
    height, width = size
    return {"size": [height, width], "counts": _text(compress([height * width], size))}


def rle_area(rle: Rle) -> int:
    """Number of pixels.

    Raises:
        DataError: one line, if the run lengths are broken or do not cover exactly the size they state.
    """
    height, width = rle["size"]
    try:
        counts = _text(rle["counts"])
        letters = counts.encode("ascii")
        # The codec also takes letters beyond these, and a last run that lacks its end.
        if not letters or min(letters) < _FIRST or max(letters) >= _FIRST + 64 or letters[-1] - _FIRST >= 32:
            raise DataError("run lengths with a letter that is none, or without an end")
        area = int(rle_codec.area({"size": [1, height * width], "counts": counts}))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from error
    # The codec takes missing runs at the end for zeros; a mask of a smaller image would pass unseen.
    try:
        rle_codec.area({"size": [1, height * width - 1], "counts": counts})
    except ValueError:
        return area
    raise DataError(f"run lengths cover fewer than {height} x {width} pixels")


def rle_boxes(rles: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """The smallest boxes around masks: float64 (N, 4), xyxy as pixel edges; zeros for an empty mask."""
    if not rles:
        return np.zeros((0, 4))
    boxes = np.asarray(rle_codec.to_bbox(list(rles)), dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def boxes_of(masks: Tensor) -> Tensor:
    """The smallest boxes around masks.

    Args:
        masks: (N, H, W), uint8 or bool.

    Returns:
        float32 (N, 4), left, top, right, bottom as coordinates of pixel edges; zeros for an empty mask.
    """
    count, height, width = masks.shape
    if count == 0:
        return torch.zeros(0, 4)
    pixels = masks.numpy() != 0
    rows, columns = pixels.any(axis=2), pixels.any(axis=1)
    boxes = np.stack(
        [
            columns.argmax(axis=1),
            rows.argmax(axis=1),
            width - columns[:, ::-1].argmax(axis=1),
            height - rows[:, ::-1].argmax(axis=1),
        ],
        axis=1,
    )
    boxes[~rows.any(axis=1)] = 0
    return torch.from_numpy(boxes.astype(np.float32))


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
