"""A finished run in one's own code: images of any kind in, plain arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from botvision.inference.predictor import ImageLike, Predictor, find_model, to_rgb
from botvision.plots.overlay import annotate, overlay

if TYPE_CHECKING:  # a classifier needs nothing of COCO
    from botvision.coco.instances import Instances
    from botvision.inference.detector import DetectionPredictor

Input = ImageLike | Tensor
R = TypeVar("R")


@dataclass(frozen=True)
class Classes:
    """The classes of one image.

    Attributes:
        names: K classes, the most probable first.
        scores: float32 (K,) probabilities in the same order.
        class_ids: int64 (K,), indices of these classes in `Loaded.classes`.
        image: the upright RGB image.
        file: path it was read from, or None.
    """

    names: list[str]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    image: Image.Image
    file: str | None = None

    def plot(self, most: int = 5) -> Image.Image:
        """Return the image with its `most` likely classes and their probabilities beside it."""
        best = zip(self.names[:most], self.scores[:most].tolist(), strict=True)
        return annotate(self.image, [{"label": name, "score": score} for name, score in best])


@dataclass(frozen=True, repr=False)
class Detections:
    """The N objects that were found in one image, highest score first.

    Attributes:
        boxes: float32 (N, 4), x0 y0 x1 y1 in pixels of the image.
        scores: float32 (N,), 0..1.
        class_ids: int64 (N,), indices of their classes in `Loaded.classes`.
        names: names of these classes.
        masks: bool (N, H, W), or None if the detector has no masks.
        image: the upright RGB image.
        file: path it was read from, or None.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    names: list[str]
    masks: npt.NDArray[np.bool_] | None
    image: Image.Image
    file: str | None
    _objects: "Instances"
    _categories: tuple[tuple[int, str], ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        count = f"{len(self)} object{'s' * (len(self) != 1)}"
        best = zip(self.names[:3], self.scores[:3].tolist(), strict=True)
        such = ", ".join(f"{name} {score:.2f}" for name, score in best) + ", ..." * (len(self) > 3)
        return f"Detections({count}{' in ' + self.file if self.file else ''}{': ' + such if such else ''})"

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Return COCO results with the category ids of the training data, masks as run lengths."""
        return self._objects.records(image_id, [number for number, _ in self._categories])

    def to_supervision(self) -> dict[str, Any]:
        """Return the arguments of supervision's `Detections`: `sv.Detections(**found.to_supervision())`."""
        names = {"class_name": np.array(self.names, dtype=str)}
        return {"xyxy": self.boxes, "mask": self.masks, "confidence": self.scores} | {
            "class_id": self.class_ids,
            "data": names,
        }

    def plot(self, score: float = 0.5) -> Image.Image:
        """Return the image with boxes, masks and labels of the objects that score at least `score`."""
        return overlay(self.image, self._objects.above(score), [name for _, name in self._categories])


class Loaded(Generic[R]):
    """A finished run: `model` is its network, `classes` the K names it knows."""

    model: nn.Module
    classes: list[str]

    def predict(self, images: Input | Sequence[Input]) -> Any:  # noqa: ANN401
        """Predict one image, or several.

        Args:
            images: one image, or a list or tuple of them: a path; a PIL image; a uint8 array (H, W),
                (H, W, 3) or (H, W, 4) in RGB order; a tensor (3, H, W), uint8, or floating point from 0 to 1.

        Returns:
            The result for one image, or a list of results in the same order: `Classes` from a classifier,
            `Detections` from a detector.

        Raises:
            ValueError: an image that cannot be read, or of another shape or dtype; the message says which.
        """
        if isinstance(images, list | tuple):
            return self._results(list(images))
        one: Any = images
        return self._results([one])[0]

    def _results(self, images: list[Input]) -> list[R]:
        raise NotImplementedError


class LoadedClassifier(Loaded[Classes]):
    """A classifier."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.model, self.classes = predictor.model, predictor.classes

    def _results(self, images: list[Input]) -> list[Classes]:
        pictures = [_picture(image) for image in images]
        found = self._predictor.predict(pictures, topk=len(self.classes))
        return [
            Classes(
                [each["label"] for each in result["top"]],
                np.array([each["score"] for each in result["top"]], np.float32),
                np.array([each["index"] for each in result["top"]], np.int64),
                picture,
                _file(image),
            )
            for image, picture, result in zip(images, pictures, found, strict=True)
        ]


class LoadedDetector(Loaded[Detections]):
    """A detector."""

    def __init__(self, predictor: "DetectionPredictor") -> None:
        self._predictor = predictor
        self.model = predictor.model
        self.classes = [category.name for category in predictor.categories]

    def _results(self, images: list[Input]) -> list[Detections]:
        pictures = [_picture(image) for image in images]
        found = self._predictor.find(pictures)
        return [self._result(*each) for each in zip(images, pictures, found, strict=True)]

    def _result(self, image: Input, picture: Image.Image, found: "Instances") -> Detections:
        assert found.scores is not None
        masks = None
        if found.masks is not None:
            shape = (0, picture.height, picture.width)
            masks = np.array([found.mask(k) for k in range(len(found))], bool).reshape(-1, *shape[1:])
        ids = found.labels - 1
        categories = tuple((each.id, each.name) for each in self._predictor.categories)
        names = [self.classes[k] for k in ids.tolist()]
        return Detections(
            found.boxes, found.scores, ids, names, masks, picture, _file(image), found, categories
        )


def load(
    run: str | Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    score_threshold: float | None = None,
    max_detections: int | None = None,
) -> LoadedClassifier | LoadedDetector:
    """Load a finished run, to use it in your own code.

    Args:
        run: the run folder; the `model` folder within it, which may be moved anywhere; or
            "hf-hub:OWNER/NAME" of the Hugging Face Hub (`@REVISION` after it names a branch, tag or commit).
        device: "auto" (a GPU if there is one), or a device name of torch.
        batch_size: images per forward pass; None: 32 for classifiers, 4 for detectors.
        score_threshold: detectors: leave out objects with lower scores; None: as in training.
        max_detections: detectors: most objects per image; None: as in training.

    Raises:
        ValueError: no such folder or repository, no finished model in it, or a broken file; or thresholds for
            a classifier.
        ImportError: one line; a detector, and botvision was installed without [train].
    """
    source, task = find_model(run)
    if task == "detect":
        try:
            from botvision.inference.detector import DetectionPredictor
        except ModuleNotFoundError as error:
            needed = 'pip install "botvision[train]"'
            raise ImportError(f"{run}: a detector, which needs {error.name}: {needed}") from None

        return LoadedDetector(
            DetectionPredictor.from_run(
                source,
                device=device,
                batch_size=batch_size or 4,
                score_threshold=score_threshold,
                max_detections=max_detections,
            )
        )
    if score_threshold is not None or max_detections is not None:
        raise ValueError(f"{run}: a classifier, which has no score_threshold and no max_detections")
    return LoadedClassifier(Predictor.from_run(source, device=device, batch_size=batch_size or 32))


def _picture(image: Input) -> Image.Image:
    """An upright RGB image of whatever was given."""
    if not isinstance(image, Tensor):
        return to_rgb(image)
    if (
        image.ndim != 3
        or image.shape[0] != 3
        or not (image.dtype == torch.uint8 or image.is_floating_point())
    ):
        raise ValueError(
            f"tensor of shape {tuple(image.shape)} and {image.dtype}, expected (3, H, W), uint8 or 0 to 1"
        )
    if image.is_floating_point():
        if not (image >= 0).all() or not (image <= 1).all():
            raise ValueError("a tensor of floating point holds values outside 0 to 1: is it normalised?")
        image = (255 * image).round().to(torch.uint8)
    return to_rgb(image.permute(1, 2, 0).cpu().numpy())


def _file(image: Input) -> str | None:
    return str(image) if isinstance(image, str | Path) else None
