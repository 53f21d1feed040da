"""Pictures of accuracy broken down by a quantity of the images, and of the images in its intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from botvision.plots.style import INK, PALE_INK, VAL_COLOUR, ellipsis, fit, save_figure, style_axes

if TYPE_CHECKING:  # for their names alone: they bring torch
    from botvision.metrics.classification import Breakdown

COLOURS = (VAL_COLOUR, "#c4501b", "#2c8a57", "#8a4fbf")  # told apart by the colour-blind, too
SPREAD = 1.96  # standard errors: 95 of 100 such bars hold the accuracy on all images there could be


def accuracy_by_group(breakdowns: "Mapping[str, Breakdown]", out_png: str | Path, chance: float) -> None:
    """Draw accuracy over the intervals of a quantity, with bars of two standard errors.

    Args:
        breakdowns: by the name of what was measured; of the same quantity.
        out_png: Written under a temporary name and renamed.
        chance: accuracy of guessing, 0..1, drawn as a dashed line.

    Raises:
        ValueError: Nothing to draw.
    """
    from matplotlib.figure import Figure

    if not breakdowns:
        raise ValueError("no breakdown to draw, expected one or more")
    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
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
    save_figure(figure, Path(out_png))


def picture_table(
    rows: Sequence[tuple[str, Sequence[Image.Image | None]]], headings: Sequence[str], cell: int = 160
) -> Image.Image:
    """Set pictures in a table with a heading above each column and a name beside each row.

    Args:
        rows: name, and a picture or None for each column.
        headings: of the columns.
        cell: each picture is shown whole within a square of so many pixels.

    Raises:
        ValueError: No row or column, or a row of another length.
    """
    if not rows or not headings or any(len(pictures) != len(headings) for _, pictures in rows):
        raise ValueError(f"expected rows of {len(headings)} pictures, and at least one")
    gap, line, font = 10, 26, ImageFont.load_default(size=14)
    left = gap + max(round(font.getlength(name)) for name, _ in rows) + gap
    size = (left + len(headings) * (cell + gap), line + gap + len(rows) * (cell + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for i, heading in enumerate(headings):
        text = ellipsis(draw, heading, font, cell)
        draw.text((left + i * (cell + gap) + cell / 2, line), text, fill=INK, font=font, anchor="ms")
    for k, (name, pictures) in enumerate(rows):
        top = line + gap + k * (cell + gap)
        draw.text((left - gap, top + cell / 2), name, fill=INK, font=font, anchor="rm")
        for i, picture in enumerate(pictures):
            if picture is None:
                continue
            tile = fit(picture, 1, cell)
            factor = cell // max(tile.size)
            if factor > 1:  # a whole factor keeps every pixel the same size
                tile = tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
            corner = (left + i * (cell + gap) + (cell - tile.width) // 2, top + (cell - tile.height) // 2)
            sheet.paste(tile, corner)
    return sheet
