"""A study's charts: differences, scores along an axis, learning curves, cost against score."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from botvision.metrics.seeds import Interval
from botvision.studies.analysis import Analysis, spread_of
from botvision.studies.chart import CARD, HEIGHT, INK, PALE, Chart, drawn, label_places, look
from botvision.studies.outcome import Arm, Axis, Cost, Metric, cost_of, label_of
from botvision.tables.markdown import percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def charts(analysis: Analysis) -> dict[str, tuple[Chart, ...]]:
    """Return the charts by sections: "differences", "places", "learning", "cost"; one may be empty."""
    outcome = analysis.outcome
    axes = [(axis, metric) for axis in outcome.axes for metric in outcome.metrics]
    return {
        "differences": _those(_differences(analysis, metric) for metric in outcome.metrics),
        "places": _those(_places(analysis, axis, metric) for axis, metric in axes),
        "learning": _those([*(_learning(analysis, m) for m in outcome.metrics), _training(analysis)]),
        "cost": _those(_cost(analysis, name, of) for name, of in COSTS),
    }


def _those(found: Iterable[Chart | None]) -> tuple[Chart, ...]:
    return tuple(chart for chart in found if chart is not None)


def _differences(analysis: Analysis, metric: Metric) -> Chart | None:
    """Differences to the baseline: dots are seeds, lines intervals, thick over seeds and thin over images."""
    rows = [
        (arm, analysis.differences[arm.name, metric.name], number)
        for number, arm in enumerate(analysis.outcome.arms)
        if (arm.name, metric.name) in analysis.differences
    ]
    if not rows:
        return None

    def draw(axes: "Axes") -> None:
        seen: set[str] = set()

        def once(label: str) -> str:
            first = label not in seen
            seen.add(label)
            return label if first else f"_{label}"

        axes.axvline(0, color=PALE, linewidth=1.2)
        for place, (arm, found, number) in enumerate(rows):
            colour = look(number)[0]
            if found.over_seeds is not None:
                _bar(axes, found.over_seeds, place - 0.1, colour, 5, 0.45, once("95 % over seeds"))
            if found.over_images is not None:
                _bar(axes, found.over_images, place + 0.12, colour, 1.8, 1, once("95 % over images"))
            values = [100 * value for value in found.pairs.values()]
            axes.plot(
                values, [place - 0.1] * len(values), "o", color=colour, markersize=4.5, label=once("seeds")
            )
            axes.plot(100 * found.mean, place - 0.1, "|", color=INK, markersize=15, mew=2, label=once("mean"))
            said = _published(analysis, arm, metric)
            if said is not None:
                axes.plot(
                    100 * said,
                    place,
                    "D",
                    mfc="none",
                    color=PALE,
                    markersize=7,
                    label=once("published"),
                )
            axes.text(
                0, place - 0.3, arm.label, transform=axes.get_yaxis_transform(), color=INK, fontsize=11,
                bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.6, -0.75)
        axes.set_xlabel(f"Difference in {metric.title} to the baseline (points)")

    words = [f"{arm.label} {points(found.mean)}" for arm, found, _ in rows]
    return drawn(
        draw,
        f"Difference in {metric.title}",
        "Right of the line: better than the baseline. Dots: pairs of runs with the same seed.",
        f"Differences in {metric.title} to the baseline in points: {', '.join(words)}.",
        0.75 + 0.6 * len(rows),
    )


def _bar(
    axes: "Axes", found: Interval, height: float, colour: str, width: float, alpha: float, label: str
) -> None:
    ends = [100 * found.low, 100 * found.high]
    axes.plot(ends, [height] * 2, color=colour, lw=width, alpha=alpha, label=label, solid_capstyle="round")


def _published(analysis: Analysis, arm: Arm, metric: Metric) -> float | None:
    if arm.baseline is None:
        return None
    ours = arm.published.get(metric.name)
    theirs = analysis.outcome.arm(arm.baseline).published.get(metric.name)
    return None if ours is None or theirs is None else ours - theirs


def _places(analysis: Analysis, axis: Axis, metric: Metric) -> Chart | None:
    """A score along an axis: the mean over seeds, a band from the lowest to the highest."""
    places = analysis.places(axis.name)
    lines = []
    for number, arm in enumerate(analysis.outcome.arms):
        rows = []
        for at in places:
            values = [
                e.scores[metric.name]
                for run in arm.runs
                for e in run.evaluations
                if (e.axis, e.at) == (axis.name, at) and metric.name in e.scores
            ]
            rows += [(at, np.mean(values), min(values), max(values))] if values else []
        if rows:
            lines.append((arm, number, np.array(rows)))
    if not lines:
        return None
    names = {at: label_of(analysis.outcome, (axis.name, at)) for at in places}
    ticks = label_places(names)

    def draw(axes: "Axes") -> None:
        for arm, number, rows in lines:
            _line(axes, arm, number, rows * [1, 100, 100, 100])
            for at, mean, *_ in rows[rows[:, 0] == arm.trained_at.get(axis.name, np.nan)]:
                axes.plot(at, 100 * mean, "o", mfc="none", color=look(number)[0], markersize=12, mew=1.6)
        if metric.chance is not None:
            axes.axhline(100 * metric.chance, color=PALE, linestyle=":", linewidth=1.4, label="guessing")
        ticks.put(axes)
        axes.set(xlabel=axis.title, ylabel=f"{metric.title} (%)")

    words = []
    for arm, _, rows in lines:
        ends = [f"{percent(mean)} % at {names[at]}" for at, mean, *_ in (rows[0], rows[-1])]
        words.append(f"{arm.label} {' and '.join(dict.fromkeys(ends))}")
    rings = any(axis.name in arm.trained_at for arm, _, _ in lines)
    return drawn(
        draw,
        f"{metric.title} by {axis.words}",
        "Lines: mean over seeds; bands: from the lowest to the highest seed."
        + (" Rings: where the arm was trained." if rings else ""),
        f"{metric.title} by {axis.words}: {'; '.join(words)}.",
        HEIGHT + ticks.height,
    )


def _learning(analysis: Analysis, metric: Metric) -> Chart | None:
    title = f"{metric.title} during training"
    return _curves(analysis, f"val_{metric.name}", title, f"{metric.title} (%)", 100.0)


def _training(analysis: Analysis) -> Chart | None:
    return _curves(analysis, "train_loss", "Training loss", "Training loss", 1.0)


def _curves(analysis: Analysis, column: str, title: str, label: str, factor: float) -> Chart | None:
    """A column of the runs' history by epoch: mean over seeds, a band from the lowest to the highest."""
    lines = []
    for number, arm in enumerate(analysis.outcome.arms):
        by_epoch: dict[float, list[float]] = {}
        for run in arm.runs:
            for row in run.curve:
                value = row.get(column, np.nan)
                if np.isfinite(value):
                    by_epoch.setdefault(row["epoch"], []).append(factor * value)
        if by_epoch:
            rows = [(epoch, np.mean(v), min(v), max(v)) for epoch, v in sorted(by_epoch.items())]
            lines.append((arm, number, np.array(rows)))
    if not lines:
        return None

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        for arm, number, rows in lines:
            _line(axes, arm, number, rows)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(xlabel="Epoch", ylabel=label)

    words = [f"{arm.label} {rows[-1, 1]:.4g} after epoch {rows[-1, 0]:g}" for arm, _, rows in lines]
    return drawn(
        draw,
        title,
        "Lines: mean over seeds; bands: from the lowest to the highest seed.",
        f"{label} by epoch: {', '.join(words)}.",
    )


def _line(axes: "Axes", arm: Arm, number: int, rows: npt.NDArray[np.float64]) -> None:
    """Rows of place, mean, lowest and highest: a line in a band."""
    colour, marker, style = look(number)
    axes.fill_between(rows[:, 0], rows[:, 2], rows[:, 3], color=colour, alpha=0.16, linewidth=0)
    mark = marker if len(rows) <= 20 else ""
    axes.plot(rows[:, 0], rows[:, 1], style, marker=mark, markersize=4.5, color=colour, label=arm.label)


COSTS: Sequence[tuple[str, Callable[[Cost], float | None]]] = (
    ("M.Adds of an image (1e9)", lambda cost: cost.macs / 1e9),
    ("Parameters (1e6)", lambda cost: cost.params / 1e6),
    ("Training step (ms)", lambda cost: cost.step_ms),
    ("Peak memory (MB)", lambda cost: cost.peak_mb),
)


def _cost(analysis: Analysis, name: str, of: Callable[[Cost], float | None]) -> Chart | None:
    """The score that counts most over a cost, a point an arm, bars of one standard deviation."""
    metric = analysis.outcome.metrics[0]
    dots = []
    for number, arm in enumerate(analysis.outcome.arms):
        whole = cost_of(analysis.outcome, arm)
        cost = None if whole is None else of(whole)
        found = spread_of(arm, metric.name)
        if cost is not None and found is not None:
            dots.append((arm, number, cost, found))
    if not dots:
        return None

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        for arm, number, cost, found in dots:
            colour, marker, _ = look(number)
            axes.errorbar(
                cost, 100 * found.mean, 100 * (found.sd or 0.0), fmt=marker, color=colour, markersize=8,
                elinewidth=1.6, capsize=3, label=arm.label,
            )  # fmt: skip
        axes.margins(0.18)
        axes.set_xlim(0, 1.15 * max(cost for _, _, cost, _ in dots))  # from zero: a small saving looks small
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set(xlabel=name, ylabel=f"{metric.title} (%)")

    words = [f"{arm.label} {cost:.4g} and {percent(found.mean)} %" for arm, _, cost, found in dots]
    short = name.partition(" (")[0]
    return drawn(
        draw,
        f"{metric.title} over {short[:1].lower() if not short.startswith('M.') else short[:1]}{short[1:]}",
        "Up and to the left is better. Bars: one standard deviation over seeds.",
        f"{metric.title} over {name}: {', '.join(words)}.",
    )
