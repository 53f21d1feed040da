"""What the values of masks are: numbers of objects, or of classes, and which of them is no object."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from botvision.data.convert.entries import counted
from botvision.io.errors import DataError

VOID = 255
_VOID_COLOUR = 0xE0E0C0  # what VOC shows 255 as
_VOC_PALETTE = [128, 0, 0, 0, 128, 0, 128, 128, 0]  # 1, 2, 3
_FEW = 32  # objects or classes that are numbered below this have no 255th beside them
_REPEATED, _PART = 1.5, 0.2
_HELP = (
    "expected one value for each object; --split-parts makes each separate part an object, of one category"
)

Pixels = npt.NDArray[Any]


def is_voc_palette(image: Image.Image) -> bool:
    """Return whether an image has the palette of Pascal VOC's masks, in which 255 is a border."""
    found = (image.getpalette() or [])[3:12] if image.mode == "P" else []
    return len(found) >= 3 and found == _VOC_PALETTE[: len(found)]


def without_border(pixels: Pixels, voc_palette: bool) -> Pixels:
    """Return masks with 0 where 255 marks what is of no object, as Pascal VOC has it around each."""
    values = np.unique(pixels)
    if values[-1] >= _VOID_COLOUR:
        void = _VOID_COLOUR if _VOID_COLOUR in values else 0
    elif values[-1] == VOID:
        others = values[(values != 0) & (values != VOID)]
        counting = len(others) and (others[-1] == len(others) < VOID - 1 or others[-1] < _FEW)
        void = VOID if voc_palette or counting else 0
    else:
        void = 0
    return np.where(pixels == void, 0, pixels) if void else pixels


class Values:
    """Collects the values of all masks, since one alone rarely tells what they are."""

    def __init__(self) -> None:
        self._sets: list[tuple[int, ...]] = []
        self._voc, self._voc_gaps, self._first_gap = 0, 0, ""

    def add(self, values: tuple[int, ...], voc_palette: bool, path: Path) -> None:
        """Take the values of one mask, sorted, without ground."""
        if values:
            self._sets.append(values)
            self._voc += voc_palette
            if voc_palette and values[-1] != len(values):
                self._voc_gaps += 1
                self._first_gap = self._first_gap or f"{path}: {_shown(values)}"

    def check(self, root: Path) -> list[str]:
        """Return a note where the values may be classes. Raises DataError where they must be."""
        if 2 * self._voc_gaps > self._voc:
            raise DataError(
                f"{self._first_gap}, in Pascal VOC's palette: numbers of classes, as in SegmentationClass, "
                f"not of objects, as in SegmentationObject; {_HELP}"
            )
        singles = Counter(values[0] for values in self._sets if len(values) == 1 and values[0] != VOID)
        count = Counter(value for values in self._sets for value in values)
        others = singles.total() - max(singles.values(), default=0)
        if others >= max(1, _PART * singles.total()) and count.total() >= _REPEATED * len(count):
            raise DataError(
                f"{root}: its masks look like numbers of classes ({counted(len(count), 'value')} in "
                f"{counted(len(self._sets), 'mask')}: {_shown(sorted(count))}; many masks have one alone, "
                f"and not the same), {_HELP}"
            )
        same = len(set(self._sets)) == 1 and len(self._sets) > 1 and len(self._sets[0]) > 1
        if not same:
            return []
        text = f"all {len(self._sets):,} masks have the same values ({_shown(self._sets[0])})"
        return [f"{text}: if these are classes, each object here is all of a class; --split-parts parts them"]


def _shown(values: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, values[:8])) + ", ..." * (len(values) > 8)
