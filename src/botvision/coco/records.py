"""Single records of a COCO file: what they say, or what is wrong with them."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeGuard

from botvision.coco.masks import compress, polygons_to_rles, rle_area
from botvision.io.errors import DataError

ProblemKind = Literal[
    "image",
    "category",
    "categories",
    "annotation",
    "box",
    "clipped",
    "degenerate",
    "segmentation",
    "area",
    "file",
    "size",
]

# How far a box may reach beyond its image: that many pixels, or that part of the side, whichever is more.
# Tools count edges in their own ways, and export what was drawn over the edge.
OUTSIDE, OUTSIDE_PART = 2.0, 0.01
ROUNDING = 0.1  # pixels: so little is no matter, COCO itself has it

FAR_OUTSIDE = 1000  # pixels, besides the image's longer side, that polygons may reach beyond it
MAX_PIXELS = 2**31 - 1
FLOAT_MAX = sys.float_info.max


@dataclass(frozen=True)
class Problem:
    """Something wrong in a data set.

    Attributes:
        kind: which part of the data it is about; "categories" are others than in training, "clipped" are all
            boxes that reach a little outside, "degenerate" are boxes and masks of no area, "file" missing
            or unreadable images, "size" images of another size than the JSON says.
        line: one sentence with the file and the ids.
        image_id: of the image, where known.
        annotation_id: of the annotation, where it is about one.
        fatal: whether training refuses the data for it (unless `skip_broken`); the others are counted only.
    """

    kind: ProblemKind
    line: str
    image_id: int | None = None
    annotation_id: int | None = None
    fatal: bool = True


class Category(NamedTuple):
    """A category as the annotations file has it."""

    id: int
    name: str


class ImageRecord(NamedTuple):
    """An image as the annotations file has it; sizes in pixels."""

    id: int
    file: str
    height: int
    width: int


class AnnotationRecord(NamedTuple):
    """An annotation; `image` and `category` are indices, `box` is x, y, width, height as in the file."""

    id: int
    image: int
    category: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    degenerate: bool
    polygons: list[list[float]]
    rle: bytes


@dataclass
class Context:
    """What a record is read against, and where problems go.

    Attributes:
        name: of the file, for messages.
        images: by index.
        image_index: image id -> index.
        broken_images: ids of images that were left out: their annotations go with them, without a word each.
        category_index: category id -> index.
        problems: collected.
        seen: ids of annotations.
        outside: by how many pixels boxes reach outside that are clipped without ado, and where the first is.
    """

    name: str
    images: list[ImageRecord] = field(default_factory=list)
    image_index: dict[int, int] = field(default_factory=dict)
    broken_images: set[int] = field(default_factory=set)
    category_index: dict[int, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    outside: list[tuple[float, str]] = field(default_factory=list)


class _BrokenError(DataError):
    """A record that cannot be used; the message lacks the file and the ids."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind: ProblemKind = kind


def read_image_record(raw: object, place: int, context: Context) -> None:
    """Append one entry of "images" to the context, or a problem."""
    entry = raw if isinstance(raw, dict) else {}
    image_id = entry.get("id")
    known = image_id if is_id(image_id) else None
    where = f"{context.name}: image {image_id}" if known is not None else f"{context.name}: images[{place}]"
    file, height, width = entry.get("file_name"), entry.get("height"), entry.get("width")
    fault = None
    if known is None:
        fault = f"id is {_short(image_id)}, expected a whole number from 0"
    elif known in context.image_index or known in context.broken_images:
        context.problems.append(Problem("image", f"{where}: the id occurs twice", known))
        return
    elif not isinstance(file, str) or not file:
        fault = f"file_name is {file!r}, expected a path"
    elif not (_is_int(height) and _is_int(width) and height > 0 and width > 0):
        fault = f"height x width is {height!r} x {width!r}, expected two whole numbers above 0"
    elif height * width > MAX_PIXELS:
        fault = f"height x width is {height} x {width}, too large to be an image"
    if fault is not None:
        context.problems.append(Problem("image", f"{where}: {fault}", known))
        if known is not None:
            context.broken_images.add(known)
        return
    context.image_index[int(entry["id"])] = len(context.images)
    context.images.append(ImageRecord(int(entry["id"]), str(file), int(entry["height"]), int(entry["width"])))


def read_annotation(raw: object, place: int, context: Context) -> AnnotationRecord | None:
    """Read one entry of "annotations".

    Returns:
        The record; None if it is left out, with a problem added (or because its image was left out).
    """
    entry = raw if isinstance(raw, dict) else {}
    number, image_id = entry.get("id"), entry.get("image_id")
    if _is_int(image_id) and image_id in context.broken_images:
        return None
    name = f"annotation {number}" if _is_int(number) else f"annotations[{place}]"
    where = f"{context.name}: {name}" + (f" of image {image_id}" if _is_int(image_id) else "")
    ids = (image_id if _is_int(image_id) else None, number if _is_int(number) else None)
    try:
        return _annotation(entry, where, context)
    except _BrokenError as error:
        context.problems.append(Problem(error.kind, f"{where}: {error}", *ids))
    return None


def _annotation(entry: dict[str, Any], where: str, context: Context) -> AnnotationRecord:
    number, image_id, category_id = entry.get("id"), entry.get("image_id"), entry.get("category_id")
    if not _is_int(number):
        raise _BrokenError("annotation", f"id is {number!r}, expected a whole number")
    if number in context.seen:
        raise _BrokenError("annotation", "the id occurs twice")
    context.seen.add(number)
    if not _is_int(image_id) or image_id not in context.image_index:
        raise _BrokenError("annotation", f"there is no image with id {image_id!r}")
    if not _is_int(category_id) or category_id not in context.category_index:
        raise _BrokenError("category", f"there is no category with id {category_id!r}")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _BrokenError("annotation", f"iscrowd is {crowd!r}, expected 0 or 1")
    index = context.image_index[image_id]
    image = context.images[index]
    box, beyond, note = _box(entry.get("bbox"), image)
    flat = 0 in box[2:]
    try:
        polygons, rle, empty = _segmentation(entry.get("segmentation"), image)
    except _BrokenError:
        if not flat:
            raise
        polygons, rle, empty = [], b"", True  # there is nothing to be seen of it, but its box counts
    if flat or empty:
        line = f"{where}: " + (note or "the mask has no pixels")
        context.problems.append(Problem("degenerate", line, image_id, number, fatal=False))
    elif note is not None:
        context.problems.append(Problem("box", f"{where}: {note}", image_id, number))
    elif beyond > ROUNDING:
        context.outside.append((beyond, f"annotation {number} of image {image_id}"))
    area, note = _area(entry.get("area"), box, polygons, rle, image)
    if note is not None and not (flat or empty):
        context.problems.append(Problem("area", f"{where}: {note}", image_id, number, fatal=False))
    category = context.category_index[category_id]
    return AnnotationRecord(number, index, category, box, area, bool(crowd), flat or empty, polygons, rle)


def _box(raw: object, image: ImageRecord) -> tuple[tuple[float, float, float, float], float, str | None]:
    """The box, by how many pixels it reaches outside, and what is amiss: no area, or too far outside.

    Too far outside, it is clipped. A little outside, it stays as the file has it: evaluation compares with
    the file's own box, as pycocotools does, and targets for training are clipped when they are made.
    """
    if not isinstance(raw, list) or len(raw) != 4 or not all(_is_number(value) for value in raw):
        raise _BrokenError("box", f"bbox is {_short(raw)}, expected four finite numbers x, y, width, height")
    x, y, width, height = (float(value) for value in raw)
    shown = "[" + ", ".join(f"{value:g}" for value in raw) + "]"
    if width < 0 or height < 0:
        raise _BrokenError("box", f"bbox {shown} has a negative width or height")
    if width == 0 or height == 0:
        return (x, y, width, height), 0.0, f"bbox {shown} has no area"
    frame = f"the image of {image.height} x {image.width} pixels (height x width)"
    left, top, right, bottom = (
        max(x, 0.0),
        max(y, 0.0),
        min(x + width, image.width),
        min(y + height, image.height),
    )
    if left >= right or top >= bottom:
        raise _BrokenError("box", f"bbox {shown} lies outside {frame}")
    across, down = max(-x, x + width - image.width), max(-y, y + height - image.height)
    beyond = max(across, down)
    if across <= _tolerated(image.width) and down <= _tolerated(image.height):
        return (x, y, width, height), beyond, None
    note = f"bbox {shown} reaches {beyond:g} pixels outside {frame}"
    return (left, top, right - left, bottom - top), beyond, note


def _tolerated(side: int) -> float:
    """How far a box may reach beyond a side; a hair more, as 509.3 + 4.7 - 512 is more than 2."""
    return max(OUTSIDE, OUTSIDE_PART * side) + 1e-6


def _segmentation(raw: object, image: ImageRecord) -> tuple[list[list[float]], bytes, bool]:
    """Polygons, or compressed run lengths, or neither where there is none; whether run lengths are empty."""
    if raw is None or raw == [] or raw == {}:
        return [], b"", False
    if isinstance(raw, dict):
        rle, area = _run_lengths(raw, image)
        return [], rle, area == 0
    if not isinstance(raw, list):
        raise _BrokenError("segmentation", f"segmentation is {_short(raw)}, expected polygons or run lengths")
    reach = max(image.height, image.width) + FAR_OUTSIDE
    for polygon in raw:
        if not isinstance(polygon, list):
            raise _BrokenError("segmentation", f"a polygon is {_short(polygon)}, expected a list of numbers")
        if len(polygon) % 2:
            raise _BrokenError("segmentation", f"a polygon has {len(polygon)} numbers, expected pairs x, y")
        if len(polygon) < 6:
            points = f"{len(polygon) // 2} point{'s' * (len(polygon) != 2)}"
            raise _BrokenError("segmentation", f"a polygon has {points}, expected 3 or more")
        if not _all_finite(polygon):
            raise _BrokenError("segmentation", "a polygon holds what is not a finite number")
        # Rasterising walks along the outline: one of a billion pixels would never end.
        if min(polygon) < -reach or max(polygon) > 2 * reach:
            far = max(-min(polygon), max(polygon))
            raise _BrokenError("segmentation", f"a polygon reaches {far:g} pixels, far outside the image")
    return raw, b"", False


def _run_lengths(raw: dict[str, Any], image: ImageRecord) -> tuple[bytes, int]:
    """Compressed run lengths, and the number of pixels."""
    size, counts = raw.get("size"), raw.get("counts")
    if not isinstance(size, list) or [*size] != [image.height, image.width]:
        raise _BrokenError(
            "segmentation",
            f"mask of size {_short(size)}, expected the image's [{image.height}, {image.width}]",
        )
    try:
        if isinstance(counts, list):
            counts = compress(counts, (image.height, image.width))
        if not isinstance(counts, (str, bytes)) or not counts:
            raise _BrokenError("segmentation", f"counts are {_short(counts)}, expected run lengths")
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        area = rle_area({"size": [image.height, image.width], "counts": counts})  # [40.0, 60.0] passes, too
    except _BrokenError:
        raise
    except (DataError, UnicodeError) as error:
        raise _BrokenError("segmentation", f"mask: {error}") from error
    return counts, area


def _area(
    given: object, box: tuple[float, ...], polygons: list[list[float]], rle: bytes, image: ImageRecord
) -> tuple[float, str | None]:
    """The area, and what is odd about the one given.

    Evaluation goes by what the file states, whatever it is. Where that is nothing, or no number, the area is
    the mask's, and without a mask the box's.
    """
    stated = float(given) if _is_finite(given) else None
    if stated is not None and stated > 0:
        return stated, None
    size = (image.height, image.width)
    if polygons:
        own = float(rle_area(polygons_to_rles([polygons], size)[0]))
    else:
        own = float(rle_area({"size": list(size), "counts": rle})) if rle else box[2] * box[3]
    if stated is not None:
        return stated, f"area is {stated:g}, not the {own:g} that it covers: evaluation by size goes by that"
    return own, None if given is None else f"area is {_short(given)}, {own:g} is taken instead"


def _all_finite(values: Sequence[object]) -> bool:
    try:
        return math.isfinite(math.fsum(values))  # pyrefly: ignore[bad-argument-type]
    except (TypeError, ValueError, OverflowError):
        return False


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value can be the id of an image or a category: a whole number from 0."""
    return _is_int(value) and value >= 0


def _is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number of float64 other than infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= FLOAT_MAX


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
