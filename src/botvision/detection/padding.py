"""Images of several sizes in one batch, each seen by the network as if it were alone.

Images share a canvas, and what lies beyond an image must not change what is computed inside it. Four things
would: spatial convolutions and pools read across the border, attention and channel gates look everywhere,
group norm counts all cells, and RoIAlign interpolates with the cell behind the last. RoIAlign takes the sizes
itself; hooks on the other layers put back what the border of a map alone would give, while `padded` is open.
They do nothing where all images fill the canvas.

In training this costs memory: what is filled is a copy, kept for the backward pass beside the map that the
layer before has kept. A ResNet-50 with batch norm and its pyramid keep a tenth more of a padded batch; with
group norm, which is then written out, two thirds more. Images that all fill the canvas cost nothing.
"""

import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

from botvision.attention.reference import valid_cells
from botvision.backbones.block import AttentionConv2d
from botvision.detection.norms import GroupNorm2d


class Padding:
    """Of a batch of images of `sizes` on a `canvas`, (height, width) in pixels: where they lie in maps."""

    def __init__(self, sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> None:
        self.sizes, self.canvas = sizes, canvas
        self.gate_factor: Tensor | float = 1.0  # from a channel gate to its first layer
        self._cells: dict[tuple[int, int, torch.device], Tensor] = {}
        self._beyond: dict[tuple[int, int, torch.device], Tensor] = {}

    def cells(self, x: Tensor) -> Tensor:
        """Return (B, 2) int64 (height, width) of each image in cells of the (B, C, H, W) map x."""
        key = (x.shape[-2], x.shape[-1], x.device)
        if key not in self._cells:
            down, across = (
                2 ** round(math.log2(side / cells))
                for side, cells in zip(self.canvas, x.shape[-2:], strict=True)
            )
            extents = [(-(-rows // down), -(-columns // across)) for rows, columns in self.sizes]
            self._cells[key] = torch.tensor(extents, device=x.device)
        return self._cells[key]

    def beyond(self, x: Tensor) -> Tensor:
        """Return (B, 1, H, W), true where a cell of the map x lies outside its image."""
        key = (x.shape[-2], x.shape[-1], x.device)
        if key not in self._beyond:
            self._beyond[key] = ~valid_cells((x.shape[-2], x.shape[-1]), self.cells(x)).unsqueeze(1)
        return self._beyond[key]


class _Local(threading.local):  # compilers follow it, which they do not with a ContextVar
    padding: Padding | None = None


_local = _Local()


def padded(sizes: Sequence[tuple[int, int]] | None, canvas: tuple[int, int]) -> AbstractContextManager[None]:
    """Have the layers that `watch` knows respect the sizes of a batch's images, until the context ends.

    Args:
        sizes: (height, width) in pixels of each image; None if all fill the canvas.
        canvas: (height, width) of the batch in pixels.
    """
    full = sizes is None or all(tuple(size) == canvas for size in sizes)
    return _Scope(None if full else Padding(sizes, canvas))


class _Scope(AbstractContextManager[None]):
    """A padding is in force; may be entered again and again, as checkpoints do in every backward pass."""

    def __init__(self, padding: Padding | None) -> None:
        self.padding = padding
        self._before: list[Padding | None] = []

    def __enter__(self) -> None:
        self._before.append(_local.padding)
        _local.padding = self.padding

    def __exit__(self, *_: object) -> None:
        _local.padding = self._before.pop()


def current() -> Padding | None:
    """Return the padding that is in force, if there is one."""
    return _local.padding


def recomputed() -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return contexts for `torch.utils.checkpoint`: the backward pass sees the batch of the forward pass."""
    return nullcontext(), _Scope(current())


def watch(network: nn.Module) -> None:
    """Put hooks on all layers of a network of maps that look further than one cell.

    Layers that have them, as those of a network that another detector uses too, get no second ones.
    """
    for module in network.modules():
        if _HOOKS & set(module._forward_pre_hooks.values()):
            continue
        if isinstance(module, AttentionConv2d | GroupNorm2d):
            module.register_forward_pre_hook(_hand_sizes, with_kwargs=True)
        elif isinstance(module, SEModule):
            module.register_forward_pre_hook(_before_gate)
            module.fc1.register_forward_pre_hook(_rescale_mean)
        elif isinstance(module, nn.MaxPool2d):
            module.register_forward_pre_hook(_fill_lowest)
            module.register_forward_hook(_clear)
        elif isinstance(module, nn.AvgPool2d):
            module.register_forward_pre_hook(_fill_zero)
            module.register_forward_hook(_rescale_average)
        elif isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            module.register_forward_pre_hook(_fill_zero)


def _padding_of(x: Tensor) -> Padding | None:
    padding = current()
    return padding if padding is not None and x.shape[0] == len(padding.sizes) else None


def _filled(args: tuple[Tensor, ...], value: float) -> tuple[Tensor, ...] | None:
    x, *others = args
    return None if (padding := _padding_of(x)) is None else (x.masked_fill(padding.beyond(x), value), *others)


def _fill_zero(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return _filled(args, 0.0)


def _fill_lowest(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return _filled(args, float("-inf"))


def _clear(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
    """No infinity may stay, its gradients would not be numbers."""
    return None if (padding := _padding_of(out)) is None else out.masked_fill(padding.beyond(out), 0.0)


def _rescale_average(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
    """Average the cells that belong to the image, as a pool that rounds up does."""
    x = args[0]
    if (padding := _padding_of(x)) is None:
        return None
    assert isinstance(module, nn.AvgPool2d)
    counted = module.forward((~padding.beyond(x)).to(x.dtype))
    return out / counted.masked_fill(counted == 0, 1.0)


def _hand_sizes(
    module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
) -> tuple[tuple[Tensor, ...], dict[str, object]] | None:
    padding = _padding_of(args[0])
    return None if padding is None else (args[:1], kwargs | {"sizes": padding.cells(args[0])})


def _before_gate(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    x = args[0]
    if (padding := _padding_of(x)) is not None:
        area = padding.cells(x).prod(1).view(-1, 1, 1, 1)
        padding.gate_factor = (x.shape[-2] * x.shape[-1] / area).to(x.dtype)
    return _filled(args, 0.0)


def _rescale_mean(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    padding = _padding_of(args[0])
    return None if padding is None else (args[0] * padding.gate_factor, *args[1:])


_HOOKS = {_hand_sizes, _before_gate, _fill_lowest, _fill_zero}  # by which a watched layer is known
