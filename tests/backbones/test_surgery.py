import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from botvision.backbones.block import AttentionConv2d
from botvision.backbones.surgery import Surgery, from_resnet

SLIM = {"layers": (1, 1, 2, 2), "channels": (16, 32, 32, 64), "num_classes": 5}


def slim_resnet(**kwargs) -> Any:
    """A narrow bottleneck ResNet of timm, quick to build and run."""
    arguments: dict[str, Any] = {"block": timm.models.resnet.Bottleneck} | SLIM | kwargs
    return timm.models.resnet.ResNet(**arguments)


def operate(model: nn.Module, **options) -> Any:
    return from_resnet(model, **options)


def stage_outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(f"layer{i}").register_forward_hook(
            lambda _m, _a, out, i=i: outputs.__setitem__(f"layer{i}", out.clone())
        )
        for i in range(1, 5)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return outputs


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_resnet50_keeps_everything_but_c5_bit_for_bit(library: str):
    if library == "timm":  # with its last norms at zero, as by default, every block would be the identity
        resnet = timm.create_model("resnet50", zero_init_last=False).eval()
    else:
        resnet = torchvision.models.resnet50().eval()
    botnet, report = from_resnet(resnet, return_report=True)
    x = torch.randn(1, 3, 96, 64)
    before, after = stage_outputs(resnet, x), stage_outputs(botnet, x)
    for stage in ("layer1", "layer2", "layer3"):
        assert torch.equal(before[stage], after[stage])
    assert before["layer4"].shape == after["layer4"].shape
    assert not torch.equal(before["layer4"], after["layer4"])
    theirs, ours = dict(resnet.named_parameters()), dict(botnet.named_parameters())
    assert set(report.dropped) == {f"layer4.{i}.conv2.weight" for i in range(3)}
    assert set(report.kept) == set(theirs) - set(report.dropped)
    assert set(report.new) == set(ours) - set(report.kept)
    assert len(report.new) == 9
    assert all(torch.equal(theirs[name], ours[name]) for name in report.kept)
    assert sum(report.dropped.values()) == 3 * 9 * 512 * 512
    assert botnet.surgery_report is report
    assert "layer4.0.conv2" in str(report)
    assert len(str(report).splitlines()) == 4


def test_the_callers_model_is_left_alone_unless_asked():
    resnet = slim_resnet()
    parameters = dict(resnet.named_parameters())
    botnet = operate(resnet)
    assert dict(resnet.named_parameters()).keys() == parameters.keys()
    assert isinstance(resnet.layer4[0].conv2, nn.Conv2d)
    assert botnet is not resnet
    changed = operate(resnet, inplace=True)
    assert changed is resnet
    assert all(dict(resnet.named_parameters())[n] is parameters[n] for n in changed.surgery_report.kept)


@pytest.mark.parametrize(
    ("options", "replaced"),
    [
        ({}, ["layer4.0", "layer4.1"]),
        ({"c5_blocks": [0, 1]}, ["layer4.1"]),
        ({"c5_blocks": False, "c4_blocks": [1, 0]}, ["layer3.0"]),
        ({"c4_blocks": True}, ["layer3.0", "layer3.1", "layer4.0", "layer4.1"]),
        ({"c5_blocks": False}, []),
    ],
)
def test_blocks_are_a_choice(options: dict, replaced: list[str]):
    model = operate(slim_resnet(), **options)
    blocks = [name for name, m in model.named_modules() if isinstance(m, AttentionConv2d)]
    assert blocks == [f"{name}.conv2" for name in replaced]
    assert model(torch.randn(1, 3, 33, 65)).shape == (1, 5)


@pytest.mark.parametrize(
    ("hw", "stride", "grids"),
    [
        ((224, 224), None, [(14, 14), (7, 7)]),
        ((224, 224), 1, [(14, 14), (14, 14)]),
        ((1024, 512), None, [(64, 32), (32, 16)]),
        ((228, 304), None, [(15, 19), (8, 10)]),
        ((33, 65), 1, [(3, 5), (3, 5)]),
    ],
)
def test_tables_are_made_for_the_map_that_reaches_the_block(hw, stride, grids):
    model = operate(slim_resnet(), img_size=hw, c5_stride=stride)
    assert [block.conv2.attention.position.grid for block in model.layer4] == grids
    maps = []
    for block in model.layer4:
        block.conv2.register_forward_pre_hook(lambda _m, args: maps.append(tuple(args[0].shape[-2:])))
    model(torch.randn(2, 3, *hw))
    assert maps == grids


@pytest.mark.parametrize(
    "trunk", [{}, {"avg_down": True}, {"aa_layer": timm.layers.BlurPool2d}, {"down_kernel_size": 3}]
)
@pytest.mark.parametrize("blocks", [None, [0, 1]])
def test_stride_1_changes_block_shortcut_and_feature_info(trunk: dict, blocks: list[int] | None):
    before = slim_resnet(**trunk)
    model = operate(before, c5_stride=1, c5_blocks=blocks)
    maps = stage_outputs(model, torch.randn(2, 3, 64, 97))
    assert maps["layer4"].shape[-2:] == maps["layer3"].shape[-2:] == (4, 7)
    assert [row["reduction"] for row in model.feature_info] == [2, 4, 8, 16, 16]
    assert [row["reduction"] for row in before.feature_info] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    "name",
    [
        "resnet50d",
        "seresnet50",
        "ecaresnet50t",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "resnetblur50",
        "legacy_seresnet50",
    ],
)
def test_families_of_timm(name: str):
    with torch.device("meta"):
        model = operate(timm.create_model(name, num_classes=3), img_size=(64, 96))
        assert model(torch.empty(2, 3, 33, 65)).shape == (2, 3)
    assert len(model.surgery_report.new) == 9


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2", "resnet152"])
def test_families_of_torchvision(name: str):
    with torch.device("meta"):
        model = operate(torchvision.models.get_model(name))
        assert model(torch.empty(2, 3, 65, 33)).shape == (2, 1000)


def test_blurred_network_keeps_its_own_pool():
    model = operate(slim_resnet(aa_layer=timm.layers.BlurPool2d))
    assert model.layer4[0].conv2.stride == 1
    assert isinstance(model.layer4[0].aa, timm.layers.BlurPool2d)
    assert stage_outputs(model, torch.randn(1, 3, 65, 63))["layer4"].shape[-2:] == (3, 2)


def test_dilated_network_keeps_its_output_stride():
    model = operate(slim_resnet(output_stride=16))
    assert stage_outputs(model, torch.randn(1, 3, 64, 96))["layer4"].shape[-2:] == (4, 6)
    dilated = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    with torch.device("meta"):
        out = stage_outputs(operate(dilated.to("meta")), torch.empty(1, 3, 64, 96))
    assert out["layer4"].shape[-2:] == (8, 12)


def test_features_only_network():
    features = timm.create_model("resnet26", features_only=True)
    model = operate(features, c5_stride=1)
    assert [f.shape[-1] for f in model(torch.randn(1, 3, 64, 64))] == [32, 16, 8, 4, 4]
    assert model.feature_info.reduction() == [2, 4, 8, 16, 16]


def test_new_layers_take_dtype_device_and_mode():
    model = operate(slim_resnet().to(torch.bfloat16).eval())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.layer4[0].conv2.attention.training
    assert {p.device.type for p in operate(slim_resnet().to("meta")).parameters()} == {"meta"}


def test_activation_on_the_projection_shortcut_only_when_asked():
    resnet = slim_resnet(act_layer="silu", stem_width=32).eval()
    plain, activated = operate(resnet), operate(resnet, shortcut_act=True)
    activated.load_state_dict(plain.state_dict())  # no new names
    x = torch.randn(1, 128, 6, 5)
    expected = nn.functional.silu(plain.layer4[0].downsample(x))
    torch.testing.assert_close(activated.layer4[0].downsample(x), expected)
    assert plain.layer4[1].downsample is activated.layer4[1].downsample is None


def test_squeeze_excite_in_convolution_blocks_only():
    resnet = slim_resnet(block_args={"attn_layer": "se"})
    assert [b.se is not None for b in operate(resnet, se="conv", c5_blocks=[0, 1]).layer4] == [
        True,
        False,
    ]
    report = operate(resnet, se="conv").surgery_report
    assert {name.split(".")[2] for name in report.dropped} == {"conv2", "se"}
    assert all(b.se is not None for b in operate(resnet).layer4)


def test_initialised_like_the_layer_itself():
    torch.manual_seed(0)
    queries, keys, values = operate(slim_resnet()).layer4[0].conv2.attention.qkv.weight.chunk(3)
    assert queries.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert keys.std().item() == pytest.approx(0.1 * 64**-0.5, rel=0.1)
    assert values.std().item() == pytest.approx(64**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet18", {}, "layer4.0 is a BasicBlock without conv1, conv2, conv3"),
        ("skresnext50_32x4d", {}, "layer4.0.conv2 is a SelectiveKernel, expected a spatial convolution"),
        ("res2net50_26w_4s", {}, "only bottleneck blocks"),
        ("vgg11", {}, "VGG has no layer3 of bottleneck blocks"),
        ("resnetv2_50", {}, "has no layer3"),
        ("resnet26", {"c5_blocks": [1, 1, 1]}, r"c5_blocks needs 2 entries of 0 or 1, .* got \[1, 1, 1\]"),
        ("resnet26", {"c4_blocks": [2, 0]}, "c4_blocks needs 2 entries of 0 or 1"),
        ("resnet26", {"heads": 3}, "layer4.0 has 512 channels, which 3 heads do not divide"),
        ("resnet26", {"c5_stride": 3}, "c5_stride must be 1, 2 or None"),
        ("resnet26", {"c5_blok": [1, 1]}, "unknown option 'c5_blok'"),
        ("resnet26", {"img_size": 0}, "image size"),
        ("resnet26", {"img_size": (64, 64, 3)}, "image size"),
        ("resnet26", {"position": "rotary"}, "position must be one of"),
        ("resnet26", {"se": "both"}, "'all' or 'conv'"),
        ("resnet26", {"surgery": Surgery(), "heads": 8}, "not both"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(model: str, options: dict, message: str):
    with torch.device("meta"):
        network = timm.create_model(model)
    with pytest.raises(ValueError, match=message) as caught:
        operate(network, **options)
    assert "\n" not in str(caught.value)


def test_a_second_surgery_and_a_larger_stride_are_refused():
    model = operate(slim_resnet(), c5_stride=1)
    with pytest.raises(ValueError, match=r"layer4\.0\.conv2 is attention already"):
        operate(model)
    with pytest.raises(ValueError, match="c5_stride=2, but layer4 of this network has stride 1"):
        operate(slim_resnet(output_stride=16), c5_stride=2)


def test_a_refused_surgery_changes_nothing():
    resnet = slim_resnet()
    before = copy.deepcopy(resnet.state_dict())
    for options in ({"heads": 5}, {"position": "rotary"}, {"attn_drop": 1.0}, {"kernel": "fastest"}):
        with pytest.raises(ValueError, match=r"heads|position|dropout|kernel"):
            operate(resnet, inplace=True, c5_stride=1, **options)
    assert resnet.state_dict().keys() == before.keys()
    assert resnet.layer4[0].conv2.stride == (2, 2)
