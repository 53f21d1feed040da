"""Multi-head self-attention over a feature map, the layer that stands where the 3x3 convolution stood."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from botvision.attention.kernels import KERNELS, KernelName, attend
from botvision.attention.position import PositionRows, PositionTables
from botvision.attention.reference import attend_reference

Position = Literal["content", "position", "relative", "absolute"]
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
            the default) or "absolute" (q k + q r_abs).
        convention: "paper" scales both terms by D^-0.5; "timm" scales the content only, which is what weights
            of timm's BottleneckAttn were trained with.
        dropout: probability with which an attention weight is dropped in training.
        kernel: "auto", or the name of one of `botvision.attention.kernels.KERNELS`.

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
        kernel: KernelName = "auto",
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads != 0:
            raise ValueError(f"channels must be a multiple of heads, got {dim} channels and {heads} heads")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"attention dropout must be in [0, 1), got {dropout}")
        _one_of("position", position, get_args(Position))
        _one_of("convention", convention, get_args(Convention))
        _one_of("kernel", kernel, KERNELS)
        self.dim, self.heads = dim, heads
        self.convention, self.dropout, self.kernel = convention, dropout, kernel
        self.mode: Position = position
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.position = (
            None
            if position == "content"
            else PositionTables(grid, dim // heads, "absolute" if position == "absolute" else "relative")
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Projections with standard deviation C^-0.5 (the attention's variance is then 1), tables D^-0.5."""
        nn.init.trunc_normal_(self.qkv.weight, std=self.dim**-0.5)
        if self.position is not None:
            self.position.reset_parameters()

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Attention of every cell to every valid cell.

        Args:
            x: (B, C, H, W) feature map, any H and W.
            sizes: (B, 2) integer (height, width) in cells of each image within a padded batch, or None. Cells
                beyond get exactly zero weight; what is written at them has no meaning.

        Returns:
            (B, C, H, W) in the memory format of x.

        Raises:
            ValueError: x has other channels, or `sizes` does not fit the batch.
        """
        q, k, v, rows = self._project(x, sizes)
        grid = (x.shape[2], x.shape[3])
        dropout = self.dropout if self.training else 0.0
        out = attend(q, k, v, grid, rows, self.mode != "position", sizes, dropout, self.kernel)
        out = out.transpose(1, 2).reshape(x.shape[0], *grid, self.dim).permute(0, 3, 1, 2)
        return out if _channels_last(x) else out.contiguous()

    def attention_map(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """(B, N, H*W, H*W) weights by the reference: query cells, then key cells, both row by row."""
        q, k, v, rows = self._project(x, sizes)
        return attend_reference(q, k, v, (x.shape[2], x.shape[3]), rows, self.mode != "position", sizes)[1]

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, heads={self.heads}, position={self.mode!r}, convention={self.convention!r}, "
            f"dropout={self.dropout}, kernel={self.kernel!r}"
        )

    def _project(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor, PositionRows | None]:
        """Scaled queries, keys and values (B, N, H*W, D), and the position rows in the queries' scale."""
        if x.ndim != 4 or x.shape[1] != self.dim:
            raise ValueError(f"expected a (B, {self.dim}, H, W) feature map, got {tuple(x.shape)}")
        if sizes is not None and sizes.shape != (x.shape[0], 2):
            raise ValueError(f"sizes must be ({x.shape[0]}, 2), got {tuple(sizes.shape)}")
        # Cells before channels: fused attention wants the head width as the innermost dimension, or it falls
        # back to the quadratic formula. No copy is made where x is channels-last.
        cells_first = self.qkv(x).flatten(2).mT.contiguous()
        q, k, v = cells_first.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.position is None:
            return q * self.scale, k, v, None
        rows = self.position((x.shape[2], x.shape[3]), sizes)
        if self.convention == "timm":
            rows = rows.scaled(1 / self.scale)
        return q * self.scale, k, v, rows


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
