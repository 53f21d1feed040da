"""Where images and their instances are read from: COCO files, or drawn shapes."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.data.coco import Category, CocoFile, ImageRecord, image_record
from botvision.data.detection_transforms import View
from botvision.data.errors import DataError
from botvision.data.images import read_image
from botvision.data.masks import boxes_of, decode, polygons_to_rles

Target = dict[str, Tensor]


class InstanceSource(Protocol):
    """N images with instances; i is 0..N-1 throughout."""

    @property
    def categories(self) -> list[Category]:
        """Ascending by id."""
        ...

    @property
    def annotated(self) -> npt.NDArray[np.bool_]:
        """(N): which images have instances (crowds do not count)."""
        ...

    @property
    def has_masks(self) -> bool:
        """Whether instances are masks, not just boxes."""
        ...

    def image(self, index: int) -> ImageRecord:
        """Id, file and size."""
        ...

    def name_of(self, index: int) -> str:
        """For messages."""
        ...

    def load(self, index: int) -> Tensor:
        """uint8 (3, H, W), the way up in which it is annotated."""
        ...

    def instances(self, index: int, view: View | None = None) -> Target:
        """Boxes float32 (n, 4) xyxy, labels int64 (n,) from 1, masks uint8 (n, H, W), no crowds.

        Seen through a view only what is visible in it is there, boxes are those of the visible masks.
        """
        ...

    def ground_truth(self, indices: list[int]) -> dict[str, Any]:
        """The COCO file of these images."""
        ...


class CocoSource:
    """A COCO file and its folder of images."""

    def __init__(self, file: CocoFile, folder: Path) -> None:
        """Take the parts; images are looked for when they are loaded."""
        self.file, self.folder = file, folder
        annotations = file.annotations
        counted = np.bincount(annotations.images[~annotations.crowd], minlength=len(file.images))
        self.annotated: npt.NDArray[np.bool_] = counted > 0

    def __len__(self) -> int:
        return len(self.file.images)

    @property
    def categories(self) -> list[Category]:
        return self.file.categories

    @property
    def has_masks(self) -> bool:
        return self.file.annotations.has_masks

    def image(self, index: int) -> ImageRecord:
        return self.file.images[index]

    def name_of(self, index: int) -> str:
        image = self.file.images[index]
        return f"{self.folder / image.file} (image id {image.id})"

    def load(self, index: int) -> Tensor:
        return load_annotated(self.folder, self.file.images[index])

    def instances(self, index: int, view: View | None = None) -> Target:
        image = self.file.images[index]
        annotations, size = self.file.annotations, (image.height, image.width)
        mine = np.arange(*self.file.annotations.first[index : index + 2])
        mine = mine[~annotations.crowd[mine]]
        corners = annotations.boxes[mine]
        corners[:, 2:] += corners[:, :2]
        corners = corners.clip(0, [image.width, image.height] * 2)
        if view is not None:
            corners = view.boxes(corners)
            seen = (corners[:, 2:] > corners[:, :2]).all(axis=1)
            mine, corners = mine[seen], corners[seen]
        masks = torch.from_numpy(self._masks(mine, corners, size, view))
        target = {
            "boxes": torch.from_numpy(corners.astype(np.float32)),
            "labels": torch.from_numpy(annotations.categories[mine].astype(np.int64) + 1),
            "masks": masks,
        }
        return target if view is None else _visible(target, self.has_masks)

    def ground_truth(self, indices: list[int]) -> dict[str, Any]:
        return self.file.to_dict(indices)

    def _masks(
        self,
        chosen: npt.NDArray[np.int64],
        corners: npt.NDArray[np.float64],
        size: tuple[int, int],
        view: View | None,
    ) -> npt.NDArray[np.uint8]:
        """(n, H, W) of the view, contiguous; full boxes where there are no masks."""
        height, width = size if view is None else view.size
        masks = np.zeros((len(chosen), height, width), dtype=np.uint8)
        annotations = self.file.annotations
        runs = np.flatnonzero(annotations.runs[chosen + 1] > annotations.runs[chosen])
        shapes = np.flatnonzero(annotations.polygons[chosen + 1] > annotations.polygons[chosen])
        for place in set(range(len(chosen))).difference(runs.tolist(), shapes.tolist()):
            left, top, right, bottom = np.rint(corners[place]).astype(int)
            masks[place, top : max(bottom, top + 1), left : max(right, left + 1)] = 1
        if len(runs):
            rles = [{"size": list(size), "counts": annotations.rle_of(a)} for a in chosen[runs].tolist()]
            pixels = decode(rles, size)
            masks[runs] = pixels if view is None else view.masks(pixels)
        if len(shapes):
            outlines = [
                [
                    p.reshape(-1).tolist() if view is None else view.polygon(p)
                    for p in annotations.polygons_of(a)
                ]
                for a in chosen[shapes].tolist()
            ]
            masks[shapes] = decode(polygons_to_rles(outlines, (height, width)), (height, width))
        return masks


class ShapesAdapter:
    """Drawn shapes, with image ids and sizes like those of a file."""

    has_masks = True

    def __init__(self, source: Any, size: tuple[int, int], categories: list[Category]) -> None:  # noqa: ANN401
        """Take a :class:`botvision.data.shapes.ShapesSource` and the size of its images."""
        self.source, self.size, self.categories = source, size, categories
        self.annotated: npt.NDArray[np.bool_] = np.ones(len(source), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> ImageRecord:
        return ImageRecord(index + 1, f"{index:06d}.png", *self.size)

    def name_of(self, index: int) -> str:
        return f"{self.source.name_of(index)} (image id {index + 1})"

    def load(self, index: int) -> Tensor:
        return self.source.load(index)

    def instances(self, index: int, view: View | None = None) -> Target:
        found = self.source.instances(index)
        target = {key: found[key] for key in ("boxes", "labels", "masks")}
        if view is None:
            return target
        target["masks"] = torch.from_numpy(np.ascontiguousarray(view.masks(target["masks"].numpy())))
        return _visible(target, True)

    def ground_truth(self, indices: list[int]) -> dict[str, Any]:
        whole = self.source.coco_dict()
        wanted = {index + 1 for index in indices}
        return {
            "images": [image_record(self.image(index)) for index in indices],
            "annotations": [record for record in whole["annotations"] if record["image_id"] in wanted],
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
        }


def _visible(target: Target, from_masks: bool) -> Target:
    """Without the instances of which nothing is to be seen; boxes of what is."""
    if not len(target["boxes"]):
        return target
    if from_masks:
        target["boxes"] = boxes_of(target["masks"])
    seen = (target["boxes"][:, 2:] > target["boxes"][:, :2]).all(dim=1)
    return target if bool(seen.all()) else {key: values[seen] for key, values in target.items()}


def load_annotated(folder: Path, image: ImageRecord) -> Tensor:
    """Read an image the way up in which it is annotated: of the size that the annotations state.

    That is upright by its EXIF orientation, or, if only that fits, as the pixels are stored.

    Returns:
        uint8 (3, height, width).

    Raises:
        DataError: one line, if the file is missing or broken, or of another size.
    """
    name = f"{folder / image.file} (image id {image.id})"
    wanted = (image.width, image.height)
    picture = read_image(folder / image.file, name)
    upright = picture.size
    if upright != wanted and upright == wanted[::-1]:
        picture = read_image(folder / image.file, name, upright=False)
    if picture.size != wanted:
        raise DataError(
            f"{name}: {upright[1]} x {upright[0]} pixels (height x width), "
            f"but its annotations say {image.height} x {image.width}"
        )
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).contiguous()
