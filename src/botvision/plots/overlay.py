"""Objects drawn upon their image: see-through masks with a crisp outline, boxes, labels; and sheets of pairs.

Everything is drawn at the size of the finished picture, so that lines and letters are equally sharp on a tile
of 128 pixels and on a photograph of 4000. Arrays are numpy's; what is no array but converts to one, such as a
tensor on the CPU, will do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from botvision.plots.labels import Colour, areas, class_colour, draw_labels, instance_colours, intersections
from botvision.plots.style import INK, PALE_INK, ellipsis

CROWD_COLOUR = (200, 205, 212)
FILL, HALO = 0.42, 0.55  # opacity of a mask, and of the dark seam around its outline
SHORTEST_SIDE, LONGEST_SIDE = 768, 1600  # of a finished picture, in pixels
MANY = 40  # more objects than this, or a quarter of it where there is one class, are not labelled one by one
SHARPNESS = 2  # masks are thresholded at this multiple of the picture's size and averaged: smooth edges

Mode = Literal["auto", "labels", "plain"]


@dataclass(frozen=True)
class Objects:
    """What is drawn upon an image of (H, W): N objects.

    Attributes:
        boxes: (N, 4), x0 y0 x1 y1 in pixels of the image.
        labels: (N,), 1..K; 1 is the first of the classes.
        scores: (N,), 0..1; None for ground truth.
        masks: N arrays (H, W), nonzero within the object, looked up one at a time: an object that decodes
            upon ``masks[i]`` keeps large pictures small in memory. None: boxes alone.
        crowd: (N,), whether it is a region of many objects that nobody told apart; None: nowhere.
    """

    boxes: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    scores: npt.NDArray[Any] | None = None
    masks: Sequence[Any] | npt.NDArray[Any] | None = None
    crowd: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def of(cls, found: Mapping[str, Any], threshold: float = 0.0) -> "Objects":
        """Take a target or a result as torchvision's detectors have them.

        Args:
            found: ``boxes``, ``labels`` and, if there, ``scores``, ``masks`` ((N, H, W) of 0 and 1, or
                (N, 1, H, W) of probabilities) and ``iscrowd``.
            threshold: detections below this score are left out.
        """
        boxes = np.asarray(found["boxes"], np.float32).reshape(-1, 4)
        scores = np.asarray(found["scores"], np.float32) if "scores" in found else None
        keep = np.arange(len(boxes)) if scores is None else np.flatnonzero(scores >= threshold)
        masks = np.asarray(found["masks"]) if "masks" in found else None
        if masks is not None:
            masks = (masks[:, 0] if masks.ndim == 4 else masks)[keep]
            masks = masks >= 0.5 if masks.dtype.kind == "f" else masks.astype(bool)
        crowd = np.asarray(found["iscrowd"]).astype(bool)[keep] if "iscrowd" in found else None
        scores = None if scores is None else scores[keep]
        return cls(boxes[keep], np.asarray(found["labels"])[keep], scores, masks, crowd)


@dataclass(frozen=True)
class Pair:
    """One image of a sheet: what is there, and what was found."""

    image: Image.Image
    truth: Objects
    prediction: Objects
    caption: str = ""


def overlay(
    image: Image.Image,
    objects: Objects,
    classes: Sequence[str],
    *,
    shortest: int = SHORTEST_SIDE,
    longest: int = LONGEST_SIDE,
    mode: Mode = "auto",
    colours: Sequence[Colour] | None = None,
) -> Image.Image:
    """Draw objects upon an image.

    Args:
        image: Any size and mode; ``objects`` are in its pixels.
        objects: Larger ones are drawn first, so that none is buried.
        classes: K names.
        shortest: A picture whose longer side is below this is enlarged to it.
        longest: A picture whose longer side is above this is reduced to it.
        mode: ``labels``: a box around each object, and a label where there is room for one. ``plain``: masks
            alone (boxes, where there are none). ``auto``: by the number of objects, and ``plain`` has a
            legend below the picture if there are several classes.
        colours: One for each object. By default that of its class, or if there is only one class, of its
            own, different from its neighbours'.

    Returns:
        A new RGB image.

    Raises:
        ValueError: A label outside 1..K.
    """
    labels = _checked_labels(objects, classes)
    scale = min(max(1.0, shortest / max(image.size)), longest / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    boxes = np.asarray(objects.boxes, np.float64).reshape(-1, 4)
    boxes = np.clip(np.nan_to_num(boxes) * scale, 0, [*size, *size])
    plain = _is_many(objects, classes) if mode == "auto" else mode == "plain"
    if colours is None:
        colours = (
            instance_colours(boxes) if len(classes) == 1 else [class_colour(i - 1) for i in labels.tolist()]
        )
    if objects.crowd is not None:
        colours = [CROWD_COLOUR if c else own for own, c in zip(colours, objects.crowd, strict=True)]
    order = np.argsort(-areas(boxes), kind="stable").tolist()
    line = max(1, round(max(size) / 420))
    if objects.masks is not None:
        picture = _with_masks(picture, objects, order, colours, line)
    if objects.masks is None or not plain:
        draw = ImageDraw.Draw(picture)
        thin = line if objects.masks is None else max(1, line // 2)
        for i in order:
            _draw_box(draw, boxes[i], colours[i], thin, size)
    if not plain:
        # Sure objects choose their label's place first; of the ground truth, large ones.
        first = order if objects.scores is None else np.argsort(-np.asarray(objects.scores), kind="stable")
        draw_labels(picture, boxes, _texts(objects, labels, classes), colours, list(first))
    elif mode == "auto" and len(classes) > 1:
        return _with_legend(picture, [objects], classes, 8)
    return picture


def truth_and_prediction_sheet(
    pairs: Sequence[Pair], classes: Sequence[str], *, columns: int | None = None, cell: int = 380
) -> Image.Image:
    """Set ground truth and prediction of some images side by side, pair beside pair in a grid.

    Args:
        pairs: At least one.
        classes: K names.
        columns: Pairs a row; by default one for up to three pairs, else two, and three from thirteen on.
        cell: Pixels of the longer side of one picture.

    Raises:
        ValueError: No pair, or a label outside 1..K.
    """
    if not pairs:
        raise ValueError("no images for a sheet of ground truth and predictions, expected at least one")
    columns = min(columns or (1 if len(pairs) <= 3 else 2 if len(pairs) <= 12 else 3), len(pairs))
    gap, between, line, top = 16, 6, 24, 34
    tiles = [_both(pair, classes, cell) for pair in pairs]
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(left.height for left, _ in row) for row in rows]
    width = columns * (2 * cell + between + gap) + gap
    bold, small = ImageFont.load_default(size=16), ImageFont.load_default(size=13)
    sheet = Image.new("RGB", (width, top + sum(h + line + gap for h in heights)), "white")
    draw, y = ImageDraw.Draw(sheet), top
    for column in range(columns):
        x = gap + column * (2 * cell + between + gap)
        draw.text((x, 22), "ground truth", fill=INK, font=bold, anchor="ls")
        draw.text((x + cell + between, 22), "prediction", fill=INK, font=bold, anchor="ls")
    captions = iter(pair.caption for pair in pairs)
    for row, height in zip(rows, heights, strict=True):
        for column, pictures in enumerate(row):
            x = gap + column * (2 * cell + between + gap)
            for k, tile in enumerate(pictures):
                sheet.paste(tile, (x + k * (cell + between), y))
            text = ellipsis(draw, next(captions), small, 2 * cell)
            draw.text((x, y + height + 16), text, fill=PALE_INK, font=small, anchor="ls")
        y += height + line + gap
    return _with_legend(
        sheet, [each for pair in pairs for each in (pair.truth, pair.prediction)], classes, gap
    )


def _both(pair: Pair, classes: Sequence[str], cell: int) -> list[Image.Image]:
    """Draw ground truth and prediction alike: labelled or not, and what agrees in the same colour."""
    many = _is_many(pair.truth, classes) or _is_many(pair.prediction, classes)
    mode: Mode = "plain" if many else "labels"
    colours: tuple[list[Colour] | None, list[Colour] | None] = (None, None)
    if len(classes) == 1:
        first = np.asarray(pair.truth.boxes, np.float64).reshape(-1, 4)
        second = np.asarray(pair.prediction.boxes, np.float64).reshape(-1, 4)
        own, other = instance_colours(first), instance_colours(second)
        if len(first):
            shared = intersections(second, first)
            union = areas(second)[:, None] + areas(first) - shared
            iou = shared / np.maximum(union, 1e-9)
            other = [own[row.argmax()] if row.max() >= 0.5 else c for row, c in zip(iou, other, strict=True)]
        colours = own, other
    return [
        overlay(pair.image, each, classes, shortest=cell, longest=cell, mode=mode, colours=chosen)
        for each, chosen in zip((pair.truth, pair.prediction), colours, strict=True)
    ]


def _with_legend(
    picture: Image.Image, shown: Sequence[Objects], classes: Sequence[str], margin: int
) -> Image.Image:
    """Write what the colours mean below a picture, for the classes that occur in it, if there are several."""
    present = sorted({int(label) - 1 for objects in shown for label in objects.labels})
    if len(classes) == 1 or not present:
        return picture
    font, chip, line = ImageFont.load_default(size=13), 13, 22
    places, x, y = [], margin, 0
    for k in present:
        length = chip + 6 + math.ceil(font.getlength(str(classes[k]))) + 22
        if x > margin and x + length > picture.width:
            x, y = margin, y + line
        places.append((x, picture.height + y + 5))
        x += length
    wider = Image.new("RGB", (picture.width, picture.height + y + line + 8), "white")
    wider.paste(picture)
    draw = ImageDraw.Draw(wider)
    for k, (x, y) in zip(present, places, strict=True):
        draw.rounded_rectangle((x, y, x + chip, y + chip), radius=3, fill=class_colour(k))
        text = ellipsis(draw, str(classes[k]), font, picture.width - x - chip - 6)
        draw.text((x + chip + 6, y + chip - 1), text, fill=PALE_INK, font=font, anchor="ls")
    return wider


def _checked_labels(objects: Objects, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    labels = np.asarray(objects.labels, np.int64).reshape(-1)
    if len(labels) and not (labels.min() >= 1 and labels.max() <= len(classes)):
        raise ValueError(f"labels {labels.min()} to {labels.max()} for {len(classes)} classes: expected 1..K")
    return labels


def _is_many(objects: Objects, classes: Sequence[str]) -> bool:
    return len(objects) > (MANY if len(classes) > 1 else MANY // 4)


def _with_masks(
    picture: Image.Image, objects: Objects, order: Sequence[int], colours: Sequence[Colour], line: int
) -> Image.Image:
    canvas = np.asarray(picture, np.float32).copy()
    masks = () if objects.masks is None else objects.masks
    for i in order:
        crowd = objects.crowd is not None and bool(objects.crowd[i])
        _paint_mask(canvas, np.asarray(masks[i]), colours[i], line, filled=not crowd)
    return Image.fromarray(canvas.round().astype(np.uint8))


def _paint_mask(
    canvas: npt.NDArray[np.float32], mask: npt.NDArray[Any], colour: Colour, line: int, *, filled: bool
) -> None:
    """Blend one mask (H, W) into the picture (H', W', 3), in place; only its surroundings are touched."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    scale = canvas.shape[1] / mask.shape[1], canvas.shape[0] / mask.shape[0]
    seam = 1
    left, right = (round(v * scale[0]) for v in (columns[0], columns[-1] + 1))
    upper, lower = (round(v * scale[1]) for v in (rows[0], rows[-1] + 1))
    around = seam + 1 + math.ceil(1.5 * max(scale))  # so far does smoothing reach
    left, upper, right, lower = left - around, upper - around, right + around, lower + around
    # A margin of nothing around the mask: the outline is closed at the border of the image, too.
    pad = 1 + math.ceil((around + 1) / min(scale))
    crop = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] != 0, pad)
    origin = columns[0] - pad, rows[0] - pad
    source = (
        *(max(0.0, left / scale[0] - origin[0]), max(0.0, upper / scale[1] - origin[1])),
        *(min(crop.shape[1], right / scale[0] - origin[0]), min(crop.shape[0], lower / scale[1] - origin[1])),
    )
    size = (right - left) * SHARPNESS, (lower - upper) * SHARPNESS
    inside = _enlarged(crop, size, source, min(scale) * SHARPNESS)
    edge = inside & ~_shrunk(inside, line * SHARPNESS)
    halo = ~_shrunk(~inside, seam * SHARPNESS) & ~inside
    x, y = slice(max(0, left), right), slice(max(0, upper), lower)
    target = canvas[y, x]
    cut = (
        slice(y.start - upper, y.start - upper + target.shape[0]),
        slice(x.start - left, x.start - left + target.shape[1]),
    )
    tint = np.array(colour, np.float32)
    layers = [(halo, HALO, np.zeros(3, np.float32)), (edge, 1.0, tint)]
    for shape, opacity, paint in [(inside, FILL if filled else FILL / 2, tint), *layers]:
        alpha = opacity * _averaged(shape)[cut][..., None]
        target += alpha * (paint - target)


def _enlarged(
    mask: npt.NDArray[np.bool_],
    size: tuple[int, int],
    source: tuple[float, float, float, float],
    scale: float,
) -> npt.NDArray[np.bool_]:
    """Return the part `source` of a mask at `size` (width, height), without stairs if it grows by `scale`."""
    resized = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR, source)
    plain = np.asarray(resized) >= 128
    if scale < 2 * SHARPNESS:
        return plain
    smooth = np.asarray(resized.filter(ImageFilter.GaussianBlur(0.6 * scale))) >= 128
    return smooth if 2 * smooth.sum() > plain.sum() else plain  # what is a pixel wide would vanish


def _shrunk(shape: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    """Erode by about `steps` cells in every direction; what lies beyond the array counts as inside.

    Crosses and squares in turn make an octagon, close enough to a disc.
    """
    shape = np.pad(shape, 1, mode="edge")
    for step in range(steps):
        inner = shape[1:-1, 1:-1] & shape[:-2, 1:-1] & shape[2:, 1:-1] & shape[1:-1, :-2] & shape[1:-1, 2:]
        if step % 2:
            inner &= shape[:-2, :-2] & shape[2:, 2:] & shape[:-2, 2:] & shape[2:, :-2]
        shape = np.pad(inner, 1, mode="edge")
    return shape[1:-1, 1:-1]


def _averaged(shape: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    height, width = shape.shape[0] // SHARPNESS, shape.shape[1] // SHARPNESS
    return shape.reshape(height, SHARPNESS, width, SHARPNESS).mean(axis=(1, 3), dtype=np.float32)


def _draw_box(
    draw: ImageDraw.ImageDraw, box: npt.NDArray[np.float64], colour: Colour, line: int, size: tuple[int, int]
) -> None:
    left, upper = int(min(box[0], size[0] - 1)), int(min(box[1], size[1] - 1))
    right, lower = max(left, math.ceil(box[2]) - 1), max(upper, math.ceil(box[3]) - 1)
    draw.rectangle((left, upper, right, lower), outline=colour, width=line)


def _texts(objects: Objects, labels: npt.NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    texts = [" ".join(str(classes[label - 1]).split()) for label in labels]
    if objects.scores is not None:
        scores = np.asarray(objects.scores, np.float64)
        # Not "100%" for what is not quite certain: nothing a network says is.
        texts = [f"{t} {min(99, math.floor(100 * s + 0.5))}%" for t, s in zip(texts, scores, strict=True)]
    if objects.crowd is not None:
        texts = [f"{t} (crowd)" if c else t for t, c in zip(texts, objects.crowd, strict=True)]
    return texts
