"""Pictures of measurements: cost against size, one line a contender; and bars."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from botvision.plots.style import INK, PALE_INK, TRACK, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, object]
# Okabe and Ito's colours, which the colour-blind tell apart, but the yellow that white paper swallows, and
# three more. Marker and dash tell lines apart where colour does not.
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"),
    *("#5b2a86", "#7a4a12", "#8a8a8a"),
)
REST = "#b8c0cc"  # bars of the others
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p", "<")
DASHES = ("-", "--", ":")


def loglog(
    rows: Sequence[Row],
    x: str,
    y: str | Sequence[str],
    by: str,
    panel: str | None = None,
    title: str = "",
    bold: Sequence[str] = (),
) -> "Figure":
    """Draw one or more costs against a size on two logarithmic axes.

    Args:
        rows: numbers under `x` and `y`; a row without one of them is no point.
        x: column of the size, such as "cells"; also the axis' label.
        y: column, or columns, of the cost, such as "time in ms"; each has a row of panels.
        by: column that names the line.
        panel: column whose values stand side by side, or None for one panel.
        title: of the whole.
        bold: values of `by` that are drawn on top and thick.
    """
    from matplotlib.figure import Figure

    costs = [y] if isinstance(y, str) else list(y)
    panels = list(dict.fromkeys(str(row[panel]) for row in rows)) if panel else [""]
    names = list(dict.fromkeys(str(row[by]) for row in rows))
    size = (max(5.0, 3.3 * len(panels)) + 1.6, 3.3 * len(costs) + 0.4)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    grid = figure.subplots(len(costs), len(panels), squeeze=False, sharex=True, sharey="row")
    for number, (line, cost) in enumerate(zip(grid, costs, strict=True)):
        for axes, name in zip(line, panels, strict=True):
            shown = [row for row in rows if not panel or str(row[panel]) == name]
            for place, contender in enumerate(names):
                points = _points([row for row in shown if str(row[by]) == contender], x, cost)
                if points:
                    _line(axes, points, contender, place, contender in bold)
            _style(axes, name if number == 0 else "")
        line[0].set_ylabel(cost, fontsize=9, color=PALE_INK)
    figure.align_ylabels()
    for axes in grid[-1]:
        axes.set_xlabel(x, fontsize=9, color=PALE_INK)
    entries = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    ordered = [name for name in names if name in entries]
    figure.legend(
        [entries[name] for name in ordered], ordered, loc="outside right upper", frameon=False, fontsize=9
    )
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK, fontweight="bold")
    return figure


def bars(
    rows: Sequence[Row], value: str, by: str, panel: str, title: str = "", bold: Sequence[str] = ()
) -> "Figure":
    """Draw one bar a row, each panel on a scale of its own from zero.

    Args:
        rows: a positive number under `value`.
        value: column of the lengths; also the axis' label.
        by: column that names the bar.
        panel: column whose values stand side by side, two a line.
        title: of the whole.
        bold: values of `by` whose bars have the colour.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panels = list(dict.fromkeys(str(row[panel]) for row in rows))
    most = max(sum(str(row[panel]) == name for row in rows) for name in panels)
    lines = (len(panels) + 1) // 2
    figure = Figure(figsize=(11, (0.34 * most + 0.9) * lines + 0.4), dpi=120, layout="constrained")
    grid = figure.subplots(lines, 2, squeeze=False)
    for axes, name in zip(grid.flat, panels, strict=False):
        shown = [row for row in rows if str(row[panel]) == name]
        names, lengths = [str(row[by]) for row in shown], [float(str(row[value])) for row in shown]
        colours = [COLOURS[0] if contender in bold else REST for contender in names]
        drawn = axes.barh(names, lengths, color=colours, height=0.7)
        axes.bar_label(drawn, [f"{length:,.0f}" for length in lengths], padding=3, fontsize=8, color=INK)
        style_axes(axes, name)
        axes.invert_yaxis()  # in the order of the rows
        axes.margins(x=0.16)  # room for the last number
        axes.grid(visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_xlabel(value, fontsize=9, color=PALE_INK)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK, fontweight="bold")
    return figure


def _points(rows: Sequence[Row], x: str, y: str) -> list[tuple[float, float]]:
    pairs = [(row.get(x), row.get(y)) for row in rows]
    return sorted(
        (float(a), float(b))
        for a, b in pairs
        if isinstance(a, int | float) and isinstance(b, int | float) and a > 0 and b > 0
    )


def _line(axes: "Axes", points: list[tuple[float, float]], label: str, place: int, bold: bool) -> None:
    axes.plot(
        *zip(*points, strict=True),
        label=label,
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)],
        linestyle=DASHES[place // 6 % len(DASHES)],
        linewidth=2.6 if bold else 1.3,
        markersize=6 if bold else 4.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=4 if bold else 3,
    )


def _style(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    style_axes(axes, title)
    if (legend := axes.get_legend()) is not None:
        legend.remove()  # one for all panels stands beside them
    axes.grid(axis="both", color=TRACK, linewidth=0.8)
    for axis in (axes.xaxis, axes.yaxis):
        lower, upper = axis.get_view_interval()
        wide = upper > 200 * lower  # then decades are marks enough
        axis.set_major_locator(LogLocator(10, subs=(1,) if wide else (1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: object) -> str:
    """10,000 rather than 10 to the 4th."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
