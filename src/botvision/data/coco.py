"""COCO instance annotations in flat arrays, and back to COCO records.

As Python objects the annotations of COCO's 118,000 training images take over 4 GB; here an annotation takes
69 bytes, and 8 bytes a polygon point (or the bytes of its compressed run lengths).
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from botvision.data.coco_records import (
    AnnotationRecord,
    Category,
    Context,
    ImageRecord,
    Problem,
    ProblemKind,
    read_annotation,
    read_image_record,
)
from botvision.data.errors import DataError

__all__ = [
    "Category", "CocoAnnotations", "CocoFile", "ImageRecord", "Problem", "ProblemKind", "parse_coco",
    "read_coco",
]  # fmt: skip


@dataclass(frozen=True)
class CocoAnnotations:
    """A annotations of N images, image by image; within an image in the order of the file.

    Attributes:
        ids: int64 (A).
        images: int32 (A), index of the image, ascending.
        categories: int32 (A), index of the category.
        boxes: float64 (A, 4), x, y, width, height in pixels, as in the file (float64, so that evaluation
            sees exactly the file's numbers).
        areas: float64 (A), in pixels.
        crowd: bool (A), whether it stands for a crowd of instances.
        first: int64 (N + 1), annotations of image i are first[i]..first[i + 1] - 1.
        polygons: int64 (A + 1), polygons of annotation a are polygons[a]..polygons[a + 1] - 1.
        points: int64 (P + 1), coordinates of polygon p are points[p]..points[p + 1] - 1.
        coordinates: float32, x and y in turn. Decimal numbers of up to 6 digits come back exactly.
        runs: int64 (A + 1), compressed run lengths of annotation a are bytes runs[a]..runs[a + 1] - 1.
        counts: uint8, the run lengths.
    """

    ids: npt.NDArray[np.int64]
    images: npt.NDArray[np.int32]
    categories: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]
    polygons: npt.NDArray[np.int64]
    points: npt.NDArray[np.int64]
    coordinates: npt.NDArray[np.float32]
    runs: npt.NDArray[np.int64]
    counts: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        return sum(values.nbytes for values in vars(self).values())

    @property
    def has_masks(self) -> bool:
        """Whether there is any segmentation (False: boxes only)."""
        return bool(len(self.coordinates) or len(self.counts))

    def of_image(self, image: int) -> range:
        """Indices of an image's annotations, crowds included."""
        return range(int(self.first[image]), int(self.first[image + 1]))

    def rle_of(self, annotation: int) -> bytes:
        """Compressed run lengths; empty where it has polygons, or nothing."""
        return self.counts[self.runs[annotation] : self.runs[annotation + 1]].tobytes()

    def polygons_of(self, annotation: int) -> list[npt.NDArray[np.float32]]:
        """Polygons, float32 (points, 2) of x, y each; views."""
        pieces = range(int(self.polygons[annotation]), int(self.polygons[annotation + 1]))
        return [self.coordinates[self.points[p] : self.points[p + 1]].reshape(-1, 2) for p in pieces]


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
            record["segmentation"] = [_decimals(polygon) for polygon in polygons]
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


def _decimals(coordinates: npt.NDArray[np.float32]) -> list[float]:
    """The shortest decimal numbers that are these float32: 61.87, not 61.869998931884766."""
    return coordinates.reshape(-1).astype("U32").astype(np.float64).tolist()


def read_coco(path: str | Path, categories: Sequence[Category] | None = None) -> CocoFile:
    """Read a COCO file of instances.

    Everything broken in it is collected, not raised, and left out; a box that reaches outside its image is
    clipped. A box of no area is left out without being fatal: COCO itself has some.

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
    annotations = pack(records, len(context.images))
    _same_file_twice(context)
    _some_without_masks(annotations, context)
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
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str) or not name:
            line = f"categories[{place}]: expected an id (a whole number) and a name"
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
    for number, name in own:
        if names.get(number, name) != name:
            line = f"category {number} is {name}, but {names[number]} in the training data"
            context.problems.append(Problem("category", f"{context.name}: {line}"))


def _records(raw: list[Any], context: Context) -> Iterator[AnnotationRecord]:
    for place, entry in enumerate(raw):
        record = read_annotation(entry, place, context)
        raw[place] = None  # gives its memory back while the arrays grow
        if record is not None:
            yield record


def _same_file_twice(context: Context) -> None:
    first: dict[str, int] = {}
    for image in context.images:
        other = first.setdefault(image.file, image.id)
        if other != image.id:
            line = f"{context.name}: images {other} and {image.id} are the same file {image.file}"
            context.problems.append(Problem("image", line, image.id, fatal=False))


def _some_without_masks(annotations: CocoAnnotations, context: Context) -> None:
    """A file of boxes only is fine, but a box among masks would be learnt as a full rectangle."""
    if not annotations.has_masks:
        return
    bare = (np.diff(annotations.polygons) == 0) & (np.diff(annotations.runs) == 0)
    for index in np.flatnonzero(bare).tolist():
        image_id, number = context.images[int(annotations.images[index])].id, int(annotations.ids[index])
        line = f"{context.name}: annotation {number} of image {image_id}: no segmentation, unlike others"
        context.problems.append(Problem("segmentation", line, image_id, number))


class _Columns:
    """Growing flat columns of annotations."""

    def __init__(self) -> None:
        self.ids, self.images, self.categories = array("q"), array("i"), array("i")
        self.boxes, self.areas, self.crowd = array("d"), array("d"), array("b")
        self.polygons, self.points, self.runs = array("q", [0]), array("q", [0]), array("q", [0])
        self.coordinates, self.counts = array("f"), bytearray()

    def append(self, record: AnnotationRecord) -> None:
        self.ids.append(record.id)
        self.images.append(record.image)
        self.categories.append(record.category)
        self.boxes.extend(record.box)
        self.areas.append(record.area)
        self.crowd.append(record.crowd)
        for polygon in record.polygons:
            self.coordinates.extend(polygon)
            self.points.append(len(self.coordinates))
        self.polygons.append(len(self.points) - 1)
        self.counts += record.rle
        self.runs.append(len(self.counts))


def pack(records: Iterable[AnnotationRecord], images: int) -> CocoAnnotations:
    """Annotations in any order to arrays, sorted by image.

    Args:
        records: read one at a time.
        images: number of images, N.
    """
    columns = _Columns()
    for record in records:
        columns.append(record)
    image = np.array(columns.images, dtype=np.int32)
    order = np.argsort(image, kind="stable")
    pieces, points = _reorder(np.array(columns.polygons), order)
    corners, coordinates = _reorder(np.array(columns.points), points)
    runs, counts = _reorder(np.array(columns.runs), order)
    return CocoAnnotations(
        ids=np.array(columns.ids, dtype=np.int64)[order],
        images=image[order],
        categories=np.array(columns.categories, dtype=np.int32)[order],
        boxes=np.array(columns.boxes, dtype=np.float64).reshape(-1, 4)[order],
        areas=np.array(columns.areas, dtype=np.float64)[order],
        crowd=np.array(columns.crowd, dtype=np.bool_)[order],
        first=np.searchsorted(image[order], np.arange(images + 1)).astype(np.int64),
        polygons=pieces,
        points=corners,
        coordinates=np.array(columns.coordinates, dtype=np.float32)[coordinates],
        runs=runs,
        counts=np.frombuffer(bytes(columns.counts), dtype=np.uint8)[counts],
    )


def _reorder(
    bounds: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """New bounds of variable-length pieces in another order, and where each of their elements was."""
    lengths = np.diff(bounds)[order]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    steps = np.arange(new[-1]) - np.repeat(new[:-1], lengths)
    return new, np.repeat(bounds[:-1][order], lengths) + steps
