"""A classification task that needs no files: shapes of any place, size, angle and colour on textured ground.

The class is the outline. Fill and ground have random colours and textures of the same kinds, small pieces
that belong to no class lie about, and the shape is anywhere: colour, texture, brightness and position tell
nothing. Image i of a split is a function of (seed, split, i).
"""

import numpy as np
import numpy.typing as npt
import torch

from botvision.config.data import DataConfig
from botvision.data.counter_rng import uniform
from botvision.data.synthetic.drawing import (
    SPLITS,
    Array,
    Ints,
    SyntheticSource,
    blend,
    grid,
    outlined,
    texture,
    to_pixels,
    turned,
)

CLASSES = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "bar", "hourglass", "pair")
_DISTRACTORS = 2
# Columns of an image's random numbers.
_PLACE, _FILL, _GROUND, _COLOUR, _PIECES = 0, 5, 10, 15, 22
_COUNT = _PIECES + 6 * _DISTRACTORS


class GeneratedSource(SyntheticSource):
    """Classes take turns, so all have the same number of images (or one more)."""

    def __init__(self, config: DataConfig, split: str) -> None:
        super().__init__(config, split)
        self.title, self.classes = f"generated ({config.num_classes} classes)", CLASSES[: config.num_classes]
        self.targets = torch.arange(self.count) % config.num_classes

    def name_of(self, index: int) -> str:
        return f"generated/{self.split}/{CLASSES[int(self.targets[index])]}/{index:06d}"

    def _draw(self, indices: Ints) -> npt.NDArray[np.uint8]:
        draws = uniform(_COUNT, self.seed, SPLITS[self.split], indices).astype(np.float32)
        return draw(self.targets.numpy()[indices], draws, self.size)


def draw(classes: Ints, draws: Array, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draw a batch.

    Args:
        classes: (B,) in 0..9.
        draws: (B, 34) uniform in [0, 1).
        size: (height, width) in pixels.

    Returns:
        uint8 (B, 3, H, W).
    """
    (height, width), short = size, min(size)
    y, x = grid(size)
    radius = 0.5 + 0.3 * draws[:, _PLACE]
    angle = 2 * np.pi * draws[:, _PLACE + 1]
    top = (2 * draws[:, _PLACE + 2] - 1) * (height / short - radius)
    left = (2 * draws[:, _PLACE + 3] - 1) * (width / short - radius)
    edge = outlined(classes, *turned(y, x, top, left, angle, radius))
    ground, fill = _colours(draws[:, _COLOUR : _COLOUR + 7])
    planes = ground[:, :, None, None] + texture(y, x, draws[:, _GROUND : _GROUND + 5])[:, None]
    for piece in range(_PIECES, _COUNT, 6):
        _scatter(planes, draws[:, piece : piece + 6], fill)
    shape = fill[:, :, None, None] + texture(y, x, draws[:, _FILL : _FILL + 5])[:, None]
    shape -= planes
    shape *= _cover(edge, radius, short)[:, None]
    planes += shape
    return to_pixels(planes)


def _cover(edge: Array, radius: Array, short: int) -> Array:
    """Distance from the outline to the part of each pixel inside, 0..1."""
    return (0.5 - edge * (radius * short / 2)[:, None, None]).clip(0, 1)


def _colours(draws: Array) -> tuple[Array, Array]:
    """Colours of ground and fill, (B, 3) each: any two, but the fill is clearly lighter or clearly darker."""
    ground = 0.15 + 0.7 * draws[:, :3]
    fill = 0.15 + 0.7 * draws[:, 3:6]
    gap = fill.mean(axis=1) - ground.mean(axis=1)
    wanted = np.where(ground.mean(axis=1) < 0.5, 1, -1) * (0.35 + 0.15 * draws[:, 6])
    return ground, fill + np.where(np.abs(gap) < 0.3, wanted - gap, 0)[:, None].astype(np.float32)


def _scatter(planes: Array, draws: Array, fill: Array) -> None:
    """Lay a small piece, a stroke or a blob, of a colour near the shape's into every picture."""
    count, _, height, width = planes.shape
    short = min(height, width)
    radius = 0.06 + 0.1 * draws[:, 0]
    side = min(short, int(0.16 * 2**0.5 * short) + 3)
    room = np.array([height - side + 1, width - side + 1], dtype=np.float32)
    corners = (draws[:, 1:3] * room).astype(np.int64)
    steps = (np.arange(side, dtype=np.float32) + 0.5 - side / 2) / (short / 2)
    middle = np.zeros(count, dtype=np.float32)
    u, v = turned(steps, steps, middle, middle, np.pi * draws[:, 3], radius)
    edge = np.maximum(np.abs(u), np.abs(v) * (1 + 2 * draws[:, 4, None, None])) - 1
    blend(planes, corners, _cover(edge, radius, short), (fill + (draws[:, 5:6] - 0.5)).clip(0, 1))
