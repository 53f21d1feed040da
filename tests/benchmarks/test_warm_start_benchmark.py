"""The ways to begin are all measured, and the ResNet itself misses nothing."""

import json
import sys
from pathlib import Path

import pytest

import warm_start


def test_a_smoke_run_measures_every_way_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["warm_start.py", "--smoke", "--out", str(tmp_path)])
    warm_start.main()
    rows = {row["start"]: row for row in json.loads((tmp_path / "warm_start.json").read_text())["rows"]}
    assert rows["ResNet"]["last map"] == pytest.approx(0, abs=1e-6)
    assert rows["ResNet"]["block 1"] == pytest.approx(0, abs=1e-6)
    assert rows["fit, 16"]["block 1"] < rows["new"]["block 1"]
    assert {"new", "new, last norm zero", "new, last block only", "taps", "distilled"} < set(rows)
    assert "| fit, 16 |" in (tmp_path / "warm_start.md").read_text()
