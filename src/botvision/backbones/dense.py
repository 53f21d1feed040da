"""A classifier asked at places of the picture instead of once for all of it: its head without its pool."""

import math
from typing import Any

import torch
from torch import Tensor, nn


def logits_at(model: nn.Module, images: Tensor, points: Tensor) -> Tensor:
    """Apply a classifier's linear head to the cells of its last feature map that are nearest to given places.

    Cell i of a map with stride s is the one around pixel s * i, as of convolutions and pools that pad with
    half of their kernel. Weights and names are those of the classifier.

    Args:
        model: of timm's interface, with `forward_features` to a (B, C, h, w) map and a linear classifier.
        images: float (B, 3, H, W).
        points: (B, G, 2), y and x of each place in pixels.

    Returns:
        (B, G, K) logits.

    Raises:
        ValueError: a model of another kind.
    """
    network: Any = model
    features = getattr(model, "forward_features", None)
    head = network.get_classifier() if hasattr(model, "get_classifier") else None
    if features is None or not isinstance(head, nn.Linear):
        raise ValueError(f"{type(model).__name__} has no feature map with a linear classifier after it")
    maps: Tensor = features(images)
    if maps.ndim != 4 or maps.shape[1] != head.in_features:
        found = tuple(maps.shape)
        raise ValueError(f"{type(model).__name__}: expected a (B, {head.in_features}, h, w) map, got {found}")
    return head(cells_at(maps, points, (images.shape[2], images.shape[3])))


def cells_at(maps: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the (B, G, C) cells of (B, C, h, w) maps that are nearest to (B, G, 2) places in pixels."""
    height, width = maps.shape[2:]
    # a stride s leaves ceil(H / s) cells, so that H / h may be a little less than it
    stride = [
        2 ** math.ceil(math.log2(side / cells)) for side, cells in zip(size, (height, width), strict=True)
    ]
    nearest = (points / points.new_tensor(stride)).round().long()
    nearest = nearest.clamp(min=0).minimum(nearest.new_tensor([height - 1, width - 1]))
    rows = torch.arange(len(maps), device=maps.device)[:, None]
    return maps[rows, :, nearest[:, :, 0], nearest[:, :, 1]]
