"""The layer as a user meets it: sizes, padding, weights, formats, errors."""

from typing import Any

import pytest
import torch

from botvision.attention import MHSA2d
from botvision.attention.kernels import KERNELS, KernelName
from botvision.attention.layer import Convention, Position
from botvision.attention.position import PositionTables
from tests.attention.conftest import MODES


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mode", MODES)
def test_an_image_alone_and_in_a_padded_batch(mode: Position, kernel: KernelName) -> None:
    """Also where the map, the image or both are larger than the tables (6x5 cells)."""
    layer = MHSA2d(16, heads=2, grid=(6, 5), position=mode, kernel=kernel)
    images = [torch.randn(1, 16, *size) for size in ((9, 4), (5, 11), (3, 3), (9, 11), (1, 1))]
    batch = torch.randn(5, 16, 9, 11)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[2], : image.shape[3]] = image[0]
    sizes = torch.tensor([image.shape[2:] for image in images])
    together = layer(batch, sizes)
    for row, image in zip(together, images, strict=True):
        alone = layer(image)[0]
        torch.testing.assert_close(row[:, : image.shape[2], : image.shape[3]], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_impossible_sizes_are_limited_to_the_map(kernel: KernelName) -> None:
    layer = MHSA2d(16, heads=2, kernel=kernel)
    x = torch.randn(2, 16, 4, 5)
    found = layer(x, torch.tensor([[0, 9], [-3, 2]]))
    assert torch.equal(found, layer(x, torch.tensor([[1, 5], [1, 2]])))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("mode", ["position", "relative", "absolute"])
def test_weights_of_one_size_load_at_another_strictly_and_back(mode: Position) -> None:
    small = MHSA2d(16, heads=2, grid=(7, 7), position=mode)
    large = MHSA2d(16, heads=2, grid=(20, 32), position=mode)
    stored = {name: value.clone() for name, value in small.state_dict().items()}
    large.load_state_dict(stored, strict=True)
    x = torch.randn(1, 16, 9, 6)
    torch.testing.assert_close(large(x), small(x), rtol=0, atol=0)
    small.load_state_dict(large.state_dict(), strict=True)
    assert all(torch.equal(value, stored[name]) for name, value in small.state_dict().items())


def test_loading_keeps_the_parameters_an_optimiser_holds() -> None:
    layer = MHSA2d(8, heads=2, grid=(3, 3))
    before = [id(parameter) for parameter in layer.parameters()]
    layer.load_state_dict(MHSA2d(8, heads=2, grid=(5, 6)).state_dict())
    assert [id(parameter) for parameter in layer.parameters()] == before
    assert layer.position is not None
    assert layer.position.grid == (5, 6)


def test_a_table_of_another_width_does_not_load() -> None:
    with pytest.raises(RuntimeError, match=r"position\.height"):
        MHSA2d(8, heads=2).load_state_dict(MHSA2d(8, heads=4).state_dict())


def test_a_smaller_map_uses_the_centre_of_the_table() -> None:
    tables = PositionTables((5, 5), 4)
    rows = tables((3, 2))
    assert torch.equal(rows.height[0], tables.height[2:7])  # distances -2..2 of -4..4
    assert torch.equal(rows.width[0], tables.width[3:6])
    absolute = PositionTables((6, 5), 4, "absolute")
    assert torch.equal(absolute((3, 3)).height[0], absolute.height[1:4])


def test_a_larger_map_stretches_the_table() -> None:
    tables = PositionTables((3, 3), 1)
    with torch.no_grad():
        tables.height.copy_(torch.arange(-2.0, 3.0)[:, None])
    rows = tables((5, 3)).height[0, :, 0]
    torch.testing.assert_close(rows, torch.arange(-4.0, 5.0) / 2)
    torch.testing.assert_close(tables((2, 3)).height[0, :, 0], torch.tensor([-1.0, 0.0, 1.0]))


def test_a_table_of_one_cell_serves_any_map() -> None:
    layer = MHSA2d(8, heads=2, grid=(1, 1))
    assert torch.isfinite(layer(torch.randn(1, 8, 4, 3))).all()


@pytest.mark.parametrize("key_init", [0.0, 0.1, 1.0])
def test_keys_begin_at_their_size_and_all_else_at_that_of_the_paper(key_init: float) -> None:
    torch.manual_seed(3)
    layer = MHSA2d(128, heads=2, grid=(5, 5), key_init=key_init)
    torch.manual_seed(3)
    papers = MHSA2d(128, heads=2, grid=(5, 5), key_init=1.0)
    queries, keys, values = papers.qkv.weight.chunk(3)
    torch.testing.assert_close(layer.qkv.weight, torch.cat([queries, key_init * keys, values]))
    assert [round(part.std().item() * 128**0.5, 1) for part in (queries, keys, values)] == [1.0, 1.0, 1.0]
    assert layer.position is not None
    assert papers.position is not None
    torch.testing.assert_close(layer.position.height, papers.position.height)
    x = torch.randn(1, 128, 5, 5)
    if key_init == 0.0:  # the content term is nothing yet, and attention is by position alone
        alone = MHSA2d(128, heads=2, grid=(5, 5), position="position")
        alone.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer.attention_map(x), alone.attention_map(x))


def test_the_timm_convention_is_another_function() -> None:
    conventions: tuple[Convention, ...] = ("paper", "timm")
    paper, timm = (MHSA2d(16, heads=2, convention=convention) for convention in conventions)
    timm.load_state_dict(paper.state_dict())
    x = torch.randn(1, 16, 5, 5)
    assert (paper(x) - timm(x)).abs().max() > 1e-3
    assert paper.position is not None
    with torch.no_grad():  # R_ours = R_timm * sqrt(d)
        for table in paper.position.parameters():
            table.mul_(8**0.5)
    torch.testing.assert_close(paper(x), timm(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_memory_format_is_kept(kernel: KernelName) -> None:
    layer = MHSA2d(16, heads=2, kernel=kernel)
    x = torch.randn(2, 16, 5, 6)
    last = x.to(memory_format=torch.channels_last)
    assert layer(x).is_contiguous()
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), layer(last), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_autocast(kernel: KernelName) -> None:
    layer = MHSA2d(16, heads=2, kernel=kernel)
    x = torch.randn(2, 16, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    half.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
    torch.testing.assert_close(half.float(), layer(x), rtol=0, atol=3e-2)


def test_dropout_only_in_training() -> None:
    layer = MHSA2d(16, heads=2, dropout=0.5)
    x = torch.randn(1, 16, 4, 4)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 10, "heads": 4}, "10 channels and 4 heads"),
        ({"dim": 8, "position": "sine"}, "position must be one of content, position, relative, absolute"),
        ({"dim": 8, "convention": "ours"}, "convention must be one of paper, timm"),
        ({"dim": 8, "kernel": "fast"}, "kernel must be one of"),
        ({"dim": 8, "dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"dim": 8, "key_init": -1.0}, "key_init must be a number from 0, got -1.0"),
        ({"dim": 8, "grid": (0, 4)}, "at least 1x1 cells, got 0x4"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MHSA2d(**arguments)


def test_bad_inputs() -> None:
    layer = MHSA2d(8, heads=2)
    with pytest.raises(ValueError, match=r"expected a \(B, 8, H, W\) feature map"):
        layer(torch.randn(1, 4, 3, 3))
    with pytest.raises(ValueError, match=r"sizes must be \(1, 2\)"):
        layer(torch.randn(1, 8, 3, 3), torch.tensor([3, 3]))


@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)
@pytest.mark.parametrize(
    ("kernel", "training"),
    [
        *((kernel, False) for kernel in KERNELS if kernel not in ("reference", "tiled", "triton")),
        ("folded", True),
    ],
)
def test_the_fused_attention_is_what_runs(
    kernel: KernelName, training: bool, memory_format: torch.memory_format
) -> None:
    """torch falls back to the quadratic formula without a word where strides, widths or a mask that needs
    gradients do not suit it."""
    layer = MHSA2d(64, heads=4, kernel=kernel)
    x = torch.randn(2, 64, 6, 5).to(memory_format=memory_format)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        with torch.set_grad_enabled(training):
            out = layer(x)
        if training:
            out.sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::_scaled_dot_product_attention_math" not in names


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:FutureWarning")
@pytest.mark.parametrize("largest", [0, 100])
@pytest.mark.parametrize("kernel", ["auto", "tiled"])
def test_who_rewrites_computations_finds_operations_of_torch(
    kernel: KernelName, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing, exporting and function transforms do not know an autograd function of ours."""
    monkeypatch.setattr("botvision.attention.kernels._LARGE_MAP", largest)
    monkeypatch.setattr("botvision.attention.kernels._SMALL_MAP", 0)
    layer = MHSA2d(16, heads=2, kernel=kernel).double()
    x = torch.randn(2, 16, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        exact = layer(x)
        exported = torch.export.export(layer, (x,)).module()
        traced: Any = torch.jit.trace(layer, x)
        for found in (traced(x), exported(x)):
            torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(leaf).sum(), leaf)
    torch.testing.assert_close(torch.func.grad(lambda y: layer(y).sum())(x), gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_an_empty_batch(training: bool) -> None:
    layer = MHSA2d(16, heads=2, kernel="tiled")
    x = torch.empty(0, 16, 5, 6, requires_grad=training)
    out = layer(x)
    assert out.shape == x.shape
    if training:
        out.sum().backward()
        assert layer.qkv.weight.grad is not None
