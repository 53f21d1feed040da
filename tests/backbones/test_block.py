import pytest
import torch
from torch import nn

from botvision.backbones.block import AttentionConv2d

SIZES = [(14, 14), (7, 9), (8, 5), (1, 9), (3, 1), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
def test_output_has_the_size_of_a_3x3_convolution(size: tuple[int, int], stride: int):
    x = torch.randn(2, 16, *size)
    block = AttentionConv2d(16, stride=stride, grid=(7, 7))
    assert block(x).shape == nn.Conv2d(16, 16, 3, stride, 1)(x).shape


def test_attention_runs_before_the_pool_and_the_pool_averages_the_cells_it_has():
    torch.manual_seed(0)
    block = AttentionConv2d(8, stride=2, heads=2, grid=(5, 3))
    x = torch.randn(1, 8, 5, 3)
    full = block.attention(x)
    out = block(x)
    assert out.shape == (1, 8, 3, 2)
    torch.testing.assert_close(out[..., 0, 0], full[..., :2, :2].mean((-1, -2)))
    torch.testing.assert_close(out[..., 0, 1], full[..., :2, 2].mean(-1))  # half a window
    torch.testing.assert_close(out[..., 2, 1], full[..., 4, 2])  # a corner cell alone


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match="stride 1 or 2, got 3"):
        AttentionConv2d(8, stride=3)
