"""Every fast kernel against the reference: outputs and all gradients."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from botvision.attention import tiled_cpu as tiled
from botvision.attention.kernels import KERNELS, KernelName, attend, choose
from botvision.attention.layer import MHSA2d, Position
from botvision.attention.reference import Terms, position_logits
from tests.attention.conftest import GRIDS, MODES, TOLERANCE, Case, make_case

# Triton's is in test_triton.py: its interpreter takes seconds for what the others do in milliseconds.
FAST = tuple(kernel for kernel in KERNELS if kernel not in ("auto", "reference", "triton"))


def run(case: Case, kernel: KernelName, call: Callable[..., Tensor] = attend) -> dict[str, Tensor]:
    """Output and gradients of every leaf, for a fixed random loss."""
    out = call(case.q, case.k, case.v, case.terms(), 0.0, kernel)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    leaves = case.leaves() if case.content else {n: t for n, t in case.leaves().items() if n != "k"}
    grads = torch.autograd.grad((out * weight).sum(), list(leaves.values()))
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}


def run_forward(case: Case, kernel: KernelName) -> Tensor:
    return attend(case.q, case.k, case.v, case.terms(), kernel=kernel)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, exact in expected.items():
        difference = (found[name].double() - exact.double()).abs().max().item()
        bound = TOLERANCE[dtype] * max(1.0, exact.abs().max().item())
        assert difference <= bound, f"{name}: differs by {difference:.2e}, allowed {bound:.2e}"


@pytest.mark.parametrize(
    ("grid", "padded"),
    [(grid, padded) for grid in GRIDS for padded in (False, True) if padded or grid != (33, 65)],
    ids=lambda value: (
        f"{value[0]}x{value[1]}" if isinstance(value, tuple) else "padded" if value else "whole"
    ),
)  # the first image of a padded batch is whole
@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients(mode: Position, grid: tuple[int, int], padded: bool) -> None:
    case = make_case(mode, grid, heads=1 if grid == (33, 65) else 2, padded=padded)
    for dtype in (torch.float32, torch.bfloat16):
        rounded = case.to(dtype)
        exact = run(rounded.to(torch.float64), "reference")
        for kernel in FAST:
            assert_equal(run(rounded, kernel), exact, dtype)


@pytest.mark.parametrize("kernel", FAST)
def test_fp16(kernel: KernelName) -> None:
    rounded = make_case("relative", (5, 7), padded=True).to(torch.float16)
    assert_equal(run(rounded, kernel), run(rounded.to(torch.float64), "reference"), torch.float16)


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    mode=st.sampled_from(MODES),
    padded=st.booleans(),
    kernel=st.sampled_from(FAST),
)
def test_any_grid(grid: tuple[int, int], mode: Position, padded: bool, kernel: KernelName) -> None:
    case = make_case(mode, grid, heads=1, padded=padded)
    assert_equal(run(case, kernel), run(case, "reference"), torch.float64)


@pytest.mark.parametrize("kernel", ["reference", *FAST])
@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(mode: Position, kernel: KernelName) -> None:
    case = make_case(mode, (2, 3), heads=1, width=2, padded=True)

    def function(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
        position = None
        if case.tables is not None:
            named = dict(zip(("height", "width"), tables, strict=True))
            position = torch.func.functional_call(case.tables, named, (case.grid, case.sizes))
        return attend(q, k, v, Terms(case.grid, position, case.content, case.sizes), kernel=kernel)

    assert torch.autograd.gradcheck(function, tuple(case.leaves().values()), fast_mode=False)


@pytest.mark.parametrize("kernel", FAST)
def test_chunks_of_any_size(kernel: KernelName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botvision.attention.kernels._CHUNK_BYTES", 5 * 35 * 8)  # 35 queries in chunks of 5
    case = make_case("relative", (5, 7), padded=True)
    assert_equal(run(case, kernel), run(case, "reference"), torch.float64)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("logits", [1, 5 * 35, 3 * 5 * 35, 35 * 35, 2 * 35 * 35, 4 * 35 * 35])
def test_tiles_of_any_size(
    logits: int, mode: Position, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single query rows, several, an uneven last one, one matrix, two, and those of several images."""
    monkeypatch.setattr("botvision.attention.tiled_cpu._TILE_LOGITS", logits)
    case = make_case(mode, (7, 5), batch=3, padded=padded)
    assert_equal(run(case, "tiled"), run(case, "reference"), torch.float64)


@pytest.mark.parametrize("mode", MODES)
def test_tiles_by_single_products(mode: Position, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on large maps in fp32, where products go to oneDNN one by one."""
    monkeypatch.setattr("botvision.attention.tiled_cpu._SINGLE_CELLS", 1)
    monkeypatch.setattr("botvision.attention.tiled_cpu._TILE_LOGITS", 3 * 5 * 35)
    rounded = make_case(mode, (7, 5)).to(torch.float32)
    assert_equal(run(rounded, "tiled"), run(rounded.to(torch.float64), "reference"), torch.float32)


@pytest.mark.parametrize("gone", tiled.PRIVATE)
@pytest.mark.parametrize("mode", ["content", "relative"])
def test_without_a_private_function_of_torch(
    gone: str, mode: Position, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a torch that never had it or drops it: the same outputs and gradients."""
    monkeypatch.setattr("botvision.attention.tiled_cpu._SINGLE_CELLS", 1)
    rounded = make_case(mode, (7, 5), padded=True).to(torch.float32)
    exact = run(rounded.to(torch.float64), "reference")
    place, _, name = gone.rpartition(".")
    if place == "ops.mkldnn":
        monkeypatch.setattr(torch.ops, "mkldnn", object())  # its namespace looks up what was deleted
    else:
        monkeypatch.delattr(operator.attrgetter(place)(torch) if place else torch, name)
    tiled.available.cache_clear()
    try:
        assert [tiled.available(each) for each in tiled.PRIVATE] == [each != gone for each in tiled.PRIVATE]
        found = run(rounded, "tiled")
    finally:
        monkeypatch.undo()
        tiled.available.cache_clear()
    assert_equal(found, exact, torch.float32)


@pytest.mark.parametrize(("grid", "kept"), [((8, 8), True), ((5, 13), False)])
def test_tiles_keep_weights_of_small_maps_only(grid: tuple[int, int], kept: bool) -> None:
    """Up to eight times as many cells as the head is wide they are kept for the backward pass."""
    case, sizes = make_case("relative", grid, width=8), []

    def keep(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        attend(case.q, case.k, case.v, case.terms(), kernel="tiled")
    cells = grid[0] * grid[1]
    assert sum(sizes) >= 2 * 2 * 3 * cells * 8  # queries, keys, values
    assert (2 * 2 * cells * cells in sizes) == kept


def test_tiles_keep_nothing_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are parameters and say that they want gradients also where nobody takes any."""
    rooms = []
    weights = tiled._Logits.weights

    def watch(self: tiled._Logits, *args: Any) -> torch.Tensor:
        rooms.append(args[-1])
        return weights(self, *args)

    monkeypatch.setattr(tiled._Logits, "weights", watch)
    case = make_case("relative", (5, 7))
    for guard in (torch.no_grad, torch.inference_mode):
        with guard():
            attend(case.q, case.k, case.v, case.terms(), kernel="tiled")
    assert len(rooms) == 2
    assert None not in rooms


@pytest.mark.parametrize("scale", [1.0, 3.0, 6.0])
def test_bf16_tiles_are_as_exact_as_the_formula_in_bf16(scale: float) -> None:
    """Logits of several units are rounded coarsely; the formula written out in bf16 has no better way."""
    case = make_case("relative", (20, 30), batch=1, width=64)
    with torch.no_grad():
        case.q.mul_(scale)
        rounded = case.to(torch.bfloat16)
        exact = run_forward(rounded.to(torch.float64), "reference")
        terms = rounded.terms()
        assert terms.position is not None
        q = rounded.q.unflatten(2, case.grid)
        position = position_logits(q, terms.position.to(q.dtype)).flatten(4).flatten(2, 3)
        formula = (rounded.q @ rounded.k.mT + position).softmax(-1) @ rounded.v
        found = run_forward(rounded, "tiled")
    errors = [(out.double() - exact).square().mean().sqrt() for out in (found, formula)]
    assert errors[0] <= 1.1 * errors[1]


def test_on_the_meta_device_for_counting() -> None:
    case = make_case("relative", (5, 7))
    with torch.device("meta"):
        q = torch.empty(case.q.shape)
    assert case.tables is not None
    terms = Terms(case.grid, case.tables.to("meta")(case.grid))
    assert attend(q, q, q, terms, kernel="tiled").shape == q.shape


@pytest.mark.parametrize("kernel", FAST)
@pytest.mark.parametrize("mode", MODES)
def test_compiles_as_one_graph(mode: Position, kernel: KernelName) -> None:
    """And for any size after the second one; every mode with every kernel is traced once only."""
    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for grid in ((5, 7), (6, 4)) if mode == "relative" else ((5, 7),):
        case = make_case(mode, grid, padded=True)
        assert_equal(run(case, kernel, compiled), run(case, "reference"), torch.float64)


def test_the_layer_compiles_as_one_graph_at_changing_sizes() -> None:
    torch.compiler.reset()
    layer = MHSA2d(16, heads=2, grid=(6, 6)).double()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for grid in ((5, 7), (6, 4), (9, 3)):  # within the tables and beyond them
        x = torch.randn(2, 16, *grid, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=TOLERANCE[torch.float64])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_large_logits_stay_finite(kernel: KernelName, dtype: torch.dtype) -> None:
    """Content and position logits of +-30,000 each: fp16 ends at 65,504, so their sum leaves its range."""
    case = make_case("relative", (5, 7), padded=True)
    with torch.no_grad():
        case.q.mul_(3e2 / case.q.abs().max())
        case.k.mul_(3e4 / (case.q @ case.k.mT).abs().max())
        assert case.tables is not None
        for table in case.tables.parameters():
            table.mul_(3e4 / (case.q @ table.mT).abs().max())
    found = run(case.to(dtype), kernel)
    assert {name for name, value in found.items() if not torch.isfinite(value).all()} == set()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_padded_cells_weigh_exactly_nothing(mode: Position, kernel: KernelName) -> None:
    """Values of 1e6 behind the padding change no bit of the result."""
    case = make_case(mode, (5, 7), padded=True)
    clean = run(case, kernel)
    beyond = torch.zeros(2, 5, 7, dtype=torch.bool)
    beyond[1, 4:], beyond[1, :, 5:] = True, True
    with torch.no_grad():
        case.v.masked_fill_(beyond.flatten(1)[:, None, :, None], 1e6)
        case.k.masked_fill_(beyond.flatten(1)[:, None, :, None], 1e3)
    assert torch.equal(run(case, kernel)["out"], clean["out"])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"]
)
@pytest.mark.parametrize("mode", ["content", "relative"])
@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_padding_outweighs_any_logit(kernel: KernelName, mode: Position, dtype: torch.dtype) -> None:
    """Every valid key has a logit near -24,000 and every padded one near +24,000."""
    case = make_case(mode, (5, 7), padded=True)
    beyond = torch.zeros(2, 1, 5, 7, 1, dtype=torch.bool)
    beyond[1, :, 4:], beyond[1, :, :, 5:] = True, True
    with torch.no_grad():
        case.q.fill_(55.0)
        case.k.copy_(torch.where(beyond, 54.5, -54.5).flatten(2, 3).expand_as(case.k))
        case.v.copy_(beyond.flatten(2, 3).expand_as(case.v))
    assert run(case.to(dtype), kernel)["out"].abs().max() == 0


@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_dropout_keeps_the_mean_and_drops(kernel: KernelName) -> None:
    case = make_case("relative", (3, 4), batch=1)
    assert case.tables is not None
    terms = case.terms()
    torch.manual_seed(0)
    with torch.no_grad():
        exact = attend(case.q, case.k, case.v, terms, kernel="reference")
        draws = [attend(case.q, case.k, case.v, terms, dropout=0.5, kernel=kernel) for _ in range(2000)]
        many = torch.stack(draws)
    assert (many[0] - exact).abs().max() > 0.1  # something was dropped
    error = (many.mean(0) - exact).abs() / (many.std(0) / 2000**0.5)
    assert error.max() < 5  # standard errors; 192 numbers


def test_the_choice_can_be_told_and_is_always_a_fast_kernel() -> None:
    for device in ("cpu", "cuda"):
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            for side in (1, 7, 14, 32, 64, 128):
                assert choose(device, dtype, (side, side), 128) in FAST


def test_neither_content_nor_position() -> None:
    case = make_case("content", (2, 2))
    with pytest.raises(ValueError, match="content, position or both"):
        attend(case.q, case.k, case.v, Terms((2, 2), None, content=False))


def test_unknown_kernel() -> None:
    case = make_case("content", (2, 2))
    with pytest.raises(ValueError, match=r"kernel must be one of auto, .* got 'fast'"):
        attend(case.q, case.k, case.v, case.terms(), kernel="fast")  # pyrefly: ignore[bad-argument-type]
