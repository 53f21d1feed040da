"""Weights into a network: what fits is taken, attention begins as convolutions, and a report says so."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from botvision.attention.position import PositionTables
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.classes import ClassNames, match_classes
from botvision.backbones.pretrained import fetch, is_name
from botvision.backbones.stored import read_weights
from botvision.backbones.timm_attention import in_our_names
from botvision.backbones.warm_start import (
    StartedBlock,
    WarmStart,
    chosen_start,
    start_as_convolutions,
    zero_last_norms,
)


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
        advice: a line on how more of the file would fit.
    """

    kept: list[str]
    reshaped: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    started: list[StartedBlock] = dataclasses.field(default_factory=list)
    adapted: list[str] = dataclasses.field(default_factory=list)
    classes: str = ""
    advice: str = ""

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
        lines += [line for line in (self.classes, self.advice) if line]
        return "\n".join(lines)


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
        source: file, state dict, or a name: of a network that timm has weights of ("resnet50"), or
            "hf-hub:OWNER/NAME". Of a detector's weights a classifier takes the backbone.
        strict: anything missing, unexpected or of another shape is an error, and nothing is loaded.
        warm_start: how such attention begins: "fit" (by least squares on `images`), "taps" (from the
            convolution's weights and the norms alone), "zero" (new, the block's last norm at zero) or "new";
            None for "fit" if there are images, else "taps".
        images: batches (B, 3, H, W) as the model takes them, for "fit".
        run: what takes a batch of them; by default the model.
        classes: names of the classes on both sides: if they differ, layers are taken over by name.

    Raises:
        ValueError: an unreadable file, or weights that cannot be fetched; with `strict`, weights that do not
            fit; "fit" without images, or images without it; "zero" where the norm is frozen.
    """
    how = chosen_start(warm_start, images)
    given = fetch(source) if is_name(source) else source
    stored = dict(given) if isinstance(given, Mapping) else read_weights(Path(given))
    own = model.state_dict()
    stored = in_our_names(model, stored)
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
