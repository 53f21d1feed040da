import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from botvision.attention.layer import MHSA2d
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.models import BoTNet, create_model, list_models, set_stem
from botvision.backbones.variants import VARIANTS, check_name


def build(name: str | None, **kwargs) -> Any:
    return create_model(str(name), **kwargs)


def build_with_timm(name: str, **kwargs) -> Any:
    return timm.create_model(name, **kwargs)


def attention_layers(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, MHSA2d)]


def test_import_registers_in_timm_and_is_silent():
    code = (
        "import botvision, timm; m = timm.create_model('botnet14_tiny', features_only=True);"
        "assert m.feature_info.channels()[-1] == 512; assert botvision.from_resnet"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_every_row_is_registered_and_built_as_the_row_says():
    for name, row in VARIANTS.items():
        with torch.device("meta"):
            model = build_with_timm(name)
        assert tuple(len(model.get_submodule(f"layer{i}")) for i in range(1, 5)) == row.layers
        replaced = [n for n, m in model.named_modules() if isinstance(m, AttentionConv2d)]
        assert replaced == [f"layer4.{i}.conv2" for i in range(row.layers[3] if row.attention else 0)]
        reduction = model.feature_info[-1]["reduction"]
        assert reduction == (16 if row.c5_stride == 1 else 32)
        assert model.pretrained_cfg["input_size"] == (3, row.img_size, row.img_size)
        assert model.pretrained_cfg["pool_size"] == (row.img_size // reduction,) * 2
        assert model.get_submodule(model.pretrained_cfg["first_conv"]).in_channels == 3
        cells = row.img_size // 16
        assert not replaced or model.layer4[0].conv2.attention.position.grid == (cells, cells)
        if row.baseline is not None:
            assert timm.is_model(row.baseline)
    assert list_models() == list(VARIANTS)
    assert set(timm.list_models("botnet_t*")) == {f"botnet_t{i}" for i in range(3, 8)}


@pytest.mark.parametrize("name", [name for name, row in VARIANTS.items() if row.baseline])
def test_baseline_differs_by_the_spatial_convolutions_of_c5_alone(name: str):
    with torch.device("meta"):
        ours, baseline = build(name).state_dict(), build(VARIANTS[name].baseline).state_dict()
    same = {key for key in ours if key in baseline and ours[key].shape == baseline[key].shape}
    assert {key.split(".")[2] for key in ours.keys() ^ same} == {"conv2"}
    assert {key.split(".")[0] for key in baseline.keys() ^ same} == {"layer4"}


def test_names_that_are_nowhere_are_refused_without_timm():
    for name in (
        *VARIANTS,
        *timm.list_models(),
        "botnet14_nano.untrained",
        "resnet50.a1_in1k",
        "tv_resnet50",
    ):  # the last one is an alias
        check_name(name)
    code = """
import sys
from botvision.backbones.variants import check_name
try:
    check_name("resnet51")
except ValueError as error:
    print(error, {"timm", "torch"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("unknown model 'resnet51'; did you mean ")
    assert " resnet50, " in done.stdout
    assert done.stdout.endswith("set()\n")


def test_features_only():
    model = build_with_timm("botnet_s1_14_tiny", features_only=True, out_indices=(1, 3, 4), in_chans=1)
    features = model(torch.randn(2, 1, 65, 96))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 17, 24), (256, 5, 6), (512, 5, 6)]
    assert model.feature_info.reduction() == [4, 16, 16]
    assert model.feature_info.channels() == [64, 256, 512]


def test_reset_classifier_and_forward_intermediates():
    model = build("botnet14_tiny", num_classes=4)
    images = torch.randn(2, 3, 48, 64)
    model.reset_classifier(9)
    assert model(images).shape == (2, 9)
    model.reset_classifier(0)
    assert model(images).shape == (2, 512)
    assert [f.shape[-1] for f in model.forward_intermediates(images, intermediates_only=True)] == [
        32,
        16,
        8,
        4,
        2,
    ]


def test_drop_path_reaches_the_attention_blocks():
    model = build("botnet26_small", drop_path_rate=0.4)
    rates = [block.drop_path.drop_prob for block in model.layer4]
    assert rates == pytest.approx([0.4 * 6 / 7, 0.4])
    torch.manual_seed(0)
    x = torch.randn(64, 1024, 2, 2)
    nn.init.ones_(model.layer4[1].bn3.weight)
    model.train()
    dropped = (model.layer4[1](x) == x.relu()).flatten(1).all(1)
    assert 10 < dropped.sum() < 45  # 0.4 of 64 images skip the block


def test_gradient_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    model = build("botnet14_tiny", num_classes=3, zero_init_last=False).eval()
    images = torch.randn(2, 3, 33, 65)
    gradients = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert model.grad_checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["botnet14_tiny", "resnet14_tiny", "botnet_s1_14_tiny", "resnet26"])
def test_cifar_stem(name: str):
    model = build(name, stem="cifar", num_classes=10).eval()
    assert (model.conv1.kernel_size, model.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(model.maxpool, nn.Identity)
    images = torch.randn(2, 3, 32, 32)
    last = 4 if "s1" in name else 8
    assert model(images).shape == (2, 10)
    assert [row["reduction"] for row in model.feature_info] == [1, 1, 2, 4, last]
    assert [f.shape[-1] for f in model.forward_intermediates(images, intermediates_only=True)] == [
        32, 32, 16, 8, 32 // last,
    ]  # fmt: skip
    for layer in attention_layers(model):
        assert layer.position.grid in ((8, 8), (32 // last, 32 // last))


@pytest.mark.parametrize("name", ["botnet14_tiny", "resnet26"])
def test_cifar_stem_with_features_only(name: str):
    model = build(name, stem="cifar", features_only=True, out_indices=(0, 4))
    assert [f.shape[-1] for f in model(torch.randn(1, 3, 32, 32))] == [32, 4]
    assert model.feature_info.reduction() == [1, 8]


def test_options_reach_the_layer():
    model = build(
        "botnet26_small", heads=8, position="absolute", convention="timm", attn_drop=0.1, kernel="mask",
        img_size=(64, 128), c4_blocks=[0, 1], c5_blocks=[1, 0], c5_stride=1,
    )  # fmt: skip
    names = [name for name, m in model.named_modules() if isinstance(m, MHSA2d)]
    assert names == ["layer3.1.conv2.attention", "layer4.0.conv2.attention"]
    for layer in attention_layers(model):
        assert (layer.heads, layer.mode, layer.convention) == (8, "absolute", "timm")
        assert (layer.dropout, layer.kernel, layer.position.grid) == (0.1, "mask", (4, 8))
    assert model.feature_info[-1]["reduction"] == 16


def test_t_family_has_silu_and_squeeze_excite_as_asked():
    with torch.device("meta"):
        models = {se: build("botnet_t3", se=se) for se in ("conv", "all", "none")}
        default = build("botnet_t3")
    for se, model in models.items():
        assert {model.get_submodule(f"layer{i}.0").se is not None for i in (1, 2, 3)} == {se != "none"}
        assert [block.se is not None for block in model.layer4] == [se == "all"] * 6
        assert not any(isinstance(m, nn.ReLU) for n, m in model.named_modules() if ".se." not in n)
    assert default.layer1[0].se.fc1.out_channels == 256 // 16
    assert default.layer4[0].se is None


def test_s1_with_a_dilated_trunk():
    model = build("botnet_s1_14_tiny", output_stride=16)
    assert model.feature_info[-1]["reduction"] == 16
    assert model.forward_features(torch.randn(1, 3, 64, 64)).shape[-2:] == (4, 4)


def test_initialisation_can_be_repeated():
    model = build("botnet14_tiny")
    torch.manual_seed(0)
    model.init_weights()
    queries, keys, values = attention_layers(model)[0].qkv.weight.chunk(3)
    for part, size in ((queries, 1.0), (keys, 0.1), (values, 1.0)):
        assert part.std().item() == pytest.approx(size * 128**-0.5, rel=0.05)
    assert not model.layer4[0].bn3.weight.any()


def test_position_tables_are_spared_weight_decay():
    model = build("botnet14_tiny")
    assert model.no_weight_decay() == {
        f"layer4.0.conv2.attention.position.{axis}" for axis in ("height", "width")
    }
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.1)
    spared = {
        id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]
    }
    assert all(id(p) in spared for p in attention_layers(model)[0].position.parameters())


def test_pretrained_plumbing_loads_a_file_with_other_classes_and_channels(tmp_path):
    source = build("botnet14_tiny", img_size=96)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    model = build_with_timm(
        "botnet14_tiny", pretrained=True, num_classes=3, in_chans=1, pretrained_cfg_overlay=overlay
    )
    assert torch.equal(
        model.layer4[0].conv2.attention.qkv.weight, source.layer4[0].conv2.attention.qkv.weight
    )
    assert model.layer4[0].conv2.attention.position.grid == (6, 6)
    assert model.fc.out_features == 3
    torch.testing.assert_close(model.conv1[0].weight, source.conv1[0].weight.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("botnet5", {}, "unknown model 'botnet5'; did you mean botnet50"),
        ("zzzzqqq", {}, "unknown model 'zzzzqqq'; there are botnet50"),
        ("botnet14_tiny", {"stem": "mnist"}, "stem must be one of imagenet, cifar, got 'mnist'"),
        ("botnet14_tiny", {"se": True}, "se must be 'none', 'conv', 'all' or 'c5', got True"),
        ("botnet14_tiny", {"c5_blocks": [1, 1]}, "c5_blocks needs 1 entries"),
        ("botnet14_tiny", {"img_size": -3}, "image size"),
        ("botnet14_tiny", {"hedas": 4}, "botnet14_tiny takes no argument 'hedas'; did you mean 'heads'"),
        (
            "resnet26",
            {"num_clases": 4},
            "resnet26 takes no argument 'num_clases'; did you mean 'num_classes'",
        ),
        ("resnet26", {"stem": "cifar", "zzz": 4}, "resnet26 takes no argument 'zzz'"),
        ("resnet14_tiny", {"heads": 4}, "resnet14_tiny has no attention, so it takes no heads"),
        ("vgg11", {"stem": "cifar"}, "VGG has no conv1, bn1, maxpool"),
    ],
)
def test_bad_names_and_options_are_refused_in_one_line(name: str, kwargs: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught, torch.device("meta"):
        build(name, **kwargs)
    assert "\n" not in str(caught.value)


def test_imagenet_stem_is_the_default():
    model = build("resnet14_tiny")
    assert set_stem(model, "imagenet") is model
    assert isinstance(model.maxpool, nn.MaxPool2d)
    assert isinstance(build("botnet14_tiny"), BoTNet)
    assert dataclasses.is_dataclass(VARIANTS["botnet50"])
