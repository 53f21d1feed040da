"""Ground truth of an evaluation: read and checked once, for any number of results."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import hotcoco
import numpy as np
import numpy.typing as npt

from botvision.coco.annotations import Category
from botvision.coco.doubts import doubtful_categories, objects_twice, same_file_twice
from botvision.coco.lists import Lists
from botvision.coco.masks import empty_rle
from botvision.coco.raw import RawFile, read_json
from botvision.coco.read import Annotations
from botvision.io.errors import DataError

Kind = Literal["bbox", "segm"]
KINDS: tuple[Kind, ...] = ("bbox", "segm")


class CocoTruth:
    """I images with A annotations of K categories; made by `read_truth`.

    Attributes:
        images: int64 (I), ids, ascending.
        sizes: int64 (I, 2), height and width of each image; 0 where the file does not say.
        categories: ascending by id.
        places: int64 (2, A), of the image and of the category of each annotation.
        boxes: float64 (A, 4), x, y, width, height.
        crowd: bool (A).
    """

    def __init__(self, annotations: Annotations, categories: list[Category]) -> None:
        self.images, self.categories = annotations.image_ids, categories
        self.sizes = annotations.image_sizes
        self.places = np.stack([annotations.images, annotations.categories])
        self.boxes, self.crowd = annotations.boxes, annotations.crowd
        self._annotations = annotations

    @property
    def notes(self) -> list[str]:
        """Lines on what is odd or taken otherwise than the file says it, as `read_coco` has them.

        On masks there are some once they are read.
        """
        own = self._annotations
        name, images = own.file.name, own.file.images
        lines = [
            f"{name}: {text} ({odd.sum()} of them, annotation {own.ids[odd.argmax()]} the first)"
            for odd, text in (
                (own.flat, "boxes without area are measured as the file has them"),
                (
                    (own.areas <= 0) & ~own.flat,
                    "stated areas that are not above 0 count in evaluation by size",
                ),
            )
            if odd.any()
        ]
        found = [*doubtful_categories(self.categories, self.categories, name), *own.fractions]
        found += [*own.clipped(), *same_file_twice(images, name), *objects_twice(own, images, name)]
        return [*(problem.line for problem in found), *lines, *own.file.notes()]

    def counts(self) -> npt.NDArray[np.int64]:
        """Return how many objects of each category each image has, int64 (K, I), crowds aside."""
        counts = np.zeros((len(self.categories), len(self.images)), dtype=np.int64)
        image, category = self.places[:, ~self.crowd]
        np.add.at(counts, (category, image), 1)
        return counts

    @cached_property
    def no_masks(self) -> str | None:
        """Why masks cannot be evaluated, one line; None if they can."""
        self._masks  # noqa: B018  their faults are what is asked for
        own = self._annotations
        own.records.refuse(own.bare & ~(own.flat | own.empty), "segmentation", lambda _: "no segmentation")
        lines = [problem.line for problem in own.records.problems]
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        return f"{lines[0]}{more}" if lines else None

    def index(self, kind: Kind) -> hotcoco.COCO:
        """Return hotcoco's index, for "segm" with masks; ids of images and categories are places, from 1.

        Raises:
            DataError: masks that cannot be used, one line.
        """
        if kind == "segm" and self.no_masks:
            raise DataError(self.no_masks)
        return self._segm if kind == "segm" else self._bbox

    @cached_property
    def _masks(self) -> list[Any]:
        return self._annotations.read_masks(0, len(self.crowd))

    @cached_property
    def _bbox(self) -> hotcoco.COCO:
        return self._indexed(None)

    @cached_property
    def _segm(self) -> hotcoco.COCO:
        self._bbox  # noqa: B018  which may ask the masks for areas
        sizes = self._annotations.sizes.tolist()
        masks = [mask or empty_rle((h, w)) for mask, (h, w) in zip(self._masks, sizes, strict=True)]
        index = self._indexed(masks)
        self._masks.clear()  # hotcoco has them
        self._annotations.forget()
        return index

    def _indexed(self, masks: list[Any] | None) -> hotcoco.COCO:
        own, number = self._annotations, len(self.crowd)
        if np.isnan(own.areas).any():
            self._masks  # noqa: B018  say what is covered
        sides = [
            {"height": height, "width": width} if height else {} for height, width in self.sizes.tolist()
        ]
        return hotcoco.COCO.from_arrays(
            [{"id": k, **size} for k, size in enumerate(sides, 1)],
            [{"id": k, "name": category.name} for k, category in enumerate(self.categories, 1)],
            self.places[0] + 1,
            self.places[1] + 1,
            self.boxes,
            ids=np.arange(1, number + 1),  # to pycocotools an object whose id is 0 is never found
            area=np.where(np.isnan(own.areas), own.covered, own.areas),
            iscrowd=self.crowd.astype(np.int64),
            segmentation=masks,
        )


def read_truth(truth: CocoTruth | Mapping[str, Any] | str | Path) -> CocoTruth:
    """Read and check ground truth; its masks are read when they are first evaluated.

    The annotations' own ids play no part. Where `area` is missing it is the mask's, without a mask the box's;
    where `iscrowd` is missing it is 0, a missing `bbox` is the box around the mask, and `ignore` is not read.
    Boxes stay as they are, wherever they lie.

    Args:
        truth: a dict with `images`, `annotations` and `categories`, or a JSON file of it. Ground truth that
            was read before is returned as it is.

    Raises:
        DataError: an id twice or unknown, a box that is no box; one line that names the record.
    """
    if isinstance(truth, CocoTruth):
        return truth
    name = "ground truth" if isinstance(truth, Mapping) else str(truth)
    content = truth if isinstance(truth, Mapping) else read_json(truth, RawFile)
    lists = Lists(content, name, training=False)
    annotations = Annotations(lists, lists.categories)
    if not content["categories"]:
        raise DataError(f"{name}: no categories, expected at least one")
    lists.raise_first(annotations.records)
    return CocoTruth(annotations, lists.categories)
