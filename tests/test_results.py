"""The page of results says what the studies' results say, all of it and nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

DRAWN = {"pointing arrows"}  # data sets of our own making
ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "results" / "studies").glob("*.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "results" / "README.md").read_text(encoding="utf-8")


def points(value: float) -> str:
    return f"{100 * value + 0.0:+.2f}"


def row(study: dict[str, Any], file: Path, verdict: dict[str, Any]) -> str:
    """The line of the page's table."""
    found = verdict["difference"]
    over, images = (
        "" if found[key] is None else f"{points(found[key]['low'])} to {points(found[key]['high'])}"
        for key in ("over_seeds", "over_images")
    )
    name = study["name"] if study["scale"] == "cpu" else f"{study['name']}, {study['scale']}"
    cells = [
        f"{verdict['claim']} ([{name}]({file.relative_to(ROOT / 'results').with_suffix('.md')}))",
        {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP"}[verdict["metric"]],
        "" if verdict["published"] is None else f"{100 * verdict['published']:+.1f}",
        points(found["mean"]),
        over,
        images,
        f"**{verdict['verdict']}**",
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_verdict_of_a_study_stands_on_the_page(file: Path):
    study = json.loads(file.read_text(encoding="utf-8"))
    assert study["verdicts"]
    assert study["warnings"] == []
    for verdict in study["verdicts"]:
        assert row(study, file, verdict) in PAGE.splitlines()


def test_the_page_has_no_other_verdicts():
    wanted = {file.relative_to(ROOT / "results").with_suffix(".md").as_posix() for file in FILES}
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and "(studies/" in line]
    count = sum(len(json.loads(file.read_text(encoding="utf-8"))["verdicts"]) for file in FILES)
    assert len(rows) == count > 0
    assert all(any(f"({name})" in line for name in wanted) for line in rows)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pages_show_no_image_that_is_not_ours_to_pass_on(file: Path):
    """Images that we draw may be shown; those of data sets are left out."""
    if json.loads(file.read_text(encoding="utf-8"))["common"]["data"] in DRAWN:
        return
    page = file.with_suffix(".html").read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>(How far the heads|What the position|.* is left out\.)", page)
    assert len(captions) == page.count("data:image/png")


def test_every_mean_and_spread_of_the_page_stands_in_a_report():
    files = (file for file in (ROOT / "results").rglob("*.md") if file.name != "README.md")
    reports = "".join(file.read_text(encoding="utf-8") for file in files)
    found = re.findall(r"[+-]?\d+\.\d+ ± \d+\.\d+", PAGE)
    assert len(found) > 50
    assert [text for text in found if text not in reports] == []


def test_warm_starts_are_what_was_measured():
    found = json.loads((ROOT / "results" / "studies" / "warm-start-cpu.json").read_text(encoding="utf-8"))
    text = " ".join(PAGE.split())
    means = {arm["name"]: f"{100 * arm['scores']['top1']['mean']:.1f} %" for arm in found["arms"]}
    for arm in found["arms"]:
        name = "ResNet-50" if arm["name"] == "resnet" else f"BoTNet-50, `{arm['name']}`"
        score = arm["scores"]["top1"]
        line = f"| {name} | {score['n']} | {100 * score['mean']:.2f} ± {100 * score['sd']:.2f} |"
        assert line in PAGE.splitlines()
    said = f"{means['fit']} with `fit`, {means['taps']} with `taps`, {means['zero']} with `zero` and "
    page = " ".join((ROOT / "docs" / "warm-start.md").read_text(encoding="utf-8").split())
    assert said + f"{means['new']} with `new`" in page
    assert f"from the same weights is at {means['resnet']}" in page
    assert f"| {means['resnet']}; {means['fit']}; {means['new']} |" in README
    scores: dict[str, list[float]] = {}
    for use in found["attention_use"]:
        for effect in use["effects"]:
            scores.setdefault(effect["attention"], []).append(effect["top1"])
    used = {how: f"{100 * sum(values) / len(values):.2f}" for how, values in scores.items()}
    assert (
        f"with even weights it is at {used['even']}, without any at {used['zero']} (mean of the three" in text
    )
    rows = json.loads((ROOT / "results" / "warm_start.json").read_text(encoding="utf-8"))["rows"]
    near = {row["start"]: f"{row['nearest class mean']:.1f} %" for row in rows}
    said = f"{near['ResNet']} of these 98 photos with the ResNet, {near['fit, 256']} with `fit`, "
    assert said + f"{near['taps']} with `taps` and {near['new']} with `new`" in text
    where = json.loads((ROOT / "results" / "warm_start_attention.json").read_text(encoding="utf-8"))
    own = [f"{sum(block['distance_cells']) / block['heads']:.1f}" for block in where["blocks"]]
    even = [f"{block['uniform_distance_cells']:.1f}" for block in where["blocks"]]
    said = (
        f"{own[0]}, {own[1]} and {own[2]} cells away on average in the three blocks, where even attention has"
    )
    assert f"{said} {even[0]}, {even[1]} and {even[2]}" in text


def test_ways_to_wake_attention_are_what_was_measured():
    table = (ROOT / "results" / "attention_start.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert all(row in PAGE.splitlines() for row in rows)


def test_accuracy_by_distance_is_what_was_measured():
    study = json.loads((ROOT / "results" / "studies" / "pointing-cpu.json").read_text(encoding="utf-8"))
    for arm in study["arms"]:
        by: dict[float, list[float]] = {}
        for run in arm["runs"]:
            for each in run["evaluations"]:
                by.setdefault(each["at"], []).append(each["scores"]["top1"])
        score = arm["scores"]["top1"]
        own = f"{score['n']} | {100 * score['mean']:.2f} ± {100 * score['sd']:.2f}"
        places = " | ".join(f"{100 * sum(by[at]) / len(by[at]):.1f}" for at in sorted(by))
        assert f"| {arm['label']} | {own} | {places} |" in PAGE.splitlines()
        if arm["name"] in ("relative", "resnet", "resnet-wide"):
            assert f"{100 * score['mean']:.1f} ± {100 * score['sd']:.1f} %" in README
    replaced = [
        f"{100 * effect['top1']:.1f}"
        for use in study["attention_use"]
        for effect in use["effects"]
        if effect["attention"] in ("zero", "even")
    ]
    assert len(replaced) == 10
    assert f"at {min(replaced)} to {max(replaced)} %. In one of them" in " ".join(PAGE.split())


def test_attention_on_marks_is_what_was_measured():
    found = json.loads((ROOT / "results" / "attention_pointing.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
    best = {
        run["position"]: [f"{row['best_head']:.2f}" for row in run["by_distance"]] for run in found["runs"]
    }
    assert f"{min(best['relative'])} to {max(best['relative'])} of its weight" in page
    assert f"{best['position'][0]} of it at 16 pixels and {best['position'][-1]} at 96" in page


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pages_fetch_nothing(file: Path):
    page = file.with_suffix(".html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    for word in ('src="http', 'href="http', "url(http", "<script", "@import", '<link rel="stylesheet'):
        assert word not in page


def test_detectors_from_weights_and_from_nothing_are_what_was_measured() -> None:
    rows = json.loads((ROOT / "results" / "objects_cpu.json").read_text(encoding="utf-8"))["rows"]
    for run in rows:
        recipe, _, start = run["run"].partition(" ")
        numbers = [f"{100 * run[key]:.1f}" for key in ("box_ap", "box_ap50", "mask_ap", "mask_ap50")]
        assert f"| {' | '.join([f'`{recipe}` {start}', *numbers])} |" in PAGE
    resnet, botnet, nothing = rows
    assert min(resnet["box_ap50"], botnet["box_ap50"]) > 0.5 > 2 * nothing["box_ap50"]
