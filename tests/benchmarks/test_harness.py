"""The harness says what it was given: medians, ratios, bytes, files."""

import csv
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import harness
from harness import (
    Times,
    arguments,
    child_main,
    environment,
    interleaved,
    loglog,
    peak_memory,
    ratio,
    table,
    write,
)

MB = 1_000_000


def test_times() -> None:
    times = Times((5.0, 1.0, 2.0, 4.0, 3.0))
    assert (times.median, times.spread, times.count) == (3.0, 1.0, 5)  # quartiles 2 and 4
    assert Times((7.0,)).spread == 0.0


def test_ratio_is_taken_within_a_repetition() -> None:
    """Of three repetitions the last met a busy moment: the ratio of the medians would be 4 / 6."""
    times = {"ours": Times((1.0, 4.0, 90.0)), "other": Times((2.0, 8.0, 6.0))}
    assert ratio(times, "ours", "other") == 0.5
    assert ratio(times, "other", "ours") == 2.0


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = interleaved(runs, seconds=0.0, least=40, warm_up=2)
    assert "".join(calls[:6]) == "aabbcc"
    turns = ["".join(calls[start : start + 3]) for start in range(6, len(calls), 3)]
    assert set(turns) == {"abc", "acb", "bac", "bca", "cab", "cba"}  # nobody always follows the same one
    assert {name: found.count for name, found in times.items()} == {"a": 40, "b": 40, "c": 40}
    assert all(value >= 0 for found in times.values() for value in found.values)


def test_repetitions_are_limited() -> None:
    runs: dict[str, Callable[[], object]] = {"a": lambda: None}
    assert interleaved(runs, seconds=1e9, most=3)["a"].count == 3
    calls: list[int] = []
    assert interleaved({"a": lambda: calls.append(1)}, seconds=0.0, least=2, warm_up=0)["a"].count == 2
    assert len(calls) == 2


def measured(build: Callable[[dict[str, object]], Callable[[], object]], capsys) -> int | None:
    """What a child would print, measured in this process."""
    assert child_main(build, ["--case", "{}"])
    return json.loads(capsys.readouterr().out.splitlines()[-1].split(": ")[1])


PEAK = """
import torch
from harness import child_main

def build(case):
    held, freed = torch.ones(15_000_000), torch.ones(60_000_000)
    del freed

    def run():
        first = torch.ones(10_000_000)
        second = first + held[0]
        del first
        return second, torch.ones(10_000_000)

    return run

child_main(build)
"""


def test_memory_is_the_peak_of_the_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tensors at once of the three that are made; neither what set-up holds nor what it freed.

    In a child, as always: in here, what other tests freed may still be in the allocator's hands.
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(harness.__file__).parent))
    script = tmp_path / "peak.py"
    script.write_text(PEAK)
    assert peak_memory(script, {}) == pytest.approx(80 * MB, rel=0.03)


def test_memory_counts_what_a_fresh_case_keeps(capsys) -> None:
    def build(_: dict[str, object]) -> Callable[[], object]:
        parameter = torch.ones(10 * MB, requires_grad=True)
        return lambda: parameter.sum().backward()

    assert measured(build, capsys) == pytest.approx(40 * MB, rel=0.03)  # the gradient


def test_memory_that_is_not_there(capsys) -> None:
    assert measured(lambda _: lambda: torch.empty(1 << 60), capsys) is None


def test_other_arguments_make_no_child() -> None:
    assert not child_main(lambda _: lambda: None, ["--smoke", "--out", "there"])
    assert not child_main(lambda _: lambda: None, [])


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import torch
from memory import child_main
def build(case):
    return lambda: torch.ones(case["megabytes"] * 250_000)
assert child_main(build)
"""


def test_child_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parents[2] / "benchmarks")))
    assert peak_memory(script, {"megabytes": 30}) == pytest.approx(30 * MB, rel=0.05)


def test_child_that_fails(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; sys.exit('no such kernel')")
    with pytest.raises(RuntimeError, match=r"\"side\": 3.*no such kernel"):
        peak_memory(script, {"side": 3})
    script.write_text("print('something else')")
    with pytest.raises(RuntimeError, match="no result"):
        peak_memory(script, {})
    script.write_text(f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert peak_memory(script, {}) is None


def test_table() -> None:
    rows = [{"name": "a|b", "ms": 1.23456}, {"name": "c", "ms": 12345.6, "count": 3}]
    assert table(rows).splitlines() == [
        "| name | ms | count |",
        "| --- | --- | --- |",
        "| a\\|b | 1.235 |  |",
        "| c | 12346 | 3 |",
    ]


def test_written_files(tmp_path: Path) -> None:
    rows = [{"name": "a", "cells": 4, "ms": 1.5}, {"name": "b", "cells": 9, "ms": math.nan, "ratio": 0.25}]
    made_with = environment("cpu")
    out = tmp_path / "new" / "folder"
    write("speed", rows, "# Speed\n\nOf two.", out, made_with, loglog(rows, "cells", "ms", "name"))
    assert sorted(path.name for path in out.iterdir()) == [
        f"speed.{end}" for end in ("csv", "json", "md", "png")
    ]
    stored = list(csv.DictReader((out / "speed.csv").read_text().splitlines()))
    assert stored[0] == {"name": "a", "cells": "4", "ms": "1.5", "ratio": ""}
    found = json.loads((out / "speed.json").read_text())
    assert found["environment"] == made_with
    assert found["rows"] == [rows[0], {"name": "b", "cells": 9, "ratio": 0.25}]
    text = (out / "speed.md").read_text()
    assert text.startswith("# Speed\n\nOf two.\n")
    for piece in (made_with["hardware"], made_with["commit"], "(speed.png)", "| a | 4 | 1.5 |  |"):
        assert piece in text
    assert (out / "speed.png").read_bytes()[:4] == b"\x89PNG"


def test_a_body_replaces_the_table(tmp_path: Path) -> None:
    write("speed", [{"name": "a"}], "# Speed", tmp_path, {"torch": "2"}, None, "Words.")
    assert (tmp_path / "speed.md").read_text() == "# Speed\n\nMade with: torch 2.\n\nWords.\n"
    assert not (tmp_path / "speed.png").exists()


def test_environment() -> None:
    found = environment("cpu")
    assert found["torch"] == torch.__version__.split("+")[0]
    assert found["threads"] == str(torch.get_num_threads())
    assert {"hardware", "botvision", "python", "commit", "date", "instructions"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--smoke"], "--smoke needs --out"),
        (["--seconds", "0"], "expected a positive number, got '0'"),
        (["--seconds", "soon"], "expected a positive number, got 'soon'"),
        (["--device", "tpu"], "expected cpu or cuda, got 'tpu'"),
        (["--out", __file__], "must be a folder, got the file"),
        (["--size", "3"], "unrecognized arguments: --size"),
    ],
)
def test_mistakes_get_one_line(words: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        arguments("What it does.").parse_args(words)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_arguments() -> None:
    args = arguments("What it does.").parse_args(["--seconds", "1.5"])
    assert args.out.name == "results"
    assert (args.out.parent / "benchmarks").is_dir()
    assert args.seconds == 1.5
    assert not args.smoke


def test_picture() -> None:
    rows = [
        {"cells": cells, "ms": cells * factor, "MB": None if name == "b" else 3.0, "name": name, "pass": way}
        for way in ("forward", "backward")
        for name, factor in (("a", 1.0), ("b", 2.0))
        for cells in (256, 16, 64)
    ]
    figure = loglog(rows, "cells", ["ms", "MB"], "name", panel="pass", bold=("b",))
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == ["forward", "backward", "", ""]
    assert all(panel.get_xscale() == panel.get_yscale() == "log" for panel in panels)
    assert [len(panel.lines) for panel in panels] == [2, 2, 1, 1]
    a, b = panels[0].lines
    assert np.array_equal(a.get_xdata(), [16, 64, 256])
    assert np.array_equal(b.get_ydata(), [32, 128, 512])
    assert b.get_linewidth() > a.get_linewidth()
    assert (a.get_color(), a.get_marker()) != (b.get_color(), b.get_marker())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
