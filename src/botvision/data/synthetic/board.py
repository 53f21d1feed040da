"""Where the arrows and marks of the pointing task lie: places on a board, by counters."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from botvision.data.counter_rng import keys, uniform

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ARROWS = 3
MARKS = 4  # of every arrow, one of each kind
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (down, right) of a step: right, down, left, up
_EIGHTHS = 8  # steps in a picture's short side
_CHUNK = 512  # images laid out at once
_ATTEMPTS = 1000


@dataclass(frozen=True)
class Layout:
    """Of N images with A arrows.

    Attributes:
        steps: (N, A), from each arrow to the mark it points to.
        arrows: (N, A), places, row by row.
        directions: (N, A), numbers in DIRECTIONS.
        marks: (N, A, 4), places of each arrow's marks, the one it points to first.
        kinds: (N, A, 4), of these.
        colours: (N, A), of the arrows themselves.
    """

    steps: Ints
    arrows: Ints
    directions: Ints
    marks: Ints
    kinds: Ints
    colours: Ints


@dataclass(frozen=True)
class Board:
    """Places at whole steps from the picture's upper left corner, none on its edges.

    The cells of a strided convolution with padding have their middles there, too.

    Attributes:
        rows: of places.
        columns: of places.
        step: in pixels.
    """

    rows: int
    columns: int
    step: float

    @classmethod
    def of_picture(cls, size: tuple[int, int]) -> "Board":
        """The board of a picture of (height, width) pixels: seven places along the short side."""
        step = min(size) / _EIGHTHS
        rows, columns = (int(side / step - 1e-9) for side in size)
        return cls(rows, columns, step)

    def centres(self, cells: Ints) -> npt.NDArray[np.floating[Any]]:
        """(..., 2) y and x in pixels of places."""
        return self.step * (1.0 + np.stack([cells // self.columns, cells % self.columns], -1))

    def lay_out(self, steps: Ints, counters: tuple[int, ...], indices: Ints) -> Layout:
        """Place arrows and marks.

        Args:
            steps: (N, A), from each arrow to its mark, best the farthest first.
            counters: of the data set.
            indices: (N,), of the images; with the counters they decide about everything drawn.
        """
        parts = []
        for start in range(0, len(indices), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            parts.append(self._placed(steps[chunk], counters, indices[chunk]))
        arrows, directions, marks = (np.concatenate(part) for part in zip(*parts, strict=True))
        count, own = steps.shape[1], uniform(steps.shape[1] * (MARKS + 1), *counters, -1, indices)
        own = own.reshape(len(indices), count, MARKS + 1)
        kinds = own[:, :, :MARKS].argsort(-1, kind="stable")
        colours = (own[:, :, MARKS] * MARKS).astype(np.int64)
        return Layout(steps, arrows, directions, marks, kinds, colours)

    def _placed(self, steps: Ints, counters: tuple[int, ...], indices: Ints) -> tuple[Ints, Ints, Ints]:
        """Arrows (B, A), directions (B, A), marks (B, A, 4); where no place is left all is drawn again."""
        shape = steps.shape
        arrows, directions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        marks = np.zeros((*shape, MARKS), np.int64)
        left = np.arange(len(indices))
        for attempt in range(_ATTEMPTS):
            found = _Attempt(self, steps[left], keys(*counters, attempt, indices[left]).astype(np.int64))
            done = left[found.fine]
            arrows[done], directions[done] = found.arrows[found.fine], found.directions[found.fine]
            marks[done] = found.marks[found.fine]
            left = left[~found.fine]
            if not len(left):
                return arrows, directions, marks
        raise AssertionError(f"no places for arrows and marks on a board of {self.rows}x{self.columns}")


class _Attempt:
    """One try at B images, an arrow and then its marks at a time.

    Attributes:
        fine: (B,), whether all was placed.
    """

    def __init__(self, board: Board, steps: Ints, seeds: Ints) -> None:
        self.rows, self.fine = np.arange(len(steps)), np.ones(len(steps), dtype=bool)
        shape = steps.shape
        self.arrows, self.directions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.marks = np.zeros((*shape, MARKS), np.int64)
        y, x = np.divmod(np.arange(board.rows * board.columns), board.columns)
        self._down, self._right = y - y[:, None], x - x[:, None]  # (from, to)
        self._away = np.maximum(np.abs(self._down), np.abs(self._right))
        # (direction, from, to): whether a place lies straight ahead
        self._ahead = np.stack(
            [(np.sign(self._down) == d) & (np.sign(self._right) == r) for d, r in DIRECTIONS]
        ) & ((self._down == 0) | (self._right == 0))
        self._free = np.ones((len(steps), len(y)), dtype=bool)
        self._marked = np.zeros((len(steps), len(y)), dtype=bool)
        self._barred = np.zeros((len(steps), len(y)), dtype=bool)  # on the way of an arrow
        for arrow in range(shape[1]):
            self._place_arrow(arrow, steps[:, arrow], seeds)
            for mark in range(1, MARKS):
                self._place_mark(arrow, mark, steps[:, arrow], seeds)

    def _place_arrow(self, arrow: int, steps: Ints, seeds: Ints) -> None:
        """An arrow whose way holds no mark, and at the given number of steps a free place for its own."""
        count = self._free.shape[1]
        at = self._ahead & (
            self._away == np.arange(count)[:, None, None, None]
        )  # (steps, direction, from, to)
        exists, target = at.any(-1)[steps], at.argmax(-1)[steps]  # (B, 4, from)
        open_ = self._free & ~self._barred
        fits = exists & self._free[:, None] & open_[self.rows[:, None, None], target]
        crossed = np.einsum("dft,bt->bdf", self._ahead.astype(np.float32), self._marked.astype(np.float32))
        chosen, fine = _choose((fits & (crossed == 0)).reshape(len(steps), -1), seeds, arrow, 0)
        self.fine &= fine
        direction, place = np.divmod(chosen, count)
        target = target[self.rows, direction, place]
        self.arrows[:, arrow], self.directions[:, arrow] = place, direction
        self.marks[:, arrow, 0] = target
        self._free[self.rows, place] = self._free[self.rows, target] = False
        self._marked[self.rows, target] = True
        self._barred |= self._ahead[direction, place]

    def _place_mark(self, arrow: int, mark: int, steps: Ints, seeds: Ints) -> None:
        """A mark as far from the arrow as the one it points to, or farther, and on the way of no arrow."""
        place = self.arrows[:, arrow]
        fits = self._free & ~self._barred & (self._away[place] >= steps[:, None])
        beside = fits & self._ahead[:, place].any(0) & (self._away[place] == steps[:, None])
        fits = np.where(beside.any(1, keepdims=True), beside, fits)
        chosen, fine = _choose(fits, seeds, arrow, mark)
        self.fine &= fine
        self.marks[:, arrow, mark] = chosen
        self._free[self.rows, chosen] = False
        self._marked[self.rows, chosen] = True


def _choose(fits: Bools, seeds: Ints, arrow: int, mark: int) -> tuple[Ints, Bools]:
    """One of those that fit (B, M), each as likely, and whether there is any."""
    scores = np.where(fits, uniform(fits.shape[1], seeds, arrow, mark), -1.0)
    chosen = scores.argmax(1)
    return chosen, fits[np.arange(len(fits)), chosen]
