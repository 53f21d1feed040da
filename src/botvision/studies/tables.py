"""A study's numbers as tables: rows of strings, which become Markdown here and HTML on the page."""

from collections.abc import Iterable
from dataclasses import dataclass

from botvision.metrics.attention_use import TITLES
from botvision.metrics.seeds import LEVEL, POWER, Interval, Spread, detectable, paired, spread
from botvision.studies.analysis import Analysis, spread_of
from botvision.studies.outcome import Arm, Axis, Cost, Metric, StudyOutcome, cost_of, label_of
from botvision.studies.statistics import Difference, Verdict
from botvision.tables.markdown import percent, points, short, table

# Beside the verdicts, so that nobody takes them for more.
RULE = (
    f"Held: every {100 * LEVEL:g} % interval of the difference, over seeds and over images, lies above zero; "
    "did not hold: every one lies below. Where all pairs of runs differ by the same, the one over seeds has "
    "no width and does not count. Each claim is judged by itself: among twenty without any truth one or two "
    "would seem to hold or not to hold."
)
# Below the costs: what the numbers of a CPU and of a GPU have in common is their name.
PEAK = (
    "Peak: of a run's last process; on a CPU all of it that was resident, with interpreter, torch and cached "
    "data, on a GPU what torch allocated."
)
# What takes the place of attention, and what it is called.
WAYS = {"zero": "zero", "even": "even weights"}
USE = (
    "The runs' own validation again, with the output of every attention replaced and nothing retrained: by "
    "zero, and by the mean of the values. Contribution in points, mean ± standard deviation over seeds; 95 % "
    "intervals by Student's t. It says what the network relies on, not what attention is worth: for that see "
    "the other arms."
)


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: Above it.
        align: "l" or "r" for each column.
        note: Below it; may be empty.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    note: str = ""

    def to_markdown(self) -> str:
        """Return the table alone, without a final newline."""
        return table(self.header, self.rows, self.align)


def results_grid(analysis: Analysis) -> Grid:
    """Return the arms with cost, scores, differences to their baselines and what was published."""
    outcome = analysis.outcome
    header = ["arm", "n"]
    published = any(arm.published for arm in outcome.arms)
    for metric in outcome.metrics:
        header += [f"{metric.title} (%)", "difference (points)"]
        header += ["published (%)"] if published else []
    header += ["params (1e6)", "M.Adds (1e9)", "step (ms)", "peak (MB)"]
    header += ["source of the published"] if published else []
    rows = []
    for arm in outcome.arms:
        row = [arm.label, str(len(arm.runs))]
        for metric in outcome.metrics:
            key = arm.name, metric.name
            row += [_spread_cell(analysis.spreads.get(key)), _difference_cell(analysis.differences.get(key))]
            row += [_published_cell(analysis, arm, metric)] if published else []
        rows.append((*row, *_cost_cells(cost_of(outcome, arm)), *([arm.source] if published else [])))
    align = "l" + "r" * (len(header) - 1 - published) + "l" * published
    note = f"Mean ± sample standard deviation over n seeds. {_baselines(analysis)}In parentheses: the "
    note += f"{100 * LEVEL:g} % interval over seeds, by Student's t."
    note += " Published: elsewhere, at its own scale; not to be compared in height." if published else ""
    if any(metric.name.endswith("_ap") for metric in outcome.metrics):
        note += " AP: mean over IoU .50:.95. M.Adds of a detector: backbone and neck."
    if any(run.cost.peak_mb is not None for arm in outcome.arms for run in arm.runs):
        note += f" {PEAK}"
    return Grid("Results", tuple(header), tuple(rows), align, note)


def differences_grid(analysis: Analysis) -> Grid | None:
    """Return every difference with both of its intervals; None if there is none."""
    outcome, rows, reasons = analysis.outcome, [], []
    for metric in outcome.metrics:
        for arm in outcome.arms:
            found = analysis.differences.get((arm.name, metric.name))
            if found is None or arm.baseline is None:
                continue
            seeds = ", ".join(points(value) for value in found.pairs.values())
            cells = [arm.label, outcome.arm(arm.baseline).label, metric.title, points(found.mean), seeds]
            rows.append((*cells, *_interval_cells(found), _detectable_cell(found)))
            reasons += [found.no_images] if found.no_images else []
    if not rows:
        return None
    header = (
        "arm",
        "against",
        "metric",
        "mean",
        "by seed",
        "over seeds",
        "over images",
        "images",
        "detectable",
    )
    note = f"Points. {100 * LEVEL:g} % intervals: over seeds by Student's t over the pairs of runs with the "
    note += (
        "same seed (a bootstrap of so few values knows nothing of their tails); over images by a bootstrap "
    )
    note += (
        f"of {analysis.resamples:,} samples of the images, the same for all runs, of the mean over the pairs."
    )
    note += (
        " No interval is corrected for there being several. Detectable: the true difference that as many "
        f"seeds with this spread tell from zero in {100 * POWER:g} % of all studies."
    )
    return Grid("Differences", header, tuple(rows), "lllrrrrrr", note + _without_images(reasons))


def places_grids(analysis: Analysis) -> list[Grid]:
    """Return scores and differences along every axis."""
    outcome = analysis.outcome
    pairs = [(axis, metric) for axis in outcome.axes for metric in outcome.metrics]
    grids = [make(analysis, *pair) for pair in pairs for make in (places_grid, place_differences_grid)]
    return [grid for grid in grids if grid is not None]


def places_grid(analysis: Analysis, axis: Axis, metric: Metric) -> Grid | None:
    """Return a score along an axis, one row an arm; None if no run has it there."""
    outcome = analysis.outcome
    places = [(axis.name, at) for at in analysis.places(axis.name)]
    rows = []
    for arm in outcome.arms:
        spreads = [spread_of(arm, metric.name, place) for place in places]
        if any(spreads):
            marks = [" *" if arm.trained_at.get(axis.name) == at else "" for _, at in places]
            cells = [_spread_cell(spread) + _seeds(spread, arm) for spread in spreads]
            rows.append((arm.label, *(cell + mark for cell, mark in zip(cells, marks, strict=True))))
    if not rows:
        return None
    header = ("arm", *(label_of(outcome, place) for place in places))
    note = "Mean ± sample standard deviation over seeds."
    note += " * where it was trained." if any(cell.endswith(" *") for row in rows for cell in row) else ""
    title = f"{metric.title} (%) by {axis.words}"
    return Grid(title, header, tuple(rows), "l" + "r" * len(places), note)


def place_differences_grid(analysis: Analysis, axis: Axis, metric: Metric) -> Grid | None:
    """Return the differences to the baselines along an axis with both intervals; None if there are none.

    One row an arm and place, both in its first cell, which stays in sight where a phone scrolls the rest.
    """
    outcome, rows, reasons = analysis.outcome, [], []
    places = [(axis.name, at) for at in analysis.places(axis.name)]
    for arm in outcome.arms:
        for place in places:
            found = analysis.along.get((arm.name, metric.name, place))
            if found is None:
                continue
            name = f"{arm.label} (at {label_of(outcome, place)})"
            rows.append((name, _mean_cell(found), *_interval_cells(found)))
            reasons += [found.no_images] if found.no_images else []
    if not rows:
        return None
    header = ("arm (at)", "difference", "over seeds", "over images", "images")
    note = (
        f"Points. {_baselines(analysis)}{100 * LEVEL:g} % intervals: over seeds by Student's t, over images "
    )
    note += "by a bootstrap of those there."
    title = f"Difference in {metric.title} by {axis.words}"
    return Grid(title, header, tuple(rows), "lrrrr", note + _without_images(reasons))


def _without_images(reasons: Iterable[str]) -> str:
    """Why there is no interval over images, each reason once, to go on with a note."""
    return "".join(f" No interval over images where {reason}." for reason in dict.fromkeys(reasons))


def _seeds(spread: Spread | None, arm: Arm) -> str:
    """How many seeds there are, where it is not all of them."""
    return "" if spread is None or spread.n == len(arm.runs) else f" (n {spread.n})"


def runs_grid(analysis: Analysis) -> Grid:
    """Return every run: nothing is averaged away."""
    outcome = analysis.outcome
    titles = [f"{metric.title} (%)" for metric in outcome.metrics]
    rows = []
    for arm in outcome.arms:
        for run in sorted(arm.runs, key=lambda run: run.seed):
            scores = [percent(run.scores.get(metric.name)) for metric in outcome.metrics]
            seconds = run.cost.train_seconds
            minutes = "" if seconds is None else f"{seconds / 60:.1f}"
            images = "" if run.images is None else f"{run.images:,}"
            rows.append((run.folder.name, arm.label, str(run.seed), *scores, images, minutes))
    header = ("run", "arm", "seed", *titles, "images", "training (min)")
    return Grid("Every run", header, tuple(rows), "llr" + "r" * (len(titles) + 2))


def use_grid(outcome: StudyOutcome) -> Grid | None:
    """Return scores as trained and with attention replaced, and the difference; None without any."""
    uses, rows = {each.seed: each.use for each in outcome.uses}, []
    for metric, title in TITLES.items():
        own = {seed: use.as_trained[metric] for seed, use in uses.items() if metric in use.as_trained}
        for how, words in WAYS.items():
            effects = {seed: use.effect(how) for seed, use in uses.items()}
            other = {s: e.scores[metric] for s, e in effects.items() if e is not None and metric in e.scores}
            found, replaced, trained = paired(own, other), *(spread(list(v.values())) for v in (other, own))
            if found is None or replaced is None or trained is None:
                continue
            sd = "" if found.sd is None else f" ± {percent(found.sd)}"
            scores = percent(trained.mean), percent(replaced.mean)
            rows.append(
                (
                    f"{title}, {words}",
                    *scores,
                    points(found.mean) + sd,
                    _interval(found.over_seeds),
                    str(len(other)),
                )
            )
    if not rows:
        return None
    header = ("replaced by", "as trained (%)", "replaced (%)", "contribution", "over seeds", "n")
    label = outcome.arm(outcome.uses[0].arm).label
    return Grid(f"What attention contributes to {label}", header, tuple(rows), "lrrrrr", USE)


def settings_grid(analysis: Analysis) -> Grid | None:
    """Return the settings in which the arms differ; None if none is named."""
    arms = analysis.outcome.arms
    keys = list(dict.fromkeys(key for arm in arms for key in arm.settings))
    if not keys:
        return None
    rows = tuple((arm.label, *(str(arm.settings.get(key, "")) for key in keys)) for arm in arms)
    return Grid("What differs", ("arm", *keys), rows, "l" * (len(keys) + 1))


def facts_grid(title: str, facts: Iterable[tuple[str, str]]) -> Grid:
    """Return names with their values."""
    return Grid(title, ("", ""), tuple((name, str(value)) for name, value in facts), "ll")


def to_markdown(analysis: Analysis) -> str:
    """Return the whole report as Markdown; ends with a newline."""
    outcome = analysis.outcome
    parts = [f"# {outcome.title} ({outcome.scale} scale)", outcome.question]
    parts += ["\n".join(f"- Warning: {text}" for text in outcome.warnings)] if outcome.warnings else []
    if analysis.verdicts:
        parts += ["## What became of the claims", "\n".join(map(verdict_line, analysis.verdicts)), RULE]
    grids = [results_grid(analysis), differences_grid(analysis)]
    grids += places_grids(analysis)
    grids += [use_grid(outcome), runs_grid(analysis), settings_grid(analysis)]
    for grid in grids:
        if grid is not None:
            parts += [f"## {grid.title}", grid.to_markdown()]
            parts += [grid.note] if grid.note else []
    facts = [*outcome.common.items(), *outcome.environment.items()]
    if facts:
        parts += ["## Setting", "\n".join(f"- {name}: {value}" for name, value in facts)]
    if outcome.notes:
        parts.append("\n".join(f"- Note: {text}" for text in outcome.notes))
    if outcome.commands:
        parts += ["## Again", "\n".join(f"    {command}" for command in outcome.commands)]
    return "\n\n".join(parts) + "\n"


def verdict_line(verdict: Verdict) -> str:
    """Return one line of Markdown: the claim, what became of it, the numbers."""
    line = f'- "{verdict.claim.text}" ({verdict.claim.source}): **{verdict.word}**. {verdict.sentence}'
    return line if verdict.published is None else f"{line} Published: {100 * verdict.published:+.1f} points."


def _baselines(analysis: Analysis) -> str:
    names = dict.fromkeys(arm.baseline for arm in analysis.outcome.arms if arm.baseline)
    if not names:
        return ""
    labels = [analysis.outcome.arm(name).label for name in names]
    against = labels[0] if len(labels) == 1 else f"the arm's baseline ({', '.join(labels)})"
    return f"Difference: against {against}, mean ± standard deviation over pairs of runs with the same seed. "


def _cost_cells(cost: Cost | None) -> list[str]:
    if cost is None:
        return [""] * 4
    return [
        short(cost.params / 1e6),
        short(cost.macs / 1e9),
        "" if cost.step_ms is None else f"{cost.step_ms:.1f}",
        "" if cost.peak_mb is None else f"{cost.peak_mb:,.0f}",
    ]


def _spread_cell(found: Spread | None) -> str:
    if found is None:
        return ""
    return percent(found.mean) + ("" if found.sd is None else f" ± {percent(found.sd)}")


def _difference_cell(found: Difference | None) -> str:
    if found is None:
        return ""
    text = _mean_cell(found)
    return text if found.over_seeds is None else f"{text} ({_interval(found.over_seeds)})"


def _mean_cell(found: Difference) -> str:
    return points(found.mean) + ("" if found.sd is None else f" ± {percent(found.sd)}")


def _interval_cells(found: Difference) -> list[str]:
    """Over seeds, over images, and over how many."""
    images = "" if found.images is None else f"{found.images:,}"
    return [_interval(found.over_seeds), _interval(found.over_images), images]


def _detectable_cell(found: Difference) -> str:
    """In points; empty for one pair, or pairs that differ by exactly the same."""
    return percent(detectable(found.sd, len(found.pairs))) if found.sd else ""


def _published_cell(analysis: Analysis, arm: Arm, metric: Metric) -> str:
    value = arm.published.get(metric.name)
    if value is None:
        return ""
    text = f"{100 * value:.1f}"
    against = analysis.outcome.arm(arm.baseline).published.get(metric.name) if arm.baseline else None
    return text if against is None else f"{text} ({100 * (value - against):+.1f})"


def _interval(found: Interval | None) -> str:
    return "" if found is None else f"{points(found.low)} to {points(found.high)}"
