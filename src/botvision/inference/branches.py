"""How large the residual branch of a block with attention is, beside the shortcut that it is added to.

A bottleneck block adds relu(branch + shortcut). The branch ends with bn3, or with the channel gate (`se`) or
`drop_path` after it; the shortcut is the block's input, or what `downsample` makes of it. timm's and
torchvision's blocks have these names, also after batch norms were merged into convolutions.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from botvision.backbones.block import AttentionConv2d
from botvision.inference.view import View

ENDS = ("bn3", "se", "drop_path")  # of the branch, in the order in which a block calls those that it has


class Branches:
    """Sizes of branches and shortcuts of the blocks with attention in the last forward pass."""

    def __init__(self) -> None:
        self._branch: dict[str, Tensor] = {}
        self._shortcut: dict[str, Tensor] = {}

    def note_branch(self, block: str, out: Tensor) -> None:
        """Keep the size of a (1, C, H, W) map; the last one of a block counts."""
        self._branch[block] = _squares(out)

    def note_shortcut(self, block: str, out: Tensor) -> None:
        """Keep the size of a (1, C, H, W) map; the last one of a block counts."""
        self._shortcut[block] = _squares(out)

    def ratio(self, layer: str, view: View) -> float | None:
        """Root mean square of the branch divided by that of the shortcut, over the cells of the image.

        Args:
            layer: name of the attention layer.
            view: where the image lies in the input.

        Returns:
            None where the layer is in no bottleneck block, or the shortcut is zero.
        """
        block = next((name for name in self._branch if layer.startswith(f"{name}.")), None)
        if block is None:
            return None
        sums = []
        for squares in (self._branch[block], self._shortcut[block]):
            height, width = view.cells(view.stride((squares.shape[0], squares.shape[1])))
            sums.append(float(squares[:height, :width].sum()))
        return math.sqrt(sums[0] / sums[1]) if sums[1] > 0 else None


@contextmanager
def watching_branches(network: nn.Module) -> Iterator[Branches]:
    """Note the branches and shortcuts of all bottleneck blocks with attention while a network runs."""
    found, handles = Branches(), []
    for name, block in network.named_modules():
        if not (isinstance(getattr(block, "conv2", None), AttentionConv2d) and hasattr(block, "bn3")):
            continue
        # sizes are taken at once: a block adds the shortcut to the branch in place
        ends = [end for key in ENDS if isinstance(end := getattr(block, key, None), nn.Module)]
        handles += [
            end.register_forward_hook(lambda _m, _a, out, name=name: found.note_branch(name, out))
            for end in ends
        ]
        shortcut = getattr(block, "downsample", None)
        handles.append(
            shortcut.register_forward_hook(lambda _m, _a, out, name=name: found.note_shortcut(name, out))
            if isinstance(shortcut, nn.Module)
            else block.register_forward_pre_hook(
                lambda _m, args, name=name: found.note_shortcut(name, args[0])
            )
        )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _squares(out: Tensor) -> Tensor:
    """(H, W) mean square over the channels of a (1, C, H, W) map, float32."""
    return out.detach().float().square().mean(1)[0]
