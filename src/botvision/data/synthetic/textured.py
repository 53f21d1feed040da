"""A classification task that needs no files: shapes of any place, size, angle and colour on textured ground.

The class is the outline. Fill and ground have random colours and textures of the same kinds, small pieces
that belong to no class lie about, and the shape is anywhere: colour, texture, brightness and position tell
nothing. Image i of a split is a function of (seed, split, i).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.data.counter_rng import uniform
from botvision.data.synthetic.source import DrawnSource

Array = npt.NDArray[np.floating[Any]]

CLASSES = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "bar", "hourglass", "pair")
_SPLITS = {"train": 0, "val": 1}
_CONTRAST = 0.08  # of textures, above and below the plain colour
_DISTRACTORS = 2
# Columns of an image's random numbers.
_PLACE, _FILL, _GROUND, _COLOUR, _PIECES = 0, 5, 10, 15, 22
_COUNT = _PIECES + 6 * _DISTRACTORS


class GeneratedSource(DrawnSource):
    """`count` drawn images; classes take turns, so all have the same number of images (or one more)."""

    def __init__(self, seed: int, split: str, count: int, num_classes: int, size: tuple[int, int]) -> None:
        """Choose the data set.

        Args:
            seed: which one.
            split: "train" or "val".
            count: number of images.
            num_classes: the first so many of :data:`CLASSES`.
            size: (height, width) in pixels.
        """
        super().__init__()
        self.seed, self.split, self.size = seed, split, size
        self.targets = torch.arange(count) % num_classes

    def name_of(self, index: int) -> str:
        return f"generated/{self.split}/{CLASSES[int(self.targets[index])]}/{index:06d}"

    def _draw(self, indices: Tensor) -> Tensor:
        draws = uniform(_COUNT, self.seed, _SPLITS[self.split], indices.numpy()).astype(np.float32)
        return torch.from_numpy(draw(self.targets[indices].numpy(), draws, self.size))


def draw(classes: npt.NDArray[np.int64], draws: Array, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draw a batch.

    Args:
        classes: (B,) in 0..9.
        draws: (B, 34) uniform in [0, 1).
        size: (height, width) in pixels.

    Returns:
        uint8 (B, 3, H, W).
    """
    height, width = size
    short = min(height, width)
    y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / (short / 2))[None, :, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / (short / 2))[None, None, :]

    radius = 0.5 + 0.3 * draws[:, _PLACE]
    angle = 2 * np.pi * draws[:, _PLACE + 1]
    top = (2 * draws[:, _PLACE + 2] - 1) * (height / short - radius)
    left = (2 * draws[:, _PLACE + 3] - 1) * (width / short - radius)
    u, v = turned(y, x, top, left, angle, radius)
    edge = np.empty((len(classes), height, width), dtype=np.float32)
    for k in np.unique(classes):
        mine = classes == k
        edge[mine] = OUTLINES[k](u[mine], v[mine])
    cover = _coverage(edge, radius, short)

    ground, fill = _colours(draws[:, _COLOUR : _COLOUR + 7])
    planes = np.empty((len(classes), 3, height, width), dtype=np.float32)
    np.add(ground[:, :, None, None], texture(y, x, draws[:, _GROUND : _GROUND + 5])[:, None], out=planes)
    for piece in range(_DISTRACTORS):
        first = _PIECES + 6 * piece
        _scatter(planes, draws[:, first : first + 6], fill, short)
    shape = fill[:, :, None, None] + texture(y, x, draws[:, _FILL : _FILL + 5])[:, None]
    shape -= planes
    shape *= cover[:, None]
    planes += shape
    np.clip(planes, 0, 1, out=planes)
    planes *= 255
    return planes.astype(np.uint8)


def _column(values: Array) -> Array:
    return values.astype(np.float32)[:, None, None]


def turned(y: Array, x: Array, top: Array, left: Array, angle: Array, radius: Array) -> tuple[Array, Array]:
    """Coordinates (B, H, W) in which the shape is upright, central and of radius 1."""
    sine, cosine = _column(np.sin(angle) / radius), _column(np.cos(angle) / radius)
    down, right = y - _column(top), x - _column(left)
    return cosine * right + sine * down, cosine * down - sine * right


def _coverage(edge: Array, radius: Array, short: int) -> Array:
    """Signed distance from the outline (in radii, negative inside) to the part of the pixel inside, 0..1."""
    return (0.5 - edge * _column(radius * short / 2)).clip(0, 1)


def _colours(draws: Array) -> tuple[Array, Array]:
    """Colours of ground and fill, (B, 3) each: any two, but the fill is clearly lighter or clearly darker."""
    ground = 0.15 + 0.7 * draws[:, :3]
    fill = 0.15 + 0.7 * draws[:, 3:6]
    gap = fill.mean(axis=1) - ground.mean(axis=1)
    wanted = np.where(ground.mean(axis=1) < 0.5, 1, -1) * (0.35 + 0.15 * draws[:, 6])
    return ground, fill + np.where(np.abs(gap) < 0.3, wanted - gap, 0)[:, None].astype(np.float32)


def texture(y: Array, x: Array, draws: Array) -> Array:
    """Stripes, checks, or soft waves, (B, H, W) within the texture's contrast."""
    frequency, angle, phase = 4 + 10 * draws[:, 0], np.pi * draws[:, 1], 2 * np.pi * draws[:, 2]
    sine, cosine = frequency * np.sin(angle), frequency * np.cos(angle)
    along = _wave(y, x, sine, cosine, phase)
    across = _wave(y, x, cosine, -sine, phase + draws[:, 3])
    kind = (draws[:, 4] * 3).astype(np.int64)
    along[kind == 1] *= across[kind == 1]
    along[kind == 2] = 0.5 * (along[kind == 2] + across[kind == 2])
    along *= _CONTRAST
    return along


def _wave(y: Array, x: Array, down: Array, right: Array, phase: Array) -> Array:
    """sin(down y + right x + phase), (B, H, W), from sines of rows and columns alone (addition theorem)."""
    rows, columns = _column(down) * y + _column(phase), _column(right) * x
    return np.sin(rows) * np.cos(columns) + np.cos(rows) * np.sin(columns)


def _scatter(planes: Array, draws: Array, fill: Array, short: int) -> None:
    """Lay a small piece, a stroke or a blob, of a colour near the shape's into every picture.

    Only the square around a piece is touched, a tenth of the picture.
    """
    count, _, height, width = planes.shape
    radius = 0.06 + 0.1 * draws[:, 0]
    side = min(height, width, int(0.16 * 2**0.5 * short) + 3)
    top = (draws[:, 1] * (height - side + 1)).astype(np.int64)
    left = (draws[:, 2] * (width - side + 1)).astype(np.int64)
    steps = (np.arange(side, dtype=np.float32) + 0.5 - side / 2) / (short / 2)
    middle = np.zeros(count, dtype=np.float32)
    u, v = turned(steps[None, :, None], steps[None, None, :], middle, middle, np.pi * draws[:, 3], radius)
    edge = np.maximum(np.abs(u), np.abs(v) * _column(1 + 2 * draws[:, 4])) - 1
    cover = _coverage(edge, radius, short)[:, None]
    colour = (fill + (draws[:, 5:6] - 0.5)).clip(0, 1)[:, :, None, None]
    squares = np.lib.stride_tricks.sliding_window_view(planes, (side, side), axis=(2, 3), writeable=True)
    chosen = np.arange(count), slice(None), top, left
    patch = squares[chosen]
    squares[chosen] = patch + cover * (colour - patch)


def lay(
    planes: Array,
    outlines: npt.NDArray[np.int64],
    centres: Array,
    turns: Array,
    radii: Array,
    colours: Array,
) -> None:
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
    corner = np.floor(centres - side / 2 + 0.5).astype(np.int64)
    corner = corner.clip(0, [height - side, width - side])
    steps = np.arange(side, dtype=np.float32) + 0.5
    top, left = (centres - corner).astype(np.float32).T
    u, v = turned(steps[None, :, None], steps[None, None, :], top, left, 2 * np.pi * turns, radii)
    edge = np.empty_like(u)
    for k in np.unique(outlines):
        mine = outlines == k
        edge[mine] = OUTLINES[k](u[mine], v[mine])
    cover = (0.5 - edge * radii[:, None, None]).clip(0, 1)[:, None]
    squares = np.lib.stride_tricks.sliding_window_view(planes, (side, side), axis=(2, 3), writeable=True)
    chosen = np.arange(len(planes)), slice(None), corner[:, 0], corner[:, 1]
    patch = squares[chosen]
    squares[chosen] = patch + cover * (colours[:, :, None, None] - patch)


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
ARROW = OUTLINES.index(_arrow)  # of no class
