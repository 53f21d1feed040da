"""What the attention of a network looks at: the weights of chosen queries, and how far heads look.

Weights come from the definition (`attend_reference`), from the very maps that reach the layers in a forward
pass; the layers themselves run as always. Shape legend: Q queries asked for, N heads, H W cells of the image.
"""

import math
import operator
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from botvision.attention import MHSA2d, attend_reference
from botvision.attention.ablation import block_names, counted, find_attention
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.probe import evaluating
from botvision.data.sources import to_tensor
from botvision.data.transforms import normalise, resize_and_crop
from botvision.inference.predictor import ImageLike, Predictor, to_rgb
from botvision.inference.view import Hw, View
from botvision.plots.attention import DistanceRow, MapRow, PositionRow

if TYPE_CHECKING:  # it needs hotcoco, and attention of a network does not
    from botvision.inference.detector import DetectionPredictor

SPREAD = (0.1, 0.9)  # of the queries' distances, as quantiles
# What a block's residual branch may end with, in the order in which the block calls those that it has: the
# names of timm's and torchvision's bottleneck blocks, also after batch norms were merged into convolutions.
BRANCH_ENDS = ("bn3", "se", "drop_path")


@dataclass(frozen=True)
class BlockAttention:
    """The attention of one block in one image; float32 on the CPU.

    Attributes:
        name: of the block, such as "layer4.0".
        position: "relative", "absolute", "position" (relative without content) or "content".
        stride: pixels of the network's input for a cell. In a strided block attention comes before the pool.
        grid: (H, W) cells of the image.
        cells: (row, column) of each query asked for.
        weights: (Q, N, H, W), what each of them attends to; each map sums to 1.
        distance: (N, H, W) mean distance, in cells, at which the query at each cell looks.
        entropy: (N, H, W) entropy in bits of the weights of the query at each cell.
        offsets: position logits of the mean query, at every row of the layer's own tables: (N, 2H'-1, 2W'-1)
            by the relative offset key - query, or (N, H', W') by the key's place; None without position.
        branch_ratio: root mean square of what the block's residual branch adds, divided by that of the
            shortcut it is added to, over all channels and the image's cells. None where the layer is in no
            bottleneck block, or the shortcut is zero.
    """

    name: str
    position: str
    stride: int
    grid: Hw
    cells: tuple[Hw, ...]
    weights: Tensor
    distance: Tensor
    entropy: Tensor
    offsets: Tensor | None
    branch_ratio: float | None = None

    @property
    def heads(self) -> int:
        """Return the number N of heads."""
        return self.distance.shape[0]

    @property
    def uniform_distance(self) -> float:
        """Return the mean distance in cells of a head that attends to all cells alike."""
        return float(_distances(torch.full((*self.grid, *self.grid), 1 / math.prod(self.grid))).mean())

    @property
    def uniform_entropy(self) -> float:
        """Return the entropy in bits of such a head: the largest there is."""
        return math.log2(math.prod(self.grid))


@dataclass(frozen=True)
class ImageAttention:
    """The attention of all blocks in one image.

    Attributes:
        view: where cells lie in the image.
        at: (y, x) of each query's pixel in the image.
        blocks: in the order in which they run.
    """

    view: View
    at: tuple[Hw, ...]
    blocks: tuple[BlockAttention, ...]


def attention_maps(
    model: "nn.Module | Predictor | DetectionPredictor",
    image: Tensor | ImageLike,
    at: Sequence[Hw] | None = None,
) -> ImageAttention:
    """Return what the attention of a network looks at in an image.

    Memory is that of a few (H*W, H*W) maps in float32: one head of one block at a time.

    Args:
        model: a predictor, which prepares images as for a prediction; or a network, a classifier or backbone
            as well as a detector of `mask_rcnn`. Networks are left in the mode they are in, and run in eval.
        image: for a predictor a path, a PIL image or a uint8 array, as its `predict` takes them; for a
            network a (3, H, W) tensor, of a classifier float and normalised.
        at: (y, x) of the queries' pixels in the image; by default the middle of what the network sees.

    Raises:
        ValueError: no attention in the network, an image of another kind, or pixels that are no pairs of
            whole numbers, or outside the image.
    """
    asked = None if at is None else _pixels(at)
    network: Any = model if isinstance(model, nn.Module) else model.model
    find_attention(network)
    if isinstance(model, nn.Module):
        if not isinstance(image, Tensor) or image.ndim != 3:
            raise ValueError("a network takes a (C, H, W) tensor; a predictor takes files and pictures")
        if not (image.is_floating_point() or isinstance(model, GeneralizedRCNN)):
            raise ValueError(f"a classifier or backbone takes a normalised float tensor, got {image.dtype}")
        pixels = image
    else:
        if isinstance(image, Tensor):
            raise ValueError("a predictor takes files, pictures and arrays; a network takes a tensor")
        pixels = to_tensor(to_rgb(image))
    size = (pixels.shape[-2], pixels.shape[-1])
    view = View.whole(size)
    if isinstance(model, Predictor):
        view = View.cropped(size, model.image_size, model.crop)
        pixels = normalise(resize_and_crop(pixels, model.image_size, model.crop), model.mean, model.std)
    for point in asked or ():  # before the network runs: with a stride of 1 it is known whether it sees them
        view.cell(point, 1)
    with torch.no_grad(), evaluating(network), ExitStack() as hooks:
        seen, squares = _watch_layers(network, hooks), _watch_branches(network, hooks)
        if isinstance(network, GeneralizedRCNN):
            transform: Any = network.transform
            batch, _ = transform([pixels.to(_device_of(network))])
            network.backbone(batch.tensors, batch.image_sizes)
            view = View.fitted(size, batch.image_sizes[0], (batch.tensors.shape[-2], batch.tensors.shape[-1]))
        else:
            network(pixels[None].to(_device_of(network)))
        points = (view.middle,) if asked is None else asked
        names = block_names([name for name, *_ in seen])
        blocks = [
            replace(_look(name, layer, x, sizes, (view, points)), branch_ratio=_ratio(place, squares, view))
            for name, (place, layer, x, sizes) in zip(names, seen, strict=True)
        ]
    return ImageAttention(view, points, tuple(blocks))


def _pixels(at: Sequence[Hw]) -> tuple[Hw, ...]:
    try:
        points = [tuple(operator.index(place) for place in point) for point in at]
    except TypeError:
        points = []
    if not points or any(len(point) != 2 for point in points):
        got = " ".join(repr(at).split())
        raise ValueError(f"at: expected pixels (y, x) in a list, such as [(120, 85)], got {got}")
    return tuple((y, x) for y, x in points)


@dataclass(frozen=True)
class Choice:
    """Which maps are drawn: numbers from 1; None for all."""

    block: int | None = None
    head: int | None = None

    def check(self, blocks: Sequence[int]) -> None:
        """Raise ValueError for numbers beyond `blocks`, the number of heads of each block."""
        if self.block is not None and not 1 <= self.block <= len(blocks):
            raise ValueError(
                f"block {self.block}: the network has attention in {counted('block', len(blocks))}"
            )
        wanted = blocks if self.block is None else blocks[self.block - 1 : self.block]
        if self.head is not None and not 1 <= self.head <= min(wanted):
            raise ValueError(f"head {self.head}: the attention has {counted('head', min(wanted))}")


def map_rows(found: ImageAttention, query: int = 0, choice: Choice | None = None) -> list[MapRow]:
    """Return what `maps_figure` draws of one query, a row for each block."""
    choice = choice or Choice()
    rows = []
    for number, block in enumerate(found.blocks, 1):
        if choice.block not in (None, number):
            continue
        heads = range(block.heads) if choice.head is None else [choice.head - 1]
        maps = [block.weights[query, head].numpy() for head in heads]
        names = [f"head {head + 1}" for head in heads]
        if len(maps) > 1:
            maps.append(np.mean(maps, axis=0))
            names.append("mean")
        rows.append(
            MapRow(
                title=block.name,
                maps=np.stack(maps),
                names=names,
                edges=found.view.edges(block.stride),
                query=found.view.box(block.cells[query], block.stride),
                at=found.at[query],
            )
        )
    return rows


def distance_rows(images: Sequence[ImageAttention]) -> list[DistanceRow]:
    """Return what `distance_figure` draws: the mean over images, each of which counts the same."""
    rows = []
    for blocks in zip(*(found.blocks for found in images), strict=True):
        flat = [block.distance.flatten(1).numpy() for block in blocks]
        low, high = (np.mean([np.quantile(each, part, axis=1) for each in flat], axis=0) for part in SPREAD)
        rows.append(
            DistanceRow(
                title=blocks[0].name,
                mean=np.mean([each.mean(1) for each in flat], axis=0),
                low=low,
                high=high,
                uniform=float(np.mean([block.uniform_distance for block in blocks])),
                stride=blocks[0].stride,
            )
        )
    return rows


def position_rows(images: Sequence[ImageAttention]) -> list[PositionRow]:
    """Return what `position_figure` draws: of the mean query of all images, for blocks with position."""
    rows = []
    for blocks in zip(*(found.blocks for found in images), strict=True):
        logits = [block.offsets.numpy() for block in blocks if block.offsets is not None]
        if logits:
            relative = blocks[0].position != "absolute"
            rows.append(PositionRow(blocks[0].name, np.mean(logits, axis=0), relative))
    return rows


def position_logits(layer: MHSA2d, query: Tensor) -> Tensor | None:
    """Return what the position tables of a layer add to the logits of queries, at every row of the tables.

    Args:
        layer: with tables for H' x W' cells.
        query: (N, D) float32, a query of each head, already scaled.

    Returns:
        (N, 2H'-1, 2W'-1) by the relative offset key - query, or (N, H', W') by the key's place; None where
        there are no tables.
    """
    if layer.position is None:
        return None
    rows = layer.position(layer.position.grid).to(query.dtype)
    if layer.convention == "timm":
        rows = rows.scaled(1 / layer.scale)
    return (query @ rows.height[0].mT).unsqueeze(2) + (query @ rows.width[0].mT).unsqueeze(1)


def _watch_layers(network: nn.Module, hooks: ExitStack) -> list[tuple[str, MHSA2d, Tensor, Tensor | None]]:
    """Note what reaches every attention layer: its name, itself, the map and the valid sizes."""
    seen: list[tuple[str, MHSA2d, Tensor, Tensor | None]] = []
    for name, layer in find_attention(network).items():

        def note(module: MHSA2d, args: tuple, kwargs: dict, _: Tensor, name: str = name) -> None:
            given = dict(zip(("x", "sizes"), args, strict=False)) | kwargs
            seen.append((name, module, given["x"], given.get("sizes")))

        hooks.enter_context(layer.register_forward_hook(note, with_kwargs=True))  # pyrefly: ignore
    return seen


Squares = dict[str, dict[str, Tensor]]
"""(H, W) mean squares over channels of each block's "branch" and "shortcut"."""


def _watch_branches(network: nn.Module, hooks: ExitStack) -> Squares:
    """Note how large branch and shortcut are of all bottleneck blocks with attention.

    A block computes relu(branch + shortcut); the shortcut is its input, or what `downsample` makes of it.
    """
    found: Squares = {}
    for name, block in network.named_modules():
        if not (isinstance(getattr(block, "conv2", None), AttentionConv2d) and hasattr(block, "bn3")):
            continue

        def note(part: str, out: Tensor, name: str = name) -> None:
            # at once: a block adds the shortcut to the branch in place; the last one of a block counts
            found.setdefault(name, {})[part] = out.detach().float().square().mean(1)[0]

        for end in BRANCH_ENDS:
            if isinstance(module := getattr(block, end, None), nn.Module):
                hook = module.register_forward_hook(lambda _m, _a, out, note=note: note("branch", out))
                hooks.enter_context(hook)
        shortcut = getattr(block, "downsample", None)
        hooks.enter_context(
            shortcut.register_forward_hook(lambda _m, _a, out, note=note: note("shortcut", out))
            if isinstance(shortcut, nn.Module)
            else block.register_forward_pre_hook(lambda _m, args, note=note: note("shortcut", args[0]))
        )
    return found


def _ratio(layer: str, squares: Squares, view: View) -> float | None:
    """Root mean square of the branch around a layer divided by that of the shortcut, in the image's cells."""
    block = next((name for name in squares if layer.startswith(f"{name}.")), None)
    if block is None:
        return None
    sums = []
    for part in ("branch", "shortcut"):
        grid = squares[block][part]
        height, width = view.cells(view.stride((grid.shape[0], grid.shape[1])))
        sums.append(float(grid[:height, :width].sum()))
    return math.sqrt(sums[0] / sums[1]) if sums[1] > 0 else None


def _look(
    name: str, layer: MHSA2d, x: Tensor, sizes: Tensor | None, asked: tuple[View, Sequence[Hw]]
) -> BlockAttention:
    view, points = asked
    stride = view.stride((x.shape[-2], x.shape[-1]))
    height, width = view.cells(stride)
    cells = tuple(view.cell(point, stride) for point in points)
    q, k, v, terms = layer.project(x, sizes)
    if q.dtype in (torch.float16, torch.bfloat16):  # rounded to these, weights no longer sum to 1
        position = None if terms.position is None else terms.position.to(torch.float32)
        q, k, v, terms = q.float(), k.float(), v.float(), terms._replace(position=position)
    weights, distance, entropy = [], [], []
    for n in range(layer.heads):  # one at a time: a head's map of 64x64 cells takes 64 MB
        full = attend_reference(q[:, n : n + 1], k[:, n : n + 1], v[:, n : n + 1], terms)[1][0, 0].float()
        own = full.unflatten(0, terms.grid).unflatten(-1, terms.grid)[:height, :width, :height, :width]
        weights.append(torch.stack([own[row, column] for row, column in cells]))
        distance.append(_distances(own))
        entropy.append(torch.special.entr(own).sum((-1, -2)) / math.log(2))
    mean = q[0].unflatten(1, terms.grid)[:, :height, :width].float().mean((1, 2))
    offsets = position_logits(layer, mean)
    return BlockAttention(
        name=name,
        position=layer.mode,
        stride=stride,
        grid=(height, width),
        cells=cells,
        weights=torch.stack(weights, 1).cpu(),
        distance=torch.stack(distance).cpu(),
        entropy=torch.stack(entropy).cpu(),
        offsets=None if offsets is None else offsets.float().cpu(),
    )


def _distances(weights: Tensor) -> Tensor:
    """(Y, X) mean distance in cells of each query, from (Y, X, H, W) weights."""
    rows, columns = (torch.arange(n, device=weights.device, dtype=weights.dtype) for n in weights.shape[2:])
    across = (columns[None] - columns[:, None])[:, None].square()  # X 1 W
    # a row of queries at a time: all distances at once would be another map of the size of the weights
    return torch.stack(
        [
            (row * ((rows - y).square()[:, None] + across).sqrt()).sum((-1, -2))
            for y, row in enumerate(weights)
        ]
    )


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
