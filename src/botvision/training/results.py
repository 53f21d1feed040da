"""What a finished run leaves behind: weights that need no training code, metrics, pictures, a summary."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from botvision import draw
from botvision.atomic import write_text
from botvision.backbones.cost import count
from botvision.backbones.variants import VARIANTS, create_model
from botvision.backbones.weights import load_model, save_model
from botvision.data.cache import Progress
from botvision.data.classification import ClassificationDataset, Splits, open_split
from botvision.data.loaders import build_loader
from botvision.evaluation.classification import ClassificationEvaluator, ClassificationMetrics
from botvision.training import provenance
from botvision.training.checkpoint import RunState, evaluated_weights
from botvision.training.config import (
    ConfigError,
    RunConfig,
    build_config,
    changed_keys,
    config_to_dict,
    load_config,
    value_at,
)
from botvision.training.progress import quiet

# What says of a folder that its run is finished.
RESULTS = ("summary.json", "eval.json")
# What an evaluation may set otherwise than the run did.
WAYS_OF_LOADING = ("num_workers", "cache", "cache_bytes", "download")
EVALUATION_KEYS = ("data.", "train.batch_size", "train.device")


def model_kwargs(config: RunConfig, num_classes: int) -> dict[str, Any]:
    """Returns the arguments of `create_model`: the recipe's, the number of classes, the image size."""
    kwargs = {**config.model.args, "num_classes": num_classes}
    if config.model.name in VARIANTS:
        kwargs.setdefault("img_size", list(config.data.size))
    return kwargs


def resolve_device(name: str) -> torch.device:
    """Returns the device of a run. Raises ConfigError if there is none of that kind."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("train.device: cuda was asked for, but torch sees no GPU; use auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def finish(folder: Path, config: RunConfig, splits: Splits, state: RunState) -> ClassificationMetrics:
    """Exports the weights to keep, evaluates them, draws; summary.json comes last: the folder is complete."""
    model = create_model(
        config.model.name, **(model_kwargs(config, len(splits.classes)) | {"pretrained": False})
    )
    model.load_state_dict(evaluated_weights(folder / "checkpoints" / f"{config.train.keep}.ckpt"))
    _export(model, folder, config, splits.classes)
    metrics = _measure(model, splits.val, config)
    _write_evaluation(folder / "eval.json", folder / "confusion.png", metrics, "val", splits.val.name)
    draw.learning_curves(folder / "metrics.csv", folder / "curves.png", config.train.label_smoothing)
    height, width = config.data.size
    cost = count(model, (height, width))
    summary = {
        "task": config.task, "recipe": config.recipe, "model": config.model.name, "data": splits.name,
        "seed": config.train.seed, "epochs": state.epoch, "steps": state.step,
        "best_epoch": state.best_epoch, "kept": config.train.keep,
        **{key: metrics.to_dict()[key] for key in ("top1", "top5", "loss")},
        "params": cost.params, "macs": cost.macs, "image_size": [height, width],
        "train_images": len(splits.train), "val_images": len(splits.val), "val_held_back": splits.held_back,
        "train_seconds": round(state.seconds, 3), "step_ms": state.step_ms,
        "batch_size": config.train.batch_size * config.train.accumulate,
        "hardware": provenance.hardware(resolve_device(config.train.device)),
        "precision": config.train.precision,
        "commit": provenance.commit(), "versions": provenance.versions(),
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return metrics


def is_exported(folder: Path, config: RunConfig, state: RunState) -> bool:
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
) -> ClassificationMetrics:
    """Evaluates the weights of a run folder, and writes the files that `evaluation_files` names.

    Args:
        run_folder: of a finished run.
        split: "val", "test", or "train" (without augmentation).
        overrides: dotted keys under `data`, or `train.batch_size`, `train.device`.
        progress: called with what is being done, how many images are done and how many there are.

    Returns:
        Metrics; top-1 and top-5 are fractions.

    Raises:
        ValueError: no finished run there, another key, data that cannot be opened or that have other classes.
    """
    folder = Path(run_folder)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: not a run folder, there is no config.yaml")
    if not (folder / "summary.json").is_file():
        raise ConfigError(f"{folder}: the run is not finished, there is no summary.json; resume it first")
    for key in overrides or {}:
        if not key.startswith(EVALUATION_KEYS):
            raise ConfigError(f"{key}: an evaluation takes only data.*, train.batch_size and train.device")
    if split not in ("train", "val", "test"):
        raise ConfigError(f"split: expected train, val or test, got {split!r}")
    config = build_config(config_to_dict(load_config(folder / "config.yaml")), overrides)
    model, description = load_model(folder / "model")
    chosen = open_split(config.data, split, description["classes"], config.train.seed)
    with quiet():
        metrics = _measure(model, chosen, config, progress)
    table, picture = evaluation_files(folder, split, overrides)
    _write_evaluation(table, picture, metrics, split, chosen.name)
    return metrics


def evaluation_files(
    folder: Path, split: str = "val", overrides: Mapping[str, Any] | None = None
) -> tuple[Path, Path]:
    """Returns where an evaluation is written: JSON and picture.

    eval.json and confusion.png are the run's own validation; every other split or data has a name of its own,
    such as eval-test.json or eval-train-limit-100.json.
    """
    own = load_config(folder / "config.yaml")
    config = build_config(config_to_dict(own), overrides)
    words = [] if split == "val" else [split]
    for key in changed_keys(own, config):
        value = value_at(config_to_dict(config), key)
        name = key.removeprefix("data.")
        if name == "root":
            root = Path(str(value)).expanduser().absolute()
            words += [] if str(root) == own.data.root else [root.stem]
        elif key.startswith("data.") and name not in WAYS_OF_LOADING:
            words.append(f"{name}-{value}")
    label = "".join(f"-{re.sub(r'[^0-9A-Za-z._]+', '-', word).strip('-')}" for word in words)
    return folder / f"eval{label}.json", folder / f"confusion{label}.png"


def write_json(path: Path, values: object) -> None:
    """Writes JSON, all of it or nothing."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def _export(model: nn.Module, folder: Path, config: RunConfig, classes: list[str]) -> None:
    kwargs = model_kwargs(config, len(classes)) | {"pretrained": False}
    save_model(
        model, folder / "model", config.model.name, kwargs,
        classes=classes, image_size=list(config.data.size), mean=list(config.data.mean),
        std=list(config.data.std), crop=config.data.crop_of_eval, task=config.task,
    )  # fmt: skip


@torch.inference_mode()
def _measure(
    model: nn.Module, data: ClassificationDataset, config: RunConfig, progress: Progress | None = None
) -> ClassificationMetrics:
    device = resolve_device(config.train.device)
    # same order, batch and precision as the validation after each epoch: the same numbers
    loader: Iterable[tuple[Tensor, Tensor, Tensor]] = build_loader(
        data,
        config.train.batch_size,
        train=False,
        seed=config.train.seed,
        num_workers=config.data.num_workers,
    )
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout).eval()  # pyrefly: ignore[no-matching-overload]
    evaluator = ClassificationEvaluator(data.classes)
    done = 0
    for images, targets, _ in loader:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16-mixed"):
            logits = model(images.to(device, memory_format=layout))
        evaluator.update(logits, targets)
        done += len(targets)
        if progress is not None:
            progress("evaluating", done, len(data))
    return evaluator.compute()


def _write_evaluation(
    table: Path, picture: Path, metrics: ClassificationMetrics, split: str, data: str
) -> None:
    write_json(table, {"split": split, "data": data, **metrics.to_dict()})
    draw.confusion_matrix(metrics.confusion, list(metrics.classes), picture)
