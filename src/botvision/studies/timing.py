"""Times of a training step, all arms side by side: while runs are trained, others run beside them."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping

from botvision.io.files import write_json
from botvision.studies.plan import Plan

FILE = "step_times.json"  # in the study's folder
ROUNDS = 10


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Milliseconds of an optimiser step, without the loading of images.

    Attributes:
        median: by arm.
        spread: by arm, half the distance between the quartiles.
        rounds: steps of every arm.
        hardware: with its threads.
        commit: of the code, None where it is not known.
        together: whether the arms took turns, a step each; otherwise one came after the other.
    """

    median: Mapping[str, float]
    spread: Mapping[str, float]
    rounds: int
    hardware: str
    commit: str | None
    together: bool = True

    def __str__(self) -> str:
        """A line for the report."""
        spread = max(100 * self.spread[arm] / median for arm, median in self.median.items())
        how = f"one arm after the other, {self.rounds} steps of each"
        if self.together:
            how = f"all arms in turn, {self.rounds} rounds"
        return (
            f"Step times: {how}, loading of data left out, on {self.hardware} "
            f"(commit {self.commit or 'unknown'}); medians, half the distance of the quartiles is at most "
            f"{spread:.0f} %."
        )


def measure_steps(plan: Plan, show: Callable[[int, str], None] | None = None) -> StepTimes:
    """Measure the first run of every arm, in turn, in this process; write step_times.json.

    On a GPU one arm comes after the other, as all of them at once may not fit in its memory.

    Args:
        plan: of the study.
        show: receives the number of arms that are built, and which.

    Raises:
        ValueError: data cannot be opened.
    """
    import torch

    from botvision.training import provenance
    from botvision.training.loop import Stepper, resolve_device
    from botvision.training.run import task_of

    configs = {arm: plan.of_arm(arm)[0].config for arm in plan.study.arms}
    devices = {arm: resolve_device(config.train.device) for arm, config in configs.items()}
    together = all(device.type == "cpu" for device in devices.values())
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.scale.threads)
    ms: dict[str, list[float]] = {arm: [] for arm in configs}
    try:
        for group in [list(configs)] if together else [[arm] for arm in configs]:
            steppers = {}
            for arm in group:
                if show is not None:
                    show(list(configs).index(arm), f"a step of {arm}")
                steppers[arm] = Stepper(task_of(configs[arm]))
                steppers[arm]()  # warms up
            for _ in range(ROUNDS):
                for arm, step in steppers.items():
                    ms[arm].append(1000 * step())
        hardware = provenance.hardware(next(iter(devices.values())))
    finally:
        torch.set_num_threads(threads)
    quartiles = {arm: statistics.quantiles(values, n=4) for arm, values in ms.items()}
    found = StepTimes(
        {arm: round(statistics.median(values), 3) for arm, values in ms.items()},
        {arm: round((high - low) / 2, 3) for arm, (low, _, high) in quartiles.items()},
        ROUNDS,
        hardware,
        provenance.commit(),
        together,
    )
    write_json(plan.folder / FILE, dataclasses.asdict(found))
    return found


def read_steps(plan: Plan) -> StepTimes | None:
    """Return what was measured; None if nothing was, it cannot be read, or an arm of the study is missing.

    Beside times that the others' runs took, in other hours and with loading, those of some would mislead.
    """
    try:
        found = StepTimes(**json.loads((plan.folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if set(plan.study.arms) <= found.median.keys() else None
