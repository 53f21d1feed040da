"""A BoTNet that begins where its ResNet stands: attention that starts as the convolution it replaces.

Fresh attention in a trained ResNet destroys what stands behind it, because all of that reads noise. But
attention with relative positions can look at a window around each cell (Cordonnier et al., "On the
relationship between self-attention and convolutional layers", 2020), and over such a window one matrix of
values comes close to a trained 3x3 convolution:

- One dimension of the queries is made constant (a linear map of the inputs that is near 1), and the position
  tables hold a parabola in it: every head begins as a Gaussian window. Far cells keep exp(-FLOOR) of the
  nearest one's weight, so that gradients reach them.
- The values are the linear map of the window's average that comes closest to the convolution. From the taps
  alone ("taps") that is a weighted sum of them, if neighbouring cells are as correlated as in photos; from
  images ("fit") it is least squares with that sum as the prior, and the norm behind adapts to its mean and
  variance.

Both take closed forms: no step of training, no gradient. A fit holds the maps that reach the convolutions,
sums over their cells and a few copies of one batch; no map of attention weights. Shape legend: B batch, N
heads, C channels, D head width, L cells of a map, P cells behind the pool.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.attention.kernels import attend
from botvision.attention.layer import MHSA2d
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.probe import evaluating

WarmStart = Literal["fit", "taps", "zero", "new"]
WARM_STARTS: tuple[WarmStart, ...] = ("fit", "taps", "zero", "new")

# Chosen on ResNet-50's c5 with photos; results/warm_start.md varies them one at a time.
WINDOW = 0.85  # standard deviation of the first window, in cells of the convolution's own spacing
CORRELATION = 1.0  # distance in cells over which the correlation of neighbouring cells falls to 1/e
RANDOM_PART = 0.3  # of the paper's random queries, keys and tables that stays, so that heads can part
FLOOR = 6.0  # largest loss of a logit with distance, by axis
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # pull towards the taps, of the inputs' mean square; held-out cells choose
HELD_OUT = 8  # every eighth image measures instead of fitting; of fewer images the last one
MOST_IMAGES = 1024  # of what is given for a fit: more bring nothing but memory
_REACH = 6  # cells of a window that count, on either side


@dataclasses.dataclass(frozen=True)
class StartedBlock:
    """What became of one replaced convolution.

    Attributes:
        name: of the attention, such as "layer4.0.conv2".
        how: "taps" or "fit".
        error: mean square of what the attention's output misses of the convolution's, as a part of the
            latter's variance, on images that were not fitted to; None without images.
    """

    name: str
    how: WarmStart
    error: float | None = None

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.name} from the convolution's taps"
        return f"{self.name} fitted to the convolution, {100 * self.error:.0f} % of its variance missed"


def chosen_start(warm_start: WarmStart | None, images: object, trained: bool = True) -> WarmStart:
    """Return the way to begin: as asked for, else "fit" with images, "taps" of a trained network, or "new".

    Raises:
        ValueError: an unknown way, "fit" without images, or images that it has no use for.
    """
    if warm_start is None:
        return "fit" if images is not None else "taps" if trained else "new"
    if warm_start not in WARM_STARTS:
        raise ValueError(f"warm_start must be one of {', '.join(WARM_STARTS)}, got {warm_start!r}")
    if (images is None) == (warm_start == "fit"):
        needs = "needs images" if warm_start == "fit" else "takes no images, a fit does"
        raise ValueError(f"warm_start={warm_start!r} {needs}")
    return warm_start


def is_trained(network: nn.Module, names: Iterable[str]) -> bool:
    """Return whether the norms behind the named convolutions have seen data."""
    return any(_has_seen_data(getattr(_block(network, name), "bn2", None)) for name in names)


def _has_seen_data(norm: nn.Module | None) -> bool:
    """By the mean of a batch norm, or the scales of a norm without statistics."""
    mean, scale = (getattr(norm, name, None) for name in ("running_mean", "weight"))
    if isinstance(mean, Tensor):
        return not mean.is_meta and bool(mean.any())
    return isinstance(scale, Tensor) and not scale.is_meta and bool((scale != 1).any())


def start_as_convolutions(
    network: nn.Module,
    kernels: Mapping[str, Tensor],
    images: Iterable[Tensor] | None = None,
    *,
    run: Callable[[Tensor], object] | None = None,
) -> list[StartedBlock]:
    """Let attention begin as the convolutions that it replaced; in place.

    The norms of the replaced blocks have to be the ResNet's: what they know of the maps is used.

    Args:
        network: with `AttentionConv2d` where the convolutions were; classifier or backbone.
        kernels: weights (C, C/groups, k, k) of each convolution, by the name of the attention.
        images: batches (B, 3, H, W) as the network takes them; fits to what the convolutions make of them.
            None starts from the taps alone.
        run: what takes a batch of them; by default the network.

    Returns:
        What became of each, in the order of the network.

    Raises:
        ValueError: a kernel without attention of its width, or no images in `images`.
    """
    targets = {name: _target(network, name, kernel) for name, kernel in kernels.items()}
    recorded: dict[str, list[Tensor]] = {}
    if images is not None and targets:
        with _convolutions(network, targets) as recorded, evaluating(network), torch.no_grad():
            for batch in _tensors(images, next(network.parameters())):
                (run or network)(batch)
        if not any(recorded.values()):
            raise ValueError("a warm start by fit needs images, got none")
    found = []
    for name, target in targets.items():
        with torch.no_grad():
            if images is None:
                _norm_from_taps(target, _values_from_taps(target, None))
                found.append(StartedBlock(name, "taps"))
            else:
                found.append(StartedBlock(name, "fit", _fit(target, recorded.pop(name))))
    return found


def _tensors(images: Iterable[Any], like: Tensor) -> Iterator[Tensor]:
    """Batches on the device and in the dtype of a parameter; of pairs of images and labels the images."""
    count = 0
    for batch in images:
        x = batch[0] if isinstance(batch, list | tuple) else batch
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise ValueError(f"images for a fit must be (B, C, H, W) tensors, got {type(x).__name__}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("images for a fit must be finite numbers")
        yield x[: MOST_IMAGES - count].to(like.device, like.dtype)
        count += len(x)
        if count >= MOST_IMAGES:
            return


def zero_last_norms(network: nn.Module, names: Iterable[str]) -> None:
    """Make the blocks of the named attention layers begin as their shortcuts: the last norm gives 0."""
    blocks = {name: _block(network, name) for name in names}
    for name, block in blocks.items():
        if not (isinstance(block.bn3.weight, nn.Parameter) and block.bn3.weight.requires_grad):
            raise ValueError(f"warm_start='zero': the norm behind {name} is frozen and would stay at zero")
    for block in blocks.values():
        last = block.bn3
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class _Target(NamedTuple):
    """A replaced convolution and what stands around it."""

    attention: AttentionConv2d
    kernel: Tensor  # (C, C, k, k), groups written out, float32 on the attention's device
    before: nn.Module  # the norm whose activation the convolution read
    behind: nn.Module  # the norm of the convolution's output

    @property
    def spacing(self) -> int:
        """Cells between two taps."""
        return self.attention.spacing

    def convolve(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype)
        padding = self.spacing * (kernel.shape[-1] // 2)
        return F.conv2d(x, kernel, None, self.attention.stride, padding, self.spacing)

    @property
    def has_window(self) -> bool:
        """Whether the positions can express a window around the query."""
        return self.attention.attention.mode in ("relative", "position")

    @property
    def offset(self) -> float:
        """Cells from the query to the middle of its window: a pool of 2x2 shifts the map by half a cell."""
        return -0.5 if self.attention.stride == 2 else 0.0


def _target(network: nn.Module, name: str, kernel: Tensor) -> _Target:
    attention = network.get_submodule(name)
    if not isinstance(attention, AttentionConv2d):
        raise ValueError(f"{name} is a {type(attention).__name__}, expected attention")
    dim = attention.attention.dim
    dense = _without_groups(kernel.detach()).to(attention.attention.qkv.weight.device, torch.float32)
    if dense.ndim != 4 or dense.shape[:2] != (dim, dim) or dense.shape[2] != dense.shape[3]:
        raise ValueError(
            f"{name}: a kernel of {tuple(kernel.shape)} does not fit attention of {dim} channels"
        )
    block: Any = _block(network, name)
    return _Target(attention, dense, block.bn1, block.bn2)


def _without_groups(kernel: Tensor) -> Tensor:
    """(C, C, k, k) of a grouped kernel (C, C/groups, k, k): zeros between the groups."""
    if kernel.ndim != 4 or kernel.shape[0] == kernel.shape[1] or kernel.shape[0] % kernel.shape[1]:
        return kernel
    own = kernel.shape[1]
    dense = kernel.new_zeros(kernel.shape[0], kernel.shape[0], *kernel.shape[2:])
    for group in range(kernel.shape[0] // own):
        piece = slice(group * own, (group + 1) * own)
        dense[piece, piece] = kernel[piece]
    return dense


def _block(network: nn.Module, name: str) -> Any:  # noqa: ANN401  a bottleneck of timm or torchvision
    return network.get_submodule(name.rpartition(".")[0])


def _values_from_taps(target: _Target, cells: tuple[int, int] | None) -> Tensor:
    """Set queries, keys, tables and values from kernel and norm; returns the (C out, C in) values.

    `cells` is the (height, width) of the maps, where it is known: tables for fewer are stretched over them.
    """
    mean, variance = _activation_moments(target.before)
    weight = mean / variance  # the direction in which the inputs vary least, if channels are independent
    _open_window(target, weight / (weight @ mean).clamp(min=1e-6), cells)
    taps, _ = _share_of_taps(target)
    values = torch.einsum("oiyx,y,x->oi", target.kernel, taps, taps)
    _set_values(target.attention.attention, values)
    return values


def _norm_from_taps(target: _Target, values: Tensor) -> None:
    """Let the norm behind expect the output's mean and variance, as far as they follow from the norm before.

    What the window averages away is missing in the output: while training, a norm that did not know would
    blow up the rest.
    """
    norm: Any = target.behind
    if getattr(norm, "running_var", None) is None:
        return
    mean, variance = _activation_moments(target.before)
    _, spread = _share_of_taps(target)
    kept = spread**2 * (variance * values.square()).sum(1) / _kernel_variance(target.kernel, variance)
    kept = kept.clamp(0.05, 1.0)
    norm.running_mean.copy_(values @ mean)
    norm.running_var.mul_(kept)
    norm.weight.mul_(kept.sqrt())


def _open_window(target: _Target, constant: Tensor, cells: tuple[int, int] | None) -> None:
    """Give all heads the window; `constant` (C,) maps the inputs to about 1."""
    layer, window = target.attention.attention, WINDOW * target.spacing
    if not target.has_window:
        return
    queries, keys, _ = layer.qkv.weight.view(3, layer.heads, -1, layer.dim).unbind(0)
    queries *= RANDOM_PART
    keys *= RANDOM_PART / layer.key_init if layer.key_init else 0.0  # of the paper's size, as queries are
    queries[:, 0], keys[:, 0] = constant.to(queries) / layer.scale, 0.0
    assert layer.position is not None
    for table, side in zip((layer.position.height, layer.position.width), cells or (1, 1), strict=True):
        largest = (table.shape[0] - 1) / 2  # distance in cells, unless larger maps stretch the table
        distance = torch.arange(table.shape[0], device=table.device) - largest
        distance = distance * max(1.0, (side - 1) / max(largest, 1.0))
        logits = _logits_at(distance - target.offset, window)
        table *= RANDOM_PART
        # tables of the timm convention meet queries that are not scaled
        table[:, 0] = logits * (layer.scale if layer.convention == "timm" else 1.0)


def _logits_at(distance: Tensor, window: float) -> Tensor:
    return (-distance.square() / (2 * window**2)).clamp(min=-FLOOR)


def _set_values(layer: MHSA2d, values: Tensor) -> None:
    """Set the value projection to (C out, C in)."""
    layer.qkv.weight[-layer.dim :] = values[:, :, None, None].to(layer.qkv.weight)


def _activation_moments(norm: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Mean and variance (C,) of a rectified Gaussian whose mean and spread are the norm's shift and scale."""
    shift, scale = norm.bias.float(), norm.weight.float().abs().clamp(min=1e-6)
    ratio = shift / scale
    below = 0.5 * (1 + torch.erf(ratio / math.sqrt(2)))
    density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
    mean = shift * below + scale * density
    square = (shift.square() + scale.square()) * below + shift * scale * density
    return mean, (square - mean.square()).clamp(min=1e-6)


def _share_of_taps(target: _Target) -> tuple[Tensor, float]:
    """How much of each tap, by axis, the values take, and the variance of the window's average, by axis.

    With inputs whose covariance is the same at every cell and falls as exp(-distance) by axis, the best
    linear map of the window's average to the convolution's output is the sum of the taps, each times its
    covariance with the average over the average's variance: the covariance of channels cancels out.
    """
    size = target.kernel.shape[-1]
    places = torch.arange(-_REACH * target.spacing, _REACH * target.spacing + 1).float()
    correlation = torch.exp(-(places[:, None] - places).abs() / (CORRELATION * target.spacing))
    mode = target.attention.attention.mode

    def weights(query: float) -> Tensor:
        if target.has_window:
            return _logits_at(places - target.offset - query, WINDOW * target.spacing).softmax(0)
        return (places == query).float() if mode == "own" else torch.full_like(places, 1 / len(places))

    average = weights(0.0) if target.attention.stride == 1 else 0.5 * (weights(0.0) + weights(1.0))
    covariance = correlation @ average
    spread = float(average @ covariance)
    middle, reach = _REACH * target.spacing, target.spacing * (size // 2)
    taps = (covariance / spread)[middle - reach : middle + reach + 1 : target.spacing]
    return taps.to(target.kernel.device), spread


def _kernel_variance(kernel: Tensor, variance: Tensor) -> Tensor:
    """(C,) variance of the convolution's output, under the same assumptions as `_share_of_taps`."""
    places = torch.arange(kernel.shape[-1], device=kernel.device).float()
    correlation = torch.exp(-(places[:, None] - places).abs() / CORRELATION)
    smooth = torch.einsum("oiyx,yv,xw->oivw", kernel, correlation, correlation)
    return ((kernel * smooth).sum((2, 3)) * variance).sum(1).clamp(min=1e-12)


@contextmanager
def _convolutions(network: nn.Module, targets: Mapping[str, _Target]) -> Iterator[dict[str, list[Tensor]]]:
    """The ResNet again for a while; notes what reaches its convolutions."""
    recorded: dict[str, list[Tensor]] = {name: [] for name in targets}
    kept = {name: target.attention.forward for name, target in targets.items()}

    def convolution(name: str, target: _Target) -> Callable[..., Tensor]:
        def forward(x: Tensor, sizes: Tensor | None = None) -> Tensor:
            recorded[name].append(x)
            return target.convolve(x)

        return forward

    try:
        for name, target in targets.items():
            target.attention.forward = convolution(name, target)  # pyrefly: ignore[bad-assignment]
        yield recorded
    finally:
        for name in kept:
            del targets[name].attention.forward  # the class's own again


@dataclasses.dataclass
class Moments:
    """Sums over cells from which the least squares of one head, and its errors, follow; float64.

    Attributes:
        cells: number of cells.
        inputs: (C,) sum of what the head averages; `squares` (C, C) of their products.
        outputs: (D,) sum of the convolution's outputs, `output_squares` (D,) of their squares.
        products: (C, D) sum of the products of inputs and outputs.
    """

    cells: int
    inputs: Tensor
    squares: Tensor
    outputs: Tensor
    output_squares: Tensor
    products: Tensor

    @classmethod
    def of(cls, inputs: Tensor, outputs: Tensor) -> "Moments":
        """Return the sums of (P, C) inputs and (P, D) outputs."""
        inputs, outputs = inputs.float(), outputs.float()
        sums = inputs.sum(0), inputs.mT @ inputs, outputs.sum(0), outputs.square().sum(0), inputs.mT @ outputs
        return cls(len(inputs), *(part.double() for part in sums))

    def __add__(self, other: "Moments") -> "Moments":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Moments(*(a + b for a, b in pairs))

    def solve(self, prior: Tensor, ridge: float) -> Tensor:
        """Return the (C, D) least squares with a ridge towards the prior (C, D)."""
        pull = ridge * self.squares.diagonal().mean().clamp(min=1e-12)
        left = self.squares + pull * torch.eye(len(self.squares), device=prior.device, dtype=prior.dtype)
        return torch.cholesky_solve(self.products + pull * prior, torch.linalg.cholesky(left))

    def spread(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (D,) mean and variance of the head's output, and its covariance with the convolution's."""
        mean = values.mT @ (self.inputs / self.cells)
        square = (values * (self.squares @ values)).sum(0) / self.cells
        product = (values * self.products).sum(0) / self.cells
        return mean, square - mean.square(), product - mean * self.outputs / self.cells

    @property
    def variance(self) -> Tensor:
        """(D,) of the convolution's output."""
        return self.output_squares / self.cells - (self.outputs / self.cells).square()

    def missed(self, values: Tensor) -> Tensor:
        """Return the (D,) mean square of what is missed by the head's output, once means are made equal."""
        _, variance, covariance = self.spread(values)
        return self.variance - 2 * covariance + variance


def _fit(target: _Target, batches: list[Tensor]) -> float:
    """Least squares on the recorded inputs; returns the part of the variance missed on held-out images."""
    layer = target.attention.attention
    heights, widths = zip(*(batch.shape[-2:] for batch in batches), strict=True)
    _values_from_taps(target, (int(statistics.median(heights)), int(statistics.median(widths))))
    if target.has_window:
        _open_fitted_window(target, batches)
    prior = layer.qkv.weight[-layer.dim :, :, 0, 0].mT.double().chunk(layer.heads, 1)
    fitted, held_out = _moments(target, batches)
    single = sum(map(len, batches)) == 1  # nothing to measure on: the taps stay, the norm adapts
    missed, total, solved = 0.0, 0.0, []
    for own, others, start in zip(fitted, held_out, prior, strict=True):
        tried = [start] if single else [start, *(own.solve(start, ridge) for ridge in RIDGES)]
        values = min(tried, key=lambda values: float(others.missed(values).sum()))
        missed += float(others.missed(values).sum())
        total += float(others.variance.sum())
        solved.append(values)
    _set_values(layer, torch.cat(solved, 1).mT)
    _take_over_norm(target.behind, fitted, solved)
    return missed / max(total, 1e-12)


def _open_fitted_window(target: _Target, batches: list[Tensor]) -> None:
    """Make the constant by least squares: the linear map of the inputs that is nearest to 1 everywhere."""
    layer, total, squares = target.attention.attention, 0.0, 0.0
    for x in batches:
        cells = x.float().flatten(2).mT.flatten(0, 1)
        total, squares = total + cells.sum(0), squares + cells.mT @ cells
    assert isinstance(squares, Tensor)
    ridge = 1e-3 * squares.diagonal().mean() * torch.eye(layer.dim, device=squares.device)
    queries = layer.qkv.weight.view(3, layer.heads, -1, layer.dim)[0]
    queries[:, 0] = torch.linalg.solve(squares + ridge, total).to(queries) / layer.scale


def _moments(target: _Target, batches: list[Tensor]) -> tuple[list[Moments], list[Moments]]:
    """Of each head: on the images that are fitted to, and on those that are held out."""
    layer = target.attention.attention
    found: dict[tuple[bool, int], Moments] = {}
    number, period = 0, min(HELD_OUT, max(2, sum(map(len, batches))))
    for batch in batches:
        x = batch.to(layer.qkv.weight.dtype)
        held = torch.arange(number, number + len(x)) % period == period - 1
        number += len(x)
        q, k, _, terms = layer.project(x, None)
        inputs, outputs = x.flatten(2).mT.unsqueeze(1), target.convolve(x).chunk(layer.heads, 1)
        for head in range(layer.heads):
            one = slice(head, head + 1)
            average = attend(q[:, one], k[:, one], inputs, terms)[:, 0]  # the inputs in place of values
            average = target.attention.pool(average.mT.unflatten(2, x.shape[-2:]))
            for part in held.unique().tolist():
                pair = [each[held == part].flatten(2).mT.flatten(0, 1) for each in (average, outputs[head])]
                own, key = Moments.of(*pair), (part, head)
                found[key] = found[key] + own if key in found else own
    fitted = [found[False, head] for head in range(layer.heads)]
    return fitted, [found.get((True, head), own) for head, own in enumerate(fitted)]


def _take_over_norm(norm: Any, heads: list[Moments], values: list[Tensor]) -> None:  # noqa: ANN401
    """Let the norm make of the attention's output what the ResNet's made of the convolution's.

    Its scale also undoes what least squares shrank, and it expects the output's own mean and variance, so
    that it does the same with the statistics of a batch.
    """
    if getattr(norm, "running_var", None) is None:
        return
    ours = [moments.spread(own) for moments, own in zip(heads, values, strict=True)]
    mean, variance, covariance = (torch.cat(parts) for parts in zip(*ours, strict=True))
    convolved = torch.cat([moments.outputs / moments.cells for moments in heads])
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    slope = (covariance / variance.clamp(min=1e-12)).clamp(0.0, 4.0)
    norm.bias.add_((gain * (convolved - norm.running_mean)).to(norm.bias))
    norm.weight.copy_(gain * slope * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
