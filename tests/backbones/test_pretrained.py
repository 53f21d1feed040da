"""Weights by name: timm's networks, BoTNets of timm and of ours, the hub; nothing is fetched."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

import botvision
from botvision.backbones import pretrained
from botvision.backbones.hub import download
from botvision.backbones.variants import check_weights


def trained(model: Any) -> Any:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.1)
    return model.eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder OWNER/NAME/file that stands in for the hub, for timm and for us."""

    def fetch(repo: str, filename: str, revision: str | None = None, **_: object) -> str:
        from huggingface_hub.errors import EntryNotFoundError

        folder = tmp_path / repo / (revision or "")
        if not (folder / filename).is_file():
            raise EntryNotFoundError(f"404\nno {filename}")
        return str(folder / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda repo_id, **k: fetch(repo_id, **k))
    return tmp_path


def put(folder: Path, model: nn.Module) -> None:
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")


BOTNETS = ["botnet26t_256.c1_in1k", "sebotnet33ts_256.a1h_in1k"]


@pytest.mark.parametrize("name", BOTNETS)
def test_pretrained_botnets_of_timm_are_the_same_function_at_any_size(hub: Path, name: str, tmp_path: Path):
    theirs = trained(timm.create_model(name, zero_init_last=False))
    put(hub / "timm" / name, theirs)
    ours = botvision.create_model(name, pretrained=True).eval()
    picture = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        expected = theirs(picture)
        torch.testing.assert_close(ours(picture), expected, rtol=1e-4, atol=1e-4)
        assert ours(torch.randn(1, 3, 97, 130)).shape == (1, 1000)
    by_name = botvision.create_model(name.split(".")[0]).eval()
    for source in (name, f"hf-hub:timm/{name}", hub / "timm" / name / "model.safetensors"):
        assert botvision.load_weights(by_name, source).complete
    other = botvision.create_model(name, num_classes=3)
    assert len(botvision.load_weights(other, name).mismatched) == 2
    botvision.save_model(other, tmp_path / "model", name, {"num_classes": 3, "pretrained": False})
    again, _ = botvision.load_model(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again(picture), other.eval()(picture))


def test_weights_of_timms_botnet_in_the_papers_convention(hub: Path):
    theirs = trained(timm.create_model(BOTNETS[0], zero_init_last=False))
    put(hub / "timm" / BOTNETS[0], theirs)
    ours = botvision.from_timm_botnet(timm.create_model(BOTNETS[0]), "paper").eval()
    assert botvision.load_weights(ours, BOTNETS[0]).complete
    picture = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(ours(picture), theirs(picture), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("create", [botvision.create_model, timm.create_model])
def test_a_botnet_starts_from_its_resnet(hub: Path, create: Callable[..., Any]):
    resnet = trained(timm.create_model("resnet50"))
    put(hub / "timm" / "resnet50.a1_in1k", resnet)
    kept = "^botnet50 starts from timm's resnet50: 302 tensors are kept; "
    begun = "attention of 3 blocks begins as the convolution in its place$"
    with pytest.warns(UserWarning, match=kept + begun):
        model = create("botnet50", pretrained=True)
    assert torch.equal(model.fc.weight, resnet.fc.weight)
    plain = resnet.layer4[0].conv2.weight
    assert model.layer4[0].conv2.attention.qkv.weight.shape[1] == plain.shape[1]
    with pytest.warns(UserWarning, match="new are fc.weight, fc.bias"):
        few = create("botnet50", pretrained=True, num_classes=3, in_chans=1)
    assert few.conv1.weight.shape[1] == 1
    assert not torch.equal(few.layer4[0].bn2.running_mean, torch.zeros(512))


def test_another_source_is_left_to_timm(tmp_path: Path):
    source = botvision.create_model("botnet14_nano", num_classes=1000)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model: Any = timm.create_model(
            "botnet14_nano",
            pretrained=True,
            pretrained_cfg_overlay={"file": str(tmp_path / "own.safetensors")},
        )
    assert torch.equal(model.fc.weight, source.state_dict()["fc.weight"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("botnet14_nano", "no pretrained weights for botnet14_nano, but for botnet50, botnet101"),
        ("botnet50ts_256", "timm has no weights of botnet50ts_256, but of botnet26t_256.c1_in1k"),
        ("botnet26t_256.c2", "unknown model 'botnet26t_256.c2'; did you mean botnet26t_256.c1_in1k"),
        ("resnet50", r"the weights of resnet50 cannot be fetched \(no such host\)"),
        ("botnet50", r"the weights of resnet50 cannot be fetched \(no such host\)"),
    ],
)
def test_pretrained_weights_that_there_are_not(monkeypatch: pytest.MonkeyPatch, name: str, message: str):
    def offline(*_: object, **__: object) -> str:
        try:
            raise OSError("no such\nhost")
        except OSError as error:
            raise LocalEntryNotFoundError("Please check your connection") from error

    monkeypatch.setattr("timm.models._hub.hf_hub_download", offline)
    with pytest.raises(ValueError, match=message) as error:
        botvision.create_model(name, pretrained=True)
    assert "\n" not in str(error.value)


def test_weights_of_a_repository(hub: Path):
    source = trained(botvision.create_model("resnet14_nano", num_classes=2))
    folder = hub / "me" / "mine"
    botvision.save_model(source, folder, "resnet14_nano", {"num_classes": 2}, classes=["a", "b"])
    model = botvision.create_model("resnet14_nano", num_classes=2)
    assert botvision.load_weights(model, "hf-hub:me/mine").complete
    assert json.loads(pretrained.from_hub("hf-hub:me/mine").with_name("model.json").read_text())["classes"]
    put(hub / "me" / "mine" / "v2", source)
    assert pretrained.from_hub("hf-hub:me/mine@v2") == folder / "v2" / "model.safetensors"
    (hub / "me" / "pickle").mkdir()
    torch.save(source.state_dict(), hub / "me" / "pickle" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"^hf-hub:me/pickle: holds no model.safetensors$"):
        botvision.load_weights(model, "hf-hub:me/pickle")


def test_a_repository_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("check your connection") from OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(ValueError, match=r"^hf-hub:me/mine@v1: the Hugging Face Hub cannot be reached"):
        download("me/mine@v1", "model.json")


def test_files_of_pytorch_are_weights_of_a_classifier(tmp_path: Path):
    source = trained(botvision.create_model("resnet14_nano", num_classes=2))
    torch.save({"state_dict": source.state_dict()}, tmp_path / "a.pth")
    assert botvision.load_weights(
        botvision.create_model("resnet14_nano", num_classes=2), tmp_path / "a.pth"
    ).complete


@pytest.mark.parametrize(
    "source",
    ["resnet50", "resnet50.a1_in1k", "maskrcnn_resnet50_fpn_v2", "auto", "hf-hub:a/b@main", *BOTNETS],
)
def test_names_that_are_known(source: str):
    check_weights(source, "botnet50")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet5O", "unknown 'resnet5O'; did you mean resnet50"),
        ("resnet50.zz", "unknown 'resnet50.zz'; did you mean resnet50"),
        ("maskrcn_resnet50_fpn_v2", "did you mean maskrcnn_resnet50_fpn_v2"),
        ("botnet26t_255", "did you mean botnet26t_256"),
        ("botnet50", "no weights of botnet50 itself; resnet50, or auto, has it start from its ResNet's"),
        ("hf-hub:mine", "hf-hub:mine: expected OWNER/NAME on the Hugging Face Hub"),
        ("runs/none", "runs/none: no such file or folder"),
        ("none.pth", "none.pth: no such file or folder"),
        ("qqqqqq", "unknown 'qqqqqq'; expected a file, a run folder, hf-hub:OWNER/NAME"),
    ],
)
def test_names_that_are_not(source: str, message: str):
    with pytest.raises(ValueError, match=message):
        check_weights(source, "botnet50")
    with pytest.raises(ValueError, match=r"no pretrained weights for botnet200.*--model.weights none"):
        check_weights("auto", "botnet200")


def test_no_name_that_timm_has_weights_of_is_refused():
    for name in timm.list_models(pretrained=True):
        check_weights(name, "botnet50")
        check_weights(name.split(".")[0], "botnet50")
