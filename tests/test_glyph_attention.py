"""The script behind the README's figures of attention in the long-range task."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from botvision.config.recipes import build_config, load_recipe
from botvision.training.run import train

SCRIPT = Path(__file__).parent.parent / "docs" / "glyph_attention.py"
SMALL = {"data.num_images": 48, "data.num_val_images": 48, "data.image_size": 64, "train.epochs": 1}


@pytest.fixture
def script(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("glyph_attention", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("results", "docs"):
        (tmp_path / name).mkdir()
    for name, value in (("ROOT", tmp_path), ("IMAGES", 48), ("FAR", 30.0)):
        monkeypatch.setattr(module, name, value)
    return module


def test_it_measures_every_pair_and_draws_two(script, tmp_path, capsys):
    run = train(build_config(load_recipe("longrange_botnet14_nano"), SMALL), tmp_path / "run", progress=False)
    assert script.main([str(run)]) == 0
    found = json.loads((tmp_path / "results" / "attention_glyphs.json").read_text())
    assert {(row["query"], row["other"]) for row in found["pairs"]} == {
        (a, b) for a in ("orange disc", "blue cross") for b in ("orange disc", "blue cross")
    }
    # 8 images lie 38 to 56 pixels apart, and 8 between 29 and 38
    assert 8 < sum(row["images"] for row in found["pairs"]) <= 16
    for row in found["pairs"]:
        assert len(row["on_other"]) == 4
        assert all(0 < part < 1 for part in row["on_other"])
    assert Image.open(tmp_path / "docs" / "attention_maps.png").width > 500
    capsys.readouterr()
    assert script.main([str(tmp_path)]) == 2
    assert "expected a run folder" in capsys.readouterr().err
