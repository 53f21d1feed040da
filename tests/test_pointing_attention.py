"""The script behind the pages' figures of attention in the pointing task."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from botvision.config.recipes import build_config, load_recipe
from botvision.training.run import train

SCRIPT = Path(__file__).parent.parent / "docs" / "pointing_attention.py"
SMALL = {
    "data.num_images": 48, "data.num_val_images": 48, "data.image_size": 64, "train.epochs": 1,
    "model.args.position": "even",
}  # fmt: skip


@pytest.fixture
def script(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("pointing_attention", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("results", "docs"):
        (tmp_path / name).mkdir()
    for name, value in (("ROOT", tmp_path), ("IMAGES", 12)):
        monkeypatch.setattr(module, name, value)
    return module


def test_it_measures_every_arrow_by_distance_and_draws_three(script, tmp_path, capsys):
    """Even weights give every cell the same: one of 16, whatever the distance."""
    recipe = load_recipe("pointing_botnet_s1_14_nano")
    run = train(build_config(recipe, SMALL), tmp_path / "run", progress=False)
    assert script.main([str(run)]) == 0
    found = json.loads((tmp_path / "results" / "attention_pointing.json").read_text())
    (of_run,) = found["runs"]
    assert [row["pixels"] for row in of_run["by_distance"]] == [8.0 * steps for steps in range(1, 7)]
    assert sum(row["arrows"] for row in of_run["by_distance"]) == 3 * 12
    for row in of_run["by_distance"]:
        assert row["on_mark"] == pytest.approx([1 / 16] * 4, abs=1e-4)
    assert Image.open(tmp_path / "docs" / "attention_maps.png").width > 500
    capsys.readouterr()
    assert script.main([str(tmp_path)]) == 2
    assert "expected run folders" in capsys.readouterr().err


def test_marks_are_those_that_arrows_point_to(script):
    """From an arrow to its mark: as many pixels as are said, straight in the direction it points."""
    config = build_config(load_recipe("pointing_botnet_s1_14_nano"))
    source = script.PointingSource(config.data, "val")
    chosen = torch.arange(50)
    way = source.marks(chosen) - source.points()[chosen]
    reached = way.abs().amax(-1)
    jitter = 2 * 0.1 * source.board.step
    assert (reached - source.grouping.values[chosen]).abs().max() <= jitter + 1e-9
    assert way.abs().amin(-1).max() <= jitter + 1e-9
