"""What tells the objects of a picture apart: colours, and labels that are readable and cover no other."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from botvision.plots.style import INK, ellipsis

# Okabe and Ito's colours, told apart with any kind of colour vision, without black and a little brighter:
# they must stand out from photographs.
PALETTE = (
    (255, 159, 28), (46, 144, 255), (0, 200, 140), (240, 228, 66),
    (232, 76, 20), (214, 108, 214), (86, 204, 242), (148, 103, 255),
)  # fmt: skip
MOST_HIDDEN = 0.6  # a label that would hide more than this, in objects, is left out

Colour = tuple[int, int, int]


def draw_labels(
    picture: Image.Image,
    boxes: npt.NDArray[np.float64],
    texts: Sequence[str],
    colours: Sequence[Colour],
    order: Sequence[int],
) -> None:
    """Write labels upon a picture, in place; none covers another or leaves the picture.

    Args:
        picture: RGB.
        boxes: (N, 4), x0 y0 x1 y1 of the objects in pixels of the picture.
        texts: N labels; long ones are cut.
        colours: N grounds; the letters are dark or white, whichever can be read on them.
        order: of the objects: the first chooses its label's place first, the last may be left without.
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
        draw.rounded_rectangle(
            (x, y, x + width - 1, y + height - 1), radius=max(2, font_size // 5), fill=colours[i]
        )
        red, green, blue = colours[i]
        ink = INK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
        draw.text((x + pad_x, y + pad_y + font_size * 0.82), text, fill=ink, font=font, anchor="ls")


def _place(
    i: int,
    boxes: npt.NDArray[np.float64],
    size: tuple[int, int],
    picture: tuple[int, int],
    taken: npt.NDArray[np.float64],
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
    places = places[(intersections(places, taken) == 0).all(axis=1)]
    if not len(places):
        return None
    # A label hides an object by as much of it as it covers: little of a large one, all of a small one.
    hidden = intersections(places, boxes) / np.maximum(areas(boxes), 1.0)
    hidden[:, i] *= 0.5  # its own object matters less than others: the label says what is there
    cost = hidden.sum(axis=1)
    best = int((np.floor(cost * 10)).argmin())  # small differences are no reason to leave the upper edge
    return (int(places[best, 0]), int(places[best, 1])) if cost[best] < MOST_HIDDEN else None


def areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the areas (N,) of boxes (N, 4), x0 y0 x1 y1."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def intersections(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the common areas (M, N) of M and N boxes."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    sides = np.minimum(first[:, None, 2:], second[None, :, 2:]) - corner
    return np.prod(np.maximum(sides, 0), axis=2)


def class_colour(index: int) -> Colour:
    """Return the colour of a class, 0..K-1: eight hues, then the same lighter, then darker."""
    base, turn = PALETTE[index % len(PALETTE)], index // len(PALETTE) % 3
    goal, share = ((0, 0.0), (255, 0.45), (0, 0.35))[turn]
    red, green, blue = (round(c + share * (goal - c)) for c in base)
    return red, green, blue


def instance_colours(boxes: npt.NDArray[np.float64]) -> list[Colour]:
    """Give each box a colour that those it touches, or nearly touches, do not have (as far as there are)."""
    x0, y0, x1, y1 = (boxes + np.array([-6, -6, 6, 6])).T
    near = (x0[:, None] < x1) & (x0 < x1[:, None]) & (y0[:, None] < y1) & (y0 < y1[:, None])
    chosen = np.full(len(boxes), -1)
    for i in range(len(boxes)):
        taken = np.bincount(chosen[near[i] & (chosen >= 0)], minlength=len(PALETTE))
        turned = np.roll(taken, -i)  # begin elsewhere each time: all the colours are used, not the first two
        chosen[i] = (int(turned.argmin()) + i) % len(PALETTE)
    return [PALETTE[c] for c in chosen]
