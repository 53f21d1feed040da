"""What pictures are drawn with: outlines, textured ground, and shapes laid over it; whole batches at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.config.data import DataConfig
from botvision.data.labels import Grouping

Array = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

SPLITS = {"train": 0, "val": 1}  # as counters of the random numbers
_CHUNK = 16  # images drawn at once: their planes stay in the processor's cache
_CONTRAST = 0.08  # of textures, above and below the plain colour


class SyntheticSource(ABC):
    """N images that are drawn when they are asked for; image i depends on (seed, split, i) and the settings.

    Attributes:
        title: name of the data, for tables.
        classes: names (K).
        targets: int64 (N,), or (N, G) for G labels in an image.
        grouping: a quantity of the labels by which accuracy is broken down, if there is one.
    """

    title: str
    classes: tuple[str, ...]
    targets: Tensor
    grouping: Grouping | None = None

    def __init__(self, config: DataConfig, split: str) -> None:
        """Take the settings; the split is "train" or "val"."""
        self.seed, self.split, self.size = config.generated_seed, split, config.size
        self.count = config.num_images if split == "train" else config.num_val_images
        self._previous, self._ahead_from, self._ahead = -1, 0, torch.empty(0)

    def __len__(self) -> int:
        return self.count

    @abstractmethod
    def name_of(self, index: int) -> str:
        """What stands for a file's name."""

    def points(self) -> Tensor | None:
        """Return y and x in pixels of what the labels depend on, float64 (N, 2) or (N, G, 2), if known."""
        return None

    def load(self, index: int) -> Tensor:
        """Return uint8 (3, H, W); in ascending order sixteen are drawn at once, several times faster."""
        ascending, self._previous = index == self._previous + 1, index
        start = index - self._ahead_from
        if not 0 <= start < len(self._ahead):
            if not ascending:
                return self.load_many(torch.tensor([index]))[0]
            stop = min(index + _CHUNK, len(self))
            self._ahead, self._ahead_from, start = self.load_many(torch.arange(index, stop)), index, 0
        return self._ahead[start]

    def load_many(self, indices: Tensor) -> Tensor:
        """Return uint8 (B, 3, H, W) for int64 (B,)."""
        return torch.cat([torch.from_numpy(self._draw(chunk.numpy())) for chunk in indices.split(_CHUNK)])

    @abstractmethod
    def _draw(self, indices: Ints) -> npt.NDArray[np.uint8]:
        """The same for at most `_CHUNK` of them."""


def grid(size: tuple[int, int]) -> tuple[Array, Array]:
    """Return y (H,) and x (W,) of pixels: 0 in the middle, 1 at half of the short side."""
    half = min(size) / 2
    y, x = ((np.arange(side, dtype=np.float32) + 0.5 - side / 2) / half for side in size)
    return y, x


def turned(y: Array, x: Array, top: Array, left: Array, angle: Array, radius: Array) -> tuple[Array, Array]:
    """Return coordinates (B, h, w), from y (h,) and x (w,), where a shape is upright, central, of radius 1.

    Its place, angle in radians, and radius are (B,).
    """
    sine, cosine = _column(np.sin(angle) / radius), _column(np.cos(angle) / radius)
    down, right = y[:, None] - _column(top), x - _column(left)
    return cosine * right + sine * down, cosine * down - sine * right


def texture(y: Array, x: Array, draws: Array) -> Array:
    """Return stripes, checks, or soft waves, (B, h, w) about 0, by random numbers (B, 5)."""
    frequency, angle, phase = 4 + 10 * draws[:, 0], np.pi * draws[:, 1], 2 * np.pi * draws[:, 2]
    sine, cosine = frequency * np.sin(angle), frequency * np.cos(angle)
    along = _wave(y, x, sine, cosine, phase)
    across = _wave(y, x, cosine, -sine, phase + draws[:, 3])
    kind = (draws[:, 4] * 3).astype(np.int64)
    along[kind == 1] *= across[kind == 1]
    along[kind == 2] = 0.5 * (along[kind == 2] + across[kind == 2])
    along *= _CONTRAST
    return along


def grey_ground(size: tuple[int, int], draws: Array) -> Array:
    """Return textured grey with a tint, planes (B, 3, H, W), by random numbers (B, 9)."""
    grey = 0.25 + 0.35 * draws[:, 5, None] + 0.1 * (draws[:, 6:9] - 0.5)
    return grey[:, :, None, None] + texture(*grid(size), draws[:, :5])[:, None]


def to_pixels(planes: Array) -> npt.NDArray[np.uint8]:
    """Return values 0..1 as 0..255; what lies beyond is cut off. The planes are overwritten."""
    np.clip(planes, 0, 1, out=planes)
    planes *= 255
    return planes.astype(np.uint8)


def outlined(outlines: Ints, u: Array, v: Array) -> Array:
    """Return the signed distance (B, h, w) from each one's outline, in radii, negative inside."""
    edge = np.empty_like(u)
    for k in np.unique(outlines):
        mine = outlines == k
        edge[mine] = OUTLINES[k](u[mine], v[mine])
    return edge


def lay(planes: Array, outlines: Ints, centres: Array, turns: Array, radii: Array, colours: Array) -> None:
    """Lay one shape on every picture of (B, 3, H, W); only the square around it is touched.

    Args:
        planes: changed in place.
        outlines: (B,), numbers in OUTLINES.
        centres: (B, 2), y and x in pixels.
        turns: (B,), angle in whole turns.
        radii: (B,) in pixels.
        colours: (B, 3), or (B, 1) for greys.
    """
    height, width = planes.shape[2:]
    side = min(height, width, 2 * int(np.ceil(radii.max())) + 3)
    corners = np.floor(centres - side / 2 + 0.5).astype(np.int64)
    corners = corners.clip(0, [height - side, width - side])
    steps = np.arange(side, dtype=np.float32) + 0.5
    top, left = (centres - corners).astype(np.float32).T
    edge = outlined(outlines, *turned(steps, steps, top, left, 2 * np.pi * turns, radii))
    blend(planes, corners, (0.5 - edge * radii[:, None, None]).clip(0, 1), colours)


def blend(planes: Array, corners: Ints, cover: Array, colours: Array) -> None:
    """Paint a square of every picture as far as it is covered.

    Args:
        planes: (B, 3, H, W), changed in place.
        corners: (B, 2), upper left ones of the squares.
        cover: (B, side, side), 0..1.
        colours: (B, 3) or (B, 1).
    """
    squares = np.lib.stride_tricks.sliding_window_view(planes, cover.shape[1:], axis=(2, 3), writeable=True)
    chosen = np.arange(len(planes)), slice(None), corners[:, 0], corners[:, 1]
    patch = squares[chosen]
    squares[chosen] = patch + cover[:, None] * (colours[:, :, None, None] - patch)


def _column(values: Array) -> Array:
    return values.astype(np.float32)[:, None, None]


def _wave(y: Array, x: Array, down: Array, right: Array, phase: Array) -> Array:
    """sin(down y + right x + phase), (B, h, w), from sines of rows and columns alone (addition theorem)."""
    rows, columns = _column(down) * y[:, None] + _column(phase), _column(right) * x
    return np.sin(rows) * np.cos(columns) + np.cos(rows) * np.sin(columns)


def _length(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v)  # np.hypot guards against overflow, at three times the price


def _disc(u: Array, v: Array) -> Array:
    return _length(u, v) - 0.9


def _ring(u: Array, v: Array) -> Array:
    return np.abs(_length(u, v) - 0.72) - 0.22


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.78


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u) * 0.8660254 + v * 0.5, -v) - 0.5


def _star(u: Array, v: Array) -> Array:
    """Five points: within one of ten mirrored sectors the outline is a straight line from tip to notch."""
    step = 2 * np.pi / 5
    sector = np.abs(np.mod(np.arctan2(u, v), step) - step / 2)  # step / 2 at a tip, 0 at a notch
    radius = _length(u, v)
    notch, tip = np.array([0.4, 0.0]), np.array([np.cos(step / 2), np.sin(step / 2)])
    normal = np.array([tip[1] - notch[1], notch[0] - tip[0]])
    normal = (normal / float(np.hypot(*normal))).astype(np.float32)
    return (radius * np.cos(sector) - np.float32(notch[0])) * normal[0] + radius * np.sin(sector) * normal[1]


def _cross(u: Array, v: Array) -> Array:
    a, b = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(a - 0.28, b - 0.95), np.maximum(b - 0.28, a - 0.95))


def _crescent(u: Array, v: Array) -> Array:
    return np.maximum(_length(u, v) - 0.95, 0.8 - _length(u - 0.45, v))


def _bar(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u) - 0.98, np.abs(v) - 0.26)


def _hourglass(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(v) - 0.85, (np.abs(u) - np.abs(v) * 0.8 - 0.06) * 0.78)


def _pair(u: Array, v: Array) -> Array:
    return _length(np.abs(u) - 0.52, v) - 0.42


def _arrow(u: Array, v: Array) -> Array:
    """Points to the right: a head of two thirds of the length on a shaft."""
    side = np.abs(v)
    head = np.maximum((u - 0.95) * 0.5547 + side * 0.83205, -0.3 - u)
    return np.minimum(head, np.maximum(np.abs(u + 0.55) - 0.45, side - 0.3))


OUTLINES: tuple[Callable[[Array, Array], Array], ...] = (
    _disc, _ring, _square, _triangle, _star, _cross, _crescent, _bar, _hourglass, _pair, _arrow,
)  # fmt: skip
BAR, ARROW = OUTLINES.index(_bar), OUTLINES.index(_arrow)
