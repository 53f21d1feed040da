"""Results to text: tables in Markdown and the lines the command prints; strings only."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botvision.metrics.compare import Comparison, Group
from botvision.metrics.seeds import LEVEL, Difference

if TYPE_CHECKING:  # for their names alone: they bring torch
    from botvision.backbones.cost import Cost, StageCost, StepTime
    from botvision.backbones.variants import Variant
    from botvision.data.check import CheckReport
    from botvision.metrics.classification import ClassificationMetrics

WORST_CLASSES = 5
COMPARED = {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP", "side_accuracy": "side accuracy"}


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """One column group of the cost table; ``time`` is None where nothing was measured."""

    name: str
    cost: "Cost"
    stages: list["StageCost"]
    time: "StepTime | None" = None


def table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str) -> str:
    """Return an aligned Markdown table without a final newline.

    Args:
        header: Column titles.
        rows: One sequence of cells a row, as long as the header.
        align: "l" or "r" for each column; numbers go to the right.

    Raises:
        ValueError: A row, or ``align``, is not as long as the header.
    """
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if any(len(row) != len(header) for row in [align, *cells]):
        raise ValueError(f"expected {len(header)} columns in every row")
    widths = [max(3, *(len(row[i]) for row in [header, *cells])) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        columns = zip(row, widths, align, strict=True)
        return "| " + " | ".join(c.ljust(w) if side == "l" else c.rjust(w) for c, w, side in columns) + " |"

    rule = ["-" * (w - 1) + ("-" if side == "l" else ":") for w, side in zip(widths, align, strict=True)]
    return "\n".join(line(row) for row in [header, rule, *cells])


def short(value: float) -> str:
    """Two decimals, as the slides print them; three below one; three digits where those would be zeros."""
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.3g}"


def percent(fraction: float | None) -> str:
    """A fraction as percent with two decimals, without the sign; nothing for None or not-a-number."""
    return "" if fraction is None or fraction != fraction else f"{100 * fraction:.2f}"


def comparison_table(comparison: Comparison) -> str:
    """Return the results table in Markdown with a legend, warnings and notes; ends with a newline."""
    groups = comparison.groups
    names = [name for name in COMPARED if any(name in group.scores for group in groups)]
    header = ["model", "params (1e6)", "M.Adds (1e9)", "image", "epochs", "n"]
    for name in names:
        header += [f"{COMPARED[name]} (%)", "difference (points)"]
    header += ["step (ms)"]
    data = sorted({run.data for group in groups for run in group.runs})
    legend = f"Data: {', '.join(data)}. Mean ± sample standard deviation over n seeds (n=1 has no spread)."
    if len(groups) > 1:
        legend += f" Difference: against {groups[0].label}, over the pairs of runs with the same seed"
        interval = f", in parentheses its {100 * LEVEL:g} % interval by Student's t"
        legend += f"{interval if _has_interval(groups) else ''}."
    if comparison.task == "detect":
        legend += " M.Adds: backbone and neck. AP: mean over IoU .50:.95."
    rows = [_comparison_row(group, names) for group in groups]
    text = table(header, rows, "l" + "r" * (len(header) - 1)) + "\n\n" + legend
    lines = [f"- Warning: {warning}" for warning in comparison.warnings]
    lines += [f"- Note: {note}" for note in comparison.notes]
    if lines:
        text += "\n\n" + "\n".join(lines)
    return text + "\n"


def _comparison_row(group: Group, names: Sequence[str]) -> list[str]:
    run = group.runs[0]
    scores = []
    for name in names:
        found = group.scores.get(name)
        if found is None:
            scores += ["", ""]
            continue
        scores.append(percent(found.mean) + ("" if found.sd is None else f" ± {percent(found.sd)}"))
        scores.append("" if found.difference is None else _difference_cell(found.difference))
    return [
        group.label,
        short(run.params / 1e6),
        short(run.macs / 1e9),
        run.size,
        str(run.epochs),
        str(group.n),
        *scores,
        "" if group.step_ms is None else f"{group.step_ms:.1f}",
    ]


def _has_interval(groups: Sequence[Group]) -> bool:
    """Whether any difference has an interval."""
    scores = (score for group in groups for score in group.scores.values())
    return any(score.difference is not None and score.difference.over_seeds is not None for score in scores)


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * fraction + 0.0:+.2f}"


def _difference_cell(difference: Difference) -> str:
    spread = "" if difference.sd is None else f" ± {percent(difference.sd)}"
    over = difference.over_seeds
    interval = "" if over is None else f"{points(over.low)} to {points(over.high)}; "
    pairing = f"{len(difference.pairs)} paired" if difference.pairs else "unpaired"
    return f"{points(difference.mean)}{spread} ({interval}{pairing})"


def ranking(top: Sequence[dict[str, Any]], limit: int = 3) -> str:
    """Return ``label 97.1%, label 1.2%`` for the first ``limit`` results of one image."""
    return ", ".join(f"{entry['label']} {100 * entry['score']:.1f}%" for entry in top[:limit])


def objects_line(detections: Sequence[dict[str, Any]], threshold: float) -> str:
    """Return ``2 person, 1 dog (best 97.1%)`` for the detections of one image with at least that score."""
    sure = [each for each in detections if each["score"] >= threshold]
    if not sure:
        best = max((each["score"] for each in detections), default=None)
        unsure = "" if best is None else f" (best {100 * best:.1f}%)"
        return f"nothing found with a score of {100 * threshold:g}% or more{unsure}"
    counts = Counter(each["label"] for each in sure)
    named = ", ".join(f"{count} {label}" for label, count in counts.most_common(6))
    more = f", and {len(counts) - 6} more classes" if len(counts) > 6 else ""
    return f"{named}{more} (best {100 * max(each['score'] for each in sure):.1f}%)"


def check_table(found: "CheckReport") -> str:
    """Return what a data set holds, one row a split; warnings and the closing line follow."""
    labelled = found.kind == "classification"
    header = [
        "split",
        "images",
        "broken",
        *(["classes", "images a class"] if labelled else []),
        "height x width",
        "modes",
    ]
    rows = []
    for row in found.rows:
        per_class = f"{row['class_min']} to {row['class_max']}, median {row['class_median']:g}"
        size = row["size_min"]
        if row["size_min"] != row["size_max"]:
            size = f"{row['size_min']} to {row['size_max']}, median {row['size_median']}"
        classes = [row["classes"], per_class] if labelled else []
        rows.append([row["split"], row["images"], row["broken"], *classes, size, row["modes"]])
    align = "lrr" + ("rl" if labelled else "") + "ll"
    parts = [table(header, rows, align)] if rows else []
    parts += ["\n".join(f"note: {warning}" for warning in found.warnings)] if found.warnings else []
    return "\n\n".join([*parts, found.summary])


def summary_lines(summary: Mapping[str, Any]) -> str:
    """Return the outcome of a training from its ``summary.json``."""
    height, width = summary["image_size"]
    if summary.get("task") == "detect":
        titles = {"box_ap": "box AP", "box_ap50": "box AP50", "mask_ap": "mask AP", "mask_ap50": "mask AP50"}
        titles |= {"side_accuracy": "side accuracy"} if "side_accuracy" in summary else {}
        measured = {f"{title} (%)": percent(summary.get(key)) for key, title in titles.items()}
    else:
        measured = {
            "top-1 (%)": percent(summary["top1"]),
            "top-5 (%)": percent(summary.get("top5")),
            "loss": "" if summary["loss"] is None else f"{summary['loss']:.4f}",
        }
    cells = {
        "model": summary["model"],
        "data": summary["data"],
        **measured,
        "params (1e6)": short(summary["params"] / 1e6),
        "M.Adds (1e9)": short(summary["macs"] / 1e9),
        "image": f"{height}x{width}",
        "epochs": summary["epochs"],
        "step (ms)": "" if summary.get("step_ms") is None else f"{summary['step_ms']:.1f}",
    }
    return table(list(cells), [list(cells.values())], "ll" + "r" * (len(cells) - 2))


def metrics_table(metrics: "ClassificationMetrics") -> str:
    """Return the metrics of a split, and the accuracy of all classes or of the worst ones."""
    row = [metrics.count, percent(metrics.top1), percent(metrics.top5), f"{metrics.loss:.4f}"]
    whole = table([metrics.counted, "top-1 (%)", "top-5 (%)", "loss"], [row], "rrrr")
    totals = [sum(row) for row in metrics.confusion]
    known = [k for k, accuracy in enumerate(metrics.per_class) if accuracy == accuracy]
    ranked = sorted(known, key=lambda k: (metrics.per_class[k], metrics.classes[k]))[:WORST_CLASSES]
    rows = []
    for k in ranked:
        wrong = {other: count for other, count in enumerate(metrics.confusion[k]) if other != k and count}
        most = max(wrong, key=wrong.__getitem__, default=None)
        taken_for = "" if most is None else f"{metrics.classes[most]} ({wrong[most]})"
        rows.append([metrics.classes[k], totals[k], percent(metrics.per_class[k]), taken_for])
    title = "class" if len(known) <= WORST_CLASSES else f"{WORST_CLASSES} worst of {len(known)} classes"
    return whole + "\n\n" + table([title, metrics.counted, "right (%)", "most often taken for"], rows, "lrrl")


def cost_tables(models: Sequence[ModelCost]) -> str:
    """Return the architecture table of one model, or of two side by side, with totals and ratios."""
    first, *others = models
    height, width = first.cost.image_size
    header = ["stage", "output"]
    for model in models:
        header += [model.name, "params (1e6)", "M.Adds (1e9)"]
    stages = list(dict.fromkeys(row.stage for model in models for row in model.stages))
    rows = []
    for stage in stages:
        found = [next((row for row in model.stages if row.stage == stage), None) for model in models]
        sizes = list(dict.fromkeys(f"{r.output[0]}x{r.output[1]}" for r in found if r is not None))
        row = [stage, " / ".join(sizes)]
        for r in found:
            row += ["", "", ""] if r is None else [r.blocks, short(r.params / 1e6), short(r.macs / 1e9)]
        rows.append(row)
    total = ["total", ""]
    for model in models:
        total += ["", short(model.cost.params / 1e6), short(model.cost.macs / 1e9)]
    lines = [f"{' beside '.join(m.name for m in models)}, one image of {height}x{width}", ""]
    lines += [table(header, [*rows, total], "ll" + "lrr" * len(models)), ""]
    lines += [_totals(model) for model in models]
    lines += [_ratios(first, other) for other in others]
    return "\n".join(lines)


def _totals(model: ModelCost) -> str:
    tables = model.cost.position_params
    text = f"{model.name}: {model.cost.params:,} parameters"
    text += f" ({tables:,} of them in position tables)" if tables else ""
    text += f", {model.cost.macs:,} multiply-adds"
    time = model.time
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


def model_table(variants: "Mapping[str, Variant]") -> str:
    """Return the models that come with botvision, one row each."""
    header = [
        "model",
        "blocks c2-c5",
        "c5 stride",
        "squeeze-excite",
        "activation",
        "usual size",
        "baseline",
    ]
    rows = [
        [name, "-".join(map(str, v.layers)), v.c5_stride, v.se, v.act, v.img_size, v.baseline or ""]
        for name, v in variants.items()
    ]
    return table(header, rows, "llrllrl")


def recipe_lines(texts: Mapping[str, str]) -> str:
    """Return a line for each recipe, its name and the first comment of its file.

    Args:
        texts: Name to content of the YAML file.
    """
    width = max(map(len, texts), default=0)
    lines = []
    for name, text in texts.items():
        comment = next(
            (line.lstrip("# ") for line in text.splitlines() if line.startswith("#") and line.strip("# ")), ""
        )
        lines.append(f"{name:<{width}}  {comment}".rstrip())
    return "\n".join(lines)
