"""What a trained network loses without its attention, or with a part of it: outputs replaced for a while.

Nothing is retrained, so this says how much a network relies on its attention. What attention is worth in the
first place, a network trained without it says. Shape legend: B batch, N heads, L = H*W cells, D head width.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from botvision.attention.kernels import attend
from botvision.attention.layer import MHSA2d

Ablation = Literal["as-trained", "zero", "even", "own", "content", "position", "shuffled"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)


@dataclass(frozen=True)
class Replaced:
    """Whose output gives way to what.

    Attributes:
        how: what takes its place, see `ablated`.
        block: the one block that is meant, from 1; None for all.
    """

    how: Ablation
    block: int | None = None

    @contextmanager
    def within(self, network: nn.Module) -> Iterator[None]:
        """Open `ablated` with these choices."""
        with ablated(network, self.how, None if self.block is None else [self.block]):
            yield


@contextmanager
def ablated(network: nn.Module, how: Ablation, blocks: Sequence[int] | None = None) -> Iterator[None]:
    """Replace the output of a network's attention layers for a while.

    Everything else runs as always: batch norms, shortcuts, padding, precision. Not for compiled networks.

    Args:
        network: with `MHSA2d` layers: a classifier, a backbone or a detector.
        how: what takes the place of the output of a layer.

            - "as-trained": nothing does.
            - "zero": zeros; the block is left with its shortcut and the norms of its branch.
            - "even": in every cell the mean of the values over the valid cells, as if all weights were equal.
            - "own": the cell's own value, as if it attended to nothing but itself.
            - "content": attention by q . k alone, without the position logits.
            - "position": attention by the position logits alone.
            - "shuffled": in every cell the output of another valid cell of the same image. Which one is
              drawn once for a grid, the same for all heads and images: the maps stay, who asked is lost.
        blocks: the layers that are meant, numbered from 1 in the order in which the network registers them;
            None for all.

    Raises:
        ValueError: no attention in the network, a block or ablation that is not there, or a layer that has
            only one of content and position where one of them is asked for.
    """
    if how not in ABLATIONS:
        raise ValueError(f"the ablation must be one of {', '.join(ABLATIONS)}, got {how!r}")
    layers = list(find_attention(network).values())
    numbers = list(range(1, len(layers) + 1)) if blocks is None else list(blocks)
    for number in numbers:
        if not 1 <= number <= len(layers):
            raise ValueError(f"block {number}: the network has attention in {counted('block', len(layers))}")
        mode = layers[number - 1].mode
        if how in ("content", "position") and how in ablations_without_effect(mode):
            raise ValueError(
                f"block {number} has no content and position to choose from (position={mode!r}), "
                f"so {how!r} does not apply"
            )
    replace = _REPLACEMENTS.get(how)
    handles: list[RemovableHandle] = []
    try:
        if replace is not None:
            hook: Any = _hook(replace)
            handles += [
                layers[number - 1].register_forward_hook(hook, with_kwargs=True) for number in numbers
            ]
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_attention(network: nn.Module) -> dict[str, MHSA2d]:
    """Return the attention layers by name, as registered. Raises ValueError: there is none."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, MHSA2d)}
    if not layers:
        raise ValueError("the network has no attention; a BoTNet has, a plain ResNet has not")
    return layers


def block_names(names: Sequence[str]) -> list[str]:
    """Return `layer4.0` of each layer's full name, where that is enough to tell them apart."""
    short = [found[0] if (found := re.search(r"layer\d+\.\d+", name)) else name for name in names]
    return short if len(set(short)) == len(short) else list(names)


def ablations_without_effect(mode: str) -> tuple[Ablation, ...]:
    """Return those that ask for one of content and position of a layer that does not have both."""
    return () if mode in ("relative", "absolute") else ("content", "position")


def counted(what: str, count: int) -> str:
    """Return `one block, 1` or `3 blocks, 1 to 3`."""
    return f"one {what}, 1" if count == 1 else f"{count} {what}s, 1 to {count}"


# From a layer, its map and the valid sizes to (B, N, L, D).
_Replacement = Callable[[MHSA2d, Tensor, Tensor | None], Tensor]


def _hook(replace: _Replacement) -> Callable[..., Tensor]:
    def hook(layer: MHSA2d, args: tuple, kwargs: dict[str, Any], out: Tensor) -> Tensor:
        given = dict(zip(("x", "sizes"), args, strict=False)) | kwargs
        x: Tensor = given["x"]
        cells = replace(layer, x, given.get("sizes"))
        return layer.as_map(cells.to(out.dtype), x)

    return hook


def _zero(layer: MHSA2d, x: Tensor, sizes: Tensor | None) -> Tensor:
    return torch.zeros_like(layer.project(x, sizes)[2])


def _own(layer: MHSA2d, x: Tensor, sizes: Tensor | None) -> Tensor:
    return layer.project(x, sizes)[2].contiguous()


def _attended(layer: MHSA2d, x: Tensor, sizes: Tensor | None, **changes: Any) -> Tensor:  # noqa: ANN401
    """The layer's output with changed terms."""
    q, k, v, terms = layer.project(x, sizes)
    terms = terms._replace(**changes)
    return attend(q, k, v, terms, layer.dropout if layer.training and not terms.fixed else 0.0, layer.kernel)


def _shuffled(layer: MHSA2d, x: Tensor, sizes: Tensor | None) -> Tensor:
    cells, grid = _attended(layer, x, sizes), (x.shape[2], x.shape[3])
    if sizes is None:
        return cells[:, :, other_cells(grid, grid).to(x.device)]
    givers = [other_cells(grid, (height, width)) for height, width in sizes.tolist()]
    index = torch.stack(givers).to(x.device)[:, None, :, None]
    return cells.gather(2, index.expand_as(cells))


def other_cells(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return the (H*W,) cells whose outputs the cells of a grid get when they are shuffled.

    The cells of an image of `size` hand theirs round in one ring, in an order drawn from the size alone, so
    that none keeps its own unless it is the only one. Cells beyond the image keep theirs.
    """
    size = (min(max(size[0], 1), grid[0]), min(max(size[1], 1), grid[1]))  # as the layer limits it
    places = torch.arange(grid[0] * grid[1])
    inside = places.view(grid)[: size[0], : size[1]].flatten()
    order = torch.randperm(len(inside), generator=torch.Generator().manual_seed(size[0] * 65537 + size[1]))
    places[inside[order]] = inside[order.roll(1)]
    return places


_REPLACEMENTS: Mapping[Ablation, _Replacement] = {
    "zero": _zero,
    "even": partial(_attended, fixed="even"),
    "own": _own,
    "content": partial(_attended, position=None),
    "position": partial(_attended, content=False),
    "shuffled": _shuffled,
}
