"""The README's table of claims says what the studies' results say, all of it and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "results" / "studies").glob("*.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def points(value: float) -> str:
    return f"{100 * value + 0.0:+.2f}"


def row(study: dict[str, Any], file: Path, verdict: dict[str, Any]) -> str:
    """The line of the README's table."""
    found = verdict["difference"]
    over = found["over_seeds"]
    cells = [
        f"{verdict['claim']} ([{study['name']}]({file.relative_to(ROOT).with_suffix('.md')}))",
        {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP"}[verdict["metric"]],
        "" if verdict["published"] is None else f"{100 * verdict['published']:+.1f}",
        f"{points(found['mean'])} ({points(over['low'])} to {points(over['high'])})",
        f"**{verdict['verdict']}**",
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_verdict_of_a_study_stands_in_the_readme(file: Path):
    study = json.loads(file.read_text(encoding="utf-8"))
    assert study["verdicts"]
    assert study["warnings"] == []
    for verdict in study["verdicts"]:
        assert row(study, file, verdict) in README.splitlines()


def test_the_readme_has_no_other_verdicts():
    wanted = {file.relative_to(ROOT).with_suffix(".md").as_posix() for file in FILES}
    rows = [line for line in README.splitlines() if line.startswith("|") and "(results/studies/" in line]
    count = sum(len(json.loads(file.read_text(encoding="utf-8"))["verdicts"]) for file in FILES)
    assert len(rows) == count > 0
    assert all(any(f"({name})" in line for name in wanted) for line in rows)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pages_fetch_nothing(file: Path):
    page = file.with_suffix(".html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    for word in ('src="http', 'href="http', "url(http", "<script", "@import", '<link rel="stylesheet'):
        assert word not in page
