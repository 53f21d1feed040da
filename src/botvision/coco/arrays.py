"""Annotations in flat arrays.

As Python objects 100,000 annotations of COCO take 236 MB; here 27 MB: about 80 bytes each, and 8 bytes a
polygon point. As many small masks (nuclei) take 12 MB, the bytes of their compressed run lengths.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from botvision.coco.masks import rle_boxes
from botvision.coco.records import AnnotationRecord, ImageRecord


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
        degenerate: bool (A), whether its box or mask has no area: it counts in evaluation, as the file has
            it, and is never trained on.
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
    degenerate: npt.NDArray[np.bool_]
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

    @property
    def objects(self) -> npt.NDArray[np.bool_]:
        """Bool (A), which can be trained on: neither crowds nor degenerate."""
        return ~(self.crowd | self.degenerate)

    @property
    def bare(self) -> npt.NDArray[np.bool_]:
        """Bool (A), which have no segmentation."""
        return (np.diff(self.polygons) == 0) & (np.diff(self.runs) == 0)

    def of_image(self, image: int) -> range:
        """Indices of an image's annotations, crowds and degenerate ones included."""
        return range(int(self.first[image]), int(self.first[image + 1]))

    def rle_of(self, annotation: int) -> bytes:
        """Compressed run lengths; empty where it has polygons, or nothing."""
        return self.counts[self.runs[annotation] : self.runs[annotation + 1]].tobytes()

    def polygons_of(self, annotation: int) -> list[npt.NDArray[np.float32]]:
        """Polygons, float32 (points, 2) of x, y each; views."""
        pieces = range(int(self.polygons[annotation]), int(self.polygons[annotation + 1]))
        return [self.coordinates[self.points[p] : self.points[p + 1]].reshape(-1, 2) for p in pieces]


def mask_extents(annotations: CocoAnnotations, images: Sequence[ImageRecord]) -> npt.NDArray[np.float64]:
    """The smallest boxes around the masks, within the images.

    Returns:
        float64 (A, 4) xyxy; NaN where an annotation has no mask.
    """
    boxes = np.full((len(annotations), 4), np.nan)
    outlined = np.flatnonzero(np.diff(annotations.polygons))
    starts = annotations.points[annotations.polygons[outlined]] // 2
    points = annotations.coordinates.reshape(-1, 2)
    if len(outlined):
        boxes[outlined, :2] = np.minimum.reduceat(points, starts, axis=0)
        boxes[outlined, 2:] = np.maximum.reduceat(points, starts, axis=0)
    for a in np.flatnonzero(np.diff(annotations.runs)).tolist():
        image = images[int(annotations.images[a])]
        rle = {"size": [image.height, image.width], "counts": annotations.rle_of(a)}
        boxes[a] = rle_boxes([rle])[0]
    sizes = np.array([(image.width, image.height) * 2 for image in images], dtype=np.float64).reshape(-1, 4)
    return boxes.clip(0, sizes[annotations.images])


class _Columns:
    """Growing flat columns of annotations."""

    def __init__(self) -> None:
        self.ids, self.images, self.categories = array("q"), array("i"), array("i")
        self.boxes, self.areas = array("d"), array("d")
        self.crowd, self.degenerate = array("b"), array("b")
        self.polygons, self.points, self.runs = array("q", [0]), array("q", [0]), array("q", [0])
        self.coordinates, self.counts = array("f"), bytearray()

    def append(self, record: AnnotationRecord) -> None:
        self.ids.append(record.id)
        self.images.append(record.image)
        self.categories.append(record.category)
        self.boxes.extend(record.box)
        self.areas.append(record.area)
        self.crowd.append(record.crowd)
        self.degenerate.append(record.degenerate)
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
    image = np.frombuffer(columns.images, dtype=np.int32)
    unsorted = CocoAnnotations(
        ids=np.frombuffer(columns.ids, dtype=np.int64),
        images=image,
        categories=np.frombuffer(columns.categories, dtype=np.int32),
        boxes=np.frombuffer(columns.boxes, dtype=np.float64).reshape(-1, 4),
        areas=np.frombuffer(columns.areas, dtype=np.float64),
        crowd=np.frombuffer(columns.crowd, dtype=np.bool_),
        degenerate=np.frombuffer(columns.degenerate, dtype=np.bool_),
        first=np.zeros(images + 1, dtype=np.int64),
        polygons=np.frombuffer(columns.polygons, dtype=np.int64),
        points=np.frombuffer(columns.points, dtype=np.int64),
        coordinates=np.frombuffer(columns.coordinates, dtype=np.float32),
        runs=np.frombuffer(columns.runs, dtype=np.int64),
        counts=np.frombuffer(columns.counts, dtype=np.uint8),
    )
    return select(unsorted, np.argsort(image, kind="stable"))


def select(annotations: CocoAnnotations, chosen: npt.NDArray[np.int64]) -> CocoAnnotations:
    """Some annotations in another order, which must be that of the images; all images stay."""
    pieces, points = _reorder(annotations.polygons, chosen)
    corners, coordinates = _reorder(annotations.points, points)
    runs, counts = _reorder(annotations.runs, chosen)
    image = annotations.images[chosen]
    return CocoAnnotations(
        ids=annotations.ids[chosen],
        images=image,
        categories=annotations.categories[chosen],
        boxes=annotations.boxes[chosen],
        areas=annotations.areas[chosen],
        crowd=annotations.crowd[chosen],
        degenerate=annotations.degenerate[chosen],
        first=np.searchsorted(image, np.arange(len(annotations.first))).astype(np.int64),
        polygons=pieces,
        points=corners,
        coordinates=annotations.coordinates[coordinates],
        runs=runs,
        counts=annotations.counts[counts],
    )


def _reorder(
    bounds: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """New bounds of variable-length pieces in another order, and where each of their elements was."""
    lengths = np.diff(bounds)[order]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    steps = np.arange(new[-1]) - np.repeat(new[:-1], lengths)
    return new, np.repeat(bounds[:-1][order], lengths) + steps
