"""Pictures made of pictures: objects and labels upon an image, images in a sheet.

Everything is drawn at the size of the finished picture, so that lines and letters are equally sharp on a tile
of 128 pixels and on a photograph of 4000. torchvision.utils draws boxes and masks too, but its labels cover
one another, its masks have no outline to tell touching objects apart, and it needs all of them in memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from botvision.plots.style import INK, PALE_INK, TRACK, ellipsis, fit

if TYPE_CHECKING:  # for its name alone: it brings torch
    from botvision.coco.instances import Instances

# Okabe and Ito's colours, told apart with any kind of colour vision, without black and a little brighter:
# they must stand out from photographs.
PALETTE = (
    (255, 159, 28), (46, 144, 255), (0, 200, 140), (240, 228, 66),
    (232, 76, 20), (214, 108, 214), (86, 204, 242), (148, 103, 255),
)  # fmt: skip
BAR, PALE_BAR = "#1f5fbf", "#9db9e3"
FILL, HALO = 0.42, 0.55  # opacity of a mask, and of the dark seam around its outline
SHORTEST_SIDE, LONGEST_SIDE = 768, 1600  # of a finished picture, in pixels
MANY = 40  # more objects than this, or a quarter of it where there is one class, are not labelled one by one
MOST_HIDDEN = 0.6  # a label that would hide more than this, in objects, is left out

Colour = tuple[int, int, int]
Boxes = npt.NDArray[np.float64]
Mode = Literal["auto", "labels", "plain"]


@dataclass(frozen=True)
class SideBySide:
    """One image of a sheet: what is there, and what was found."""

    image: Image.Image
    truth: "Instances"
    prediction: "Instances"
    caption: str = ""


def overlay(
    image: Image.Image,
    objects: "Instances",
    classes: Sequence[str],
    *,
    shortest: int = SHORTEST_SIDE,
    longest: int = LONGEST_SIDE,
    mode: Mode = "auto",
    colours: Sequence[Colour] | None = None,
) -> Image.Image:
    """Draw objects upon an image.

    Args:
        image: any size and mode.
        objects: larger ones are drawn first, so that none is buried.
        classes: K names.
        shortest: a picture whose longer side is below this is enlarged to it.
        longest: a picture whose longer side is above this is reduced to it.
        mode: "labels": a box around each object, and a label where there is room for one. "plain": masks
            alone (boxes, where there are none). "auto": by the number of objects, and the plain picture has
            a legend below it if there are several classes.
        colours: one for each object. By default that of its class, or if there is only one class, of its
            own, different from its neighbours'.

    Returns:
        A new RGB image.

    Raises:
        ValueError: a label outside 1..K.
    """
    labels = objects.labels
    if len(labels) and not 1 <= labels.min() <= labels.max() <= len(classes):
        raise ValueError(f"labels {labels.min()} to {labels.max()} for {len(classes)} classes: expected 1..K")
    scale = min(max(1.0, shortest / max(image.size)), longest / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    height, width = objects.size or (image.height, image.width)
    scales = [size[0] / width, size[1] / height] * 2
    boxes = np.clip(np.nan_to_num(objects.boxes) * scales, 0, [*size, *size])
    plain = _is_many(objects, classes) if mode == "auto" else mode == "plain"
    if colours is None and len(classes) == 1:
        colours = instance_colours(boxes)
    elif colours is None:
        colours = [class_colour(label - 1) for label in labels.tolist()]
    order = np.argsort(-_areas(boxes), kind="stable").tolist()
    line = max(1, round(max(size) / 420))
    if objects.masks is not None:
        for i in order:
            _draw_mask(picture, objects.mask(i), colours[i], line)
        line = max(1, line // 2)  # of the boxes around them
    if objects.masks is None or not plain:
        draw = ImageDraw.Draw(picture)
        for i in order:
            left, upper = (int(min(edge, side - 1)) for edge, side in zip(boxes[i], size, strict=False))
            right, lower = (math.ceil(edge) - 1 for edge in boxes[i, 2:])
            corners = (left, upper, max(left, right), max(upper, lower))
            draw.rectangle(corners, outline=colours[i], width=line)
    if not plain:
        # Sure objects choose their label's place first; of the ground truth, large ones.
        first = order if objects.scores is None else np.argsort(-objects.scores, kind="stable")
        _draw_labels(picture, boxes, _texts(objects, labels, classes), colours, list(first))
    elif mode == "auto":
        picture = _with_legend(picture, [objects], classes, 8)
    return picture


def truth_and_prediction_sheet(
    pairs: Sequence[SideBySide], classes: Sequence[str], *, cell: int = 380
) -> Image.Image:
    """Set ground truth and prediction of some images side by side, pair beside pair in a grid.

    An object that was given several classes is shown once, with the surest (`Instances.distinct`).

    Args:
        pairs: at least one; up to three stand in one column, up to twelve in two, more in three.
        classes: K names.
        cell: pixels of the longer side of one picture.

    Raises:
        ValueError: no pair, or a label outside 1..K.
    """
    if not pairs:
        raise ValueError("no images for a sheet of ground truth and predictions, expected at least one")
    pairs = [replace(pair, prediction=pair.prediction.distinct()) for pair in pairs]
    columns = 1 if len(pairs) <= 3 else 2 if len(pairs) <= 12 else 3
    tiles = [_side_by_side(pair, classes, cell) for pair in pairs]
    captions = [pair.caption for pair in pairs]
    headings = ["ground truth", "prediction, each object once"] * columns
    sheet = contact_sheet(tiles, captions, columns=columns, cell=2 * cell + 6, headings=headings)
    return _with_legend(
        sheet, [each for pair in pairs for each in (pair.truth, pair.prediction)], classes, 12
    )


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int | None = None,
    cell: int = 160,
    headings: Sequence[str] = (),
) -> Image.Image:
    """Set images with one line of caption each in a grid.

    Args:
        images: at least one; each is shown whole within a square of `cell` pixels.
        captions: as many; shortened to the width of the cell.
        columns: images a row; by default as square as the count allows, eight at most.
        cell: pixels.
        headings: spread evenly over the sheet's width, above the first row.

    Raises:
        ValueError: no image, or another number of captions.
    """
    if not images or len(images) != len(captions):
        raise ValueError(
            f"{len(images)} images and {len(captions)} captions: expected as many, and at least one"
        )
    columns = min(columns or min(8, math.ceil(math.sqrt(len(images)))), len(images))
    gap, line, top = 12, 22, 30 if headings else 0
    tiles = [_tile(image, cell) for image in images]
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width, height = columns * (cell + gap) + gap, top + sum(h + line + gap for h in heights) + gap
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for k, heading in enumerate(headings):
        share = (width - gap) / len(headings)
        text = ellipsis(draw, heading, ImageFont.load_default(size=16), share - gap)
        draw.text((gap + k * share, 24), text, fill=INK, font=ImageFont.load_default(size=16), anchor="ls")
    y, words = gap + top, iter(captions)
    for row, tall in zip(rows, heights, strict=True):
        for x, tile, caption in zip(range(gap, width, cell + gap), row, words, strict=False):
            sheet.paste(tile, (x + (cell - tile.width) // 2, y + (tall - tile.height) // 2))
            text = ellipsis(draw, caption, font, cell)
            draw.text((x, y + tall + 16), text, fill=INK, font=font, anchor="ls")
        y += tall + line + gap
    return sheet


def annotate(image: Image.Image, results: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Set the labels of an image and bars of their scores beside it (below it, if it is wide).

    Args:
        image: any size; shown between 256 and 768 pixels, tiny images enlarged without smoothing.
        results: `{"label": str, "score": 0..1}` each, best first.

    Returns:
        A new RGB image; `image` is left as it is.
    """
    picture = fit(image)
    wide = picture.width > 1.6 * picture.height
    margin, row_height = 16, 46
    panel = (max(320, picture.width if wide else 0), max(1, len(results)) * row_height)
    if wide:
        size = (panel[0] + 2 * margin, picture.height + panel[1] + 3 * margin)
        left, top = margin, picture.height + 2 * margin
    else:
        size = (picture.width + panel[0] + 3 * margin, max(picture.height, panel[1]) + 2 * margin)
        left, top = picture.width + 2 * margin, margin
    card = Image.new("RGB", size, "white")
    card.paste(picture, (margin, margin))
    draw = ImageDraw.Draw(card)
    for i, result in enumerate(results):
        y, right = top + i * row_height, left + panel[0]
        size, ink, bar = (15, PALE_INK, PALE_BAR) if i else (18, INK, BAR)
        font = ImageFont.load_default(size=size)
        score = min(1.0, max(0.0, float(result["score"])))
        number = f"{100 * score:.1f}%"
        room = panel[0] - draw.textlength(number, font=font) - 12
        draw.text(
            (left, y + 22), ellipsis(draw, str(result["label"]), font, room), fill=ink, font=font, anchor="ls"
        )
        draw.text((right, y + 22), number, fill=ink, font=font, anchor="rs")
        draw.rounded_rectangle((left, y + 28, right - 1, y + 35), radius=4, fill=TRACK)
        if score > 0.002:
            length = max(8.0, score * panel[0])
            draw.rounded_rectangle((left, y + 28, left + length - 1, y + 35), radius=4, fill=bar)
    return card


def class_colour(index: int) -> Colour:
    """Return the colour of a class, 0..K-1: eight hues, then the same lighter, then darker."""
    base, turn = PALETTE[index % len(PALETTE)], index // len(PALETTE) % 3
    goal, share = ((0, 0.0), (255, 0.45), (0, 0.35))[turn]
    red, green, blue = (round(c + share * (goal - c)) for c in base)
    return red, green, blue


def instance_colours(boxes: Boxes) -> list[Colour]:
    """Give each box a colour that those it touches, or nearly touches, do not have (as far as there are)."""
    grown = boxes + np.array([-3, -3, 3, 3])
    near = _intersections(grown, grown) > 0
    chosen = np.full(len(boxes), -1)
    for i in range(len(boxes)):
        taken = np.bincount(chosen[near[i] & (chosen >= 0)], minlength=len(PALETTE))
        turned = np.roll(taken, -i)  # begin elsewhere each time: all the colours are used, not the first two
        chosen[i] = (int(turned.argmin()) + i) % len(PALETTE)
    return [PALETTE[c] for c in chosen]


def _tile(image: Image.Image, cell: int) -> Image.Image:
    """A picture within a square; tiny ones are enlarged by a whole factor, which keeps pixels alike."""
    tile = fit(image, 1, cell)
    factor = cell // max(tile.size)
    return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)


def _side_by_side(pair: SideBySide, classes: Sequence[str], cell: int) -> Image.Image:
    """Draw ground truth and prediction alike: labelled or not, and what agrees in the same colour."""
    sides = (pair.truth, pair.prediction)
    mode: Mode = "plain" if any(_is_many(each, classes) for each in sides) else "labels"
    colours: list[list[Colour] | None] = [None, None]
    if len(classes) == 1:
        first, second = (each.boxes.astype(np.float64) for each in sides)
        own, other = instance_colours(first), instance_colours(second)
        if len(first):
            shared = _intersections(second, first)
            iou = shared / np.maximum(_areas(second)[:, None] + _areas(first) - shared, 1e-9)
            other = [own[row.argmax()] if row.max() >= 0.5 else c for row, c in zip(iou, other, strict=True)]
        colours = [own, other]
    left, right = (
        overlay(pair.image, each, classes, shortest=cell, longest=cell, mode=mode, colours=chosen)
        for each, chosen in zip(sides, colours, strict=True)
    )
    both = Image.new("RGB", (2 * cell + 6, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (cell + 6, 0))
    return both


def _with_legend(
    picture: Image.Image, shown: "Sequence[Instances]", classes: Sequence[str], margin: int
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


def _draw_mask(picture: Image.Image, mask: npt.NDArray[Any], colour: Colour, line: int) -> None:
    """Blend one mask (H, W) into a picture of any size, in place; only its surroundings are touched."""
    shape = Image.fromarray((mask != 0).astype(np.uint8) * 255)
    within = shape.getbbox()
    if within is None:
        return
    scale = np.array([picture.width / shape.width, picture.height / shape.height])
    margin = line + 2 + math.ceil(scale.max())
    first = np.floor(within[:2] * scale) - margin  # pixels of the picture
    size = np.ceil(within[2:] * scale) + margin - first
    # What lies beyond the image is cut out with it, as nothing: the outline is closed at the border, too.
    cut = np.floor(first / scale), np.ceil((first + size) / scale)
    source = [*(first / scale - cut[0]), *((first + size) / scale - cut[0])]
    shape = shape.crop(tuple(np.concatenate(cut).astype(int).tolist()))
    shape = shape.resize(tuple(size.astype(int).tolist()), Image.Resampling.BILINEAR, tuple(source))
    grown = float(scale.max())
    if grown > 1:  # no stairs; then a border of one pixel of the picture, not as wide as one of the mask
        smooth = shape.filter(ImageFilter.GaussianBlur(0.5 * grown))
        shape = smooth if np.asarray(smooth).max() > 200 else shape  # what is a pixel wide would vanish
        shape = shape.point(
            [round(min(255.0, max(0.0, 127.5 + 2 * grown * (v - 127.5)))) for v in range(256)]
        )
    inside = shape.filter(ImageFilter.MinFilter(2 * line + 1))
    around = shape.filter(ImageFilter.MaxFilter(3))
    for part, opacity, paint in (
        (shape, FILL, colour),
        (ImageChops.subtract(around, shape), HALO, (0, 0, 0)),
        (ImageChops.subtract(shape, inside), 1.0, colour),
    ):
        corner = (int(first[0]), int(first[1]))
        picture.paste(paint, corner, part.point([round(opacity * v) for v in range(256)]))


def _draw_labels(
    picture: Image.Image,
    boxes: Boxes,
    texts: Sequence[str],
    colours: Sequence[Colour],
    order: Sequence[int],
) -> None:
    """Write a label for each box upon a picture, in place; none covers another or leaves the picture.

    Boxes are served in `order`: the first chooses its label's place first, the last may be left without.
    """
    font_size = max(11, min(22, round(max(picture.size) / 55)))
    font, draw = ImageFont.load_default(size=font_size), ImageDraw.Draw(picture)
    pad_x, pad_y = max(3, font_size // 4), max(2, font_size // 6)
    height = font_size + 2 * pad_y
    taken = np.empty((0, 4))
    for i in order:
        text = ellipsis(draw, texts[i], font, min(picture.width - 2 * pad_x, 16 * font_size))
        width = math.ceil(draw.textlength(text, font=font)) + 2 * pad_x
        place = _place(i, boxes, (width, height), picture.size, taken)
        if place is None:
            continue
        x, y = place
        taken = np.vstack([taken, [x, y, x + width, y + height]])
        ground = (x, y, x + width - 1, y + height - 1)
        draw.rounded_rectangle(ground, radius=max(2, font_size // 5), fill=colours[i])
        ink = INK if np.dot(colours[i], (0.299, 0.587, 0.114)) > 110 else "white"
        draw.text((x + pad_x, y + pad_y + font_size * 0.82), text, fill=ink, font=font, anchor="ls")


def _place(
    i: int, boxes: Boxes, size: tuple[int, int], picture: tuple[int, int], taken: Boxes
) -> tuple[int, int] | None:
    """Find a corner for the label of box `i`: at its upper edge, else its lower, else within.

    Where all of these hide something, the place is taken that hides the smallest part of other objects; and
    none, if there is no place without another label (`taken`) or one that leaves most of an object in sight.
    """
    (width, height), (left, upper, right, lower) = size, boxes[i]
    heights = [upper - height, upper, lower, lower - height]
    heights += [y for k in range(1, 40) if (y := upper + k * height / 2) < lower - height]
    x = np.clip([left, right - width, (left + right - width) / 2], 0, max(0, picture[0] - width))
    corners = np.array([(across, y) for y in heights for across in x]).round()
    corners = corners[(corners[:, 1] >= 0) & (corners[:, 1] <= picture[1] - height)]
    places = np.hstack([corners, corners + size])
    places = places[(_intersections(places, taken) == 0).all(axis=1)]
    if not len(places):
        return None
    # A label hides an object by as much of it as it covers: little of a large one, all of a small one.
    hidden = _intersections(places, boxes) / np.maximum(_areas(boxes), 1.0)
    hidden[:, i] *= 0.5  # its own object matters less than others: the label says what is there
    cost = hidden.sum(axis=1)
    best = int((np.floor(cost * 10)).argmin())  # small differences are no reason to leave the upper edge
    return (int(places[best, 0]), int(places[best, 1])) if cost[best] < MOST_HIDDEN else None


def _texts(objects: "Instances", labels: npt.NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    texts = [" ".join(str(classes[label - 1]).split()) for label in labels]
    if objects.scores is not None:
        scores = objects.scores.astype(np.float64)
        # Not "100%" for what is not quite certain: nothing a network says is.
        texts = [f"{t} {min(99, math.floor(100 * s + 0.5))}%" for t, s in zip(texts, scores, strict=True)]
    return texts


def _is_many(objects: "Instances", classes: Sequence[str]) -> bool:
    return len(objects) > (MANY if len(classes) > 1 else MANY // 4)


def _areas(boxes: Boxes) -> npt.NDArray[np.float64]:
    """(N,) areas."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def _intersections(first: Boxes, second: Boxes) -> npt.NDArray[np.float64]:
    """(M, N) common areas of M and N boxes."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    sides = np.minimum(first[:, None, 2:], second[None, :, 2:]) - corner
    return np.prod(np.maximum(sides, 0), axis=2)
