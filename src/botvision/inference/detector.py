"""Images to boxes, classes and masks with a finished detector; nothing of the training code is needed.

Detections are those of the run's evaluation up to rounding, if that was in float32 as here; one in bf16
differs by what bf16 rounds, scores by some thousandths and now and then a detection near a threshold.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from botvision.coco.masks import encode
from botvision.coco.results import to_results
from botvision.data.sources import to_tensor
from botvision.detection.masks import detect
from botvision.detection.weights import load_detector
from botvision.inference.fused import fold_detector, place
from botvision.inference.predictor import ImageLike, ReadFile, find_model, pick_device, read_batches, to_rgb
from botvision.plots.overlay import LONGEST_SIDE
from botvision.plots.style import fit


@dataclass(frozen=True)
class Detections:
    """What became of one file.

    Attributes:
        file: path as found.
        size: (height, width) of the upright image in pixels; (0, 0) for a bad file.
        detections: ``{"label": str, "category_id": int, "score": 0..1, "box": [x, y, width, height]}`` in
            pixels, best first, and ``mask``, a compressed RLE ``{"size", "counts"}``, if the detector has
            masks.
        error: one line that names the file, or None.
        picture: the upright RGB image, at most 1600 pixels a side; None unless asked for.
    """

    file: str
    size: tuple[int, int]
    detections: list[dict[str, Any]]
    error: str | None = None
    picture: Image.Image | None = None


class DetectionPredictor:
    """A detector with its classes.

    Args:
        model: Mask R-CNN or Faster R-CNN with torchvision's parts (transform, backbone, rpn, roi_heads); its
            thresholds are set here.
        description: ``categories`` (K records ``{"id", "name"}``, that of label k at k - 1).
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
        self.category_ids, self.classes = _categories(description)
        self.model: Any = place(model, self.device)
        heads: Any = model.roi_heads
        if score_threshold is not None:
            heads.score_thresh = score_threshold
        if max_detections is not None:
            heads.detections_per_img = max_detections

    @classmethod
    def from_run(cls, folder: str | Path, **options: Any) -> "DetectionPredictor":  # noqa: ANN401
        """Load the weights of a run folder, or of the ``model`` folder within it.

        Args:
            folder: of the run.
            **options: ``device``, ``batch_size``, ``score_threshold``, ``max_detections``.

        Raises:
            ValueError: no such folder, no finished detector in it, or a broken file; the message names it.
        """
        source, task = find_model(folder)
        if task != "detect":
            raise ValueError(f"{source}: a model for the task {task!r}, not a detector")
        model, description = load_detector(source)
        fold_detector(model)
        return cls(model, description, **options)

    @property
    def score_threshold(self) -> float:
        """Detections with lower scores are left out."""
        return float(self.model.roi_heads.score_thresh)

    def predict(self, images: Sequence[ImageLike]) -> list[dict[str, Any]]:
        """Find the objects in images given as paths, PIL images or arrays.

        Args:
            images: paths; PIL images of any mode; uint8 arrays (H, W), (H, W, 3) or (H, W, 4), RGB order.

        Returns:
            For each image ``{"file": path or None, "size": [H, W], "detections": [...]}``; the detections are
            those of :class:`Detections`.

        Raises:
            ValueError: an image that cannot be read, of an unexpected shape or dtype.
        """
        results: list[dict[str, Any]] = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            tensors = [to_tensor(to_rgb(image)) for image in batch]
            for image, tensor, found in zip(batch, tensors, self._detect(tensors), strict=True):
                file = str(image) if isinstance(image, str | Path) else None
                results.append({"file": file, "size": list(tensor.shape[1:]), "detections": found})
        return results

    def predict_files(
        self, paths: Iterable[str | Path], *, keep_pictures: bool = False
    ) -> Iterator[Detections]:
        """Go through files one batch at a time, in order; a bad file is reported in its place.

        Args:
            paths: image files.
            keep_pictures: hand the (bounded) pictures on, to be drawn upon.
        """
        shown = (lambda image: fit(image, 1, LONGEST_SIDE)) if keep_pictures else None
        for batch in read_batches(paths, self.batch_size, to_tensor, shown):
            yield from self._finish(batch)

    def _finish(self, batch: list[ReadFile]) -> Iterator[Detections]:
        found = iter(self._detect([tensor for _, tensor, _, _ in batch if tensor is not None]))
        for file, tensor, error, picture in batch:
            if tensor is None:
                yield Detections(file, (0, 0), [], error)
            else:
                height, width = tensor.shape[1:]
                yield Detections(file, (height, width), next(found), None, picture)

    @torch.inference_mode()
    def _detect(self, images: list[Tensor]) -> list[list[dict[str, Any]]]:
        """Objects in uint8 images (3, H, W) of any sizes."""
        if not images:
            return []
        found = detect(self.model, [image.to(self.device) for image in images], encode)
        return [self._records(result) for result in found]

    def _records(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        records = to_results(
            *(0, result["boxes"], result["labels"], result["scores"], result.get("masks")),
            category_ids=self.category_ids,
        )
        labels = [self.classes[label - 1] for label in result["labels"].tolist()]
        found = []
        for label, record in zip(labels, records, strict=True):
            mask = {"mask": record["segmentation"]} if "segmentation" in record else {}
            found.append(
                {
                    "label": label,
                    "category_id": record["category_id"],
                    "score": record["score"],
                    "box": record["bbox"],
                    **mask,
                }
            )
        return found


def _categories(description: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    try:
        pairs = [(int(each["id"]), str(each["name"])) for each in description["categories"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError("the model's description lacks categories with id and name") from None
    if not pairs:
        raise ValueError("the model's description names no category, expected at least one")
    return [number for number, _ in pairs], [name for _, name in pairs]
