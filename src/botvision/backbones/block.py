"""The attention layer as a stand-in for the spatial convolution of a bottleneck block.

A ResNet bottleneck is 1x1 - norm - act - conv2 - norm - act - 1x1; a BoT block is the same with `conv2`
replaced (paper figure 3, slides "Proposal"). The forward code of timm and torchvision stays in use.
"""

from typing import Any

from torch import Tensor, nn

from botvision.attention.layer import MHSA2d


class AttentionConv2d(nn.Module):
    """Global self-attention with the interface of a 3x3 convolution: the same width, stride 1 or 2.

    With stride 2 attention runs first, on the larger map, and a 2x2 average pool follows, as the authors have
    it. The pool rounds up and averages the cells it has, so that the output has ceil(H/2) x ceil(W/2) cells
    like a strided 3x3 convolution, and the shortcut fits at odd sizes too.

    Args:
        dim: channels in and out; a multiple of the number of heads.
        stride: 1 or 2.
        spacing: cells between two taps of the convolution whose place it takes; warm starts ask for it.
        **attention: arguments of `MHSA2d` (heads, grid, position, convention, dropout, key_init, kernel).
    """

    def __init__(
        self,
        dim: int,
        *,
        stride: int = 1,
        spacing: int = 1,
        **attention: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"a BoT block has stride 1 or 2, got {stride}")
        self.stride, self.spacing = stride, spacing
        self.attention = MHSA2d(dim, **attention)
        self.pool = (
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        )

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Return (B, C, ceil(H/stride), ceil(W/stride)) of (B, C, H, W), in the dtype of x.

        With `sizes`, (B, 2) valid (height, width) in cells, attention sees these cells only; the pool
        averages what it finds.
        """
        return self.pool(self.attention(x, sizes))
