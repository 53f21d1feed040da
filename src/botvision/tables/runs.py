"""Finished runs: one as a row, several as a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from botvision.metrics.compare import Comparison, Group
from botvision.metrics.seeds import LEVEL, Difference
from botvision.tables.markdown import percent, points, short, table

COMPARED = {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP", "side_accuracy": "side accuracy"}


def comparison_table(comparison: Comparison) -> str:
    """Return the results table with a legend, warnings and notes; ends with a newline."""
    groups = comparison.groups
    names = [name for name in COMPARED if any(name in group.scores for group in groups)]
    header = ["model", "params (1e6)", "M.Adds (1e9)", "image", "epochs", "n"]
    for name in names:
        header += [f"{COMPARED[name]} (%)", "difference (points)"]
    header += ["step (ms)"]
    data = sorted({run.data for group in groups for run in group.runs})
    legend = f"Data: {', '.join(data)}. Mean ± sample standard deviation over n seeds (n=1 has no spread)."
    if len(groups) > 1:
        differences = [score.difference for group in groups for score in group.scores.values()]
        intervals = any(found is not None and found.over_seeds is not None for found in differences)
        legend += f" Difference: against {groups[0].label}, over the pairs of runs with the same seed"
        legend += f", in parentheses its {100 * LEVEL:g} % interval by Student's t." if intervals else "."
    if comparison.task == "detect":
        legend += " M.Adds: backbone and neck. AP: mean over IoU .50:.95."
    rows = [_comparison_row(group, names) for group in groups]
    lines = [f"- Warning: {warning}" for warning in comparison.warnings]
    lines += [f"- Note: {note}" for note in comparison.notes]
    text = table(header, rows, "l" + "r" * (len(header) - 1))
    return "\n\n".join([text, legend, *(["\n".join(lines)] if lines else [])]) + "\n"


def summary_table(summary: Mapping[str, Any]) -> str:
    """Return the outcome of a training from its `summary.json`."""
    height, width = summary["image_size"]
    if summary.get("task") == "detect":
        titles = {"box_ap": "box AP", "box_ap50": "box AP50", "mask_ap": "mask AP", "mask_ap50": "mask AP50"}
        titles |= {"side_accuracy": "side accuracy"} if "side_accuracy" in summary else {}
        measured = {f"{title} (%)": percent(summary.get(key)) for key, title in titles.items()}
    else:
        loss = summary["loss"]
        measured = {
            "top-1 (%)": percent(summary["top1"]),
            "top-5 (%)": percent(summary.get("top5")),
            "loss": "" if loss is None else f"{loss:.4f}",
        }
    step = summary.get("step_ms")
    cells = {
        "model": summary["model"],
        "data": summary["data"],
        **measured,
        "params (1e6)": short(summary["params"] / 1e6),
        "M.Adds (1e9)": short(summary["macs"] / 1e9),
        "image": f"{height}x{width}",
        "epochs": summary["epochs"],
        "step (ms)": "" if step is None else f"{step:.1f}",
    }
    return table(list(cells), [list(cells.values())], "ll" + "r" * (len(cells) - 2))


def _comparison_row(group: Group, names: Sequence[str]) -> list[str]:
    run = group.runs[0]
    row = [group.label, short(run.params / 1e6), short(run.macs / 1e9), run.size, str(run.epochs)]
    row.append(str(group.n))
    for name in names:
        found = group.scores.get(name)
        if found is None:
            row += ["", ""]
            continue
        row.append(percent(found.mean) + ("" if found.sd is None else f" ± {percent(found.sd)}"))
        row.append("" if found.difference is None else _difference_cell(found.difference))
    return [*row, "" if group.step_ms is None else f"{group.step_ms:.1f}"]


def _difference_cell(difference: Difference) -> str:
    spread = "" if difference.sd is None else f" ± {percent(difference.sd)}"
    over = difference.over_seeds
    interval = "" if over is None else f"{points(over.low)} to {points(over.high)}; "
    pairing = f"{len(difference.pairs)} paired" if difference.pairs else "unpaired"
    return f"{points(difference.mean)}{spread} ({interval}{pairing})"
