"""What is left out is left out, and nothing else."""

import csv
import json
from pathlib import Path

import pytest
import torch

import bounds
from botvision.attention.reference import Terms, attend_reference
from contenders import Case, draw, operation


def outcome(name: str) -> torch.Tensor:
    run = operation(Case("tiled", (3, 5), dtype="fp64", width=16)).forward
    with torch.no_grad(), bounds.patched(name):
        return run()


def test_parts_are_left_out() -> None:
    inputs = draw(Case("tiled", (3, 5), dtype="fp64", width=16))
    q, k, v = inputs.q * 16**-0.5, inputs.k, inputs.v
    torch.testing.assert_close(outcome("without position"), attend_reference(q, k, v, Terms((3, 5), None))[0])
    torch.testing.assert_close(outcome("products alone"), q @ k.mT @ v)
    torch.testing.assert_close(outcome("without attention"), v)
    whole = outcome("whole")
    assert (outcome("without softmax") - whole).abs().max() > 0.01
    torch.testing.assert_close(outcome("whole"), whole, rtol=0, atol=0)  # nothing stays left out


@pytest.mark.parametrize("layout", ["NCHW", "channels-last"])
def test_the_network_without_attention_still_runs(layout: str) -> None:
    """Its attention is that of the tiles: each part left out changes the logits."""
    other, runs = bounds.of_network("bf16", layout, bounds.SMOKE)
    assert other == "resnet14_nano"
    logits = {name: run() for name, run in runs.items()}
    whole = logits["whole"]
    assert isinstance(whole, torch.Tensor)
    for name in set(logits) - {"whole"}:
        assert not torch.equal(torch.as_tensor(logits[name]), whole), name


def test_smoke(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["bounds.py", "--smoke", "--seconds", "0.01", "--out", str(tmp_path)])
    bounds.main()
    rows = list(csv.DictReader((tmp_path / "bounds_cpu.csv").read_text().splitlines()))
    assert len(rows) == 2 * (5 + 6 + 6)
    assert all(float(row["ms"]) > 0 and float(row["of einsum or ResNet"]) > 0 for row in rows)
    assert all(float(row["of whole"]) == 1 for row in rows if row["variant"] == "whole")
    assert "commit" in json.loads((tmp_path / "bounds_cpu.json").read_text())["environment"]
    assert "products alone" in capsys.readouterr().out


def test_gpus_are_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["bounds.py", "--device", "cuda"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(SystemExit) as stop:
        bounds.main()
    assert stop.value.code == 2
    assert "--device must be cpu" in capsys.readouterr().err
