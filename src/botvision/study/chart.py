"""One chart as SVG for a page: text is drawn as paths, colours are the page's, be it light or dark."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, ROW = 4.8, 2.9, 0.22  # inches: a phone's width, so that text keeps its size; a legend's row
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
