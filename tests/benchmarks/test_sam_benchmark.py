"""Both encoders are measured, and the benchmark says what was asked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sam


def test_smoke(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sam, "peak_memory", lambda script, case: 2_000_000 if case["ours"] else 9_000_000)
    words = ["sam.py", "--smoke", "--device", "cpu", "--seconds", "0.01", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    sam.main()
    rows: list[dict[str, Any]] = json.loads((tmp_path / "sam_cpu.json").read_text())["rows"]
    assert [row["dtype"] for row in rows] == ["fp32", "bf16"]
    for row in rows:
        assert row["timm, ms"] > 0 < row["ours, ms"]
        assert 0 <= row["difference of ours"] <= sam.TOLERANCE[row["dtype"]]
        assert (row["timm, MB"], row["ours, MB"]) == (9, 2)
    text = (tmp_path / "sam_cpu.md").read_text()
    assert text.rstrip().endswith(capsys.readouterr().out.rstrip())
    assert "96, bf16: times as fast as timm's" in text


def test_one_of_them_is_ours(monkeypatch) -> None:
    counts, accelerate = [], sam.botvision.accelerate
    monkeypatch.setattr(sam.botvision, "accelerate", lambda model: counts.append(accelerate(model)))
    theirs, ours = (sam.build(sam.SMOKE, "fp32", mine, "cpu")() for mine in (False, True))
    assert counts == [2]
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_part_replaces_no_whole(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["sam.py", "--device", "cpu", "--dtypes", "bf16"])
    with pytest.raises(SystemExit) as stop:
        sam.main()
    assert stop.value.code == 2
    assert "--dtypes needs --out" in capsys.readouterr().err
