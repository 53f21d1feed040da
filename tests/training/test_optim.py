"""Optimisers, their parameter groups, and the learning rate as a function of the step."""

import math
from typing import Literal

import pytest
import torch
from torch import nn

from botvision.backbones.models import create_model
from botvision.config.run import OptimConfig
from botvision.training.optim import Schedule, build_optimizer, build_schedule, parameter_groups


def test_warm_up_then_cosine_to_the_floor():
    schedule = Schedule(peak=1.0, total=110, warmup=10, floor=0.1)
    assert schedule(0) == pytest.approx(0.1)  # the first of ten equal steps up
    assert schedule(9) == pytest.approx(1.0)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.55)  # half way down
    assert schedule(35) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule(110) == schedule(500) == pytest.approx(0.1)


def test_the_rate_depends_on_the_step_alone():
    schedule = Schedule(peak=0.3, total=50, warmup=5)
    forwards = [schedule(step) for step in range(50)]
    assert [schedule(step) for step in reversed(range(50))] == forwards[::-1]


def test_constant_schedule_stays_at_the_peak():
    assert {Schedule(0.2, 10, 2, shape="constant")(step) for step in range(2, 12)} == {0.2}


@pytest.mark.parametrize(("lr_batch", "peak"), [(None, 0.1), (256, 0.4), (4096, 0.025)])
def test_linear_scaling_by_batch(lr_batch: int | None, peak: float):
    config = OptimConfig(lr=0.1, lr_batch=lr_batch, warmup_epochs=2.5)
    schedule = build_schedule(config, images_per_step=1024, steps_per_epoch=10, total=100)
    assert schedule.peak == pytest.approx(peak)
    assert (schedule.warmup, schedule.total) == (25, 100)


def test_a_warm_up_longer_than_the_run_is_cut():
    assert build_schedule(OptimConfig(warmup_epochs=5), 8, 10, total=3).warmup == 3


@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_norms_biases_and_position_tables_do_not_decay(position: str):
    model = create_model("botnet14_tiny", num_classes=3, position=position)
    decay, free = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying = {names[id(parameter)] for parameter in decay["params"]}
    left = {names[id(parameter)] for parameter in free["params"]}
    assert (decay["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert decaying | left == set(names.values())
    assert not decaying & left
    assert {"fc.weight", "layer1.0.conv1.weight", "layer4.0.conv2.attention.qkv.weight"} <= decaying
    tables = {name for name in names.values() if ".position." in name}
    assert len(tables) == 2
    assert tables | {"fc.bias", "bn1.weight", "bn1.bias"} <= left


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = parameter_groups(model, 0.1)
    assert sum(len(group["params"]) for group in groups) == 2


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_every_optimiser_lowers_the_loss(name: Literal["sgd", "adamw", "lamb"]):
    torch.manual_seed(0)
    model, images = nn.Linear(4, 2), torch.randn(64, 4)
    targets = (images[:, 0] > 0).long()
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.05, weight_decay=0.0))
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
