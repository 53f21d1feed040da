"""Pictures of attention: maps over their image, how far heads look, what position tables say.

Functions return matplotlib figures, which `save_figure` writes. Arrays are numpy's; height before width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from botvision.plots.style import INK, PALE_INK, TRACK, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUERY = "#00e5ff"  # told apart from the warm colours of the maps, and from photographs
TILE = 2.3  # longer side of a tile in inches
NARROWEST = 2.05  # inches of a column: a line such as "up to 100 %, 1024.0x even" fits
TYPE = 11  # points of all text: to be read where a page shows the picture at six tenths of its size
HEAD_COLOURS = ("#1f5fbf", "#e8863c", "#2a9d74", "#b2479b", "#8a94a6", "#c9a400", "#5bb5e8", "#7a4fd0")
FADED = 0.45  # brightness that remains of the photo where no attention falls
LEAST_TOP = 2.0  # full light is at least so many times even attention, so that noise on an even map stays dim

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]
"""Top, left, bottom, right edges in pixels of the image, whose first pixel lies from 0 to 1."""


@dataclass(frozen=True)
class MapRow:
    """The maps of one query in one block.

    Attributes:
        title: of the block.
        maps: (N, H, W), each sums to 1.
        names: N names of the maps, such as "head 1".
        edges: H + 1 and W + 1 places in pixels of the image between which rows and columns of cells lie.
        query: what the query's cell stands for.
        at: (y, x) of the query's pixel.
    """

    title: str
    maps: Array
    names: Sequence[str]
    edges: tuple[Sequence[float], Sequence[float]]
    query: Box
    at: tuple[int, int]


@dataclass(frozen=True)
class DistanceRow:
    """How far the heads of one block look, in cells.

    Attributes:
        title: of the block.
        mean: (N,) over all queries.
        low: (N,) tenth percentile of the queries.
        high: (N,) ninetieth percentile.
        uniform: mean distance of a head that attends to all cells alike.
        stride: pixels of the input for a cell.
    """

    title: str
    mean: Array
    low: Array
    high: Array
    uniform: float
    stride: int


@dataclass(frozen=True)
class PositionRow:
    """What the position tables of one block add to the logits of its heads' mean queries.

    Attributes:
        title: of the block.
        logits: (N, R, C) by relative offset, the middle being 0, or by place.
        relative: whether it is by offset.
    """

    title: str
    logits: Array
    relative: bool


def maps_figure(image: Image.Image, size: tuple[int, int], rows: Sequence[MapRow]) -> "Figure":
    """Draw attention maps over their image: a row for each block, a column for each head.

    The photo is grey and faded. Attention gives colour and light where it is above even attention, up to
    the map's own largest weight, or to twice even attention if that is more: what gets its even share or less
    shows the photo. The query's cell has a frame, its pixel a dot.

    Args:
        image: the image, at any scale.
        size: (height, width) of the image in the pixels of the rows' boxes.
        rows: at least one; the photo stands at the left of each.
    """
    from matplotlib import colormaps

    tall, wide = _tile(size)
    columns = 1 + max(len(row.maps) for row in rows)
    sides = (columns * (max(wide, NARROWEST) + 0.1), len(rows) * (tall + 0.55))
    figure = new_figure(*sides)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)  # pyrefly: ignore
    photo = np.asarray(image.convert("RGB"))
    dim = (FADED * np.asarray(image.convert("L"))[..., None].repeat(3, -1)).astype(np.uint8)
    for row, tiles in zip(rows, figure.subplots(len(rows), columns, squeeze=False), strict=True):
        height, width = row.maps.shape[1:]
        _show_photo(tiles[0], photo, size, f"{row.title}\n{height}x{width} cells", INK)
        _mark(tiles[0], row)
        y, x = (np.asarray(edges) - 0.5 for edges in row.edges)
        for axes, weights, name in zip(tiles[1:], row.maps, row.names, strict=False):
            caption = f"{name}\nup to {_percent(weights.max())} %, {_times_even(weights)} even"
            _show_photo(axes, dim, size, caption, PALE_INK)
            times = weights * weights.size  # of even attention
            light = np.clip((times - 1) / (max(float(times.max()), LEAST_TOP) - 1), 0.0, 1.0)
            glow = colormaps["inferno"](0.35 + 0.65 * light)  # through red and orange to pale yellow
            glow[..., 3] = 0.88 * light**1.25
            axes.pcolormesh(x, y, glow, antialiased=False)
            _mark(axes, row)
        for axes in tiles[1 + len(row.maps) :]:
            axes.set_axis_off()
    return figure


def distance_figure(rows: Sequence[DistanceRow]) -> "Figure":
    """Draw the mean distance of every head, with the spread over queries, and that of uniform attention."""
    from matplotlib.ticker import MaxNLocator

    heads = max(len(row.mean) for row in rows)
    # the legend is below, so that the heads are seen first where the picture has to be scrolled
    sides = (max(5.2, 0.8 + 1.44 * len(rows)), 3.4 + 0.22 * math.ceil((heads + 2) / 2))
    figure = new_figure(*sides)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        middles = place + (np.arange(len(row.mean)) - (len(row.mean) - 1) / 2) * 0.7 / heads
        axes.hlines(
            row.uniform * row.stride, place - 0.45, place + 0.45, color=PALE_INK, linestyle="--", lw=1
        )
        for n, middle in enumerate(middles):
            colour = HEAD_COLOURS[n % len(HEAD_COLOURS)]
            low, mean, high = (float(part[n]) * row.stride for part in (row.low, row.mean, row.high))
            axes.vlines(middle, low, high, color=colour, lw=2, alpha=0.45)
            axes.plot(middle, mean, "o", color=colour, markersize=7)
    for n in range(heads):
        axes.plot([], [], "o", color=HEAD_COLOURS[n % len(HEAD_COLOURS)], markersize=7, label=f"head {n + 1}")
    axes.plot([], [], color=PALE_INK, lw=2, alpha=0.45, label="10 to 90 % of queries")
    axes.plot([], [], color=PALE_INK, linestyle="--", lw=1, label="attention to all cells alike")
    axes.set_xticks(range(len(rows)), [row.title for row in rows])
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("pixels of the network's input", fontsize=TYPE, color=PALE_INK)
    style_axes(axes, "Mean attention distance")
    axes.tick_params(labelsize=TYPE)
    axes.legend(frameon=False, fontsize=TYPE, ncols=2, loc="upper left", bbox_to_anchor=(0.0, -0.1))
    return figure


def position_figure(rows: Sequence[PositionRow]) -> "Figure":
    """Draw what position tables say, a row for each block and a column for each head.

    Colours are logits of position alone less their mean, which no softmax notices: red attracts, blue
    repels; the scale is that of the row. Offsets are those of the key from the query, in cells.
    """
    from matplotlib.ticker import MaxNLocator

    columns = max(len(row.logits) for row in rows)
    tall, wide = _tile((rows[0].logits.shape[1], rows[0].logits.shape[2]))
    figure = new_figure(columns * (wide + 0.5) + 1.0, len(rows) * (tall + 0.75))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, tiles in zip(rows, grid, strict=True):
        centred = row.logits - row.logits.mean((1, 2), keepdims=True)
        largest = max(float(np.abs(centred).max()), 1e-6)
        drawn = None
        for n, (axes, logits) in enumerate(zip(tiles, centred, strict=False)):
            height, width = logits.shape
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            if row.relative:
                extent = (-width / 2, width / 2, height / 2, -height / 2)
                axes.plot(0, 0, "+", color=INK, markersize=7, markeredgewidth=1.0)
            drawn = axes.imshow(logits, cmap="RdBu_r", vmin=-largest, vmax=largest, extent=extent)
            title = f"{row.title}, head 1" if n == 0 else f"head {n + 1}"
            axes.set_title(title, fontsize=TYPE, color=INK, loc="left")
            axes.tick_params(colors=PALE_INK, labelsize=TYPE, length=2)
            for axis, cells in ((axes.xaxis, width), (axes.yaxis, height)):  # the shorter side holds fewer
                bins = max(1, round(5 * cells / max(height, width)))
                axis.set_major_locator(MaxNLocator(bins, integer=True))
            axes.spines[:].set_color(TRACK)
            axes.set_xlabel("dx" if row.relative else "x", fontsize=TYPE, color=PALE_INK, labelpad=1)
            if n == 0:
                axes.set_ylabel("dy" if row.relative else "y", fontsize=TYPE, color=PALE_INK, labelpad=1)
        for axes in tiles[len(row.logits) :]:
            axes.set_axis_off()
        if drawn is not None:
            bar = figure.colorbar(drawn, ax=list(tiles), fraction=0.025, pad=0.01)
            bar.ax.tick_params(colors=PALE_INK, labelsize=TYPE, length=2)
            bar.outline.set_visible(False)  # pyrefly: ignore
    return figure


def maps_text(rows: Sequence[MapRow]) -> str:
    """Say where the query is, and how far the largest weight of each map exceeds even attention."""
    y, x = rows[0].at
    said = [f"query at y {y}, x {x}"]
    for row in rows:
        heads = zip(row.names, row.maps, strict=True)
        tops = [f"{name} up to {_times_even(weights)} even" for name, weights in heads]
        said.append(f"{row.title}: {', '.join(tops)}")
    return "; ".join(said)


def distance_text(rows: Sequence[DistanceRow]) -> str:
    """Say the mean distance of every head in pixels of the network's input, and that of even attention."""
    said = []
    for row in rows:
        heads = [f"head {n} {mean * row.stride:.0f} px" for n, mean in enumerate(row.mean, 1)]
        said.append(f"{row.title}: {', '.join(heads)}, even attention {row.uniform * row.stride:.0f} px")
    return "; ".join(said)


def position_text(rows: Sequence[PositionRow]) -> str:
    """Say which offset, or place, the tables raise most for every head, and by how much above their mean."""
    said = []
    for row in rows:
        heads = []
        for n, logits in enumerate(row.logits, 1):
            y, x = (int(place) for place in np.unravel_index(logits.argmax(), logits.shape))
            where = f"at y {y}, x {x}"
            if row.relative:
                where = f"towards dy {y - logits.shape[0] // 2}, dx {x - logits.shape[1] // 2}"
            heads.append(f"head {n} most {where} ({logits.max() - logits.mean():+.2g})")
        said.append(f"{row.title}: {', '.join(heads)}")
    return "; ".join(said)


def _times_even(weights: Array) -> str:
    """The largest weight of a map in multiples of what attention to all cells alike gives each of them."""
    return f"{weights.max() * weights.size:.1f}x"


def _percent(part: float) -> str:
    """Two digits, and never an exponent."""
    return f"{100 * part:.2g}" if part < 0.0995 else f"{100 * part:.0f}"


def _tile(size: tuple[int, int]) -> tuple[float, float]:
    """(height, width) in inches of a picture of `size`; slender ones get a tile that still holds a title."""
    longest = max(size)
    return max(0.8, TILE * size[0] / longest), max(1.5, TILE * size[1] / longest)


def _show_photo(axes: "Axes", pixels: Array, size: tuple[int, int], title: str, colour: str) -> None:
    """Show a picture of any scale in the image's own coordinates: the middle of its first pixel is (0, 0)."""
    axes.imshow(pixels, extent=(-0.5, size[1] - 0.5, size[0] - 0.5, -0.5), interpolation="antialiased")
    axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))  # whatever is drawn upon it
    axes.set_title(title, fontsize=TYPE, color=colour, loc="left")
    axes.set_anchor("W")  # a column is as wide as its title, which begins where the picture does
    axes.set_axis_off()


def _mark(axes: "Axes", row: MapRow) -> None:
    """Frame the query's cell and put a dot on the point that was asked for."""
    from matplotlib.patches import Rectangle

    top, left, bottom, right = row.query
    corner, sides = (left - 0.5, top - 0.5), (right - left, bottom - top)
    for colour, width in (("black", 2.6), (QUERY, 1.4)):
        axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, lw=width))
    y, x = row.at
    axes.plot(x, y, "o", color=QUERY, markeredgecolor="black", markeredgewidth=0.6, markersize=3.5)
