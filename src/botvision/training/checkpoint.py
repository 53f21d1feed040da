"""Checkpoints from which a run goes on as if nothing had happened, and the rules of the run folder.

A checkpoint is Lightning's (weights, averaged weights, optimiser, loop counters) plus `RunState`. It needs
no state of random generators and none of the data loader's workers, because both are functions of (seed,
epoch, batch): see `Learner.on_train_batch_start` and `botvision.data.loaders`.
"""

import dataclasses
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from botvision.config.recipes import changed_keys, check_new_folder, config_to_dict, load_config, value_at
from botvision.config.run import AnyRunConfig, TrainConfig
from botvision.config.schema import ConfigError
from botvision.data.labels import some_classes
from botvision.training.history import History
from botvision.training.learner import Learner
from botvision.training.progress import epoch_line
from botvision.training.task import Splits, Task

STATE_KEY = "botvision"
# A resumed run may change these: they decide how long it goes on and what is written, not what a step does.
# The data may have moved: their classes and numbers are compared instead (`check_data_of_run`).
FREE_KEYS = {
    "recipe", "train.epochs", "train.early_stop", "train.keep", "train.device", "train.log_every",
    "train.checkpoint_every", "data.root", "data.num_workers", "data.cache", "data.cache_bytes",
    "data.download",
}  # fmt: skip
STEP_TIMES_KEPT = 200


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

    step: int = 0
    epoch: int = 0
    batches: int = 0
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

    def decide(self, train: TrainConfig, ended: bool = False) -> None:
        """Sets `finished` and `stopped_early` under a configuration, which may have changed since."""
        between = self.batches == 0 and self.epoch > 0
        waited = self.epoch - self.best_epoch
        self.stopped_early = between and 0 < train.early_stop <= waited
        out_of_steps = train.max_steps is not None and self.step >= train.max_steps
        self.finished = ended or out_of_steps or self.stopped_early or self.epoch >= train.epochs

    @property
    def step_ms(self) -> float | None:
        """Median wall time of an optimiser step in ms, loading of data included; None if not measured."""
        return 1000 * statistics.median(self.step_seconds) if self.step_seconds else None


class RunKeeper(Checkpoint):
    """Writes steps, epochs and checkpoints, and ends the run where the configuration says so.

    Lightning runs callbacks of this kind after all others, so a checkpoint holds what the others did.

    Args:
        folder: run folder.
        task: of the run.
        train: how long it goes on.
        state: restored, or fresh.
        history: open tables.
        say: receives the line of each finished epoch.
    """

    def __init__(
        self,
        folder: Path,
        task: Task[Any, Any, Any],
        train: TrainConfig,
        state: RunState,
        history: History,
        say: Callable[[str], None],
    ) -> None:
        self.state = state
        self._task, self._train, self._history, self._say = task, train, history, say
        self._folder = folder / "checkpoints"
        self._clock = self._stretch_start = time.perf_counter()
        self._stretch_step: int | None = None
        self._values: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hands the running mean of the loss back to the module and starts the clock."""
        meter = _learner(pl_module).meter
        meter.total, meter.images = self.state.loss_total, self.state.images
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Logs, saves and stops at the ends of optimiser steps."""
        self.state.batches = batch_idx + 1
        step = trainer.global_step
        if step == self.state.step:
            return  # in the middle of an accumulated step
        self.state.step = step
        if step % self._train.log_every == 0:
            module = _learner(pl_module)
            module.meter.settle()
            parts = {name: float(module.meter.parts.get(name, math.nan)) for name in self._task.parts}
            loss, lr = module.meter.step_loss(), module.schedule(step - 1)
            self._history.log_step(step, trainer.current_epoch + 1, loss, lr, **parts)
            self._time_stretch(step)
        if self._train.max_steps is not None and step >= self._train.max_steps:
            trainer.should_stop = True
        elif (
            self._train.checkpoint_every
            and step % self._train.checkpoint_every == 0
            and not trainer.is_last_batch
        ):
            self._save(trainer, best=False)  # not at the last batch: its validation is part of the epoch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time spent validating is not time of steps."""
        self._stretch_step = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the epoch's row, decides whether it is the best or the last, and saves."""
        module, state = _learner(pl_module), self.state
        module.meter.settle()
        state.epoch, state.batches = trainer.current_epoch + 1, 0
        self._tick()
        result = module.result()
        best = result is not None and result.score > state.best_score
        if result is not None and best:
            state.best_score, state.best_epoch = result.score, state.epoch
        state.decide(self._train, ended=trainer.should_stop)
        row = {
            "epoch": state.epoch, "step": state.step, "train_loss": module.meter.mean(),
            **{name: result.values[name] if result else math.nan for name in self._task.columns},
            "lr": module.schedule(max(0, state.step - 1)), "seconds": round(state.epoch_seconds, 3),
        }  # fmt: skip
        self._history.log_epoch(row)
        module.meter.restart()
        state.epoch_seconds = 0.0
        self._save(trainer, best)
        trainer.should_stop = trainer.should_stop or state.stopped_early
        self._say(epoch_line(row, self._task.epoch_text(row), self._train.epochs, best))

    def _save(self, trainer: pl.Trainer, best: bool) -> None:
        """Replaces last.ckpt, and best.ckpt before it: a kill in between repeats the epoch and its result."""
        module = _learner(trainer.lightning_module)
        module.meter.settle()
        module.check_finite(self.state.step)
        self.state.loss_total, self.state.images = module.meter.total, module.meter.images
        self._tick()
        self._folder.mkdir(parents=True, exist_ok=True)
        written = self._folder / "last.ckpt.tmp"
        trainer.save_checkpoint(written, weights_only=False)
        with written.open("rb+") as file:  # on the disk before the rename, or a power cut leaves neither
            os.fsync(file.fileno())
        if best:
            link = self._folder / "best.ckpt.tmp"
            link.unlink(missing_ok=True)
            _link(written, link)
            link.replace(self._folder / "best.ckpt")
        written.replace(self._folder / "last.ckpt")
        self._stretch_step = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the state, and drops the loader's own, which would fix the number of its workers."""
        checkpoint[STATE_KEY] = dataclasses.asdict(self.state)
        for loop in checkpoint["loops"].values():
            for name, part in loop.items():
                if name.endswith("state_dict"):
                    part.pop("combined_loader", None)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self._clock
        self.state.epoch_seconds += now - self._clock
        self._clock = now

    def _time_stretch(self, step: int) -> None:
        now = time.perf_counter()
        if self._stretch_step is not None:
            self.state.step_seconds.append((now - self._stretch_start) / (step - self._stretch_step))
            del self.state.step_seconds[:-STEP_TIMES_KEPT]
        self._stretch_start, self._stretch_step = now, step


def read_state(path: Path) -> RunState:
    """Returns the state in a checkpoint. Raises ConfigError if the file cannot be read as one."""
    return RunState(**read_checkpoint(path)[STATE_KEY])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns a checkpoint of `RunKeeper`, on the CPU. Raises ConfigError if the file is not one."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch meets in a broken file, the user needs the file's name
        raise ConfigError(f"{path}: cannot be read as a checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(checkpoint, dict) or STATE_KEY not in checkpoint:
        raise ConfigError(f"{path}: not a checkpoint of a botvision run")
    return checkpoint


def evaluated_weights(path: Path) -> dict[str, Tensor]:
    """Returns the state dict of the network that was evaluated: the averaged copy where the run had one."""
    state = read_checkpoint(path)["state_dict"]
    prefix = "ema.module." if any(name.startswith("ema.module.") for name in state) else "model."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check_folder(folder: Path, config: AnyRunConfig, resume: bool) -> RunState | None:
    """Decides whether a run may go into a folder.

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
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
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
    """Refuses to go on with other data than the run began with, and notes what these are.

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


def _learner(module: pl.LightningModule) -> Learner:
    assert isinstance(module, Learner)
    return module


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # file systems without hard links
        shutil.copyfile(source, target)
