"""What would end a run of a study in its first seconds is found before any of them takes its hours.

The data of every arm are opened, and its network is built without memory, on torch's meta device.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from botvision.coco.sides import side_twins
from botvision.config.schema import ConfigError
from botvision.metrics.bootstrap import SIDES
from botvision.studies.plan import Plan, State


def rehearse(plan: Plan, states: Mapping[str, State]) -> None:
    """Opens the data and builds the network of each arm that is still to be trained.

    Args:
        plan: of the study.
        states: by run's name.

    Raises:
        ConfigError: one line with the run that could not be trained, or the arm that has no attention to be
            looked at.
    """
    import torch

    from botvision.inference.attention_maps import find_attention
    from botvision.training.run import task_of

    opened: dict[tuple[Any, ...], Any] = {}
    wanted = None if plan.study.attention is None else plan.study.attention.arm
    for arm in plan.study.arms:
        run = next((run for run in plan.of_arm(arm) if states[run.name] != "finished"), None)
        if run is None:
            continue
        task, data = task_of(run.config), run.config.data
        values = dataclasses.asdict(data)
        values.pop("image_size")  # of the same images
        key = (type(data), *(repr(value) for value in values.values()))
        try:
            if key not in opened:
                opened[key] = task.open()
            with torch.device("meta"):
                network = task.build(opened[key])
        except ValueError as error:
            raise ConfigError(f"{run.name}: {error}") from None
        if SIDES in plan.study.metrics and not side_twins(opened[key].classes):
            line = f"metrics.{SIDES}: no classes of these data are the left and the right of the same thing"
            raise ConfigError(f"{run.name}: {line}")
        if arm == wanted:
            try:
                find_attention(network)
            except ValueError as error:
                raise ConfigError(f"attention.arm: {arm}: {error}") from None
