"""Finished runs to one table: mean and spread over seeds, and the difference to the first model.

Runs that differ in nothing but the seed form one group, one row of the table. What is compared are the
scores of the runs' task, as fractions: top-1 of classifiers, AP of detectors.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from botvision.metrics.runs import SCORES, Run
from botvision.metrics.seeds import Difference, Spread, paired, spread

# Settings whose difference is no line of its own: said in other words, or the very thing that is compared.
SAID_OTHERWISE = frozenset(
    {"recipe", "task", "train.epochs", "train.precision", "train.keep", "data.image_size", "model.name"}
)


DIFFERENCES_TOLD = 8  # settings that are named one by one


@dataclass(frozen=True)
class Score(Spread):
    """One score over the runs of a group.

    Attributes:
        difference: Against the first group; None in the first group itself, and where that lacks the score.
    """

    difference: Difference | None


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone.

    Attributes:
        scores: By name, those that all of its runs have.
        step_ms: Mean over the runs that measured it.
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
        task: Of all runs.
        warnings: What makes their comparison unfair, one line each.
        notes: What differs and should not matter, one line each.
    """

    task: str
    groups: tuple[Group, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``json.dump``; scores as fractions."""
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
        runs: At least one run; the group of the first one is the baseline.

    Returns:
        The comparison; a group on other data than the first has no difference to it.

    Raises:
        ValueError: No run at all, the same folder twice, or runs of several tasks.
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
        members.setdefault(_identity(run), []).append(run)
    groups = list(members.values())
    labels = _labels([group[0] for group in groups])
    return Comparison(
        runs[0].task,
        tuple(
            _group(label, group, None if i == 0 or group[0].data != runs[0].data else groups[0])
            for i, (label, group) in enumerate(zip(labels, groups, strict=True))
        ),
        (*_warnings(runs, groups, labels), *_different_settings([group[0] for group in groups])),
        tuple(_notes(runs)),
    )


def _identity(run: Run) -> tuple[object, ...]:
    """Two runs with equal identity differ in the seed alone."""
    return run.model, run.data, run.epochs, run.image_size, run.precision, tuple(sorted(run.settings.items()))


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
    found = spread([run.scores[name] for run in runs])
    assert found is not None  # a group has a run
    comparable = baseline is not None and all(name in run.scores for run in baseline)
    difference = _difference(name, runs, baseline) if baseline is not None and comparable else None
    return Score(**vars(found), difference=difference)


def _difference(name: str, runs: Sequence[Run], baseline: Sequence[Run]) -> Difference:
    """A score minus that of ``baseline``, by seed where possible: what a seed does to both cancels out."""
    found = paired(_by_seed(name, runs), _by_seed(name, baseline))
    if found is not None:
        return found
    means = [statistics.fmean(run.scores[name] for run in group) for group in (runs, baseline)]
    return Difference(means[0] - means[1], {}, None, None)


def _by_seed(name: str, runs: Sequence[Run]) -> dict[int, float]:
    """Mean score of each seed (one run a seed is the rule; a repeated seed gives a warning)."""
    seeds = {run.seed for run in runs}
    return {seed: statistics.fmean(run.scores[name] for run in runs if run.seed == seed) for seed in seeds}


def _warnings(runs: Sequence[Run], groups: Sequence[Sequence[Run]], labels: Sequence[str]) -> Iterable[str]:
    """Say what, besides the model and the seed, differs between the runs."""
    for what, values in (
        ("data", {run.data for run in runs}),
        ("number of epochs", {run.epochs for run in runs}),
        ("precision", {run.precision for run in runs}),
        ("image size", {run.size for run in runs}),
        ("weights evaluated", {run.kept for run in runs}),
        ("number of training images", {run.train_images for run in runs}),
        ("number of validation images", {run.val_images for run in runs}),
    ):
        if len(values) > 1:
            yield f"the runs differ in {what}: {_listed(values)}"
    hardware = sorted({run.hardware for run in runs if run.step_ms is not None})
    if len(hardware) > 1:
        yield f"step times come from different hardware: {', '.join(name or 'unknown' for name in hardware)}"
    for label, group in zip(labels, groups, strict=True):
        seeds = [run.seed for run in group]
        repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if repeated:
            yield f"{label}: more than one run with seed {', '.join(map(str, repeated))}"
        sizes = {(run.params, run.macs) for run in group}
        if len(sizes) > 1:
            yield f"{label}: its runs differ in parameters or multiply-adds"
    if len({tuple(sorted(run.seed for run in group)) for group in groups}) > 1:
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
    for package in sorted({package for run in runs for package in run.versions}):
        versions = {run.versions.get(package) for run in runs}
        if len(versions) > 1:
            yield f"the runs come from different versions of {package}: {_listed(versions)}"


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
