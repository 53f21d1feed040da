"""Attention over a feature map as others compute it and as we do, on the same numbers.

The operation begins where queries, keys and values are projected, and ends before the next convolution:

    out_i = sum_j softmax_j((q_i . k_j + q_i . (Rh[yj - yi] + Rw[xj - xi])) / sqrt(D)) v_j

Ours, the einsum formula and the floor take (B, N, L, D), as views of the channels-last map of a 1x1
convolution. PyPI's and timm's layers take the (B, 3C, H, W) map
of their 1x1 convolution, which is replaced by nothing: what they do to the layout is part of what they are.

Shape legend: B batch, N heads, H W rows and columns of the map, L = H*W cells, D head width, C = N*D.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.attention.kernels import KERNELS, KernelName, attend
from botvision.attention.layer import MHSA2d
from botvision.attention.position import PositionTables
from botvision.attention.reference import Terms

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
PYPI = ("pypi",) if importlib.util.find_spec("bottleneck_transformer_pytorch") else ()
# Triton needs a GPU; elsewhere another kernel would be measured under its name.
OURS = tuple(name for name in KERNELS if name != "triton" or torch.cuda.is_available())
OPERATIONS: tuple[str, ...] = (*OURS, "einsum", *PYPI, "timm", "content")
LAYERS: tuple[str, ...] = ("ours", "ours, channels-last", *PYPI, "timm")


@dataclass(frozen=True)
class Case:
    """One run: who, on what, in which direction."""

    contender: str
    grid: Sequence[int]
    batch: int = 1
    dtype: str = "fp32"
    training: bool = False
    device: str = "cpu"
    heads: int = 4
    width: int = 128

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def channels(self) -> int:
        return self.heads * self.width


class Computation(NamedTuple):
    """A forward pass, and what its backward pass is to give gradients of."""

    forward: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]


class Inputs(NamedTuple):
    """(B, N, L, D) queries, keys, values, and (2H-1, D) and (2W-1, D) tables: normal numbers of one seed."""

    q: Tensor
    k: Tensor
    v: Tensor
    height: Tensor
    width: Tensor


def operation(case: Case) -> Computation:
    """The attention operation by one of OPERATIONS."""
    inputs = draw(case)
    if case.contender == "content":
        return _content(case, inputs)
    if case.contender == "einsum":
        return _einsum(case, inputs)
    if case.contender == "timm":
        return _timm(case, inputs)
    if case.contender == "pypi":
        return _pypi(case, inputs)
    return _ours(case, inputs)


def layer(case: Case) -> Computation:
    """The whole layer, projection included, by one of LAYERS, all with the same weights."""
    inputs = draw(case)
    generator = torch.Generator(case.device).manual_seed(1)
    shape = (case.batch, case.channels, *case.grid)
    x = torch.randn(shape, generator=generator, device=case.device).to(DTYPES[case.dtype])
    weight = torch.randn(3 * case.channels, case.channels, 1, 1, generator=generator, device=case.device)
    weight *= case.channels**-0.5
    if case.contender == "timm":
        module = timm_layer(case, inputs)
        module.qkv.weight.data.copy_(weight)
    elif case.contender == "pypi":
        module = _pypi_layer(case, inputs)
        module.to_qkv.weight.data.copy_(weight)
    else:
        module = MHSA2d(case.channels, heads=case.heads, grid=(case.grid[0], case.grid[1]))
        module.load_state_dict(
            {"qkv.weight": weight, "position.height": inputs.height, "position.width": inputs.width}
        )
        module.to(case.device, DTYPES[case.dtype])
        if case.contender == "ours, channels-last":
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            x = x.to(memory_format=torch.channels_last)
    x.requires_grad_(case.training)
    return Computation(lambda: module(x), (x, *module.parameters()))


def step(computation: Computation, training: bool) -> Callable[[], object]:
    """A function that runs the forward pass, and in training the backward pass to all leaves."""
    if not training:
        return torch.no_grad()(computation.forward)
    with torch.no_grad():
        upstream = torch.empty_like(computation.forward())  # in its memory format, as a next layer's would be
        generator = torch.Generator(upstream.device).manual_seed(2)
        upstream.copy_(torch.randn(upstream.shape, generator=generator, device=upstream.device))

    def run() -> tuple[Tensor, ...]:
        # not .backward(), whose second run would also add to the first one's gradients
        return torch.autograd.grad(computation.forward(), computation.leaves, upstream)

    return run


def draw(case: Case) -> Inputs:
    """Queries, keys, values in the case's dtype, tables in fp32 as parameters are; the same for everyone."""
    generator = torch.Generator(case.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=case.device)

    # as a 1x1 convolution of a channels-last map gives them: side by side for each cell
    joined = normal(case.batch, case.cells, 3, case.heads, case.width).to(DTYPES[case.dtype])
    q, k, v = (part.requires_grad_(case.training) for part in joined.permute(2, 0, 3, 1, 4).unbind(0))
    wide = torch.promote_types(torch.float32, q.dtype)
    height, width = (normal(2 * cells - 1, case.width).to(wide) * case.width**-0.5 for cells in case.grid)
    return Inputs(q, k, v, height, width)


def as_map(cells: Tensor, grid: Sequence[int]) -> Tensor:
    """(B, N, L, D) as the (B, N*D, H, W) map that a convolution would give."""
    return cells.mT.flatten(1, 2).unflatten(2, tuple(grid)).contiguous()


def _content(case: Case, inputs: Inputs) -> Computation:
    """No position term: what nobody can be faster than without leaving torch's fused attention."""
    q, k, v = inputs[:3]
    return Computation(lambda: F.scaled_dot_product_attention(q, k, v), (q, k, v))


def _ours(case: Case, inputs: Inputs) -> Computation:
    q, k, v = inputs[:3]
    grid = (case.grid[0], case.grid[1])
    tables = PositionTables(grid, case.width).to(inputs.height.dtype)
    tables.load_state_dict({"height": inputs.height, "width": inputs.width})
    tables.to(case.device)
    kernel: KernelName = case.contender  # type: ignore[assignment]

    def forward() -> Tensor:
        return attend(q * case.width**-0.5, k, v, Terms(grid, tables(grid)), kernel=kernel)

    return Computation(forward, (q, k, v, tables.height, tables.width))


def _einsum(case: Case, inputs: Inputs) -> Computation:
    q, k, v = inputs[:3]
    height, width = (table.requires_grad_(case.training) for table in inputs[3:])

    def forward() -> Tensor:
        return einsum_attention(q * case.width**-0.5, k, v, height.to(q.dtype), width.to(q.dtype), case.grid)

    return Computation(forward, (q, k, v, height, width))


def einsum_attention(
    q: Tensor, k: Tensor, v: Tensor, height: Tensor, width: Tensor, grid: Sequence[int]
) -> Tensor:
    """The formula as the authors' code has it: einsums, all relative logits at once, a softmax over L x L.

    Args:
        q: (B, N, L, D) scaled queries.
        k: (B, N, L, D) keys.
        v: (B, N, L, D) values.
        height: (2H-1, D) rows for the distances -(H-1)..H-1.
        width: (2W-1, D) rows for the distances -(W-1)..W-1.
        grid: (H, W).
    """
    q, k, v = (part.unflatten(2, tuple(grid)) for part in (q, k, v))
    logits = torch.einsum("bnyxd,bnhwd->bnyxhw", q, k)
    columns = _skewed(torch.einsum("bnyxd,rd->bnyxr", q, width))  # B N Y X W
    rows = _skewed(torch.einsum("bnyxd,rd->bnxyr", q, height)).transpose(2, 3)  # B N Y X H
    logits = logits + columns.unsqueeze(4)
    logits = logits + rows.unsqueeze(5)
    weights = logits.flatten(4).softmax(-1).view_as(logits)
    return torch.einsum("bnyxhw,bnhwd->bnyxd", weights, v).flatten(2, 3)


def _skewed(products: Tensor) -> Tensor:
    """(..., X, 2X-1) by distance -> (..., X, X) by key, by padding and reading on in lines one longer.

    Query x finds key w at distance w - x, hence at X-1-x+w. With a column more, a line of 2X numbers holds a
    query; read in lines of 2X-1, each query's numbers move on by its x.
    """
    cells = products.shape[-2]
    flat = F.pad(products, (0, 1)).flatten(-2)
    lines = F.pad(flat, (0, cells - 1)).unflatten(-1, (cells + 1, 2 * cells - 1))
    return lines[..., :cells, cells - 1 :]


def _on_map(case: Case, inputs: Inputs, module: nn.Module, projection: str) -> Computation:
    """A layer without its projection, on the map that this would give."""
    setattr(module, projection, nn.Identity())
    joined = torch.cat([as_map(part.detach(), case.grid) for part in inputs[:3]], 1)
    joined.requires_grad_(case.training)
    return Computation(lambda: module(joined), (joined, *module.parameters()))


def _timm(case: Case, inputs: Inputs) -> Computation:
    return _on_map(case, inputs, timm_layer(case, inputs), "qkv")


def timm_layer(case: Case, inputs: Inputs) -> Any:  # noqa: ANN401
    """timm does not scale the position term: with tables scaled instead it is the same function."""
    from timm.layers.bottleneck_attn import BottleneckAttn

    module = BottleneckAttn(case.channels, feat_size=(case.grid[0], case.grid[1]), num_heads=case.heads)
    module.to(case.device, DTYPES[case.dtype])
    module.pos_embed.height_rel.data.copy_(inputs.height * module.scale)
    module.pos_embed.width_rel.data.copy_(inputs.width * module.scale)
    return module


def _pypi(case: Case, inputs: Inputs) -> Computation:
    return _on_map(case, inputs, _pypi_layer(case, inputs), "to_qkv")


def _pypi_layer(case: Case, inputs: Inputs) -> Any:  # noqa: ANN401
    from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import Attention

    module: Any = Attention(
        dim=case.channels,
        fmap_size=tuple(case.grid),
        heads=case.heads,
        dim_head=case.width,
        rel_pos_emb=True,  # its default are absolute positions
    )
    module.to(case.device, DTYPES[case.dtype])
    module.pos_emb.rel_height.data.copy_(inputs.height)
    module.pos_emb.rel_width.data.copy_(inputs.width)
    return module
