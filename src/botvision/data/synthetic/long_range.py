"""A classification task whose evidence lies far apart: are two small glyphs of the same kind?

Each of the two glyphs has one of two kinds (an outline and a colour that belong together), lies on textured
ground among grey strokes, and turns as it likes. The distance between the two is the dial: the larger one of
their offsets down and across, in other words the side of the smallest square window that holds both centres.
Label, kinds and the interval of the distance take turns, so that they are independent of each other; place,
angle and ground are drawn by counters. Image i of a split is a function of (seed, split, i) and the settings.

What one glyph looks like, and so every statistic of a single place, is the same for both labels. A network
whose logits are a sum over windows that never hold both glyphs (what convolutions with average pooling and
one linear layer are beyond their receptive field) is a function g(first) + g(second) of the two kinds. Cross
entropy is convex and the task the same when the kinds change places, so no such sum has a lower loss than the
constant. (Counting right answers instead, one that calls all different but pairs of crosses reaches three in
four: an accuracy of up to 75 % is no proof that two places were brought together.) Whatever looks at all
places together before its last nonlinearity can tell: attention, but also a maximum over the picture, or an
average followed by two layers.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.config.data import FARTHEST, QUANTITIES, DataConfig
from botvision.data.counter_rng import uniform
from botvision.data.labels import Grouping
from botvision.data.synthetic.drawing import (
    BAR,
    SPLITS,
    Array,
    Ints,
    SyntheticSource,
    grey_ground,
    lay,
    to_pixels,
)

CLASSES = ("same", "different")
# Two, as with four of them small networks settle for telling one kind from the rest, which is right in 75 %.
KINDS = ("orange disc", "blue cross")
_OUTLINES = np.array([0, 5])  # of the kinds
_COLOURS = np.array([[255, 150, 20], [40, 130, 255]], dtype=np.float32) / 255
_RADIUS = 0.047  # of a glyph, in short sides: 6 pixels at 128
_MARGIN = (1 - FARTHEST) / 2  # from a glyph's centre to the edge of the picture
_SALT = 0x10C6  # other pictures than the other drawn tasks of the same seed
_STROKES = 3
# Columns of an image's random numbers.
_PLACE, _GROUND, _GLYPH = 0, 5, 14
_STROKE = _GLYPH + 2 * 2
_COUNT = _STROKE + 6 * _STROKES


class LongRangeSource(SyntheticSource):
    """A block of 2 G 2 images, G intervals of distance, is balanced in every respect.

    Attributes:
        targets: int64 (N,), 0 same, 1 different.
        kinds: int64 (N, 2), which of `KINDS` the two glyphs are.
        grouping: distance of every image in pixels, from each of `config.distances` as often.
    """

    title = "long-range pairs"
    classes = CLASSES
    grouping: Grouping  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, config: DataConfig, split: str) -> None:
        super().__init__(config, split)
        turn, groups = np.arange(self.count), len(config.distances) - 1
        targets, group, pair = turn % 2, turn // 2 % groups, turn // (2 * groups)
        first = pair % len(KINDS)
        second = np.where(targets == 0, first, 1 - first)
        self.targets, self.kinds = torch.from_numpy(targets), torch.from_numpy(np.stack([first, second], 1))
        edges = np.array(config.distances) * min(self.size)
        low, high = edges[:-1][group], edges[1:][group]
        part = uniform(1, self.seed, _SALT, SPLITS[split] + len(SPLITS), turn)[:, 0]
        values = np.minimum(low + part * (high - low), np.nextafter(high, low))
        self.grouping = Grouping(
            QUANTITIES["long_range"], "px", tuple(edges.tolist()), torch.from_numpy(values)
        )

    def name_of(self, index: int) -> str:
        label, distance = CLASSES[int(self.targets[index])], float(self.grouping.values[index])
        return f"long_range/{self.split}/{label}/{index:06d} ({distance:.0f} px)"

    def points(self) -> Tensor:
        return self.centres(torch.arange(len(self)))[:, 0]

    def centres(self, indices: Tensor) -> Tensor:
        """Return the places (y, x) of the two glyphs in pixels, float64 (B, 2, 2), for int64 (B,)."""
        chosen = indices.numpy()
        return torch.from_numpy(self._centres(chosen, self._draws(chosen)))

    def _draws(self, indices: Ints) -> Array:
        return uniform(_COUNT, self.seed, _SALT, SPLITS[self.split], indices)

    def _centres(self, indices: Ints, draws: Array) -> Array:
        """The larger offset is the distance, down or across; the smaller one is anything up to it."""
        far = self.grouping.values.numpy()[indices]
        near = (2 * draws[:, _PLACE] - 1) * far
        far = np.where(draws[:, _PLACE + 1] * 2 % 1 < 0.5, far, -far)
        down = draws[:, _PLACE + 1] < 0.5
        offset = np.stack([np.where(down, far, near), np.where(down, near, far)], 1)
        room = np.array(self.size) - 2 * _MARGIN * min(self.size) - np.abs(offset)
        first = _MARGIN * min(self.size) + np.maximum(-offset, 0) + draws[:, _PLACE + 2 : _PLACE + 4] * room
        return np.stack([first, first + offset], 1)

    def _draw(self, indices: Ints) -> npt.NDArray[np.uint8]:
        """Ground, then strokes, then the two glyphs."""
        draws = self._draws(indices)
        centres, draws = self._centres(indices, draws), draws.astype(np.float32)
        kinds, short = self.kinds.numpy()[indices], min(self.size)
        planes = grey_ground(self.size, draws[:, _GROUND:_GLYPH])
        for first in range(_STROKE, _COUNT, 6):
            own = draws[:, first : first + 6]
            place = own[:, :2] * (np.array(self.size) - 2 * _MARGIN * short) + _MARGIN * short
            shade = np.where(own[:, 2] < 0.5, 0.05, 0.8) + 0.15 * own[:, 3]
            radii = (0.6 + 0.6 * own[:, 5]) * _RADIUS * short
            lay(planes, np.full(len(kinds), BAR), place, own[:, 4], radii, shade[:, None])
        radii = np.full(len(kinds), _RADIUS * short)
        for glyph, kind in enumerate(kinds.T):
            own = draws[:, _GLYPH + 2 * glyph : _GLYPH + 2 * glyph + 2]
            colours = _COLOURS[kind] * (0.85 + 0.15 * own[:, 1:])
            lay(planes, _OUTLINES[kind], centres[:, glyph], own[:, 0], radii, colours)
        return to_pixels(planes)
