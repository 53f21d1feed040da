"""The objects of one image, found or annotated: one form from a network to results and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from botvision.coco.masks import LazyMasks, encode
from botvision.coco.results import to_results


@dataclass(frozen=True)
class Instances:
    """N objects of an image.

    Attributes:
        boxes: float32 (N, 4), x0 y0 x1 y1 in pixels of the image.
        labels: int64 (N,), 1..K; 1 is the first of the categories.
        scores: float32 (N,), 0..1; None for ground truth.
        masks: N run lengths, decoded when they are looked up, so that large pictures stay small in memory;
            None: boxes alone.
        crowd: bool (N,), whether it is a region of many objects that nobody told apart; None: nowhere.
        size: (height, width) of the image; None: that of the picture they are drawn upon.
    """

    boxes: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    scores: npt.NDArray[Any] | None = None
    masks: LazyMasks | None = None
    crowd: npt.NDArray[Any] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def of(cls, found: Mapping[str, Any], size: tuple[int, int] | None = None) -> "Instances":
        """Take a target or a result as torchvision's detectors have them.

        Args:
            found: `boxes`, `labels` and, if there, `scores`, `masks` ((N, H, W) of truth values, (N, 1, H, W)
                of probabilities, or N run lengths) and `iscrowd`, on any device.
            size: (height, width) of the image.
        """
        values = {
            key: value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            for key, value in found.items()
        }
        masks = values.get("masks")
        if masks is not None and not isinstance(masks, list):
            masks = encode(masks[:, 0] >= 0.5 if masks.ndim == 4 else masks)
        scores, crowd = values.get("scores"), values.get("iscrowd")
        return cls(
            boxes=np.asarray(values["boxes"], np.float32).reshape(-1, 4),
            labels=np.asarray(values["labels"], np.int64),
            scores=None if scores is None else np.asarray(scores, np.float32),
            masks=None if masks is None else LazyMasks(masks),
            crowd=None if crowd is None else np.asarray(crowd, bool),
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
            masks=LazyMasks([record["segmentation"] for record in records]) if masks else None,
        )

    def records(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return detections as COCO results of an image, as `to_results` makes them."""
        masks = None if self.masks is None else self.masks.rles
        scores = np.ones(len(self)) if self.scores is None else self.scores
        return to_results(image_id, self.boxes, self.labels, scores, masks, category_ids=category_ids)

    def above(self, threshold: float) -> "Instances":
        """Return those of at least that score; all, if they have none."""
        if self.scores is None:
            return self
        keep = np.flatnonzero(self.scores >= threshold)
        masks = None if self.masks is None else LazyMasks([self.masks.rles[int(k)] for k in keep])
        crowd = None if self.crowd is None else self.crowd[keep]
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            scores=self.scores[keep],
            masks=masks,
            crowd=crowd,
        )
