"""Pictures: learning curves, confusion matrices, annotated images, contact sheets.

matplotlib is used through ``Figure`` objects (no pyplot, hence no global state) and only inside the functions
that need it; labelled images are drawn with PIL alone.
"""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from botvision.io.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN_COLOUR, VAL_COLOUR = "#8a94a6", "#1f5fbf"
INK, PALE_INK, TRACK, BAR, PALE_BAR = "#1b2430", "#5b6675", "#e6eaf0", "#1f5fbf", "#9db9e3"
NUMBERED_CLASSES = 15  # more classes than this leave no room for a number in each cell
NAMED_CLASSES = 60  # more than this leave no room for every name
SHORTEST_SIDE, LONGEST_SIDE = 256, 768  # of the picture within an annotated image, in pixels


def learning_curves(metrics_csv: str | Path, out_png: str | Path, smoothing: float = 0.0) -> None:
    """Draw the loss of training and validation and the validation's top-1 from a run's ``metrics.csv``.

    Args:
        metrics_csv: Columns ``epoch``, ``train_loss``, ``val_loss``, ``val_top1``; empty cells are gaps.
        out_png: Written under a temporary name and renamed.
        smoothing: Label smoothing in the training's loss and not in the validation's: the legend says so.

    Raises:
        ValueError: No row, or no ``epoch`` column.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = epoch_rows(metrics_csv)
    epochs = column(rows, "epoch")
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    train = f"train (label smoothing {smoothing:g})" if smoothing else "train"
    curve(loss, epochs, column(rows, "train_loss"), train, TRAIN_COLOUR, "{:.3f}")
    curve(loss, epochs, column(rows, "val_loss"), "validation", VAL_COLOUR, "{:.3f}")
    curve(accuracy, epochs, 100 * column(rows, "val_top1"), "validation", VAL_COLOUR, "{:.1f}%")
    top1 = column(rows, "val_top1")
    if np.isfinite(top1).any():
        best = int(np.nanargmax(top1))
        accuracy.plot(epochs[best], 100 * top1[best], "o", markersize=9, mfc="none", color=VAL_COLOUR)
        accuracy.set_title(
            f"best {100 * top1[best]:.2f}% in epoch {epochs[best]:g}", fontsize=9, color=PALE_INK, loc="right"
        )
    for axes, name in ((loss, "Loss"), (accuracy, "Top-1 (%)")):
        style_axes(axes, name)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(rows) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    save_figure(figure, Path(out_png))


def confusion_matrix(
    confusion: Sequence[Sequence[int]] | np.ndarray, classes: Sequence[str], out_png: str | Path
) -> None:
    """Draw a confusion matrix: colours, and numbers up to 15 classes, are percent of the true class.

    Args:
        confusion: Counts (K, K), rows true class, columns predicted class.
        classes: K names.
        out_png: Written under a temporary name and renamed.

    Raises:
        ValueError: The matrix is not K x K.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    counts = np.asarray(confusion, dtype=np.float64)
    k = len(classes)
    if counts.shape != (k, k) or k == 0:
        raise ValueError(f"confusion matrix of shape {counts.shape} for {k} classes, expected ({k}, {k})")
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    side = min(12.0, max(4.6, 2.6 + (0.62 if k <= NUMBERED_CLASSES else 0.16) * k))
    figure = Figure(figsize=(side * 1.12, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    # The square root lifts the rare confusions, which without numbers would be lost in the white.
    norm = PowerNorm(1.0 if k <= NUMBERED_CLASSES else 0.5, vmin=0.0, vmax=1.0)
    image = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest")
    every = math.ceil(k / NAMED_CLASSES)
    ticks = list(range(0, k, every))
    names = [_shorten(str(classes[i]), 24) for i in ticks]
    size = 9 if k <= 20 else 7 if k <= 40 else 6
    long = max(len(name) for name in names) > (8 if k <= NUMBERED_CLASSES else 0)
    axes.set_xticks(ticks, names, rotation=90 if long else 0, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.tick_params(length=0)
    axes.set(xlabel="Predicted class", ylabel="True class")
    accuracy = np.trace(counts) / counts.sum() if counts.sum() else 0.0
    axes.set_title(f"{counts.sum():,.0f} images, top-1 {100 * accuracy:.2f}%", fontsize=10, color=INK)
    axes.spines[:].set_visible(False)
    if k <= NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            value = share[row, column]
            colour = "white" if value > 0.55 else INK
            text = "<1" if value < 0.005 else f"{100 * value:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.25, 0.5, 0.75, 1.0])
    bar.ax.set_yticklabels(["0", "25", "50", "75", "100"], fontsize=8)
    bar.set_label("% of the true class", fontsize=9)
    bar.outline.set_visible(False)  # pyrefly: ignore
    save_figure(figure, Path(out_png))


def annotate(image: Image.Image, results: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Set the labels of an image and bars of their scores beside it (below it, if it is wide).

    Args:
        image: Any size; shown between 256 and 768 pixels, tiny images enlarged without smoothing.
        results: ``{"label": str, "score": 0..1}`` each, best first.

    Returns:
        A new RGB image; ``image`` is left as it is.
    """
    picture = fit(image)
    wide = picture.width > 1.6 * picture.height
    margin, row_height = 16, 46
    panel = (max(320, picture.width if wide else 0), max(1, len(results)) * row_height)
    if wide:
        size = (panel[0] + 2 * margin, picture.height + panel[1] + 3 * margin)
        corner = (margin, picture.height + 2 * margin)
    else:
        size = (picture.width + panel[0] + 3 * margin, max(picture.height, panel[1]) + 2 * margin)
        corner = (picture.width + 2 * margin, margin)
    card = Image.new("RGB", size, "white")
    card.paste(picture, (margin, margin))
    draw = ImageDraw.Draw(card)
    for i, result in enumerate(results):
        x, y = corner[0], corner[1] + i * row_height
        score = min(1.0, max(0.0, float(result["score"])))
        font = ImageFont.load_default(size=18 if i == 0 else 15)
        number = f"{100 * score:.1f}%"
        number_width = draw.textlength(number, font=font)
        label = ellipsis(draw, str(result["label"]), font, panel[0] - number_width - 12)
        ink = INK if i == 0 else PALE_INK
        draw.text((x, y + 22), label, fill=ink, font=font, anchor="ls")
        draw.text((x + panel[0], y + 22), number, fill=ink, font=font, anchor="rs")
        draw.rounded_rectangle((x, y + 28, x + panel[0] - 1, y + 35), radius=4, fill=TRACK)
        if score > 0.002:
            length = max(8.0, score * panel[0])
            draw.rounded_rectangle(
                (x, y + 28, x + length - 1, y + 35), radius=4, fill=BAR if i == 0 else PALE_BAR
            )
    return card


def fit(image: Image.Image, shortest: int = SHORTEST_SIDE, longest: int = LONGEST_SIDE) -> Image.Image:
    """Return an RGB copy whose longer side has ``shortest`` to ``longest`` pixels, in the same aspect."""
    side = max(image.size)
    if side > longest:
        size = (max(1, round(image.width * longest / side)), max(1, round(image.height * longest / side)))
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if side < shortest:
        factor = math.ceil(shortest / side)  # a whole factor keeps every pixel the same size
        return image.convert("RGB").resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    return image.convert("RGB")


def contact_sheet(
    images: Sequence[Image.Image], captions: Sequence[str], *, columns: int | None = None, cell: int = 160
) -> Image.Image:
    """Set images with one line of caption each in a grid.

    Args:
        images: At least one; each is shown whole within a square of ``cell`` pixels.
        captions: As many; shortened to the width of the cell.
        columns: Images a row; by default as square as the count allows, eight at most.
        cell: Pixels.

    Raises:
        ValueError: No image, or another number of captions.
    """
    if not images or len(images) != len(captions):
        raise ValueError(
            f"{len(images)} images and {len(captions)} captions: expected as many, and at least one"
        )
    columns = columns or min(8, math.ceil(math.sqrt(len(images))))
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    gap, line = 12, 22
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + line + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = gap + (i % columns) * (cell + gap), gap + (i // columns) * (cell + line + gap)
        tile = fit(image, 1, cell)
        if max(tile.size) <= cell // 2:
            factor = cell // max(tile.size)
            tile = tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
        sheet.paste(tile, (x + (cell - tile.width) // 2, y + (cell - tile.height) // 2))
        draw.text((x, y + cell + 16), ellipsis(draw, caption, font, cell), fill=INK, font=font, anchor="ls")
    return sheet


def epoch_rows(metrics_csv: str | Path) -> list[dict[str, str]]:
    """Return the rows of a run's ``metrics.csv``. Raises ValueError: no row, or no ``epoch`` column."""
    with Path(metrics_csv).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in rows[0]:
        raise ValueError(f"{metrics_csv}: expected a column 'epoch' and at least one row")
    return rows


def column(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """Return a column as float64 (rows,); absent, empty or unreadable cells are NaN."""
    values = []
    for row in rows:
        try:
            values.append(float(row.get(name) or "nan"))
        except ValueError:
            values.append(math.nan)
    return np.array(values)


def curve(axes: "Axes", epochs: np.ndarray, values: np.ndarray, label: str, colour: str, form: str) -> None:
    """Draw one line, its last value in the legend; few epochs are marked, so that a single one is seen."""
    known = np.isfinite(values)
    if not known.any():
        return
    label = f"{label} ({form.format(values[known][-1])} at the end)"
    marker = "o" if known.sum() <= 20 else ""
    axes.plot(
        epochs[known], values[known], color=colour, marker=marker, markersize=3.5, linewidth=1.8, label=label
    )


def style_axes(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left", fontweight="bold")
    axes.grid(axis="y", color=TRACK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c0cc")
    axes.tick_params(colors=PALE_INK, labelsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG, all of it or nothing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as temporary, temporary.open("wb") as file, warnings.catch_warnings():
        # Class names in scripts that the bundled font lacks show as boxes; no reason for alarm.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()  # one pass of the layout leaves long tick labels over the edge
        canvas.print_png(file)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def ellipsis(draw: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> str:  # noqa: ANN401
    """Cut a text so that it is at most ``width`` pixels wide."""
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
