"""Attention that begins as the convolution it replaces."""

import copy
import functools
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import GroupNormAct
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from botvision.backbones import warm_start as module
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.loading import load_weights
from botvision.backbones.models import create_model
from botvision.backbones.surgery import from_resnet
from botvision.backbones.warm_start import start_as_convolutions

DATA = Path(os.environ.get("BOTVISION_DATA", Path(__file__).parents[3] / "shared" / "data"))
WEIGHTS = DATA / "resnet50_imagenet" / "resnet50.safetensors"


def photos(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """(count, 3, side, side) noise that is smooth, as photos are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, side // 8, side // 8, generator=generator)
    fine = torch.randn(count, 3, side, side, generator=generator)
    return F.interpolate(coarse, size=side, mode="bicubic") + 0.2 * fine


def trained_resnet(noise: float = 0.3, **kwargs: Any) -> Any:
    """A narrow bottleneck ResNet whose norms have seen data.

    The kernels of c5 are one matrix over a window, and noise: as those of a trained ResNet, only more so.
    """
    return copy.deepcopy(_trained(noise, **kwargs))


@functools.cache
def _trained(noise: float, **kwargs: Any) -> Any:
    torch.manual_seed(1)
    arguments: dict[str, Any] = {"block": timm.models.resnet.Bottleneck, "zero_init_last": False}
    arguments |= {"layers": (1, 1, 1, 3), "channels": (16, 16, 32, 32), "num_classes": 5} | kwargs
    model: Any = timm.models.resnet.ResNet(**arguments)
    offset = torch.arange(-1.0, 2.0)
    profile = torch.exp(-offset.square() / (2 * module.WINDOW**2))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.3, 0.5)
        for block in model.layer4:
            middle = block.conv2.weight[:, :, 1:2, 1:2].clone()
            block.conv2.weight.mul_(noise).add_(middle * profile[:, None] * profile)
        for step in range(20):
            model.train()(photos(16, seed=100 + step))
    return model.eval()


@torch.no_grad()
def missed(botnet: nn.Module, resnet: nn.Module, x: Tensor) -> float:
    """Mean square difference of the last maps as a part of the ResNet's variance."""
    ours, theirs = (net.eval().forward_features(x) for net in (botnet, resnet))  # pyrefly: ignore
    return float((ours - theirs).square().mean() / theirs.var())


def test_fit_is_closer_than_taps_and_taps_than_new_attention():
    resnet, unseen = trained_resnet(), photos(8, seed=7)
    torch.manual_seed(0)
    errors = {
        how: missed(from_resnet(resnet, warm_start=how, images=images, img_size=64), resnet, unseen)
        for how, images in (("new", None), ("taps", None), ("fit", photos(64).split(16)))
    }
    assert errors["fit"] < 0.8 * errors["taps"]
    assert errors["taps"] < 0.7 * errors["new"]


def test_a_convolution_that_is_a_window_is_met(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RANDOM_PART", 0.0)
    resnet = trained_resnet(noise=0.0)
    botnet = from_resnet(resnet, images=photos(32, 256).split(16), img_size=256, c5_blocks=[0, 1, 1])
    errors = [block.error for block in botnet.surgery_report.started]
    assert len(errors) == 2
    assert max(errors) < 0.2  # at the border the convolution reads zeros, the window fewer cells
    assert missed(botnet, resnet, photos(4, 256, seed=7)) < 0.2


def test_own_cells_meet_a_1x1_convolution_exactly():
    resnet = trained_resnet()
    with torch.no_grad():
        for block in resnet.layer4:
            middle = block.conv2.weight[:, :, 1:2, 1:2].clone()
            block.conv2.weight.zero_()[:, :, 1:2, 1:2] = middle
    botnet = from_resnet(
        resnet, images=[photos(32)], position="own", c5_blocks=[0, 1, 1], heads=2, img_size=64
    )
    assert max(block.error or 0.0 for block in botnet.surgery_report.started) < 1e-6
    assert missed(botnet, resnet, photos(8, seed=7)) < 1e-6


def test_the_norm_behind_gives_what_the_resnets_gave_also_with_statistics_of_the_batch():
    resnet, images = trained_resnet(), photos(64)
    botnet = from_resnet(resnet, images=[images], img_size=64)
    seen: dict[str, Tensor] = {}
    for name, net in (("ours", botnet), ("theirs", resnet)):
        net.layer4[0].bn2.register_forward_hook(lambda _m, _a, out, n=name: seen.__setitem__(n, out.detach()))
    with torch.no_grad():
        for mode in (False, True):
            botnet.eval().layer4[0].bn2.train(mode)
            botnet(images), resnet(images)
            ours, theirs = (seen[name].mean((0, 2, 3)) for name in ("ours", "theirs"))
            assert (ours - theirs).abs().max() < 0.15 * theirs.abs().max()
            seen.setdefault("first", seen["ours"])
        torch.testing.assert_close(seen["ours"], seen["first"], atol=0.15, rtol=0.1)


@pytest.mark.parametrize(("stride", "cell", "middle"), [(1, 2, 2.0), (2, 4, 3.5)])
def test_heads_begin_as_a_window_around_the_cells_that_the_convolution_read(
    stride: int, cell: int, middle: float
):
    resnet = trained_resnet()
    name = "layer4.0.conv2" if stride == 2 else "layer4.1.conv2"
    botnet = from_resnet(resnet, images=[photos(32, 160)], img_size=160)
    seen: list[Tensor] = []
    layer = botnet.get_submodule(name).attention
    layer.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        botnet(photos(4, 160, seed=3))
        grid = seen[0].shape[-2:]
        weights = layer.attention_map(seen[0]).unflatten(-1, grid).unflatten(2, grid).mean((0, 1))
    row, own = torch.arange(float(grid[0])), weights[cell, cell]
    assert abs(float(own.sum(1) @ row) - middle) < 0.25
    assert float(own[cell - 1 : cell + 2, cell - 1 : cell + 2].sum()) > 0.6
    assert float(own[0, -1]) > 0  # far cells count a little, so that gradients reach them


def test_weights_of_a_file_begin_as_the_surgery_does():
    resnet = trained_resnet()
    torch.manual_seed(0)
    by_surgery = from_resnet(resnet, images=[photos(32)], img_size=64)
    botnet = from_resnet(trained_resnet(), warm_start="new", img_size=64)
    botnet.load_state_dict(by_surgery.state_dict())
    for name in ("layer4.0", "layer4.1", "layer4.2"):
        botnet.get_submodule(f"{name}.conv2").attention.reset_parameters()
    torch.manual_seed(0)
    report = load_weights(botnet, resnet.state_dict(), warm_start="fit", images=[photos(32)])
    assert [str(block) for block in report.started] == [str(b) for b in by_surgery.surgery_report.started]
    assert report.missing == report.unexpected == report.mismatched == []
    assert not report.complete  # the norms behind attention are not the file's any more
    assert {name.rpartition(".")[0] for name in report.adapted} == {f"layer4.{n}.bn2" for n in range(3)}
    kept = {name: botnet.state_dict()[name] for name in report.kept}
    assert all(torch.equal(value, resnet.state_dict()[name]) for name, value in kept.items())
    unseen = photos(8, seed=7)
    assert missed(botnet, by_surgery, unseen) < 0.05  # what stays random differs
    assert missed(botnet, resnet, unseen) < 1.2 * missed(by_surgery, resnet, unseen)


def test_the_last_norms_at_zero_make_blocks_their_shortcuts():
    resnet = trained_resnet()
    botnet = from_resnet(resnet, warm_start="zero", c5_blocks=[0, 0, 1])
    x = F.relu(torch.randn(1, 128, 3, 3))
    assert torch.equal(botnet.layer4[2](x), x)
    loaded = from_resnet(trained_resnet(), warm_start="new", c5_blocks=[0, 0, 1])
    load_weights(loaded, resnet.state_dict(), warm_start="zero")
    assert torch.equal(loaded.layer4[2](x), x)


@pytest.mark.parametrize("key_init", [0.0, 0.1, 1.0])
def test_the_random_part_of_keys_is_of_the_papers_size(key_init: float):
    """However small the keys of new attention are: what was measured began so. Without any it stays zero."""
    layer = from_resnet(trained_resnet(), key_init=key_init).get_submodule("layer4.0.conv2").attention
    queries, keys, _ = layer.qkv.weight.view(3, layer.heads, -1, layer.dim).unbind(0)
    size = module.RANDOM_PART * layer.dim**-0.5
    assert queries[:, 1:].std().item() == pytest.approx(size, rel=0.05)
    assert keys[:, 1:].std().item() == pytest.approx(size if key_init else 0.0, rel=0.05)


def test_an_untrained_resnet_gets_new_attention():
    torch.manual_seed(0)
    resnet: Any = create_model("resnet14_tiny")
    assert from_resnet(resnet).surgery_report.started == ()
    assert len(from_resnet(trained_resnet()).surgery_report.started) == 3
    assert "layer4.0.conv2 from the convolution's taps" in str(from_resnet(trained_resnet()).surgery_report)


def test_a_trained_resnet_with_group_norm_is_told_by_its_scales():
    def built() -> Any:
        torch.manual_seed(0)
        arguments: dict[str, Any] = {"block": timm.models.resnet.Bottleneck, "layers": (1, 1, 1, 1)}
        arguments |= {"channels": (32, 32, 32, 32), "norm_layer": GroupNormAct, "zero_init_last": False}
        return timm.models.resnet.ResNet(**arguments)

    assert from_resnet(built()).surgery_report.started == ()
    resnet = built()
    nn.init.uniform_(resnet.layer4[0].bn2.weight, 0.5, 1.5)
    assert [block.how for block in from_resnet(resnet).surgery_report.started] == ["taps"]


@pytest.mark.parametrize("position", ["content", "position", "absolute", "even", "own"])
def test_other_positions_are_no_worse_than_new_ones(position: str):
    resnet, unseen = trained_resnet(), photos(8, seed=7)
    torch.manual_seed(0)
    new = from_resnet(resnet, warm_start="new", position=position, img_size=64)
    torch.manual_seed(0)
    fitted = from_resnet(resnet, images=[photos(64)], position=position, img_size=64)
    assert missed(fitted, resnet, unseen) < missed(new, resnet, unseen)


def test_both_conventions_begin_as_the_same_function(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RANDOM_PART", 0.0)
    resnet = trained_resnet()
    paper, other = (from_resnet(resnet, convention=name) for name in ("paper", "timm"))
    x = photos(2)
    with torch.no_grad():
        torch.testing.assert_close(paper.eval()(x), other.eval()(x))


def test_taps_of_a_c5_without_stride_lie_two_cells_apart():
    """S1 sees a map twice as fine as the one its ResNet was trained on; dilated, that ResNet fits it."""
    resnet = trained_resnet()
    dilated = copy.deepcopy(resnet)
    first = dilated.layer4[0]
    first.conv2.stride = first.downsample[0].stride = (1, 1)
    for block in dilated.layer4[1:]:
        block.conv2.dilation = block.conv2.padding = (2, 2)
    torch.manual_seed(0)
    botnet = from_resnet(resnet, images=[photos(64)], c5_stride=1, img_size=64)
    torch.manual_seed(0)
    new = from_resnet(resnet, warm_start="new", c5_stride=1, img_size=64)
    unseen = photos(8, seed=7)
    assert missed(botnet, dilated, unseen) < 0.6 * missed(new, dilated, unseen)


def test_taps_of_a_dilated_resnet_lie_as_far_apart_as_its_convolutions(monkeypatch: pytest.MonkeyPatch):
    """With an output stride of 16 or 8, as dense prediction has it, also where weights come from a file."""
    monkeypatch.setattr(module, "RANDOM_PART", 0.0)
    errors = {}
    for stride, dilations in ((32, [1, 1, 1]), (16, [1, 2, 2]), (8, [2, 4, 4])):
        resnet, size = trained_resnet(output_stride=stride), 8 * 32
        assert [block.conv2.dilation[0] for block in resnet.layer4] == dilations
        botnet = from_resnet(resnet, warm_start="new", img_size=size)
        load_weights(botnet, resnet.state_dict(), warm_start="taps")
        by_surgery = from_resnet(resnet, warm_start="taps", img_size=size).state_dict()
        assert all(torch.equal(value, by_surgery[name]) for name, value in botnet.state_dict().items())
        errors[stride] = missed(botnet, resnet, photos(2, size, seed=7))
    assert max(errors.values()) < 1.2 * errors[32]


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@torch.no_grad()
def test_a_fit_holds_no_map_of_weights():
    """What heads average on a large map is that of the maps of their weights, of which none is made."""
    torch.manual_seed(0)
    attention, x = AttentionConv2d(8, heads=2, grid=(40, 44)), torch.randn(3, 8, 40, 44)
    target = module._Target(attention, torch.randn(8, 8, 3, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    with Largest() as largest:
        fitted, held_out = module._moments(target, [x[:2], x[2:]])
    assert largest.elements < (40 * 44) ** 2
    weights, cells = attention.attention.attention_map(x), x.flatten(2).mT
    outputs = target.convolve(x).flatten(2).mT.chunk(2, 2)
    for head in range(2):
        averages = weights[:, head] @ cells
        for images, found in ((slice(2), fitted[head]), (slice(2, 3), held_out[head])):
            whole = module.Moments.of(averages[images].flatten(0, 1), outputs[head][images].flatten(0, 1))
            assert found.cells == whole.cells
            torch.testing.assert_close(found.squares, whole.squares, rtol=1e-4, atol=1e-2)
            torch.testing.assert_close(found.products, whole.products, rtol=1e-4, atol=1e-1)


def test_grouped_convolutions_are_written_out():
    resnet = trained_resnet(cardinality=4, base_width=8)
    assert resnet.layer4[0].conv2.groups == 4
    unseen = photos(8, seed=7)
    torch.manual_seed(0)
    new = from_resnet(resnet, warm_start="new", img_size=64)
    fitted = from_resnet(resnet, images=[photos(64)], img_size=64)
    assert missed(fitted, resnet, unseen) < 0.5 * missed(new, resnet, unseen)


def test_fitting_leaves_no_trace_in_the_network():
    resnet = trained_resnet().train()
    botnet = from_resnet(resnet, images=[photos(16)], img_size=64)
    assert all(layer.training for layer in botnet.modules())
    assert not any("forward" in vars(m) for m in botnet.modules() if isinstance(m, AttentionConv2d))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in botnet.modules())

    def broken() -> Any:
        yield photos(4)
        raise RuntimeError("no more")

    target = from_resnet(trained_resnet(), warm_start="new", img_size=64)
    with pytest.raises(RuntimeError, match="no more"):
        load_weights(target, resnet.state_dict(), warm_start="fit", images=broken())
    assert not any("forward" in vars(m) for m in target.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warm_start": "fit"}, "needs images"),
        ({"warm_start": "taps", "images": []}, "takes no images"),
        ({"warm_start": "other"}, "warm_start must be one of fit, taps, zero, new, got 'other'"),
        ({"images": []}, "needs images, got none"),
    ],
)
def test_what_does_not_go_together_is_named(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        from_resnet(trained_resnet(), **arguments)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_a_handful_of_images_is_no_worse_than_none(count: int):
    resnet, unseen = trained_resnet(), photos(16, seed=7)
    torch.manual_seed(0)
    taps = from_resnet(resnet, img_size=64)
    torch.manual_seed(0)
    few = from_resnet(resnet, images=[photos(count)], img_size=64)
    assert missed(few, resnet, unseen) < 1.15 * missed(taps, resnet, unseen)
    assert min(block.error or 0.0 for block in few.surgery_report.started) > 0.05  # not that of a memory


def test_images_make_it_a_fit_whatever_batches_look_like():
    resnet = trained_resnet()
    loader: Any = [[photos(8, seed=seed).double(), torch.zeros(8)] for seed in range(2)]
    report = load_weights(from_resnet(resnet, warm_start="new"), resnet.state_dict(), images=loader)
    assert [block.how for block in report.started] == ["fit"] * 3
    with pytest.raises(ValueError, match="must be finite numbers"):
        from_resnet(resnet, images=[torch.full((1, 3, 64, 64), torch.nan)])
    with pytest.raises(ValueError, match=r"must be .* tensors, got str"):
        from_resnet(resnet, images=["photo.jpg"])  # pyrefly: ignore
    with pytest.raises(ValueError, match="warm_start must be one of fit"):
        load_weights(resnet, resnet.state_dict(), warm_start="distil")  # pyrefly: ignore


def test_images_larger_than_the_tables_are_fitted_too():
    resnet, unseen = trained_resnet(), photos(4, 192, seed=7)
    torch.manual_seed(0)
    small = from_resnet(resnet, images=[photos(16, 192)], img_size=96)
    torch.manual_seed(0)
    same = from_resnet(resnet, images=[photos(16, 192)], img_size=192)
    assert missed(small, resnet, unseen) < 1.5 * missed(same, resnet, unseen)


def test_a_c5_that_never_had_a_stride_is_not_taken_for_a_dilated_one():
    resnet = trained_resnet()
    for module_of_first in (resnet.layer4[0].conv2, resnet.layer4[0].downsample[0]):
        module_of_first.stride = (1, 1)
    torch.manual_seed(0)
    botnet = from_resnet(resnet, images=[photos(32)], img_size=64)
    torch.manual_seed(0)
    new = from_resnet(resnet, warm_start="new", img_size=64)
    unseen = photos(8, seed=7)
    assert missed(botnet, resnet, unseen) < 0.6 * missed(new, resnet, unseen)


def test_a_kernel_of_another_width_is_named():
    botnet = from_resnet(trained_resnet(), warm_start="new")
    with pytest.raises(
        ValueError, match=r"layer4.0.conv2: a kernel of \(8, 8, 3, 3\) does not fit attention of 32"
    ):
        start_as_convolutions(botnet, {"layer4.0.conv2": torch.zeros(8, 8, 3, 3)})


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} is absent")
def test_a_pretrained_resnet_is_kept():
    """Photos by nearest class mean of the last features, with no training at all."""
    from botvision.config.data import DataConfig
    from botvision.data.synthetic import open_synthetic

    resnet = timm.create_model("resnet50", num_classes=1000)
    load_weights(resnet, WEIGHTS, strict=True)
    config = DataConfig(source="generated", image_size=96, num_images=48, num_val_images=2)
    source = open_synthetic(config)[1]["train"].source
    images = torch.stack([source.load(index) for index in range(48)]).float() / 255
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)
    torch.manual_seed(0)
    errors = {}
    for how, given in (("new", None), ("taps", None), ("fit", images[:32].split(8))):
        botnet = create_model("botnet50", num_classes=1000, img_size=96)
        load_weights(botnet, WEIGHTS, warm_start=how, images=given)
        errors[how] = missed(botnet, resnet, images[32:])
    assert errors["taps"] < 0.75
    assert errors["fit"] < 0.75
    assert errors["new"] > 0.85
