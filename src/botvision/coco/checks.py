"""COCO's records one by one: what each must hold, or one line that names the first that does not."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

LARGEST_ID = 2**63 - 1
FLOAT_MAX = sys.float_info.max
MOST_LETTERS = 7  # of a run: 35 bits, more than any number of pixels needs


def whole_id(record: Mapping[str, Any], key: str, where: str) -> int:
    """The id under a key. Raises ValueError, beginning with `where`, if it is no whole number from 0."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_ID:
        found = "missing" if value is None else f"{value!r:.40}"
        raise ValueError(f"{where}: {key} is {found}, expected a whole number from 0")
    return value


def known_id(record: Mapping[str, Any], key: str, known: Mapping[int, object] | set[int], where: str) -> int:
    """The id under a key. Raises ValueError, beginning with `where`, if it is none or not among the known."""
    value = whole_id(record, key, where)
    if value not in known:
        raise ValueError(f"{where}: {key} {value} is not in the ground truth's list")
    return value


def number_of(record: Mapping[str, Any], key: str, where: str) -> float:
    """The number under a key. Raises ValueError, beginning with `where`, if it is none or not finite."""
    value = record.get(key)
    if isinstance(value, bool) or not is_finite(value):
        found = "missing" if value is None else f"{value!r:.40}"
        raise ValueError(f"{where}: {key} is {found}, expected a number")
    return float(value)


def size_of(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of an image in pixels; None if it does not say."""
    height, width = record.get("height"), record.get("width")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        return None
    return height, width


def box_of(record: Mapping[str, Any], where: str) -> list[float]:
    """x, y, width, height. Raises ValueError, beginning with `where`, if there are no such four numbers."""
    box = record.get("bbox")
    numbers = list(box) if isinstance(box, Sequence) and not isinstance(box, str) else []
    fine = len(numbers) == 4 and all(is_finite(value) for value in numbers)
    if not fine or numbers[2] < 0 or numbers[3] < 0:
        found = "missing" if box is None else f"{box!r:.80}"
        raise ValueError(f"{where}: bbox is {found}, expected [x, y, width, height]")
    return [float(value) for value in numbers]


def mask_trouble(
    record: Mapping[str, Any], size: tuple[int, int] | None, where: str, polygons: bool = True
) -> str | None:
    """Say in one line why a segmentation is none; None if it is one."""
    mask = record.get("segmentation")
    if size is None:
        return f"{where}: masks need height and width of image {record['image_id']}"
    if polygons and isinstance(mask, Sequence) and not isinstance(mask, str):
        if mask and all(is_polygon(ring) for ring in mask):
            return None
        return f"{where}: segmentation holds no polygon, or one of fewer than three points"
    if not isinstance(mask, Mapping):
        found = "missing" if mask is None else type(mask).__name__
        return (
            f"{where}: segmentation is {found}, expected " + ("polygons or " if polygons else "") + "an RLE"
        )
    if list(mask.get("size") or ()) != list(size):
        return f"{where}: mask of size {mask.get('size')!r:.40}, expected that of its image, {list(size)}"
    counts, pixels = mask.get("counts"), size[0] * size[1]
    if isinstance(counts, str | bytes):
        try:
            runs = run_lengths(counts)
            fine = int(runs.min()) >= 0 and int(runs.sum()) == pixels
        except LongRunError as error:
            return f"{where}: the mask's counts hold {error}"
        except ValueError:
            fine = False
    elif isinstance(counts, Sequence):
        fine = all(type(run) is int and run >= 0 for run in counts) and sum(counts) == pixels
    else:
        return f"{where}: the mask's counts are {type(counts).__name__}, expected a string or a list"
    return None if fine else f"{where}: the mask's counts do not fill its {size[0]}x{size[1]} pixels"


def is_polygon(ring: object) -> bool:
    """Whether it is a flat list x1, y1, ... of three or more points."""
    if not isinstance(ring, Sequence) or isinstance(ring, str) or len(ring) < 6 or len(ring) % 2:
        return False
    return all(is_finite(value) for value in ring)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number of float64; whole numbers may be too large for one."""
    return isinstance(value, int | float) and abs(value) <= FLOAT_MAX


class LongRunError(ValueError):
    """A run of more letters than any number of pixels needs."""


def run_lengths(counts: str | bytes) -> np.ndarray:
    """Lengths of the runs in a compressed RLE, int64 (n,).

    Five bits a character, the lowest first; the sixth says that more follow, the fifth of the last one is the
    sign. From the fourth run on it is the difference to the run before the last.

    Raises:
        LongRunError: A run of more than `MOST_LETTERS` characters: no encoder writes it, and pycocotools and
            hotcoco read different things in it.
        ValueError: No run, a character that is none of a run, or a run without its end.
    """
    data = counts.encode("ascii") if isinstance(counts, str) else counts
    letters = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not letters.size or letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        raise ValueError("no run, a character that is none of a run, or a run without its end")
    ends = np.flatnonzero(letters & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MOST_LETTERS:
        raise LongRunError(f"a run of {lengths.max()} characters, expected at most {MOST_LETTERS}")
    shifts = 5 * (np.arange(letters.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((letters & 31) << shifts, starts)
    runs -= np.where(letters[ends] & 16, np.int64(1) << 5 * lengths, 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs
