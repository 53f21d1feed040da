"""Settings change what they say, runs that are finished are kept."""

import json
import sys
from pathlib import Path

import pytest
import torch

import attention_start
from botvision.attention import MHSA2d


def test_scaled_projections_and_tables() -> None:
    layer = MHSA2d(16, grid=(4, 4))
    query, _, value = (part.clone() for part in layer.qkv.weight.chunk(3))
    assert layer.position is not None
    height = layer.position.height.clone()
    attention_start.scaled(query=3.0, key=0.0, tables=2.0)(layer)
    found = layer.qkv.weight.chunk(3)
    torch.testing.assert_close(found[0], 3 * query)
    assert not found[1].any()
    torch.testing.assert_close(found[2], value)
    torch.testing.assert_close(layer.position.height, 2 * height)


def test_every_parameter_has_one_rate() -> None:
    layer = MHSA2d(16, grid=(4, 4))
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 1), layer)
    setting = attention_start.Setting(attention_lr=3.0, attention_decay=0.5)
    found = attention_start.groups(network, setting, 0.05)
    held = {id(p): (group["peak"], group["weight_decay"]) for group in found for p in group["params"]}
    assert set(held) == {id(p) for p in network.parameters()}
    assert sum(len(group["params"]) for group in found) == len(held)
    assert held[id(network[0].weight)] == (1.0, 0.05)
    assert held[id(network[0].bias)] == (1.0, 0.0)
    assert held[id(layer.qkv.weight)] == (3.0, 0.025)
    assert layer.position is not None
    assert held[id(layer.position.height)] == (3.0, 0.0)


def test_a_finished_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["attention_start.py", "--smoke", "--seeds", "1", "--out", str(tmp_path)]
    )
    attention_start.main()
    log = tmp_path / "attention_start_runs.jsonl"
    before = log.read_text()
    assert json.loads(before.splitlines()[0])["setting"] == "as in the paper"
    monkeypatch.setattr(attention_start, "train", lambda *_: pytest.fail("trained again"))
    attention_start.main()
    assert log.read_text() == before
    assert "| keys x 0 | 1 |" in (tmp_path / "attention_start.md").read_text()
