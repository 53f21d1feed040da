"""The training loop: one function that reads from top to bottom, and what it works on.

Everything random is a function of counters: the order of images and their augmentation (`data.loaders`), and
what a step draws for dropout, drop path and the sampling of proposals (`step_seed`). A step is the same
whatever happened before it in this process.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from botvision.backbones.device import pick_device
from botvision.config.run import AnyRunConfig
from botvision.config.schema import ConfigError
from botvision.data.counter_rng import keys
from botvision.data.loaders import Loader
from botvision.io.progress import CountBar
from botvision.training.checkpoint import CHECKPOINTS, RunState, newest_checkpoint, restore, save_checkpoint
from botvision.training.log import History, epoch_line
from botvision.training.optim import Schedule, build_optimizer, build_schedule, update_average
from botvision.training.task import ADVICE, AnyTask, DivergedError, Outcome, Splits

if TYPE_CHECKING:
    from lightning.fabric import Fabric

NAMED_IMAGES = 3  # as many of a bad batch are named in the error
STEP_TIMES_KEPT = 200


def resolve_device(name: str) -> torch.device:
    """Return the device of `train.device`. Raises ConfigError if it is not there."""
    try:
        return pick_device(name, "train.device")
    except ValueError as error:
        raise ConfigError(str(error)) from None


def open_fabric(device: str) -> "Fabric":
    """Return what knows the device and the processes of a run, from `train.device`.

    Raises:
        ConfigError: there is no such device, or several processes were started.
    """
    found = resolve_device(device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise ConfigError(f"WORLD_SIZE is {processes}: a run takes one process and one device as yet")
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator=found.type, devices=[found.index] if found.index else 1)
    fabric.launch()
    return fabric


@dataclass(frozen=True)
class Job:
    """A run with everything it works on, opened, built and placed.

    Attributes:
        average: exponential moving average of the model (weights and batch-norm statistics), if there is one.
        steps: optimiser steps in an epoch.
    """

    task: AnyTask
    fabric: "Fabric"
    splits: Splits
    model: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    steps: int
    train_loader: Loader
    val_loader: Loader

    @property
    def config(self) -> AnyRunConfig:
        """Configuration of the run."""
        return self.task.config

    @property
    def evaluated(self) -> nn.Module:
        """The network whose predictions count: the average where there is one."""
        return self.model if self.average is None else self.average


def assemble(task: AnyTask, fabric: "Fabric", splits: Splits, model: nn.Module) -> Job:
    """Return a job at its first step.

    Raises:
        DataError: fewer training images than a batch needs.
    """
    train, optim = task.config.train, task.config.optim
    loaders = task.loader(splits.train, True, fabric), task.loader(splits.val, False, fabric)
    steps = math.ceil(len(loaders[0]) / train.accumulate)
    total = min(steps * train.epochs, train.max_steps or math.inf)
    images = train.batch * train.accumulate * fabric.world_size
    model = task.place(model, fabric.device)
    torch.backends.cudnn.benchmark = fabric.device.type == "cuda" and task.same_sizes
    return Job(
        task, fabric, splits, model,
        average=copy.deepcopy(model) if train.ema_decay else None,
        optimizer=build_optimizer(model, optim),
        schedule=build_schedule(optim, images, steps, int(total)),
        steps=steps, train_loader=loaders[0], val_loader=loaders[1],
    )  # fmt: skip


class Learner(nn.Module):
    """A network and its loss in one forward pass, so that several processes share all gradients."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.model, self._job = job.model, job

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ANN401
        """Return the mean loss () of a batch, and its parts."""
        task = self._job.task
        with task.autocast(self._job.fabric.device):
            return task.loss(self.model, batch, self._job.splits.train)


def fit(folder: Path, job: Job, state: RunState, bar: CountBar) -> None:
    """Train until the epochs, the steps or the patience are used up, and save on the way.

    Args:
        folder: of the run.
        job: at its first step.
        state: where the run is; beyond its first step the job goes on from last.ckpt.
        bar: for the epoch, and a line for each that is done.

    Raises:
        DivergedError: a loss, a weight or an output is no longer finite.
    """
    config, fabric, task = job.config.train, job.fabric, job.task
    checkpoints, batches = folder / CHECKPOINTS, len(job.train_loader)
    processes = fabric.global_rank, fabric.world_size
    last = newest_checkpoint(folder)
    if state.step and last is not None:
        restore(last, job)
    learner = fabric.setup_module(Learner(job))
    meter, clock = LossMeter(job.splits.train.name_of, state, fabric.all_gather), Clock(state)

    history = History(folder, task.columns, task.parts, state.step) if fabric.is_global_zero else None
    with history or nullcontext():
        while not state.finished:
            label = f"epoch {state.epoch + 1}/{config.epochs}"
            job.model.train()
            coming = job.train_loader.epoch(state.epoch, state.batches)
            for index, batch in enumerate(coming, state.batches):
                first = index - index % config.accumulate  # batch of this optimiser step
                in_step = min(config.accumulate, batches - first)  # fewer in the last step of an epoch
                last = index == first + in_step - 1
                torch.manual_seed(step_seed(config.seed, state.epoch, index, *processes))
                with fabric.no_backward_sync(learner, enabled=not last):
                    batch_loss, parts = learner(fabric.to_device(batch))
                    meter.add(state.step, batch_loss, batch[2], parts)
                    fabric.backward(batch_loss / in_step)
                bar(f"{label} train", index + 1, batches, meter.text())
                if not last:
                    continue
                update(job, learner, state.step)
                state.step, state.batches = state.step + 1, index + 1
                if state.step % config.log_every == 0:
                    loss, lr = meter.step_loss(), job.schedule(state.step - 1)
                    if history:
                        history.log_step(state.step, state.epoch + 1, loss, lr, **meter.of(task.parts))
                    clock.lap()
                if state.out_of_steps(config):
                    break
                inside = config.checkpoint_every and state.step % config.checkpoint_every == 0
                if inside and index + 1 < batches:  # the last batch's validation is part of the epoch
                    _save(checkpoints, job, state, meter, clock)

            outcome = _validate(job, state, label, bar)
            meter.settle()
            clock.tick()
            state.epoch, state.batches = state.epoch + 1, 0
            best = outcome is not None and outcome.score > state.best_score
            if outcome is not None and best:
                state.best_score, state.best_epoch = outcome.score, state.epoch
            state.decide(config)
            row = {
                "epoch": state.epoch, "step": state.step, "train_loss": meter.mean(),
                **dict.fromkeys(task.columns, math.nan),
                **({f"val_{name}": value for name, value in outcome.numbers().items()} if outcome else {}),
                "lr": job.schedule(max(0, state.step - 1)), "seconds": round(state.epoch_seconds, 3),
            }  # fmt: skip
            if history:
                history.log_epoch(row)
            state.loss_total, state.images, state.epoch_seconds = 0.0, 0, 0.0
            _save(checkpoints, job, state, meter, clock, best)
            bar.say(epoch_line(row, task.epoch_text(row), config.epochs, best))


def step_seed(seed: int, epoch: int, batch: int, rank: int = 0, world_size: int = 1) -> int:
    """Return the seed of what a process draws in the forward pass of a batch; all numbers begin at 0."""
    return int(keys(seed, epoch, batch * world_size + rank)[0])


def update(job: Job, learner: nn.Module, step: int) -> None:
    """Make the optimiser step `step` (from 0) with the gradients at hand, and move the average."""
    for group in job.optimizer.param_groups:
        group["lr"] = job.schedule(step)
    if job.config.optim.clip_norm:
        norm = job.config.optim.clip_norm
        job.fabric.clip_gradients(learner, job.optimizer, max_norm=norm, error_if_nonfinite=False)
    job.optimizer.step()
    job.optimizer.zero_grad()
    if job.average is not None:
        update_average(job.average, job.model, step, job.config.train.ema_decay)


def _validate(job: Job, state: RunState, label: str, bar: CountBar) -> Outcome | None:
    """Measure after an epoch if it is due; after the last it is."""
    train, epoch = job.config.train, state.epoch + 1
    if epoch % train.eval_every and epoch < train.epochs and not state.out_of_steps(train):
        return None
    if job.fabric.world_size > 1:  # each has batch-norm statistics of its own images; rank 0's are kept
        for buffer in job.evaluated.buffers():
            torch.distributed.broadcast(buffer, src=0)
    try:
        return job.task.measure(job.evaluated, job.val_loader, job.fabric, bar, f"{label} val").result()
    except DivergedError as error:
        raise DivergedError(f"epoch {epoch}: {error}") from None


def _save(
    checkpoints: Path, job: Job, state: RunState, meter: "LossMeter", clock: "Clock", best: bool = False
) -> None:
    """Write the checkpoints, unless a loss or a weight is NaN or infinite: a good one is not replaced."""
    meter.settle()
    for name, value in {**job.evaluated.state_dict(), **job.model.state_dict()}.items():
        if not bool(value.isfinite().all()):
            advice = "lower optim.lr or set optim.clip_norm"
            raise DivergedError(f"step {state.step}: {name} is no longer finite: {advice}")
    clock.tick()
    if job.fabric.is_global_zero:
        save_checkpoint(checkpoints, state, job, best=best)
    job.fabric.barrier()
    clock.pause()


class LossMeter:
    """Losses of the running epoch, read from a GPU as rarely as possible: every read waits for it.

    Args:
        name_of: index of a training image -> its name, for the error.
        state: of the run, which keeps the sum and the number of images.
        gather: a tensor -> those of all processes, one more dimension.
    """

    def __init__(
        self,
        name_of: Callable[[int], str],
        state: RunState,
        gather: Callable[[Tensor], Any] = lambda tensor: tensor,
    ) -> None:
        self._name_of, self._state, self._gather = name_of, state, gather
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        self._step, self._values = -1, [0.0]
        self._parts: Mapping[str, Tensor] = {}

    def add(
        self, step: int, loss: Tensor, indices: Tensor, parts: Mapping[str, Tensor] | None = None
    ) -> None:
        """Note the mean loss () of one batch of the optimiser step `step` (from 0), and its parts."""
        self._parts = {name: part.detach() for name, part in (parts or {}).items()}
        self._pending.append((step, loss.detach(), indices))
        if loss.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Read what is pending. Raises DivergedError for a loss that is NaN or infinite."""
        if not self._pending:
            return
        losses = torch.stack([loss for _, loss, _ in self._pending])
        by_batch = self._gather(losses).reshape(-1, len(losses)).T.tolist()
        for (step, _, indices), values in zip(self._pending, by_batch, strict=True):
            value = sum(values) / len(values)
            if not math.isfinite(value):
                raise DivergedError(self._complaint(step, value, indices.tolist()))
            if step != self._step:
                self._step, self._values = step, []
            self._values.append(value)
            self._state.loss_total += value * len(indices) * len(values)
            self._state.images += len(indices) * len(values)
        self._pending.clear()

    def step_loss(self) -> float:
        """Return the mean loss over the batches of the last optimiser step."""
        self.settle()
        return sum(self._values) / len(self._values)

    def of(self, parts: Sequence[str]) -> dict[str, float]:
        """Return these parts of the last batch's loss."""
        return {name: float(self._parts.get(name, math.nan)) for name in parts}

    def mean(self) -> float:
        """Return the mean loss over the images of the epoch so far."""
        return self._state.loss_total / max(1, self._state.images)

    def text(self) -> str:
        """Return the mean loss as far as it is read, for a bar."""
        return f"loss {self.mean():.4f}" if self._state.images else ""

    def _complaint(self, step: int, value: float, indices: Sequence[int]) -> str:
        names = ", ".join(self._name_of(index) for index in indices[:NAMED_IMAGES])
        more = f" and {len(indices) - NAMED_IMAGES} more" if len(indices) > NAMED_IMAGES else ""
        return (
            f"step {step + 1}: the loss is {value} on the batch of {names}{more}; "
            f"expected a finite number: {ADVICE}"
        )


class Clock:
    """Wall times, kept in the state of a run: of its training, and of steps without validation and saving."""

    def __init__(self, state: RunState) -> None:
        self._state, self._last = state, time.perf_counter()
        self._lap: tuple[int, float] | None = None

    def tick(self) -> None:
        """Add the time since the last tick."""
        now = time.perf_counter()
        self._state.seconds += now - self._last
        self._state.epoch_seconds += now - self._last
        self._last = now

    def lap(self) -> None:
        """Note the mean time of the steps since the last lap, unless there was a pause."""
        now, step = time.perf_counter(), self._state.step
        if self._lap is not None:
            self._state.step_seconds.append((now - self._lap[1]) / (step - self._lap[0]))
            del self._state.step_seconds[:-STEP_TIMES_KEPT]
        self._lap = step, now

    def pause(self) -> None:
        """Leave out what is between the last lap and the next."""
        self._lap = None


class Stepper:
    """The optimiser step of a run with its own data, batch, precision and optimiser, again and again.

    Forward, loss and backward of as many batches as the run accumulates, clipping and update;
    without the loading of images, which other processes may do meanwhile. Nothing is written.

    Args:
        task: of the run.
        splits: its data, where they are open already.

    Raises:
        ValueError: the data cannot be opened, or the network cannot be built.
    """

    def __init__(self, task: AnyTask, splits: Splits | None = None) -> None:
        splits, fabric = splits or task.open(), open_fabric(task.config.train.device)
        torch.manual_seed(task.config.train.seed)
        job = assemble(task, fabric, splits, task.build(splits).train())
        # the same work at each step, however many there are
        self._job = replace(job, schedule=Schedule(peak=0.0, total=1), average=None)
        self._learner = fabric.setup_module(Learner(self._job))
        self._batch = fabric.to_device(next(iter(self._job.train_loader)))

    def __call__(self) -> float:
        """Make a step and return its seconds."""
        job, accumulate = self._job, self._job.config.train.accumulate
        self._wait()
        begin = time.perf_counter()
        for _ in range(accumulate):
            job.fabric.backward(self._learner(self._batch)[0] / accumulate)
        update(job, self._learner, 0)
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        if self._job.fabric.device.type == "cuda":
            torch.cuda.synchronize(self._job.fabric.device)
