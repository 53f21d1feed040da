"""Finished runs to one table: mean and spread over seeds, and the difference to the first model.

Runs that differ in nothing but the seed form one group, one row of the table. What is compared are the
scores of the runs' task, as fractions: top-1 of classifiers, AP of detectors.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from botvision.metrics.runs import SCORES, Run, different_versions
from botvision.metrics.seeds import Difference, Spread, paired, spread

# Settings whose difference is no line of its own: said in other words, or the very thing that is compared.
SAID_OTHERWISE = frozenset(
    {"recipe", "task", "train.epochs", "train.precision", "train.keep", "data.image_size", "model.name"}
)
DIFFERENCES_TOLD = 8  # settings that are named one by one


@dataclass(frozen=True)
class Score(Spread):
    """One score over the runs of a group; its difference to the first group, None where there is none."""

    difference: Difference | None


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone.

    Attributes:
        scores: by name, those that all of its runs have.
        step_ms: mean over the runs that measured it.
    """

    label: str
    runs: tuple[Run, ...]
    scores: dict[str, Score]
    step_ms: float | None

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def seeds(self) -> list[int]:
        """Seeds in ascending order."""
        return sorted(run.seed for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Groups in the order in which the runs were named.

    Attributes:
        task: of all runs.
        warnings: what makes their comparison unfair, one line each.
        notes: what differs and should not matter, one line each.
    """

    task: str
    groups: tuple[Group, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dump`; scores as fractions."""
        return {
            "task": self.task,
            "spread": "sample standard deviation over seeds",
            "groups": [_group_to_json(group) for group in self.groups],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


def compare(runs: Iterable[Run]) -> Comparison:
    """Group runs that differ in the seed alone, and set every group against the first.

    Args:
        runs: at least one; the group of the first one is the baseline. A group on other data than the first
            has no difference to it.

    Raises:
        ValueError: no run at all, the same folder twice, or runs of several tasks.
    """
    runs = tuple(runs)
    if not runs:
        raise ValueError("nothing to compare: name at least one run folder")
    folders = [str(Path(run.folder).resolve()) for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"{folder}: named twice; each run counts once")
    other = next((run for run in runs if run.task != runs[0].task), None)
    if other is not None:
        raise ValueError(
            f"runs of different tasks: {runs[0].folder} is {runs[0].task}, {other.folder} is {other.task}"
        )
    members: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        settings = tuple(sorted(run.settings.items()))
        all_but_seed = run.model, run.data, run.epochs, run.image_size, run.precision, settings
        members.setdefault(all_but_seed, []).append(run)
    first, *others = members.values()
    firsts = [group[0] for group in members.values()]
    labels = _labels(firsts)
    groups = [_group(labels[0], first, None)]
    for label, group in zip(labels[1:], others, strict=True):
        groups.append(_group(label, group, first if group[0].data == runs[0].data else None))
    warnings = (*_warnings(runs, groups), *_different_settings(firsts))
    return Comparison(runs[0].task, tuple(groups), warnings, tuple(_notes(runs)))


def _labels(firsts: Sequence[Run]) -> list[str]:
    """Name each group after its model; where several share a model, add the settings in which they differ."""
    labels = []
    for run in firsts:
        others = [other.settings for other in firsts if other.model == run.model]
        keys = sorted({key for settings in others for key in settings})
        differing = [key for key in keys if len({settings.get(key) for settings in others}) > 1]
        note = ", ".join(f"{key} {run.settings.get(key, 'unset')}" for key in differing)
        labels.append(f"{run.model} ({note})" if note else run.model)
    return labels


def _group(label: str, runs: Sequence[Run], baseline: Sequence[Run] | None) -> Group:
    names = [name for name in SCORES[runs[0].task] if all(name in run.scores for run in runs)]
    steps = [run.step_ms for run in runs if run.step_ms is not None]
    return Group(
        label=label,
        runs=tuple(runs),
        scores={name: _score(name, runs, baseline) for name in names},
        step_ms=statistics.fmean(steps) if steps else None,
    )


def _score(name: str, runs: Sequence[Run], baseline: Sequence[Run] | None) -> Score:
    """A score and its difference, by seed where possible: what a seed does to both cancels out."""
    found = spread([run.scores[name] for run in runs])
    assert found is not None  # a group has a run
    if baseline is None or not all(name in run.scores for run in baseline):
        return Score(**vars(found), difference=None)
    theirs = statistics.fmean(run.scores[name] for run in baseline)
    unpaired = Difference(found.mean - theirs, {}, None, None)
    return Score(**vars(found), difference=paired(_by_seed(name, runs), _by_seed(name, baseline)) or unpaired)


def _by_seed(name: str, runs: Sequence[Run]) -> dict[int, float]:
    """Mean score of each seed (one run a seed is the rule; a repeated seed gives a warning)."""
    seeds = {run.seed for run in runs}
    return {seed: statistics.fmean(run.scores[name] for run in runs if run.seed == seed) for seed in seeds}


def _warnings(runs: Sequence[Run], groups: Sequence[Group]) -> Iterable[str]:
    """Say what, besides the model and the seed, differs between the runs."""
    for key, what in (
        ("data", "data"),
        ("epochs", "number of epochs"),
        ("precision", "precision"),
        ("size", "image size"),
        ("kept", "weights evaluated"),
        ("train_images", "number of training images"),
        ("val_images", "number of validation images"),
    ):
        values = {getattr(run, key) for run in runs}
        if len(values) > 1:
            yield f"the runs differ in {what}: {_listed(values)}"
    hardware = sorted({run.hardware for run in runs if run.step_ms is not None})
    if len(hardware) > 1:
        yield f"step times come from different hardware: {', '.join(name or 'unknown' for name in hardware)}"
    for group in groups:
        repeated = sorted({seed for seed in group.seeds if group.seeds.count(seed) > 1})
        if repeated:
            yield f"{group.label}: more than one run with seed {', '.join(map(str, repeated))}"
        if len({(run.params, run.macs) for run in group.runs}) > 1:
            yield f"{group.label}: its runs differ in parameters or multiply-adds"
    if len({tuple(group.seeds) for group in groups}) > 1:
        yield "the groups do not have the same seeds"


def _different_settings(firsts: Sequence[Run]) -> Iterable[str]:
    """Say which settings, other than the model's own, differ: the difference in accuracy may be theirs."""
    known = [run.settings for run in firsts if run.configured]
    differing: dict[str, set[str]] = {}
    for key in sorted({key for settings in known for key in settings}):
        values = {settings.get(key, "unset") for settings in known}
        if len(values) > 1 and key not in SAID_OTHERWISE and not key.startswith("model.args."):
            differing[key] = values
    for key in list(differing)[:DIFFERENCES_TOLD]:
        yield f"the models were trained with different {key}: {_listed(differing[key])}"
    if len(differing) > DIFFERENCES_TOLD:
        yield f"and with {len(differing) - DIFFERENCES_TOLD} more settings that differ"


def _notes(runs: Sequence[Run]) -> Iterable[str]:
    commits = {run.commit for run in runs}
    if len(commits) > 1:
        yield f"the runs come from different commits: {_listed(commits)}"
    yield from different_versions(runs)


def _listed(values: Iterable[object]) -> str:
    """Numbers by size, then words, then what is not known."""
    ranked = sorted(values, key=lambda v: (v is None, isinstance(v, str), v if v is not None else 0))
    return ", ".join("unknown" if value is None else str(value) for value in ranked)


def _group_to_json(group: Group) -> dict[str, Any]:
    run = group.runs[0]
    return {
        "label": group.label,
        "model": run.model,
        "data": run.data,
        "params": run.params,
        "macs": run.macs,
        "image_size": list(run.image_size),
        "epochs": run.epochs,
        "precision": run.precision,
        "hardware": sorted({member.hardware for member in group.runs}),
        "runs": [{"folder": m.folder, "seed": m.seed, **m.scores, "step_ms": m.step_ms} for m in group.runs],
        "n": group.n,
        **{name: asdict(score) for name, score in group.scores.items()},
        "step_ms": group.step_ms,
        "settings": run.settings,
    }
