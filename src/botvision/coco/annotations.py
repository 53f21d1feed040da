"""COCO's instances in flat arrays, and back to COCO's records.

As Python objects 100,000 annotations of COCO take 236 MB; here 27 MB: about 80 bytes each, and 8 bytes a
polygon point. As many small masks (nuclei) take 12 MB, the bytes of their compressed run lengths.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from botvision.coco.masks import empty_rle, rle_boxes
from botvision.coco.problems import Problem

# How far a box may reach beyond its image: that many pixels, or that part of the side, whichever is more.
# Tools count edges in their own ways, and export what was drawn over the edge.
OUTSIDE, OUTSIDE_PART = 2.0, 0.01
MOST_DECIMALS = 8  # of coordinates of which many are turned to decimals at once


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
        degenerate: bool (A), whether its box or mask has no area, or it lacks the mask that others have: it
            counts in evaluation, as the file has it, and is never trained on.
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

    def rle_of(self, annotation: int) -> bytes:
        """Return compressed run lengths; empty where it has polygons, or nothing."""
        return self.counts[self.runs[annotation] : self.runs[annotation + 1]].tobytes()

    def polygons_of(self, annotation: int) -> list[npt.NDArray[np.float32]]:
        """Return polygons, float32 (points, 2) of x, y each; views."""
        pieces = range(int(self.polygons[annotation]), int(self.polygons[annotation + 1]))
        return [self.coordinates[self.points[p] : self.points[p + 1]].reshape(-1, 2) for p in pieces]

    def segmentations(self) -> list[str | list[list[float]]]:
        """Return each annotation's compressed run lengths, or else its polygons, flat, if it has any."""
        numbers, letters = decimals(self.coordinates), self.counts.tobytes().decode("ascii")
        rings = [numbers[start:stop] for start, stop in pairwise(self.points.tolist())]
        outlines = [rings[start:stop] for start, stop in pairwise(self.polygons.tolist())]
        runs = [letters[start:stop] for start, stop in pairwise(self.runs.tolist())]
        return [run or outline for run, outline in zip(runs, outlines, strict=True)]

    def select(self, chosen: npt.NDArray[np.int64]) -> "CocoAnnotations":
        """Return some annotations in another order, which must be that of the images; all images stay."""
        polygons, pieces = _reorder(self.polygons, chosen)
        points, coordinates = _reorder(self.points, pieces)
        runs, counts = _reorder(self.runs, chosen)
        images = self.images[chosen]
        plain = ("ids", "categories", "boxes", "areas", "crowd", "degenerate")
        return CocoAnnotations(
            images=images,
            first=np.searchsorted(images, np.arange(len(self.first))).astype(np.int64),
            polygons=polygons,
            points=points,
            coordinates=self.coordinates[coordinates],
            runs=runs,
            counts=self.counts[counts],
            **{name: getattr(self, name)[chosen] for name in plain},
        )

    def mask_extents(self, images: Sequence[ImageRecord]) -> npt.NDArray[np.float64]:
        """Return the smallest boxes around the masks, within the images.

        Returns:
            float64 (A, 4) xyxy; NaN where an annotation has no mask.
        """
        boxes = np.full((len(self), 4), np.nan)
        outlined = np.flatnonzero(np.diff(self.polygons))
        if len(outlined):
            starts = self.points[self.polygons[outlined]] // 2
            points = self.coordinates.reshape(-1, 2)
            boxes[outlined, :2] = np.minimum.reduceat(points, starts, axis=0)
            boxes[outlined, 2:] = np.maximum.reduceat(points, starts, axis=0)
        for a in np.flatnonzero(np.diff(self.runs)).tolist():
            image = images[int(self.images[a])]
            boxes[a] = rle_boxes([{"size": [image.height, image.width], "counts": self.rle_of(a)}])[0]
        sizes = np.array([(image.width, image.height) * 2 for image in images], np.float64).reshape(-1, 4)
        return boxes.clip(0, sizes[self.images])


def _reorder(
    bounds: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """New bounds of variable-length pieces in another order, and where each of their elements was."""
    lengths = np.diff(bounds)[order]
    new = bounds_of(lengths)
    steps = np.arange(new[-1]) - np.repeat(new[:-1], lengths)
    return new, np.repeat(bounds[:-1][order], lengths) + steps


def bounds_of(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where pieces of these lengths begin and end when they lie one behind the other."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


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

    def to_dict(self, images: Iterable[int] | None = None) -> dict[str, Any]:
        """Return the COCO file of some images (by index; all by default), as `json.dump` takes it."""
        chosen = range(len(self.images)) if images is None else list(images)
        parts = [np.arange(*self.annotations.first[i : i + 2]) for i in chosen]
        own = self.annotations.select(np.concatenate([np.empty(0, np.int64), *parts]))
        columns = (own.ids, own.images, own.categories, own.boxes, own.areas, own.crowd)
        records = []
        for (number, i, category, box, area, crowd), mask in zip(
            zip(*(column.tolist() for column in columns), strict=True), own.segmentations(), strict=True
        ):
            image = self.images[i]
            record = {"id": number, "image_id": image.id, "category_id": self.categories[category].id}
            record |= {"bbox": box, "area": area, "iscrowd": int(crowd)}
            if isinstance(mask, str):
                record["segmentation"] = {"size": [image.height, image.width], "counts": mask}
            elif mask:
                record["segmentation"] = mask
            elif self.annotations.has_masks:  # no area, and nothing that could be read as its mask
                record["segmentation"] = empty_rle((image.height, image.width))
            records.append(record)
        own_images = [self.images[i] for i in chosen]
        return {
            "images": [
                {"id": r.id, "file_name": r.file, "height": r.height, "width": r.width} for r in own_images
            ],
            "annotations": records,
            "categories": [category._asdict() for category in self.categories],
        }


def decimals(coordinates: npt.NDArray[np.float32]) -> list[float]:
    """Return the shortest decimal numbers that are these float32: 61.87, not 61.869998931884766."""
    given = coordinates.reshape(-1)
    found, left = given.astype(np.float64), np.arange(len(given))
    for places in range(MOST_DECIMALS):
        rounded = found[left].round(places)
        fits = rounded.astype(np.float32) == given[left]
        found[left[fits]], left = rounded[fits], left[~fits]
    found[left] = given[left].astype("U32")  # the shortest there are, at eight microseconds each
    return found.tolist()


@dataclass
class NewFile:
    """A COCO file that grows record by record; ids count from 1.

    Attributes:
        categories: names.
    """

    categories: list[str]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add_image(self, file: str, size: tuple[int, int]) -> None:
        """Add an image of (height, width) pixels."""
        record = {"id": len(self.images) + 1, "file_name": file, "height": size[0], "width": size[1]}
        self.images.append(record)

    def add(
        self, category: int, box: list[float], area: float, segmentation: object = None, crowd: bool = False
    ) -> None:
        """Add an instance of the latest image; category 0 is the first, `box` is x, y, width, height."""
        record: dict[str, Any] = {
            "id": len(self.annotations) + 1,
            "image_id": len(self.images),
            "category_id": category + 1,
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }
        if segmentation is not None:
            record["segmentation"] = segmentation
        self.annotations.append(record)

    def to_dict(self) -> dict[str, Any]:
        """Return the file as `json.dump` takes it."""
        categories = [{"id": k, "name": name} for k, name in enumerate(self.categories, 1)]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}
