"""One set of BoTNet-50 weights at every size, and the same weights for tables of every size."""

from typing import Any

import pytest
import torch

from botvision.backbones.models import create_model

SIZES = [
    (228, 304), (256, 128), (33, 65), (65, 33), (32, 32), (64, 64), (97, 131), (160, 96), (64, 333),
    (111, 57), (128, 48), (224, 224),
]  # fmt: skip


@pytest.fixture(scope="module")
def botnet50():
    torch.manual_seed(0)
    return create_model("botnet50", num_classes=7, zero_init_last=False).eval()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_botnet50_runs_forward_and_backward(botnet50, size: tuple[int, int]):
    botnet50.zero_grad(set_to_none=True)
    images = torch.randn(1, 3, *size)
    features = botnet50.forward_features(images)
    assert features.shape == (1, 2048, -(-size[0] // 32), -(-size[1] // 32))
    logits = botnet50.forward_head(features)
    logits.square().sum().backward()
    assert logits.shape == (1, 7)
    gradients = {name: p.grad for name, p in botnet50.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    # Tables of an axis with one cell only add a constant to a row of logits, which the softmax removes.
    assert all(gradients[f"layer4.{i}.conv2.attention.qkv.weight"].any() for i in range(3))
    if min(size) > 32:
        assert gradients["layer4.0.conv2.attention.position.height"].any()
        assert gradients["layer4.0.conv2.attention.position.width"].any()


def test_a_large_image_forward_and_backward():
    """25 x 42 cells, on a narrow network: what depends on their number is the attention's alone."""
    torch.manual_seed(0)
    network: Any = create_model("botnet14_nano", num_classes=7, zero_init_last=False).eval()
    features = network.forward_features(torch.randn(1, 3, 800, 1333))
    assert features.shape[-2:] == (25, 42)
    network.forward_head(features).square().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients.values())


def test_weights_of_224_load_at_1024_strictly_and_back():
    torch.manual_seed(0)
    small: Any = create_model("botnet26_small", img_size=224, zero_init_last=False).eval()
    large: Any = create_model("botnet26_small", img_size=1024, zero_init_last=False).eval()
    back: Any = create_model("botnet26_small", img_size=224).eval()
    images = torch.randn(1, 3, 96, 64)
    assert large.layer4[0].conv2.attention.position.height.shape == (127, 64)
    stored = {name: value.clone() for name, value in large.state_dict().items()}
    with torch.no_grad():
        large.load_state_dict(small.state_dict(), strict=True)
        torch.testing.assert_close(large(images), small(images), rtol=0, atol=0)
        back.load_state_dict(large.state_dict(), strict=True)
        torch.testing.assert_close(back(images), small(images), rtol=0, atol=0)
        back.load_state_dict(stored, strict=True)
    assert back.layer4[0].conv2.attention.position.height.shape == (127, 64)
    assert all(torch.equal(value, stored[name]) for name, value in back.state_dict().items())
