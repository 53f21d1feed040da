"""The controls with fixed weights against their definition written out, cell by cell."""

import pytest
import torch

from botvision.attention import MHSA2d, attend_reference
from botvision.attention.kernels import KERNELS, attend
from botvision.attention.reference import Fixed
from botvision.backbones.cost import count
from botvision.backbones.models import create_model
from tests.attention.conftest import TOLERANCE

CONTROLS: tuple[Fixed, ...] = ("even", "own")
SIZES = torch.tensor([[7, 5], [4, 2], [1, 5]])


def written_out(layer: MHSA2d, x: torch.Tensor, sizes: torch.Tensor | None, how: Fixed) -> torch.Tensor:
    """Two loops: a 1x1 convolution, and what each cell makes of its results."""
    values = torch.nn.functional.conv2d(x, layer.qkv.weight)
    out = torch.empty_like(values)
    for image in range(len(x)):
        height, width = x.shape[2:] if sizes is None else sizes[image].tolist()
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                own = values[image, :, row, column]
                mean = values[image, :, :height, :width].flatten(1).mean(1)
                out[image, :, row, column] = own if how == "own" else mean
    return out


@pytest.mark.parametrize("sizes", [None, SIZES], ids=["whole", "padded"])
@pytest.mark.parametrize("how", CONTROLS)
def test_outputs_gradients_and_weights_are_the_definition(how: Fixed, sizes: torch.Tensor | None) -> None:
    layer = MHSA2d(12, heads=3, position=how).double()
    x = torch.randn(3, 12, 7, 5, dtype=torch.float64, requires_grad=True)
    found, wanted = layer(x, sizes), written_out(layer, x, sizes, how)
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE[torch.float64])
    direction = torch.randn_like(found)
    leaves = (x, layer.qkv.weight)
    pairs = zip(
        torch.autograd.grad(found, leaves, direction),
        torch.autograd.grad(wanted, leaves, direction),
        strict=True,
    )
    for one, two in pairs:
        assert one.abs().max() > 0
        torch.testing.assert_close(one, two, rtol=0, atol=TOLERANCE[torch.float64])
    q, k, v, terms = layer.project(x, sizes)
    out, weights = attend_reference(q, k, v, terms)
    torch.testing.assert_close(out, attend(q, k, v, terms), rtol=0, atol=TOLERANCE[torch.float64])
    assert torch.equal(weights, layer.attention_map(x, sizes))
    assert weights.shape == (3, 3, 35, 35)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, 35, dtype=torch.float64))
    if how == "own":
        assert torch.equal(weights[0, 0], torch.eye(35, dtype=torch.float64))
    elif sizes is None:
        assert weights.unique().numel() == 1
    else:
        beyond = torch.arange(5) >= sizes[1, 1]
        assert (weights[1].unflatten(-1, (7, 5))[..., beyond] == 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("how", CONTROLS)
def test_no_kernel_changes_them_and_the_format_is_kept(how: Fixed, kernel: str) -> None:
    x = torch.randn(2, 8, 3, 5).contiguous(memory_format=torch.channels_last)
    layer = MHSA2d(8, heads=2, position=how, kernel=kernel)  # pyrefly: ignore[bad-argument-type]
    out = layer(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, written_out(layer, x, None, how), rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("how", CONTROLS)
def test_only_values_are_learned(how: Fixed) -> None:
    assert {name: p.shape for name, p in MHSA2d(8, heads=2, position=how).named_parameters()} == {
        "qkv.weight": (8, 8, 1, 1)
    }
    network = create_model("botnet_s1_14_nano", position=how, num_classes=3, img_size=64)
    content = create_model("botnet_s1_14_nano", position="content", num_classes=3, img_size=64)
    cost, with_logits = count(network, 64), count(content, 64)
    assert cost.position_params == 0
    assert with_logits.params - cost.params == 2 * 64 * 64
    assert (
        with_logits.macs - cost.macs == 2 * 64 * 64 * 16 + 2 * 16 * 16 * 64
    )  # q, k; both products of 16 cells


def test_half_precision_is_summed_in_full() -> None:
    layer = MHSA2d(4, heads=1, position="even").to(torch.bfloat16)
    x = torch.rand(1, 4, 40, 50).to(torch.bfloat16) + 1
    sizes = torch.tensor([[40, 50]])
    exact = written_out(layer.double(), x.double(), None, "even")
    for given in (None, sizes):
        found = layer.to(torch.bfloat16)(x, given)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("how", CONTROLS)
def test_dropout_drops_weights_in_training_alone(how: Fixed) -> None:
    layer = MHSA2d(8, heads=2, position=how, dropout=0.5)
    x = torch.randn(1, 8, 3, 3)
    assert torch.equal(layer.eval()(x), layer(x))
    first = layer.train()(x)
    assert not torch.equal(first, layer(x))
