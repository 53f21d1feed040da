"""An image gives the same detections alone and in a batch with larger images."""

import copy

import pytest
import torch
from torch import nn

from tests.detection.scenes import detector, image

SCORES, PIXELS = 1e-4, 0.01  # fp32 sums in another order, through some thirty layers


def same(alone: dict, together: dict) -> None:
    assert len(alone["boxes"]) > 5, "a test on nothing"
    assert alone["labels"].tolist() == together["labels"].tolist()
    torch.testing.assert_close(alone["scores"], together["scores"], rtol=0, atol=SCORES)
    torch.testing.assert_close(alone["boxes"], together["boxes"], rtol=0, atol=PIXELS)
    if "masks" in alone:
        torch.testing.assert_close(alone["masks"], together["masks"], rtol=0, atol=1e-3)


@torch.no_grad()
def check(model: nn.Module) -> None:
    """An image that fills its canvas alone, one that does not, and one that is small both ways."""
    model.eval()
    images = [image(64, 96, 1), image(77, 50, 2), image(40, 131, 3), image(160, 190, 4)]
    together = model(images)
    for single, of_batch in zip(images, together, strict=True):
        same(model([single])[0], of_batch)


@pytest.mark.parametrize("neck", ["fpn", "c5"])
@pytest.mark.parametrize("heads", ["v2", "light"])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("backbone", ["botnet14_nano", "resnet14_nano"])
def test_same_detections_alone_and_in_a_batch(backbone, norm, heads, neck):
    check(detector(backbone, norm=norm, heads=heads, neck=neck))


@pytest.mark.parametrize(
    ("backbone", "args"),
    [
        ("botnet14_nano", {"position": "absolute", "c4_blocks": [1]}),
        ("botnet_s1_14_tiny", {}),
        ("botnet14_nano", {"se": "all", "act_layer": nn.SiLU}),
        ("resnet14_nano", {"avg_down": True}),
        ("resnet14_nano", {"stem": "cifar"}),
    ],
    ids=["absolute+c4", "s1", "se+silu", "average shortcut", "cifar stem"],
)
def test_same_detections_with_other_layers(backbone, args):
    check(detector(backbone, heads="light", masks=False, backbone_args=args))


def test_a_copy_has_hooks_of_its_own():
    model = detector(heads="light", masks=False).eval()
    check(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        model([image(64, 64), image(96, 128)])  # what the original has seen last is not the copy's business
    check(other)


def test_without_hooks_the_detections_differ():
    """The test above would notice."""
    model = detector(heads="light", masks=False)
    for module in [*model.backbone.modules(), *model.rpn.modules()]:
        module._forward_pre_hooks.clear()
    with pytest.raises(AssertionError):
        check(model)


def test_scaled_images_too():
    model = detector(heads="light", masks=False)
    model.transform.image_size = (96, 128)
    check(model)
