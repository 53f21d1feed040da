"""The residual branch beside its shortcut, against what the block's last activation is given."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

import botvision as bv
from botvision.attention import MHSA2d
from botvision.backbones.block import AttentionConv2d
from botvision.config.detector import DetectorOptions
from botvision.inference.attention_maps import attention_maps


def slow_twins(network: nn.Module, image: Tensor, cells: list[tuple[int, int]] | None = None) -> list[float]:
    """Branch = what the last activation is given, minus the shortcut computed once more."""
    blocks: list[Any] = [
        m for m in network.modules() if isinstance(getattr(m, "conv2", None), AttentionConv2d)
    ]
    inputs: dict[int, Tensor] = {}
    sums: dict[int, Tensor] = {}
    handles = []
    for n, block in enumerate(blocks):
        last = getattr(block, "act3", None) or block.relu
        handles += [
            block.register_forward_pre_hook(lambda _m, args, n=n: inputs.update({n: args[0].clone()})),
            last.register_forward_pre_hook(lambda _m, args, n=n: sums.update({n: args[0].clone()})),
        ]
    with torch.no_grad():
        network([image]) if cells else network(image[None])
        for handle in handles:
            handle.remove()
        ratios = []
        for n, block in enumerate(blocks):
            shortcut = inputs[n] if block.downsample is None else block.downsample(inputs[n])
            height, width = sums[n].shape[2:] if cells is None else cells[n]
            parts = [map_[0, :, :height, :width] for map_ in (sums[n] - shortcut, shortcut)]
            ratios.append(float(parts[0].square().mean().sqrt() / parts[1].square().mean().sqrt()))
    return ratios


def lively(network: nn.Module) -> nn.Module:
    """With norms of all sizes: the last one of a branch is often zero at first."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


@pytest.mark.parametrize("name", ["botnet26_small", "botnet_s1_14_nano"])
def test_blocks_of_timm(name: str):
    network = lively(bv.create_model(name, num_classes=3, img_size=64))
    image = torch.randn(3, 64, 96)
    found = [block.branch_ratio for block in attention_maps(network, image).blocks]
    assert found == pytest.approx(slow_twins(network, image), rel=1e-4)


def test_blocks_with_a_channel_gate():
    import timm

    gated = timm.create_model("seresnet50", num_classes=3, layers=(1, 1, 1, 2))
    network = lively(bv.from_resnet(gated, img_size=64))
    image = torch.randn(3, 64, 64)
    found = [block.branch_ratio for block in attention_maps(network, image).blocks]
    assert len(found) == 2
    assert found == pytest.approx(slow_twins(network, image), rel=1e-4)


def test_blocks_of_torchvision():
    network = lively(bv.from_resnet(ResNet(Bottleneck, [1, 1, 1, 2]), img_size=64))
    image = torch.randn(3, 64, 64)
    found = [block.branch_ratio for block in attention_maps(network, image).blocks]
    assert found == pytest.approx(slow_twins(network, image), rel=1e-4)


def test_in_a_detector_cells_beyond_the_image_do_not_count():
    options = DetectorOptions(heads="light", channels=16, box_channels=16, mask_convs=1)
    network = lively(bv.mask_rcnn("botnet14_tiny", 1, options, image_size=96, backbone_args={"img_size": 96}))
    image = torch.rand(3, 66, 96)  # 3x3 cells of 32 pixels of a canvas of 96x96, all seen; 5x6 of 16
    network.get_submodule("transform").size_divisible = 64  # pyrefly: ignore
    found = attention_maps(network, image).blocks[0].branch_ratio
    assert found == pytest.approx(slow_twins(network, image, [(3, 3)])[0], rel=1e-4)
    assert found != pytest.approx(slow_twins(network, image, [(4, 4)])[0], rel=1e-3)


def test_attention_outside_of_a_bottleneck_has_no_branch():
    assert (
        attention_maps(nn.Sequential(MHSA2d(4, heads=1)), torch.rand(4, 6, 5)).blocks[0].branch_ratio is None
    )


def test_hooks_go_and_outputs_stay():
    network = lively(bv.create_model("botnet14_tiny", num_classes=3, img_size=64))
    image = torch.randn(3, 64, 64)
    before = network(image[None])
    attention_maps(network, image)
    assert torch.equal(network(image[None]), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
