"""A study's report: one HTML page that needs nothing else, Markdown, and JSON."""

import base64
import itertools
import json
import struct
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from botvision.io.files import write_text
from botvision.studies.analysis import Analysis, analyse
from botvision.studies.chart import Chart
from botvision.studies.figures import charts
from botvision.studies.outcome import Axis, Picture, StudyOutcome
from botvision.studies.statistics import Verdict
from botvision.studies.tables import (
    RULE,
    Grid,
    differences_grid,
    facts_grid,
    places_grids,
    results_grid,
    runs_grid,
    settings_grid,
    to_markdown,
    use_grid,
)

WORDS = {
    "held": "held",
    "did not hold": "failed",
    "could not be told": "open",
    "not measured yet": "open",
}  # word -> class of the style
LEAST = 0.62  # part of its own size that a picture keeps: 11 points at 120 dots an inch are then 11 pixels
PHONE = 250  # pixels that the narrowest phone has for a picture
PNG = b"\x89PNG\r\n\x1a\n"


def write_report(outcome: StudyOutcome, out: Path) -> tuple[Path, ...]:
    """Write NAME-SCALE.html, .md and .json into a folder, each of them whole or not at all.

    Args:
        outcome: Of the study; its name and scale are those of the files.
        out: Made if it is not there.

    Returns:
        The three paths, in this order.

    Raises:
        ValueError: A picture cannot be shown, or the folder cannot be written to.
    """
    analysis = analyse(outcome)
    texts = {
        "html": to_html(analysis),
        "md": to_markdown(analysis),
        "json": json.dumps(_plain(analysis.to_json()), indent=2, allow_nan=False, ensure_ascii=False) + "\n",
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
        ValueError: A picture is missing or no PNG.
    """
    outcome, drawn = analysis.outcome, charts(analysis)
    places = places_grids(analysis)
    results = results_grid(analysis)
    parts = [
        _head(outcome),
        _claims(analysis.verdicts),
        _warnings(outcome.warnings),
        _section(results.title, _table(results)),
        _section(
            "Differences to the baseline", _charts(drawn["differences"]), _table(differences_grid(analysis))
        ),
        *(_section(axis.title, *_of_axis(drawn["places"], places, axis)) for axis in outcome.axes),
        _section("Learning curves", _charts(drawn["learning"])),
        _section("Cost and score", _charts(drawn["cost"])),
        _section(
            "Attention",
            _table(use_grid(outcome)),
            *itertools.starmap(_picture, enumerate(outcome.pictures, 1)),
        ),
        _section("Every run", _table(runs_grid(analysis))),
        _section("Setting", _setting(analysis)),
        _section("To run it again", _commands(outcome.commands), _notes(outcome.notes)),
    ]
    style = (files("botvision.studies") / "page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(outcome.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(outcome: StudyOutcome) -> str:
    runs = sum(len(arm.runs) for arm in outcome.arms)
    over = [f"{outcome.scale} scale", f"{len(outcome.arms)} arms, {runs} run{'s' * (runs != 1)}"]
    over += [outcome.common["data"]] if "data" in outcome.common else []
    over += [outcome.environment["date"]] if "date" in outcome.environment else []
    return (
        f'<header>\n<p class="over">{escape(" · ".join(over))}</p>\n<h1>{escape(outcome.title)}</h1>\n'
        f'<p class="question">{escape(outcome.question)}</p>\n</header>'
    )


def _claims(verdicts: Sequence[Verdict]) -> str:
    cards = []
    for claim, group in itertools.groupby(verdicts, key=lambda verdict: verdict.claim):
        rows = []
        for verdict in group:
            word = f'<span class="word {WORDS[verdict.word]}">{verdict.word}</span>'
            said = "" if verdict.published is None else f" Published: {100 * verdict.published:+.1f} points."
            rows.append(f'<p class="verdict">{word}{escape(verdict.sentence + said)}</p>')
        cards.append(
            f'<article class="claim">\n<h3>{escape(claim.text)}</h3>\n'
            f'<p class="source">Claimed in: {escape(claim.source)}</p>\n' + "\n".join(rows) + "\n</article>"
        )
    if not cards:
        return ""
    body = '<div class="claims">\n' + "\n".join(cards) + "\n</div>"
    return _section("What became of the claims", body, f'<p class="note">{escape(RULE)}</p>')


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "\n".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<aside class="warning" aria-label="Warnings">\n<ul>\n{items}\n</ul>\n</aside>'


def _section(title: str, *contents: str) -> str:
    """A section with a heading; nothing without contents."""
    inner = "\n".join(content for content in contents if content)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inner}\n</section>" if inner else ""


def _of_axis(drawn: Sequence[Chart], grids: Sequence[Grid | None], axis: Axis) -> list[str]:
    """Charts and tables of one axis; both are called after it."""
    suffix = f"by {axis.words}"
    tables = [grid for grid in grids if grid is not None and grid.title.endswith(suffix)]
    pictures = _charts([chart for chart in drawn if chart.title.endswith(suffix)])
    return [pictures, *(f"<h3>{escape(grid.title)}</h3>\n{_table(grid)}" for grid in tables)]


def _table(grid: Grid | None, kind: str = "arms") -> str:
    """A table in a box of its own that scrolls; the first cell of a row is its head."""
    if grid is None:
        return ""
    sides = [' class="r"' if side == "r" else "" for side in grid.align]
    head = "".join(
        f'<th scope="col"{side}>{escape(cell)}</th>' for cell, side in zip(grid.header, sides, strict=True)
    )
    rows = []
    for first, *others in grid.rows:
        cells = [f"<td{side}>{escape(cell)}</td>" for cell, side in zip(others, sides[1:], strict=True)]
        rows.append(f'<tr><th scope="row">{escape(first)}</th>{"".join(cells)}</tr>')
    top = f"<thead>\n<tr>{head}</tr>\n</thead>\n" if any(grid.header) else ""
    text = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(grid.title)}">\n'
    text += f'<table class="{kind}">\n{top}<tbody>\n' + "\n".join(rows) + "\n</tbody>\n</table>\n</div>"
    return text + (f'\n<p class="note">{escape(grid.note)}</p>' if grid.note else "")


def _charts(drawn: Sequence[Chart]) -> str:
    figures = []
    for chart in drawn:
        svg = chart.svg.replace("<svg", f'<svg role="img" aria-label="{escape(chart.alt)}"', 1)
        figures.append(
            f'<figure class="chart">\n<b>{escape(chart.title)}</b>\n{svg}\n'
            f"<figcaption>{escape(chart.caption)}</figcaption>\n</figure>"
        )
    return '<div class="charts">\n' + "\n".join(figures) + "\n</div>" if figures else ""


def _picture(number: int, picture: Picture) -> str:
    """A picture, in a box that scrolls if a phone could show it only with type too small to read."""
    try:
        content = picture.path.read_bytes()
    except OSError as error:
        raise ValueError(f"{picture.path}: {error.strerror}") from None
    if not content.startswith(PNG):
        raise ValueError(f"{picture.path}: expected a PNG")
    (width,) = struct.unpack(">I", content[16:20])
    least = round(LEAST * width)
    kept = f' style="--least: {least}px"' if least > PHONE else ""
    image = f'<img src="{_uri(content)}" alt="{escape(picture.alt or picture.caption)}"{kept}>'
    if kept:
        image = f'<div class="wide" tabindex="0" role="region" aria-label="Picture {number}">{image}</div>'
    return f'<figure class="picture">\n{image}\n<figcaption>{escape(picture.caption)}</figcaption>\n</figure>'


def _setting(analysis: Analysis) -> str:
    outcome = analysis.outcome
    grids = [settings_grid(analysis)]
    parts = [f"<h3>{escape(grid.title)}</h3>\n{_table(grid)}" for grid in grids if grid is not None]
    for title, facts in (("What all arms share", outcome.common), ("Made with", outcome.environment)):
        if facts:
            grid = facts_grid(title, facts.items())
            parts.append(f"<h3>{escape(title)}</h3>\n{_table(grid, 'facts')}")
    return "\n".join(parts)


def _commands(commands: Sequence[str]) -> str:
    return f"<pre>{escape(chr(10).join(commands))}</pre>" if commands else ""


def _notes(notes: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escape(text)}</li>" for text in notes)
    return f'<ul class="notes">\n{items}\n</ul>' if notes else ""


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _plain(value: Any) -> Any:  # noqa: ANN401
    """What is not a number, which JSON lacks, becomes None."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
