"""A ResNet becomes a BoTNet: the spatial convolutions of chosen blocks give way to attention.

Every other weight is the caller's, bit for bit, under its own name; but for the norms behind attention that
begins as its convolution, which adapt to what it gives.
"""

import copy
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor, nn

from botvision.attention.kernels import KernelName
from botvision.attention.layer import Convention, Position
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.probe import image_hw, meta_copy, probe_input
from botvision.backbones.warm_start import (
    StartedBlock,
    WarmStart,
    chosen_start,
    is_trained,
    start_as_convolutions,
    zero_last_norms,
)

M = TypeVar("M", bound=nn.Module)
Choice = tuple[bool | int, ...] | list[bool | int] | bool | None


@dataclasses.dataclass(frozen=True)
class Surgery:
    """What is replaced, and by which attention.

    Attributes:
        c5_blocks: which blocks of layer4 are replaced, e.g. [0, 1, 1]; None or True for all, False for none.
        c4_blocks: the same for layer3; None for none.
        c5_stride: stride of layer4: None keeps it, 1 makes a BoTNet-S1.
        img_size: (height, width) or side in pixels. Only sizes the position tables; any size runs.
        heads: attention heads.
        position: "relative", "absolute", "content" or "position" (the rows of the slides' table), or the
            controls without attention, "even" and "own"; see `MHSA2d`.
        convention: "paper", or "timm" for position logits that are not scaled.
        attn_drop: dropout on attention weights.
        key_init: size of the keys at the start; 1 is the paper's, see `MHSA2d`.
        kernel: attention kernel, "auto" chooses.
        shortcut_act: an activation on the projection shortcut of a replaced block, as the authors' code has
            it; ResNet (and so a warm start) has none.
        se: "all" leaves squeeze-excite where the ResNet has it, "conv" takes it out of the replaced blocks.
    """

    c5_blocks: Choice = None
    c4_blocks: Choice = False
    c5_stride: int | None = None
    img_size: int | tuple[int, int] = 224
    heads: int = 4
    position: Position = "relative"
    convention: Convention = "paper"
    attn_drop: float = 0.0
    key_init: float = 0.1
    kernel: KernelName = "auto"
    shortcut_act: bool = False
    se: Literal["all", "conv"] = "all"

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Surgery":
        """Return the surgery of keywords. Raises ValueError that names an unknown one."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r} of the surgery; there are {', '.join(known)}")
        return cls(**options)

    def __post_init__(self) -> None:
        """Refuse an impossible stride, size, squeeze-excite choice or argument of the attention."""
        if self.c5_stride not in (None, 1, 2):
            raise ValueError(f"c5_stride must be 1, 2 or None (as the ResNet has it), got {self.c5_stride!r}")
        if self.se not in ("all", "conv"):
            raise ValueError(f"se of the surgery must be 'all' or 'conv', got {self.se!r}")
        image_hw(self.img_size)
        if not isinstance(self.heads, int) or self.heads < 1:
            raise ValueError(f"heads must be a whole number above 0, got {self.heads!r}")
        if not isinstance(self.attn_drop, int | float):
            raise ValueError(f"attn_drop must be a number, got {self.attn_drop!r}")
        if not isinstance(self.key_init, int | float):
            raise ValueError(f"key_init must be a number, got {self.key_init!r}")
        self.attention(self.heads, (1, 1))  # the layer is the judge of its own arguments

    def attention(
        self, dim: int, grid: tuple[int, int], stride: int = 1, spacing: int = 1
    ) -> AttentionConv2d:
        """Return the layer for `dim` channels, with position tables for `grid`."""
        return AttentionConv2d(
            dim,
            stride=stride,
            spacing=spacing,
            heads=self.heads,
            grid=grid,
            position=self.position,
            convention=self.convention,
            dropout=self.attn_drop,
            key_init=self.key_init,
            kernel=self.kernel,
        )


@dataclasses.dataclass(frozen=True)
class SurgeryReport:
    """Parameter names and numbers of values, by what became of them.

    Attributes:
        kept: as they were, bit for bit.
        adapted: of norms: behind attention that began as a convolution, or at zero.
        new: of the attention.
        dropped: of the convolutions.
        started: how each attention began, where it took something over from its convolution.
    """

    kept: dict[str, int]
    adapted: dict[str, int]
    new: dict[str, int]
    dropped: dict[str, int]
    started: tuple[StartedBlock, ...] = ()

    def __str__(self) -> str:
        """Return a table of the tensors and values by what became of them; then how blocks began."""
        lines = [f"{'weights':<9}{'tensors':>8}{'values':>13}  where"]
        for kind in ("kept", "adapted", "new", "dropped"):
            names: dict[str, int] = getattr(self, kind)
            if kind == "adapted" and not names:
                continue
            places = ", ".join(sorted({_place(name) for name in names})) if kind != "kept" else "all others"
            lines.append(f"{kind:<9}{len(names):>8}{sum(names.values()):>13,}  {places if names else '-'}")
        return "\n".join([*lines, *(f"started  {block}" for block in self.started)])


@overload
def from_resnet(
    model: M,
    surgery: Surgery | None = None,
    *,
    return_report: Literal[True],
    **options: Any,  # noqa: ANN401
) -> tuple[M, SurgeryReport]: ...


@overload
def from_resnet(
    model: M,
    surgery: Surgery | None = None,
    *,
    return_report: Literal[False] = False,
    **options: Any,  # noqa: ANN401
) -> M: ...


def from_resnet(
    model: M,
    surgery: Surgery | None = None,
    *,
    warm_start: WarmStart | None = None,
    images: Iterable[Tensor] | None = None,
    inplace: bool = False,
    return_report: bool = False,
    **options: Any,
) -> M | tuple[M, SurgeryReport]:
    """Turn a bottleneck ResNet of timm or torchvision into a BoTNet; other weights are kept.

    By default all blocks of layer4 (c5) are replaced and its stride stays. The new layers take the device and
    dtype of the convolutions they replace. In a trained network they begin close to these convolutions, so
    that what the network knows is kept: see `botvision.backbones.warm_start`.

    Args:
        model: any network with layer3 and layer4 of bottleneck blocks (conv1, conv2, conv3): resnet50,
            resnet50d, wide and grouped ones, seresnet50, with or without anti-aliasing or dilation; timm's
            `features_only` form too.
        surgery: what to replace; or the same as keywords.
        warm_start: how the attention begins. "fit": as its convolution, by least squares on `images`. "taps":
            the same from the convolution's weights and the norms alone. "zero": new, with the last norm of
            each replaced block at zero, so that the block begins as its shortcut. "new": drawn anew.
            None: "fit" if there are images, else "taps" for a network whose norms have seen data, else "new".
        images: batches (B, 3, H, W) of any images as the network takes them, for "fit"; no labels. 64 images
            bring most of it, 256 nearly all.
        inplace: change `model` itself, whose other parameters stay the very same objects (an optimizer that
            holds them stays valid). By default the caller's model is left alone and a copy is changed.
        return_report: return (model, report).
        **options: fields of `Surgery`, e.g. c5_blocks=[0, 1, 1], c5_stride=1, img_size=1024.

    Returns:
        The BoTNet, with the report as its attribute `surgery_report`.

    Raises:
        ValueError: a network without bottleneck blocks, an unknown option, or one that does not fit.
    """
    if surgery is not None and options:
        raise ValueError("give the surgery as one object or as keywords, not both")
    surgery = surgery or Surgery.from_options(options)
    chosen = _chosen_blocks(model, surgery)
    if not inplace:
        model = copy.deepcopy(model)
    convolutions: dict[str, Any] = {f"{n}.conv2": model.get_submodule(f"{n}.conv2") for n in chosen}
    warm_start = chosen_start(warm_start, images, is_trained(model, convolutions))
    finer = surgery.c5_stride == 1 and _block_stride(model.get_submodule("layer4.0")) == 2
    spacings = {
        # where the stride is taken out, the map is twice as fine behind the first block
        name: conv.dilation[0] * (2 if finer and re.match(r"layer4\.[1-9]", name) else 1)
        for name, conv in convolutions.items()
    }
    before = {name: p.numel() for name, p in model.named_parameters()}
    grids = _conv2_grids(model, chosen, surgery)  # what can fail fails here, before the model is touched
    if surgery.c5_stride is not None:
        _set_stage_stride(model, surgery.c5_stride)
    for name in chosen:
        _replace(model.get_submodule(name), grids[name], surgery, spacings[f"{name}.conv2"])
    started: list[StartedBlock] = []
    if warm_start in ("fit", "taps"):
        kernels = {name: conv.weight for name, conv in convolutions.items()}
        started = start_as_convolutions(model, kernels, images)
    elif warm_start == "zero":
        zero_last_norms(model, convolutions)
    after = {name: p.numel() for name, p in model.named_parameters()}
    norms = tuple(f"{block.name.removesuffix('conv2')}bn2." for block in started)
    norms += tuple(f"{name}.bn3." for name in chosen) if warm_start == "zero" else ()
    adapted = {name: n for name, n in after.items() if name in before and name.startswith(norms)}
    kept = {name: n for name, n in after.items() if name in before and not _is_new(name, chosen)}
    report = SurgeryReport(
        kept={name: n for name, n in kept.items() if name not in adapted},
        adapted=adapted,
        new={name: n for name, n in after.items() if _is_new(name, chosen)},
        dropped={name: n for name, n in before.items() if name not in after or _is_new(name, chosen)},
        started=tuple(started),
    )
    model.surgery_report = report  # pyrefly: ignore[bad-argument-type]
    return (model, report) if return_report else model


def _is_new(name: str, chosen: list[str]) -> bool:
    return any(name.startswith(f"{block}.conv2.") for block in chosen)


def _place(name: str) -> str:
    """`layer4.0.conv2` of a parameter's name."""
    return ".".join(name.split(".")[:3])


def _chosen_blocks(model: nn.Module, surgery: Surgery) -> list[str]:
    """Names of the blocks to replace, checked. Raises ValueError."""
    names: list[str] = []
    for layer, key, choice in (
        ("layer3", "c4_blocks", surgery.c4_blocks),
        ("layer4", "c5_blocks", surgery.c5_blocks),
    ):
        blocks = getattr(model, layer, None)
        if not isinstance(blocks, nn.Sequential) or len(blocks) == 0:
            raise ValueError(
                f"{type(model).__name__} has no {layer} of bottleneck blocks; a ResNet-50-like is needed"
            )
        if choice is None or isinstance(choice, bool):
            flags: list[bool | int] = [choice is True or (choice is None and layer == "layer4")] * len(blocks)
        else:
            flags = list(choice)
        if len(flags) != len(blocks) or not all(flag in (0, 1) for flag in flags):
            raise ValueError(
                f"{key} needs {len(blocks)} entries of 0 or 1, one for each block of {layer}, got {choice}"
            )
        names += [f"{layer}.{index}" for index, flag in enumerate(flags) if flag]
    for name in names:
        _check_block(model.get_submodule(name), name, surgery)
    return names


def _check_block(block: nn.Module, name: str, surgery: Surgery) -> None:
    """Raises ValueError if attention cannot stand in for the block's conv2."""
    kind = type(block).__name__
    conv = getattr(block, "conv2", None)
    if not isinstance(getattr(block, "conv3", None), nn.Module) or conv is None:
        raise ValueError(
            f"{name} is a {kind} without conv1, conv2, conv3; only bottleneck blocks can be replaced"
        )
    if isinstance(conv, AttentionConv2d):
        raise ValueError(f"{name}.conv2 is attention already")
    if not isinstance(conv, nn.Conv2d) or conv.kernel_size == (1, 1):
        raise ValueError(f"{name}.conv2 is a {type(conv).__name__}, expected a spatial convolution")
    if conv.in_channels != conv.out_channels:
        raise ValueError(
            f"{name}.conv2 maps {conv.in_channels} to {conv.out_channels} channels; attention keeps the width"
        )
    if conv.in_channels % surgery.heads:
        raise ValueError(f"{name} has {conv.in_channels} channels, which {surgery.heads} heads do not divide")
    if surgery.shortcut_act and _activation(block) is None:
        raise ValueError(f"{name} has no act3 or relu to copy for shortcut_act")
    if max(conv.stride) > 2:
        raise ValueError(f"{name}.conv2 has stride {conv.stride}, expected 1 or 2")


def _set_stage_stride(model: nn.Module, stride: int) -> None:
    """Set the stride of layer4: of its first block, of the shortcut, and in timm's `feature_info`."""
    first = model.get_submodule("layer4.0")
    current = _block_stride(first)
    if current == stride:
        return
    if current < stride:
        raise ValueError(f"c5_stride={stride}, but layer4 of this network has stride {current}")
    conv = first.get_submodule("conv2")
    if isinstance(conv, nn.Conv2d):
        conv.stride = (1, 1)
    if isinstance(getattr(first, "aa", None), nn.Module):
        first.aa = nn.Identity()
    if hasattr(first, "stride"):
        first.stride = 1  # pyrefly: ignore[bad-argument-type]
    shortcut = getattr(first, "downsample", None)
    if isinstance(shortcut, nn.Sequential):
        for index, module in enumerate(shortcut):
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
            elif isinstance(module, nn.AvgPool2d):
                shortcut[index] = nn.Identity()
    info: Any = getattr(model, "feature_info", None)
    for row in getattr(info, "info", info) or ():
        if row["module"] == "layer4":
            row["reduction"] //= current


def _block_stride(block: nn.Module) -> int:
    """Stride of a bottleneck: of its conv2, or of the anti-aliasing that follows."""
    conv = block.get_submodule("conv2")
    blur = getattr(block, "aa", None)
    own = getattr(conv, "stride", 1)
    own = own[0] if isinstance(own, tuple) else own
    following = getattr(blur, "stride", 1) if isinstance(blur, nn.Module) else 1
    return own * (following[0] if isinstance(following, tuple) else following)


def _conv2_grids(model: nn.Module, chosen: list[str], surgery: Surgery) -> dict[str, tuple[int, int]]:
    """(height, width) in cells of the map that reaches each chosen conv2, by a run on shapes."""
    shapes = meta_copy(model)
    if surgery.c5_stride is not None:
        _set_stage_stride(shapes, surgery.c5_stride)
    grids: dict[str, tuple[int, int]] = {}

    def note(name: str, x: Tensor) -> None:
        grids[name] = (x.shape[-2], x.shape[-1])

    for name in chosen:
        conv = shapes.get_submodule(f"{name}.conv2")
        conv.register_forward_pre_hook(lambda _module, args, name=name: note(name, args[0]))
    with torch.no_grad():
        shapes(probe_input(shapes, image_hw(surgery.img_size)))
    return grids


def _replace(block: Any, grid: tuple[int, int], surgery: Surgery, spacing: int) -> None:  # noqa: ANN401
    conv = block.conv2
    attention = surgery.attention(conv.in_channels, grid, conv.stride[0], spacing)
    block.conv2 = attention.to(conv.weight.device, conv.weight.dtype).train(conv.training)
    if surgery.se == "conv" and getattr(block, "se", None) is not None:
        block.se = None
    activation = _activation(block)
    if surgery.shortcut_act and activation is not None and isinstance(block.downsample, nn.Sequential):
        block.downsample = nn.Sequential(*block.downsample, copy.deepcopy(activation))


def _activation(block: nn.Module) -> nn.Module | None:
    """The activation at the end of a bottleneck, by timm's name or torchvision's."""
    return getattr(block, "act3", None) or getattr(block, "relu", None)
