"""Models: those that there are, and what they cost."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from botvision.tables.markdown import short, table

if TYPE_CHECKING:  # for their names alone: they bring torch
    from botvision.backbones.cost import Cost, StageCost, StepTime
    from botvision.backbones.variants import Variant


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """One column group of the cost table; `time` is None where nothing was measured."""

    name: str
    cost: "Cost"
    stages: list["StageCost"]
    time: "StepTime | None" = None


def model_table(variants: "Mapping[str, Variant]") -> str:
    """Return the models that come with botvision, one row each."""
    header = ["model", "blocks c2-c5", "c5 stride", "squeeze-excite", "activation", "usual size", "baseline"]
    rows = [
        [name, "-".join(map(str, v.layers)), v.c5_stride, v.se, v.act, v.img_size, v.baseline or ""]
        for name, v in variants.items()
    ]
    return table(header, rows, "llrllrl")


def cost_tables(models: Sequence[ModelCost]) -> str:
    """Return the architecture table of one model, or of several side by side, with totals and ratios."""
    height, width = models[0].cost.image_size
    header, total = ["stage", "output"], ["total", ""]
    for model in models:
        header += [model.name, "params (1e6)", "M.Adds (1e9)"]
        total += ["", short(model.cost.params / 1e6), short(model.cost.macs / 1e9)]
    rows = []
    for stage in dict.fromkeys(row.stage for model in models for row in model.stages):
        found = [next((row for row in model.stages if row.stage == stage), None) for model in models]
        sizes = dict.fromkeys(f"{r.output[0]}x{r.output[1]}" for r in found if r is not None)
        row = [stage, " / ".join(sizes)]
        for r in found:
            row += ["", "", ""] if r is None else [r.blocks, short(r.params / 1e6), short(r.macs / 1e9)]
        rows.append(row)
    lines = [f"{' beside '.join(m.name for m in models)}, one image of {height}x{width}", ""]
    lines += [table(header, [*rows, total], "ll" + "lrr" * len(models)), ""]
    lines += [_totals(model) for model in models]
    lines += [_ratios(models[0], other) for other in models[1:]]
    return "\n".join(lines)


def _totals(model: ModelCost) -> str:
    tables, time = model.cost.position_params, model.time
    text = f"{model.name}: {model.cost.params:,} parameters"
    text += f" ({tables:,} of them in position tables)" if tables else ""
    text += f", {model.cost.macs:,} multiply-adds"
    if time is not None:
        text += f"; training step {1000 * time.median:.1f} ms (median of {time.repeats}, "
        text += f"best {1000 * time.best:.1f}, batch {time.batch}, {time.dtype}, {time.device})"
    return text


def _ratios(model: ModelCost, other: ModelCost) -> str:
    params, macs = model.cost.params / other.cost.params, model.cost.macs / other.cost.macs
    text = f"{model.name} / {other.name}: parameters {params:.2f}, multiply-adds {macs:.2f}"
    if model.time is not None and other.time is not None:
        text += f", step time {model.time.median / other.time.median:.2f}"
    return text
