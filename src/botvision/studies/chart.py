"""One chart as SVG for a page: text is drawn as paths, colours are the page's, be it light or dark."""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, ROW = 4.8, 2.9, 0.22  # inches: a phone's width, so that text keeps its size; a legend's row
LETTERS, LINE, GAP, ROOM = 11, 13, 7, 250  # points: size of text at ticks, its line, between two, for all
SLANT = math.sin(math.radians(45))  # of turned labels
INK, PALE, GRID, CARD = "#1b2430", "#5b6675", "#dfe4eb", "#fefefe"
# Told apart by the colour-blind, too.
ARMS = ("#4d5663", "#0b62c4", "#c4501b", "#00805f", "#a3338f", "#8a6d00", "#2a93b8")
MARKERS, LINES = "osD^vPX", ("-", "--", "-.", ":")
# Colour -> variable of the page's style, which has a value for light and one for dark.
VARIABLES = {
    INK: "ink",
    PALE: "pale",
    GRID: "line",
    CARD: "card",
    **{colour: f"arm-{k}" for k, colour in enumerate(ARMS)},
}


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        title: Above it.
        caption: Below it: what is drawn.
        alt: What is to be seen, in words and numbers.
        svg: An element to be put into HTML; its ids begin with those of the title.
    """

    title: str
    caption: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Ticks:
    """Labels along the horizontal axis that do not run into each other.

    Attributes:
        labels: By place; all of them, or as many as there is room for.
        turned: By 45 degrees.
        height: Inches that turned labels need more than others.
    """

    labels: Mapping[float, str]
    turned: bool = False
    height: float = 0.0

    def put(self, axes: "Axes") -> None:
        """Set them."""
        axes.set_xticks(list(self.labels), list(self.labels.values()))
        if self.turned:
            for text in axes.get_xticklabels():
                text.set(rotation=45, rotation_mode="anchor", horizontalalignment="right")


def label_places(labels: Mapping[float, str]) -> Ticks:
    """Lay out labels by place, ascending: level if all fit, turned if not, and then only those that fit."""
    from matplotlib.textpath import TextPath

    widths = {
        at: float(TextPath((0, 0), text, size=LETTERS).get_extents().width) for at, text in labels.items()
    }
    places = list(labels)
    scale = ROOM / ((places[-1] - places[0]) or 1.0)
    if all((b - a) * scale >= (widths[a] + widths[b]) / 2 + GAP for a, b in pairwise(places)):
        return Ticks(labels)
    kept = [places[0], places[-1]]  # what a reader looks for first
    for at in places[1:-1]:
        if all(abs(at - other) * scale * SLANT >= LINE for other in kept):
            kept.append(at)
    height = (max(widths[at] for at in kept) * SLANT - LETTERS * (1 - SLANT)) / 72
    return Ticks({at: labels[at] for at in sorted(kept)}, True, max(0.0, height))


def drawn(
    draw: "Callable[[Axes], None]", title: str, caption: str, alt: str, height: float = HEIGHT
) -> Chart:
    """Draw a chart; the same values give the same text.

    Args:
        draw: What is in it.
        title: Above it; names its ids.
        caption: Below it.
        alt: What is to be seen.
        height: Inches, without the legend, which is below the chart.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": title, "svg.fonttype": "path"}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        draw(axes)
        _style(axes)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            columns = 1 if max(map(len, labels)) > 18 else 2
            figure.set_figheight(height + ROW * -(-len(labels) // columns))
            figure.legend(
                handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=11,
                labelcolor=INK,
            )  # fmt: skip
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return Chart(title, caption, alt, _for_a_page(file.getvalue(), title))


def look(number: int) -> tuple[str, str, str]:
    """Colour, marker and line of an arm."""
    line = LINES[number // len(ARMS) % len(LINES)]
    return ARMS[number % len(ARMS)], MARKERS[number % len(MARKERS)], line


def _style(axes: "Axes") -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=11, length=0)
    axes.xaxis.label.set(color=PALE, fontsize=11.5)
    axes.yaxis.label.set(color=PALE, fontsize=11.5)


def _for_a_page(svg: str, title: str) -> str:
    """The element alone: with ids of its own, without name spaces, sizes, comments and line breaks."""
    svg = svg[svg.index("<svg") :]
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", svg, count=5)
    svg = re.sub(r"(?<= id=\")|(?<=href=\"#)|(?<=url\(#)", f"{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><").strip()
