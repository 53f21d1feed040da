"""The attention of reference.py without its cost, and the one place that chooses how it is computed.

Both position kinds come down to two small tensors, logits per key row (B, N, L, H) and per key column
(B, N, L, W), because the position term is a sum over the axes. The kernels differ in how they hand them to
torch's fused attention. Shape legend: B batch, N heads, L = H*W cells, H W key row and column, D head width,
P 1 or B.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from botvision.attention.position import PositionRows
from botvision.attention.reference import Terms, attend_reference, valid_cells
from botvision.attention.tiled_cpu import attend_tiled, transforms_active

KernelName = Literal["auto", "reference", "mask", "folded", "chunked", "tiled", "triton"]
KERNELS: tuple[KernelName, ...] = ("auto", "reference", "mask", "folded", "chunked", "tiled", "triton")

# Mask of one chunk that stays in a core's second-level cache, in bytes.
_CHUNK_BYTES = 1 << 21
# Cells up to which a quadratic mask pays: on a CPU of a batch in bf16, of a map in fp32; elsewhere of a map.
_TINY_BATCH, _SMALL_MAP, _LARGE_MAP = 128, 256, 1024


class AxisLogits(NamedTuple):
    """Position logits of every query, apart for key rows and key columns."""

    rows: Tensor  # (B, N, L, H)
    columns: Tensor  # (B, N, L, W)


def attend(
    q: Tensor, k: Tensor, v: Tensor, terms: Terms, dropout: float = 0.0, kernel: KernelName = "auto"
) -> Tensor:
    """Return the output of `attend_reference`, by the kernel that suits.

    Args:
        q: (B, N, L, D) queries, already scaled by D^-0.5.
        k: (B, N, L, D) keys.
        v: (B, N, L, D) values.
        terms: what the logits consist of.
        dropout: probability with which an attention weight is dropped.
        kernel: "auto" or the name of one. "tiled" and "triton" have no gradients of gradients; where dropout,
            exporters, transforms of functions or (of "tiled") compilers ask for torch's own operations,
            another takes their place, and that of "triton" also where it cannot run: without a GPU or Triton,
            in fp64, for heads wider than 256.

    Raises:
        ValueError: neither content nor position, or an unknown kernel.
    """
    if terms.fixed is not None and dropout == 0:
        return _fixed(v, terms)
    if terms.fixed is not None:
        return attend_reference(q, k, v, terms, dropout)[0]
    if not terms.content and terms.position is None:
        raise ValueError("attention needs content, position or both, got neither")
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    if kernel == "auto":
        # a batch of unknown size must not become a condition of a compiled or exported program
        batch = 1 if _rewritten() else q.shape[0]
        kernel = choose(q.device.type, q.dtype, terms.grid, q.shape[-1], batch)
    if kernel == "reference":
        return attend_reference(q, k, v, terms, dropout)[0]
    if kernel in ("tiled", "triton") and not _can_run(kernel, q, dropout):
        # with dropout torch's attention is quadratic unless it comes in chunks; without, one operation does
        small = terms.grid[0] * terms.grid[1] <= _LARGE_MAP
        kernel = "mask" if small else "chunked" if dropout > 0 else "folded"
    if kernel == "tiled":
        return attend_tiled(q, k, v, terms)
    if terms.position is None:
        mask = None if terms.sizes is None else valid_cells(terms.grid, terms.sizes).flatten(1)[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=1.0)
    logits = axis_logits(q, terms.grid, terms.position)
    queries = q if terms.content else None
    if kernel == "folded":
        return _folded(queries, k, v, logits, terms.sizes, dropout)
    if terms.sizes is not None:
        logits = _filled_beyond(logits, terms.sizes, float("-inf"))
    if kernel == "triton":
        rows, columns = (part.contiguous() for part in logits)
        return torch.ops.botvision.attend_axes(queries, k, v, rows, columns)[0]
    return (_masked if kernel == "mask" else _chunked)(queries, k, v, logits, dropout)


def choose(
    device: str, dtype: torch.dtype, grid: tuple[int, int], head_dim: int, batch: int = 1
) -> KernelName:
    """Return the kernel for a case, by the measurements in results/attention_cpu.md.

    On a CPU tiles are fastest in bf16 but for few cells, and in fp32 on large maps; on small ones products
    are too small for oneDNN to win back what its calls cost, and the mask is as fast or a little faster.
    Few cells are those of a whole batch: the logits of an image may round otherwise alone than in company.

    On GPUs the rule follows arithmetic, not measurements: a mask costs little up to 32x32 cells; beyond,
    fused kernels take the folded form up to widths of 256 in half precision, and chunks keep memory linear.

    Args:
        device: type of the device, such as "cpu".
        dtype: of the queries.
        grid: (height, width) in cells.
        head_dim: width of a head.
        batch: images.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    cells = grid[0] * grid[1]
    if device == "cpu":
        few = batch * cells <= _TINY_BATCH if dtype == torch.bfloat16 else cells <= _SMALL_MAP
        return "mask" if few else "tiled"
    if cells <= _LARGE_MAP:
        return "mask"
    return "folded" if half and head_dim + sum(grid) <= 256 else "chunked"


def _rewritten() -> bool:
    """Whether somebody follows the computation who knows torch's own operations alone: compilers, exporters,
    tracers, and the transforms of torch.func."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or transforms_active()


def _can_run(kernel: KernelName, q: Tensor, dropout: float) -> bool:
    """Whether a kernel that is not made of torch's own operations can be used for these queries."""
    if dropout > 0:
        return False
    if kernel == "tiled":
        return not _rewritten() and q.device.type != "meta"
    # compilers keep an operation of ours as it is, exporters and the others cannot
    alone = torch.compiler.is_exporting() if torch.compiler.is_compiling() else _rewritten()
    return not alone and _triton_runs_on(q.device.type, q.dtype, q.shape[-1])


@torch.compiler.assume_constant_result
def _triton_runs_on(device: str, dtype: torch.dtype, width: int) -> bool:
    """Whether Triton is there and takes such keys; it is imported when first asked for."""
    try:
        from botvision.attention import triton_gpu
    except ImportError:
        return False
    return triton_gpu.runs_on(device, dtype, width)


def _fixed(v: Tensor, terms: Terms) -> Tensor:
    """The controls: every cell's own value, or the mean of the valid ones at every cell."""
    if terms.fixed == "own":
        return v
    if terms.sizes is None:
        return v.mean(2, keepdim=True).expand_as(v).contiguous()  # torch sums half precision in fp32
    valid = valid_cells(terms.grid, terms.sizes).flatten(1)[:, None, :, None]
    count = terms.sizes.prod(1)[:, None, None, None]
    total = v.masked_fill(~valid, 0).sum(2, keepdim=True, dtype=torch.promote_types(v.dtype, torch.float32))
    return (total / count).to(v.dtype).expand_as(v).contiguous()


def axis_logits(q: Tensor, grid: tuple[int, int], position: PositionRows) -> AxisLogits:
    """Return logits of (B, N, L, D) queries for every key row and column, from (P, R, D) table rows."""
    queries = q.unflatten(2, grid)
    position = position.to(q.dtype)
    if position.relative:
        rows = _shifted(queries.transpose(2, 3), position.height).transpose(2, 3)
        columns = _shifted(queries, position.width)
    else:
        rows = queries @ position.height.mT[:, None, None]
        columns = queries @ position.width.mT[:, None, None]
    if q.dtype == torch.float16:  # a sum beyond fp16's range would be inf, and inf - inf is not a number
        bound = torch.finfo(q.dtype).max / 4
        rows, columns = rows.clamp(-bound, bound), columns.clamp(-bound, bound)
    return AxisLogits(rows.flatten(2, 3), columns.flatten(2, 3))


def _filled_beyond(logits: AxisLogits, sizes: Tensor, value: float) -> AxisLogits:
    """`value` for the key rows and columns beyond each image of (B, 2) sizes."""
    places = [torch.arange(part.shape[-1], device=part.device) for part in logits]
    beyond = [place >= size.unsqueeze(1) for place, size in zip(places, sizes.unbind(1), strict=True)]
    rows, columns = (
        part.masked_fill(out[:, None, None], value) for part, out in zip(logits, beyond, strict=True)
    )
    return AxisLogits(rows, columns)


def _shifted(queries: Tensor, table: Tensor) -> Tensor:
    """(B, N, Y, X, D) queries with (P, 2X-1, D) rows, each with its own distances: (B, N, Y, X, X)."""
    cells = queries.shape[3]
    place = torch.arange(cells, device=table.device)
    rows = table[:, place[None, :] - place[:, None] + cells - 1]  # P X X D
    return torch.einsum("bnyxd,bxjd->bnyxj", queries, rows)


def _masked(q: Tensor | None, k: Tensor, v: Tensor, logits: AxisLogits, dropout: float) -> Tensor:
    """Position as an additive mask: (B, N, L, L) is held once, the softmax is not unless for gradients."""
    mask = (logits.rows.unsqueeze(-1) + logits.columns.unsqueeze(-2)).flatten(3)
    full = mask.dtype in (torch.float32, torch.float64)
    if full and dropout == 0 and mask.device.type == "cpu" and mask.requires_grad:
        # The fused kernel of CPUs has no gradient of a mask, and torch's way around it is slower than this;
        # in half precision it would round the logits.
        sums = mask.flatten(0, 1)
        if q is not None:
            sums = torch.baddbmm(sums, q.flatten(0, 1), k.flatten(0, 1).mT)
        return torch.bmm(sums.softmax(-1), v.flatten(0, 1)).unflatten(0, mask.shape[:2])
    if q is None:
        q = k.new_zeros((*logits.rows.shape[:3], k.shape[-1]))
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=1.0)


def _folded(
    q: Tensor | None, k: Tensor, v: Tensor, logits: AxisLogits, sizes: Tensor | None, dropout: float
) -> Tensor:
    """Position as further columns of queries and keys: nothing of size L x L is ever held.

    q' = [q, rows, columns] and k' = [k, one-hot of the row, one-hot of the column] make q'.k' the logit.
    """
    unit = 1.0
    if sizes is not None:
        # Padding is a large finite number here: minus infinity times the zeros of the other keys would not be
        # one. fp16 ends where logits may lie, but kernels multiply and add in fp32, so a factor moves out.
        unit, far = (8.0, torch.finfo(k.dtype).min) if k.dtype == torch.float16 else (1.0, -1e30)
        logits = _filled_beyond(AxisLogits(logits.rows / unit, logits.columns / unit), sizes, far)
    height, width = logits.rows.shape[-1], logits.columns.shape[-1]
    eye_rows = torch.eye(height, dtype=k.dtype, device=k.device).repeat_interleave(width, 0)
    eye_columns = torch.eye(width, dtype=k.dtype, device=k.device).repeat(height, 1)
    places = (unit * torch.cat([eye_rows, eye_columns], 1)).expand(*k.shape[:2], -1, -1)
    wide_q = torch.cat([part for part in (q, logits.rows, logits.columns) if part is not None], -1)
    wide_k = places if q is None else torch.cat([k, places], -1)
    # The fused kernels want one width for all three, in steps of 16; zero columns change no sum.
    wide = -(-max(wide_q.shape[-1], v.shape[-1]) // 16) * 16
    wide_q, wide_k, wide_v = (F.pad(part, (0, wide - part.shape[-1])) for part in (wide_q, wide_k, v))
    out = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, dropout_p=dropout, scale=1.0)
    return out[..., : v.shape[-1]]


def _chunked(q: Tensor | None, k: Tensor, v: Tensor, logits: AxisLogits, dropout: float) -> Tensor:
    """The mask kernel for a few queries at a time, so that a chunk's mask stays in cache.

    Gradients recompute a chunk instead of storing its mask.
    """
    cells = k.shape[2]
    step = max(1, _CHUNK_BYTES // (cells * k.element_size()))
    recompute = torch.is_grad_enabled() and (k.requires_grad or logits.rows.requires_grad)
    outputs = []
    for start in range(0, cells, step):
        piece = slice(start, start + step)
        part = AxisLogits(logits.rows[:, :, piece], logits.columns[:, :, piece])
        queries = None if q is None else q[:, :, piece]
        if recompute:
            outputs.append(checkpoint(_masked, queries, k, v, part, dropout, use_reentrant=False))
        else:
            outputs.append(_masked(queries, k, v, part, dropout))
    return torch.cat(outputs, 2)
