"""Multi-head self-attention over a feature map, the layer that stands where the 3x3 convolution stood."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from botvision.attention.kernels import KERNELS, KernelName, attend
from botvision.attention.position import PositionTables
from botvision.attention.reference import Fixed, Terms, attend_reference

Position = Literal["content", "position", "relative", "absolute", "even", "own"]
FIXED: tuple[Fixed, ...] = get_args(Fixed)
Convention = Literal["paper", "timm"]


class MHSA2d(nn.Module):
    """Global self-attention over an H x W map with learned positions in two axes (paper section 4, figure 4).

    Without output projection: the 1x1 convolution after it does that.

    Args:
        dim: channels C in and out, a multiple of `heads`.
        heads: number of heads N; the head width is D = C / N.
        grid: largest (height, width) in cells for which the position tables are made; larger maps stretch
            them, smaller ones use their centre. Any size runs.
        position: the slides' four rows: "content" (q k), "position" (q r, relative), "relative" (q k + q r,
            the default) or "absolute" (q k + q r_abs). Or a control without attention, whose only parameters
            are the projection to values: "even" (each head gives every cell the mean of its values over the
            valid cells) or "own" (every cell keeps its own value: a 1x1 convolution).
        convention: "paper" scales both terms by D^-0.5; "timm" scales the content only, which is what weights
            of timm's BottleneckAttn were trained with.
        dropout: probability with which an attention weight is dropped in training.
        key_init: standard deviation of the projection to keys at the start, in C^-0.5; 1 is the paper's. With
            small keys attention begins with positions alone; with keys of the paper's size the content logits
            are noise of the same size, and where a task needs attention it may stay at chance for longer
            (results/attention_start.md).
        kernel: "auto", or the name of one of `botvision.attention.kernels.KERNELS`; see there. Gradients of
            gradients on a CPU want "chunked" or "mask".

    Raises:
        ValueError: `dim` is not a multiple of `heads`, or an unknown name or impossible probability.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        grid: tuple[int, int] = (14, 14),
        position: Position = "relative",
        convention: Convention = "paper",
        dropout: float = 0.0,
        key_init: float = 0.1,
        kernel: KernelName = "auto",
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads != 0:
            raise ValueError(f"channels must be a multiple of heads, got {dim} channels and {heads} heads")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"attention dropout must be in [0, 1), got {dropout}")
        if not 0.0 <= key_init < math.inf:
            raise ValueError(f"key_init must be a number from 0, got {key_init}")
        _one_of("position", position, get_args(Position))
        _one_of("convention", convention, get_args(Convention))
        _one_of("kernel", kernel, KERNELS)
        self.dim, self.heads = dim, heads
        self.convention, self.dropout, self.key_init, self.kernel = convention, dropout, key_init, kernel
        self.mode: Position = position
        self.scale = (dim // heads) ** -0.5
        self.fixed: Fixed | None = position if position in FIXED else None
        self.qkv = nn.Conv2d(dim, dim if self.fixed else 3 * dim, 1, bias=False)  # values alone where fixed
        self.position = (
            None
            if position == "content" or self.fixed
            else PositionTables(grid, dim // heads, "absolute" if position == "absolute" else "relative")
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw queries and values with deviation C^-0.5, keys with `key_init` of it, tables with D^-0.5."""
        nn.init.trunc_normal_(self.qkv.weight, std=self.dim**-0.5)
        if self.fixed is None:
            with torch.no_grad():
                self.qkv.weight[self.dim : 2 * self.dim] *= self.key_init
        if self.position is not None:
            self.position.reset_parameters()

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Let every cell attend to every valid cell.

        Args:
            x: (B, C, H, W) feature map, any H and W.
            sizes: (B, 2) integer (height, width) in cells of each image within a padded batch, or None;
                limited to 1..H and 1..W. Cells beyond get exactly zero weight; what is written at them has
                no meaning.

        Returns:
            (B, C, H, W) in the memory format of x.

        Raises:
            ValueError: x has other channels, or `sizes` does not fit the batch.
        """
        q, k, v, terms = self.project(x, sizes)
        return self.as_map(attend(q, k, v, terms, self.dropout if self.training else 0.0, self.kernel), x)

    def as_map(self, cells: Tensor, x: Tensor) -> Tensor:
        """Return the (B, C, H, W) map of (B, N, H*W, D) cells, in the memory format of the map x."""
        out = cells.transpose(1, 2).reshape(x.shape[0], *x.shape[2:], self.dim).permute(0, 3, 1, 2)
        return out if _channels_last(x) else out.contiguous()

    def attention_map(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Return (B, N, H*W, H*W) weights by the reference: query cells, then key cells, both row by row."""
        return attend_reference(*self.project(x, sizes))[1]

    def project(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Terms]:
        """Return what `attend` and `attend_reference` take for a (B, C, H, W) map.

        Returns:
            Scaled queries, keys and values (B, N, H*W, D), and the terms in the queries' scale. Where weights
            are fixed, queries and keys are zero.
        """
        if x.ndim != 4 or x.shape[1] != self.dim:
            raise ValueError(f"expected a (B, {self.dim}, H, W) feature map, got {tuple(x.shape)}")
        if sizes is not None and sizes.shape != (x.shape[0], 2):
            raise ValueError(f"sizes must be ({x.shape[0]}, 2), got {tuple(sizes.shape)}")
        grid = (x.shape[2], x.shape[3])
        if sizes is not None:  # looking at the values would wait for a GPU, so they are limited, not refused
            sizes = torch.maximum(torch.minimum(sizes, sizes.new_tensor(grid)), sizes.new_ones(()))
        # Cells before channels: fused attention wants the head width as the innermost dimension, or it falls
        # back to the quadratic formula. Turning x around costs a third of turning q, k and v, and nothing
        # where x is channels-last.
        cells_first = self.qkv(x.contiguous(memory_format=torch.channels_last)).flatten(2).mT.contiguous()
        parts = cells_first.unflatten(2, (-1, self.heads, self.dim // self.heads)).permute(2, 0, 3, 1, 4)
        if self.fixed is not None:
            (v,) = parts.unbind(0)
            none = v.new_zeros(()).expand_as(v)
            return none, none, v, Terms(grid, None, False, sizes, self.fixed)
        q, k, v = parts.unbind(0)
        rows = None if self.position is None else self.position(grid, sizes)
        if rows is not None and self.convention == "timm":
            rows = rows.scaled(1 / self.scale)
        return q * self.scale, k, v, Terms(grid, rows, self.mode != "position", sizes)

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, heads={self.heads}, position={self.mode!r}, convention={self.convention!r}, "
            f"dropout={self.dropout}, key_init={self.key_init:g}, kernel={self.kernel!r}"
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
