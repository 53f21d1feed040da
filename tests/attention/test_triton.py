"""Triton's kernels against the reference, in outputs and gradients; without a GPU by Triton's interpreter."""

import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch

from botvision.attention.kernels import attend
from botvision.attention.layer import MHSA2d, Position
from tests.attention.conftest import MODES, make_case
from tests.attention.test_kernels import assert_equal, run

triton_gpu: Any = pytest.importorskip("botvision.attention.triton_gpu")
ON_GPU = torch.cuda.is_available()
WITH_POSITION = [mode for mode in MODES if mode != "content"]  # content alone is torch's own
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were run, in order."""
    found: list[str] = []
    launch = triton_gpu._launch

    def watch(kernel: Any, *args: Any, **options: Any) -> None:
        found.append(kernel.__name__)
        launch(kernel, *args, **options)

    monkeypatch.setattr(triton_gpu, "_launch", watch)
    return found


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("mode", WITH_POSITION)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_outputs_and_gradients(dtype: torch.dtype, mode: Position, padded: bool, calls: list[str]) -> None:
    rounded = make_case(mode, (5, 7), padded=padded).to(dtype)
    assert_equal(run(rounded, "triton"), run(rounded.to(torch.float64), "reference"), dtype)
    assert calls == ["_forward", "_backward_keys", "_backward_queries"]


@pytest.mark.parametrize(
    ("grid", "keys", "queries"),
    [
        ((1, 9), 64, 64),
        ((9, 1), 64, 64),
        ((3, 70), 64, 64),  # tiles of 16 columns, five of them, the last one uneven
        ((3, 33), 64, 32),  # several tiles each way, uneven ones, and queries in many programs
        ((33, 65), 512, 512),
    ],
)
def test_tiles_of_any_map(
    grid: tuple[int, int], keys: int, queries: int, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over rows go on from tile to tile, and cells beyond the map or the image count nowhere."""
    monkeypatch.setattr(triton_gpu, "_KEYS", keys)
    monkeypatch.setattr(triton_gpu, "_QUERIES", queries)
    rounded = make_case("relative", grid, batch=2, heads=1, padded=True).to(torch.float32)
    assert_equal(run(rounded, "triton"), run(rounded.to(torch.float64), "reference"), torch.float32)
    assert len(calls) == 3


@pytest.mark.parametrize("width", [3, 40, 160])
def test_heads_of_any_width(width: int, calls: list[str]) -> None:
    rounded = make_case("relative", (4, 5), batch=1, width=width).to(torch.float32)
    assert_equal(run(rounded, "triton"), run(rounded.to(torch.float64), "reference"), torch.float32)
    assert len(calls) == 3


def test_equal_inputs_give_equal_bits() -> None:
    """A whole layer on a channels-last map, whose queries lie in memory as they come."""
    layer = MHSA2d(16, heads=2, grid=(6, 6), kernel="triton")
    plain = MHSA2d(16, heads=2, grid=(6, 6), kernel="reference")
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 16, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    outcomes = []
    for network in (layer, layer, plain):
        out = network(x)
        outcomes.append((out, *torch.autograd.grad(out.square().sum(), [x, *network.parameters()])))
    assert all(map(torch.equal, outcomes[0], outcomes[1]))
    for found, expected in zip(outcomes[0], outcomes[2], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_compiles_as_one_graph(calls: list[str]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for mode, grid in (("relative", (5, 7)), ("position", (6, 4))):
        case = make_case(mode, grid, padded=True).to(torch.float32)
        exact = run(case.to(torch.float64), "reference")
        assert_equal(run(case, "triton", compiled), exact, torch.float32)
    assert calls == 2 * ["_forward", "_backward_keys", "_backward_queries"]


def test_the_operations_keep_what_they_promise() -> None:
    """Shapes, strides and dtypes of their stand-ins for compilers, and that they change no input."""
    generator = torch.Generator().manual_seed(0)
    for with_queries, dtype in itertools.product((True, False), (torch.float32, torch.float16)):
        q, k, v = (torch.randn(2, 2, 12, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3))
        rows, columns = (
            torch.randn(2, 2, 12, side, generator=generator).to(dtype).requires_grad_() for side in (3, 4)
        )
        arguments = (q if with_queries else None, k, v, rows, columns)
        torch.library.opcheck(
            triton_gpu.attend_axes, arguments, test_utils=("test_schema", "test_faketensor")
        )


@pytest.mark.parametrize("why", ["dropout", "fp64", "wide"])
def test_another_kernel_takes_its_place(why: str, calls: list[str]) -> None:
    case = make_case("relative", (4, 5), batch=1, width=264 if why == "wide" else 8)
    case = case if why == "fp64" else case.to(torch.float32)
    out = attend(case.q, case.k, case.v, case.terms(), 0.5 if why == "dropout" else 0.0, "triton")
    assert out.shape == case.q.shape
    if why != "dropout":
        exact = attend(case.q, case.k, case.v, case.terms(), kernel="reference")
        torch.testing.assert_close(out, exact, rtol=1e-4, atol=1e-5)
    assert calls == []


@pytest.mark.skipif(ON_GPU, reason="a GPU compiles them itself")
def test_without_a_gpu_or_interpreter_another_takes_its_place(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_gpu, "INTERPRETED", False)
    case = make_case("relative", (4, 5)).to(torch.float32)
    assert_equal(run(case, "triton"), run(case.to(torch.float64), "reference"), torch.float32)
    assert calls == []


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from botvision.attention import triton_gpu

FLOATS = {"lse", "delta", "grad_rows", "grad_columns"}
constants = {"CONTENT": True, "P": tl.bfloat16, "BM": 64, "BH": 2, "BW": 32, "BD": 128}
for name in ("_forward", "_backward_keys", "_backward_queries"):
    kernel = getattr(triton_gpu, name)
    pointers = kernel.arg_names[: kernel.arg_names.index("q_b")]
    signature = {
        each: "constexpr" if each in constants
        else ("*fp32" if each in FLOATS else "*bf16") if each in pointers else "i32"
        for each in kernel.arg_names
    }
    values = {(kernel.arg_names.index(each),): value for each, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert compiled.metadata.shared < 100_000, compiled.metadata.shared
    assert compiled.asm["cubin"]
"""


@pytest.mark.skipif(ON_GPU, reason="the other tests compile them")
def test_they_compile_for_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    found = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
