"""Norms, frozen stages and recomputation of the backbone."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torchvision
from timm.layers.norm_act import BatchNormAct2d, FrozenBatchNormAct2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import botvision
from botvision.config.detector import DetectorOptions, needs_weights
from botvision.detection.norms import GroupNorm2d, after_attention, convert, freeze, is_norm
from tests.detection.scenes import detector, scene, total

STATISTICS = ("running_mean", "running_var")


def norms(module: nn.Module) -> set[str]:
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, FrozenBatchNorm2d)
    named = {type(m).__name__ for m in module.modules() if isinstance(m, kinds)}
    return named | {"frozen" for m in module.modules() if type(m).__name__.startswith("FrozenBatchNorm")}


@pytest.mark.parametrize(
    ("norm", "of_body", "of_heads"),
    [
        ("batch", "BatchNorm2d", "BatchNorm2d"),
        ("sync", "SyncBatchNorm", "SyncBatchNorm"),
        ("group", "GroupNorm2d", "GroupNorm2d"),
        ("frozen", "frozen", "GroupNorm2d"),
    ],
)
def test_every_norm_is_of_the_kind_and_trains(norm, of_body, of_heads):
    model = detector("resnet14_nano", norm=norm)
    assert of_body in norms(model.backbone.body)
    assert len(norms(model.backbone.body) - {"FrozenBatchNorm2d"}) == 1
    for part in (model.backbone.fpn, model.roi_heads.box_head, model.roi_heads.mask_head):
        assert norms(part) == {of_heads}
    total(model(*scene())).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_frozen_norms_change_nothing_in_training():
    model = detector("resnet14_nano", norm="frozen")
    body = model.backbone.body
    before = {name: buffer.clone() for name, buffer in body.named_buffers()}
    assert {"bn1.weight", "bn1.running_mean"} <= set(before)
    model(*scene())
    assert all(torch.equal(buffer, before[name]) for name, buffer in body.named_buffers())


def test_norms_behind_attention_are_not_frozen_with_the_others():
    body = detector("botnet26_small", norm="frozen").backbone.body
    behind = after_attention(body)
    assert behind == {f"layer4.{block}.bn2": f"layer4.{block}.conv2" for block in range(2)}
    kept = [n for n, m in body.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert kept == list(behind)
    assert after_attention(detector("botnet26_small", norm="group").backbone.body) == behind
    torchvisions = botvision.from_resnet(torchvision.models.resnet50(), img_size=64)
    assert list(after_attention(torchvisions)) == [f"layer4.{block}.bn2" for block in range(3)]


@pytest.mark.parametrize(
    "options", [{"norm": "frozen"}, {"frozen_stages": 5}, {"norm": "group", "frozen_stages": 5}]
)
def test_a_frozen_network_is_not_dead(options):
    """Fresh networks have scales of 0 at the end of their blocks, which freezing would make constant."""
    body = detector("resnet26_small", heads="light", **options).backbone.body
    scales = [m.weight for m in body.modules() if is_norm(m)]
    assert len(scales) > 20
    assert all((scale == 1).all() for scale in scales)
    for block in body["layer2"]:
        assert block.bn3(torch.rand(2, block.conv3.out_channels, 4, 4)).std() > 0.1


def test_freezing_keeps_scales_that_have_seen_data():
    network: Any = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    nn.init.zeros_(network[0].weight)
    nn.init.zeros_(network[1].weight)
    network[1](torch.rand(2, 4, 3, 3))
    frozen: Any = freeze(network)
    assert frozen[0].weight.tolist() == [1, 1, 1, 1]
    assert frozen[1].weight.tolist() == [0, 0, 0, 0]


def test_which_options_need_weights():
    assert needs_weights(DetectorOptions(norm="group")) is None
    for options in (DetectorOptions(norm="frozen"), DetectorOptions(frozen_stages=2)):
        assert "model.detector." in (needs_weights(options) or "")


@pytest.mark.parametrize("stages", range(6))
def test_frozen_stages(stages):
    model = detector(heads="light", frozen_stages=stages)
    body = model.backbone.body
    places = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    before = {name: buffer.clone() for name, buffer in body.named_buffers()}
    total(model(*scene())).backward()
    for index, names in enumerate(places):
        for name, parameter in body.named_parameters():
            if name.split(".")[0] in names:
                assert parameter.requires_grad == (index >= stages), name
        moved = [
            not torch.equal(buffer, before[name])
            for name, buffer in body.named_buffers()
            if name.split(".")[0] in names and name.endswith(STATISTICS)
        ]
        assert any(moved) == all(moved) == (index >= stages)
    assert all(p.requires_grad for p in model.roi_heads.parameters())


def test_frozen_stages_with_group_norm_are_not_trained():
    body = detector(norm="group", frozen_stages=2, heads="light").backbone.body
    assert {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad} == {
        *("layer2", "layer3", "layer4")
    }


def test_group_norm_of_a_padded_batch_is_that_of_each_image():
    torch.manual_seed(0)
    norm = GroupNorm2d(12).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    assert norm.num_groups == 4
    x = torch.randn(2, 12, 6, 7, dtype=torch.float64, requires_grad=True)
    out = norm(x, torch.tensor([[6, 7], [3, 5]]))
    for index, (rows, columns) in enumerate([(6, 7), (3, 5)]):
        alone = nn.GroupNorm.forward(norm, x[index : index + 1, :, :rows, :columns])[0]
        torch.testing.assert_close(out[index, :, :rows, :columns], alone, rtol=1e-5, atol=1e-5)
    gradient = torch.autograd.grad(out[1, :, :3, :5].sum(), x)[0]
    assert gradient[1, :, 3:].abs().max() == 0, "cells beyond the image have no say"


def test_norms_with_their_own_activation_keep_it():
    network = nn.Sequential(BatchNormAct2d(8, act_layer=nn.SiLU), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    names = {n for n, _ in network.named_parameters()}
    convert(network, "group")
    assert {n for n, _ in network.named_parameters()} == names
    assert isinstance(network[0], GroupNorm2d)
    assert isinstance(network[0].act, nn.SiLU)
    frozen: Any = convert(nn.Sequential(BatchNormAct2d(8)), "frozen")
    assert isinstance(frozen[0], FrozenBatchNormAct2d)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_recomputation_gives_the_same_gradients(norm):
    """On a padded batch, so that the sizes must still be there in the backward pass."""
    gradients = []
    for checkpointing in (False, True):
        model = detector(heads="light", norm=norm, checkpointing=checkpointing)
        torch.manual_seed(1)  # the sampling of anchors and proposals
        total(model(*scene())).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_recomputation_knows_the_sizes_of_each_batch():
    """Two batches of other sizes before one backward pass, as in accumulation over summed losses."""
    gradients = []
    for checkpointing in (False, True):
        model: Any = detector(heads="light", norm="group", checkpointing=checkpointing).backbone
        model = pickle.loads(pickle.dumps(copy.deepcopy(model)))  # a copy's parts are its own
        x = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
        maps = [model(x, sizes) for sizes in ([(64, 128), (96, 50)], [(96, 30), (40, 128)])]
        loss = torch.stack([level.square().mean() for each in maps for level in each.values()]).sum()
        loss.backward(retain_graph=True)
        loss.backward()  # what is made again is made again in every pass
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_recomputation_saves_memory():
    sizes = []
    for checkpointing in (False, True):
        model = detector("botnet26_small", heads="light", checkpointing=checkpointing)
        held = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal held
            held += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.backbone.body(torch.rand(2, 3, 64, 64))
        sizes.append(held)
    assert sizes[1] < 0.7 * sizes[0]
