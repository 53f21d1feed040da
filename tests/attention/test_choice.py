"""The rule that chooses a kernel; how well it chooses on a machine, `make bench` says there."""

import pytest
import torch

from botvision.attention.kernels import choose


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_large_maps_get_a_kernel_without_quadratic_memory(device: str) -> None:
    assert choose(device, torch.float32, (64, 64), 128) in ("folded", "chunked", "tiled")
    assert choose(device, torch.bfloat16, (50, 84), 32) in ("folded", "chunked", "tiled")


def test_tiny_maps_of_a_cpu() -> None:
    """In bf16 the cells of the batch count, in fp32 those of a map."""
    half = [choose("cpu", torch.bfloat16, (8, 8), 128, batch) for batch in (1, 2, 3)]
    assert half == ["mask", "mask", "tiled"]
    assert choose("cpu", torch.float32, (16, 16), 128, batch=100) == "mask"
    assert choose("cpu", torch.float32, (16, 17), 128) == "tiled"
