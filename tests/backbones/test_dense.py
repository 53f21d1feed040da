"""A classifier asked at places: its own weights, at the cells around these."""

import pytest
import timm
import torch
from torch import nn

from botvision.backbones.dense import cells_at, logits_at
from botvision.backbones.models import create_model

MODEL = {"num_classes": 5, "img_size": 128}


def test_the_mean_over_all_cells_is_what_the_pooled_classifier_says():
    model = create_model("botnet_s1_14_nano", **MODEL).eval()
    images = torch.randn(2, 3, 96, 128)
    grid = torch.cartesian_prod(torch.arange(6), torch.arange(8)) * 16.0
    everywhere = logits_at(model, images, grid.expand(2, -1, -1))
    assert everywhere.shape == (2, 48, 5)
    torch.testing.assert_close(everywhere.mean(1), model(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "cells"), [(128, 8), (100, 7), (33, 3), (16, 1)])
def test_cells_by_hand(side, cells):
    """Of strides 16: from pixel 8 to 24 cell 1 is nearest, and the last one is as near as it gets beyond."""
    maps = torch.arange(cells * cells).view(1, 1, cells, cells).float()
    for y, x in ((0, 0), (9, 0), (7, 23), (25, 9), (side - 1, side - 1)):
        row, column = (min(round(place / 16), cells - 1) for place in (y, x))
        found = cells_at(maps, torch.tensor([[[y, x]]]).float(), (side, side))
        assert found.tolist() == [[[row * cells + column]]]


def test_a_cell_sees_most_around_the_place_it_stands_for():
    """The gradient of a cell's logits has its middle within a pixel of the place."""
    model = create_model("resnet14_nano", num_classes=5, output_stride=16).eval()
    model.maxpool = nn.AvgPool2d(3, 2, 1)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.forward = lambda x: x  # pyrefly: ignore[bad-assignment]
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    images = torch.randn(1, 3, 192, 192, requires_grad=True)
    logits_at(model, images, torch.tensor([[[96.0, 112.0]]])).square().sum().backward()
    assert images.grad is not None
    touched = images.grad[0].abs().sum(0) > 0
    for axis, middle in ((1, 96), (0, 112)):
        seen = touched.any(axis).nonzero()[:, 0]
        assert (int(seen[0]), int(seen[-1])) == (middle - 39, middle + 39)


def test_gradients_reach_images_and_weights_at_the_places_alone():
    model = create_model("resnet14_nano", num_classes=5, output_stride=16).eval()
    images = torch.randn(2, 3, 128, 128, requires_grad=True)
    logits_at(model, images, torch.tensor([[[16.0, 16.0]], [[112.0, 112.0]]])).square().sum().backward()
    assert images.grad is not None
    assert images.grad[0, :, 64:, 64:].abs().max() == 0 < images.grad[0, :, :32, :32].abs().max()
    assert images.grad[1, :, :64, :64].abs().max() == 0
    assert model.get_submodule("conv1.0").weight.grad.abs().max() > 0  # pyrefly: ignore


def test_networks_without_a_map_are_refused():
    points = torch.zeros(1, 1, 2)
    with pytest.raises(ValueError, match="Sequential has no feature map with a linear classifier"):
        logits_at(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 32, 32), points)
    vit = timm.create_model("test_vit", num_classes=3)
    with pytest.raises(ValueError, match="expected a"):
        logits_at(vit, torch.zeros(1, 3, 160, 160), points)


def test_squeeze_excite_in_c5_alone():
    model = create_model("resnet14_nano", se="c5", **MODEL)
    has = {name.split(".")[0] for name, _ in model.named_parameters() if ".se." in name}
    assert has == {"layer4"}
    assert {name.split(".")[0] for name, _ in create_model("resnet14_nano", se="all").named_parameters()
            if ".se." in name} == {"layer1", "layer2", "layer3", "layer4"}  # fmt: skip
    model.reset_classifier(3)  # pyrefly: ignore[not-callable]
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ValueError, match="se 'c5' is for plain ResNets, botnet14_nano has attention there"):
        create_model("botnet14_nano", se="c5")
