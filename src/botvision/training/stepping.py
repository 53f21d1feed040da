"""A run's training step on one batch, again and again: what its time is measured by."""

import time
from typing import Any

import torch

from botvision.config.run import AnyRunConfig
from botvision.training.optim import build_optimizer, build_schedule
from botvision.training.task import resolve_device, task_of


class Stepper:
    """The optimiser step of a run with its own data, batch, precision and optimiser; nothing is written.

    Forward, loss and backward of as many batches as the run accumulates, clipping and update; without the
    loading of images, which other processes may do meanwhile.

    Args:
        config: of the run.

    Raises:
        ValueError: the data cannot be opened, or the network cannot be built.
    """

    def __init__(self, config: AnyRunConfig) -> None:
        self._config, self._device = config, resolve_device(config.train.device)
        task = task_of(config)
        splits = task.open()
        torch.manual_seed(config.train.seed)
        schedule = build_schedule(config.optim, config.train.batch_size, 1, total=1)
        self._learner = task.learner(task.build(splits), schedule, splits).to(self._device).train()
        self._optimizer = build_optimizer(self._learner.model, config.optim)
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0  # the same work at each step, however many there are
        self._batch = _moved(next(iter(task.loader(splits.train, train=True))), self._device)

    def __call__(self) -> float:
        """Makes a step and returns its seconds."""
        self._wait()
        begin = time.perf_counter()
        train = self._config.train
        for _ in range(train.accumulate):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=train.precision == "bf16-mixed"):
                loss = self._learner.loss(self._batch)[0]
            (loss / train.accumulate).backward()
        if self._config.optim.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._learner.model.parameters(), self._config.optim.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _moved(batch: Any, device: torch.device) -> Any:  # noqa: ANN401  batches of both tasks
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(value, device) for value in batch)
    return batch
