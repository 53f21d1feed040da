"""Training that starts from weights that are there: what fits is taken, and said."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from botvision.training import run
from botvision.training.config import ConfigError
from tests.training.runs import tiny


def test_warm_start_takes_what_fits_and_says_so(
    whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tiny(model__weights=str(whole_run), data__num_classes=3, train__max_steps=1)
    folder = run.train(config, tmp_path / "run")
    report = (folder / "warm_start.txt").read_text()
    assert "mismatched      2  fc.weight, fc.bias" in report
    assert report.strip() in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        run.train(tiny(model__weights=str(tmp_path)), tmp_path / "two", progress=False)


def test_warm_start_from_a_network_that_timm_has_weights_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = timm.create_model
    fetched = original("resnet18", num_classes=7)
    online = True

    def create(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if not pretrained:
            return original(name, **kwargs)
        assert name == "resnet18.a1_in1k"
        if online:
            return fetched
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", create)
    config = tiny(model__name="resnet18", model__args={}, model__weights="resnet18.a1_in1k")
    job = run._prepare(config, fresh=True, tell=run._silent)
    assert torch.equal(job.learner.model.state_dict()["conv1.weight"], fetched.state_dict()["conv1.weight"])
    assert "fc.weight, fc.bias" in str(job.warm_start)
    online = False
    line = r"^model\.weights: timm cannot fetch the weights of resnet18\.a1_in1k: no route to host; a file"
    with pytest.raises(ConfigError, match=line):
        run.train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
