"""A study's report: one HTML page that needs nothing else, Markdown, and JSON."""

import base64
import dataclasses
import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from botvision.io.files import write_text
from botvision.metrics.attention_use import TITLES
from botvision.metrics.seeds import LEVEL, POWER, Interval, Spread, detectable, paired, spread
from botvision.studies.charts import Chart, axis_charts, cost_charts, difference_charts, learning_charts
from botvision.studies.outcome import Outcome, Picture
from botvision.studies.spec import Term
from botvision.studies.statistics import Analysis, Contrast, Verdict, analyse, spread_of
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
WAYS = {"zero": "zero", "even": "even weights"}  # what takes the place of attention, and what it is called
USE = (
    "The runs' own validation again, with the output of every attention replaced and nothing retrained: by "
    "zero, and by the mean of the values. Contribution in points, mean ± standard deviation over seeds; 95 % "
    "intervals by Student's t. It says what the network relies on, not what attention is worth: for that see "
    "the other arms."
)
LEAST = 0.62  # part of its own size that a picture keeps: 11 points at 120 dots an inch are then 11 pixels
PHONE = 250  # pixels that the narrowest phone has for a picture
PNG = b"\x89PNG\r\n\x1a\n"

Comparison = tuple[str, Sequence[Term], Contrast, str]  # metric, what is added up, and a claim's verdict


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: above it.
        align: "l" or "r" for each column.
        note: below it; may be empty.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    note: str = ""

    def filled(self) -> "Grid":
        """Return it without the columns in which nothing stands."""
        kept = [i for i, _ in enumerate(self.header) if any(row[i] for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        align = "".join(self.align[i] for i in kept)
        return dataclasses.replace(self, header=tuple(self.header[i] for i in kept), rows=rows, align=align)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: charts, then tables, then pictures."""

    title: str
    charts: Sequence[Chart] = ()
    grids: Sequence[Grid] = ()
    pictures: Sequence[dict[str, Any]] = ()


def write_report(outcome: Outcome, out: Path) -> tuple[Path, ...]:
    """Write NAME-SCALE.html, .md and .json into a folder, each of them whole or not at all.

    Args:
        outcome: of the study; its name and scale are those of the files.
        out: made if it is not there.

    Returns:
        The three paths, in this order.

    Raises:
        ValueError: a picture cannot be shown, or the folder cannot be written to.
    """
    analysis = analyse(outcome)
    # what is not a number, which JSON lacks, becomes null
    values = json.loads(json.dumps(analysis.to_json()), parse_constant=lambda _: None)
    texts = {
        "html": to_html(analysis),
        "md": to_markdown(analysis),
        "json": json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n",
    }
    paths = tuple(out / f"{outcome.name}-{outcome.scale}.{kind}" for kind in texts)
    try:
        for path, text in zip(paths, texts.values(), strict=True):
            write_text(path, text)
    except OSError as error:
        raise ValueError(f"{out}: {error.strerror}; name another folder") from None
    return paths


def to_html(analysis: Analysis) -> str:
    """Return the page: style and pictures are in it, nothing is fetched, nothing is executed.

    Raises:
        ValueError: a picture is missing or no PNG.
    """
    outcome = analysis.outcome
    blocks = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(autoescape=True, undefined=StrictUndefined, **blocks)
    environment.filters["uri"] = _uri
    folder = files("botvision.studies")
    template = environment.from_string((folder / "report.html.jinja").read_text(encoding="utf-8"))
    runs = sum(len(arm.runs) for arm in outcome.arms)
    over = [f"{outcome.scale} scale", f"{len(outcome.arms)} arms, {runs} run{'s' * (runs != 1)}"]
    facts = {**outcome.common, **outcome.environment}
    over += [facts[key] for key in ("data", "date") if key in facts]
    by_claim = itertools.groupby(analysis.verdicts, key=lambda verdict: verdict.claim)
    return template.render(
        outcome=outcome,
        over=over,
        verdicts=[(claim, list(group)) for claim, group in by_claim],
        rule=RULE,
        sections=list(sections(analysis, drawn=True)),
        style=(folder / "page.css").read_text(encoding="utf-8"),
    )


def to_markdown(analysis: Analysis) -> str:
    """Return the whole report as Markdown; ends with a newline."""
    outcome = analysis.outcome
    parts = [f"# {outcome.title} ({outcome.scale} scale)", outcome.question]
    parts += ["\n".join(f"- Warning: {text}" for text in outcome.warnings)] if outcome.warnings else []
    if analysis.verdicts:
        parts += ["## What became of the claims", "\n".join(map(_verdict_line, analysis.verdicts)), RULE]
    for section in sections(analysis, drawn=False):
        for grid in section.grids:
            parts += [f"## {grid.title}", table(grid.header, grid.rows, grid.align)]
            parts += [grid.note] if grid.note else []
    facts = [*outcome.common.items(), *outcome.environment.items()]
    parts += ["## Setting", "\n".join(f"- {name}: {value}" for name, value in facts)] if facts else []
    parts += ["\n".join(f"- Note: {text}" for text in outcome.notes)] if outcome.notes else []
    if outcome.commands:
        parts += ["## Again", "\n".join(f"    {command}" for command in outcome.commands)]
    return "\n\n".join(parts) + "\n"


def _verdict_line(verdict: Verdict) -> str:
    line = f'- "{verdict.claim.text}" ({verdict.claim.source}): **{verdict.word}**. {verdict.sentence}'
    return line if verdict.published is None else f"{line} Published: {100 * verdict.published:+.1f} points."


def sections(analysis: Analysis, drawn: bool) -> Iterator[Section]:
    """Yield the parts of the report below the claims; charts and pictures only if they are drawn."""
    outcome, compared = analysis.outcome, _compared(analysis)
    found = [
        Section("Results", (), [_results(analysis)]),
        Section(
            "Comparisons",
            difference_charts(analysis) if drawn else (),
            _comparisons(analysis, "Comparisons", compared[None]),
        ),
        *(
            Section(
                axis.title,
                axis_charts(analysis, name) if drawn else (),
                [
                    *(grid for metric in outcome.metrics for grid in _scores_along(analysis, name, metric)),
                    *_comparisons(analysis, f"Differences by {axis.words}", compared[name]),
                ],
            )
            for name, axis in outcome.axes.items()
        ),
        Section("Learning curves", learning_charts(analysis) if drawn else ()),
        Section("Cost and score", cost_charts(analysis) if drawn else ()),
        Section("Attention", (), _use(outcome), [*map(_shown, outcome.pictures)] if drawn else ()),
        Section("Every run", (), [_runs(outcome)]),
        Section("What differs", (), _settings(outcome)),
    ]
    return (section for section in found if section.charts or section.grids or section.pictures)


def _results(analysis: Analysis) -> Grid:
    """The arms with scores, costs and what was published."""
    outcome = analysis.outcome
    scores = [title for spec in outcome.metrics.values() for title in (f"{spec.title} (%)", "published (%)")]
    costs = ["params (1e6)", "M.Adds (1e9)", "step (ms)", "peak (MB)"]
    rows = []
    for arm in outcome.arms:
        row = [arm.label, str(len(arm.runs))]
        for metric in outcome.metrics:
            said = arm.published.get(metric)
            row += [
                _spread(analysis.spreads.get((arm.name, metric))),
                "" if said is None else f"{100 * said:.1f}",
            ]
        cost = outcome.cost_of(arm)
        if cost is None:
            row += [""] * 4
        else:
            row += [short(cost.params / 1e6), short(cost.macs / 1e9)]
            row += ["" if cost.step_ms is None else f"{cost.step_ms:.1f}"]
            row += ["" if cost.peak_mb is None else f"{cost.peak_mb:,.0f}"]
        rows.append((*row, arm.source))
    header = ("arm", "n", *scores, *costs, "source of the published")
    align = "l" + "r" * (len(header) - 2) + "l"
    note = "Mean ± sample standard deviation over n seeds."
    if any(arm.published for arm in outcome.arms):
        note += " Published: elsewhere, at its own scale; not to be compared in height."
    if any(metric.endswith("_ap") for metric in outcome.metrics):
        note += " AP: mean over IoU .50:.95. M.Adds of a detector: backbone and neck."
    if any(run.cost.peak_mb is not None for arm in outcome.arms for run in arm.runs):
        note += f" {PEAK}"
    return Grid("Results", header, tuple(rows), align, note).filled()


def _compared(analysis: Analysis) -> dict[str | None, list[Comparison]]:
    """Every comparison once, by the axis at one place of which it is made (None: at none, or at two).

    Those of claims come first; one that a claim makes already is not repeated as an arm's to its baseline.
    """
    rows: list[Comparison] = [
        (each.metric, each.terms, each.contrast, each.word)
        for each in analysis.verdicts
        if each.contrast is not None and each.terms is not None
    ]
    for (name, metric, place), found in analysis.differences.items():
        baseline = str(analysis.outcome.arm(name).baseline)
        rows.append((metric, ((1, name, place), (-1, baseline, place)), found, ""))
    by_axis: dict[str | None, list[Comparison]] = {None: [], **{axis: [] for axis in analysis.outcome.axes}}
    seen = set()
    for row in rows:
        metric, terms, *_ = row
        if (metric, frozenset(terms)) not in seen:
            seen |= {(metric, frozenset((turn * sign, *of) for sign, *of in terms)) for turn in (1, -1)}
            places = {place for _, _, place in terms}
            place = places.pop()
            by_axis[None if places or place is None else place[0]].append(row)
    return by_axis


def _comparisons(analysis: Analysis, title: str, rows: Sequence[Comparison]) -> list[Grid]:
    """The differences with both of their intervals; none if there is none."""
    outcome, cells = analysis.outcome, []

    def named(terms: Sequence[Term]) -> str:
        labels = [outcome.arm(arm).label for _, arm, _ in terms]
        place = terms[0][2]
        return " - ".join(labels) + ("" if place is None else f" (at {outcome.label_of(place)})")

    for metric, terms, found, word in rows:
        half, published = len(terms) // 2, outcome.published(terms, metric)
        cells.append(
            (
                named(terms[:half]),
                named([(sign, arm, None if half == 1 else place) for sign, arm, place in terms[half:]]),
                outcome.metrics[metric].title,
                _with_sd(found.mean, found.sd),
                "" if published is None else f"{100 * published:+.1f}",
                _interval(found.over_seeds),
                _interval(found.over_images),
                word,
                ", ".join(points(value) for value in found.pairs.values()),
                "" if found.images is None else f"{found.images:,}",
                percent(detectable(found.sd, len(found.pairs))) if found.sd else "",
            )
        )
    header = (
        *("arm", "against", "metric", "difference", "published", "over seeds", "over images", "claim"),
        *("by seed", "images", "detectable"),
    )
    note = "Columns as in the comparisons above."
    if title == "Comparisons":
        note = (
            "Points, mean ± standard deviation over pairs of runs with the same seed. "
            f"{100 * LEVEL:g} % intervals: over seeds by Student's t over these pairs (a bootstrap of so few "
            f"values knows nothing of their tails); over images by a bootstrap of {analysis.resamples:,} "
            "samples of the images, the same for all runs, of the mean over the pairs. "
            "No interval is corrected for there being several. Detectable: the true difference that as many "
            f"seeds with this spread tell from zero in {100 * POWER:g} % of all studies."
        )
    reasons = dict.fromkeys(found.no_images for *_, found, _ in rows if found.no_images)
    note += "".join(f" No interval over images where {reason}." for reason in reasons)
    return [Grid(title, header, tuple(cells), "lllrrrrlrrr", note).filled()] if cells else []


def _scores_along(analysis: Analysis, axis: str, metric: str) -> Iterator[Grid]:
    """A score along an axis, one row an arm; nothing if no run has it there."""
    outcome = analysis.outcome
    places, rows = outcome.places(axis), []
    for arm in outcome.arms:
        row = [arm.label]
        for place in places:
            found = spread_of(arm, metric, place)
            seeds = f" (n {found.n})" if found is not None and found.n < len(arm.runs) else ""
            row.append(_spread(found) + seeds + " *" * (arm.trained_at.get(axis) == place[1]))
        if any(row[1:]):
            rows.append(tuple(row))
    if rows:
        note = "Mean ± sample standard deviation over seeds."
        note += " * where it was trained." if any(cell.endswith("*") for row in rows for cell in row) else ""
        title = f"{outcome.metrics[metric].title} (%) by {outcome.axes[axis].words}"
        header = ("arm", *map(outcome.label_of, places))
        yield Grid(title, header, tuple(rows), "l" + "r" * len(places), note)


def _runs(outcome: Outcome) -> Grid:
    """Every run: nothing is averaged away."""
    rows = []
    for arm in outcome.arms:
        for run in sorted(arm.runs, key=lambda run: run.seed):
            seconds = run.cost.train_seconds
            minutes = "" if seconds is None else f"{seconds / 60:.1f}"
            images = "" if run.images is None else f"{run.images:,}"
            scores = [percent(run.scores.get(metric)) for metric in outcome.metrics]
            rows.append((run.folder.name, arm.label, str(run.seed), *scores, images, minutes))
    titles = [f"{spec.title} (%)" for spec in outcome.metrics.values()]
    header = ("run", "arm", "seed", *titles, "images", "training (min)")
    return Grid("Every run", header, tuple(rows), "llr" + "r" * (len(titles) + 2))


def _use(outcome: Outcome) -> list[Grid]:
    """Scores as trained and with attention replaced, and the difference; none without any."""
    rows = []
    for (metric, title), (how, words) in itertools.product(TITLES.items(), WAYS.items()):
        own, other = dict[int, float](), dict[int, float]()
        for (_, seed), use in outcome.uses.items():
            effect = use.effect(how)
            if effect is not None and metric in effect.scores and metric in use.as_trained:
                own[seed], other[seed] = use.as_trained[metric], effect.scores[metric]
        found, trained, replaced = paired(own, other), spread([*own.values()]), spread([*other.values()])
        if found is not None and trained is not None and replaced is not None:
            cells = (f"{title}, {words}", percent(trained.mean), percent(replaced.mean))
            rows.append((*cells, _with_sd(found.mean, found.sd), _interval(found.over_seeds), str(len(own))))
    if not rows:
        return []
    header = ("replaced by", "as trained (%)", "replaced (%)", "contribution", "over seeds", "n")
    label = outcome.arm(next(iter(outcome.uses))[0]).label
    return [Grid(f"What attention contributes to {label}", header, tuple(rows), "lrrrrr", USE)]


def _settings(outcome: Outcome) -> list[Grid]:
    """The settings in which the arms differ; none if none is named."""
    keys = list(dict.fromkeys(key for arm in outcome.arms for key in arm.settings))
    rows = tuple((arm.label, *(arm.settings.get(key, "") for key in keys)) for arm in outcome.arms)
    return [Grid("What differs", ("arm", *keys), rows, "l" * (len(keys) + 1))] if keys else []


def _spread(found: Spread | None) -> str:
    if found is None:
        return ""
    return percent(found.mean) + ("" if found.sd is None else f" ± {percent(found.sd)}")


def _with_sd(mean: float, sd: float | None) -> str:
    return points(mean) + ("" if sd is None else f" ± {percent(sd)}")


def _interval(found: Interval | None) -> str:
    return "" if found is None else f"{points(found.low)} to {points(found.high)}"


def _shown(picture: Picture) -> dict[str, Any]:
    """What the page needs of a picture; `least`: its width on a phone, in pixels, where it then scrolls."""
    try:
        content = picture.path.read_bytes()
    except OSError as error:
        raise ValueError(f"{picture.path}: {error.strerror}") from None
    if not content.startswith(PNG):
        raise ValueError(f"{picture.path}: expected a PNG")
    (width,) = struct.unpack(">I", content[16:20])
    least = round(LEAST * width)
    return {
        "content": content,
        "least": least if least > PHONE else 0,
        "alt": picture.alt or picture.caption,
        "caption": picture.caption,
    }


def _uri(content: str | bytes, kind: str) -> str:
    data = content.encode() if isinstance(content, str) else content
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
