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
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.config.data import QUANTITIES
from botvision.data.counter_rng import uniform
from botvision.data.grouping import Grouping
from botvision.data.synthetic.board import ARROWS, MARKS, Board, Layout
from botvision.data.synthetic.source import DrawnSource
from botvision.data.synthetic.textured import ARROW, lay, texture

Array = npt.NDArray[np.floating[Any]]

CLASSES = ("orange disc", "blue cross", "green square", "pink ring")
_OUTLINES = np.array([0, 5, 2, 1])  # of the kinds
_COLOURS = np.array([[255, 150, 20], [40, 130, 255], [30, 190, 80], [240, 80, 200]], dtype=np.float32) / 255
_RADIUS = 0.047  # of a mark and an arrow, in short sides: 6 pixels at 128
_JITTER = 0.1  # of a step, on each side
_SPLITS = {"train": 0, "val": 1}
_SALT = 0x9017  # other pictures than the other drawn tasks of the same seed
_GLYPHS = ARROWS * (1 + MARKS)
# Columns of an image's random numbers.
_GROUND, _COLOUR, _GLYPH = 0, 5, 9
_COUNT = _GLYPH + 4 * _GLYPHS


class PointingSource(DrawnSource):
    """`count` drawn images with three arrows each; intervals of distance take turns.

    Attributes:
        targets: int64 (N, 3), kind of the mark that each arrow points to.
        layout: where everything lies.
        grouping: distance (N, 3) of each arrow to its mark in pixels, without the jitter of their places.
        board: the places.
    """

    def __init__(
        self, seed: int, split: str, count: int, size: tuple[int, int], distances: tuple[float, ...]
    ) -> None:
        """Choose the data set.

        Args:
            seed: which one.
            split: "train" or "val".
            count: number of images.
            size: (height, width) in pixels.
            distances: ascending edges of the intervals that distances are drawn from, each as often, in short
                sides of the picture; each must hold a distance of 1 to 6 eighths.
        """
        super().__init__()
        self.seed, self.split, self.size = seed, split, size
        self.board = Board.of_picture(size)
        steps = _steps(seed, split, count, distances)
        order = np.arange(count)
        self.layout: Layout = self.board.lay_out(steps, (seed, _SALT, 2 + _SPLITS[split]), order)
        self.targets = torch.from_numpy(self.layout.kinds[:, :, 0].copy())
        edges = np.array(distances) * min(size)
        quantity = QUANTITIES["pointing"]
        values = torch.from_numpy(self.layout.steps * self.board.step)
        self.grouping = Grouping(quantity, "px", tuple(edges.tolist()), values)

    def name_of(self, index: int) -> str:
        return f"pointing/{self.split}/{index:06d}"

    def points(self, indices: Tensor) -> Tensor:
        """Places (y, x) of the arrows in pixels, float64 (B, 3, 2), of int64 (B,)."""
        centres, *_ = self._glyphs(indices)
        return torch.from_numpy(centres[:, :ARROWS])

    def _draws(self, indices: Tensor) -> Array:
        return uniform(_COUNT, self.seed, _SALT, _SPLITS[self.split], indices.numpy())

    def _glyphs(self, indices: Tensor) -> tuple[Array, Array]:
        """Places (B, 15, 2) of arrows, then marks, in pixels, and their random numbers (B, 15, 4)."""
        draws = self._draws(indices)[:, _GLYPH:].reshape(len(indices), _GLYPHS, 4)
        chosen = indices.numpy()
        marks = self.layout.marks[chosen].reshape(len(chosen), -1)
        cells = np.concatenate([self.layout.arrows[chosen], marks], 1)
        jitter = _JITTER * self.board.step * (2 * draws[:, :, :2] - 1)
        return self.board.centres(cells) + jitter, draws

    def _draw(self, indices: Tensor) -> Tensor:
        """Ground, then marks, then arrows, one after the other in the whole batch."""
        draws, chosen = self._draws(indices).astype(np.float32), indices.numpy()
        centres, own = self._glyphs(indices)
        (height, width), short = self.size, min(self.size)
        y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / (short / 2))[None, :, None]
        x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / (short / 2))[None, None, :]
        grey = 0.25 + 0.35 * draws[:, _COLOUR, None] + 0.1 * (draws[:, _COLOUR + 1 : _COLOUR + 4] - 0.5)
        planes = grey[:, :, None, None] + texture(y, x, draws[:, _GROUND : _GROUND + 5])[:, None]
        radius = np.full(len(chosen), _RADIUS * short)
        kinds = self.layout.kinds[chosen].reshape(len(chosen), -1)
        for glyph in (*range(ARROWS, _GLYPHS), *range(ARROWS)):
            numbers = own[:, glyph]
            if glyph < ARROWS:
                kind = self.layout.colours[chosen, glyph]
                turns = self.layout.directions[chosen, glyph] / 4 + 0.03 * (2 * numbers[:, 2] - 1)
                outlines = np.full(len(chosen), ARROW)
            else:
                kind, turns = kinds[:, glyph - ARROWS], numbers[:, 2]
                outlines = _OUTLINES[kind]
            colours = _COLOURS[kind] * (0.85 + 0.15 * numbers[:, 3:])
            lay(planes, outlines, centres[:, glyph], turns, radius, colours)
        return torch.from_numpy((planes.clip(0, 1) * 255).astype(np.uint8))


def _steps(seed: int, split: str, count: int, distances: tuple[float, ...]) -> npt.NDArray[np.int64]:
    """Steps (N, 3) from arrow to mark, the farthest first in every image: it is the hardest to place.

    Intervals take turns in an order that is drawn anew for every round of three turns each, so that near and
    far marks lie in the same pictures.
    """
    held = steps_of_intervals(distances)
    size = len(held) * ARROWS
    turn = np.arange(-(-count * ARROWS // size) * size)  # whole rounds: an image depends on its number alone
    part, place = uniform(2, seed, _SALT, 4 + _SPLITS[split], turn).T
    sizes = np.array([len(steps) for steps in held])
    table = np.array([steps + [0] * (max(sizes) - len(steps)) for steps in held])
    group = np.empty_like(turn)
    group[np.lexsort((place, turn // size))] = turn % len(held)
    steps = table[group, (part * sizes[group]).astype(np.int64)]
    return -np.sort(-steps.reshape(-1, ARROWS)[:count], axis=1)


def steps_of_intervals(distances: tuple[float, ...]) -> list[list[int]]:
    """Whole steps, 1 to 6, within each interval of distances in short sides."""
    intervals = itertools.pairwise(distances)
    return [[s for s in range(1, 7) if low <= s / 8 < high] for low, high in intervals]
