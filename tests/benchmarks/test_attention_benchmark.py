"""The contenders compute the same thing, and the benchmark says what it measured."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attention
from attention_report import Limits, asked, body, exponent
from botvision.attention.position import PositionRows
from botvision.attention.reference import Terms, attend_reference
from botvision.backbones.timm_attention import from_timm_attention
from contenders import (
    LAYERS,
    OPERATIONS,
    OURS,
    Case,
    Computation,
    as_map,
    draw,
    einsum_attention,
    layer,
    operation,
    step,
    timm_layer,
)

CASE = Case("auto", (3, 5), batch=2, dtype="fp64", training=True, heads=2, width=16)
LIMITS = Limits(large=64, small=(14, 32))


def outcome(case: Case, computation: Computation) -> tuple[Tensor, ...]:
    """Output, and gradients of q, k, v and both tables, all as maps; weighted by the same numbers for all."""
    out = computation.forward()
    torch.manual_seed(0)
    weights = torch.randn(case.batch, case.heads, case.cells, case.width, dtype=out.dtype)
    on_map = out.ndim == 4 and out.shape[1] == case.channels and out.shape[2:] == case.grid
    gradients = torch.autograd.grad(
        out, computation.leaves, as_map(weights, case.grid) if on_map else weights, materialize_grads=True
    )
    if on_map:
        return (out, *gradients[0].chunk(3, 1), *gradients[1:])
    return (as_map(out, case.grid), *(as_map(part, case.grid) for part in gradients[:3]), *gradients[3:])


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("reference", "content")])
def test_operations_agree(name: str) -> None:
    """In outputs and in all gradients; timm's tables are ours times D^-0.5."""
    found, expected = [], []
    for contender, results in ((name, found), ("reference", expected)):
        case = replace(CASE, contender=contender)
        torch.manual_seed(0)
        results.extend(outcome(case, operation(case)))
    if name == "timm":
        found[4:] = [gradient * CASE.width**-0.5 for gradient in found[4:]]
    assert len(found) == len(expected) == 6
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_content_alone_is_another_function() -> None:
    content, whole = (operation(replace(CASE, contender=name)).forward() for name in ("content", "auto"))
    assert content.shape == whole.shape
    assert (content - whole).abs().max() > 0.01


def test_einsum_formula_against_the_definition() -> None:
    q, k, v, height, width = draw(replace(CASE, training=False))
    rows = PositionRows(height.unsqueeze(0), width.unsqueeze(0), relative=True)
    expected = attend_reference(q, k, v, Terms((3, 5), rows))[0]
    torch.testing.assert_close(einsum_attention(q, k, v, height, width, (3, 5)), expected)


@pytest.mark.parametrize("name", LAYERS[1:])
def test_layers_agree(name: str) -> None:
    """In outputs and in the gradients of the feature map."""
    case = Case("ours", (3, 5), batch=2, training=True, heads=2, width=16)
    weights = torch.randn(2, 32, 3, 5)
    ours, theirs = layer(case), layer(replace(case, contender=name))
    expected, found = ours.forward(), theirs.forward()
    assert found.shape == (2, 32, 3, 5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    of_expected, of_found = (
        torch.autograd.grad(out, computation.leaves[0], weights)[0]
        for out, computation in ((expected, ours), (found, theirs))
    )
    torch.testing.assert_close(of_found, of_expected, rtol=1e-4, atol=1e-4)


def test_timm_layer_carried_over_with_its_convention() -> None:
    """The layer that is measured, as one of ours with timm's convention and timm's own tables."""
    case = Case("timm", (3, 5), batch=2, heads=2, width=16)
    module = timm_layer(case, draw(case))
    x = torch.randn(2, 32, 3, 5)
    ours = from_timm_attention(module, convention="timm")
    torch.testing.assert_close(ours(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["auto", "einsum", "timm"])
def test_step(name: str) -> None:
    """The same number of gradients as leaves, anew each time: nothing adds up."""
    case = replace(CASE, contender=name)
    computation = operation(case)
    run = step(computation, training=True)
    first, second = run(), run()
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert [part.shape for part in first] == [leaf.shape for leaf in computation.leaves]
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)
    assert all(leaf.grad is None for leaf in computation.leaves)
    out = step(computation, training=False)()
    assert isinstance(out, Tensor)
    assert not out.requires_grad


def test_smoke(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["attention.py", "--smoke", "--device", "cpu", "--seconds", "0.01", "--out", str(tmp_path)],
    )
    attention.main()
    times = list(csv.DictReader((tmp_path / "attention_cpu.csv").read_text().splitlines()))
    cases = {(row["dtype"], row["grid"], row["batch"], row["pass"]) for row in times}
    assert len(cases) == len(times) == 12
    assert {case[3] for case in cases} == {"forward", "forward + backward"}
    assert {*OURS, "einsum", "timm", "content"} <= set(times[0])
    for row in times:
        for name in OPERATIONS:
            assert 0 < float(row[name]) < math.inf
            assert 0 <= float(row[f"spread of {name}"]) < math.inf
        assert float(row["auto / einsum"]) > 0
    layers = json.loads((tmp_path / "layer_attention_cpu.json").read_text())["rows"]
    assert all(row[name] > 0 for row in layers for name in LAYERS)
    memory = list(csv.DictReader((tmp_path / "memory_attention_cpu.csv").read_text().splitlines()))
    assert [row["grid"] for row in memory] == ["6x6", "24x24"]
    # the formula holds the logits of four heads, the tiles those of one
    assert float(memory[1]["einsum"]) >= 4 * 4 * 24**4 / 1e6 > float(memory[1]["auto"]) > 0
    text = (tmp_path / "attention_cpu.md").read_text()
    assert text.count("\n## ") == 4
    assert text.rstrip().endswith(capsys.readouterr().out.rstrip())
    assert (tmp_path / "attention_cpu.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grids", "14"], "need --out"),
        (["--parts", "time"], "need --out"),
        (["--grids", "14", "15", "--out", "there"], "--grids knows 4 7 8 14 16 32 45 64 80 90 128, got 15"),
        (["--parts", "speed", "--out", "there"], "invalid choice: 'speed'"),
    ],
)
def test_mistakes_get_one_line(words: list[str], message: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["attention.py", *words])
    with pytest.raises(SystemExit) as stop:
        attention.main()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def time_row(side: int, dtype: str, way: str, ratios: Sequence[float], batch: int = 1) -> dict[str, object]:
    key = {"device": "cpu", "dtype": dtype, "grid": f"{side}x{side}", "batch": batch, "pass": way}
    return {**key, "auto / einsum": ratios[0], "auto / content": ratios[1]}


def memory_row(side: int, dtype: str, way: str, ours: float, einsum: float | None) -> dict[str, object]:
    key = {"device": "cpu", "dtype": dtype, "grid": f"{side}x{side}", "batch": 1, "pass": way}
    return {**key, "auto": ours, **({} if einsum is None else {"einsum": einsum})}


def test_what_was_asked() -> None:
    times = [
        time_row(64, "fp32", "forward", (0.5, 1.71)),
        time_row(64, "bf16", "forward + backward", (0.76, 9.0)),
        time_row(14, "fp32", "forward", (0.9, 3.0)),
        time_row(14, "bf16", "forward", (1.01, 3.0), batch=8),
    ]
    memory = [
        memory_row(32, "fp32", "forward", 10.0, 20.0),
        memory_row(64, "fp32", "forward", 60.0, 481.0),
        memory_row(128, "fp32", "forward", 360.0, None),
    ]
    lines = [
        (line["what"], line["measured"], line["asked"], line["kept"]) for line in asked(times, memory, LIMITS)
    ]
    assert lines == [
        ("64x64, fp32, forward: time, ours / einsum", "0.500", "<= 0.5", "yes"),
        ("64x64, fp32, forward: time, ours / content", "1.710", "<= 1.7", "no"),
        ("64x64, bf16, forward + backward: time, ours / einsum", "0.760", "<= 0.75", "no"),
        ("14x14, slowest of 2 cases (bf16, forward, batch 8): time, ours / einsum", "1.010", "<= 1", "no"),
        ("64x64, fp32, forward: peak memory, ours / einsum", "0.125", "<= 0.125", "yes"),
        ("32x32 to 128x128, fp32, forward: exponent of memory over cells", "1.292", "< 1.15", "no"),
        ("64x64 to 128x128, fp32, forward: exponent of memory over cells", "1.292", "< 1.15", "no"),
    ]


def test_the_whole_run_answers_everything_that_was_asked() -> None:
    plan = attention.FULL
    ways = attention.PASSES
    times = [
        time_row(side, dtype, way, (1.0, 1.0), batch)
        for side, batch in plan.times
        for dtype in ("fp32", "bf16")
        for way in ways.values()
    ]
    memory: dict[tuple[object, ...], dict[str, object]] = {}
    for side, name, dtype, training in plan.memory:
        key = (side, dtype, training)
        memory.setdefault(key, memory_row(side, dtype, ways[training], 1.0, None))[name] = 1.0
    lines = [str(line["what"]) for line in asked(times, list(memory.values()), plan.limits)]
    assert len(lines) == len(set(lines)) == 6 + 2 + 4 + 8
    assert {(14, 1), (32, 1), (64, 1), (80, 1)} <= set(plan.times)
    assert sum("32x32 to 128x128" in line for line in lines) == 4


def test_the_worst_choice_of_a_kernel_is_named() -> None:
    kernels = dict.fromkeys(OURS, 2.0)
    times = [
        time_row(20, "fp32", "forward", (1.0, 1.0)) | kernels,
        time_row(20, "bf16", "forward", (1.0, 1.0), batch=8) | kernels | {"mask": 1.0, "auto": 1.5},
    ]
    line = {"measured": "1.500", "asked": "<= 1.25", "kept": "no"}
    where = "20x20, bf16, forward, batch 8"
    assert list(asked(times, [], LIMITS)) == [
        {"what": f"worst choice of 2 ({where}): time, ours / fastest kernel"} | line
    ]


def test_nothing_measured_nothing_said() -> None:
    assert body([], [], [], LIMITS) == ""


def test_exponent() -> None:
    assert exponent([(size, 7 * size**1.5) for size in (4, 9, 100)]) == pytest.approx(1.5)
    assert exponent([(size, 3.0) for size in (4, 9, 100)]) == pytest.approx(0.0)
