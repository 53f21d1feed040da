"""What a model costs: parameters, multiply-adds, and the measured time of a step.

Multiply-adds are half the floating-point operations that torch's counter sees on the meta device:
convolutions and matrix products, nothing else (no norm, activation, pooling or softmax), as in the slides'
table. Attention runs its reference kernel there, which multiplies each query with all 2H-1 and 2W-1 relative
rows as the authors' code does; that convention gives their 102.98e9 for BoTNet-50 at 1024 px (102.99e9; only
the H and W rows that a query needs would give 102.66e9).
Parameters are learned values: without the running statistics of batch norm, with position tables.
"""

import copy
import dataclasses
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from botvision.attention.layer import MHSA2d
from botvision.backbones.block import AttentionConv2d
from botvision.backbones.probe import image_hw, meta_copy, probe_input

STAGES = (
    ("c1", "conv1"),
    ("c2", "layer1"),
    ("c3", "layer2"),
    ("c4", "layer3"),
    ("c5", "layer4"),
    ("head", "fc"),
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        image_size: (height, width) in pixels.
        params: learned values, position tables included.
        position_params: those of the position tables alone.
        norm_params: those of the normalisation layers alone (scale and shift).
        macs: multiply-adds of a forward pass.
    """

    image_size: tuple[int, int]
    params: int
    position_params: int
    norm_params: int
    macs: int


@dataclasses.dataclass(frozen=True)
class StageCost:
    """One row of the slides' architecture table.

    Attributes:
        stage: c1 to c5, or head.
        output: (height, width) of its output in cells, (1, 1) for the head.
        blocks: e.g. "[1x1, 512; MHSA, 512; 1x1, 2048] x3".
        params: learned values.
        macs: multiply-adds of a forward pass of one image.
    """

    stage: str
    output: tuple[int, int]
    blocks: str
    params: int
    macs: int


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Wall-clock seconds of one step: forward and, if `train`, backward."""

    median: float
    best: float
    repeats: int
    batch: int
    train: bool
    device: str
    dtype: str


def count(model: nn.Module, image_size: int | tuple[int, int] = 224) -> Cost:
    """Count parameters and multiply-adds of a model for one image of `image_size` (height, width) or side.

    Raises:
        ValueError: an impossible size.
    """
    hw = image_hw(image_size)
    macs, _ = _counted(model, hw)
    positions = (m.position for m in model.modules() if isinstance(m, MHSA2d) and m.position is not None)
    return Cost(
        image_size=hw,
        params=_values(model),
        position_params=sum(_values(table) for table in positions),
        norm_params=sum(_values(m) for m in model.modules() if _is_norm(m)),
        macs=macs["Global"],
    )


def stage_table(model: nn.Module, image_size: int | tuple[int, int] = 224) -> list[StageCost]:
    """Return the slides' table of a ResNet or BoTNet, stage by stage; the parts add up to `count`.

    Raises:
        ValueError: a model without conv1 and layer1 to layer4.
    """
    lacking = [name for _, name in STAGES[:5] if not isinstance(getattr(model, name, None), nn.Module)]
    if lacking:
        raise ValueError(f"{type(model).__name__} has no {lacking[0]}; the table needs a ResNet's stages")
    macs, outputs = _counted(model, image_hw(image_size))
    rows: list[StageCost] = []
    for stage, name in STAGES:
        module = getattr(model, name, None)
        if not isinstance(module, nn.Module):
            continue
        params = _values(module) + (_values(getattr(model, "bn1", nn.Identity())) if name == "conv1" else 0)
        rows.append(StageCost(stage, outputs[name], _describe(module), params, macs.get(name, 0)))
        if name == "conv1" and (pool := getattr(model, "maxpool", None)) is not None and _values(pool):
            # a pool with weights (resnet-rs) belongs to c2, as the plain max pool does in the slides
            rows.append(
                StageCost("pool", outputs["maxpool"], _describe(pool), _values(pool), macs.get("maxpool", 0))
            )
    return rows


def step_time(
    model: nn.Module,
    image_size: int | tuple[int, int] = 224,
    *,
    batch: int = 1,
    train: bool = True,
    repeats: int = 5,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StepTime:
    """Measure a step on random images; the first one warms up and is not counted.

    A copy of the model is measured: weights, running statistics, mode and device of the caller's stay. Below
    float32 the step runs under autocast.

    Raises:
        ValueError: an impossible size, batch or repeats below 1, a device that is not there, or a batch of 1
            whose last maps have one cell, of which batch norm can make no statistics.
    """
    if batch < 1 or repeats < 1:
        raise ValueError(f"batch and repeats must be at least 1, got {batch} and {repeats}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # builds without CUDA assert
        raise ValueError(f"device {device!r} is not available here") from None
    shape = probe_input(model, image_hw(image_size), batch).shape
    model = copy.deepcopy(model).to(device).train(train)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    seconds = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        with (
            torch.set_grad_enabled(train),
            torch.autocast(torch.device(device).type, dtype, dtype != torch.float32),
        ):
            try:
                out = model(images)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ValueError(
                    f"{batch} image of {shape[2]}x{shape[3]} leaves batch norm one value a channel: "
                    "a training step needs a batch of 2 or more"
                ) from None
        if train:
            _total(out).backward()
        _wait(device)
        seconds.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    timed = seconds[1:]
    return StepTime(
        statistics.median(timed), min(timed), repeats, batch, train, device, str(dtype).removeprefix("torch.")
    )


def _counted(model: nn.Module, hw: tuple[int, int]) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Multiply-adds by module name (and "Global"), and output cells of the stages; one pass on shapes."""
    shapes = meta_copy(model)
    outputs: dict[str, tuple[int, int]] = {}
    for module in shapes.modules():
        if isinstance(module, MHSA2d):
            module.kernel = "reference"  # fused kernels hide or change their products
    for name, module in shapes.named_children():
        module.register_forward_hook(lambda _m, _args, out, name=name: outputs.__setitem__(name, _cells(out)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(probe_input(shapes, hw))
    root = type(shapes).__name__ + "."
    counts = {
        name.removeprefix(root): sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()
    }
    return {"Global": 0} | counts, outputs


def _cells(out: Any) -> tuple[int, int]:  # noqa: ANN401
    """(height, width) of a feature map, (1, 1) of logits."""
    return (out.shape[-2], out.shape[-1]) if isinstance(out, Tensor) and out.ndim == 4 else (1, 1)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm | nn.LayerNorm) or hasattr(module, "running_mean")


def _values(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _describe(stage: nn.Module) -> str:
    """Convolutions of a stem, or blocks of a stage with equal neighbours counted."""
    if isinstance(stage, nn.Linear):
        return f"average pool, {stage.out_features}"
    blocks = [block for block in stage.children() if hasattr(block, "conv2")]
    if not blocks:
        return "; ".join(_layer(m) for m in stage.modules() if isinstance(m, nn.Conv2d))
    texts: list[list[Any]] = []
    for block in blocks:
        parts = [getattr(block, name) for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
        text = "[" + "; ".join(_layer(part) for part in parts) + "]"
        if texts and texts[-1][0] == text:
            texts[-1][1] += 1
        else:
            texts.append([text, 1])
    return " ".join(f"{text} x{times}" for text, times in texts)


def _layer(layer: nn.Module) -> str:
    """`3x3, 64`, with the stride in a stem's convolution; `MHSA, 512`."""
    if isinstance(layer, AttentionConv2d):
        return f"MHSA, {layer.attention.dim}"
    if not isinstance(layer, nn.Conv2d):
        return type(layer).__name__
    height, width = layer.kernel_size
    return f"{height}x{width}, {layer.out_channels}"


def _total(out: Any) -> Tensor:  # noqa: ANN401
    """One number that depends on every output, to start a backward pass from."""
    if isinstance(out, Tensor):
        return out.float().square().mean()
    parts = out.values() if isinstance(out, dict) else out
    return torch.stack([_total(part) for part in parts]).sum()


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
