"""Instance masks: pixels, polygons and COCO's run lengths (RLE).

Polygons are rasterised by the rule of COCO's own tools (a pixel belongs to a polygon if the outline, sampled
at five times the resolution, surrounds it), so that areas and overlaps equal theirs.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hotcoco import mask as codec
from torch import Tensor

from botvision.coco.problems import numbers, short
from botvision.io.errors import DataError

Masks = npt.NDArray[np.uint8]
Rle = dict[str, Any]
"""COCO's compressed run lengths, column by column: {"size": [height, width], "counts": str or bytes}."""

FAR_OUTSIDE = 1000  # pixels, besides the image's longer side, that polygons may reach beyond it

# Compressed run lengths have 64 letters; one of the upper 32 says that the run goes on.
_FIRST, _GOES_ON = ord("0"), ord("0") + 32


def encode(masks: Tensor | npt.NDArray[Any]) -> list[Rle]:
    """Return masks as compressed run lengths that JSON can hold.

    Args:
        masks: (N, H, W), uint8 or bool; what is not 0 belongs to the instance.

    Returns:
        N records {"size": [H, W], "counts": str}.
    """
    pixels = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    if not len(pixels):
        return []
    planes = np.asfortranarray((pixels != 0).astype(np.uint8).transpose(1, 2, 0))
    return [{"size": list(rle["size"]), "counts": _text(rle["counts"])} for rle in codec.encode(planes)]


def decode(rles: Sequence[Rle], size: tuple[int, int]) -> Masks:
    """Return the pixels of run lengths.

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
        return codec.decode(list(rles)).transpose(2, 0, 1)
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
        Their smallest boxes, as `rle_boxes` gives them.

    Raises:
        DataError: as for `decode`.
    """
    size, boxes = (out.shape[1], out.shape[2]), rle_boxes(rles)
    for rle, place, box in zip(rles, places.tolist(), boxes.astype(np.int64).tolist(), strict=True):
        left, top, right, bottom = box
        out[place, top:bottom, left:right] = decode([rle], size)[0, top:bottom, left:right]
    return boxes


def polygons_to_rles(objects: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> list[Rle]:
    """Return polygons as compressed run lengths; what lies outside the frame is cut off.

    Args:
        objects: for each of N instances its polygons, each flat: x1, y1, x2, y2, x3, y3, ...; in pixels.
        size: (H, W) of the frame.

    Returns:
        N records.
    """
    flat = [polygon for polygons in objects for polygon in polygons]
    if not flat:
        return []
    pieces = codec.frPyObjects(flat, *size)
    rles, start = [], 0
    for polygons in objects:
        stop = start + len(polygons)
        rles.append(pieces[start] if len(polygons) == 1 else codec.merge(pieces[start:stop]))
        start = stop
    return rles


def compress(counts: Sequence[int], size: tuple[int, int]) -> str:
    """Return plain run lengths (zeros, ones, zeros, ...) in compressed form.

    Raises:
        DataError: one line, if they are no run lengths, or exceed the size.
    """
    if not set(map(type, counts)) <= {int}:
        raise DataError("run lengths that are no whole numbers")
    try:
        return _text(codec.frPyObjects({"size": list(size), "counts": list(counts)}, *size)["counts"])
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(str(error)) from error


def empty_rle(size: tuple[int, int]) -> Rle:
    """Return the run lengths of a mask (H, W) without pixels."""
    height, width = size
    return {"size": [height, width], "counts": compress([height * width], size)}


def rle_areas(rles: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """Return the number of pixels of each mask, float64 (N,).

    Raises:
        DataError: one line, if run lengths are broken or do not cover exactly the size they state.
    """
    counts = [_text(rle["counts"]) for rle in rles]
    _check_letters(counts)
    try:
        areas = codec.area([*rles])
    except (ValueError, OverflowError) as error:  # runs below 0, or too many
        raise DataError(str(error)) from error
    size = [1, 0]
    shortened: Rle = {"size": size, "counts": ""}
    for text, (height, width) in zip(counts, (rle["size"] for rle in rles), strict=True):
        size[1], shortened["counts"] = height * width - 1, text
        try:
            codec.area(shortened)
        except ValueError:
            continue  # as it must be: too many for one pixel less
        # The codec takes missing runs for zeros; a mask of a smaller image would pass unseen.
        raise DataError(f"run lengths cover fewer than {height} x {width} pixels")
    return areas.astype(np.float64)


def _check_letters(counts: Sequence[str]) -> None:
    """Raise DataError for what the codec reads in its own way: other letters, and runs that do not end."""
    letters = np.frombuffer("".join(counts).encode("utf-8", "surrogatepass"), dtype=np.uint8)
    ends = [text[-1:] for text in counts]
    others = len(letters) and (letters.min() < _FIRST or letters.max() >= _FIRST + 64)
    if others or "" in ends or max(ends, default="") >= chr(_GOES_ON):
        raise DataError("run lengths with a letter that is none, or without an end")
    goes_on = letters >= _GOES_ON
    for step in (1, 2, 3):
        goes_on = goes_on[:-step] & goes_on[step:]  # 2, 4 and 7 in a row
    if goes_on.any():  # 35 bits are more than any number of pixels needs; other tools read other things in it
        raise DataError("run lengths with a run of more than 7 letters")


def read_rles(
    values: Mapping[int, Any], sizes: npt.NDArray[np.int64]
) -> tuple[dict[int, Rle], npt.NDArray[np.float64], dict[int, str]]:
    """Check run lengths.

    Args:
        values: at some places.
        sizes: int64 (N, 2), height and width that the mask at each place must have.

    Returns:
        Compressed run lengths where they are sound, their numbers of pixels, and what is wrong with others.
    """
    rles, faults = dict[int, Rle](), dict[int, str]()
    for (place, value), size in zip(values.items(), sizes[[*values]].tolist(), strict=True):
        if (
            type(value) is dict
            and value.get("size") == size
            and type(text := value.get("counts")) is str
            and text
        ):
            rles[place] = {"size": size, "counts": text}  # nearly all
            continue
        try:
            rles[place] = _rle(value, size)
        except DataError as error:
            faults[place] = str(error)
    try:
        return rles, rle_areas([*rles.values()]), faults
    except DataError:  # one of them
        for place, rle in [*rles.items()]:
            try:
                rle_areas([rle])
            except DataError as error:
                faults[place] = f"mask: {error}"
                del rles[place]
    return rles, rle_areas([*rles.values()]), faults


def _rle(value: Any, size: list[int]) -> Rle:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise DataError(f"segmentation is {short(value)}, expected run lengths")
    stated, counts = value.get("size"), value.get("counts")
    if not isinstance(stated, list | tuple) or [*stated] != size:
        raise DataError(f"mask of size {short(stated)}, expected the image's {size}")
    if isinstance(counts, list | tuple):
        try:
            return {"size": size, "counts": compress(counts, (size[0], size[1]))}
        except DataError as error:
            raise DataError(f"mask: {error}") from error
    if not isinstance(counts, bytes) or not counts:
        raise DataError(f"mask: counts are {short(counts)}, expected run lengths")
    return {"size": size, "counts": _text(counts)}


def sound_polygons(
    outlines: Mapping[int, Any], sizes: npt.NDArray[np.int64]
) -> tuple[dict[int, Any], dict[int, str], dict[int, int]]:
    """Leave out rings of fewer than three points, and see what is wrong with the others.

    Args:
        outlines: at some places.
        sizes: as for `read_rles`.

    Returns:
        The polygons, none at all where every ring is too short; what is wrong with them, as
        `polygon_faults`; and how many rings were left out, at the places where some were.
    """
    faults = polygon_faults(outlines, sizes)
    kept = {k: [ring for ring in outlines[k] if not _too_short(ring)] for k in faults}
    kept = {k: rings for k, rings in kept.items() if len(rings) < len(outlines[k])}
    faults = {k: text for k, text in faults.items() if k not in kept} | polygon_faults(kept, sizes)
    return {**outlines, **kept}, faults, {k: len(outlines[k]) - len(rings) for k, rings in kept.items()}


def _too_short(ring: Any) -> bool:  # noqa: ANN401
    pairs = isinstance(ring, list | tuple) and len(ring) in (0, 2, 4)
    return pairs and not np.isnan(numbers(ring)).any()


def polygon_faults(outlines: Mapping[int, Any], sizes: npt.NDArray[np.int64]) -> dict[int, str]:
    """Return what is wrong with polygons, at the places where something is; arguments as for `read_rles`."""
    reach = sizes.max(axis=1) + FAR_OUTSIDE
    rings, counts = [*chain.from_iterable(outlines.values())], [*map(len, outlines.values())]
    if not rings or _are_polygons(rings, np.repeat(reach[[*outlines]], counts)):
        return {}
    faults = ((k, (_polygon_fault(ring, int(reach[k])) for ring in rings)) for k, rings in outlines.items())
    found = ((k, next(filter(None, texts), None)) for k, texts in faults)
    return {k: text for k, text in found if text is not None}


def _are_polygons(rings: list[Any], reach: npt.NDArray[np.int64]) -> bool:
    """Whether none has a fault, told for all at once."""
    try:
        lengths = np.array([*map(len, rings)])
        values = np.array([*chain.from_iterable(rings)])
    except (TypeError, ValueError):
        return False
    if values.dtype.kind not in "if" or (lengths < 6).any() or (lengths % 2).any():
        return False
    starts = lengths.cumsum() - lengths
    near = np.minimum.reduceat(values, starts) >= -reach  # which not-a-number is not
    return bool((near & (np.maximum.reduceat(values, starts) <= 2 * reach)).all())


def _polygon_fault(ring: Any, reach: int) -> str | None:  # noqa: ANN401
    if not isinstance(ring, list | tuple):
        return f"a polygon is {short(ring)}, expected a list of numbers"
    if len(ring) % 2:
        return f"a polygon has {len(ring)} numbers, expected pairs x, y"
    if len(ring) < 6:
        return f"a polygon has {len(ring) // 2} point{'s' * (len(ring) != 2)}, expected 3 or more"
    values = numbers(ring)
    if np.isnan(values).any():
        return "a polygon holds what is not a finite number"
    # Rasterising walks along the outline: one of a billion pixels would never end.
    if values.min() < -reach or values.max() > 2 * reach:
        return f"a polygon reaches {max(-values.min(), values.max()):g} pixels, far outside the image"
    return None


def rle_boxes(rles: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """Return the smallest boxes around masks, float64 (N, 4), xyxy as pixel edges; zeros for an empty one."""
    if not rles:
        return np.zeros((0, 4))
    boxes = np.asarray(codec.to_bbox(list(rles)), dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def boxes_of(masks: Tensor) -> Tensor:
    """Return the smallest boxes around masks.

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
    right, bottom = width - columns[:, ::-1].argmax(axis=1), height - rows[:, ::-1].argmax(axis=1)
    boxes = np.stack([columns.argmax(axis=1), rows.argmax(axis=1), right, bottom], axis=1)
    boxes[~rows.any(axis=1)] = 0
    return torch.from_numpy(boxes.astype(np.float32))


def _text(counts: str | bytes) -> str:
    return counts.decode("latin-1") if isinstance(counts, bytes) else counts
