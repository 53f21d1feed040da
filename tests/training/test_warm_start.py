"""Training that starts from weights that are there: what fits is taken, and said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from botvision.config.recipes import ConfigError
from botvision.io.progress import CountBar
from botvision.training import run
from botvision.training.loop import open_fabric
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
    job, report = run._open_and_build(config, open_fabric("cpu"), fresh=True, bar=CountBar(shown=False))
    assert torch.equal(job.model.state_dict()["conv1.weight"], fetched.state_dict()["conv1.weight"])
    assert "fc.weight, fc.bias" in str(report)
    online = False
    line = r"^model\.weights: timm cannot fetch the weights of resnet18\.a1_in1k: no route to host; a file"
    with pytest.raises(ConfigError, match=line):
        run.train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny(model__name="resnet14_tiny", model__args={"stem": "cifar"}, train__max_steps=2)
    return run.train(config, tmp_path_factory.mktemp("resnet") / "run", progress=False)


@pytest.mark.parametrize(
    ("how", "started"), [("fit", "fitted to"), ("taps", "taps"), ("zero", ""), ("new", "")]
)
def test_attention_begins_as_the_convolution_of_a_trained_resnet(
    resnet: Path, how: str, started: str, tmp_path: Path
):
    config = tiny(model__weights=str(resnet), model__warm_start=how, train__max_steps=1)
    folder = run.train(config, tmp_path / "botnet", progress=False)
    report = (folder / "warm_start.txt").read_text()
    if started:
        assert "started         1  layer4.0.conv2" in report
        assert started in report
        assert "missing         0" in report
    else:
        assert "started" not in report
        assert "missing         3  layer4.0.conv2.attention" in report
    again = run.train(config, tmp_path / "again", progress=False)
    weights = [(path / "model" / "model.safetensors").read_bytes() for path in (folder, again)]
    assert weights[0] == weights[1]


def test_classes_in_another_order_are_taken_over_by_name(whole_run: Path, tmp_path: Path):
    source = shutil.copytree(whole_run / "model", tmp_path / "model")
    description = json.loads((source / "model.json").read_text())
    names = description["classes"][::-1]
    (source / "model.json").write_text(json.dumps(description | {"classes": names}))
    folder = run.train(tiny(model__weights=str(source), train__max_steps=1), tmp_path / "run", progress=False)
    report = (folder / "warm_start.txt").read_text()
    assert "adapted         2  fc.weight, fc.bias" in report
    assert report.endswith(f"classes: {', '.join(names[::-1])} are taken over by name in another order\n")
