"""The report: a page that needs nothing else and says what the numbers are, Markdown, JSON."""

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from botvision.metrics.bootstrap import ImageSampler
from botvision.studies.outcome import Outcome, Picture
from botvision.studies.report import to_html, to_markdown, write_report
from botvision.studies.spec import Pair
from botvision.studies.statistics import analyse
from tests.studies.outcomes import by_distance, cifar, keep_predictions

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a page consists of; fails on elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.heads: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if {"h1", "h2", "h3"} & set(self.open):
            self.heads.append(data)
        if not {"style"} & set(self.open):
            self.text += data

    def having(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("study")
    found = cifar({"r": [0.70, 0.71, 0.72], "bot": [0.88, 0.91, 0.90], "s1": [0.60, 0.75, 0.72]}, folder)
    keep_predictions(found)
    for name in ("a", "b"):
        Image.new("RGB", (8, 6), "red").save(folder / f"{name}.png")
    pictures = (Picture("Head 1.", folder / "a.png"), Picture("Head 2.", folder / "b.png", "A red map"))
    return replace(found, pictures=pictures, warnings=("2 runs are missing",), notes=("Small <models>",))


@pytest.fixture(scope="module")
def page(outcome: Outcome) -> Page:
    return Page(to_html(analyse(outcome, ImageSampler(200))))


def test_asks_for_nothing_from_outside(page: Page, outcome: Outcome):
    for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
        assert all(value.startswith(("data:", "#")) for value in page.having(name)), name
    assert not {"script", "iframe", "object", "embed", "video"} & {tag for tag, _, _ in page.attributes}
    text = to_html(analyse(outcome, ImageSampler(50)))
    assert "http" not in text.replace("data:image", "")
    assert "@import" not in text
    assert "<script" not in text
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        assert "url(" not in value or value.count("url(#") == value.count("url(")
    assert str(outcome.arms[0].runs[0].folder.parent) not in text  # no path of this machine


def test_pictures_are_in_the_page_with_words_for_those_who_cannot_see(page: Page, outcome: Outcome):
    sources = [source.partition(",") for source in page.having("src")]
    pngs = [content for kind, _, content in sources if kind == "data:image/png;base64"]
    assert [base64.b64decode(png) for png in pngs] == [p.path.read_bytes() for p in outcome.pictures]
    svgs = [base64.b64decode(content) for kind, _, content in sources if kind == "data:image/svg+xml;base64"]
    assert all(svg.rstrip().endswith(b"</svg>") for svg in svgs)
    # difference, by size, top-1 and loss during training, four costs
    assert len(svgs) == 8
    said = page.having("alt")
    assert said[0] == "Differences in top-1 to the baseline in points: BOT +18.67, S1 -2.00."
    assert said[-2:] == ["Head 1.", "A red map"]
    assert len(said) == 10


def test_cells_are_the_numbers(page: Page, outcome: Outcome):
    results = page.tables[0]
    assert results[0][:4] == ["arm", "n", "top-1 (%)", "published (%)"]
    assert results[0][4:8] == ["params (1e6)", "M.Adds (1e9)", "step (ms)", "peak (MB)"]
    assert results[1] == [
        "R",
        "3",
        "71.00 ± 1.00",
        "93.0",
        "1.50",
        "0.467",
        "120.5",
        "800",
        "slides, page 12",
    ]
    assert results[2][2:5] == ["89.67 ± 1.53", "94.0", "1.10"]
    # differences 18, 20, 18: mean 18.667, sd 1.1547, reach 4.30265 * 1.1547 / sqrt(3) = 2.8684
    detail = dict(zip(*page.tables[1][:2], strict=True))
    assert {**detail, "over images": ""} == {
        "arm": "BOT", "against": "R", "metric": "top-1", "difference": "+18.67 ± 1.15", "published": "+1.0",
        "over seeds": "+15.80 to +21.54", "over images": "", "claim": "held",
        "by seed": "+18.00, +20.00, +18.00", "images": "100", "detectable": "3.58",
    }  # fmt: skip
    by_size = page.tables[2]
    assert by_size[0] == ["arm", "24", "32", "48"]
    assert by_size[1] == ["R", "67.00 ± 1.00", "71.00 ± 1.00 *", "63.00 ± 1.00"]
    between = page.tables[3]
    assert between[0] == ["arm", "against", "metric", "difference", "over seeds", "by seed", "detectable"]
    assert between[1][:5] == ["BOT (at 24)", "R", "top-1", "+18.67 ± 1.15", "+15.80 to +21.54"]
    assert [row[0] for row in between[2:5]] == ["BOT (at 32)", "BOT (at 48)", "S1 (at 24)"]
    runs = page.tables[4]
    assert runs[1] == ["r-s0", "R", "0", "70.00", "100", "60.0"]
    assert len(runs) == 1 + 9


def test_a_comparison_is_listed_once(outcome: Outcome):
    """Of claims first, as they state it; along the axis if it is made at one place of it."""
    first, *_ = outcome.claims
    claims = (
        replace(first, better="r", worse="s1"),
        replace(first, axis="size", at=32.0),
        replace(first, better="s1", worse="bot", axis="size", at="highest"),
        replace(first, than=Pair("s1", "r")),
        replace(first, axis="size", beyond=24.0, at=48.0),
    )
    page = Page(to_html(analyse(replace(outcome, claims=claims), ImageSampler(10))))
    rows = [dict(zip(page.tables[1][0], row, strict=True)) for row in page.tables[1][1:]]
    assert [(row["arm"], row["against"], row["claim"] != "") for row in rows] == [
        ("R", "S1", True),
        ("BOT - R", "S1 - R", True),
        ("BOT - R (at 48)", "BOT - R (at 24)", True),
        ("BOT", "R", False),
    ]
    rows = [dict(zip(page.tables[3][0], row, strict=True)) for row in page.tables[3][1:]]
    assert [(row["arm"], row["against"], row["claim"] != "") for row in rows] == [
        *(("BOT (at 32)", "R", True), ("S1 (at 48)", "BOT", True), ("BOT (at 24)", "R", False)),
        *(("BOT (at 48)", "R", False), *((f"S1 (at {at})", "R", False) for at in (24, 32, 48))),
    ]


def test_differences_along_an_axis_have_both_intervals(tmp_path: Path):
    near, far = (1.0, 1.0, 1.0, 1.0), ((0.75, 0.52), (0.77, 0.55), (0.78, 0.53))
    outcome = by_distance({"r": [near + each for each in far], "bot": [(1.0,) * 6] * 3}, tmp_path / "runs")
    paths = write_report(outcome, tmp_path)
    scores, between = Page(paths[0].read_text()).tables[2:4]
    assert scores[0][-2:] == ["57.6 to 76.8", "76.8 to 112"]
    assert between[1][:4] == ["BOT (at 12.8 to 19.2)", "R", "top-1", "+0.00 ± 0.00"]
    assert between[1][4:6] == ["+0.00 to +0.00"] * 2
    # 48, 45 and 47 points: mean 46.67, sd 1.528, reach 4.3027 * 1.528 / 1.732 = 3.79
    assert between[6][0] == "BOT (at 76.8 to 112)"
    assert between[6][3:5] == ["+46.67 ± 1.53", "+42.87 to +50.46"]
    low, high = (float(word) for word in between[6][5].split(" to "))
    # about half of 100 images: sd 0.05, and 1.96 of them
    assert (low, high) == (pytest.approx(46.67 - 9.8, abs=1.2), pytest.approx(46.67 + 9.8, abs=1.2))
    values = json.loads(paths[2].read_text())
    assert values["arms"][0]["differences_along"] == []
    last = values["arms"][1]["differences_along"][-1]
    assert (last["axis"], last["at"], last["label"], last["metric"]) == (
        *("distance", 94.4, "76.8 to 112", "top1"),
    )
    assert [last[name]["low"] * 100 for name in ("over_seeds", "over_images")] == [
        *(pytest.approx(42.87, abs=0.01), pytest.approx(low, abs=0.01)),
    ]
    assert values["arms"][0]["runs"][0]["evaluations"][5]["label"] == "76.8 to 112"


def test_verdicts_stand_on_top_and_bad_news_are_as_visible(outcome: Outcome):
    worse = replace(outcome.claims[0], text="It is worse.", better="r", worse="bot")
    open_ = replace(outcome.claims[0], text="Stride one helps.", better="s1", worse="r")
    page = Page(to_html(analyse(replace(outcome, claims=(*outcome.claims, worse, open_)), ImageSampler(200))))
    assert page.heads[:5] == [
        *("BoTNet on CIFAR-10", "What became of the claims"),
        *("BoTNet is slightly better.", "It is worse.", "Stride one helps."),
    ]
    words = [v for t, n, v in page.attributes if (t, n) == ("span", "class")]
    assert words == ["word held", "word failed", "word open"]
    assert page.text.index("did not hold") < page.text.index("Results")
    assert "Published: +1.0 points." in page.text


def test_says_how_to_run_it_again_and_on_what(page: Page):
    for text in (
        *("botvision study cifar --scale cpu", "a CPU, 1 thread", "2 runs are missing", "Small <models>"),
        *("cpu scale · 3 arms, 9 runs · cifar10", "Student's t", "200 samples of the images"),
        "on a CPU all of it that was resident",
    ):
        assert text in page.text


def test_style_is_not_escaped(outcome: Outcome):
    text = to_html(analyse(outcome, ImageSampler(10)))
    assert "&" not in text[text.index("<style>") : text.index("</style>")]


def test_is_readable_on_a_phone(page: Page, outcome: Outcome):
    assert "width=device-width, initial-scale=1" in page.having("content")
    text = to_html(analyse(outcome, ImageSampler(50)))
    assert text.count("<table") == text.count('<div class="scroll" tabindex="0" role="region" aria-label=')
    assert "prefers-color-scheme: dark" in text


def test_pictures_keep_a_size_at_which_they_can_be_read(outcome: Outcome, tmp_path: Path):
    """Also such as are hardly wider than high: three blocks of an image of 480x640."""
    sizes = {"tiles": (1728, 819), "chart": (624, 480), "icon": (400, 40)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    shown = tuple(Picture(f"About {name}.", tmp_path / f"{name}.png", f"These are {name}") for name in sizes)
    page = Page(to_html(analyse(replace(outcome, pictures=shown), ImageSampler(10))))
    kept = [value for tag, name, value in page.attributes if (tag, name) == ("img", "style")]
    # the box on a wide screen has 1074 pixels; no phone is too narrow for the last picture
    assert kept == ["--least: 1071px", "--least: 387px"]
    assert page.having("class").count("wide") == 2
    assert [label for label in page.having("aria-label") if "Picture" in label] == ["Picture 1", "Picture 2"]
    assert page.having("alt")[-3:] == ["These are tiles", "These are chart", "These are icon"]


def test_three_files_that_say_the_same_each_time(outcome: Outcome, tmp_path: Path):
    paths = write_report(outcome, tmp_path / "a")
    assert [path.name for path in paths] == ["cifar-cpu.html", "cifar-cpu.md", "cifar-cpu.json"]
    again = write_report(outcome, tmp_path / "b")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "cifar-cpu.html",
        "cifar-cpu.json",
        "cifar-cpu.md",
    ]
    values = json.loads(paths[2].read_text())
    bot = values["arms"][1]
    assert bot["scores"]["top1"]["mean"] == pytest.approx(0.8966667)
    assert bot["differences"]["top1"]["pairs"] == {"0": pytest.approx(0.18), "1": pytest.approx(0.2),
                                                   "2": pytest.approx(0.18)}  # fmt: skip
    assert bot["differences"]["top1"]["over_images"]["low"] > 0
    assert values["verdicts"][0]["verdict"] == "held"
    assert bot["runs"][0]["folder"] == "bot-s0"
    assert bot["runs"][0]["curve"][1] == {
        "epoch": 2,
        "train_loss": 1.0,
        "val_top1": pytest.approx(0.88 / 1.5),
    }
    assert (bot["step_ms"], bot["runs"][0]["cost"]["step_ms"]) == (None, 129.5)
    markdown = paths[1].read_text()
    assert "| BOT |" in markdown
    assert '- "BoTNet is slightly better." (slides, page 12): **held**. top-1 of BOT +18.67' in markdown
    assert str(tmp_path) not in markdown + paths[2].read_text() + paths[0].read_text()


def test_a_study_that_has_just_begun(tmp_path: Path):
    begun = cifar({"r": [0.70], "bot": []})
    paths = write_report(begun, tmp_path)
    page = Page(paths[0].read_text())
    assert page.tables[0][2][:3] == ["BOT", "0", ""]
    assert "no pair of finished runs with the same seed" in page.text
    Page(to_html(analyse(cifar({"r": [], "bot": []}), ImageSampler(10))))


def test_what_is_not_a_number_is_null_in_json(tmp_path: Path):
    broken = cifar({"r": [float("nan")], "bot": [0.5]})
    paths = write_report(broken, tmp_path)
    assert json.loads(paths[2].read_text())["arms"][0]["runs"][0]["scores"]["top1"] is None


def test_names_cannot_break_the_page():
    evil = '<script>alert("x")</script>|&'
    named = cifar({"r": [0.7, 0.7], "bot": [0.9, 0.9]})
    arms = tuple(replace(arm, label=f"{evil}{arm.name}") for arm in named.arms)
    analysis = analyse(replace(named, title=evil, question=evil, arms=arms), ImageSampler(10))
    page = Page(to_html(analysis))
    assert page.tables[0][1][0] == f"{evil}r"
    assert "script" not in {tag for tag, _, _ in page.attributes}
    lines = [line for line in to_markdown(analysis).splitlines() if line.startswith("|")]
    assert all("\\|&" in line for line in lines if "script" in line)


def test_a_picture_that_is_none_is_refused_in_one_line(outcome: Outcome, tmp_path: Path):
    missing = replace(outcome, pictures=(Picture("x", tmp_path / "no.png"),))
    with pytest.raises(ValueError, match=r"no\.png: No such file"):
        write_report(missing, tmp_path / "out")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.png: expected a PNG"):
        write_report(replace(outcome, pictures=(Picture("x", tmp_path / "text.png"),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
