"""Where images and their instances are read from: COCO files, or drawn shapes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from botvision.coco.annotations import CocoFile, decimals
from botvision.coco.masks import boxes_of, decode_into, polygons_to_rles
from botvision.coco.read import parse_coco
from botvision.config.data import MAX_PIXELS
from botvision.data.detection_transforms import Window
from botvision.data.images import decode
from botvision.data.left_out import Choices
from botvision.data.sources import to_tensor
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError

Target = dict[str, Tensor]


class CocoSource:
    """A COCO file of N images and their folder; i is 0..N-1 throughout.

    Attributes:
        file: the annotations.
        folder: that file names are relative to.
        choices: what was chosen in reading the images that were loaded.
        annotated: bool (N), which images have instances to train on: no crowds, nothing without area.
    """

    def __init__(self, file: CocoFile, folder: Path, max_pixels: int = MAX_PIXELS) -> None:
        """Take the parts, and the most pixels of an image; images are looked for when they are loaded."""
        self.file, self.folder, self.max_pixels, self.choices = file, folder, max_pixels, Choices()
        annotations = file.annotations
        counted = np.bincount(annotations.images[annotations.objects], minlength=len(file.images))
        self.annotated: npt.NDArray[np.bool_] = counted > 0

    def name_of(self, index: int) -> str:
        """File and image id, for messages."""
        image = self.file.images[index]
        return f"{self.folder / image.file} (image id {image.id})"

    def load(self, index: int) -> Tensor:
        """uint8 (3, H, W), the way up in which it is annotated."""
        picture = self.picture(index)
        return picture if isinstance(picture, Tensor) else to_tensor(picture)

    def picture(self, index: int, reduce: int = 1) -> Image.Image | Tensor:
        """Return the same as `load`, or up to `reduce` times smaller, in the form in which it is at hand."""
        image = self.file.images[index]
        size = image.height, image.width
        options = {"max_pixels": self.max_pixels, "choices": self.choices}
        return read_annotated(self.folder / image.file, size, self.name_of(index), reduce, **options)

    def instances(self, index: int, window: Window | None = None) -> Target:
        """Return the target of an image, as `DetectionDataset` has it.

        Through a window, only instances that are visible in it, with the boxes of their visible masks.
        """
        image = self.file.images[index]
        annotations, size = self.file.annotations, (image.height, image.width)
        mine = np.arange(*self.file.annotations.first[index : index + 2])
        mine = mine[annotations.objects[mine]]
        corners = annotations.boxes[mine]
        corners[:, 2:] += corners[:, :2]
        corners = corners.clip(0, [image.width, image.height] * 2)
        if window is not None:
            corners = window.boxes(corners)
            seen = (corners[:, 2:] > corners[:, :2]).all(axis=1)
            mine, corners = mine[seen], corners[seen]
        masks, extents = self._masks(mine, corners, size, window)
        boxes = extents if window is not None and annotations.has_masks else corners
        seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) | (window is None)
        if not seen.all():
            mine, boxes, masks = mine[seen], boxes[seen], masks[seen]
        return {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.from_numpy(annotations.categories[mine].astype(np.int64) + 1),
            "masks": torch.from_numpy(masks),
            "image_id": torch.tensor(image.id),
        }

    def _masks(
        self,
        chosen: npt.NDArray[np.int64],
        corners: npt.NDArray[np.float64],
        size: tuple[int, int],
        window: Window | None,
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
        """Masks (n, H, W) of the window, contiguous, and their boxes (n, 4); full boxes if there are none."""
        height, width = size if window is None else window.size
        masks = np.zeros((len(chosen), height, width), dtype=np.uint8)
        boxes = np.zeros((len(chosen), 4))
        annotations = self.file.annotations
        runs = np.flatnonzero(annotations.runs[chosen + 1] > annotations.runs[chosen])
        shapes = np.flatnonzero(annotations.polygons[chosen + 1] > annotations.polygons[chosen])
        for place in set(range(len(chosen))).difference(runs.tolist(), shapes.tolist()):
            left, top, right, bottom = np.rint(corners[place]).astype(int)
            masks[place, top : max(bottom, top + 1), left : max(right, left + 1)] = 1
            boxes[place] = corners[place]
        if len(runs):
            rles = [{"size": list(size), "counts": annotations.rle_of(a)} for a in chosen[runs].tolist()]
            if window is None:
                boxes[runs] = decode_into(rles, masks, runs)
            else:
                window.pick(rles, masks, runs)
                boxes[runs] = boxes_of(torch.from_numpy(masks[runs])).numpy()
        if len(shapes):
            outlines = [
                [decimals(p) if window is None else window.polygon(p) for p in annotations.polygons_of(a)]
                for a in chosen[shapes].tolist()
            ]
            boxes[shapes] = decode_into(polygons_to_rles(outlines, (height, width)), masks, shapes)
        return masks, boxes


class ShapesInstances(CocoSource):
    """Drawn shapes: instances as from a file, pictures drawn when they are asked for."""

    def __init__(self, shapes: ShapesSource) -> None:
        """Draw every scene once for its instances."""
        name = f"generated/{shapes.split}"
        super().__init__(parse_coco(shapes.coco_dict(), name), Path(name))
        self.shapes = shapes

    def picture(self, index: int, reduce: int = 1) -> Tensor:
        return self.shapes.load(index)


def read_annotated(
    path: Path, size: tuple[int, int], name: str, reduce: int = 1, *,
    max_pixels: int = MAX_PIXELS, choices: Choices | None = None,
) -> Image.Image:  # fmt: skip
    """Read an image the way up in which it is annotated: of the size (height, width) that is stated.

    That is upright by its EXIF orientation, or, if only that fits, as the pixels are stored.

    Args:
        path: of the file.
        size: (height, width) as annotated.
        name: for messages.
        reduce: 1, 2, 4 or 8: the most by which the sides of a JPEG may be divided, to decode it faster.
        max_pixels: larger images are refused.
        choices: receives what was chosen in reading without being asked.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        DataError: one line, if the file is missing or broken, or of another size.
    """
    height, width = size
    found = upright = decode(path, name, reduce=reduce, max_pixels=max_pixels)
    if upright.whole == (width, height) != size:
        found = decode(path, name, reduce=reduce, upright=False, max_pixels=max_pixels)
    if found.whole != size:
        raise DataError(
            f"{name}: {upright.whole[0]} x {upright.whole[1]} pixels (height x width), "
            f"but its annotations say {height} x {width}"
        )
    if choices is not None:
        choices.take(found.choices, path)
    return found.rgb
