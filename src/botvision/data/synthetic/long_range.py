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

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.config.data import FARTHEST, QUANTITIES
from botvision.data.counter_rng import uniform
from botvision.data.grouping import Grouping
from botvision.data.synthetic.source import DrawnSource
from botvision.data.synthetic.textured import lay, texture

Array = npt.NDArray[np.floating[Any]]

CLASSES = ("same", "different")
# Two, as with four of them small networks settle for telling one kind from the rest, which is right in 75 %.
KINDS = ("orange disc", "blue cross")
_BAR = 7  # the stroke's outline in OUTLINES
_OUTLINES = (0, 5)  # of the kinds
_COLOURS = np.array([[255, 150, 20], [40, 130, 255]], dtype=np.float32) / 255
_RADIUS = 0.047  # of a glyph, in short sides: 6 pixels at 128
_MARGIN = (1 - FARTHEST) / 2  # from a glyph's centre to the edge of the picture
_SPLITS = {"train": 0, "val": 1}
_SALT = 0x10C6  # other pictures than the other drawn tasks of the same seed
_STROKES = 3
# Columns of an image's random numbers.
_PLACE, _GROUND, _COLOUR, _GLYPH = 0, 5, 10, 14
_STROKE = _GLYPH + 2 * 2
_COUNT = _STROKE + 6 * _STROKES


class LongRangeSource(DrawnSource):
    """`count` drawn images; a block of 2 G 2 images, G intervals of distance, is balanced in every respect.

    Attributes:
        targets: int64 (N,), 0 same, 1 different.
        kinds: int64 (N, 2), which of :data:`KINDS` the two glyphs are.
        grouping: distance of every image in pixels.
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
                sides of the picture; 0.1 (glyphs nearly touch) to 0.875.
        """
        super().__init__()
        self.seed, self.split, self.size = seed, split, size
        turn, groups = np.arange(count), len(distances) - 1
        targets, group, pair = turn % 2, turn // 2 % groups, turn // (2 * groups)
        first = pair % len(KINDS)
        second = np.where(targets == 0, first, 1 - first)
        self.targets, self.kinds = torch.from_numpy(targets), torch.from_numpy(np.stack([first, second], 1))
        edges = np.array(distances) * min(size)
        low, high = edges[:-1][group], edges[1:][group]
        part = uniform(1, seed, _SALT, _SPLITS[split] + len(_SPLITS), turn)[:, 0]
        values = np.minimum(low + part * (high - low), np.nextafter(high, low))
        quantity = QUANTITIES["long_range"]
        self.grouping = Grouping(quantity, "px", tuple(edges.tolist()), torch.from_numpy(values))

    def name_of(self, index: int) -> str:
        label, distance = CLASSES[int(self.targets[index])], float(self.grouping.values[index])
        return f"long_range/{self.split}/{label}/{index:06d} ({distance:.0f} px)"

    def _draw(self, indices: Tensor) -> Tensor:
        draws = self._draws(indices)
        centres = self._centres(indices, draws[:, _PLACE : _PLACE + 5])
        pictures = draw(self.kinds[indices].numpy(), centres, draws.astype(np.float32), self.size)
        return torch.from_numpy(pictures)

    def centres(self, indices: Tensor) -> Tensor:
        """Places (y, x) of the two glyphs in pixels, float64 (B, 2, 2), of int64 (B,)."""
        return torch.from_numpy(self._centres(indices, self._draws(indices)[:, _PLACE : _PLACE + 5]))

    def _draws(self, indices: Tensor) -> Array:
        return uniform(_COUNT, self.seed, _SALT, _SPLITS[self.split], indices.numpy())

    def _centres(self, indices: Tensor, draws: Array) -> Array:
        """The larger offset is the distance, down or across; the smaller one is anything up to it."""
        far = self.grouping.values[indices].double().numpy()
        near = (2 * draws[:, 0] - 1) * far
        far = np.where(draws[:, 1] * 2 % 1 < 0.5, far, -far)
        down = draws[:, 1] < 0.5
        offset = np.stack([np.where(down, far, near), np.where(down, near, far)], 1)
        room = np.array(self.size) - 2 * _MARGIN * min(self.size) - np.abs(offset)
        first = _MARGIN * min(self.size) + np.maximum(-offset, 0) + draws[:, 2:4] * room
        return np.stack([first, first + offset], 1)


def draw(
    kinds: npt.NDArray[np.int64], centres: Array, draws: Array, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Draw a batch.

    Args:
        kinds: (B, 2), 0 or 1.
        centres: (B, 2, 2), y and x of both glyphs in pixels.
        draws: (B, 36) uniform in [0, 1).
        size: (height, width) in pixels.

    Returns:
        uint8 (B, 3, H, W).
    """
    height, width = size
    short = min(size)
    y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / (short / 2))[None, :, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / (short / 2))[None, None, :]
    grey = 0.25 + 0.35 * draws[:, _COLOUR, None] + 0.1 * (draws[:, _COLOUR + 1 : _COLOUR + 4] - 0.5)
    planes = grey[:, :, None, None] + texture(y, x, draws[:, _GROUND : _GROUND + 5])[:, None]
    for first in range(_STROKE, _COUNT, 6):
        own = draws[:, first : first + 6]
        place = own[:, :2] * (np.array(size) - 2 * _MARGIN * short) + _MARGIN * short
        shade = np.where(own[:, 2] < 0.5, 0.05, 0.8) + 0.15 * own[:, 3]
        radius = (0.6 + 0.6 * own[:, 5]) * _RADIUS * short
        lay(planes, np.full(len(kinds), _BAR), place, own[:, 4], radius, shade[:, None])
    for glyph in range(2):
        own = draws[:, _GLYPH + 2 * glyph : _GLYPH + 2 * glyph + 2]
        colour = _COLOURS[kinds[:, glyph]] * (0.85 + 0.15 * own[:, 1:])
        radius = np.full(len(kinds), _RADIUS * short)
        lay(planes, np.array(_OUTLINES)[kinds[:, glyph]], centres[:, glyph], own[:, 0], radius, colour)
    return (planes.clip(0, 1) * 255).astype(np.uint8)
