"""What is found out about a network by running it: on shapes alone, or in eval mode for a while."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def image_hw(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) in pixels of a side or a pair. Raises ValueError for all else or below 1."""
    hw = (size, size) if isinstance(size, int) else tuple(size)
    if len(hw) != 2 or not all(isinstance(side, int) and side > 0 for side in hw):
        raise ValueError(f"an image size is one positive integer or (height, width), got {size!r}")
    return hw[0], hw[1]


def meta_copy(model: M) -> M:
    """Return a copy on the meta device, in eval mode: shapes and operations without memory or time."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(model, memo).eval()


def probe_input(model: nn.Module, hw: tuple[int, int], batch: int = 1) -> Tensor:
    """Return a (batch, C, H, W) meta tensor of the channels and dtype that the first convolution takes."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution, so the input it takes is unknown")
    return torch.empty(batch, first.in_channels, *hw, device="meta", dtype=first.weight.dtype)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in eval mode for a while; parts that were in training are again afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
