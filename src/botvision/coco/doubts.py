"""What is odd about a COCO file that can be read: one line each, nothing is left out for it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from botvision.coco.annotations import Category, CocoAnnotations, ImageRecord
from botvision.coco.problems import Problem, repeated, whole_numbers

# Odd numbers by which columns are mixed into one: sorting that one is six times faster than sorting rows.
MIXING = tuple(int(v) | 1 for v in np.random.default_rng(0).integers(2**62, 2**64, 6, dtype=np.uint64))
APART, APART_PIXELS = 0.5, 3.0  # IoU of box and mask, and distance, from which something must be wrong


FIRST_PIXEL, SMALLEST = 1.01, 8  # boxes that all end there, in images of longer sides, must be fractions


class Objects(Protocol):
    """A annotations by columns, as `CocoAnnotations` has them."""

    @property
    def ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def images(self) -> npt.NDArray[Any]: ...
    @property
    def categories(self) -> npt.NDArray[Any]: ...
    @property
    def boxes(self) -> npt.NDArray[np.float64]: ...
    @property
    def objects(self) -> npt.NDArray[np.bool_]: ...

    def __len__(self) -> int: ...


def plain(name: str) -> str:
    """Return a name by which those that differ in case and spaces alone are the same."""
    return "".join(name.split()).casefold()


def root_categories(categories: Sequence[Any], annotations: Sequence[Any]) -> dict[int, str]:
    """Find the category above all others that Roboflow writes: of supercategory "none", and of no object.

    Args:
        categories: as the file has them.
        annotations: as the file has them.

    Returns:
        Name by id.
    """
    records = [record for record in categories if isinstance(record, Mapping)]
    above = {
        record.get("supercategory") for record in records if isinstance(record.get("supercategory"), str)
    }
    numbers = whole_numbers([record.get("id") for record in records])
    roots = {
        number: record["name"]
        for number, record in zip(numbers.tolist(), records, strict=True)
        if record.get("supercategory") == "none"
        and isinstance(record.get("name"), str)
        and record["name"] in above
    }
    if not roots:
        return {}
    used = whole_numbers([a.get("category_id") if isinstance(a, Mapping) else None for a in annotations])
    return {number: name for number, name in roots.items() if number not in used}


def ids_by_name(own: Sequence[Category], known: Sequence[Category]) -> dict[int, int]:
    """Return the training data's id for each id of a file that numbers the same names otherwise; else {}.

    Names count where one category alone has them in each; a category of another name is not in it.
    """
    here, there = (Counter(plain(category.name) for category in each) for each in (own, known))
    numbers = {plain(name): number for number, name in known if there[plain(name)] == 1}
    ids = {number: numbers[plain(name)] for number, name in own
           if plain(name) in numbers and here[plain(name)] == 1}  # fmt: skip
    return ids if any(number != other for number, other in ids.items()) else {}


def doubtful_categories(own: Sequence[Category], known: Sequence[Category], name: str) -> list[Problem]:
    """Names that occur twice, and categories of validation that mean something else in training."""
    alike: dict[str, list[str]] = {}
    for category in own:
        alike.setdefault(plain(category.name), []).append(category.name)
    called = {", ".join(dict.fromkeys(texts)): len(texts) for texts in alike.values() if len(texts) > 1}
    problems = [
        Problem("category", f"{name}: {count} categories are called {text}", fatal=False)
        for text, count in called.items()
    ]
    names = dict(known)
    others = [(number, text) for number, text in own if plain(names.get(number, text)) != plain(text)]
    others = [] if ids_by_name(own, known) else others  # what has no name in training is refused by use
    if others:
        number, text = others[0]
        line = f"category {number} is {text}, but {names[number]} in the training data"
        more = f", and {len(others) - 1} more are others" if len(others) > 1 else ""
        problems.append(Problem("categories", f"{name}: {line}{more}"))
    return problems


def same_file_twice(images: Sequence[ImageRecord], name: str) -> list[Problem]:
    """Images that are listed under two ids."""
    first: dict[str, int] = {}
    line = "{}: images {} and {} are the same file {}".format
    return [
        Problem("image", line(name, first[image.file], image.id, image.file), image.id, fatal=False)
        for image in images
        if image.file and first.setdefault(image.file, image.id) != image.id
    ]


def fractions(corners: npt.NDArray[np.float64], sides: npt.NDArray[Any], name: str) -> list[Problem]:
    """One line if all boxes lie within the first pixel of their images, by their last corners (N, 2)."""
    if not len(corners) or (corners > FIRST_PIXEL).any() or ((sides > 0) & (sides <= SMALLEST)).any():
        return []
    line = f"{name}: all boxes ({len(corners)}) lie within the first pixel of their images: "
    return [Problem("box", f"{line}they look like fractions of width and height, expected pixels")]


def objects_twice(annotations: Objects, images: Sequence[ImageRecord], name: str) -> list[Problem]:
    """One line for annotations that are there before: of the same image, category and box."""
    columns = [annotations.images, annotations.categories, *np.rint(100 * annotations.boxes.T)]
    mixed = np.zeros(len(annotations), dtype=np.uint64)
    for column, factor in zip(columns, MIXING, strict=True):
        mixed += column.astype(np.int64).view(np.uint64) * np.uint64(factor)
    again = np.flatnonzero(repeated(mixed.view(np.int64), annotations.objects))
    if not len(again):
        return []
    first = f"annotation {annotations.ids[again[0]]} of image {images[int(annotations.images[again[0]])].id}"
    verb = "is" if len(again) == 1 else "are"
    line = f"{name}: {len(again)} of {len(annotations)} annotations {verb} there twice, with the same image, "
    line += f"category and box ({first} the first): a detector that finds each once cannot reach AP 1"
    return [Problem("note", line, fatal=False)]


def masks_outside(
    annotations: CocoAnnotations, images: Sequence[ImageRecord], name: str, edges: npt.NDArray[np.float64]
) -> list[Problem]:
    """Outlines that lie outside their image, by their `mask_extents`: they are marked as without area."""
    outside = (edges[:, 2:] <= edges[:, :2]).any(axis=1) & ~annotations.degenerate
    problems = []
    for k in np.flatnonzero(outside).tolist():
        image, number = images[int(annotations.images[k])], int(annotations.ids[k])
        line = f"{name}: annotation {number} of image {image.id}: the mask has no area within the image of "
        line += f"{image.height} x {image.width} pixels (height x width)"
        problems.append(Problem("degenerate", line, image.id, number, fatal=False))
    annotations.degenerate[outside] = True
    return problems


def box_and_mask_apart(
    annotations: CocoAnnotations, images: Sequence[ImageRecord], name: str, extents: npt.NDArray[np.float64]
) -> list[Problem]:
    """Boxes that cover little of what their masks cover: x, y, x, y for x, y, width, height, say."""
    corners = annotations.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    low, high = np.maximum(corners[:, :2], extents[:, :2]), np.minimum(corners[:, 2:], extents[:, 2:])
    both = (high - low).clip(0).prod(axis=1)
    areas = [(edges[:, 2:] - edges[:, :2]).prod(axis=1) for edges in (corners, extents)]
    overlap = both / np.maximum(areas[0] + areas[1] - both, 1e-9)
    far = (np.abs(corners - extents) > APART_PIXELS).any(axis=1)  # outlines of a few pixels are never exact
    problems = []
    for k in np.flatnonzero(far & (overlap < APART) & annotations.objects).tolist():
        image_id, number = images[int(annotations.images[k])].id, int(annotations.ids[k])
        line = f"{name}: annotation {number} of image {image_id}: "
        line += f"bbox and the box around the mask overlap by {overlap[k]:.0%} (IoU)"
        problems.append(Problem("box", line, image_id, number, fatal=False))
    return problems
