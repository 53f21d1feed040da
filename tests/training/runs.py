"""A tiny run that has everything in it that could break exactness, shared by the tests of this folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from botvision.config.recipes import build_config
from botvision.config.run import RunConfig
from botvision.training.evaluation import Evaluation

# 100 images, 8 a batch, 2 batches a step: 12 batches (4 images left over) and 6 steps an epoch.
TINY = {
    "model": {"name": "botnet14_tiny", "args": {"stem": "cifar", "drop_path_rate": 0.2, "attn_drop": 0.1}},
    "data": {
        "source": "generated", "image_size": 16, "num_classes": 5, "num_images": 100, "num_val_images": 40,
        "augment": "flip_crop", "padding": 2,
    },
    "optim": {"lr": 0.05, "warmup_epochs": 0.5, "clip_norm": 1.0},
    "train": {
        "epochs": 3, "batch_size": 8, "accumulate": 2, "seed": 3, "label_smoothing": 0.1, "ema_decay": 0.9,
        "checkpoint_every": 2, "log_every": 1, "device": "cpu", "keep": "best",
    },
}  # fmt: skip


def tiny(**overrides: object) -> RunConfig:
    """The configuration; `train__epochs=2` sets train.epochs."""
    config = build_config(TINY, {key.replace("__", "."): value for key, value in overrides.items()})
    assert isinstance(config, RunConfig)
    return config


def evaluate(folder: Path, split: str = "val", overrides: Mapping[str, Any] | None = None) -> Any:
    """Evaluate a finished run, and return its metrics."""
    return Evaluation(folder, split, overrides).measure()


def differences(one: Any, two: Any, path: str = "") -> list[str]:
    """Paths at which two checkpoints differ, wall times apart."""
    if isinstance(one, torch.Tensor):
        return [] if isinstance(two, torch.Tensor) and torch.equal(one, two) else [path]
    if isinstance(one, dict):
        if not isinstance(two, dict) or one.keys() != two.keys():
            return [f"{path}: other keys"]
        return [found for key in one for found in differences(one[key], two[key], f"{path}.{key}")]
    if isinstance(one, list | tuple) and "step_seconds" not in path:
        if len(one) != len(two):
            return [f"{path}: other length"]
        pairs = enumerate(zip(one, two, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{path}.{i}")]
    return [] if "seconds" in path or one == two else [f"{path}: {one} and {two}"]


def assert_same_run(one: Path, two: Path) -> None:
    """Asserts that two run folders hold the same numbers, bit for bit."""
    checkpoints = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two)]
    assert differences(*checkpoints) == []
    assert (one / "steps.csv").read_text() == (two / "steps.csv").read_text()
    metrics = [
        [row.rsplit(",", 1)[0] for row in (run / "metrics.csv").read_text().split()] for run in (one, two)
    ]
    assert metrics[0] == metrics[1]
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (one, two)]
    assert weights[0] == weights[1]
