"""The objects of one image, found or annotated: one form from a network to results and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import mask as codec
from torch import Tensor

from botvision.coco.masks import Masks, Rle, decode, encode


@dataclass(frozen=True)
class Instances:
    """N objects of an image.

    Attributes:
        boxes: float32 (N, 4), x0 y0 x1 y1 in pixels of the image.
        labels: int64 (N,), 1..K; 1 is the first of the categories.
        scores: float32 (N,), 0..1; None for ground truth.
        masks: N run lengths as `encode` makes them, so that large pictures stay small in memory; None: boxes
            alone.
        size: (height, width) of the image; None: that of the picture they are drawn upon.
    """

    boxes: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    scores: npt.NDArray[Any] | None = None
    masks: Sequence[Rle] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def of(cls, found: Mapping[str, Any], size: tuple[int, int] | None = None) -> "Instances":
        """Take a target or a result as torchvision's detectors have them.

        Args:
            found: `boxes`, `labels` and, if there, `scores` and `masks` ((N, H, W) of truth values,
                (N, 1, H, W) of probabilities, or N run lengths), on any device.
            size: (height, width) of the image.

        Raises:
            ValueError: masks that are none of these.
        """
        values = {key: _plain(value) for key, value in found.items()}
        masks, scores = values.get("masks"), values.get("scores")
        if masks is not None and not isinstance(masks, list):
            pixels = masks[:, 0] >= 0.5 if masks.ndim == 4 else masks
            if len(pixels) and (pixels.ndim != 3 or pixels.dtype not in (np.bool_, np.uint8)):
                raise ValueError(f"masks of {masks.dtype} {masks.shape}, expected bool or uint8 (N, H, W)")
            masks = encode(pixels)
        return cls(
            boxes=np.asarray(values["boxes"], np.float32).reshape(-1, 4),
            labels=np.asarray(values["labels"], np.int64),
            scores=None if scores is None else np.asarray(scores, np.float32),
            masks=masks,
            size=size,
        )

    @classmethod
    def of_records(cls, records: Sequence[Mapping[str, Any]], category_ids: Sequence[int]) -> "Instances":
        """Take the COCO results of one image.

        Args:
            records: `category_id`, `bbox` (x, y, width, height), `score` and, if there, `segmentation`.
            category_ids: K; that of label k is at k - 1.

        Raises:
            ValueError: a category that is none of these.
        """
        label_of = {number: label for label, number in enumerate(category_ids, 1)}
        unknown = next((r["category_id"] for r in records if r["category_id"] not in label_of), None)
        if unknown is not None:
            raise ValueError(f"category id {unknown} of a result is none of the {len(label_of)} categories")
        boxes = np.array([record["bbox"] for record in records], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = all("segmentation" in record for record in records)
        return cls(
            boxes=boxes,
            labels=np.array([label_of[record["category_id"]] for record in records], np.int64),
            scores=np.array([record["score"] for record in records], np.float32),
            masks=[record["segmentation"] for record in records] if masks else None,
        )

    def records(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return detections as COCO results of an image, in the order in which they come.

        Coordinates are rounded to a hundredth of a pixel, COCO's own precision, so that ground truth survives
        the way through float32; scores are the shortest decimals of their float32, so that no two become
        equal.

        Args:
            image_id: of the image in the ground truth.
            category_ids: K; that of label k is at k - 1.

        Raises:
            ValueError: lengths that differ, a label without a category, numbers missing or not finite.
        """
        count, labels = len(self), self.labels
        columns = {"labels": labels, "scores": self.scores, "masks": self.masks}
        counts = {name: len(values) for name, values in columns.items() if values is not None}
        if self.scores is None or set(counts.values()) != {count}:
            got = ", ".join(f"{n} {name}" for name, n in counts.items())
            raise ValueError(f"image {image_id}: {count} boxes, {got}; expected as many of each")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError(f"image {image_id}: boxes or scores are not finite")
        if count and not 1 <= labels.min() <= labels.max() <= len(category_ids):
            got = f"labels {labels.min()} to {labels.max()}"
            raise ValueError(f"image {image_id}: {got}, expected 1 to {len(category_ids)}")
        sized = self.boxes.astype(np.float64)
        sized[:, 2:] -= sized[:, :2]
        records: list[dict[str, Any]] = [
            {
                "image_id": int(image_id),
                "category_id": int(category_ids[label - 1]),
                "bbox": box,
                "score": float(str(score)),
            }
            for label, box, score in zip(labels.tolist(), sized.round(2).tolist(), self.scores, strict=True)
        ]
        for record, mask in zip(records, self.masks or (), strict=False):
            record["segmentation"] = mask
        return records

    def mask(self, index: int) -> Masks:
        """Return the pixels of one of the masks, uint8 (H, W)."""
        rle = (self.masks or ())[index]
        return decode([rle], rle["size"])[0]

    def above(self, threshold: float) -> "Instances":
        """Return those of at least that score; all, if they have none."""
        if self.scores is None:
            return self
        return self._only(np.flatnonzero(self.scores >= threshold))

    def distinct(self, iou: float = 0.5) -> "Instances":
        """Return each object once, under its surest label; all, if they have no scores.

        A detector may give one object several classes. What overlaps a surer one by more than `iou`, of the
        masks or else of the boxes, is left out.
        """
        if self.scores is None or len(self) < 2:
            return self
        sized = self.boxes.astype(np.float64)
        sized[:, 2:] -= sized[:, :2]
        shapes: Any = sized if self.masks is None else list(self.masks)
        overlaps = np.asarray(codec.iou(shapes, shapes, [False] * len(self)))
        kept: list[int] = []
        for k in np.argsort(-self.scores, kind="stable").tolist():
            if not (overlaps[k, kept] > iou).any():
                kept.append(k)
        return self._only(np.sort(kept))

    def _only(self, keep: npt.NDArray[np.int64]) -> "Instances":
        assert self.scores is not None
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            scores=self.scores[keep],
            masks=None if self.masks is None else [self.masks[k] for k in keep.tolist()],
        )


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Tensors as arrays; numpy has no bfloat16."""
    if not isinstance(value, Tensor):
        return value
    return (value.detach().float() if value.is_floating_point() else value.detach()).cpu().numpy()
