"""Small detectors and images for the tests of this folder."""

from typing import Any

import torch
from torch import Tensor, nn

from botvision.detection.mask_rcnn import mask_rcnn

SMALL: dict[str, Any] = {
    "channels": 32,
    "box_channels": 64,
    "mask_convs": 1,
    "rpn_pre_nms_test": 300,
    "detections": 30,
    "score_threshold": 0.01,
}


def detector(backbone: Any = "botnet14_nano", classes: int = 3, seed: int = 0, **options: Any) -> Any:
    """A detector with scores that differ and boxes that move, as a trained one has them."""
    torch.manual_seed(seed)
    if options.get("neck", "fpn") == "fpn":
        options.setdefault("anchor_sizes", (8, 16, 32, 64, 128))
    model = mask_rcnn(backbone, classes, **(SMALL | options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("cls_logits.weight", "bbox_pred.weight", "cls_score.weight")):
                fan_in = parameter[0].numel()
                nn.init.normal_(parameter, std=(0.3 if "bbox" in name else 1.0) * fan_in**-0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.3)
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, height, width) float image in 0..1 of blobs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, -(-height // 8), -(-width // 8), generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)
    return (smooth + 0.1 * torch.rand(3, height, width, generator=generator)).clamp(0, 1)


def target(height: int, width: int, boxes: list[list[int]]) -> dict[str, Tensor]:
    """Target with elliptic masks in integer boxes x1, y1, x2, y2; labels 1, 2, 3, 1, ..."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        vertical = ((rows - (y1 + y2) / 2) / ((y2 - y1) / 2)).square().unsqueeze(1)
        mask.copy_(vertical + ((columns - (x1 + x2) / 2) / ((x2 - x1) / 2)).square() <= 1)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(len(boxes)) % 3 + 1,
        "masks": masks,
    }


def scene() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of different sizes with their targets."""
    boxes = [[4, 6, 40, 50], [30, 20, 60, 62]]
    return [image(64, 64, 1), image(80, 50, 2)], [target(64, 64, boxes), target(80, 50, [[3, 3, 30, 60]])]


def total(losses: dict[str, Tensor]) -> Tensor:
    """Sum of all losses."""
    return torch.stack(list(losses.values())).sum()
