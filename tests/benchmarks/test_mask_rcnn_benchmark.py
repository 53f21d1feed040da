"""Detectors compute the same losses where they claim to, and the benchmark says what it measured."""

import csv
import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mask_rcnn
from botvision.attention.layer import MHSA2d
from harness import Times
from mask_rcnn import SMOKE, Case, asked, body, build, scenes, step
from networks import EINSUM, LAYOUTS, EinsumAttention

CASE = Case("botnet14_nano", 64, 1, channels=16)


def losses(case: Case, steps: int = 3) -> Tensor:
    run = step(case)
    found = []
    for number in range(steps):
        torch.manual_seed(number)  # which anchors and proposals are looked at is drawn
        found.append(run())
    return torch.stack(found)


def test_the_einsum_detector_trains_as_ours_does() -> None:
    """Losses of three steps; with rows and columns exchanged they differ by 0.5 %."""
    expected = losses(CASE)
    assert expected.isfinite().all()
    assert len(set(expected.tolist())) == 3
    torch.testing.assert_close(
        losses(replace(CASE, contender="botnet14_nano" + EINSUM)), expected, rtol=1e-4, atol=0
    )
    attention = [
        m for m in build(replace(CASE, contender="botnet14_nano" + EINSUM)).modules() if isinstance(m, MHSA2d)
    ]
    assert [type(m) for m in attention] == [EinsumAttention]


def test_the_detector_learns_all_five_losses_of_objects_that_are_there() -> None:
    images, targets = scenes(replace(CASE, batch=2))
    assert [tuple(image.shape) for image in images] == [(3, 64, 64)] * 2
    assert all(0 <= image.min() < image.max() <= 1 for image in images)
    assert all(len(target["labels"]) > 1 and target["masks"].any() for target in targets)
    detector = build(CASE)
    assert isinstance(detector, nn.Module)
    assert len(detector(images, targets)) == 5


def test_smoke(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["mask_rcnn.py", "--smoke", "--device", "cpu", "--seconds", "0.01", "--out", str(tmp_path)],
    )
    mask_rcnn.main()
    rows = list(csv.DictReader((tmp_path / "mask_rcnn_cpu.csv").read_text().splitlines()))
    assert [row["layout"] for row in rows] == list(LAYOUTS)
    for row in rows:
        assert (row["size"], row["batch"], row["dtype"], row["repetitions"]) == ("64", "1", "fp32", "2")
        for name in SMOKE.contenders:
            assert 0 < float(row[name]) < math.inf
            assert 0 <= float(row[f"spread of {name}"]) < math.inf
        assert float(row["botnet14_nano / resnet14_nano"]) > 0
        assert float(row["botnet14_nano, einsum / resnet14_nano"]) > 0
    (row,) = json.loads((tmp_path / "memory_mask_rcnn_cpu.json").read_text())["rows"]
    assert 1 < row["resnet14_nano"] < 1000
    text = (tmp_path / "mask_rcnn_cpu.md").read_text()
    assert text.count("\n## ") == 2
    assert text.rstrip().endswith(capsys.readouterr().out.rstrip())


def test_choices_of_sizes_and_dtypes(monkeypatch, tmp_path: Path) -> None:
    plans = []
    monkeypatch.setattr(mask_rcnn, "memory_rows", lambda plan, args: plans.append((plan, args)) or [])
    monkeypatch.setattr(mask_rcnn, "time_rows", lambda plan, args: [])
    for words in ([], ["--sizes", "1024", "512", "--dtypes", "bf16"]):
        monkeypatch.setattr("sys.argv", ["mask_rcnn.py", "--device", "cpu", *words, "--out", str(tmp_path)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mask_rcnn, "write", lambda *_: None)
            mask_rcnn.main()
    (first, usual), (second, chosen) = plans
    assert isinstance(usual, Namespace)
    assert (first.sizes, usual.dtypes) == ([(512, 2)], ("fp32",))
    assert (second.sizes, chosen.dtypes) == ([(512, 2), (1024, 1)], ["bf16"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "512"], "need --out"),
        (["--dtypes", "bf16"], "need --out"),
        (["--parts", "time"], "need --out"),
        (["--sizes", "800", "--out", "there"], "--sizes knows 512 1024, got 800"),
    ],
)
def test_mistakes_get_one_line(words: list[str], message: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["mask_rcnn.py", "--device", "cpu", *words])
    with pytest.raises(SystemExit) as stop:
        mask_rcnn.main()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_what_was_asked() -> None:
    plan = mask_rcnn.FULL
    key = {"size": 1024, "layout": "NCHW", "botnet50 / resnet50": 1.16}
    rows = [
        {"device": device, "dtype": dtype} | key for device in ("cpu", "cuda") for dtype in mask_rcnn.DTYPES
    ]
    (line,) = asked(rows, plan)
    assert (line["measured"], line["asked"], line["kept"]) == ("1.160", "<= 1.15", "no")
    assert (1024, 1) in plan.sizes
    assert body([], [], plan) == ""


def test_ratios_are_those_of_repetitions(monkeypatch) -> None:
    """Of each memory format its own."""
    factors = {"resnet14_nano": 1, "botnet14_nano": 3, "botnet14_nano, einsum": 5}

    def fake(runs, *_, **__):
        return {
            label: Times(tuple(factors[label.rsplit(", ", 1)[0]] * ms for ms in (1.0, 9.0, 2.0)))
            for label in runs
        }

    monkeypatch.setattr(mask_rcnn, "interleaved", fake)
    monkeypatch.setattr(mask_rcnn, "step", lambda case: None)
    rows = mask_rcnn.time_rows(SMOKE, Namespace(device="cpu", seconds=1, dtypes=("fp32",)))
    assert [row["botnet14_nano / resnet14_nano"] for row in rows] == [3, 3]
    assert [row["botnet14_nano, einsum"] for row in rows] == [10, 10]
