"""Images of several sizes in one batch, each seen by the network as if it were alone.

Images share a canvas, and what lies beyond an image must not change what is computed inside it. Four things
would: spatial convolutions and pools read across the border, attention and channel gates look everywhere,
group norm counts all cells, and RoIAlign interpolates with the cell behind the last. Hooks on these layers
put back what the border of a map alone would give. They do nothing where all images fill the canvas.

In training this costs memory: what is filled is a copy, kept for the backward pass beside the map that the
layer before has kept. A ResNet-50 with batch norm and its pyramid keep a tenth more of a padded batch; with
group norm, which is then written out, two thirds more. Images that all fill the canvas cost nothing.
"""

import math

import torch
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

from botvision.backbones.block import AttentionConv2d
from botvision.detection.norms import GroupNorm2d


class Padding:
    """The sizes of the running batch, and the hooks that use them.

    Hooks are bound methods, so that a deep copy of the model has hooks of its own. Sizes stay until the next
    batch, because recomputation in the backward pass needs them: who calls a detector's backbone directly
    calls `begin` first.

    Attributes:
        sizes: (height, width) in pixels of each image on the canvas.
        canvas: (height, width) of the batch in pixels.
    """

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.canvas = (1, 1)
        self._cells: dict[tuple[int, int, torch.device], Tensor] = {}
        self._beyond: dict[tuple[int, int, torch.device], Tensor] = {}
        self._gate_factor: Tensor | None = None

    def begin(self, sizes: list[tuple[int, int]], canvas: tuple[int, int]) -> None:
        """A new batch of images of `sizes` on a `canvas`, all in pixels."""
        self.sizes, self.canvas = sizes, canvas
        self._cells, self._beyond = {}, {}

    def applies(self, x: Tensor) -> bool:
        """Whether `x` (B, C, H, W) is of the running batch and some image leaves a part of it empty."""
        return x.shape[0] == len(self.sizes) and any(size != self.canvas for size in self.sizes)

    def extents(self, x: Tensor) -> list[tuple[int, int]]:
        """(height, width) of each image in cells of the map x; all of the map where nothing is padded."""
        height, width = x.shape[-2:]
        if not self.applies(x):
            return [(height, width)] * x.shape[0]
        down, across = (
            2 ** round(math.log2(side / cells))
            for side, cells in zip(self.canvas, (height, width), strict=True)
        )
        return [(-(-rows // down), -(-columns // across)) for rows, columns in self.sizes]

    def cells(self, x: Tensor) -> Tensor:
        """`extents` as a (B, 2) int64 tensor on the map's device."""
        key = (x.shape[-2], x.shape[-1], x.device)
        if key not in self._cells:
            self._cells[key] = torch.tensor(self.extents(x), device=x.device)
        return self._cells[key]

    def beyond(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) true where a cell of the map x lies outside its image."""
        height, width = x.shape[-2:]
        key = (height, width, x.device)
        if key not in self._beyond:
            cells = self.cells(x)
            rows = torch.arange(height, device=x.device) >= cells[:, :1]
            columns = torch.arange(width, device=x.device) >= cells[:, 1:]
            self._beyond[key] = (rows.unsqueeze(2) | columns.unsqueeze(1)).unsqueeze(1)
        return self._beyond[key]

    def watch(self, network: nn.Module) -> None:
        """Put the hooks on all layers of a network of maps that look further than one cell."""
        for module in network.modules():
            if isinstance(module, AttentionConv2d | GroupNorm2d):
                module.register_forward_pre_hook(self._hand_sizes, with_kwargs=True)
            elif isinstance(module, SEModule):
                module.register_forward_pre_hook(self._before_gate)
                module.fc1.register_forward_pre_hook(self._rescale_mean)
            elif isinstance(module, nn.MaxPool2d):
                module.register_forward_pre_hook(self._fill_lowest)
                module.register_forward_hook(self._clear)
            elif isinstance(module, nn.AvgPool2d):
                module.register_forward_pre_hook(self._fill_zero)
                module.register_forward_hook(self._rescale_average)
            elif isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
                module.register_forward_pre_hook(self._fill_zero)

    def _fill_zero(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return self._filled(args, 0.0)

    def _fill_lowest(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return self._filled(args, float("-inf"))

    def _filled(self, args: tuple[Tensor, ...], value: float) -> tuple[Tensor, ...] | None:
        x, *others = args
        return (x.masked_fill(self.beyond(x), value), *others) if self.applies(x) else None

    def _clear(self, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        """No infinity may stay, its gradients would not be numbers."""
        return out.masked_fill(self.beyond(out), 0.0) if self.applies(out) else None

    def _rescale_average(self, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        """The average of the cells that belong to the image, as a pool that rounds up has it."""
        x = args[0]
        if not self.applies(x):
            return None
        assert isinstance(module, nn.AvgPool2d)
        counted = module.forward((~self.beyond(x)).to(x.dtype))
        return out / counted.masked_fill(counted == 0, 1.0)

    def _hand_sizes(
        self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]] | None:
        return (args[:1], kwargs | {"sizes": self.cells(args[0])}) if self.applies(args[0]) else None

    def _before_gate(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        x = args[0]
        self._gate_factor = None
        if not self.applies(x):
            return None
        area = self.cells(x).prod(1).view(-1, 1, 1, 1)
        self._gate_factor = (x.shape[-2] * x.shape[-1] / area).to(x.dtype)
        return self._filled(args, 0.0)

    def _rescale_mean(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return None if self._gate_factor is None else (args[0] * self._gate_factor, *args[1:])
