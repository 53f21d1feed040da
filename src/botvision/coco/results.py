"""COCO result records back to arrays, their masks decoded one at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from botvision.coco.masks import Masks, Rle, decode


class LazyMasks(Sequence[Masks]):
    """Run lengths that look like a list of N masks uint8 (H, W); each is decoded when it is asked for."""

    def __init__(self, rles: Sequence[Rle]) -> None:
        self.rles = rles

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - a slice gives another of these
        if isinstance(index, slice):
            return LazyMasks(self.rles[index])
        height, width = self.rles[index]["size"]
        return decode([self.rles[index]], (height, width))[0]


def arrays_of(
    records: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    *,
    threshold: float = 0.0,
    scale: float = 1.0,
) -> dict[str, Any]:
    """Turn the result records of one image into what `draw_overlay.Objects` takes.

    Args:
        records: ``category_id``, ``bbox`` (x, y, width, height), ``score`` and, if there, ``segmentation``.
        category_ids: K; that of label k is at k - 1.
        threshold: records with lower scores are left out.
        scale: factor for the boxes, for a picture that is smaller than the image was.

    Returns:
        boxes float32 (N, 4) x0 y0 x1 y1, labels int64 (N,), scores float32 (N,), masks (N, or None).

    Raises:
        ValueError: a category that is none of these.
    """
    chosen = [record for record in records if record["score"] >= threshold]
    label_of = {number: label for label, number in enumerate(category_ids, 1)}
    unknown = next((r["category_id"] for r in chosen if r["category_id"] not in label_of), None)
    if unknown is not None:
        raise ValueError(f"category id {unknown} of a result is none of the {len(label_of)} categories")
    boxes = np.array([record["bbox"] for record in chosen], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = all("segmentation" in record for record in chosen)
    return {
        "boxes": boxes * scale,
        "labels": np.array([label_of[record["category_id"]] for record in chosen], np.int64),
        "scores": np.array([record["score"] for record in chosen], np.float32),
        "masks": LazyMasks([record["segmentation"] for record in chosen]) if masks else None,
    }
