"""How long a study will still take, from what its finished runs took and from what its file states."""

import dataclasses
import heapq
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from botvision.studies.plan import Plan, PlannedRun, State


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Minutes.

    Attributes:
        per_run: of a whole run, by arm; None where nothing is known.
        measured: arms whose minutes are those of finished runs.
        left: until the study is done; None where an arm that is to be run has no minutes.
    """

    per_run: dict[str, float | None]
    measured: tuple[str, ...]
    left: float | None

    def __str__(self) -> str:
        """A clause such as "about 2 h 10 min"."""
        return "for a time that nothing is known of" if self.left is None else f"about {duration(self.left)}"


def estimate(plan: Plan, states: Mapping[str, State], slots: int) -> Estimate:
    """Estimates the time left.

    An arm takes what its finished runs took; without any, what the file states, times the ratio of the two in
    the other arms (this machine is not the file's).

    Args:
        plan: of the study.
        states: by run's name.
        slots: runs at a time.
    """
    finished = {
        arm: [
            took
            for run in plan.of_arm(arm)
            if states[run.name] == "finished" and (took := minutes(run.folder))
        ]
        for arm in plan.study.arms
    }
    measured = {arm: statistics.fmean(times) for arm, times in finished.items() if times}
    stated = {arm: plan.scale.minutes_of(arm) for arm in plan.study.arms}
    ratios = [took / said for arm, took in measured.items() if (said := stated[arm])]
    ratio = statistics.fmean(ratios) if ratios else 1.0
    per_run = {
        arm: measured[arm] if arm in measured else None if said is None else said * ratio
        for arm, said in stated.items()
    }
    jobs = [left_of(run, per_run[run.arm]) for run in plan.runs if states[run.name] != "finished"]
    known = [job for job in jobs if job is not None]
    left = makespan(known, slots) if len(known) == len(jobs) else None
    return Estimate(per_run, tuple(measured), left)


def left_of(run: PlannedRun, whole: float | None) -> float | None:
    """Returns the minutes that a run still takes, of so many in all; epochs that are done count."""
    if whole is None:
        return None
    return whole * max(0.0, 1 - epochs_done(run.folder) / run.config.train.epochs)


def epochs_done(folder: Path) -> int:
    """Returns the number of epochs in a run's metrics.csv."""
    try:
        return max(0, (folder / "metrics.csv").read_text(encoding="utf-8").count("\n") - 1)
    except OSError:
        return 0


def summary(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says of itself, nothing where that cannot be read."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def minutes(folder: Path) -> float | None:
    """Returns what the training of a finished run took; None if its summary does not say."""
    seconds = summary(folder).get("train_seconds")
    return seconds / 60 if isinstance(seconds, int | float) and seconds > 0 else None


def makespan(jobs: Iterable[float], slots: int) -> float:
    """Returns when the last job ends if each goes to the slot that is free first, in their order."""
    ends = [0.0] * max(1, slots)
    for job in jobs:
        heapq.heapreplace(ends, ends[0] + job)
    return max(ends)


def duration(minutes: float) -> str:
    """Returns e.g. "40 s", "12 min", "2 h 10 min", "3 days 4 h"."""
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    whole = round(minutes)
    if whole < 60:
        return f"{whole} min"
    if whole < 48 * 60:
        return f"{whole // 60} h {whole % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} days {hours % 24} h"
