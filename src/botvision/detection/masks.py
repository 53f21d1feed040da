"""Masks at the size of images, a few at a time.

torchvision pastes all masks of a batch at once in float32: 100 objects in a photograph of 12 megapixels take
4.8 GB. Here some are pasted, as truth values, handed to a callable that makes them small, and forgotten. In
training it turns all masks of an image into float32, here some at a time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks, project_masks_on_boxes
from torchvision.models.detection.transform import resize_boxes

PIXELS_AT_ONCE = 2**24  # of masks at the size of the image: 16 MB, or 64 MB as float32
THRESHOLD = 0.5  # of a mask's probability, as COCO's evaluation of Mask R-CNN has it
BORDER = 1  # cells of zero around a mask, so that its edge may lie within the box; torchvision's number


def detect(
    model: nn.Module, images: Sequence[Tensor], encode: Callable[[Tensor], Sequence[Any]]
) -> list[dict[str, Any]]:
    """Return what `model(images)` finds, with masks as `encode` makes them instead of probabilities.

    The steps are those of the model's own forward in evaluation, but for the last; boxes, labels and scores
    are the same numbers, masks the same pixels above a probability of 0.5. The caller chooses the mode
    (`torch.no_grad`, autocast).

    Args:
        model: made by `mask_rcnn`, in eval mode.
        images: (3, H, W) float 0..1 or uint8, of any sizes, on the model's device.
        encode: given bool (n, H, W), some masks of an image at its size, on the model's device, gives n
            objects in their order, e.g. `botvision.coco.masks.encode` for COCO's run lengths. What it is
            given takes at most 16 MB, or is one mask.

    Returns:
        For each image boxes float32 (M, 4) x1, y1, x2, y2 in its own pixels, labels int64 (M,), scores
        float32 (M,), best first, and, if the detector has masks, masks: a list of M of what `encode` gave.
    """
    parts: Any = model
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    batch, _ = parts.transform(list(images))
    features = parts.backbone(batch.tensors, batch.image_sizes)
    proposals, _ = parts.rpn(batch, features)
    results, _ = parts.roi_heads(features, proposals, batch.image_sizes)
    for result, fitted, size in zip(results, batch.image_sizes, sizes, strict=True):
        result["boxes"] = resize_boxes(result["boxes"], list(fitted), list(size))
        if "masks" in result:
            result["masks"] = encoded(result["masks"], result["boxes"], size, encode)
    return results


def encoded(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], encode: Callable[[Tensor], Sequence[Any]]
) -> list[Any]:
    """Paste masks (N, 1, h, w) of probabilities within boxes (N, 4) and encode them, some at a time."""
    at_once = max(1, PIXELS_AT_ONCE // math.prod(size))
    return [
        one
        for part, places in zip(masks.split(at_once), boxes.split(at_once), strict=True)
        if len(part)
        for one in encode(paste(part, places, size))
    ]


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Put masks in their places: the pixels that torchvision's `paste_masks_in_image` puts above 0.5.

    Args:
        masks: (N, 1, h, w) probabilities within the boxes.
        boxes: (N, 4) x1, y1, x2, y2 in pixels, within the image.
        size: (H, W) of the image.

    Returns:
        bool (N, H, W).
    """
    bordered, scale = expand_masks(masks, BORDER)
    corners = expand_boxes(boxes, scale).to(torch.int64).tolist()
    pasted = torch.zeros((len(masks), *size), dtype=torch.bool, device=masks.device)
    for pixels, mask, (x1, y1, x2, y2) in zip(pasted, bordered, corners, strict=True):
        shape = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        region = F.interpolate(mask[None], shape, mode="bilinear", align_corners=False)[0, 0] > THRESHOLD
        rows, columns = _overlap(y1, y2, size[0]), _overlap(x1, x2, size[1])
        pixels[slice(*rows), slice(*columns)] = region[
            rows[0] - y1 : rows[1] - y1, columns[0] - x1 : columns[1] - x1
        ]
    return pasted


def _overlap(first: int, last: int, side: int) -> tuple[int, int]:
    """Start and stop of the pixels first..last that lie in an image."""
    return max(first, 0), min(last + 1, side)


def mask_loss(
    logits: Tensor, boxes: list[Tensor], matched: list[Tensor], targets: Sequence[Mapping[str, Tensor]]
) -> Tensor:
    """Return torchvision's loss of masks.

    Args:
        logits: (R, K + 1, side, side) of all boxes.
        boxes: (R_i, 4) x1, y1, x2, y2 in pixels, for each image.
        matched: (R_i,) int64, the instance of each box.
        targets: for each image masks (N, H, W) and labels (N,).

    Returns:
        The mean over the cells of all boxes; 0 without boxes.
    """
    side = logits.shape[-1]
    projected = [
        project(target["masks"], places, instances, side)
        for target, places, instances in zip(targets, boxes, matched, strict=True)
    ]
    if not len(logits):
        return logits.sum() * 0
    labels = [target["labels"][instances] for target, instances in zip(targets, matched, strict=True)]
    of_class = logits[torch.arange(len(logits), device=logits.device), torch.cat(labels)]
    return F.binary_cross_entropy_with_logits(of_class, torch.cat(projected))


def project(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """Return what masks look like within boxes, the values of torchvision's `project_masks_on_boxes`.

    Args:
        masks: (N, H, W) of 0 and 1.
        boxes: (R, 4) in pixels.
        matched: (R,) int64, which mask a box looks at.
        side: cells of what comes out.

    Returns:
        (R, side, side) 0..1 in the dtype of the boxes.
    """
    at_once = max(1, PIXELS_AT_ONCE // max(1, masks.shape[1] * masks.shape[2]))
    if len(masks) <= at_once:
        return project_masks_on_boxes(masks, boxes, matched, side)
    used, place = matched.unique(return_inverse=True)
    projected = boxes.new_empty(len(boxes), side, side)
    for start in range(0, len(used), at_once):
        rows = torch.where((place >= start) & (place < start + at_once))[0]
        some = masks[used[start : start + at_once]]
        projected[rows] = project_masks_on_boxes(some, boxes[rows], place[rows] - start, side)
    return projected
