"""A detection task that needs no files: textured shapes of several sizes that cover one another.

The class is the outline. Every object has a colour of its own, strokes that belong to no class lie about,
and one image in sixteen has no object. Masks are the visible pixels: where shapes overlap, the pixel
belongs to the one in front. A shape that is hardly visible is not drawn at all, so nothing in a picture
lacks its annotation. Image i of a split is a function of (seed, split, i) and the settings.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.coco.annotations import NewFile
from botvision.coco.masks import boxes_of, encode
from botvision.data.counter_rng import uniform
from botvision.data.images import write_png
from botvision.data.synthetic.drawing import (
    BAR,
    OUTLINES,
    SPLITS,
    Array,
    grid,
    texture,
    to_pixels,
    turned,
)
from botvision.io.errors import DataError
from botvision.io.files import write_text

CLASSES = ("disc", "ring", "square", "triangle", "star", "cross")
_SALT = 0x5A9E  # other pictures than the classification task's of the same seed
_RADII = (0.17, 0.62)  # in halves of the short side: 11 to 40 pixels at 128
_LARGE = 0.12  # share of the images with one shape as large as the picture, behind all others
_EMPTY = 1 / 16
_VISIBLE = 0.5  # of a shape's pixels, else it is not drawn
_STROKES = 3
# Columns of an image's random numbers; those of the objects come last, so that their number changes no other.
_HEAD, _GROUND, _COLOUR, _STROKE = 0, 4, 9, 13
_OBJECT = _STROKE + 5 * _STROKES
_PER_OBJECT = 12


class ShapesSource:
    """`count` drawn images with boxes and masks."""

    def __init__(
        self, seed: int, split: str, count: int, num_classes: int, size: tuple[int, int], max_objects: int = 5
    ) -> None:
        """Choose the data set.

        Args:
            seed: which one.
            split: "train" or "val".
            count: number of images.
            num_classes: the first so many of `CLASSES`, 1 to 6.
            size: (height, width) in pixels. Radii are 0.085 to 0.31 of the short side; one image in eight
                has a shape that nearly fills the picture. At 128 pixels the objects are small, medium and
                large in the sense of COCO.
            max_objects: most objects in an image; of those, the ones that would hardly be seen are left out.

        Raises:
            DataError: a number of classes, objects or images that cannot be.
        """
        if not 1 <= num_classes <= len(CLASSES):
            raise DataError(f"generated shapes: num_classes is {num_classes}, expected 1 to {len(CLASSES)}")
        if count < 1 or max_objects < 1:
            raise DataError(
                f"generated shapes: {count} images of up to {max_objects} objects, expected 1 or more"
            )
        self.seed, self.split, self.count, self.size, self.max_objects = seed, split, count, size, max_objects
        self.classes = list(CLASSES[:num_classes])
        self._latest: tuple[int, Tensor, dict[str, Tensor]] | None = None

    def __len__(self) -> int:
        return self.count

    def name_of(self, index: int) -> str:
        """Return the file name that `export` gives the image, within `split`'s folder."""
        return f"{index:06d}.png"

    def load(self, index: int) -> Tensor:
        """Return uint8 (3, H, W)."""
        return self._scene(index)[0]

    def instances(self, index: int) -> dict[str, Tensor]:
        """Return the objects of an image, from the front to the back.

        Returns:
            boxes: float32 (N, 4), xyxy in pixels, around the visible pixels.
            labels: int64 (N,), 1..K.
            masks: uint8 (N, H, W), the visible pixels; no two overlap.
        """
        return self._scene(index)[1]

    def coco_dict(self) -> dict[str, Any]:
        """Return the split as a COCO instances dictionary: image ids from 1, masks as compressed RLE."""
        file = NewFile(self.classes)
        for index in range(self.count):
            file.add_image(self.name_of(index), self.size)
            objects = self.instances(index)
            columns = objects["labels"], objects["boxes"], objects["masks"].sum(dim=(1, 2))
            runs = encode(objects["masks"])
            for label, box, area, rle in zip(*(column.tolist() for column in columns), runs, strict=True):
                left, top, right, bottom = box
                file.add(label - 1, [left, top, right - left, bottom - top], area, rle)
        info = {"description": f"drawn shapes, seed {self.seed}, {self.split}"}
        return {"info": info, **file.to_dict()}

    def export(self, folder: str | Path) -> Path:
        """Write `folder/<split>/*.png` and `folder/annotations/instances_<split>.json`, a COCO data set.

        Returns:
            The JSON file.
        """
        root = Path(folder)
        for index in range(self.count):
            write_png(self.load(index), root / self.split / self.name_of(index))
        path = root / "annotations" / f"instances_{self.split}.json"
        write_text(path, json.dumps(self.coco_dict()))
        return path

    def _scene(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Image and objects; the latest is kept, as both are usually asked for one after the other."""
        if self._latest is None or self._latest[0] != index:
            columns = _OBJECT + _PER_OBJECT * self.max_objects
            draws = uniform(columns, self.seed, _SALT, SPLITS[self.split], index)[0].astype(np.float32)
            pixels, objects = _draw(draws, len(self.classes), self.size)
            self._latest = index, torch.from_numpy(pixels), objects
        return self._latest[1], self._latest[2]


@dataclass
class _Shape:
    """A shape's window in the picture, the coordinates there (h,) and (w,), and its cover (h, w) in 0..1."""

    window: tuple[slice, slice]
    y: Array
    x: Array
    cover: Array

    def paint(self, planes: Array, colour: Array, draws: Array) -> None:
        """Lay it over float planes (3, H, W), `colour` (3,) with the texture of `draws` (5,)."""
        patch = planes[:, *self.window]
        fill = colour[:, None, None] + texture(self.y, self.x, draws[None])
        patch += self.cover * (fill - patch)


class _Canvas:
    """Coordinates of a picture: 0 in the middle, 1 at half of the short side."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.short = size, min(size)
        self.reach = size[0] / self.short, size[1] / self.short
        self.y, self.x = grid(size)

    def cover(self, outline: int, radius: float, angle: float, top: float, left: float) -> _Shape:
        """The part of every pixel inside an outline, within the square around it."""
        rows = slice(*np.searchsorted(self.y, (top - 1.05 * radius, top + 1.05 * radius)))
        columns = slice(*np.searchsorted(self.x, (left - 1.05 * radius, left + 1.05 * radius)))
        y, x = self.y[rows], self.x[columns]
        u, v = turned(y, x, *(np.array([value], np.float32) for value in (top, left, angle, radius)))
        edge = OUTLINES[outline](u, v)[0]
        return _Shape((rows, columns), y, x, (0.5 - edge * (radius * self.short / 2)).clip(0, 1))


def _draw(
    draws: Array, num_classes: int, size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], dict[str, Tensor]]:
    """A picture (3, H, W) and its objects, by random numbers (28 + 12 N,) for up to N of them."""
    canvas = _Canvas(size)
    dark = draws[_COLOUR] < 0.5
    ground = (0.1 if dark else 0.3) + 0.6 * draws[_COLOUR] + 0.16 * (draws[_COLOUR + 1 : _COLOUR + 4] - 0.5)
    planes = ground[:, None, None] + texture(canvas.y, canvas.x, draws[None, _GROUND:_COLOUR])
    for first in range(_STROKE, _OBJECT, 5):
        stroke = draws[first : first + 5]
        top, left = (2 * stroke[:2] - 1) * canvas.reach
        piece = canvas.cover(BAR, 0.12 + 0.16 * stroke[2], np.pi * stroke[3], top, left)
        piece.paint(planes, _colour(stroke[4], stroke[2:4], ground.mean()), stroke)

    most = (len(draws) - _OBJECT) // _PER_OBJECT
    objects = _place(draws[:_OBJECT], draws[_OBJECT:].reshape(most, _PER_OBJECT), num_classes, canvas)
    for number, (shape, _, _) in reversed(objects.items()):
        own = draws[_OBJECT + _PER_OBJECT * number :][:_PER_OBJECT]
        hue = draws[_HEAD + 2] + (number + 0.5 * own[5]) / max(6, most)
        shape.paint(planes, _colour(hue % 1, own[6:8], ground.mean()), own[7:12])
    masks = np.array([mask for _, _, mask in objects.values()], dtype=np.uint8).reshape(-1, *size)
    stack, labels = torch.from_numpy(masks), [label for _, label, _ in objects.values()]
    found = {"boxes": boxes_of(stack), "labels": torch.tensor(labels, dtype=torch.int64), "masks": stack}
    return to_pixels(planes), found


def _place(
    head: Array, draws: Array, num_classes: int, canvas: _Canvas
) -> dict[int, tuple[_Shape, int, npt.NDArray[np.bool_]]]:
    """Choose shapes from the front to the back, without those of which too little would be seen.

    Returns:
        By number among the `draws` (N, 12): shape, label and visible mask (H, W).
    """
    wanted = 0 if head[_HEAD] < _EMPTY else 1 + int(head[_HEAD + 1] * len(draws))
    free = np.ones(canvas.size, dtype=bool)
    found = {}
    for number, own in enumerate(draws[:wanted]):
        low = max(_RADII[0], 12 / canvas.short)
        radius = low * (max(_RADII[1], low) / low) ** own[1]
        middle = 2 * own[3:5] - 1
        place = middle * (np.array(canvas.reach) - 0.75 * radius)
        if number == wanted - 1 and head[_HEAD + 3] < _LARGE:
            radius, place = 0.95 + 0.2 * own[1], 0.25 * middle * canvas.reach
        label = 1 + int(own[0] * num_classes)
        shape = canvas.cover(label - 1, radius, 2 * np.pi * own[2], *place)
        inside = shape.cover > 0.5
        mask = np.zeros_like(free)
        mask[shape.window] = inside & free[shape.window]
        if mask.sum() >= max(_VISIBLE * inside.sum(), 1):
            free[shape.window] &= ~inside
            found[number] = shape, label, mask
    return found


def _colour(hue: float, draws: Array, brightness: float) -> Array:
    """RGB (3,) of a strong colour, clearly lighter than a dark ground and clearly darker than a light one."""
    wheel = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3).clip(1, 2) - 1
    saturation = 0.45 + 0.4 * draws[0]
    low, high = (0.85, 1.0) if brightness < 0.5 else (0.2, 0.45)
    value = low + (high - low) * draws[1]
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)
