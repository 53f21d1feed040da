"""What all pictures share: colours, sizes, axes, and files that are written whole or not.

matplotlib is used through `Figure` objects (no pyplot, hence no global state) and only inside the functions
that need it.
"""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from botvision.io.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE_INK, TRACK = "#1b2430", "#5b6675", "#e6eaf0"


def fit(image: Image.Image, shortest: int = 256, longest: int = 768) -> Image.Image:
    """Return an RGB copy whose longer side has `shortest` to `longest` pixels, in the same aspect."""
    image, side = image.convert("RGB"), max(image.size)
    if side > longest:
        size = (max(1, round(image.width * longest / side)), max(1, round(image.height * longest / side)))
        return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    factor = math.ceil(shortest / side)  # a whole factor keeps every pixel the same size
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def ellipsis(draw: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> str:  # noqa: ANN401
    """Return a text on one line, cut so that it is at most `width` pixels wide."""
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of that size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def style_axes(axes: "Axes", title: str) -> None:
    """Give axes the title, grid and legend that all charts have."""
    axes.set_title(title, fontsize=11, color=INK, loc="left", fontweight="bold")
    axes.grid(axis="y", color=TRACK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c0cc")
    axes.tick_params(colors=PALE_INK, labelsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a PNG, all of it or nothing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as temporary, temporary.open("wb") as file, warnings.catch_warnings():
        # Class names in scripts that the bundled font lacks show as boxes; no reason for alarm.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()  # one pass of the layout leaves long tick labels over the edge
        canvas.print_png(file)
