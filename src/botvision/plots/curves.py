"""Charts of training and evaluation: learning curves, precision over recall, accuracy, confusion."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from botvision.plots.style import INK, PALE_INK, TRACK, new_figure, save_figure, style_axes

if TYPE_CHECKING:  # for their names alone: they bring torch, and matplotlib
    from matplotlib.axes import Axes

    from botvision.coco.evaluate import CocoMetrics
    from botvision.metrics.classification import Breakdown

TRAIN_COLOUR, VAL_COLOUR = "#8a94a6", "#1f5fbf"
BOX_COLOUR, MASK_COLOUR = VAL_COLOUR, "#c4501b"  # told apart by the colour-blind, too
PALE = {BOX_COLOUR: "#8fb1e3", MASK_COLOUR: "#eaa27f"}
COLOURS = (VAL_COLOUR, MASK_COLOUR, "#2c8a57", "#8a4fbf")
SPREAD = 1.96  # standard errors: 95 of 100 such bars hold the accuracy on all images there could be
NUMBERED_CLASSES = 15  # more classes than this leave no room for a number in each cell
NAMED_CLASSES = 60  # more than this leave no room for every name


@dataclass(frozen=True)
class _Line:
    """A column of `metrics.csv`; `best` is the title in which its largest value stands, or nothing."""

    column: str
    label: str
    colour: str
    best: str = ""


def learning_curves(metrics_csv: str | Path, out_png: str | Path, smoothing: float = 0.0) -> None:
    """Draw the loss of training and validation and the validation's top-1 from a run's `metrics.csv`.

    Args:
        metrics_csv: columns `epoch`, `train_loss`, `val_loss`, `val_top1`; empty cells are gaps.
        out_png: written whole or not at all.
        smoothing: label smoothing in the training's loss and not in the validation's: the legend says so.

    Raises:
        ValueError: no row, or no `epoch` column.
    """
    train = f"train (label smoothing {smoothing:g})" if smoothing else "train"
    loss = [
        _Line("train_loss", train, TRAIN_COLOUR),
        _Line("val_loss", "validation", VAL_COLOUR),
    ]
    top1 = [_Line("val_top1", "validation", VAL_COLOUR, "best {:.2f}%")]
    _draw_epochs(metrics_csv, out_png, {"Loss": loss, "Top-1 (%)": top1})


def detection_curves(metrics_csv: str | Path, out_png: str | Path) -> None:
    """Draw a detector's training loss, and the AP of its validations, from a run's `metrics.csv`.

    Args:
        metrics_csv: columns `epoch`, `train_loss`, `val_box_ap`, `val_box_ap50`, `val_mask_ap`,
            `val_mask_ap50`; empty cells are gaps, a column without a number is no line.
        out_png: written whole or not at all.

    Raises:
        ValueError: no row, or no `epoch` column.
    """
    loss = [_Line("train_loss", "train", TRAIN_COLOUR)]
    precision = []
    for kind, colour in (("box", BOX_COLOUR), ("mask", MASK_COLOUR)):
        precision.append(_Line(f"val_{kind}_ap50", f"{kind} AP50", PALE[colour]))
        precision.append(_Line(f"val_{kind}_ap", f"{kind} AP", colour, f"best {kind} AP {{:.1f}}"))
    _draw_epochs(metrics_csv, out_png, {"Loss": loss, "AP (%)": precision}, bottom=0)


def precision_recall(metrics: "Sequence[CocoMetrics]", out_png: str | Path) -> None:
    """Draw precision over recall, mean over classes, one panel for boxes and one for masks.

    The area below the line of IoU .50 is AP50, below that of .75 AP75, below the thick line of .50:.95 AP.

    Args:
        metrics: of one kind or several.
        out_png: written whole or not at all.

    Raises:
        ValueError: nothing to draw.
    """

    if not metrics:
        raise ValueError("no metrics to draw, expected those of boxes, of masks, or both")
    figure = new_figure(5.2 * len(metrics), 4.9)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, found in zip(panels, metrics, strict=True):
        _draw_precision(axes, found)
    first = metrics[0]
    classes = sum(entry.instances > 0 for entry in first.per_class)
    counts = [(first.images, "image"), (first.instances, "instance"), (classes, "class")]
    words = [f"{n:,} {word}{('es' if word == 'class' else 's') * (n != 1)}" for n, word in counts]
    note = f"{', '.join(words)}; at most {first.max_detections} detections of a class in an image"
    figure.supxlabel(note, fontsize=8.5, color=PALE_INK)
    save_figure(figure, out_png)


def accuracy_by_group(breakdowns: "Mapping[str, Breakdown]", out_png: str | Path, chance: float) -> None:
    """Draw accuracy over the intervals of a quantity, with bars of two standard errors.

    Args:
        breakdowns: by the name of what was measured; of the same quantity.
        out_png: written whole or not at all.
        chance: accuracy of guessing, 0..1, drawn as a dashed line.

    Raises:
        ValueError: nothing to draw.
    """

    if not breakdowns:
        raise ValueError("no breakdown to draw, expected one or more")
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    axes.axhline(100 * chance, color=PALE_INK, linewidth=1.2, linestyle="--", label="guessing")
    for i, (name, found) in enumerate(breakdowns.items()):
        edges, top1 = np.array(found.edges), 100 * np.array(found.top1)
        middle = (edges[:-1] + edges[1:]) / 2
        known = np.isfinite(top1)
        axes.errorbar(
            middle[known], top1[known], yerr=100 * SPREAD * np.array(found.error)[known], fmt="o-",
            color=COLOURS[i % len(COLOURS)], linewidth=2, markersize=5, capsize=3, label=name,
        )  # fmt: skip
    first = next(iter(breakdowns.values()))
    style_axes(axes, f"Top-1 by {first.name} (%)")
    axes.set_xticks(first.edges, [f"{edge:g}" for edge in first.edges])
    axes.set(ylim=(min(40.0, 80 * chance), 102), xlabel=f"{first.name.capitalize()} ({first.unit})")
    note = f"{sum(first.count):,} {first.counted}; bars: {SPREAD} standard errors"
    axes.set_title(note, fontsize=8.5, color=PALE_INK, loc="right")
    save_figure(figure, out_png)


def confusion_matrix(
    confusion: Sequence[Sequence[int]] | np.ndarray, classes: Sequence[str], out_png: str | Path
) -> None:
    """Draw a confusion matrix: colours, and numbers up to 15 classes, are percent of the true class.

    Args:
        confusion: counts (K, K), rows true class, columns predicted class.
        classes: K names.
        out_png: written whole or not at all.

    Raises:
        ValueError: the matrix is not K x K.
    """
    from matplotlib.colors import PowerNorm

    counts, k = np.asarray(confusion, dtype=np.float64), len(classes)
    if counts.shape != (k, k) or k == 0:
        raise ValueError(f"confusion matrix of shape {counts.shape} for {k} classes, expected ({k}, {k})")
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    numbered = k <= NUMBERED_CLASSES
    side = min(12.0, max(4.6, 2.6 + (0.62 if numbered else 0.16) * k))
    figure = new_figure(side * 1.12, side)
    axes = figure.subplots()
    # The square root lifts the rare confusions, which without numbers would be lost in the white.
    norm = PowerNorm(1.0 if numbered else 0.5, vmin=0.0, vmax=1.0)
    image = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest")
    ticks = list(range(0, k, math.ceil(k / NAMED_CLASSES)))
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in (str(classes[i]) for i in ticks)]
    size = 9 if k <= 20 else 7 if k <= 40 else 6
    long = max(len(name) for name in names) > (8 if numbered else 0)
    axes.set_xticks(ticks, names, rotation=90 if long else 0, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.tick_params(length=0)
    axes.set(xlabel="Predicted class", ylabel="True class")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{counts.sum():,.0f} images, top-1 {100 * accuracy:.2f}%", fontsize=10, color=INK)
    axes.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(counts), strict=True) if numbered else ():
        value = share[row, column]
        colour = "white" if value > 0.55 else INK
        text = "<1" if value < 0.005 else f"{100 * value:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.25, 0.5, 0.75, 1.0])
    bar.ax.set_yticklabels(["0", "25", "50", "75", "100"], fontsize=8)
    bar.set_label("% of the true class", fontsize=9)
    bar.outline.set_visible(False)  # pyrefly: ignore
    save_figure(figure, out_png)


def _draw_epochs(
    metrics_csv: str | Path,
    out_png: str | Path,
    panels: Mapping[str, Sequence[_Line]],
    bottom: float | None = None,
) -> None:
    """Draw panels of lines over epochs; all but those of "Loss" are fractions, shown in percent."""
    from matplotlib.ticker import MaxNLocator

    with Path(metrics_csv).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in rows[0]:
        raise ValueError(f"{metrics_csv}: expected a column 'epoch' and at least one row")
    figure = new_figure(5 * len(panels), 4)
    epochs = _column(rows, "epoch")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        factor, form = (1, "{:.3f}") if title == "Loss" else (100, "{:.1f}")
        for line in lines:
            values = factor * _column(rows, line.column)
            known = np.isfinite(values)
            if not known.any():
                continue
            axes.plot(
                epochs[known], values[known], color=line.colour, linewidth=1.8, markersize=3.5,
                marker="o" if known.sum() <= 20 else "",  # so that a single epoch is seen
                label=f"{line.label} ({form.format(values[known][-1])} at the end)",
            )  # fmt: skip
            if line.best:
                top = int(np.nanargmax(values))
                axes.plot(epochs[top], values[top], "o", markersize=9, mfc="none", color=line.colour)
                best = f"{line.best.format(values[top])} in epoch {epochs[top]:g}"
                axes.set_title(best, fontsize=9, color=PALE_INK, loc="right")
        style_axes(axes, title)
        axes.set_xlabel("Epoch")
        axes.set_ylim(bottom=bottom)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(rows) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    save_figure(figure, out_png)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """A column as float64 (rows,); absent, empty or unreadable cells are NaN."""
    values = []
    for row in rows:
        try:
            values.append(float(row.get(name) or "nan"))
        except ValueError:
            values.append(math.nan)
    return np.array(values)


def _draw_precision(axes: "Axes", found: "CocoMetrics") -> None:
    name, colour = ("Masks", MASK_COLOUR) if found.kind == "segm" else ("Boxes", BOX_COLOUR)
    if found.precision:
        recall = np.linspace(0, 100, 101)
        for values, iou, number, style, shade, width in (
            (found.precision50, ".50", found.ap50, "-", PALE[colour], 1.6),
            (found.precision75, ".75", found.ap75, "--", PALE[colour], 1.6),
            (found.precision, ".50:.95", found.ap, "-", colour, 2.6),
        ):
            label = f"IoU {iou}: {100 * number:.1f}"
            axes.plot(recall, 100 * np.array(values), style, color=shade, linewidth=width, label=label)
        axes.fill_between(recall, 100 * np.array(found.precision), color=colour, alpha=0.12, linewidth=0)
        style_axes(axes, f"{name}: AP {100 * found.ap:.1f}")
        axes.legend(
            frameon=True, framealpha=0.85, edgecolor="none", fontsize=9,
            loc="lower left" if found.ap50 > 0.4 else "upper right",
            title="area below the line (%)", title_fontsize=8.5, alignment="left", labelcolor=INK,
        )  # fmt: skip
    else:
        axes.text(50, 50, "no object in the ground truth", ha="center", color=PALE_INK, fontsize=10)
        style_axes(axes, f"{name}: AP none")
    axes.grid(axis="both", color=TRACK, linewidth=0.8)
    axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="Recall (%)", ylabel="Precision (%)")
    axes.set_aspect("equal", adjustable="box")
