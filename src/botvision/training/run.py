"""A configuration to a trained network: checks, Lightning's Trainer, and the run folder.

Everything that can be wrong is looked at before the first step and before the folder is made: data, classes,
the model's arguments, the image size, the device.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import timm
import torch
import yaml
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from botvision.backbones.weights import LoadReport
from botvision.config.recipes import config_to_dict, with_absolute_paths
from botvision.config.run import AnyRunConfig
from botvision.config.schema import ConfigError
from botvision.data.loaders import ResumableSampler
from botvision.io.files import write_text
from botvision.io.progress import CountBar
from botvision.training import provenance
from botvision.training.checkpoint import RunKeeper, RunState, check_data_of_run, check_folder
from botvision.training.history import History, write_json
from botvision.training.learner import Learner
from botvision.training.optim import build_schedule
from botvision.training.progress import EpochBar, quiet, say
from botvision.training.results import RESULTS, evaluate, finish, is_exported
from botvision.training.task import Splits, Task, resolve_device, task_of

__all__ = ["evaluate", "train"]

Loader = Any  # a StatefulDataLoader of (images, targets, indices)


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything a run needs, checked."""

    task: Task[Any, Any, Any]
    splits: Splits
    learner: Learner
    train_loader: Loader
    val_loader: Loader
    warm_start: LoadReport | None


def train(config: AnyRunConfig, out: str | Path, resume: bool = False, progress: bool = True) -> Path:
    """Trains a classifier or a detector, as the configuration says.

    Args:
        config: from `build_config`.
        out: the run folder; new or empty, or the one to resume.
        resume: go on from `checkpoints/last.ckpt`, exactly: on a CPU with the same number of threads, losses
            and weights are those of a run that was never interrupted. `train.epochs` may be larger than
            before; the learning rate then follows the schedule of the new length from the restored step on
            (with cosine it jumps up again where the old run had come down). The data may have moved.
        progress: a bar for the epoch and a line for each finished one, on the error stream.

    Returns:
        The run folder; its files are described in the README.

    Raises:
        ValueError: whatever is wrong with configuration, data or folder, in one line, before the first step;
            DivergedError where the loss stops being a number.
    """
    folder, tell = Path(out), say if progress else _silent
    config = with_absolute_paths(config)
    state = check_folder(folder, config, resume)
    if state is not None and state.finished and is_exported(folder, config, state):
        more = (
            "train.early_stop 0 lets it go on" if state.stopped_early else "a larger train.epochs extends it"
        )
        tell(f"{folder}: nothing to do, the run is finished ({state.epoch} epochs); {more}")
        return folder
    with quiet(), isolate_rng():
        job = _prepare(config, fresh=state is None, tell=tell)
        state = _opened(folder, config, job, state)
        if state.step and not state.finished:
            tell(f"{folder}: going on after step {state.step} (epoch {state.epoch + 1})")
        elif resume and not state.step:
            tell(f"{folder}: no checkpoint yet, starting at the first step")
        if job.warm_start is not None:
            tell(f"weights from {config.model.weights}:\n{job.warm_start}")
        if not state.finished:
            steps = math.ceil(len(job.train_loader) / config.train.accumulate)
            tell(
                f"{folder}: {len(job.splits.train)} images to train on, {len(job.splits.val)} to measure on, "
                f"{steps} step{'s' * (steps != 1)} an epoch, {config.train.epochs} epochs"
            )
            _fit(folder, config, job, state, tell)
        outcome = finish(folder, job.task, config, job.splits, state)
    tell(f"{folder}: {outcome.headline()} (weights of the {config.train.keep} epoch)")
    return folder


def _prepare(config: AnyRunConfig, fresh: bool, tell: Callable[[str], None]) -> Job:
    """Opens and builds everything.

    Args:
        config: of the run.
        fresh: the run begins: it starts from `model.weights`, and its images have not been read before.
        tell: receives a line where images are too many to be read beforehand.
    """
    device, task = resolve_device(config.train.device), task_of(config)
    splits = task.open()
    torch.manual_seed(config.train.seed)
    model = _build_model(task, config, splits)
    with CountBar() as bar:
        source = config.model.weights if fresh else None
        warm_start = _warm_start(task, model.to(device), source, splits, None if tell is _silent else bar)
    model.cpu()
    task.probe(model, splits)
    for split in (splits.train, splits.val):
        with CountBar() as bar:
            shown = None if tell is _silent else bar
            split.prepare(shown)
            if fresh and not split.verify(shown):
                tell(f"{split.name}: {len(split)} images are not read beforehand; botvision check does it")
        for note in getattr(split, "notes", []):
            tell(f"note: {note}")
        left_out = getattr(split, "skipped", [])
        if left_out:
            tell(f"{split.name}: {len(left_out)} problems passed over, the first: {left_out[0].line}")
    train_loader, val_loader = task.loader(splits.train, train=True), task.loader(splits.val, train=False)
    for loader, split in ((train_loader, splits.train), (val_loader, splits.val)):
        loader.pin_memory = device.type == "cuda" and not split.placed
    waiting = len(splits.train) - len(train_loader) * config.train.batch_size
    if waiting > 0.1 * len(splits.train):
        tell(
            f"{waiting} of {len(splits.train)} training images fill no whole batch and sit out each epoch "
            "(others each time); a smaller train.batch_size uses more"
        )
    steps = math.ceil(len(train_loader) / config.train.accumulate)
    total = min(steps * config.train.epochs, config.train.max_steps or math.inf)
    schedule = build_schedule(
        config.optim, config.train.batch_size * config.train.accumulate, steps, total=int(total)
    )
    learner = task.learner(model, schedule, splits)
    return Job(task, splits, learner, train_loader, val_loader, warm_start)


def _fit(folder: Path, config: AnyRunConfig, job: Job, state: RunState, tell: Callable[[str], None]) -> None:
    history = History(folder, job.task.columns, job.task.parts, state.step)
    keeper = RunKeeper(folder, job.task, config.train, state, history, tell)
    callbacks: list[pl.Callback] = [keeper] if tell is _silent else [keeper, EpochBar(config.train.epochs)]
    device = resolve_device(config.train.device)
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=config.train.precision,
        max_epochs=config.train.epochs,
        accumulate_grad_batches=config.train.accumulate,
        gradient_clip_val=config.optim.clip_norm or None,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        benchmark=device.type == "cuda" and job.task.same_sizes,
        default_root_dir=folder,
    )
    restored = state.step > 0
    if restored:
        # before fit: with worker processes the first batches are ordered as soon as the loader is iterated
        sampler: ResumableSampler = job.train_loader.sampler
        done = state.batches * config.train.batch_size
        sampler.load_state_dict({"epoch": state.epoch, "done": done, "length": len(job.splits.train)})
    last = folder / "checkpoints" / "last.ckpt"
    try:
        trainer.fit(
            job.learner,
            job.train_loader,
            job.val_loader,
            ckpt_path=str(last) if restored else None,
            weights_only=True if restored else None,
        )
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    finally:
        history.close()


def _build_model(task: Task[Any, Any, Any], config: AnyRunConfig, splits: Splits) -> nn.Module:
    try:
        return task.build(splits)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        given = f" with {config.model.args}" if config.model.args else ""
        raise ConfigError(f"model {config.model.name}{given}: {text}") from None


def _warm_start(
    task: Task[Any, Any, Any], model: nn.Module, source: str | None, splits: Splits, bar: CountBar | None
) -> LoadReport | None:
    if source is None:
        return None
    path = Path(source)
    if not path.exists() and timm.is_model_pretrained(source):
        return task.warm_start(model, _pretrained(source), splits, bar)
    inside = [path / "model" / "model.safetensors", path / "model.safetensors"]
    found = next((file for file in inside if file.is_file()), path)
    if found.is_dir():
        raise ConfigError(
            f"model.weights: {path} holds no model.safetensors, expected a run folder or such a file"
        )
    return task.warm_start(model, found, splits, bar)


def _pretrained(name: str) -> dict[str, Tensor]:
    hub = logging.getLogger("huggingface_hub")  # tells of every retry; what counts is how it ends
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # no network, no disk, ...: each has its own
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"model.weights: timm cannot fetch the weights of {name}: {text.rstrip('.')}; "
            "a file of weights or a run folder does as well, and null starts from nothing"
        ) from None
    finally:
        hub.setLevel(level)


def _opened(folder: Path, config: AnyRunConfig, job: Job, state: RunState | None) -> RunState:
    """Makes the folder and says in it what the run is; config.yaml comes last, it makes the folder a run.

    The results of an earlier, shorter stretch go first: a run that goes on must not pass for a finished one.
    """
    state = RunState() if state is None else state
    check_data_of_run(state, config, job.splits)
    folder.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    facts = provenance.stretch(state.step, resolve_device(config.train.device), config.train.precision)
    write_json(folder / "versions.json", [*_earlier_stretches(folder / "versions.json", state.step), facts])
    if job.warm_start is not None:
        write_text(folder / "warm_start.txt", f"{job.warm_start}\n")
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
    write_text(folder / "config.yaml", text)
    return state


def _earlier_stretches(path: Path, step: int) -> list[dict[str, Any]]:
    """What versions.json says of the steps before `step`; a stretch without a checkpoint left nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    stretches = found if isinstance(found, list) else [{"from_step": 0, **found}]
    return [stretch for stretch in stretches if stretch["from_step"] < step]


def _silent(text: str) -> None:
    """In place of `say` for runs without progress."""
