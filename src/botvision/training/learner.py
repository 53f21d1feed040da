"""What one step of training does whatever the task: the seed, the loss, the averaged copy, the rate."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from botvision.config.run import AnyRunConfig
from botvision.data.counter_rng import keys
from botvision.training.optim import Schedule, build_optimizer

ADVICE = "lower optim.lr, lengthen optim.warmup_epochs or set optim.clip_norm"
NAMED_IMAGES = 3  # as many of a bad batch are named in the error


class DivergedError(ValueError):
    """The loss or the weights are no longer finite; the message is one line naming the step."""


class LossMeter:
    """Losses of the running epoch, read from a GPU as rarely as possible: every read waits for it.

    Args:
        name_of: index of a training image -> its name, for the error.

    Attributes:
        total: sum of the losses of the epoch's images.
        images: their number.
        parts: what the loss of the last batch is the sum of, by name, on the device.
    """

    def __init__(self, name_of: Callable[[int], str]) -> None:
        self._name_of = name_of
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        self._step, self._values = -1, [0.0]
        self.total, self.images = 0.0, 0
        self.parts: dict[str, Tensor] = {}

    def add(
        self, step: int, loss: Tensor, indices: Tensor, parts: Mapping[str, Tensor] | None = None
    ) -> None:
        """Notes the mean loss () of one batch of the optimiser step `step` (from 0), and its parts."""
        self.parts = {name: part.detach() for name, part in (parts or {}).items()}
        self._pending.append((step, loss.detach(), indices))
        if loss.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Reads what is pending.

        Raises:
            DivergedError: a loss is NaN or infinite.
        """
        values = torch.stack([loss for _, loss, _ in self._pending]).tolist() if self._pending else []
        for (step, loss, indices), value in zip(self._pending, values, strict=True):
            if not torch.isfinite(loss):
                raise DivergedError(self._complaint(step, value, indices.tolist()))
            if step != self._step:
                self._step, self._values = step, []
            self._values.append(value)
            self.total += value * len(indices)
            self.images += len(indices)
        self._pending.clear()

    def step_loss(self) -> float:
        """Returns the mean loss over the batches of the last optimiser step."""
        return sum(self._values) / len(self._values)

    def mean(self) -> float:
        """Returns the mean loss over the images of the epoch so far."""
        return self.total / max(1, self.images)

    def restart(self) -> None:
        """Begins a new epoch."""
        self.total, self.images = 0.0, 0

    def _complaint(self, step: int, value: float, indices: Sequence[int]) -> str:
        names = ", ".join(self._name_of(index) for index in indices[:NAMED_IMAGES])
        more = f" and {len(indices) - NAMED_IMAGES} more" if len(indices) > NAMED_IMAGES else ""
        return (
            f"step {step + 1}: the loss is {value} on the batch of {names}{more}; "
            f"expected a finite number: {ADVICE}"
        )


@dataclass(frozen=True)
class EpochResult:
    """What the validation after an epoch found.

    Attributes:
        score: the number by which epochs are compared, higher is better.
        values: the task's columns of metrics.csv; NaN where there is no such number.
    """

    score: float
    values: dict[str, float]


class Learner(pl.LightningModule):
    """A network, its exponential moving average (weights and batch-norm statistics), and how it learns.

    Everything random in a step (dropout, drop path, sampling of proposals) is drawn from a seed that is a
    function of (seed, epoch, batch), so that a step is the same whatever happened before it in this process.

    Args:
        model: the network.
        config: of the run.
        schedule: learning rate as a function of the optimiser step.
        name_of: index of a training image -> its name, for errors.
    """

    def __init__(
        self, model: nn.Module, config: AnyRunConfig, schedule: Schedule, name_of: Callable[[int], str]
    ) -> None:
        super().__init__()
        self.config, self.schedule = config, schedule
        self.model = model
        if config.train.channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
        decay = config.train.ema_decay
        self.ema = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True) if decay else None
        self.meter = LossMeter(name_of)

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # noqa: ANN401
        """Returns the mean loss () of a batch, the indices (B,) of its images, and the parts of the loss."""

    @abstractmethod
    def result(self) -> EpochResult | None:
        """Returns what the last validation found, None if there was none in this epoch."""

    @property
    def evaluated(self) -> nn.Module:
        """The network whose predictions count: the averaged copy where there is one."""
        return self.model if self.ema is None else self.ema.module

    def learning_rate(self) -> float:
        """Returns the learning rate of the next optimiser step."""
        return self.schedule(self.trainer.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimiser; there is no scheduler, see `on_before_optimizer_step`."""
        return build_optimizer(self.model, self.config.optim)

    def on_fit_start(self) -> None:
        """Keeps the average's counter off the GPU, where asking for it would wait for the step."""
        if self.ema is not None:
            self.ema.n_averaged = self.ema.n_averaged.cpu()

    def on_train_epoch_start(self) -> None:
        """Decides whether this epoch ends with a validation; the last one does."""
        epoch, train = self.current_epoch + 1, self.config.train
        due = epoch % train.eval_every == 0 or epoch >= train.epochs
        self.trainer.check_val_every_n_epoch = 1 if due else epoch + 1

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seeds the step."""
        seed = int(keys(self.config.train.seed, self.current_epoch, batch_idx)[0])
        torch.manual_seed(seed)

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Returns the mean loss (), scaled for what Lightning does with it.

        Lightning divides the loss of every batch by `accumulate`; the last group of an epoch may have fewer.
        """
        loss, indices, parts = self.loss(batch)
        self.meter.add(self.trainer.global_step, loss, indices, parts)
        accumulate, batches = self.config.train.accumulate, int(self.trainer.num_training_batches)
        left = batches % accumulate
        return loss * (accumulate / left) if left and batch_idx >= batches - left else loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Sets the learning rate of this very step."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Steps, then moves the average."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def check_finite(self, step: int) -> None:
        """Raises DivergedError for NaN or infinite weights, before they replace a good checkpoint."""
        bad = [
            name for name, value in self.model.named_parameters() if not bool(value.detach().isfinite().all())
        ]
        if bad:
            raise DivergedError(
                f"step {step}: {bad[0]} is no longer finite: lower optim.lr or set optim.clip_norm"
            )

    @torch.no_grad()
    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        """Moves the average towards the current values; faster at first, when they are almost random."""
        steps = int(self.ema.n_averaged) if self.ema is not None else 0
        decay = min(self.config.train.ema_decay, (1 + steps) / (10 + steps))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(list(averaged), list(current), 1 - decay)
        else:  # counters: the average of a count means nothing
            torch._foreach_copy_(list(averaged), list(current))
