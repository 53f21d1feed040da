"""Networks made ready to predict: the same function up to rounding, in half of the time on a CPU."""

import contextlib
from typing import Any, TypeVar

import torch
from torch import nn

from botvision.backbones.fuse import fold_batch_norm
from botvision.backbones.surgery import probe_input
from botvision.detection.mask_rcnn import BOX_CELLS, MASK_CELLS

M = TypeVar("M", bound=nn.Module)


def place(model: M, device: torch.device) -> M:
    """Put a model where it shall run, in eval mode; on a CPU in the memory format that convolutions like."""
    model = model.to(device).eval()
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    return model


def fold_classifier(model: nn.Module, image_size: tuple[int, int]) -> None:
    """Merge batch norms into convolutions, in place; some of timm's models take one (height, width) alone."""
    _fold(model, image_size)


def fold_detector(model: nn.Module) -> None:
    """Merge batch norms into convolutions, in place, in backbone, pyramid and heads."""
    heads: Any = model.get_submodule("roi_heads")
    _fold(model.get_submodule("backbone"), (64, 64))
    _fold(heads.box_head, (BOX_CELLS, BOX_CELLS))
    if getattr(heads, "mask_head", None) is not None:
        _fold(heads.mask_head, (MASK_CELLS, MASK_CELLS))


def _fold(network: nn.Module, hw: tuple[int, int]) -> None:
    # What has no convolution, or looks at values and so cannot run on shapes, predicts as it is.
    with contextlib.suppress(ValueError):
        fold_batch_norm(network, probe_input(network, hw), inplace=True)
