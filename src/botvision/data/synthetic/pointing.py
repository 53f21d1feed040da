"""A dense task whose evidence lies far apart: of which kind is the mark that an arrow points to?

Marks (an outline and a colour that belong together, four kinds) and arrows lie at places of a board, an
eighth of the picture's short side apart, on textured ground. Every arrow points up, down, left or right, and
exactly one mark lies on its way to the edge: the kind of that mark is the label, asked for at the arrow's
place. The number of steps between the two is the dial. Image i of a split is a function of (seed, split, i)
and the settings.

Every arrow has a set of four marks, one of each kind in random order: the one it points to, and three others
that are at least as many steps away down or across (as many, in the other three directions, where such places
are free). So, at every distance,

- what an arrow itself shows (its direction, and a colour of its own that misleads) says nothing of its label;
- every picture has as many marks of each kind: no pool over the picture, and no head on top of it, can tell;
- a window around the arrow that does not reach the mark it points to holds none of the arrow's four marks,
  and the sets of other arrows are independent of it: what such a window shows, together with any pool of
  single places, is no better than guessing, one in four.

An arrow's own place says which way, other places say which kind: neither alone, and no average, has the
answer. What the logits of attention can express here:

- position (q r, relative): the query knows the direction, the table the offset. Weight on the row or column
  ahead is enough, as long as values of places without a mark say nothing; but the weight is spread over all
  places ahead, and the mark's share falls with their number.
- relative (q k + q r): the same, and the keys tell marks from other places, so that the share need not fall.
- content (q k): keys know no offset. It can only tell as far as the maps that reach it say where they lie, as
  convolutions padded with zeros do near the edges of a picture.
- absolute (q k + q r_abs): keys know their place, the query its direction but not its own place, except for
  the same leak.
- even and own weights (the controls): nothing beyond what the convolutions before them see.

Convolutions can tell as far as they see: a window that reaches the mark, and layers enough to carry it back.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.config.data import QUANTITIES, DataConfig
from botvision.data.counter_rng import keys, uniform
from botvision.data.labels import Grouping
from botvision.data.synthetic.drawing import (
    ARROW,
    SPLITS,
    Array,
    Ints,
    SyntheticSource,
    grey_ground,
    lay,
    to_pixels,
)

Bools = npt.NDArray[np.bool_]

CLASSES = ("orange disc", "blue cross", "green square", "pink ring")
ARROWS = 3
MARKS = 4  # of every arrow, one of each kind
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (down, right) of a step: right, down, left, up
_OUTLINES = np.array([0, 5, 2, 1])  # of the kinds
_COLOURS = np.array([[255, 150, 20], [40, 130, 255], [30, 190, 80], [240, 80, 200]], dtype=np.float32) / 255
_RADIUS = 0.047  # of a mark and an arrow, in short sides: 6 pixels at 128
_EIGHTHS = 8  # steps in a picture's short side
_JITTER = 0.1  # of a step, on each side
_SALT = 0x9017  # other pictures than the other drawn tasks of the same seed
_GLYPHS = ARROWS * (1 + MARKS)
# Columns of an image's random numbers.
_GROUND, _GLYPH = 0, 9
_COUNT = _GLYPH + 4 * _GLYPHS
_CHUNK = 512  # images laid out at once
_ATTEMPTS = 500


class PointingSource(SyntheticSource):
    """Three arrows in every image; intervals of distance take turns.

    Attributes:
        targets: int64 (N, 3), kind of the mark that each arrow points to.
        layout: where everything lies.
        grouping: distance (N, 3) of each arrow to its mark in pixels, without the jitter of their places.
        board: the places.
    """

    title = "pointing arrows"
    classes = CLASSES
    grouping: Grouping  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, config: DataConfig, split: str) -> None:
        super().__init__(config, split)
        self.board = Board.of_picture(self.size)
        steps = _steps(self.seed, split, self.count, config.distances)
        self.layout = self.board.lay_out(steps, (self.seed, _SALT, 2 + SPLITS[split]))
        self.targets = torch.from_numpy(self.layout.kinds[:, :, 0].copy())
        edges = tuple((np.array(config.distances) * min(self.size)).tolist())
        values = torch.from_numpy(self.layout.steps * self.board.step)
        self.grouping = Grouping(QUANTITIES["pointing"], "px", edges, values)

    def name_of(self, index: int) -> str:
        return f"pointing/{self.split}/{index:06d}"

    def points(self) -> Tensor:
        centres, _ = self._glyphs(np.arange(len(self)))
        return torch.from_numpy(centres[:, :ARROWS])

    def marks(self, indices: Tensor) -> Tensor:
        """Return where the marks lie that the arrows point to: float64 (B, 3, 2), y and x, of int64 (B,)."""
        centres, _ = self._glyphs(indices.numpy())
        return torch.from_numpy(centres[:, ARROWS::MARKS])

    def _draws(self, indices: Ints) -> Array:
        return uniform(_COUNT, self.seed, _SALT, SPLITS[self.split], indices)

    def _glyphs(self, indices: Ints) -> tuple[Array, Array]:
        """Places (B, 15, 2) of arrows, then marks, in pixels, and their random numbers (B, 15, 4)."""
        draws = self._draws(indices)[:, _GLYPH:].reshape(len(indices), _GLYPHS, 4)
        marks = self.layout.marks[indices].reshape(len(indices), -1)
        cells = np.concatenate([self.layout.arrows[indices], marks], 1)
        jitter = _JITTER * self.board.step * (2 * draws[:, :, :2] - 1)
        return self.board.centres(cells) + jitter, draws

    def _draw(self, indices: Ints) -> npt.NDArray[np.uint8]:
        """Ground, then marks, then arrows."""
        planes = grey_ground(self.size, self._draws(indices)[:, _GROUND:_GLYPH].astype(np.float32))
        centres, draws = self._glyphs(indices)
        marks = self.layout.kinds[indices].reshape(len(indices), -1)
        kinds = np.concatenate([self.layout.colours[indices], marks], 1)
        turns, outlines = draws[:, :, 2].copy(), _OUTLINES[kinds]
        turns[:, :ARROWS] = self.layout.directions[indices] / 4 + 0.03 * (2 * turns[:, :ARROWS] - 1)
        outlines[:, :ARROWS] = ARROW
        colours = _COLOURS[kinds] * (0.85 + 0.15 * draws[:, :, 3:])
        radii = np.full(len(indices), _RADIUS * min(self.size))
        for k in (*range(ARROWS, _GLYPHS), *range(ARROWS)):
            lay(planes, outlines[:, k], centres[:, k], turns[:, k], radii, colours[:, k])
        return to_pixels(planes)


def _steps(seed: int, split: str, count: int, distances: tuple[float, ...]) -> Ints:
    """Steps (N, 3) from arrow to mark, the farthest first in every image: it is the hardest to place.

    Intervals take turns in an order that is drawn anew for every round of three turns each, so that near and
    far marks lie in the same pictures.
    """
    held = steps_of_intervals(distances)
    size = len(held) * ARROWS
    turn = np.arange(-(-count * ARROWS // size) * size)  # whole rounds: an image depends on its number alone
    part, place = uniform(2, seed, _SALT, 4 + SPLITS[split], turn).T
    sizes = np.array([len(steps) for steps in held])
    table = np.array([steps + [0] * (max(sizes) - len(steps)) for steps in held])
    group = np.empty_like(turn)
    group[np.lexsort((place, turn // size))] = turn % len(held)
    steps = table[group, (part * sizes[group]).astype(np.int64)]
    return -np.sort(-steps.reshape(-1, ARROWS)[:count], axis=1)


def steps_of_intervals(distances: tuple[float, ...]) -> list[list[int]]:
    """Return the whole steps, 1 to 6, within each interval of distances in short sides."""
    intervals = itertools.pairwise(distances)
    return [[s for s in range(1, 7) if low <= s / _EIGHTHS < high] for low, high in intervals]


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
        """Return the board of a picture of (height, width) pixels: seven places along the short side."""
        step = min(size) / _EIGHTHS
        rows, columns = (int(side / step - 1e-9) for side in size)
        return cls(rows, columns, step)

    def centres(self, cells: Ints) -> Array:
        """Return (..., 2) y and x in pixels of places."""
        return self.step * (1.0 + np.stack([cells // self.columns, cells % self.columns], -1))

    def lay_out(self, steps: Ints, counters: tuple[int, ...]) -> Layout:
        """Place arrows and marks.

        Args:
            steps: (N, A), from each arrow to its mark, best the farthest first.
            counters: of the data set; with an image's number they decide about everything drawn.
        """
        indices = np.arange(len(steps))
        parts = [
            self._placed(steps[start : start + _CHUNK], counters, indices[start : start + _CHUNK])
            for start in range(0, len(steps), _CHUNK)
        ]
        arrows, directions, marks = (np.concatenate(part) for part in zip(*parts, strict=True))
        own = uniform(steps.shape[1] * (MARKS + 1), *counters, -1, indices).reshape(*steps.shape, MARKS + 1)
        kinds = own[:, :, :MARKS].argsort(-1, kind="stable")
        colours = (own[:, :, MARKS] * MARKS).astype(np.int64)
        return Layout(steps, arrows, directions, marks, kinds, colours)

    def _placed(
        self, steps: Ints, counters: tuple[int, ...], indices: Ints, attempt: int = 0
    ) -> tuple[Ints, Ints, Ints]:
        """Arrows (B, A), directions (B, A), marks (B, A, 4); where no place is left all is drawn again."""
        assert attempt < _ATTEMPTS, f"no places for arrows and marks on {self.rows} x {self.columns} places"
        found = _Attempt(self, steps, keys(*counters, attempt, indices).astype(np.int64))
        left = np.flatnonzero(~found.fine)
        if len(left):
            again = self._placed(steps[left], counters, indices[left], attempt + 1)
            found.arrows[left], found.directions[left], found.marks[left] = again
        return found.arrows, found.directions, found.marks


class _Attempt:
    """One try at B images, an arrow and then its marks at a time.

    Attributes:
        fine: (B,), whether all was placed.
    """

    def __init__(self, board: Board, steps: Ints, seeds: Ints) -> None:
        self.rows, self.fine = np.arange(len(steps)), np.ones(len(steps), dtype=bool)
        self.arrows, self.directions = np.zeros_like(steps), np.zeros_like(steps)
        self.marks = np.zeros((*steps.shape, MARKS), np.int64)
        y, x = np.divmod(np.arange(board.rows * board.columns), board.columns)
        down, right = y - y[:, None], x - x[:, None]  # (from, to)
        self._away = np.maximum(np.abs(down), np.abs(right))
        # (direction, from, to): whether a place lies straight ahead
        self._ahead = np.stack([(np.sign(down) == d) & (np.sign(right) == r) for d, r in DIRECTIONS])
        self._ahead &= (down == 0) | (right == 0)
        self._free = np.ones((len(steps), len(y)), dtype=bool)
        self._marked = np.zeros_like(self._free)
        self._barred = np.zeros_like(self._free)  # on the way of an arrow
        for arrow in range(steps.shape[1]):
            self._place_arrow(arrow, steps[:, arrow], seeds)
            for mark in range(1, MARKS):
                self._place_mark(arrow, mark, steps[:, arrow], seeds)

    def _place_arrow(self, arrow: int, steps: Ints, seeds: Ints) -> None:
        """An arrow whose way holds no mark, and at the given number of steps a free place for its own."""
        count = self._free.shape[1]
        # (steps, direction, from, to)
        at = self._ahead & (self._away == np.arange(count)[:, None, None, None])
        exists, target = at.any(-1)[steps], at.argmax(-1)[steps]  # (B, 4, from)
        open_ = self._free & ~self._barred
        fits = exists & self._free[:, None] & open_[self.rows[:, None, None], target]
        crossed = np.einsum("dft,bt->bdf", self._ahead.astype(np.float32), self._marked.astype(np.float32))
        chosen = self._choose((fits & (crossed == 0)).reshape(len(steps), -1), seeds, arrow, 0)
        direction, place = np.divmod(chosen, count)
        self.arrows[:, arrow], self.directions[:, arrow] = place, direction
        self._mark(arrow, 0, target[self.rows, direction, place])
        self._free[self.rows, place] = False
        self._barred |= self._ahead[direction, place]

    def _place_mark(self, arrow: int, mark: int, steps: Ints, seeds: Ints) -> None:
        """A mark as far from the arrow as the one it points to, or farther, and on the way of no arrow."""
        place = self.arrows[:, arrow]
        fits = self._free & ~self._barred & (self._away[place] >= steps[:, None])
        beside = fits & self._ahead[:, place].any(0) & (self._away[place] == steps[:, None])
        fits = np.where(beside.any(1, keepdims=True), beside, fits)
        self._mark(arrow, mark, self._choose(fits, seeds, arrow, mark))

    def _mark(self, arrow: int, mark: int, places: Ints) -> None:
        self.marks[:, arrow, mark] = places
        self._free[self.rows, places] = False
        self._marked[self.rows, places] = True

    def _choose(self, fits: Bools, seeds: Ints, arrow: int, mark: int) -> Ints:
        """One of those that fit (B, M), each as likely; images in which none does are not fine."""
        chosen = np.where(fits, uniform(fits.shape[1], seeds, arrow, mark), -1.0).argmax(1)
        self.fine &= fits[self.rows, chosen]
        return chosen
