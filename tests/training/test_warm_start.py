"""Training that starts from weights that are there: what fits is taken, and said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import botvision
from botvision.config.recipes import ConfigError, build_config
from botvision.io.progress import CountBar
from botvision.training import run
from botvision.training.loop import open_fabric
from tests.training.runs import TINY, tiny


def test_warm_start_takes_what_fits_and_says_so(
    whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tiny(model__weights=str(whole_run), data__num_classes=3, train__max_steps=1)
    folder = run.train(config, tmp_path / "run")
    report = (folder / "warm_start.txt").read_text()
    assert "adapted         2  fc.weight, fc.bias" in report
    assert report.endswith("classes: disc, ring, square are taken over by name\n")
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
    assert str(report).startswith("weights from resnet18.a1_in1k:\nkept ")
    assert "fc.weight, fc.bias" in str(report)
    online = False
    line = (
        r"^model\.weights: the weights of resnet18\.a1_in1k cannot be fetched \(no route to host\); "
        r"--model\.weights FILE .* --model\.weights none from nothing"
    )
    with pytest.raises(ConfigError, match=line):
        run.train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "source"), [("resnet18", "resnet18"), ("botnet50", "resnet50"), ("botnet_s1_50", "resnet50")]
)
def test_auto_are_the_weights_that_a_network_starts_from(
    name: str, source: str, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def fetch(name: str) -> dict[str, torch.Tensor]:
        asked.append(name)
        raise ValueError(f"the weights of {name} cannot be fetched")

    monkeypatch.setattr("botvision.detection.pretrained.fetch", fetch)
    config = tiny(model__name=name, model__args={}, model__weights="auto")
    with pytest.raises(ConfigError, match=f"weights of {source} cannot be fetched; --model.weights FILE"):
        run._open_and_build(config, open_fabric("cpu"), fresh=True, bar=CountBar(shown=False))
    assert asked == [source]


def test_weights_of_another_network_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("botvision.detection.pretrained.fetch", lambda name: {"x": torch.zeros(1)})
    with pytest.raises(
        ConfigError, match=r"^model\.weights: vit_tiny_patch16_224: no tensor fits this BoTNet$"
    ):
        run.train(tiny(model__weights="vit_tiny_patch16_224"), "nowhere", progress=False)


def test_a_repository_on_the_hub_is_a_source(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the names of its classes, for model.json lies beside its weights."""
    asked = []

    def fetch(repo: str, filename: str, revision: str | None = None) -> str:
        asked.append((repo, filename, revision))
        return str(whole_run / "model" / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    config = tiny(model__weights="hf-hub:me/mine@v1", data__num_classes=3, train__max_steps=1)
    report = (run.train(config, tmp_path / "run", progress=False) / "warm_start.txt").read_text()
    assert asked == [("me/mine", name, "v1") for name in ("model.safetensors", "model.json")]
    assert report.startswith("weights from hf-hub:me/mine@v1:\n")
    assert report.endswith("classes: disc, ring, square are taken over by name\n")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("restnet50", "model.weights: unknown 'restnet50'; did you mean resnet50"),
        ("auto", "no pretrained weights for botnet14_tiny, .*; --model.weights none starts from nothing"),
        ("hf-hub:mine", "model.weights: hf-hub:mine: expected OWNER/NAME"),
    ],
)
def test_wrong_names_of_weights_are_found_before_the_data(weights: str, message: str, tmp_path: Path):
    config = tiny(model__weights=weights, data__source="folder", data__root=str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=message):
        run.train(config, tmp_path / "run", progress=False)


def test_a_run_from_nothing_says_so(whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert build_config(TINY | {"model": TINY["model"] | {"weights": "none"}}).model.weights is None
    run.train(tiny(train__max_steps=1), tmp_path / "run")
    line = "botnet14_tiny starts from nothing, with random weights"
    assert f"{line}\n" in capsys.readouterr().err
    run.train(tiny(train__max_steps=1), tmp_path / "run", resume=True)
    run.train(tiny(model__weights=str(whole_run), train__max_steps=1), tmp_path / "warm")
    assert line not in capsys.readouterr().err
    config = tiny(model__name="resnet18", model__args={}, train__max_steps=1)
    run._open_and_build(config, open_fabric("cpu"), fresh=True, bar=CountBar())
    assert "nothing, with random weights; --model.weights auto starts from" in capsys.readouterr().err


SMALL_DETECTOR = {
    "task": "detect",
    "model": {
        "name": "botnet50", "weights": "maskrcnn_resnet50_fpn", "warm_start": "taps",
        "detector": {"heads": "light", "norm": "frozen", "frozen_stages": 2, "rpn_post_nms_test": 20},
    },
    "data": {"source": "generated", "image_size": 64, "num_images": 2, "num_val_images": 2},
    "train": {"epochs": 1, "batch_size": 2, "max_steps": 1, "device": "cpu"},
}  # fmt: skip


def test_a_detector_starts_from_one_of_torchvision_by_name(monkeypatch: pytest.MonkeyPatch):
    theirs: Any = torchvision.models.get_model("maskrcnn_resnet50_fpn", weights=None, weights_backbone=None)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.1)
    stored: Any = theirs.state_dict()

    def download(url: str, **_: object) -> dict[str, torch.Tensor]:
        if stored is None:
            raise OSError("no route\nto host")
        return stored

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    config = build_config(SMALL_DETECTOR)
    job, report = run._open_and_build(config, open_fabric("cpu"), fresh=True, bar=CountBar(shown=False))
    assert report is not None
    assert report.startswith("weights from maskrcnn_resnet50_fpn:\n")
    assert "started         3  backbone.body.layer4.0.conv2 from the convolution's taps" in report
    assert "missing         0\nunexpected      0\nmismatched      6  roi_heads.box_predictor." in report
    assert (
        "classes: the weights know person, bicycle, car, motorcycle, airplane and 75 more, none of" in report
    )
    own = job.model.state_dict()["roi_heads.box_head.fc6.weight"]
    assert torch.equal(own, theirs.roi_heads.box_head.fc6.weight)
    stored = None
    line = (
        r"weights of maskrcnn_resnet50_fpn cannot be fetched \(no route to host\); --model.weights FILE .*, "
        r"--model.weights none --model.detector.norm group --model.detector.frozen_stages 0 from nothing"
    )
    with pytest.raises(ConfigError, match=line):
        run._open_and_build(config, open_fabric("cpu"), fresh=True, bar=CountBar(shown=False))


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_timms_botnet_trains_at_any_size_and_is_loaded_again(task: str, tmp_path: Path):
    """Made for 256x256, where timm's own refuses all others."""
    name = "botnet26t_256.c1_in1k"
    if task == "detect":
        options = {"channels": 32, "box_channels": 32, "roi_batch": 16, "rpn_post_nms_train": 50}
        model = {"name": name, "detector": {"heads": "light", "norm": "group", **options}}
        config = build_config(SMALL_DETECTOR | {"model": model})
    else:
        config = tiny(
            model__name=name, model__args={}, data__image_size=48, train__max_steps=1, train__epochs=1
        )
    folder = run.train(config, tmp_path / "run", progress=False)
    assert json.loads((folder / "model" / "model.json").read_text())["name"] == name
    loaded = botvision.load(folder)
    assert any(isinstance(module, botvision.MHSA2d) for module in loaded.model.modules())
    assert len(loaded.predict([torch.rand(3, 70, 45), torch.rand(3, 64, 64)])) == 2


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
