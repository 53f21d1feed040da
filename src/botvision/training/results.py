"""What a finished run leaves behind: weights that need no training code, metrics, pictures, a summary."""

import json
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from botvision.attention.ablation import Replaced
from botvision.config.recipes import build_config, changed_keys, config_to_dict, load_config, value_at
from botvision.config.run import AnyRunConfig
from botvision.config.schema import ConfigError
from botvision.data.cache import Progress
from botvision.training import provenance
from botvision.training.checkpoint import RunState, evaluated_weights
from botvision.training.progress import quiet
from botvision.training.task import Outcome, Splits, Task, resolve_device, task_of

# What says of a folder that its run is finished.
RESULTS = ("summary.json", "eval.json")
# What an evaluation may set otherwise than the run did, without a table of its own.
WAYS_OF_LOADING = ("num_workers", "cache", "cache_bytes", "download")


def finish(
    folder: Path, task: Task[Any, Any, Any], config: AnyRunConfig, splits: Splits, state: RunState
) -> Outcome:
    """Exports the weights to keep, evaluates them, draws; summary.json comes last: the folder is complete."""
    weights = evaluated_weights(folder / "checkpoints" / f"{config.train.keep}.ckpt")
    device = resolve_device(config.train.device)
    facts = {
        "task": config.task, "recipe": config.recipe, "model": config.model.name, "data": splits.name,
        "seed": config.train.seed, "epochs": state.epoch, "steps": state.step,
        "best_epoch": state.best_epoch, "kept": config.train.keep,
        "image_size": list(config.data.size),
        "train_images": len(splits.train), "val_images": len(splits.val),
        "train_seconds": round(state.seconds, 3), "step_ms": state.step_ms,
        "peak_memory_mb": peak_memory_mb(device),
        "batch_size": config.train.batch_size * config.train.accumulate,
        "hardware": provenance.hardware(device), "precision": config.train.precision,
        "commit": provenance.commit(), "versions": provenance.versions(),
    }  # fmt: skip
    return task.finish(folder, splits, weights, facts)


def peak_memory_mb(device: torch.device) -> float:
    """Returns the most memory in MB (1e6 bytes) held so far: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:  # not what getrusage says on Linux, which a process inherits from the one that started it
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6, 1)
    return round(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6, 1)


def is_exported(folder: Path, config: AnyRunConfig, state: RunState) -> bool:
    """Returns whether `finish` has been here after the last step and with the weights now asked for."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (summary.get("steps"), summary.get("kept")) == (state.step, config.train.keep)


def evaluate(
    run_folder: str | Path,
    split: str = "val",
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    replaced: Replaced | None = None,
    out: Path | None = None,
) -> Any:  # noqa: ANN401  the task decides
    """Evaluates the weights of a run folder, and writes the files that `evaluation_files` names.

    Args:
        run_folder: of a finished run.
        split: "val", "test" (classification), or "train" (without augmentation).
        overrides: dotted keys under `data`, or `train.batch_size`, `train.device`; of a detector
            `model.detector.detections`, `.score_threshold` and `.nms`, too.
        progress: called with what is being done, how many images are done and how many there are.
        replaced: what takes the place of the network's attention meanwhile; nothing unless given.
        out: folder for the files; the run folder unless given.

    Returns:
        The task's metrics: `ClassificationMetrics` or `DetectionMetrics`.

    Raises:
        ValueError: no finished run there, another key, data that cannot be opened or that have other classes,
            or no such attention.
    """
    folder = Path(run_folder)
    check_finished(folder)
    own = load_config(folder / "config.yaml")
    allowed = task_of(own).evaluation_keys
    for key in overrides or {}:
        if not key.startswith(allowed):
            raise ConfigError(f"{key}: an evaluation takes only {_listed(allowed)}")
    if split not in ("train", "val", "test"):
        raise ConfigError(f"split: expected train, val or test, got {split!r}")
    config = build_config(config_to_dict(own), overrides)
    files = evaluation_files(folder, split, overrides, replaced)
    if out is not None:
        files = out / files[0].name, out / files[1].name
    with quiet():
        return task_of(config).evaluate(folder, split, files, progress, replaced)


def check_finished(folder: Path) -> None:
    """Raises ConfigError for a folder that holds no finished run."""
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: not a run folder, there is no config.yaml")
    if not (folder / "summary.json").is_file():
        raise ConfigError(f"{folder}: the run is not finished, there is no summary.json; resume it first")


def evaluation_files(
    folder: Path,
    split: str = "val",
    overrides: Mapping[str, Any] | None = None,
    replaced: Replaced | None = None,
) -> tuple[Path, Path]:
    """Returns where an evaluation is written: JSON and picture.

    eval.json and confusion.png (precision_recall.png of a detector) are the run's own validation; every other
    split or data has a name of its own, such as eval-test.json or eval-train-limit-100.json. So has an
    evaluation with attention replaced: eval-attention-zero.json, or eval-attention-zero-block-2.json.
    """
    own = load_config(folder / "config.yaml")
    config = build_config(config_to_dict(own), overrides)
    words = [] if split == "val" else [split]
    for key in changed_keys(own, config):
        value = value_at(config_to_dict(config), key)
        name = key.rpartition(".")[2]
        if key == "data.root":
            root = Path(str(value)).expanduser().absolute()
            words += [] if str(root) == own.data.root else [root.stem]
        elif not key.startswith("train.") and name not in WAYS_OF_LOADING:
            words.append(f"{name}-{value}")
    if replaced is not None:
        words.append(f"attention-{replaced.how}")
        words += [] if replaced.block is None else [f"block-{replaced.block}"]
    label = "".join(f"-{re.sub(r'[^0-9A-Za-z._]+', '-', word).strip('-')}" for word in words)
    return folder / f"eval{label}.json", folder / f"{task_of(config).picture}{label}.png"


def breakdown_file(picture: Path, name: str) -> Path:
    """Returns the picture of accuracy by a quantity, beside the confusion of the same evaluation."""
    return picture.with_name(picture.name.replace("confusion", f"by_{name}", 1))


def _listed(keys: tuple[str, ...]) -> str:
    words = [f"{key}*" if key.endswith(".") else key for key in keys]
    return f"{', '.join(words[:-1])} and {words[-1]}"
