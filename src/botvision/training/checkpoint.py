"""Checkpoints from which a run goes on as if nothing had happened, and the rules of the run folder.

A checkpoint holds weights, averaged weights, the optimiser and `RunState`. It needs no state of random
generators and none of the data loader's workers: what they do is a function of (seed, epoch, batch).
"""

import dataclasses
import os
import shlex
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from botvision.backbones.stored import check_finite, read_torch
from botvision.config.recipes import changed_keys, check_new_folder, config_to_dict, load_config, value_at
from botvision.config.run import AnyRunConfig, TrainConfig
from botvision.config.schema import ConfigError, Count, build
from botvision.data.labels import some_classes
from botvision.io.errors import text_of
from botvision.io.files import replacing
from botvision.training.task import Splits

if TYPE_CHECKING:
    from botvision.training.loop import Job

CHECKPOINTS, LAST, PREVIOUS, BEST = "checkpoints", "last.ckpt", "previous.ckpt", "best.ckpt"
# A resumed run may change these: they decide how long it goes on and what is written, not what a step does.
# The data may have moved: their classes and numbers are compared instead (`check_data_of_run`).
FREE_KEYS = {
    "recipe", "train.epochs", "train.early_stop", "train.keep", "train.device", "train.log_every",
    "train.checkpoint_every", "data.root", "data.num_workers", "data.cache", "data.cache_bytes",
    "data.download",
}  # fmt: skip


@dataclasses.dataclass
class RunState:
    """Where a run is. All of it lies in every checkpoint.

    Attributes:
        step: optimiser steps done.
        epoch: epochs finished.
        batches: batches done in the running epoch, 0 between epochs.
        loss_total: sum of the losses of the running epoch's images, `images` their number.
        seconds: wall time of the training so far, without what was lost by a kill; `epoch_seconds` of the
            epoch.
        best_score: best score of a validation so far, reached in epoch `best_epoch` (1 is the first).
        finished: the run ended: all epochs, `max_steps` or early stopping (then `stopped_early`).
        step_seconds: mean wall times of a step, one for each stretch between two rows of steps.csv.
        classes: of the data that the run began with; empty if not known.
        data_images: images of its training and validation split.
    """

    step: Count = 0
    epoch: Count = 0
    batches: Count = 0
    loss_total: float = 0.0
    images: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_score: float = -1.0
    best_epoch: int = 0
    finished: bool = False
    stopped_early: bool = False
    step_seconds: list[float] = dataclasses.field(default_factory=list)
    classes: list[str] = dataclasses.field(default_factory=list)
    data_images: list[int] = dataclasses.field(default_factory=list)

    def decide(self, train: TrainConfig) -> None:
        """Set `finished` and `stopped_early` under a configuration, which may have changed since."""
        between = self.batches == 0 and self.epoch > 0
        waited = self.epoch - self.best_epoch
        self.stopped_early = between and 0 < train.early_stop <= waited
        self.finished = self.out_of_steps(train) or self.stopped_early or self.epoch >= train.epochs

    def out_of_steps(self, train: TrainConfig) -> bool:
        """Return whether `train.max_steps` are done."""
        return train.max_steps is not None and self.step >= train.max_steps

    @property
    def step_ms(self) -> float | None:
        """Median wall time of an optimiser step in ms, loading of data included; None if not measured."""
        return 1000 * statistics.median(self.step_seconds) if self.step_seconds else None


def save_checkpoint(folder: Path, state: RunState, job: "Job", *, best: bool) -> None:
    """Write best.ckpt and last.ckpt, in this order: a kill in between repeats the epoch and its result.

    The last.ckpt before becomes previous.ckpt, for the case that a disk damages the new one.

    Args:
        folder: of the checkpoints.
        state: of the run.
        job: whose model, averaged copy and optimiser are saved.
        best: no epoch before had a better score; best.ckpt holds no more than what is evaluated.
    """
    content = {"state": dataclasses.asdict(state), "evaluated": job.evaluated.state_dict()}
    if best:
        _write(folder / BEST, content)
    content |= {"model": job.model.state_dict(), "optimizer": job.optimizer.state_dict()}
    _write(folder / LAST, content, before=folder / PREVIOUS)  # what model and evaluated share is written once


def newest_checkpoint(folder: Path) -> Path | None:
    """Return last.ckpt of a run folder; previous.ckpt where it was removed, or not yet replaced."""
    paths = (folder / CHECKPOINTS / name for name in (LAST, PREVIOUS))
    return next((path for path in paths if path.exists()), None)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote, on the CPU; `state` is a `RunState`.

    Raises:
        ConfigError: one line: the file is damaged or of another kind, or its weights are not finite.
    """
    try:
        content = read_torch(path, "a checkpoint")
        if isinstance(content, dict) and "pytorch-lightning_version" in content:
            raise ConfigError(
                f"{path}: the checkpoint of an earlier version of botvision, which this one cannot resume; "
                "train anew, or go on with that version"
            )
        if not isinstance(content, dict) or not {"state", "evaluated"} <= content.keys():
            raise ConfigError(f"{path}: not a checkpoint of a botvision run")
        for name in ("evaluated", "model"):
            check_finite(_tensors(content.get(name, {}), path), str(path))
        check_finite(_of_optimizer(content.get("optimizer")), str(path))
        content["state"] = _state(content["state"], path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return content


def _tensors(found: object, path: Path) -> dict[str, Tensor]:
    if isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values()):
        return found
    raise ConfigError(f"{path}: not a checkpoint of a botvision run")


def _of_optimizer(found: object) -> dict[str, Tensor]:
    """Tensors of an optimiser's state; `restore` judges all else."""
    rows = found.get("state") if isinstance(found, dict) else None
    return {
        f"optimizer.{index}.{name}": value
        for index, row in (rows.items() if isinstance(rows, dict) else ())
        for name, value in (row.items() if isinstance(row, dict) else ())
        if isinstance(value, Tensor)
    }


def _state(found: object, path: Path) -> RunState:
    known = {field.name for field in dataclasses.fields(RunState)}
    later = sorted(map(str, found.keys() - known)) if isinstance(found, dict) else []
    if later:
        raise ConfigError(f"{path}: a checkpoint of a later version of botvision (it has {later[0]!r})")
    try:
        return build(RunState, found, "state.")
    except ValueError as error:
        raise ConfigError(f"{path}: not a checkpoint of a botvision run ({error})") from None


def checkpoint_to_use(folder: Path, keep: str) -> tuple[Path, dict[str, Any]]:
    """Return the file and content of the checkpoint by which a run is used before it is finished.

    Args:
        folder: of the run.
        keep: "best" or "last", which is taken if it is there and whole.

    Raises:
        ConfigError: there is none yet, or each is broken.
    """
    names = (BEST, LAST, PREVIOUS) if keep == "best" else (LAST, PREVIOUS, BEST)
    first: ConfigError | None = None
    for path in (folder / CHECKPOINTS / name for name in names):
        if path.exists():
            try:
                return path, read_checkpoint(path)
            except ConfigError as error:
                first = first or error
    none = f"{folder}: the run is not finished, and has no checkpoint yet; resume it first"
    raise first or ConfigError(none)


def read_state(path: Path) -> RunState:
    """Return the state in a checkpoint to go on from.

    Raises:
        ConfigError: it cannot be read as one; the line says what is whole beside it, and what to do.
    """
    try:
        content = read_checkpoint(path)
        if not {"model", "optimizer"} <= content.keys():
            raise ConfigError(f"{path}: holds weights to use, but nothing to go on from")
    except ConfigError as error:
        raise ConfigError(f"{error}; {_what_is_whole(path)}") from None
    return content["state"]


def _what_is_whole(broken: Path) -> str:
    """What else there is to go on from, or to use."""
    run = broken.parent.parent
    for name, use in (
        (PREVIOUS, f"rm {shlex.quote(str(broken))}, and --resume goes on from there"),
        (BEST, f"botvision predict {shlex.quote(str(run))} and eval can use it"),
    ):
        path = broken.with_name(name)
        if path != broken and path.exists():
            try:
                state = read_checkpoint(path)["state"]
            except ConfigError:
                continue
            return f"{name} beside it is whole (step {state.step}): {use}"
    return "no other checkpoint beside it is whole: train anew"


def restore(path: Path, job: "Job") -> None:
    """Load what `save_checkpoint` wrote into last.ckpt. Raises ConfigError for that of another network."""
    content = read_checkpoint(path)
    for name in ("model", "evaluated", "optimizer"):
        try:
            getattr(job, name).load_state_dict(content[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: its {name} is not this run's: {text_of(error)[:200]}") from None


def _write(path: Path, content: dict[str, Any], before: Path | None = None) -> None:
    """Write a checkpoint under another name; then the one before gets its own name, and this one its."""
    with replacing(path) as written:
        try:
            with written.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())  # on the disk before the rename, or a power cut leaves neither
        except RuntimeError as error:  # torch's own, over that of the file system
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        if before is not None and path.exists():
            path.replace(before)


def check_folder(folder: Path, config: AnyRunConfig, resume: bool) -> RunState | None:
    """Decide whether a run may go into a folder.

    Returns:
        The state to go on from; None to start at the beginning (a run killed before its first checkpoint
        included).

    Raises:
        ConfigError: the folder holds a run or other things and `resume` is not set; there is nothing to
            resume, or a finished run without its checkpoints; a key that decides about the numbers has
            changed; fewer epochs than are done.
    """
    if not resume:
        check_new_folder(folder)
        return None
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: no run to resume, there is no config.yaml")
    old = load_config(folder / "config.yaml")
    for key in changed_keys(old, config):
        if key not in FREE_KEYS:
            before, after = (value_at(config_to_dict(c), key) for c in (old, config))
            raise ConfigError(f"{folder}: cannot resume with another {key}: it was {before!r}, now {after!r}")
    last = newest_checkpoint(folder)
    if last is None:
        if (folder / "summary.json").is_file():
            raise ConfigError(f"{folder}: is finished, and there are no checkpoints to go on from")
        return None
    state = read_state(last)
    begun = state.epoch + (state.batches > 0)
    if config.train.epochs < begun:
        verb = "begun" if state.batches else "done"
        raise ConfigError(
            f"train.epochs: {folder} has {verb} {begun} epochs already, got {config.train.epochs}"
        )
    state.decide(config.train)
    return state


def check_data_of_run(state: RunState, config: AnyRunConfig, splits: Splits) -> None:
    """Refuse to go on with other data than the run began with, and notes what these are.

    Raises:
        ConfigError: other classes, or another number of images.
    """
    found = [len(splits.train), len(splits.val)]
    if state.classes and (state.classes, state.data_images) != (splits.classes, found):
        sizes = [f"{counts[0]} + {counts[1]} images" for counts in (state.data_images, found)]
        if state.classes != splits.classes:
            sizes = [some_classes(names) for names in (state.classes, splits.classes)]
        raise ConfigError(
            f"{config.data.root or splits.name}: not the data of the run, which had {sizes[0]}; "
            f"here are {sizes[1]}"
        )
    state.classes, state.data_images = list(splits.classes), found
