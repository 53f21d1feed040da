"""JSON records by columns, and what is wrong with them: one line for each broken record."""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

NONE = np.iinfo(np.int64).min  # in place of what is no whole number
FLOAT_MAX = sys.float_info.max

ProblemKind = Literal[
    "image", "category", "categories", "annotation", "box", "clipped", "note", "degenerate", "segmentation",
    "area", "file", "size",
]  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Something wrong in a data set.

    Attributes:
        kind: which part of the data it is about; "categories" are others than in training, "clipped" are all
            boxes that reach a little outside, a "note" is a line about the whole file, "degenerate" are boxes
            and masks of no area, "file" missing or unreadable images, "size" masks in images of unknown size.
        line: one sentence with the file and the ids.
        image_id: of the image, where known.
        annotation_id: of the annotation, where it is about one.
        fatal: whether training refuses the data for it (unless `skip_broken`); the others are counted only.
    """

    kind: ProblemKind
    line: str
    image_id: int | None = None
    annotation_id: int | None = None
    fatal: bool = True


Label = tuple[str, int | None, int | None]
"""How messages call a record, with its file; its image id and its annotation id, where it has them."""


class Records:
    """N JSON objects of a list; rules refuse the broken ones, each for the first rule that it breaks.

    Args:
        records: what is no object counts as an empty one.
        label: of the record at a place, for messages.

    Attributes:
        sound: bool (N), not refused so far.
    """

    def __init__(self, records: Sequence[Any], label: Callable[[int], Label]) -> None:
        self.records = (
            records if are_objects(records) else [r if isinstance(r, Mapping) else {} for r in records]
        )
        self.sound = np.ones(len(records), dtype=bool)
        self._label = label
        self._problems: list[tuple[int, Problem]] = []

    @property
    def problems(self) -> list[Problem]:
        """All that was refused or noted, in the order of the records."""
        return [problem for _, problem in sorted(self._problems, key=lambda entry: entry[0])]

    def column(self, key: str, missing: object = None) -> list[Any]:
        """Return the values of a key."""
        return [record.get(key, missing) for record in self.records]

    def refuse(self, bad: npt.ArrayLike, kind: ProblemKind, fault: Callable[[int], str]) -> None:
        """Refuse sound records where `bad`, bool (N), is set; `fault` is asked for half a line on each."""
        self.note(bad, kind, fault, fatal=True)
        self.sound &= ~np.asarray(bad, dtype=bool)

    def note(
        self, odd: npt.ArrayLike, kind: ProblemKind, fault: Callable[[int], str], *, fatal: bool = False
    ) -> None:
        """Add a problem for sound records, which stay sound."""
        for place in np.flatnonzero(self.sound & np.asarray(odd, dtype=bool)).tolist():
            name, image_id, number = self._label(place)
            problem = Problem(kind, f"{name}: {fault(place)}", image_id, number, fatal)
            self._problems.append((place, problem))


def are_objects(records: Sequence[object]) -> bool:
    """Return whether all are mappings; asking a million dicts one by one takes a while."""
    return set(map(type, records)) <= {dict} or all(isinstance(record, Mapping) for record in records)


def whole_numbers(values: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return whole numbers of 64 bits, int64 (N); NONE for everything else, truth values included.

    Text of digits ("12") and decimals without a part (12.0), which some exports write, are such numbers.
    """
    if set(map(type, values)) <= {int}:
        with contextlib.suppress(OverflowError):
            return np.array(values, dtype=np.int64)
    return np.array([*map(_whole, values)], dtype=np.int64)


def _whole(value: object) -> int:
    if isinstance(value, str):
        return int(value) if len(value) < 19 and value.isascii() and value.isdigit() else NONE
    if isinstance(value, float):
        return int(value) if abs(value) < 2**53 and value.is_integer() else NONE
    return int(value) if _is(int, value) and abs(value) < 2**63 else NONE  # type: ignore[call-overload,arg-type]


def converted(values: Sequence[Any]) -> int:
    """Return how many of the whole numbers are written as text or as decimals."""
    if set(map(type, values)) <= {int}:
        return 0
    return sum(isinstance(value, str | float) and _whole(value) != NONE for value in values)


def numbers(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return finite numbers, float64 (N); not-a-number for everything else, truth values included."""
    found = None
    if set(map(type, values)) <= {int, float}:
        with contextlib.suppress(OverflowError):
            found = np.array(values, dtype=np.float64)
    if found is None:
        usable = [v if _is(int | float, v) and abs(v) <= FLOAT_MAX else np.nan for v in values]
        found = np.array(usable, dtype=np.float64)
    found[~np.isfinite(found)] = np.nan
    return found


def _is(kind: Any, value: object) -> bool:  # noqa: ANN401
    return isinstance(value, kind) and not isinstance(value, bool)


def boxes(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return lists of four numbers, float64 (N, 4); not-a-number where a value is none."""
    fours = [v if isinstance(v, list | tuple) and len(v) == 4 else (None,) * 4 for v in values]
    return numbers(list(chain.from_iterable(fours))).reshape(-1, 4)


def places(values: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place of each value among known ones that all differ, int64 (N); -1 where it is not."""
    if not len(known):
        return np.full(len(values), -1)
    order = np.argsort(known)
    found = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[found] == values, found, -1)


def repeated(values: npt.NDArray[np.int64], among: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return where a value occurs that occurred before, bool (N), both of them `among` the chosen."""
    chosen = np.flatnonzero(among)
    again = np.zeros(len(values), dtype=bool)
    again[chosen] = True
    again[chosen[np.unique(values[chosen], return_index=True)[1]]] = False
    return again


def short(value: object) -> str:
    """Return a value in no more than 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
