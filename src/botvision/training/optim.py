"""Optimisers, the learning rate as a function of the step, and the averaged copy of the weights.

The rate is recomputed from the step's number before every step instead of being carried along by a
scheduler: a resumed run cannot drift, and a run that is extended follows the curve of its new length from
there on. So is the decay of the average.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import Lamb
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from botvision.config.run import OptimConfig

# Learned rows that say where a cell is, not what is in it; pulling them to zero would pull to
# "everywhere alike".
POSITION_TABLES = ("position.height", "position.width", "rel_pos", "pos_embed")


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then cosine to `floor` (or constant), over a fixed number of optimiser steps.

    Attributes:
        peak: learning rate at the end of the warm-up.
        total: optimiser steps of the whole run.
        warmup: steps of the warm-up; the first step has peak / warmup.
        floor: learning rate towards which the cosine falls; it is met at step `total`, one after the last.
        shape: "cosine", "steps" (a tenth from each milestone on) or "constant".
        milestones: steps: parts of `total`, ascending.
    """

    peak: float
    total: int
    warmup: int = 0
    floor: float = 0.0
    shape: str = "cosine"
    milestones: tuple[float, ...] = ()

    def __call__(self, step: int) -> float:
        """Return the learning rate of an optimiser step, 0 for the first."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.shape == "constant":
            return self.peak
        if self.shape == "steps":
            return self.peak * 0.1 ** sum(step >= round(part * self.total) for part in self.milestones)
        progress = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return self.floor + (self.peak - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def build_schedule(config: OptimConfig, images_per_step: int, steps_per_epoch: int, total: int) -> Schedule:
    """Return the schedule of a run.

    Args:
        config: peak rate, warm-up, shape.
        images_per_step: batch size times accumulation, for the linear scaling by `lr_batch`.
        steps_per_epoch: optimiser steps an epoch.
        total: optimiser steps of the run.
    """
    peak = config.lr * images_per_step / config.lr_batch if config.lr_batch else config.lr
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total)
    return Schedule(peak, total, warmup, config.min_lr, config.schedule, config.milestones)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters in those that decay and those that do not.

    Weight decay is for matrices and convolutions; norms and biases (one dimension) and position tables have
    none.
    """
    decay, free = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_table = any(table in name for table in POSITION_TABLES)
            (free if parameter.ndim <= 1 or is_table else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return SGD, AdamW or LAMB over the model's parameter groups (`parameter_groups`)."""
    groups = parameter_groups(model, config.weight_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    if config.name == "adamw":
        on_gpu = all(parameter.is_cuda for parameter in model.parameters())
        return torch.optim.AdamW(
            groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=on_gpu or None
        )
    return Lamb(groups, lr=config.lr, betas=config.betas, eps=config.eps)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move averaged weights and buffers towards the current ones, after the optimiser step `step` (from 0).

    The average moves faster at first, when the weights are almost random: by (1 + step) / (10 + step) where
    that is less than `decay`; the first step is copied. Counters are copied: their average means nothing.
    """
    kept = min(decay, (1 + step) / (10 + step)) if step else 0.0
    pairs = zip(
        itertools.chain(average.parameters(), average.buffers()),
        itertools.chain(model.parameters(), model.buffers()),
        strict=True,
    )
    moving: tuple[list[Tensor], list[Tensor]] = [], []
    for mine, new in pairs:
        if mine.is_floating_point():
            moving[0].append(mine)
            moving[1].append(new)
        else:
            mine.copy_(new)
    get_ema_multi_avg_fn(kept)(*moving, step)
