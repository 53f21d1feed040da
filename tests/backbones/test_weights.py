import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.bottleneck_attn import BottleneckAttn

from botvision.attention.layer import Convention
from botvision.backbones.loading import load_weights
from botvision.backbones.models import create_model
from botvision.backbones.timm_attention import from_timm_attention, from_timm_botnet
from botvision.backbones.weights import load_model, save_model


@pytest.mark.parametrize("convention", ["timm", "paper"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_timm_attention_layer_is_the_same_function(convention: Convention, scaled: bool, stride: int):
    torch.manual_seed(0)
    theirs = BottleneckAttn(64, feat_size=(6, 10), stride=stride, scale_pos_embed=scaled).eval()
    ours = from_timm_attention(theirs, convention)
    x = torch.randn(2, 64, 6, 10)
    with torch.no_grad():
        assert (ours(x) - theirs(x)).abs().max() < 1e-5
    assert ours(torch.randn(1, 64, 7, 3)).shape == (1, 64, -(-7 // stride), -(-3 // stride))


def test_the_conventions_differ_on_the_same_tables():
    torch.manual_seed(0)
    theirs = BottleneckAttn(64, feat_size=(6, 10)).eval()
    ours = from_timm_attention(theirs, "timm")
    ours.attention.convention = "paper"
    x = torch.randn(2, 64, 6, 10)
    with torch.no_grad():
        assert (ours(x) - theirs(x)).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "convention"), [("botnet26t_256", "paper"), ("botnet50ts_256", "timm")])
def test_whole_timm_botnet_is_the_same_function_and_then_free_of_size(name: str, convention: Convention):
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=11, zero_init_last=False).eval()
    ours: Any = from_timm_botnet(theirs, convention)
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        expected = theirs(images)
        assert (ours(images) - expected).abs().max() < 1e-5 * max(1, expected.abs().max())
        assert ours(torch.randn(1, 3, 97, 130)).shape == (1, 11)
    assert any(isinstance(m, BottleneckAttn) for m in theirs.modules())
    assert not any(isinstance(m, BottleneckAttn) for m in ours.modules())
    assert not ours.pretrained_cfg["fixed_input_size"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"qkv_bias": True}, "bias on its projection"),
        ({"qk_ratio": 0.5}, "64 to 64 channels with queries of width 32"),
        ({"dim_out": 32}, "64 to 32 channels"),
    ],
)
def test_timm_layers_that_are_not_the_papers_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        from_timm_attention(BottleneckAttn(64, feat_size=(4, 4), **options))


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="ResNet has no BottleneckAttn"):
        from_timm_botnet(create_model("resnet14_tiny"))


def test_save_and_load_round_trip(tmp_path: Path):
    kwargs = {"num_classes": 4, "stem": "cifar", "img_size": [24, 40]}
    model = create_model("botnet14_tiny", **kwargs).train()
    with torch.no_grad():
        model(torch.randn(4, 3, 24, 40))  # running statistics that are not the initial ones
    save_model(
        model, tmp_path / "model", "botnet14_tiny", kwargs, classes=["a", "b", "c", "d"], image_size=[24, 40]
    )
    loaded, description = load_model(tmp_path / "model")
    assert not loaded.training
    assert description["classes"] == ["a", "b", "c", "d"]
    assert description["name"] == "botnet14_tiny"
    images = torch.randn(2, 3, 33, 17)
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    save_model(model, tmp_path / "model", "botnet14_tiny", kwargs)  # over an older one
    assert "classes" not in load_model(tmp_path / "model")[1]


def test_nothing_half_written_if_the_description_is_no_json(tmp_path: Path):
    with pytest.raises(TypeError):
        save_model(create_model("resnet14_tiny"), tmp_path, "resnet14_tiny", {"dtype": torch.float32})
    assert list(tmp_path.iterdir()) == []


def test_warm_start_of_a_botnet_from_resnet_weights(tmp_path: Path):
    resnet = create_model("resnet14_tiny", num_classes=4)
    save_file(resnet.state_dict(), tmp_path / "resnet.safetensors")
    botnet: Any = create_model("botnet14_tiny", num_classes=6)
    fc = botnet.fc.weight.clone()
    report = load_weights(botnet, tmp_path / "resnet.safetensors")
    assert report.unexpected == ["layer4.0.conv2.weight"]
    assert {name.rsplit(".", 1)[0] for name in report.missing} == {
        "layer4.0.conv2.attention.qkv",
        "layer4.0.conv2.attention.position",
    }
    assert report.mismatched == ["fc.weight", "fc.bias"]
    assert len(report.kept) == len(botnet.state_dict()) - len(report.missing) - 2
    assert all(torch.equal(botnet.state_dict()[name], resnet.state_dict()[name]) for name in report.kept)
    assert torch.equal(botnet.fc.weight, fc)
    assert not report.complete
    assert "unexpected      1  layer4.0.conv2.weight" in str(report)


def test_tables_of_another_grid_are_taken_over_and_reported():
    small, large = create_model("botnet14_tiny"), create_model("botnet14_tiny", img_size=(96, 160))
    report = load_weights(small, large.state_dict(), strict=True)
    assert report.reshaped == [f"layer4.0.conv2.attention.position.{axis}" for axis in ("height", "width")]
    assert report.complete
    assert all(torch.equal(value, large.state_dict()[name]) for name, value in small.state_dict().items())


def test_tables_of_another_kind_are_not_taken_for_relative_ones():
    absolute = create_model(
        "botnet14_tiny", position="absolute"
    )  # 4 rows, relative tables have an odd number
    report = load_weights(create_model("botnet14_tiny"), absolute.state_dict())
    assert report.mismatched == [f"layer4.0.conv2.attention.position.{axis}" for axis in ("height", "width")]


def test_strict_loading_names_the_first_misfit_and_loads_nothing():
    model = create_model("botnet14_tiny", num_classes=6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"the weights: not of this BoTNet, 2 mismatched, first fc\.weight"):
        load_weights(model, create_model("botnet14_tiny", num_classes=4).state_dict(), strict=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_files_that_cannot_be_loaded_are_named_in_one_line(tmp_path: Path):
    model = create_model("resnet14_tiny")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights at all")
    for path, message in (
        (tmp_path / "absent.safetensors", "absent.safetensors: cannot be read as weights"),
        (broken, "broken.safetensors: cannot be read as weights"),
    ):
        with pytest.raises(ValueError, match=message):
            load_weights(model, path)
    with pytest.raises(ValueError, match="no tensor fits this ResNet"):
        load_weights(model, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"model\.json: cannot be read"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"model\.json: expected an object, found list"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"name": "resnet14_tiny", "kwargs": {}}))
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read"):
        load_model(tmp_path)
