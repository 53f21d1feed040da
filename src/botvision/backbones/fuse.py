"""Batch norm fused into the convolutions before it, for inference.

In evaluation batch norm multiplies each channel by a constant and adds another, which the convolution's
weights can do at no cost. On a CPU that takes off a fifth of a ResNet's time, and the memory of a map for
every norm.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from timm.layers.norm_act import BatchNormAct2d, FrozenBatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from botvision.backbones.probe import meta_copy, probe_input

M = TypeVar("M", bound=nn.Module)
# Exactly these: a subclass may compute something else.
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct, FrozenBatchNormAct2d)


def fold_batch_norm(model: M, example: Any = None, *, inplace: bool = False) -> M:  # noqa: ANN401
    """Return the same function without the batch norms that directly follow convolutions, in eval mode.

    Which these are is found by a run on shapes: the norm must be the only one that takes what the
    convolution gives. Frozen norms count, too. Outputs are equal up to rounding. All other layers stay, and
    so do names, device and dtype; an activation that a norm of timm's carries takes the norm's place. Hooks
    of convolutions stay and see the normalised map, those of norms go. The result is for inference: its
    state dict has other entries, and training would go on without the norms.

    Args:
        model: any network in which convolutions (`nn.Conv2d`) and batch norms alternate: ours, timm's,
            torchvision's, or a part of one.
        example: what `model` is called with, as meta tensors in dicts, lists or tuples; default: a
            (1, C, 64, 64) image.
        inplace: change `model` itself; by default a copy is changed.

    Raises:
        ValueError: the model does not run on the example.
    """
    if not inplace:
        model = copy.deepcopy(model)
    model.eval()
    if not any(_is_norm(module) for module in model.modules()):
        return model
    pairs = _pairs(model, example)
    for conv, norm in pairs.items():
        _fuse(model.get_submodule(conv), model.get_submodule(norm))
    rests = {id(norm): _rest(norm) for norm in map(model.get_submodule, pairs.values())}
    for name, module in list(model.named_modules(remove_duplicate=False)):  # a norm may have several names
        if id(module) in rests:
            model.set_submodule(name, rests[id(module)])
    return model


class _Watch(TorchFunctionMode):
    """Notes who takes what each convolution gives: a norm by its name, None for all else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.takers: dict[str, set[str | None]] = {}
        self.sources: dict[str, set[str | None]] = {}  # by norm: convolutions, None for all else
        self._made: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept so that no id occurs twice
        self._inside: str | None = None
        for name, module in network.named_modules():
            if type(module) is nn.Conv2d:
                module.register_forward_hook(lambda _m, _args, out, name=name: self._give(name, out))
            elif _is_norm(module):
                module.register_forward_pre_hook(lambda _m, args, name=name: self._enter(name, args))
                module.register_forward_hook(lambda *_: self._leave())

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if any(True for _ in _tensors(out)):  # else it asks for a shape or the like
            self.take((args, kwargs))
        return out

    def take(self, values: Any) -> None:  # noqa: ANN401
        """Note that somebody uses these tensors, in any structure."""
        for tensor in _tensors(values):
            if id(tensor) in self._made:
                self.takers[self._made[id(tensor)][0]].add(self._inside)

    def _give(self, name: str, out: Tensor) -> None:
        self.takers.setdefault(name, set())
        self._made[id(out)] = (name, out)

    def _enter(self, name: str, args: tuple[Any, ...]) -> None:
        self._inside = name
        source = self._made[id(args[0])][0] if args and id(args[0]) in self._made else None
        self.sources.setdefault(name, set()).add(source)

    def _leave(self) -> None:
        self._inside = None


def _tensors(values: Any) -> Iterator[Tensor]:  # noqa: ANN401
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def _pairs(model: nn.Module, example: Any) -> dict[str, str]:  # noqa: ANN401
    """Names of the convolutions that a norm alone follows, with the norm's."""
    shapes = meta_copy(model)
    example = probe_input(shapes, (64, 64)) if example is None else example
    watch = _Watch(shapes)
    try:
        with torch.no_grad(), watch:
            out = shapes(example)
    except Exception as error:  # networks fail on shapes in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{type(model).__name__} does not run on the example: {reason}") from None
    watch.take(out)
    uses = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    follows = {
        conv: next(iter(takers))
        for conv, takers in watch.takers.items()
        if len(takers) == 1 and uses[id(model.get_submodule(conv).weight)] == 1
    }
    return {
        conv: norm
        for conv, norm in follows.items()
        if norm is not None and all(follows.get(source or "") == norm for source in watch.sources[norm])
    }


def _is_norm(module: nn.Module) -> bool:
    known = type(module) in NORMS or type(module).__name__ == "FrozenBatchNorm2d"  # of torchvision
    return known and isinstance(getattr(module, "running_mean", None), Tensor)


@torch.no_grad()
def _fuse(conv: Any, norm: Any) -> None:  # noqa: ANN401
    """Scale the filters, and let the bias be the shift; in float32 at least."""
    wide = torch.promote_types(conv.weight.dtype, torch.float32)
    scale = (norm.running_var.to(wide) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.to(wide)
    mean = norm.running_mean.to(wide) if conv.bias is None else norm.running_mean.to(wide) - conv.bias
    shift = -mean * scale if norm.bias is None else norm.bias.to(wide) - mean * scale
    conv.weight.copy_(conv.weight.to(wide) * scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)


def _rest(norm: nn.Module) -> nn.Module:
    """What a norm of timm's does besides: drop and activation."""
    parts = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    busy = [part for part in parts if not isinstance(part, nn.Identity)]
    return nn.Identity() if not busy else busy[0] if len(busy) == 1 else nn.Sequential(*busy)
