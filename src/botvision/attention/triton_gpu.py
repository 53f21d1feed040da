"""Attention with logits for key rows and key columns, forward and backward, in Triton: for GPUs.

    logit_ij = q_i . k_j + rows_i[row of j] + columns_i[column of j]

Nothing of size L x L is held: an online softmax goes over tiles of keys, and the backward pass makes the
weights again from the logarithm of their sum. A tile is a rectangle of the map, so that the gradients of the
logits are its sums over rows and over columns; every number is written by one program, in one order, without
atomics: equal inputs give equal bits. Keys that get no weight have minus infinity in their row or column.

With TRITON_INTERPRET=1 set before this module is imported Triton's interpreter runs it on a CPU, slowly.

Shape legend: B batch, N heads, H W rows and columns of the map, L = H*W cells, D head width.
"""

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
WIDEST = 256  # head width that fits a program's registers

_KEYS, _QUERIES = 64, 64  # of a tile; half as many queries for heads wider than 128


def runs_on(device: str, dtype: torch.dtype, width: int) -> bool:
    """Return whether the kernels take keys of a type of device, a dtype and a head width."""
    here = device == "cuda" or (INTERPRETED and device == "cpu")
    return here and dtype in _TYPES and width <= WIDEST


@triton.jit
def _rectangle(tile, across, H, W, BH: tl.constexpr, BW: tl.constexpr):
    """Row, column and number of every key of a tile, and whether it is one of the map's."""
    key = tl.arange(0, BH * BW)
    row = tile // across * BH + key // BW
    column = tile % across * BW + key % BW
    return row, column, row * W + column, (row < H) & (column < W)


@triton.jit
def _axis_logits(rows, columns, query, row, column, known, H, W):
    """(BM, BN) float32 logits of the axes; minus infinity beyond the map."""
    inside = (query < H * W)[:, None] & known[None, :]
    of_rows = tl.load(rows + query[:, None] * H + row[None, :], mask=inside, other=float("-inf"))
    of_columns = tl.load(columns + query[:, None] * W + column[None, :], mask=inside, other=float("-inf"))
    return of_rows.to(tl.float32) + of_columns.to(tl.float32)


@triton.jit
def _queries(N, H, W, BM: tl.constexpr, BD: tl.constexpr):
    """Of a program with BM queries: head among all, image and head in it, dimensions, queries, cells."""
    head = tl.program_id(1).to(tl.int64)
    query = tl.program_id(0) * BM + tl.arange(0, BM)
    return head, head // N, head % N, tl.arange(0, BD), query, H * W


@triton.jit
def _cells(base, cell, exists, stride, d, stride_d, D, P: tl.constexpr):
    """(cells, BD) of a tensor with a row for each cell, in type P; zeros where there is nothing."""
    mask = exists[:, None] & (d < D)[None, :]
    return tl.load(base + cell[:, None] * stride + d[None, :] * stride_d, mask=mask, other=0.0).to(P)


@triton.jit
def _forward(
    q, k, v, rows, columns, out, lse,
    q_b, q_n, q_l, q_d, k_b, k_n, k_l, k_d, v_b, v_n, v_l, v_d, o_b, o_n, o_l, o_d,
    N, H, W, D,
    CONTENT: tl.constexpr, P: tl.constexpr,
    BM: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A program has BM queries of one head."""
    head, b, n, d, query, cells = _queries(N, H, W, BM, BD)
    exists = query < cells
    rows += head * cells * H
    columns += head * cells * W
    k += b * k_b + n * k_n
    v += b * v_b + n * v_n
    queries = _cells(q + b * q_b + n * q_n, query, exists, q_l, d, q_d, D, P)
    top = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    sums = tl.zeros((BM, BD), tl.float32)
    across = tl.cdiv(W, BW)
    for tile in range(0, tl.cdiv(H, BH) * across):
        row, column, cell, known = _rectangle(tile, across, H, W, BH, BW)
        # queries beyond the map take the logits of its last one: finite, and never written
        logits = _axis_logits(rows, columns, tl.minimum(query, cells - 1), row, column, known, H, W)
        if CONTENT:
            keys = _cells(k, cell, known, k_l, d, k_d, D, P)
            logits += tl.dot(queries, tl.trans(keys), input_precision="ieee")
        # the map's first cell is valid and in the first tile, so that the largest logit is finite
        higher = tl.maximum(top, tl.max(logits, 1))
        weights, kept = tl.exp(logits - higher[:, None]), tl.exp(top - higher)
        values = _cells(v, cell, known, v_l, d, v_d, D, P)
        total = total * kept + tl.sum(weights, 1)
        sums = sums * kept[:, None] + tl.dot(weights.to(P), values, input_precision="ieee")
        top = higher
    tl.store(lse + head * cells + query, top + tl.log(total), mask=exists)
    place = out + b * o_b + n * o_n + query[:, None] * o_l + d[None, :] * o_d
    result = sums / total[:, None]
    tl.store(place, result.to(out.dtype.element_ty), mask=exists[:, None] & (d < D)[None, :])


@triton.jit
def _backward_keys(
    q, k, v, rows, columns, grad, lse, delta, grad_k, grad_v,
    q_b, q_n, q_l, q_d, k_b, k_n, k_l, k_d, v_b, v_n, v_l, v_d, g_b, g_n, g_l, g_d,
    N, H, W, D,
    CONTENT: tl.constexpr, P: tl.constexpr,
    BM: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A program has one tile of keys and values of one head, and goes over the queries."""
    head = tl.program_id(1).to(tl.int64)
    b, n, cells, d = head // N, head % N, H * W, tl.arange(0, BD)
    row, column, cell, known = _rectangle(tl.program_id(0), tl.cdiv(W, BW), H, W, BH, BW)
    rows += head * cells * H
    columns += head * cells * W
    keys = _cells(k + b * k_b + n * k_n, cell, known, k_l, d, k_d, D, P)
    values = _cells(v + b * v_b + n * v_n, cell, known, v_l, d, v_d, D, P)
    of_keys = tl.zeros((BH * BW, BD), tl.float32)
    of_values = tl.zeros((BH * BW, BD), tl.float32)
    for first in range(0, cells, BM):
        query = first + tl.arange(0, BM)
        exists = query < cells
        logits = _axis_logits(rows, columns, query, row, column, known, H, W)
        queries = _cells(q + b * q_b + n * q_n, query, exists, q_l, d, q_d, D, P)
        if CONTENT:
            logits += tl.dot(queries, tl.trans(keys), input_precision="ieee")
        weights = tl.exp(logits - tl.load(lse + head * cells + query, mask=exists, other=0.0)[:, None])
        outer = _cells(grad + b * g_b + n * g_n, query, exists, g_l, d, g_d, D, P)
        of_values += tl.dot(tl.trans(weights).to(P), outer, input_precision="ieee")
        if CONTENT:
            inner = tl.dot(outer, tl.trans(values), input_precision="ieee")
            inner -= tl.load(delta + head * cells + query, mask=exists, other=0.0)[:, None]
            of_keys += tl.dot(tl.trans(weights * inner).to(P), queries, input_precision="ieee")
    place = head * cells * D + cell[:, None] * D + d[None, :]
    mask = known[:, None] & (d < D)[None, :]
    tl.store(grad_v + place, of_values.to(grad_v.dtype.element_ty), mask=mask)
    if CONTENT:
        tl.store(grad_k + place, of_keys.to(grad_k.dtype.element_ty), mask=mask)


@triton.jit
def _backward_queries(
    q, k, v, rows, columns, grad, lse, delta, grad_q, grad_rows, grad_columns,
    q_b, q_n, q_l, q_d, k_b, k_n, k_l, k_d, v_b, v_n, v_l, v_d, g_b, g_n, g_l, g_d,
    N, H, W, D,
    CONTENT: tl.constexpr, P: tl.constexpr,
    BM: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A program has BM queries of one head with the logits of their axes, and goes over tiles of keys."""
    head, b, n, d, query, cells = _queries(N, H, W, BM, BD)
    exists = query < cells
    rows += head * cells * H
    columns += head * cells * W
    grad_rows += head * cells * H
    grad_columns += head * cells * W
    outer = _cells(grad + b * g_b + n * g_n, query, exists, g_l, d, g_d, D, P)
    log_sum = tl.load(lse + head * cells + query, mask=exists, other=0.0)
    mean = tl.load(delta + head * cells + query, mask=exists, other=0.0)
    queries = _cells(q + b * q_b + n * q_n, query, exists, q_l, d, q_d, D, P)
    of_queries = tl.zeros((BM, BD), tl.float32)
    across, down = tl.cdiv(W, BW), tl.cdiv(H, BH)
    for right in range(0, across):
        of_columns = tl.zeros((BM, BW), tl.float32)
        for below in range(0, down):
            row, column, cell, known = _rectangle(below * across + right, across, H, W, BH, BW)
            logits = _axis_logits(rows, columns, query, row, column, known, H, W)
            keys = _cells(k + b * k_b + n * k_n, cell, known, k_l, d, k_d, D, P)
            if CONTENT:
                logits += tl.dot(queries, tl.trans(keys), input_precision="ieee")
            values = _cells(v + b * v_b + n * v_n, cell, known, v_l, d, v_d, D, P)
            inner = tl.dot(outer, tl.trans(values), input_precision="ieee") - mean[:, None]
            of_logits = tl.exp(logits - log_sum[:, None]) * inner
            if CONTENT:
                of_queries += tl.dot(of_logits.to(P), keys, input_precision="ieee")
            rectangle = tl.reshape(of_logits, (BM, BH, BW))
            of_columns += tl.sum(rectangle, 1)
            of_rows = tl.sum(rectangle, 2)
            its_rows = below * BH + tl.arange(0, BH)
            place = grad_rows + query[:, None] * H + its_rows[None, :]
            mask = exists[:, None] & (its_rows < H)[None, :]
            if right > 0:  # what the tiles to the left have; this program wrote it
                of_rows += tl.load(place, mask=mask, other=0.0)
            tl.store(place, of_rows, mask=mask)
            tl.debug_barrier()  # other threads of the program may be those that read it
        its_columns = right * BW + tl.arange(0, BW)
        mask = exists[:, None] & (its_columns < W)[None, :]
        tl.store(grad_columns + query[:, None] * W + its_columns[None, :], of_columns, mask=mask)
    if CONTENT:
        place = grad_q + head * cells * D + query[:, None] * D + d[None, :]
        mask = exists[:, None] & (d < D)[None, :]
        tl.store(place, of_queries.to(grad_q.dtype.element_ty), mask=mask)


@torch.library.custom_op("botvision::attend_axes", mutates_args=())
def attend_axes(
    q: Tensor | None, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the output and the logarithm of each query's sum of exponentials.

    Args:
        q: (B, N, L, D) queries, already scaled; None where logits are those of the axes alone.
        k: (B, N, L, D) keys.
        v: (B, N, L, D) values.
        rows: contiguous (B, N, L, H) logits of every query for the key rows; minus infinity beyond an image,
            whose first cell is valid.
        columns: contiguous (B, N, L, W) in the same way.

    Returns:
        (B, N, L, D), in memory (B, L, N, D) so that a channels-last map needs no copy, and float32 (B, N, L).
    """
    out, lse = _outputs(q, k, v, rows, columns)
    _launch(_forward, (q, k, v), (rows, columns, out, lse), out)
    return out, lse


@attend_axes.register_fake
def _outputs(q: Tensor | None, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, cells, width = v.shape
    out = v.new_empty(batch, cells, heads, width).transpose(1, 2)
    return out, v.new_empty(batch, heads, cells, dtype=torch.float32)


@torch.library.custom_op("botvision::attend_axes_backward", mutates_args=())
def _attend_backward(
    q: Tensor | None, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor,
    grad: Tensor, lse: Tensor, delta: Tensor,
) -> list[Tensor]:  # fmt: skip
    """Return the gradients of keys, values, rows and columns, and of queries if there are some."""
    found = _gradients(q, k, v, rows, columns, grad, lse, delta)
    grad_k, grad_v, grad_rows, grad_columns, *grad_q = found
    common = (rows, columns, grad, lse, delta)
    tiles = _tiles_of(columns.shape[-1])
    count = triton.cdiv(rows.shape[-1], tiles["BH"]) * triton.cdiv(columns.shape[-1], tiles["BW"])
    _launch(_backward_keys, (q, k, v), (*common, grad_k, grad_v), grad, programs=count)
    grad_q = grad_q[0] if grad_q else grad_k
    _launch(_backward_queries, (q, k, v), (*common, grad_q, grad_rows, grad_columns), grad)
    return found


@_attend_backward.register_fake
def _gradients(
    q: Tensor | None, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor,
    grad: Tensor, lse: Tensor, delta: Tensor,
) -> list[Tensor]:  # fmt: skip
    keys = torch.zeros_like if q is None else torch.empty_like  # logits that keys play no part in
    found = [keys(k, memory_format=torch.contiguous_format)]
    found.append(torch.empty_like(v, memory_format=torch.contiguous_format))
    found += [torch.empty_like(part, dtype=torch.float32) for part in (rows, columns)]
    return found if q is None else [*found, torch.empty_like(q, memory_format=torch.contiguous_format)]


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, rows, columns, out, lse = ctx.saved_tensors
    delta = (grad.float() * out.float()).sum(-1)
    found = _attend_backward(q, k, v, rows, columns, grad, lse, delta)
    grad_k, grad_v, grad_rows, grad_columns, *grad_q = found
    of_q = grad_q[0] if grad_q else None
    return of_q, grad_k, grad_v, grad_rows.to(rows.dtype), grad_columns.to(columns.dtype)


attend_axes.register_autograd(_differentiate, setup_context=_keep)


def _tiles_of(width: int) -> dict[str, int]:
    """Rows and columns of a tile of keys for a map of `width` columns: as few columns too many as can be."""
    columns = min((64, 32, 16), key=lambda side: -(-width // side) * side)  # the widest of equal ones
    return {"BH": max(1, _KEYS // columns), "BW": columns}


def _launch(
    kernel: Any,
    inputs: tuple[Tensor | None, Tensor, Tensor],
    rest: tuple[Tensor, ...],
    like: Tensor,
    programs: int | None = None,
) -> None:
    """Run a kernel with `programs` for each head, or one for some queries; strides of `like` come last."""
    q, k, v = inputs
    batch, heads, cells, width = k.shape
    shown = [k if q is None else q, k, v, like]  # without queries keys stand in for them, unread
    block = max(16, triton.next_power_of_2(width))
    many = _QUERIES if block <= 128 else _QUERIES // 2
    height, across = rest[0].shape[-1], rest[1].shape[-1]
    grid = (programs or triton.cdiv(cells, many), batch * heads)
    strides = [stride for each in shown for stride in each.stride()]
    # the interpreter multiplies the bits of bf16
    product = tl.float32 if INTERPRETED and k.dtype == torch.bfloat16 else _TYPES[k.dtype]
    options = {"CONTENT": q is not None, "P": product, "BM": many, "BD": block, **_tiles_of(across)}
    with torch.cuda.device_of(k):
        kernel[grid](*shown[:3], *rest, *strides, heads, height, across, width, **options)
