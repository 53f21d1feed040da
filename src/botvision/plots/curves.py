"""Pictures of a detector: precision over recall, and how loss and AP went during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from botvision.plots.style import (
    INK,
    PALE_INK,
    TRACK,
    TRAIN_COLOUR,
    VAL_COLOUR,
    column,
    curve,
    epoch_rows,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:  # for their names alone: they bring torch, and matplotlib
    from matplotlib.axes import Axes

    from botvision.coco.evaluate import CocoMetrics

NAMES = {"bbox": "Boxes", "segm": "Masks"}
BOX_COLOUR, MASK_COLOUR = VAL_COLOUR, "#c4501b"  # told apart by the colour-blind, too
PALE = {BOX_COLOUR: "#8fb1e3", MASK_COLOUR: "#eaa27f"}


def precision_recall(metrics: "Sequence[CocoMetrics]", out_png: str | Path) -> None:
    """Draw precision over recall, mean over classes, one panel for boxes and one for masks.

    The area below the line of IoU .50 is AP50, below that of .75 AP75, below the thick line of .50:.95 AP.

    Args:
        metrics: Of one kind or several.
        out_png: Written under a temporary name and renamed.

    Raises:
        ValueError: Nothing to draw.
    """
    from matplotlib.figure import Figure

    if not metrics:
        raise ValueError("no metrics to draw, expected those of boxes, of masks, or both")
    figure = Figure(figsize=(5.2 * len(metrics), 4.9), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, found in zip(panels, metrics, strict=True):
        _precision_panel(axes, found)
    first = metrics[0]
    classes = sum(entry.instances > 0 for entry in first.per_class)
    counts = [(first.images, "image"), (first.instances, "instance"), (classes, "class")]
    words = [f"{n:,} {word}{('es' if word == 'class' else 's') * (n != 1)}" for n, word in counts]
    note = f"{', '.join(words)}; at most {first.max_detections} detections of a class in an image"
    figure.supxlabel(note, fontsize=8.5, color=PALE_INK)
    save_figure(figure, Path(out_png))


def detection_curves(metrics_csv: str | Path, out_png: str | Path) -> None:
    """Draw a detector's training loss, and the AP of its validations, from a run's ``metrics.csv``.

    Args:
        metrics_csv: Columns ``epoch``, ``train_loss``, ``val_box_ap``, ``val_box_ap50``, ``val_mask_ap``,
            ``val_mask_ap50``; empty cells are gaps, a column without a number is no line.
        out_png: Written under a temporary name and renamed.

    Raises:
        ValueError: No row, or no ``epoch`` column.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = epoch_rows(metrics_csv)
    epochs = column(rows, "epoch")
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    loss, precision = figure.subplots(1, 2)
    curve(loss, epochs, column(rows, "train_loss"), "train", TRAIN_COLOUR, "{:.3f}")
    best = ""
    for kind, colour in (("box", BOX_COLOUR), ("mask", MASK_COLOUR)):
        for number, shade in (("ap50", PALE[colour]), ("ap", colour)):
            values = 100 * column(rows, f"val_{kind}_{number}")
            curve(precision, epochs, values, f"{kind} {number.upper()}", shade, "{:.1f}")
            if number == "ap" and np.isfinite(values).any():
                top = int(np.nanargmax(values))
                precision.plot(epochs[top], values[top], "o", markersize=9, mfc="none", color=colour)
                best = f"best {kind} AP {values[top]:.1f} in epoch {epochs[top]:g}"
    precision.set_title(best, fontsize=9, color=PALE_INK, loc="right")
    for axes, name in ((loss, "Loss"), (precision, "AP (%)")):
        style_axes(axes, name)
        axes.set_xlabel("Epoch")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(rows) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    save_figure(figure, Path(out_png))


def _precision_panel(axes: "Axes", found: "CocoMetrics") -> None:
    colour = MASK_COLOUR if found.kind == "segm" else BOX_COLOUR
    recall = np.linspace(0, 100, 101)
    lines = (
        (found.precision50, "IoU .50", found.ap50, PALE[colour], 1.6),
        (found.precision75, "IoU .75", found.ap75, PALE[colour], 1.6),
        (found.precision, "IoU .50:.95", found.ap, colour, 2.6),
    )
    for i, (values, name, number, shade, width) in enumerate(lines):
        if not values:
            continue
        style = "--" if i == 1 else "-"
        label = f"{name}: {100 * number:.1f}"
        axes.plot(recall, 100 * np.array(values), style, color=shade, linewidth=width, label=label)
    if found.precision:
        axes.fill_between(recall, 100 * np.array(found.precision), color=colour, alpha=0.12, linewidth=0)
    else:
        axes.text(50, 50, "no object in the ground truth", ha="center", color=PALE_INK, fontsize=10)
    ap = f"{100 * found.ap:.1f}" if found.precision else "none"
    style_axes(axes, f"{NAMES[found.kind]}: AP {ap}")
    if found.precision:
        axes.legend(
            frameon=True, framealpha=0.85, edgecolor="none", fontsize=9,
            loc="lower left" if found.ap50 > 0.4 else "upper right",
            title="area below the line (%)", title_fontsize=8.5, alignment="left", labelcolor=INK,
        )  # fmt: skip
    axes.grid(axis="both", color=TRACK, linewidth=0.8)
    axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="Recall (%)", ylabel="Precision (%)")
    axes.set_aspect("equal", adjustable="box")
