"""What only a GPU can show; BOTVISION_GPU_TESTS=cpu takes the same tests to a CPU, to see that they run."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import botvision as bv
from botvision.attention.kernels import KernelName, attend
from botvision.attention.layer import MHSA2d, Position
from botvision.config.recipes import load_config as run_config
from botvision.training import log
from botvision.training import run as runs
from tests.attention.conftest import MODES, TOLERANCE, Case, make_case
from tests.detection.scenes import detector, image, scene, total
from tests.training.runs import differences, tiny

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("BOTVISION_GPU_TESTS", "cuda")
ON_GPU = DEVICE == "cuda"
if ON_GPU and not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

GRIDS = [(5, 7), (33, 65), (64, 64)] if ON_GPU else [(3, 4)]
WIDTHS = [64, 128, 256, 40] if ON_GPU else [8]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DTYPES = DTYPES if ON_GPU else {"fp32": torch.float32}  # test_triton.py has all of them
KERNELS: tuple[KernelName, ...] = ("triton", "mask", "folded", "chunked")


def to(case: Case, device: str) -> Case:
    q, k, v = (leaf.detach().to(device).requires_grad_() for leaf in (case.q, case.k, case.v))
    tables = copy.deepcopy(case.tables)
    sizes = None if case.sizes is None else case.sizes.to(device)
    return Case(q, k, v, None if tables is None else tables.to(device), case.content, case.grid, sizes)


def outcome(case: Case, kernel: KernelName, call: Any = attend) -> dict[str, torch.Tensor]:
    """Output and gradients of every leaf."""
    out = call(case.q, case.k, case.v, case.terms(), 0.0, kernel)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).to(out)
    leaves = {name: leaf for name, leaf in case.leaves().items() if case.content or name != "k"}
    return {"out": out.detach()} | dict(
        zip(leaves, torch.autograd.grad((out * weight).sum(), list(leaves.values())), strict=True)
    )


def assert_close(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    for name, value in exact.items():
        bound = TOLERANCE[dtype] * max(1.0, value.abs().max().item())
        difference = (found[name].double() - value.double()).abs().max().item()
        assert difference <= bound, f"{name}: differs by {difference:.2e}, allowed {bound:.2e}"


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(kernel: KernelName, dtype: torch.dtype, mode: Position, grid: tuple[int, int]) -> None:
    """Against fp64, on a padded batch."""
    rounded = to(make_case(mode, grid, heads=2, width=64 if ON_GPU else 8, padded=True).to(dtype), DEVICE)
    assert_close(outcome(rounded, kernel), outcome(rounded.to(torch.float64), "reference"), dtype)


@pytest.mark.parametrize("width", WIDTHS)
def test_heads_of_any_width_by_triton(width: int) -> None:
    rounded = to(make_case("relative", (7, 9) if ON_GPU else (2, 3), width=width).to(torch.bfloat16), DEVICE)
    exact = outcome(rounded.to(torch.float64), "reference")
    assert_close(outcome(rounded, "triton"), exact, torch.bfloat16)


def test_triton_gives_equal_bits() -> None:
    case = to(make_case("relative", GRIDS[-1], batch=1, width=64 if ON_GPU else 8).to(torch.float32), DEVICE)
    one, two = outcome(case, "triton"), outcome(case, "triton")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kernel", ["triton", "folded"])
def test_compiled(kernel: KernelName) -> None:
    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="inductor" if ON_GPU else "aot_eager")
    case = to(make_case("relative", (5, 7) if ON_GPU else (2, 3)).to(torch.float32), DEVICE)
    assert_close(outcome(case, kernel, compiled), outcome(case, "reference"), torch.float32)


def test_an_image_alone_and_in_a_padded_batch() -> None:
    """The same detections, with the crops of RoIAlign by torchvision's kernel."""
    model = detector("botnet14_nano", norm="group", heads="light").eval().to(DEVICE)
    images = [image(64, 96, 1).to(DEVICE), image(160, 190, 4).to(DEVICE)]
    with torch.no_grad():
        together, alone = model(images), [model([single])[0] for single in images]
    for one, two in zip(alone, together, strict=True):
        assert len(one["boxes"]) > 5
        torch.testing.assert_close(one["boxes"], two["boxes"], rtol=0, atol=0.05)
        torch.testing.assert_close(one["masks"], two["masks"], rtol=0, atol=1e-2)


def test_detections_are_those_of_a_cpu() -> None:
    model = detector("botnet14_nano", norm="group", heads="light").eval()
    with torch.no_grad():
        expected = model([image(96, 128, 2)])[0]
        found = model.to(DEVICE)([image(96, 128, 2).to(DEVICE)])[0]
    assert found["boxes"].device.type == DEVICE
    torch.testing.assert_close(found["boxes"].cpu(), expected["boxes"], rtol=0, atol=0.1)
    torch.testing.assert_close(found["masks"].cpu(), expected["masks"], rtol=0, atol=1e-2)


def test_a_detector_learns_in_bf16() -> None:
    model = detector("botnet14_nano", norm="group").to(DEVICE).to(memory_format=torch.channels_last)
    images, targets = scene()
    images = [each.to(DEVICE) for each in images]
    targets = [{key: value.to(DEVICE) for key, value in each.items()} for each in targets]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    losses = []
    for _ in range(30 if ON_GPU else 3):
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = total(model(images, targets))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * (0.7 if ON_GPU else 1)


def test_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Convolutions of a GPU add in an order of their own, so bits may differ: by no more than rounding."""
    config, log_step = tiny(train__device=DEVICE, train__epochs=2), log.History.log_step
    runs.train(config, tmp_path / "whole", progress=False)

    def interrupted(place: log.History, step: int, *arguments: Any, **named: Any) -> None:
        log_step(place, step, *arguments, **named)
        if step == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log.History, "log_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.train(config, tmp_path / "part", progress=False)
    runs.train(config, tmp_path / "part", resume=True, progress=False)
    one, two = (log.read_rows(tmp_path / name / "steps.csv") for name in ("whole", "part"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for first, second in zip(one, two, strict=True):
        assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-2)
    files = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("whole", "part")]
    found = differences(*(torch.load(file, map_location="cpu", weights_only=True) for file in files))
    record_property("places at which checkpoints differ", len(found))
    assert ON_GPU or found == []


def test_a_cuda_graph_of_a_network() -> None:
    model: Any = bv.create_model("botnet14_nano", img_size=64).eval().to(DEVICE)
    x = torch.randn(2, 3, 64, 64, device=DEVICE)
    with torch.no_grad():
        expected = model(x)
        if not ON_GPU:
            return
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                model(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = model(x)
        graph.replay()
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-4)


def test_sam_is_accelerated() -> None:
    torch.manual_seed(0)
    import timm

    options: dict[str, Any] = {"embed_dim": 64, "depth": 2, "num_heads": 2, "window_size": 4, "img_size": 96}
    model = timm.create_model("samvit_base_patch16", num_classes=0, **options).eval().to(DEVICE)
    x = torch.randn(1, 3, 96, 96, device=DEVICE)
    with torch.no_grad():
        expected = model(x)
        assert bv.accelerate(model) == 2
        torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)


def test_the_layer_in_half_precision_under_autocast() -> None:
    layer = MHSA2d(64, heads=2, grid=(6, 6)).to(DEVICE)
    x = torch.randn(2, 64, 5, 7, device=DEVICE)
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x), rtol=0, atol=0.05)


def test_a_batch_that_fits_is_found_and_named(tmp_path: Path) -> None:
    large = {"data__image_size": 64, "data__num_images": 8192, "train__device": DEVICE, "train__epochs": 1}
    auto = tiny(**large, train__batch_size="auto", train__max_steps=2)
    if not ON_GPU:
        with pytest.raises(ValueError, match="auto needs a GPU"):
            runs.train(auto, tmp_path / "auto", progress=False)
        return
    try:
        torch.cuda.set_per_process_memory_fraction(0.02)
        with pytest.raises(ValueError, match=r"images do not fit, \d+ do: --train\.batch_size \d+"):
            runs.train(tiny(**large, train__batch_size=8192), tmp_path / "large", progress=False)
        folder = runs.train(auto, tmp_path / "auto", progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert run_config(folder / "config.yaml").train.batch > 1
