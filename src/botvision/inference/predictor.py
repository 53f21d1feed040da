"""Images to labels with a finished model; nothing of the training code is needed.

A picture is resized, cropped and normalised exactly as in the evaluation of the run that made the model.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from botvision.backbones.device import pick_device
from botvision.backbones.fuse import fold_batch_norm
from botvision.backbones.probe import probe_input
from botvision.backbones.weights import DESCRIPTION_FILE, load_model
from botvision.data.images import read_image
from botvision.data.left_out import LeftOut
from botvision.data.sources import list_folder, to_tensor
from botvision.data.transforms import normalise, resize_and_crop
from botvision.inference.hub import fetch, is_on_hub
from botvision.io.errors import DataError
from botvision.plots.style import fit

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")
_VALUES_AT_ONCE = 2**26  # of the images of a batch, three for each pixel
Top = list[dict[str, Any]]
"""`{"label": str, "index": int, "score": 0..1}` each, best first."""
ImageLike = str | Path | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FileResult(Generic[T]):
    """What became of one file.

    Attributes:
        file: path as found.
        found: what the model says; None for a bad file.
        error: one line that names the file, or None.
        picture: the upright RGB image, bounded in size, to be drawn upon; None unless asked for.
    """

    file: str
    found: T | None
    error: str | None = None
    picture: Image.Image | None = None


class Predictor:
    """A classifier with its classes and its input pipeline.

    Args:
        model: maps float32 (B, 3, H, W) to logits (B, K).
        description: `classes` (K names), `image_size` (height, width), `mean` and `std` by channel,
            and `crop`, the part of each side that evaluation keeps (1.0 where absent).
        device: "auto" (a GPU if there is one), or a name torch knows.
        batch_size: images a forward pass.

    Raises:
        ValueError: an incomplete description, an unknown device, a batch of none.
    """

    def __init__(
        self, model: nn.Module, description: dict[str, Any], *, device: str = "auto", batch_size: int = 32
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size is {batch_size}, expected at least 1")
        self.device = pick_device(device)
        self.batch_size = batch_size
        self.description = description
        self.classes: list[str] = [str(name) for name in description["classes"]]
        self.image_size, self.mean, self.std, self.crop = _input_of(description, "the model's description")
        self.at_places = bool(description.get("at_places", False))
        self.model = place(model, self.device)

    @classmethod
    def from_run(cls, folder: str | Path, *, device: str = "auto", batch_size: int = 32) -> "Predictor":
        """Load the weights of a run folder, or of the `model` folder within it.

        Raises:
            ValueError: no such folder, no finished model in it, or a broken file; the message names it.
        """
        source, task = find_model(folder)
        if task == "detect":
            raise ValueError(f"{source}: a detector, not a classifier; DetectionPredictor takes it")
        model, description = load_model(source)
        image_size, *_ = _input_of(description, str(source / DESCRIPTION_FILE))
        fuse_norms(model, image_size)
        return cls(model, description, device=device, batch_size=batch_size)

    def predict(self, images: Sequence[ImageLike], topk: int = 5) -> list[dict[str, Any]]:
        """Classify images given as paths, PIL images or arrays.

        Args:
            images: paths; PIL images of any mode; uint8 arrays (H, W), (H, W, 3) or (H, W, 4), RGB order.
            topk: number of classes to return for each image, at most all.

        Returns:
            For each image `{"file": path or None, "top": [{"label", "index", "score"}, ...]}`, best first.

        Raises:
            ValueError: an image that cannot be read, of an unexpected shape or dtype; or `topk` below 1.
        """
        results: list[dict[str, Any]] = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            tops = self._classify([self._resized(to_rgb(image)) for image in batch], topk)
            names = [str(image) if isinstance(image, str | Path) else None for image in batch]
            results += [{"file": name, "top": top} for name, top in zip(names, tops, strict=True)]
        return results

    def predict_files(
        self,
        paths: Iterable[str | Path],
        topk: int = 5,
        *,
        keep_pictures: bool = False,
        read: Callable[[str | Path], Image.Image] = read_image,
    ) -> Iterator[FileResult[Top]]:
        """Classify files one batch at a time, in order; a bad file is reported in its place.

        Args:
            paths: image files.
            topk: number of classes to return for each image, at most all.
            keep_pictures: hand the pictures on, at most 768 pixels a side, to be drawn upon.
            read: a path to an RGB image; raises DataError for a bad file.
        """
        shown = 768 if keep_pictures else None
        run = partial(self._classify, topk=topk)
        return run_on_files(paths, self.batch_size, self._resized, run, shown=shown, read=read)

    def require_labels_of_images(self) -> None:
        """Raise ValueError for a model that was trained to label places in a picture."""
        if self.at_places:
            raise ValueError("the model labels places in a picture and has no label for the whole of it")

    def _resized(self, image: Image.Image) -> Tensor:
        """An RGB image as uint8 (3, *image_size)."""
        return resize_and_crop(to_tensor(image), self.image_size, self.crop)

    def _classify(self, images: list[Tensor], topk: int) -> list[Top]:
        """Best classes of uint8 images (3, *image_size)."""
        if topk < 1:
            raise ValueError(f"topk is {topk}, expected at least 1")
        self.require_labels_of_images()
        if not images:
            return []
        with torch.inference_mode():
            inputs = normalise(torch.stack(images), self.mean, self.std)
            logits: Tensor = self.model(inputs.to(self.device))
        if logits.shape[1] != len(self.classes):
            raise ValueError(
                f"the model has {logits.shape[1]} outputs, but {len(self.classes)} classes are named"
            )
        scores, indices = logits.float().softmax(dim=1).sort(dim=1, descending=True, stable=True)
        rows = zip(scores[:, :topk].tolist(), indices[:, :topk].tolist(), strict=True)
        return [
            [{"label": self.classes[i], "index": i, "score": s} for s, i in zip(*row, strict=True)]
            for row in rows
        ]


def run_on_files(
    paths: Iterable[str | Path],
    batch_size: int,
    prepare: Callable[[Image.Image], Tensor],
    run: Callable[[list[Tensor]], list[T]],
    *,
    shown: int | None,
    read: Callable[[str | Path], Image.Image] = read_image,
) -> Iterator[FileResult[T]]:
    """Yield the results of files in order, one batch after the other; full pictures are dropped at once.

    Args:
        paths: image files.
        batch_size: files at a time.
        prepare: an RGB image to what the network takes.
        run: a batch of these to a result for each; also given none.
        shown: pixels of the longer side of the pictures handed on; None: none are.
        read: a path to an RGB image; raises DataError for a bad file.
    """

    def load(path: str | Path) -> FileResult[Tensor]:
        try:
            image = read(path)
        except DataError as error:
            return FileResult(str(path), None, str(error))
        return FileResult(str(path), prepare(image), None, None if shown is None else fit(image, 1, shown))

    for batch in _batches(map(load, paths), batch_size):
        found = iter(run([each.found for each in batch if each.found is not None]))
        while batch:  # none is kept while the next ones are read
            each = batch.pop(0)
            result = None if each.found is None else next(found)
            yield FileResult(each.file, result, each.error, each.picture)


def _batches(loaded: Iterable[FileResult[Tensor]], size: int) -> Iterator[list[FileResult[Tensor]]]:
    """Yield lists of so many, or of fewer large ones: what is done with an image takes far more memory."""
    batch: list[FileResult[Tensor]] = []
    for each in loaded:
        batch.append(each)
        held = sum(one.found.numel() for one in batch if one.found is not None)
        if len(batch) == size or held > _VALUES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def find_model(folder: str | Path) -> tuple[Path, str]:
    """Return the folder of a run's finished model, and its task: "classify" or "detect".

    Args:
        folder: a run folder, the `model` folder within it, or hf-hub:OWNER/NAME.

    Raises:
        ValueError: no such folder, or no finished model in it; the message names it.
    """
    folder = fetch(str(folder)) if is_on_hub(folder) else Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    inside = folder / "model"
    source = inside if (inside / DESCRIPTION_FILE).is_file() else folder
    path = source / DESCRIPTION_FILE
    if not path.is_file():
        if (folder / "config.yaml").is_file():
            raise ValueError(f"{folder}: the run is not finished, there is no model/; resume it first")
        raise ValueError(f"{inside / DESCRIPTION_FILE}: missing; is {folder} a run folder?")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return source, "classify"  # what is wrong with it is said where it is loaded
    return source, str(description.get("task", "classify")) if isinstance(description, dict) else "classify"


def find_images(
    paths: Iterable[str | Path], skip: str | Path | None = None, left_out: LeftOut | None = None
) -> list[Path]:
    """Return files as they are, and what is an image (by name or content) in folders and all folders below.

    Args:
        paths: files and folders.
        skip: A folder whose content does not count, such as that of earlier results.
        left_out: receives the files in folders that are no images, cannot be read, or are hidden.

    Raises:
        ValueError: a path that does not exist.
    """
    found: list[Path] = []
    left_out = LeftOut() if left_out is None else left_out
    results = None if skip is None else Path(skip).resolve()
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        if not path.is_dir():
            found.append(path)
            continue
        listing = list_folder(path, as_data_set=False)
        left_out.extend(listing.left_out, path)
        for index in range(len(listing.files)):
            file = Path(listing.source.name_of(index))
            if results not in file.resolve().parents:
                reason = listing.unread(index)
                if reason is None:
                    found.append(file)
                else:
                    left_out.add(reason, file)
    return list(dict.fromkeys(found))


def _input_of(
    description: dict[str, Any], where: str
) -> tuple[tuple[int, int], list[float], list[float], float]:
    """Image size, mean, std and crop of a description; ValueError if one is missing or malformed."""
    for key in ("classes", "image_size", "mean", "std"):
        if key not in description:
            raise ValueError(f"{where}: lacks {key!r}, it is not that of a finished classifier")
    try:
        height, width = map(int, description["image_size"])
        mean, std = ([float(value) for value in description[key]] for key in ("mean", "std"))
        return (height, width), mean, std, float(description.get("crop", 1.0))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: image_size, mean, std or crop is not made of numbers") from None


def place(model: M, device: torch.device) -> M:
    """Put a model where it shall run, in eval mode; on a CPU in the memory format that convolutions like."""
    model = model.to(device).eval()
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    return model


def fuse_norms(network: nn.Module, hw: tuple[int, int]) -> None:
    """Fuse batch norms with convolutions, in place: the same function up to rounding, in half of the time.

    Some of timm's models take one (height, width) alone. What has no convolution, or looks at values and so
    cannot run on shapes, stays as it is.
    """
    with contextlib.suppress(ValueError):
        fold_batch_norm(network, probe_input(network, hw), inplace=True)


def to_rgb(image: ImageLike) -> Image.Image:
    """Return any accepted input as an upright RGB image, converted by the same rules as a file of that mode.

    Raises:
        ValueError: an image that cannot be read, or of an unexpected shape or dtype.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
            raise ValueError(
                f"array of shape {image.shape} and dtype {image.dtype}, "
                "expected uint8 (H, W), (H, W, 3) or (H, W, 4)"
            )
        if image.size == 0:
            raise ValueError(f"array of shape {image.shape} has no pixels")
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"{type(image).__name__} is not an image: expected a path, a PIL image or a uint8 array"
        )
    if image.mode == "RGB" and "transparency" not in image.info:
        return ImageOps.exif_transpose(image)
    stored = io.BytesIO()
    exif = image.getexif()
    form = "PNG" if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16") else "TIFF"
    image.save(stored, form, exif=exif)
    return read_image(stored.getvalue(), "image")
