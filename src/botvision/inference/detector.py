"""Images to boxes, classes and masks with a finished detector; nothing of the training code is needed.

Detections are those of the run's evaluation up to rounding, if that was in float32 as here; one in bf16
differs by what bf16 rounds, scores by some thousandths and now and then a detection near a threshold.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from botvision.backbones.device import pick_device
from botvision.coco.annotations import Category, ImageRecord
from botvision.coco.doubts import ids_by_name, plain
from botvision.coco.instances import Instances
from botvision.coco.masks import encode
from botvision.coco.read import read_images
from botvision.data.coco_folder import same_name
from botvision.data.detection_sources import read_annotated
from botvision.data.images import read_image
from botvision.data.sources import to_tensor
from botvision.detection.mask_rcnn import BOX_CELLS, MASK_CELLS
from botvision.detection.masks import detect
from botvision.detection.weights import load_detector
from botvision.inference.predictor import (
    FileResult,
    ImageLike,
    find_model,
    fuse_norms,
    place,
    run_on_files,
    to_rgb,
)
from botvision.plots.overlay import LONGEST_SIDE


class DetectionPredictor:
    """A detector with its classes.

    Args:
        model: Mask R-CNN or Faster R-CNN with torchvision's parts (transform, backbone, rpn, roi_heads); its
            thresholds are set here.
        description: `categories` (K records `{"id", "name"}`, that of label k at k - 1).
        device: "auto" (a GPU if there is one), or a name torch knows.
        batch_size: images a forward pass.
        score_threshold: detections with lower scores are left out; None: as the model was made.
        max_detections: most detections of an image; None: as the model was made.

    Raises:
        ValueError: an incomplete description, an unknown device, an impossible number.
    """

    def __init__(
        self,
        model: nn.Module,
        description: Mapping[str, Any],
        *,
        device: str = "auto",
        batch_size: int = 4,
        score_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size is {batch_size}, expected at least 1")
        if score_threshold is not None and not 0 <= score_threshold < 1:
            raise ValueError(f"score threshold is {score_threshold}, expected at least 0 and below 1")
        if max_detections is not None and max_detections < 1:
            raise ValueError(f"most detections of an image is {max_detections}, expected at least 1")
        self.device = pick_device(device)
        self.batch_size = batch_size
        self.description = dict(description)
        self.number(_categories(description))
        self.model: Any = place(model, self.device)
        heads: Any = model.roi_heads
        if score_threshold is not None:
            heads.score_thresh = score_threshold
        if max_detections is not None:
            heads.detections_per_img = max_detections

    @classmethod
    def from_run(cls, folder: str | Path, **options: Any) -> "DetectionPredictor":  # noqa: ANN401
        """Load the weights of a run folder, or of the `model` folder within it.

        Args:
            folder: of the run.
            **options: `device`, `batch_size`, `score_threshold`, `max_detections`.

        Raises:
            ValueError: no such folder, no finished detector in it, or a broken file; the message names it.
        """
        source, task = find_model(folder)
        if task != "detect":
            raise ValueError(f"{source}: a model for the task {task!r}, not a detector")
        model, description = load_detector(source)
        heads: Any = model.get_submodule("roi_heads")
        fuse_norms(model.get_submodule("backbone"), (64, 64))
        fuse_norms(heads.box_head, (BOX_CELLS, BOX_CELLS))
        if getattr(heads, "mask_head", None) is not None:
            fuse_norms(heads.mask_head, (MASK_CELLS, MASK_CELLS))
        return cls(model, description, **options)

    def number(self, categories: list[Category]) -> None:
        """Set the ids, and names, of the categories, in the order of the labels."""
        self.categories = categories
        self.description["categories"] = [each._asdict() for each in categories]

    @property
    def score_threshold(self) -> float:
        """Detections with lower scores are left out."""
        return float(self.model.roi_heads.score_thresh)

    def predict(self, images: Sequence[ImageLike]) -> list[dict[str, Any]]:
        """Find the objects in images given as paths, PIL images or arrays.

        Args:
            images: paths; PIL images of any mode; uint8 arrays (H, W), (H, W, 3) or (H, W, 4), RGB order.

        Returns:
            For each image `{"file": path or None, "size": [H, W], "detections": [...]}`; the detections are
            those of `readable`.

        Raises:
            ValueError: an image that cannot be read, of an unexpected shape or dtype.
        """
        results: list[dict[str, Any]] = []
        for image, found in zip(images, self.find(images), strict=True):
            assert found.size is not None
            file = str(image) if isinstance(image, str | Path) else None
            records = found.records(0, [category.id for category in self.categories])
            detections = readable(records, dict(self.categories))
            results.append({"file": file, "size": list(found.size), "detections": detections})
        return results

    def find(self, images: Sequence[ImageLike]) -> list[Instances]:
        """Return the objects of each image; arguments and errors as those of `predict`."""
        results: list[Instances] = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            results += self._detect([to_tensor(to_rgb(image)) for image in batch])
        return results

    def predict_files(
        self,
        paths: Iterable[str | Path],
        *,
        keep_pictures: bool = False,
        read: Callable[[str | Path], Image.Image] = read_image,
    ) -> Iterator[FileResult[Instances]]:
        """Go through files one batch at a time, in order; a bad file is reported in its place.

        Args:
            paths: image files.
            keep_pictures: hand the pictures on, at most 1600 pixels a side, to be drawn upon.
            read: a path to an RGB image; raises DataError for a bad file.
        """
        shown = LONGEST_SIDE if keep_pictures else None
        return run_on_files(paths, self.batch_size, to_tensor, self._detect, shown=shown, read=read)

    @torch.inference_mode()
    def _detect(self, images: list[Tensor]) -> list[Instances]:
        """Objects in uint8 images (3, H, W) of any sizes."""
        if not images:
            return []
        results = detect(self.model, [image.to(self.device) for image in images], encode)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return [Instances.of(result, size) for result, size in zip(results, sizes, strict=True)]


def readable(records: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return detections for people and programs that do not know COCO.

    Args:
        records: COCO results, as `Instances.records` makes them.
        names: of the categories, by id.

    Returns:
        `{"label": str, "category_id": int, "score": 0..1, "box": [x, y, width, height]}` each, in pixels, and
        `mask`, compressed run lengths `{"size", "counts"}`, if there are masks.
    """
    fields = {"category_id": "category_id", "score": "score", "bbox": "box", "segmentation": "mask"}
    return [
        {"label": names[record["category_id"]]}
        | {name: record[key] for key, name in fields.items() if key in record}
        for record in records
    ]


@dataclass(frozen=True)
class Truth:
    """Images and categories that results refer to.

    Attributes:
        name: of the file, for messages.
        images: by the file's name as it stands there; sizes are 0 where the truth does not say.
        categories: name by id.
    """

    name: str
    images: Mapping[str, ImageRecord]
    categories: Mapping[int, str]

    @classmethod
    def read(cls, path: str | Path) -> "Truth":
        """Read the images and categories of a COCO file.

        Raises:
            DataError: no JSON, or no COCO file; one line.
        """
        images, categories = read_images(path)
        slashed = {image.file.replace("\\", "/"): image for image in images}
        return cls(str(path), slashed | {image.file: image for image in images}, dict(categories))

    def numbered(self, categories: Sequence[Category]) -> list[Category]:
        """Return a model's categories with the ids that those of the same names have here."""
        here = [Category(number, name) for number, name in self.categories.items()]
        ids = ids_by_name(categories, here)
        free = max([*self.categories, *(category.id for category in categories)]) + 1
        return [
            Category(ids.get(number, free + k), name) if ids else Category(number, name)
            for k, (number, name) in enumerate(categories)
        ]

    def compare(self, categories: Sequence[Category]) -> list[str]:
        """Return the names of a model's categories that are not here.

        Raises:
            ValueError: a category that means another thing here, or none of them is here.
        """
        for number, name in categories:
            here = self.categories.get(number, name)
            if plain(here) != plain(name):
                raise ValueError(f"{self.name}: category {number} is {here!r}, the model's {name!r}")
        lacking = [category.name for category in categories if category.id not in self.categories]
        if len(lacking) == len(categories):
            raise ValueError(
                f"{self.name}: none of the model's {len(categories)} categories is listed, by id or name"
            )
        return lacking

    def find(self, files: Sequence[Path]) -> dict[Path, ImageRecord]:
        """Find the images of files: by the longest end of the path that is a name in the truth.

        Where none is exactly that, case and Unicode form play no part, if just one image is meant then.

        Returns:
            Those that are there.

        Raises:
            ValueError: two files for one image.
        """
        found: dict[Path, ImageRecord] = {}
        owners: dict[int, Path] = {}
        alike: dict[str, dict[int, ImageRecord]] = {}
        for name, image in self.images.items():
            alike.setdefault(same_name(name), {})[image.id] = image
        alone = {name: next(iter(images.values())) for name, images in alike.items() if len(images) == 1}
        for file in files:
            parts = file.absolute().parts
            ends = [Path(*parts[start:]).as_posix() for start in range(len(parts))]
            image = next((self.images[end] for end in ends if end in self.images), None)
            if image is None:
                image = next((alone[end] for end in map(same_name, ends) if end in alone), None)
            if image is None:
                continue
            if image.id in owners:
                raise ValueError(f"{file}: image {image.id} of {self.name}, but so is {owners[image.id]}")
            owners[image.id], found[file] = file, image
        return found


def reader_of(images: Mapping[Path, ImageRecord], **options: Any) -> Callable[[str | Path], Image.Image]:  # noqa: ANN401
    """Return what reads files as they are annotated, so that objects lie where the truth's do.

    That is upright by the EXIF orientation, or, if only that has the size stated there, as stored. For an
    image of neither size it raises DataError.

    Args:
        images: of the files.
        **options: `max_pixels` and `choices`, as `read_image` has them.
    """

    def read(path: str | Path) -> Image.Image:
        image = images[Path(path)]
        if not image.height:
            return read_image(path, **options)
        name = f"{path} (image id {image.id})"
        return read_annotated(Path(path), (image.height, image.width), name, **options)

    return read


def _categories(description: Mapping[str, Any]) -> list[Category]:
    try:
        categories = [Category(int(each["id"]), str(each["name"])) for each in description["categories"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError("the model's description lacks categories with id and name") from None
    if not categories:
        raise ValueError("the model's description names no category, expected at least one")
    return categories
