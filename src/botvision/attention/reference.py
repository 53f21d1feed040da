"""The definition of the attention, written out: quadratic, no cleverness, the oracle of every kernel.

    logit_ij = q_i . k_j + q_i . (Rh[yj - yi] + Rw[xj - xi])        (q already scaled by D^-0.5)
    out_i    = sum_j softmax_j(logit_ij) v_j

Paper section 4 and figure 4. Two controls have fixed weights instead: 1 / (valid cells) for each valid cell j
("even"), or 1 for j = i ("own"). Shape legend: B batch, N heads, Y X query row and column, H W key row and
column, D head width, P 1 or B.
"""

from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from botvision.attention.position import PositionRows

Fixed = Literal["even", "own"]


class Terms(NamedTuple):
    """What the logits consist of.

    Attributes:
        grid: (H, W) of the map in cells.
        position: table rows for this grid, in the scale of the scaled queries; None for content only.
        content: whether q . k counts.
        sizes: (B, 2) valid (height, width) of each image in cells, within 1..H and 1..W; cells beyond get
            exactly zero weight. None where all are valid.
        fixed: weights that depend on no logits, if that is so; queries and keys then play no part.
    """

    grid: tuple[int, int]
    position: PositionRows | None = None
    content: bool = True
    sizes: Tensor | None = None
    fixed: Fixed | None = None


def attend_reference(
    q: Tensor, k: Tensor, v: Tensor, terms: Terms, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return attention and its map.

    Args:
        q: (B, N, H*W, D) queries, already scaled.
        k: (B, N, H*W, D) keys.
        v: (B, N, H*W, D) values.
        terms: what the logits consist of.
        dropout: probability with which a weight is dropped.

    Returns:
        (B, N, H*W, D) output and (B, N, H*W, H*W) attention map. fp16 and bf16 are computed in fp32.
    """
    grid, position, content, sizes, fixed = terms
    dtype = q.dtype
    autocast = torch.amp.is_autocast_available(q.device.type)  # the meta device has none
    with torch.autocast(q.device.type, enabled=False) if autocast else nullcontext():
        if dtype in (torch.float16, torch.bfloat16):
            q, k, v = q.float(), k.float(), v.float()
            position = position.to(torch.float32) if position is not None else None
        q, k = q.unflatten(2, grid), k.unflatten(2, grid)
        logits = q.new_zeros(*q.shape[:-1], *grid)  # B N Y X H W
        if content and fixed is None:
            logits = logits + torch.einsum("bnyxd,bnhwd->bnyxhw", q, k)
        if position is not None:
            logits = logits + position_logits(q, position)
        if sizes is not None:
            logits = logits.masked_fill(~valid_cells(grid, sizes)[:, None, None, None], float("-inf"))
        weights = logits.flatten(4).softmax(-1).flatten(2, 3)
        if fixed == "own":
            weights = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device).expand_as(
                weights
            )
        weights = F.dropout(weights, dropout) if dropout > 0 else weights
        return (weights @ v).to(dtype), weights.to(dtype)


def position_logits(q: Tensor, position: PositionRows) -> Tensor:
    """Return the (B, N, Y, X, H, W) logits of the positions, from (B, N, Y, X, D) queries."""
    height, width = q.shape[2], q.shape[3]
    if position.relative:
        # every query with all 2H-1 and 2W-1 rows, as the authors count it, then the row of each distance
        rows = torch.einsum("bnyxd,brd->bnyxr", q, position.height)
        rows = rows.gather(-1, _distance(height, q.device).unsqueeze(1).expand(*rows.shape[:-1], height))
        columns = torch.einsum("bnyxd,brd->bnyxr", q, position.width)
        columns = columns.gather(-1, _distance(width, q.device).expand(*columns.shape[:-1], width))
    else:
        rows = torch.einsum("bnyxd,bhd->bnyxh", q, position.height)
        columns = torch.einsum("bnyxd,bwd->bnyxw", q, position.width)
    return rows.unsqueeze(-1) + columns.unsqueeze(-2)


def valid_cells(grid: tuple[int, int], sizes: Tensor) -> Tensor:
    """Return (B, H, W), true where a cell belongs to the image, from (B, 2) valid (height, width)."""
    rows = torch.arange(grid[0], device=sizes.device) < sizes[:, :1]
    columns = torch.arange(grid[1], device=sizes.device) < sizes[:, 1:]
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _distance(cells: int, device: torch.device) -> Tensor:
    """(cells, cells) table row of the distance key - query."""
    place = torch.arange(cells, device=device)
    return place[None, :] - place[:, None] + cells - 1
