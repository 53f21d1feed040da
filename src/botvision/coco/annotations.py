"""COCO instance annotations: reading, what is wrong with them, and back to COCO records."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from botvision.coco.arrays import CocoAnnotations, mask_extents, pack, select
from botvision.coco.masks import empty_rle
from botvision.coco.records import (
    AnnotationRecord,
    Category,
    Context,
    ImageRecord,
    Problem,
    ProblemKind,
    is_id,
    read_annotation,
    read_image_record,
)
from botvision.io.errors import DataError
from botvision.io.files import write_text

__all__ = [
    "Category", "CocoAnnotations", "CocoFile", "ImageRecord", "Problem", "ProblemKind", "parse_coco",
    "read_coco", "write_coco",
]  # fmt: skip


APART = 0.5  # IoU of box and mask below which something must be wrong
TOLERATED = 3.0  # pixels


@dataclass(frozen=True)
class CocoFile:
    """What a COCO file holds, without what is broken.

    Attributes:
        name: of the file.
        images: in the order of the file.
        categories: ascending by id; category k is label k + 1 of the networks.
        annotations: of these images.
        problems: what is wrong, in the order of the file, fatal or not.
    """

    name: str
    images: list[ImageRecord]
    categories: list[Category]
    annotations: CocoAnnotations
    problems: list[Problem]

    @property
    def dropped(self) -> Counter[str]:
        """How many problems there are of each kind."""
        return Counter(problem.kind for problem in self.problems)

    def annotation_record(self, index: int) -> dict[str, Any]:
        """An annotation as COCO has it, with its own ids."""
        annotations = self.annotations
        image = self.images[int(annotations.images[index])]
        record: dict[str, Any] = {
            "id": int(annotations.ids[index]),
            "image_id": image.id,
            "category_id": self.categories[int(annotations.categories[index])].id,
            "bbox": annotations.boxes[index].tolist(),
            "area": float(annotations.areas[index]),
            "iscrowd": int(annotations.crowd[index]),
        }
        rle = annotations.rle_of(index)
        if rle:
            record["segmentation"] = {"size": [image.height, image.width], "counts": rle.decode("ascii")}
        elif polygons := annotations.polygons_of(index):
            record["segmentation"] = [decimals(polygon) for polygon in polygons]
        elif annotations.has_masks:  # no area, and nothing that could be read as its mask
            record["segmentation"] = empty_rle((image.height, image.width))
        return record

    def to_dict(self, images: Iterable[int] | None = None) -> dict[str, Any]:
        """The COCO file of some images (by index; all by default), as `json.dump` takes it."""
        chosen = range(len(self.images)) if images is None else list(images)
        return {
            "images": [image_record(self.images[i]) for i in chosen],
            "annotations": [self.annotation_record(a) for i in chosen for a in self.annotations.of_image(i)],
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
        }


def image_record(image: ImageRecord) -> dict[str, Any]:
    """An image as COCO has it."""
    return {"id": image.id, "file_name": image.file, "height": image.height, "width": image.width}


def decimals(coordinates: npt.NDArray[np.float32]) -> list[float]:
    """The shortest decimal numbers that are these float32: 61.87, not 61.869998931884766."""
    return coordinates.reshape(-1).astype("U32").astype(np.float64).tolist()


def read_coco(path: str | Path, categories: Sequence[Category] | None = None) -> CocoFile:
    """Read a COCO file of instances.

    Everything broken in it is collected, not raised, and left out; a box that reaches far outside its image
    is clipped. One that reaches a little outside stays as it is, and is counted. A box or mask of no area is
    not fatal: COCO itself has some. It stays for evaluation, as the file has it, and is marked as degenerate,
    never to be trained on.

    Args:
        path: JSON with "images", "annotations" and "categories".
        categories: of the training data, where this file is for validation: they decide about labels, and
            the file's own must be among them.

    Raises:
        DataError: one line, if there is no such file or it is no COCO file at all.
    """
    return parse_coco(_load(Path(path)), str(path), categories)


def parse_coco(content: dict[str, Any], name: str, categories: Sequence[Category] | None = None) -> CocoFile:
    """Like :func:`read_coco`, from what the JSON holds; the list of annotations is emptied on the way.

    Args:
        content: "images", "annotations" and "categories", a list each.
        name: for messages.
        categories: as for :func:`read_coco`.
    """
    context = Context(name)
    own = _categories(content["categories"], context)
    if categories is None:
        categories = own
    else:
        _compare(own, categories, context)
    context.category_index = {category.id: k for k, category in enumerate(categories)}
    for place, raw in enumerate(content["images"]):
        read_image_record(raw, place, context)
    records = _records(content["annotations"], context)
    annotations = _with_masks(pack(records, len(context.images)), context)
    _a_little_outside(context)
    _same_file_twice(context)
    _box_and_mask_apart(annotations, context)
    return CocoFile(name, context.images, list(categories), annotations, context.problems)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected COCO annotations (JSON)") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected a COCO object with images")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path}: no list {key!r}, expected images, annotations and categories")
    return content


def _categories(raw: list[Any], context: Context) -> list[Category]:
    found: dict[int, Category] = {}
    for place, entry in enumerate(raw):
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not is_id(number) or not isinstance(name, str) or not name:
            line = f"categories[{place}]: expected an id (a whole number from 0) and a name"
        elif number in found:
            line = f"category {number}: the id occurs twice ({found[number].name}, {name})"
        else:
            found[number] = Category(number, name)
            continue
        context.problems.append(Problem("category", f"{context.name}: {line}"))
    for name, count in Counter(category.name for category in found.values()).items():
        if count > 1:
            line = f"{context.name}: {count} categories are called {name}"
            context.problems.append(Problem("category", line, fatal=False))
    return [found[number] for number in sorted(found)]


def _compare(own: Sequence[Category], known: Sequence[Category], context: Context) -> None:
    """Categories of validation must mean what they mean in training."""
    names = dict(known)
    others = [(number, name) for number, name in own if names.get(number, name) != name]
    if others:
        number, name = others[0]
        line = f"category {number} is {name}, but {names[number]} in the training data"
        more = f", and {len(others) - 1} more are others" if len(others) > 1 else ""
        context.problems.append(Problem("categories", f"{context.name}: {line}{more}"))


def _records(raw: list[Any], context: Context) -> Iterator[AnnotationRecord]:
    for place, entry in enumerate(raw):
        record = read_annotation(entry, place, context)
        raw[place] = None  # gives its memory back while the arrays grow
        if record is not None:
            yield record


def _a_little_outside(context: Context) -> None:
    """One line for all boxes that are clipped: a tool's habit, of which there may be thousands."""
    if not context.outside:
        return
    count, most = len(context.outside), max(beyond for beyond, _ in context.outside)
    which = context.outside[0][1] if count == 1 else f"{context.outside[0][1]} the first"
    boxes = "1 box reaches" if count == 1 else f"{count} boxes reach up to"
    line = f"{context.name}: {boxes} {most:.1f} pixels outside the image ({which}): clipped for training, "
    line += "measured as in the file"
    context.problems.append(Problem("clipped", line, fatal=False))


def _same_file_twice(context: Context) -> None:
    first: dict[str, int] = {}
    for image in context.images:
        other = first.setdefault(image.file, image.id)
        if other != image.id:
            line = f"{context.name}: images {other} and {image.id} are the same file {image.file}"
            context.problems.append(Problem("image", line, image.id, fatal=False))


def _with_masks(annotations: CocoAnnotations, context: Context) -> CocoAnnotations:
    """A file of boxes only is fine, but a box among masks would be learnt as a full rectangle: left out."""
    bare = annotations.bare & ~annotations.degenerate
    if not annotations.has_masks or not bare.any():
        return annotations
    for index in np.flatnonzero(bare).tolist():
        image_id, number = context.images[int(annotations.images[index])].id, int(annotations.ids[index])
        line = f"{context.name}: annotation {number} of image {image_id}: no segmentation, unlike others"
        context.problems.append(Problem("segmentation", line, image_id, number))
    return select(annotations, np.flatnonzero(~bare))


def _box_and_mask_apart(annotations: CocoAnnotations, context: Context) -> None:
    """Boxes that cover little of what their masks cover: x, y, x, y for x, y, width, height, say."""
    corners = np.concatenate(
        [annotations.boxes[:, :2], annotations.boxes[:, :2] + annotations.boxes[:, 2:]], axis=1
    )
    extents = mask_extents(annotations, context.images)
    low, high = np.maximum(corners[:, :2], extents[:, :2]), np.minimum(corners[:, 2:], extents[:, 2:])
    both = (high - low).clip(0).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (corners, extents)]
    overlap = both / np.maximum(areas[0] + areas[1] - both, 1e-9)
    far = (np.abs(corners - extents) > TOLERATED).any(axis=1)  # outlines of a few pixels are never exact
    for index in np.flatnonzero(far & (overlap < APART) & annotations.objects).tolist():
        image_id, number = context.images[int(annotations.images[index])].id, int(annotations.ids[index])
        where = f"{context.name}: annotation {number} of image {image_id}"
        line = f"{where}: bbox and the box around the mask overlap by {overlap[index]:.0%} (IoU)"
        context.problems.append(Problem("box", line, image_id, number, fatal=False))


def write_coco(path: str | Path, content: dict[str, Any]) -> None:
    """Write what :meth:`CocoFile.to_dict` gives as JSON; the file is whole or not there."""
    write_text(Path(path), json.dumps(content))
