"""Weights in and out: timm's attention layers, warm starts with a report, folders that rebuild a model."""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from timm.layers.bottleneck_attn import BottleneckAttn
from torch import Tensor, nn

from botvision.attention.layer import Convention
from botvision.attention.position import PositionTables
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.classes import ClassNames, match_classes
from botvision.backbones.models import create_model
from botvision.backbones.stored import read_description, read_weights, size_of
from botvision.backbones.warm_start import (
    StartedBlock,
    WarmStart,
    chosen_start,
    start_as_convolutions,
    zero_last_norms,
)
from botvision.io.errors import text_of
from botvision.io.files import replacing, write_text

M = TypeVar("M", bound=nn.Module)
WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file and of a model, by name.

    Attributes:
        kept: loaded as they are.
        reshaped: position tables that were made for another grid; loaded, the model took over the grid.
        missing: in the model but not in the file; left as they were.
        unexpected: in the file but not in the model; not used.
        mismatched: in both with other shapes or for other classes; left as they were.
        started: attention that began as the convolution which the file has in its place.
        adapted: loaded, then changed: norms behind such attention, or of a start at zero; layers of classes
            of which some are others, or in another order.
        classes: a line on classes that are not called as the model's are.
    """

    kept: list[str]
    reshaped: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    started: list[StartedBlock] = dataclasses.field(default_factory=list)
    adapted: list[str] = dataclasses.field(default_factory=list)
    classes: str = ""

    @property
    def complete(self) -> bool:
        """Whether the model now holds exactly what the file holds."""
        return not (self.missing or self.unexpected or self.mismatched or self.started or self.adapted)

    def __str__(self) -> str:
        lines = []
        for kind in ("kept", "reshaped", "missing", "unexpected", "mismatched", "adapted"):
            names: list[str] = getattr(self, kind)
            if kind == "adapted" and not names:
                continue
            shown = (
                "" if kind == "kept" else "  " + ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            )
            lines.append(f"{kind:<11}{len(names):>6}{shown}".rstrip())
        if self.started:
            lines.append(f"{'started':<11}{len(self.started):>6}  {self.started[0]}")
            lines += [f"{'':<19}{block}" for block in self.started[1:]]
        lines += [self.classes] if self.classes else []
        return "\n".join(lines)


def from_timm_attention(layer: BottleneckAttn, convention: Convention = "timm") -> AttentionConv2d:
    """Return timm's attention layer as ours: the same function of the same weights, at any size.

    timm does not scale the position logits by D^-0.5, the paper does. With convention "timm" the tables are
    copied; with "paper" they are multiplied by D^0.5, which gives equal outputs too.

    Raises:
        ValueError: query and value widths that differ, or a bias on the projection: no MHSA2d has these.
    """
    if layer.dim_out_qk != layer.dim_out_v or layer.qkv.in_channels != layer.dim_out_v:
        raise ValueError(
            f"timm attention of {layer.qkv.in_channels} to {layer.dim_out_v} channels with queries of width "
            f"{layer.dim_out_qk}: the three must be equal"
        )
    if layer.qkv.bias is not None:
        raise ValueError("timm attention with a bias on its projection (qkv_bias=True) cannot be imported")
    tables = layer.pos_embed
    theirs = "paper" if layer.scale_pos_embed else "timm"
    factor = {("timm", "paper"): layer.scale**-1, ("paper", "timm"): layer.scale}.get(
        (theirs, convention), 1.0
    )
    ours = AttentionConv2d(
        layer.dim_out_v,
        stride=2 if isinstance(layer.pool, nn.AvgPool2d) else 1,
        heads=layer.num_heads,
        grid=(tables.height, tables.width),
        convention=convention,
    )
    state = {
        "attention.qkv.weight": layer.qkv.weight.detach(),
        "attention.position.height": tables.height_rel.detach() * factor,
        "attention.position.width": tables.width_rel.detach() * factor,
    }
    ours.load_state_dict(state)
    return ours.to(layer.qkv.weight.device, layer.qkv.weight.dtype).train(layer.training)


def from_timm_botnet(model: M, convention: Convention = "timm") -> M:
    """Return a copy of a timm model (botnet26t_256, botnet50ts_256, ...) whose attention layers are ours.

    The outputs are the same at the size it was made for, and it then runs at any other.

    Raises:
        ValueError: the model has no BottleneckAttn layer, or one that cannot be imported.
    """
    model = copy.deepcopy(model)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, BottleneckAttn)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BottleneckAttn layer of timm")
    for name, layer in layers.items():
        model.set_submodule(name, from_timm_attention(layer, convention))
    config: Any = getattr(model, "pretrained_cfg", None)
    if isinstance(config, dict):
        model.pretrained_cfg = config | {"fixed_input_size": False}  # pyrefly: ignore[bad-argument-type]
    return model


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    strict: bool = False,
    *,
    warm_start: WarmStart | None = None,
    images: Iterable[Tensor] | None = None,
    run: Callable[[Tensor], object] | None = None,
    classes: ClassNames | None = None,
) -> LoadReport:
    """Load the tensors of a safetensors file (or a state dict) that fit, and report the rest.

    Where a trained source has a convolution and the model attention, the attention begins close to that
    convolution (`botvision.backbones.warm_start`).

    Args:
        model: changed in place.
        source: file or state dict.
        strict: anything missing, unexpected or of another shape is an error, and nothing is loaded.
        warm_start: how such attention begins: "fit" (by least squares on `images`), "taps" (from the
            convolution's weights and the norms alone), "zero" (new, the block's last norm at zero) or "new";
            None for "fit" if there are images, else "taps".
        images: batches (B, 3, H, W) as the model takes them, for "fit".
        run: what takes a batch of them; by default the model.
        classes: names of the classes on both sides: if they differ, layers are taken over by name.

    Raises:
        ValueError: an unreadable file; with `strict`, weights that do not fit; "fit" without images, or
            images without it; "zero" where the norm is frozen.
    """
    how = chosen_start(warm_start, images)
    stored = dict(source) if isinstance(source, Mapping) else read_weights(Path(source))
    own = model.state_dict()
    stored, moved, others, line = match_classes(own, stored, classes)
    tables = _adoptable_tables(model, stored)
    same = {name for name in own if name in stored and own[name].shape == stored[name].shape}
    where = "the weights" if isinstance(source, Mapping) else str(source)
    report = LoadReport(
        kept=[name for name in own if name in same],
        reshaped=[name for name in own if name in tables - same],
        missing=[name for name in own if name not in stored and name not in others],
        unexpected=[name for name in stored if name not in own],
        mismatched=[name for name in own if name in others or (name in stored and name not in same | tables)],
        classes=line,
    )
    if strict and not report.complete:
        kind = next(kind for kind in ("missing", "unexpected", "mismatched") if getattr(report, kind))
        names = getattr(report, kind)
        raise ValueError(
            f"{where}: not of this {type(model).__name__}, {len(names)} {kind}, first {names[0]}"
        )
    if not same | tables:
        raise ValueError(f"{where}: no tensor fits this {type(model).__name__}")
    kernels = replaced_convolutions(model, stored) if how != "new" else {}
    model.load_state_dict({name: stored[name] for name in same | tables}, strict=False)
    started: list[StartedBlock] = []
    if how == "zero":
        zero_last_norms(model, kernels)
    else:
        started = start_as_convolutions(model, kernels, images if kernels else None, run=run)
    norm = "bn3." if how == "zero" else "bn2."
    changed = tuple(name.removesuffix("conv2") + norm for name in kernels)
    gone = {f"{block.name}.weight" for block in started}
    begun = tuple(f"{block.name}.attention." for block in started)
    return dataclasses.replace(
        report,
        kept=[name for name in report.kept if not name.startswith(changed) and name not in moved],
        adapted=[name for name in report.kept if name.startswith(changed) or name in moved],
        missing=[name for name in report.missing if not begun or not name.startswith(begun)],
        unexpected=[name for name in report.unexpected if name not in gone],
        started=started,
    )


def replaced_convolutions(model: nn.Module, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the kernels of trained convolutions among stored weights, by the attention in their place."""
    found = {}
    for name, module in model.named_modules():
        kernel = stored.get(f"{name}.weight")
        if not isinstance(module, AttentionConv2d) or kernel is None or kernel.ndim != 4:
            continue
        mean = stored.get(f"{name.removesuffix('conv2')}bn2.running_mean")
        if kernel.shape[0] == module.attention.dim and (
            mean is None or (not mean.is_meta and bool(mean.any()))
        ):
            found[name] = kernel
    return found


def save_model(
    model: nn.Module,
    folder: str | Path,
    name: str,
    kwargs: Mapping[str, Any],
    **extra: Any,  # noqa: ANN401
) -> None:
    """Write `model.safetensors` and `model.json`, from which `load_model` rebuilds the model.

    Each file is written under a temporary name and renamed; the JSON comes last.

    Args:
        model: created by `create_model(name, **kwargs)`, then trained.
        folder: made if it is not there.
        name: of the model.
        kwargs: of `create_model`; plain values.
        **extra: what else the JSON shall hold (classes, image_size, mean, std, task).
    """
    folder = Path(folder)
    description = json.dumps({"name": name, "kwargs": dict(kwargs), **extra}, indent=2) + "\n"
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(state))  # save_file would make it readable by its owner alone
    write_text(folder / DESCRIPTION_FILE, description)


def load_model(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model of a folder written by `save_model`, in eval mode on the CPU, and its description.

    Raises:
        ValueError: a missing or broken file, or weights that do not fit the description.
    """
    path = Path(folder) / DESCRIPTION_FILE
    found = read_description(path)
    kwargs = found["kwargs"] | {"pretrained": False}
    return rebuild(path, lambda: create_model(found["name"], **kwargs)), found


def rebuild(path: Path, build: Callable[[], M]) -> M:
    """Build the network of a description and load the weights beside it, in eval mode.

    Args:
        path: of the description.
        build: of the network; called on the meta device first, for one that is much larger than its weights
            may not fit into memory.

    Raises:
        ValueError: one line with the file that is wrong.
    """
    weights = path.with_name(WEIGHTS_FILE)
    held = size_of(weights)
    try:
        try:
            with torch.device("meta"):
                planned = sum(value.nbytes for value in build().state_dict().values())
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error):
                raise
            planned = 0  # some of timm's look at values while they are built
        if planned > 8 * held + 2**20:  # the weights may be of 16 bits, and position tables of a small grid
            raise ValueError(f"describes a network of {planned:,} bytes, and {WEIGHTS_FILE} has {held:,}")
        model = build()
    except (
        TypeError,
        ValueError,
        KeyError,
        RuntimeError,
        ArithmeticError,
        AssertionError,
        AttributeError,
    ) as e:
        raise ValueError(f"{path}: {text_of(e)}") from None
    load_weights(model, weights, strict=True)
    return model.eval()


def class_names(
    source: str | Path | Mapping[str, Tensor], ours: Sequence[str], layers: Sequence[str], before: int = 0
) -> ClassNames | None:
    """Return the names of the classes in weights that `save_model` wrote, beside a model's own.

    Args:
        source: the file of the weights.
        ours: names in the model.
        layers: of the model, see `ClassNames`.
        before: rows that come first, see `ClassNames`.

    Returns:
        None where the weights come without names.
    """
    if isinstance(source, Mapping):
        return None
    try:
        theirs = json.loads(Path(source).with_name(DESCRIPTION_FILE).read_text(encoding="utf-8"))["classes"]
        return ClassNames([str(name) for name in theirs], list(ours), layers, before)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _adoptable_tables(model: nn.Module, stored: Mapping[str, Tensor]) -> set[str]:
    """Names of the position tables that can take over the stored ones, of whatever grid."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        for axis, table in module.named_parameters() if isinstance(module, PositionTables) else ():
            other = stored.get(f"{prefix}.{axis}")
            if other is None or other.ndim != 2 or other.shape[1] != table.shape[1]:
                continue
            if module.kind == "absolute" or other.shape[0] % 2:  # a relative table has 2G-1 rows
                names.add(f"{prefix}.{axis}")
    return names
