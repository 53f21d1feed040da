"""The networks compute the same thing where they claim to, and the benchmark says what it measured."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import backbones
from backbones_report import asked, body, picture
from networks import EINSUM, FOLDED, LAYOUTS, TIMM, Case, EinsumAttention, build, step, training_step

CASE = Case("botnet14_nano", 64, 2)
PLAN = backbones.SMOKE


def logits(case: Case) -> Tensor:
    out = step(case)()
    assert isinstance(out, Tensor)
    return out


def named(*parts: type[nn.Module], network: nn.Module) -> int:
    return sum(isinstance(module, parts) for module in network.modules())


def test_the_same_logits_by_the_einsum_formula_folded_and_in_both_layouts() -> None:
    expected = logits(CASE)
    assert expected.shape == (2, 1000)
    assert expected.std() > 0.01
    for name in (CASE.contender, CASE.contender + EINSUM, CASE.contender + FOLDED):
        for layout in LAYOUTS:
            found = logits(replace(CASE, contender=name, layout=layout))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_contenders_are_what_their_names_say() -> None:
    einsum, folded = (build(replace(CASE, contender=CASE.contender + end)) for end in (EINSUM, FOLDED))
    assert named(EinsumAttention, network=einsum) == 1
    assert named(EinsumAttention, network=folded) == 0
    assert named(nn.BatchNorm2d, network=folded) == 1 < named(nn.BatchNorm2d, network=einsum)
    assert {p.dtype for p in build(replace(CASE, dtype="bf16")).parameters()} == {torch.bfloat16}
    training = build(replace(CASE, dtype="bf16", training=True))
    assert training.training
    assert {p.dtype for p in training.parameters()} == {torch.float32}


def test_the_einsum_network_trains_as_ours_does() -> None:
    """Losses of three steps: those after the first depend on the gradients."""
    case = replace(CASE, training=True)
    losses = []
    for name in (CASE.contender, CASE.contender + EINSUM):
        run = step(replace(case, contender=name))
        losses.append(torch.stack([step_loss for _ in range(3) if isinstance(step_loss := run(), Tensor)]))
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)
    assert len(set(losses[0].tolist())) == 3


def test_a_training_step_is_stochastic_gradient_descent() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    run = training_step(network, lambda: 3 * network.weight.sum(), "cpu", half=False)
    assert run().item() == 6.0
    assert network.weight.item() == pytest.approx(2 - 1e-4 * (3 + 2e-4))


def test_timms_network_and_ours_have_the_same_logits() -> None:
    theirs = Case(TIMM + PLAN.fixed, 256, 1)
    expected = logits(theirs)
    assert expected.std() > 0.001
    for name in (PLAN.fixed, PLAN.fixed + FOLDED):
        found = logits(replace(theirs, contender=name))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    assert {type(m).__name__ for m in build(theirs).modules()}.isdisjoint({"MHSA2d", "AttentionConv2d"})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            ["backbones.py", "--smoke", "--device", "cpu", "--seconds", "0.01", "--out", str(out)],
        )
        backbones.main()
    return out


def test_smoke_times(written: Path) -> None:
    rows = list(csv.DictReader((written / "backbones_cpu.csv").read_text().splitlines()))
    cases = {(row["dtype"], row["pass"], row["layout"]) for row in rows}
    assert len(cases) == len(rows) == 8
    for row in rows:
        names = PLAN.contenders(training=row["pass"] == "training step")
        assert len(names) == (3 if row["pass"] == "training step" else 5)
        for name in names:
            assert 0 < float(row[name]) < math.inf
            assert 0 <= float(row[f"spread of {name}"]) < math.inf
        assert float(row["botnet14_nano / resnet14_nano"]) > 0
        assert float(row["botnet14_nano, einsum / resnet14_nano"]) > 0
        assert int(row["repetitions"]) >= 2
    text = (written / "backbones_cpu.md").read_text()
    assert text.count("\n## ") == 3
    assert "torch " in text
    assert (written / "backbones_cpu.png").stat().st_size > 10_000


def test_smoke_of_timm_and_memory(written: Path) -> None:
    rows = json.loads((written / "timm_backbones_cpu.json").read_text())["rows"]
    assert [row["network"] for row in rows[::2]] == [
        "timm's botnet26t_256",
        "botnet26t_256",
        "botnet26t_256, folded",
    ]
    assert {row["layout"] for row in rows} == set(LAYOUTS)
    assert rows[0]["speed-up"] == 1
    assert min(row["over the faster format"] for row in rows[:2]) <= 1
    assert all(0 < row["ms"] * row["images/s"] / 1000 == pytest.approx(1) for row in rows)
    rows = json.loads((written / "memory_backbones_cpu.json").read_text())["rows"]
    assert [(row["size"], row["pass"]) for row in rows] == [(64, "training step")]
    assert 1 < rows[0]["resnet14_nano"] < 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "224"], "need --out"),
        (["--parts", "time"], "need --out"),
        (["--sizes", "225", "--out", "there"], "--sizes knows 224 1024 1280, got 225"),
        (["--modes", "graph", "--device", "cpu"], "--modes graph needs --device cuda"),
        (["--modes", "fast"], "invalid choice: 'fast'"),
    ],
)
def test_mistakes_get_one_line(words: list[str], message: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["backbones.py", *words])
    with pytest.raises(SystemExit) as stop:
        backbones.main()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def time_row(device: str, size: int, dtype: str, way: str, pair: float) -> dict[str, object]:
    key: dict[str, object] = {"device": device, "size": size, "batch": 1, "dtype": dtype, "pass": way}
    times = {"resnet50": 1.0, "botnet50": pair, "spread of resnet50": 0.1, "spread of botnet50": 0.1}
    return key | {"mode": "eager", "layout": "NCHW"} | times | {"botnet50 / resnet50": pair}


def fixed_row(batch: int, network: str, layout: str, ms: float, over: float) -> Mapping[str, object]:
    key = {"device": "cpu", "size": 256, "batch": batch, "dtype": "fp32", "pass": "forward"}
    return key | {"network": network, "layout": layout, "ms": ms, "over the faster format": over}


def test_what_was_asked() -> None:
    times = [
        time_row("cpu", 1024, "fp32", "forward", 1.2),
        time_row("cpu", 1024, "bf16", "forward", 1.16),
        time_row("cpu", 1024, "fp32", "training step", 1.26),
        time_row("cpu", 1024, "bf16", "training step", 1.25),
        time_row("cuda", 1024, "bf16", "forward", 1.22),
        time_row("cuda", 1024, "fp32", "forward", 9.0),
        time_row("cpu", 224, "fp32", "forward", 9.0),
    ]
    fixed = [
        fixed_row(8, "timm's botnet50ts_256", "NCHW", 9.0, 1.0),
        fixed_row(8, "botnet50ts_256", "NCHW", 8.0, 1.4),
        fixed_row(8, "botnet50ts_256", "channels-last", 7.0, 1.29),
        fixed_row(1, "botnet50ts_256, folded", "NCHW", 7.0, 1.3),
    ]
    lines = list(asked(times, fixed, backbones.FULL))
    pair = "time, botnet50 / resnet50"
    assert [(line["what"], line["measured"], line["asked"], line["kept"]) for line in lines] == [
        (f"1024, fp32, forward, NCHW, eager: {pair}", "1.200", "<= 1.2", "yes"),
        (f"1024, bf16, forward, NCHW, eager: {pair}", "1.160", "<= 1.15", "no"),
        (f"1024, fp32, training step, NCHW, eager: {pair}", "1.260", "<= 1.25", "no"),
        (f"1024, bf16, training step, NCHW, eager: {pair}", "1.250", "<= 1.25", "yes"),
        (f"1024, bf16, forward, NCHW, eager: {pair}", "1.220", "<= 1.21", "no"),
        (
            "256, batch 8, fp32: throughput of botnet50ts_256, channels-last, over timm's faster format",
            *("1.290", ">= 1.3", "no"),
        ),
        (
            "256, batch 1, fp32: throughput of botnet50ts_256, folded, NCHW, over timm's faster format",
            *("1.300", ">= 1.3", "yes"),
        ),
    ]


def test_the_whole_run_answers_everything_that_was_asked() -> None:
    plan = backbones.FULL
    assert {(224, 8), (1024, 1), (1280, 1)} <= set(plan.times)
    assert {(1024, 1, dtype, way) for dtype in backbones.DTYPES for way in (True, False)} <= set(plan.memory)
    assert {"resnet50", "botnet50", "botnet50, einsum"} <= set(plan.contenders(training=True))
    assert set(plan.fixed_batches) == {1, 8}
    times = [
        time_row(device, 1024, dtype, way, 1.0)
        for device in ("cpu", "cuda")
        for dtype in backbones.DTYPES
        for way in backbones.PASSES.values()
    ]
    assert len(list(asked(times, [], plan))) == 4 + 2


def test_nothing_measured_nothing_said() -> None:
    assert body([], [], [], PLAN) == ""
    assert picture([], [], PLAN) is None
