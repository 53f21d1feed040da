"""The attention of reference.py in tiles that stay in cache, with a backward pass of its own.

A tile holds the logits of a few query rows with all keys: one product, the position added in place, softmax,
one product with the values. Of a large map nothing of this is kept: the backward pass makes it again, so that
memory grows with the number of cells, not with its square. On CPUs this beats torch's fused attention, whose
matrix products do not use the widest vectors of every processor, whereas oneDNN's do.

Shape legend: B batch, N heads, H W key row and column, L = H*W cells, D head width, P 1 or B, R rows of a
table; a tile has G matrices (heads of images), T query rows, M = T*W queries.
"""

import functools
import math
import operator
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from botvision.attention.reference import Terms

# Private functions of torch, by their names below `torch`, and what takes the place of one that is not there.
PRIVATE = {
    "_C._are_functorch_transforms_active": "other kernels: a transform of torch.func could be at work",
    "_softmax_backward_data": "its formula, written out",
    "ops.mkldnn._linear_pointwise": "torch's own products, which leave half of an AMD core unused in fp32",
}

# Logits of one tile: few enough for the caches, enough for products at full speed.
_TILE_LOGITS = 1 << 21
# Cells from which fp32 products are worth a call of oneDNN each; smaller ones go to torch in batches.
_SINGLE_CELLS = 400


def attend_tiled(q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
    """Return the output (B, N, L, D) of `attend_reference` without dropout; arguments as there.

    It lies in memory as (B, L, N, D), so that a channels-last feature map needs no copy. Gradients of
    gradients are not defined: the other kernels have them. In bf16 logits and weights are rounded to bf16, as
    in the formula written out in bf16; torch's fused attention keeps them in fp32.
    """
    dtype, rows = q.dtype, terms.position
    # fp16 would overflow where logits add up, and few CPUs multiply it fast
    inside = torch.float32 if dtype == torch.float16 else dtype
    spec = _Spec(
        terms.grid,
        terms.content,
        rows is not None and rows.relative,
        None if terms.sizes is None else terms.sizes.tolist(),
    )
    # weights that take little beside the activations of a network are kept rather than made again
    keep = torch.is_grad_enabled() and q.shape[2] <= 8 * q.shape[3]
    tables = () if rows is None else (rows.height.to(inside), rows.width.to(inside))
    return _Tiled.apply(spec, keep, q.to(inside), k.to(inside), v.to(inside), *tables).to(dtype)


@functools.cache
def available(name: str) -> bool:
    """Return whether this torch has a function of `PRIVATE`."""
    assert name in PRIVATE, name
    try:
        return callable(operator.attrgetter(name)(torch))
    except AttributeError:
        return False


def transforms_active() -> bool:
    """Return whether a transform of torch.func, which cannot follow the tiles, is or could be at work."""
    known = available("_C._are_functorch_transforms_active")
    return torch._C._are_functorch_transforms_active() if known else True


class _Spec(NamedTuple):
    """What the logits consist of, but for the tensors."""

    grid: tuple[int, int]
    content: bool
    relative: bool
    sizes: list[list[int]] | None  # valid (height, width) of each image


class _Tile(NamedTuple):
    """Where a tile lies."""

    images: slice
    heads: slice
    rows: slice  # of queries
    cells: slice  # the same queries among all cells

    def queries(self, x: Tensor) -> Tensor:
        """(G, M, D) of a (B, N, L, D) tensor, in rows without gaps: oneDNN is slow with them."""
        return x[self.images, self.heads, self.cells].flatten(0, 1).contiguous()

    def keys(self, x: Tensor) -> Tensor:
        """(G, L, D) of a (B, N, L, D) tensor, in rows without gaps."""
        return x[self.images, self.heads].flatten(0, 1).contiguous()

    def write(self, x: Tensor, part: Tensor) -> None:
        """(G, M, D) of the queries into a (B, N, L, D) tensor."""
        place = x[self.images, self.heads, self.cells]
        place.copy_(part.unflatten(0, place.shape[:2]))

    def write_keys(self, x: Tensor, part: Tensor) -> None:
        """(G, L, D) of the keys into a (B, N, L, D) tensor."""
        place = x[self.images, self.heads]
        place.copy_(part.unflatten(0, place.shape[:2]))


class _Context(FunctionCtx):
    spec: _Spec
    tables: int
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, spec: _Spec, keep: bool, q: Tensor, k: Tensor, v: Tensor, *tables: Tensor
    ) -> Tensor:
        logits, kept = _Logits(spec, tables), []
        keep = keep and any(ctx.needs_input_grad)
        out, room = _like_a_map(v), None if keep else _Room()
        with torch.autocast(q.device.type, enabled=False):
            for tiles in logits.groups(q):
                keys, values = logits.keys(tiles[0], k), tiles[0].keys(v)
                for tile in tiles:
                    weights = logits.weights(tile, tile.queries(q), keys, room)
                    tile.write(out, _times(weights, values.mT))
                    if keep:
                        kept.append(weights)
        ctx.spec, ctx.tables = spec, len(tables)
        ctx.save_for_backward(q, k, v, *tables, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: _Context, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, *rest = ctx.saved_tensors
        logits = _Logits(ctx.spec, tuple(rest[: ctx.tables]))
        with torch.autocast(q.device.type, enabled=False):
            return (None, None, *_backward(grads[0], (q, k, v), logits, rest[ctx.tables :]))


def _backward(
    grad: Tensor, qkv: tuple[Tensor, Tensor, Tensor], logits: "_Logits", kept: list[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v and both tables, from the weights that were kept, if any were."""
    q, k, v = qkv
    wide = torch.promote_types(q.dtype, torch.float32)  # sums over tiles are not kept in half precision
    of_q, of_k, of_v = _like_a_map(q), _like_a_map(k), _like_a_map(v)
    of_tables = _Logits(logits.spec, tuple(torch.zeros_like(table, dtype=wide) for table in logits.tables))
    weights_kept = iter(kept)
    for tiles in logits.groups(q):
        keys, values = logits.keys(tiles[0], k), tiles[0].keys(v)
        sums, rooms = (_Sums(wide), _Sums(wide)), (_Room(), _Room())
        for tile in tiles:
            queries, upstream = tile.queries(q), tile.queries(grad)
            weights = next(weights_kept) if kept else logits.weights(tile, queries, keys, rooms[0])
            sums[1].add(_times(upstream.mT, weights.mT))
            of_logits = _times(upstream, values, rooms[1])
            _to_logits(of_logits, weights)
            if logits.spec.content:
                sums[0].add(_times(queries.mT, of_logits.mT))
            tile.write(of_q, logits.backward(tile, of_logits, queries, keys, of_tables))
        if logits.spec.content:
            tiles[0].write_keys(of_k, sums[0].total.mT)
        tiles[0].write_keys(of_v, sums[1].total.mT)
    return of_q, of_k if logits.spec.content else None, of_v, *(t.to(q.dtype) for t in of_tables.tables)


def _to_logits(grad: Tensor, weights: Tensor) -> None:
    """Turn the gradient of a softmax's weights into that of its logits, in place."""
    if available("_softmax_backward_data"):
        torch._softmax_backward_data(grad, weights, -1, weights.dtype, grad_input=grad)
    else:
        grad.sub_(torch.linalg.vecdot(grad, weights).unsqueeze(-1)).mul_(weights)


class _Room:
    """Memory that tile after tile writes into: fresh pages from the system cost as much as a product."""

    def __init__(self) -> None:
        self.memory = torch.empty(0)

    def take(self, like: Tensor, *shape: int) -> Tensor:
        """An uninitialised tensor of `shape`; what was taken before is written over."""
        numbers = math.prod(shape)
        if self.memory.numel() < numbers:
            self.memory = like.new_empty(numbers)
        return self.memory[:numbers].view(shape)


class _Sums:
    """A sum of tensors in `dtype`; that of one is itself."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.total = dtype, torch.empty(0)

    def add(self, part: Tensor) -> None:
        if self.total.numel() == 0:
            self.total = part
        else:
            self.total = self.total.to(self.dtype).add_(part)


class _Logits(NamedTuple):
    """Makes the logits of tiles, from (P, R, D) tables for height and width where position counts."""

    spec: _Spec
    tables: tuple[Tensor, ...]

    def groups(self, q: Tensor) -> Iterator[list[_Tile]]:
        """Tiles of (B, N, L, D) queries, those with the same keys together: some matrices, or rows of one."""
        (batch, heads, cells, _), (height, width) = q.shape, self.spec.grid
        fit = 1 if _onednn(q) and cells >= _SINGLE_CELLS else max(1, _TILE_LOGITS // (cells * cells))
        # tables and sizes may differ from image to image
        own = self.spec.sizes is not None or any(table.shape[0] > 1 for table in self.tables)
        some_heads = min(heads, fit)
        some_images = 1 if own else max(1, min(batch, fit // heads))
        some_rows = max(1, min(height, _TILE_LOGITS // (some_heads * some_images * cells * width)))
        for image in range(0, batch, some_images):
            for head in range(0, heads, some_heads):
                images = slice(image, min(image + some_images, batch))
                few = slice(head, min(head + some_heads, heads))
                blocks = [slice(row, min(row + some_rows, height)) for row in range(0, height, some_rows)]
                yield [
                    _Tile(images, few, rows, slice(rows.start * width, rows.stop * width)) for rows in blocks
                ]

    @property
    def folded(self) -> bool:
        """Whether position takes part in the product, as further columns [rows, columns] of the queries and
        one-hots of the keys: on small maps they are few, and adding them to short rows is slow."""
        return len(self.tables) > 0 and sum(self.spec.grid) <= self.tables[0].shape[-1] // 2

    def keys(self, tile: _Tile, k: Tensor) -> Tensor:
        """What the tile's queries are multiplied with: (G, L, D) keys, and where position is folded one-hots
        of their row and column."""
        keys, (height, width) = tile.keys(k), self.spec.grid
        if not self.folded:
            return keys
        eye = torch.eye(max(height, width), dtype=k.dtype, device=k.device)
        rows, columns = (
            eye[:height, :height].repeat_interleave(width, 0),
            eye[:width, :width].repeat(height, 1),
        )
        places = torch.cat([rows, columns], 1).expand(keys.shape[0], -1, -1)
        return torch.cat([keys, places], 2) if self.spec.content else places.contiguous()

    def weights(self, tile: _Tile, queries: Tensor, keys: Tensor, room: _Room | None) -> Tensor:
        """(G, M, L) softmax of the logits of (G, M, D) queries with `keys`, in `room` if there is one."""
        if self.tables and not self.folded:
            logits = self._added(tile, queries, keys, room)
        else:
            parts = [queries] if self.spec.content else []
            if self.folded:
                parts += [part.flatten(1, 2) for part in self._position(tile, queries)]
            logits = _times(torch.cat(parts, 2) if len(parts) > 1 else queries, keys, room)
        spread = self._spread(logits)
        if self.spec.sizes is not None:
            height, width = self.spec.sizes[tile.images.start]
            spread[..., height:, :] = float("-inf")
            spread[..., width:] = float("-inf")
        return torch.softmax(logits, -1, out=logits)

    def _added(self, tile: _Tile, queries: Tensor, keys: Tensor, room: _Room | None) -> Tensor:
        """(G, M, L) logits, position added to the product; in half precision the product to position, which
        rounds once."""
        rows, columns = (
            part.unsqueeze(dim) for part, dim in zip(self._position(tile, queries), (-1, -2), strict=True)
        )
        if self.spec.content and _onednn(queries):
            logits = _times(queries, keys, room)
            self._spread(logits).add_(rows).add_(columns)
            return logits
        shape = *queries.shape[:2], math.prod(self.spec.grid)
        logits = queries.new_empty(shape) if room is None else room.take(queries, *shape)
        torch.add(rows, columns, out=self._spread(logits))
        if self.spec.content and len(keys) == 1:
            torch.addmm(logits[0], queries[0], keys[0].mT, out=logits[0])
        elif self.spec.content:
            torch.baddbmm(logits, queries, keys.mT, out=logits)
        return logits

    def backward(
        self, tile: _Tile, of_logits: Tensor, queries: Tensor, keys: Tensor, of_tables: "_Logits"
    ) -> Tensor:
        """(G, M, D) gradient of the queries from that of the logits; adds those of the tables."""
        spread, width = self._spread(of_logits), queries.shape[2] if self.spec.content else 0
        products = _times(of_logits, keys.mT) if width or self.folded else of_logits.new_empty(0)
        of_queries = products[..., :width] if width else torch.zeros_like(queries)
        if not self.tables:
            return of_queries
        if self.folded:
            parts = products[..., width:].unflatten(1, spread.shape[1:3]).split(self.spec.grid, -1)
        else:
            parts = spread.sum(-1), spread.sum(-2)
        for axis, part, table, of_table in zip(
            (1, 2), parts, self._rows(tile), of_tables._rows(tile), strict=True
        ):
            of_products = of_logits.new_zeros(*spread.shape[:3], table.shape[0])
            _by_key(of_products, axis, self.spec.relative).copy_(part)
            of_products = of_products.flatten(1, 2)
            of_queries += _times(of_products, table.mT.unsqueeze(0))
            of_table += of_products.flatten(0, 1).mT @ queries.flatten(0, 1)
        return of_queries

    def _spread(self, logits: Tensor) -> Tensor:
        """(G, M, L) -> (G, T, W, H, W)."""
        return logits.unflatten(2, self.spec.grid).unflatten(1, (-1, self.spec.grid[1]))

    def _position(self, tile: _Tile, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of (G, M, D) queries for every key row (G, T, W, H) and key column (G, T, W, W)."""
        rows, columns = (
            _by_key(
                _times(queries, table.unsqueeze(0)).unflatten(1, (-1, self.spec.grid[1])),
                axis,
                self.spec.relative,
            )
            for axis, table in zip((1, 2), self._rows(tile), strict=True)
        )
        return rows, columns

    def _rows(self, tile: _Tile) -> tuple[Tensor, Tensor]:
        """(R, D) rows for the tile's queries, as views: of the height only those that they can meet."""
        height, width = (table[0 if table.shape[0] == 1 else tile.images.start] for table in self.tables)
        if self.spec.relative:
            start, rows = self.spec.grid[0] - tile.rows.stop, tile.rows.stop - tile.rows.start
            height = height[start : start + self.spec.grid[0] + rows - 1]
        return height, width


def _by_key(products: Tensor, axis: int, relative: bool) -> Tensor:
    """(G, T, W, R) products with table rows -> a view by key: (G, T, W, H) or, of axis 2, (G, T, W, W).

    A query's keys begin one distance earlier than those of the query before it, so a step to the next query
    is a step back by one row of the table.
    """
    if not relative:
        return products
    queries = products.shape[axis]
    strides = list(products.stride())
    strides[axis] -= 1
    return products.as_strided(
        (*products.shape[:3], products.shape[3] - queries + 1),
        strides,
        products.storage_offset() + queries - 1,
    )


def _like_a_map(x: Tensor) -> Tensor:
    """An empty (B, N, L, D) tensor that lies in memory as (B, L, N, D)."""
    batch, heads, cells, width = x.shape
    return x.new_empty(batch, cells, heads, width).transpose(1, 2)


def _times(left: Tensor, right: Tensor, room: _Room | None = None) -> Tensor:
    """(G, M, K) @ (G or 1, C, K).mT, by the fastest product there is, into `room` where it can be told."""
    if right.shape[0] == 1 and _onednn(left):
        out = torch.ops.mkldnn._linear_pointwise(left.flatten(0, 1), right[0], None, "none", [], "")
        return out.unflatten(0, left.shape[:2])
    out = None if room is None else room.take(left, *left.shape[:2], right.shape[1])
    if right.shape[0] > 1:
        return torch.bmm(left, right.mT, out=out)
    flat = torch.mm(left.flatten(0, 1), right[0].mT, out=None if out is None else out.flatten(0, 1))
    return flat.unflatten(0, left.shape[:2])


def _onednn(x: Tensor) -> bool:
    """Whether single products of `x` go to oneDNN: torch's own in fp32 are MKL's."""
    usable = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    suits = x.dtype == torch.float32 and x.device.type == "cpu"
    return suits and usable and available("ops.mkldnn._linear_pointwise")
