"""A study's charts as SVG: differences, scores along an axis, learning curves, cost against score."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from botvision.plots.style import INK, PALE_INK
from botvision.studies.outcome import Arm, RunCost
from botvision.studies.statistics import Analysis, spread_of
from botvision.tables.markdown import percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, ROW = 4.8, 2.9, 0.22  # inches: a phone's width, so that text keeps its size; a legend's row
GRID = "#dfe4eb"
# Told apart by the colour-blind, too.
COLOURS = ("#4d5663", "#0b62c4", "#c4501b", "#00805f", "#a3338f", "#8a6d00", "#2a93b8")
MARKERS, LINES = "osD^vPX", ("-", "--", "-.", ":")
STYLE = {
    "svg.fonttype": "path",
    **{"axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.edgecolor": GRID, "axes.labelcolor": PALE_INK, "axes.labelsize": 11.5, "grid.color": GRID},
    **{"xtick.color": INK, "xtick.labelsize": 11, "xtick.major.size": 0},
    **{"ytick.color": INK, "ytick.labelsize": 11, "ytick.major.size": 0},
    **{"text.color": INK, "legend.fontsize": 11},
}
COSTS: Sequence[tuple[str, str, Callable[[RunCost], float | None]]] = (
    ("M.Adds of an image", "1e9", lambda cost: cost.macs / 1e9),
    ("parameters", "1e6", lambda cost: cost.params / 1e6),
    ("training step", "ms", lambda cost: cost.step_ms),
    ("peak memory", "MB", lambda cost: cost.peak_mb),
)
BANDS = "Lines: mean over seeds; bands: from the lowest to the highest seed."


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        title: above it.
        caption: below it: what is drawn.
        alt: what is to be seen, in words and numbers.
        svg: the file.
    """

    title: str
    caption: str
    alt: str
    svg: str


@dataclass(frozen=True)
class _Line:
    """Where an arm was measured, ascending, and all scores there."""

    arm: Arm
    look: dict[str, Any]
    values: dict[float, list[float]]


def difference_charts(analysis: Analysis) -> list[Chart]:
    """Draw differences to the baseline: dots are seeds, thick lines over seeds, thin lines over images."""
    outcome, charts = analysis.outcome, list[Chart]()
    for metric, spec in outcome.metrics.items():
        found = [
            (arm, _colour(number), analysis.differences[arm.name, metric, None])
            for number, arm in enumerate(outcome.arms)
            if (arm.name, metric, None) in analysis.differences
        ]
        if not found:
            continue
        words = [f"{arm.label} {points(each.mean)}" for arm, _, each in found]
        with _chart(
            charts,
            f"Difference in {spec.title}",
            "Right of the line: better than the baseline. Dots: pairs of runs with the same seed.",
            f"Differences in {spec.title} to the baseline in points: {', '.join(words)}.",
            0.75 + 0.6 * len(found),
        ) as axes:
            axes.axvline(0, color=PALE_INK, linewidth=1.2)
            for row, (arm, colour, each) in enumerate(found):
                level = row - 0.1
                for interval, at, width, alpha, label in (
                    (each.over_seeds, level, 5, 0.45, "95 % over seeds"),
                    (each.over_images, row + 0.12, 1.8, 1, "95 % over images"),
                ):
                    if interval is not None:
                        ends = [100 * interval.low, 100 * interval.high]
                        look = {"lw": width, "alpha": alpha, "solid_capstyle": "round"}
                        axes.plot(ends, [at, at], color=colour, label=label, **look)
                values = [100 * value for value in each.pairs.values()]
                axes.plot(values, [level] * len(values), "o", color=colour, markersize=4.5, label="seeds")
                axes.plot(100 * each.mean, level, "|", color=INK, markersize=15, mew=2, label="mean")
                said = outcome.published(((1, arm.name, None), (-1, str(arm.baseline), None)), metric)
                if said is not None:
                    axes.plot(
                        100 * said, row, "D", mfc="none", color=PALE_INK, markersize=7, label="published"
                    )
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                where = axes.get_yaxis_transform()
                axes.text(0, row - 0.3, arm.label, transform=where, fontsize=11, bbox=box)
            axes.set_yticks([])
            axes.set_ylim(len(found) - 0.6, -0.75)
            axes.set_xlabel(f"Difference in {spec.title} to the baseline (points)")
    return charts


def axis_charts(analysis: Analysis, axis: str) -> list[Chart]:
    """Draw the scores along an axis, with a ring where an arm was trained."""
    outcome, charts, spec = analysis.outcome, list[Chart](), analysis.outcome.axes[axis]
    names = {place[1]: outcome.label_of(place) for place in outcome.places(axis)}
    turned = max(map(len, names.values()), default=0) > 5
    rings = " Rings: where the arm was trained." * any(axis in arm.trained_at for arm in outcome.arms)
    for metric, measured in outcome.metrics.items():
        lines = _lines(
            outcome.arms,
            {
                arm.name: [(at, run.score(metric, (axis, at))) for at in names for run in arm.runs]
                for arm in outcome.arms
            },
            100,
        )
        if not lines:
            continue
        words = []
        for line in lines:
            ends = dict.fromkeys((next(iter(line.values)), next(reversed(line.values))))
            said = [f"{np.mean(line.values[at]):.2f} % at {names[at]}" for at in ends]
            words.append(f"{line.arm.label} {' and '.join(said)}")
        title = f"{measured.title} by {spec.words}"
        # what turned labels need is not taken from the curves
        height = HEIGHT + (0.7 if turned else 0.0)
        with _chart(charts, title, f"{BANDS}{rings}", f"{title}: {'; '.join(words)}.", height) as axes:
            _draw(axes, lines, spec.title, f"{measured.title} (%)")
            for line in lines:
                at = line.arm.trained_at.get(axis)
                if at in line.values:
                    ring = {"mfc": "none", "markersize": 12, "mew": 1.6}
                    axes.plot(at, np.mean(line.values[at]), "o", color=line.look["color"], **ring)
            if measured.chance is not None:
                axes.axhline(
                    100 * measured.chance, color=PALE_INK, linestyle=":", linewidth=1.4, label="guessing"
                )
            axes.set_xticks(list(names), list(names.values()))
            for text in axes.get_xticklabels() if turned else ():
                text.set(rotation=45, rotation_mode="anchor", horizontalalignment="right")
    return charts


def learning_charts(analysis: Analysis) -> list[Chart]:
    """Draw the metrics and the training loss by epoch."""
    from matplotlib.ticker import MaxNLocator

    outcome, charts = analysis.outcome, list[Chart]()
    columns = {
        f"val_{metric}": (f"{spec.title} during training", f"{spec.title} (%)", 100.0)
        for metric, spec in outcome.metrics.items()
    }
    columns["train_loss"] = ("Training loss", "Training loss", 1.0)
    for column, (title, label, factor) in columns.items():
        values = {
            arm.name: [
                (row["epoch"], row.get(column))
                for row in sorted(
                    (row for run in arm.runs for row in run.curve), key=lambda row: row["epoch"]
                )
            ]
            for arm in outcome.arms
        }
        lines = _lines(outcome.arms, values, factor)
        if lines:
            last = [(line.arm.label, *list(line.values.items())[-1]) for line in lines]
            words = [f"{arm} {np.mean(found):.4g} after epoch {epoch:g}" for arm, epoch, found in last]
            with _chart(charts, title, BANDS, f"{label} by epoch: {', '.join(words)}.") as axes:
                _draw(axes, lines, "Epoch", label)
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return charts


def cost_charts(analysis: Analysis) -> list[Chart]:
    """Draw the score that counts most over each cost, a point an arm, bars of one standard deviation."""
    from matplotlib.ticker import MaxNLocator

    outcome, charts = analysis.outcome, list[Chart]()
    metric, spec = next(iter(outcome.metrics.items()))
    for name, unit, of in COSTS:
        dots = []
        for number, arm in enumerate(outcome.arms):
            cost, found = outcome.cost_of(arm), spread_of(arm, metric)
            value = None if cost is None else of(cost)
            if value is not None and found is not None:
                dots.append((number, arm.label, value, found))
        if not dots:
            continue
        label = f"{name[:1].upper()}{name[1:]} ({unit})"
        words = [f"{arm} {value:.4g} and {percent(found.mean)} %" for _, arm, value, found in dots]
        with _chart(
            charts,
            f"{spec.title} over {name}",
            "Up and to the left is better. Bars: one standard deviation over seeds.",
            f"{spec.title} over {label}: {', '.join(words)}.",
        ) as axes:
            for number, arm, value, found in dots:
                look = {"fmt": MARKERS[number % len(MARKERS)], "color": _colour(number), "label": arm}
                bar = 100 * (found.sd or 0.0)
                axes.errorbar(value, 100 * found.mean, bar, markersize=8, elinewidth=1.6, capsize=3, **look)
            axes.margins(0.18)
            axes.set_xlim(0, 1.15 * max(value for _, _, value, _ in dots))  # a small saving looks small
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.set(xlabel=label, ylabel=f"{spec.title} (%)")
    return charts


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _lines(
    arms: Sequence[Arm], measured: dict[str, list[tuple[float, float | None]]], factor: float
) -> list[_Line]:
    """What is drawn of arms, by name; of what was not measured nothing."""
    lines = []
    for number, arm in enumerate(arms):
        values: dict[float, list[float]] = {}
        for at, value in measured[arm.name]:
            if value is not None and np.isfinite(value):
                values.setdefault(at, []).append(factor * value)
        style = LINES[number // len(COLOURS) % len(LINES)]
        mark = MARKERS[number % len(MARKERS)] if len(values) <= 20 else ""
        if values:
            lines.append(_Line(arm, {"color": _colour(number), "linestyle": style, "marker": mark}, values))
    return lines


def _draw(axes: "Axes", lines: Sequence[_Line], x: str, y: str) -> None:
    """Draw a line in a band for each arm."""
    for line in lines:
        at, values = list(line.values), line.values.values()
        colour = line.look["color"]
        axes.fill_between(at, [*map(min, values)], [*map(max, values)], color=colour, alpha=0.16, linewidth=0)
        axes.plot(at, [np.mean(v) for v in values], markersize=4.5, label=line.arm.label, **line.look)
    axes.set(xlabel=x, ylabel=y)


@contextmanager
def _chart(
    charts: list[Chart], title: str, caption: str, alt: str, height: float = HEIGHT
) -> "Iterator[Axes]":
    """Yield what to draw on, `height` inches high beside its legend, and add it to the charts when drawn."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": title}):  # the same values give the same file
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        yield axes
        legend: dict[str, Any] = {}
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            legend.setdefault(label, handle)
        if legend:
            columns = 1 if max(map(len, legend)) > 18 else 2
            figure.set_figheight(height + ROW * -(-len(legend) // columns))
            handles = list(legend.values())
            figure.legend(handles, list(legend), loc="outside lower center", ncols=columns, frameon=False)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    charts.append(Chart(title, caption, alt, file.getvalue()))
