"""What the finished runs of a study found: scores, curves, costs, and what a reader must know beside them.

Scores are fractions 0..1 throughout; percent is the business of whoever prints them.
"""

import csv
import datetime
import hashlib
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from botvision.config.recipes import config_to_dict, load_config, value_at
from botvision.io.read import read_object
from botvision.metrics.attention_use import AttentionUse
from botvision.metrics.runs import MAY_LACK, Run, different_versions, read_run
from botvision.studies.plan import INCIDENTAL, Plan, PlannedRun, as_text, shown
from botvision.studies.schedule import taken_from
from botvision.studies.spec import Axis, Claim, Metric, Place, Term
from botvision.studies.timing import StepTimes, read_steps

# What tables say of all arms at once, where it is the same for all: name to be read, dotted key.
COMMON = {
    "epochs": "train.epochs",
    "image size": "data.image_size",
    "batch": "train.batch_size",
    "precision": "train.precision",
    "weights measured": "train.keep",
}
# Keys that say where things lie, which is no deviation from the study's file.
PATHS = {"data.train_annotations", "data.train_images", "data.val_annotations", "data.val_images"}
PACKAGES = ("python", "torch", "torchvision", "timm", "lightning")


@dataclass(frozen=True)
class Evaluation:
    """A finished run measured elsewhere on an axis; accuracy by distance is many of these.

    Attributes:
        at: position on the axis.
        scores: by metric name.
        images: evaluated; None if it is not known.
        label: in tables, e.g. "160x160"; empty for `at` as a number.
        table: its `eval*.json`; what was kept of single images lies beside it, for intervals over images.
        group: of the images there only those of this interval of a quantity; None for all.
    """

    axis: str
    at: float
    scores: Mapping[str, float]
    images: int | None = None
    label: str = ""
    table: Path | None = None
    group: int | None = None


@dataclass(frozen=True)
class RunCost:
    """What a run costs; None where it was not measured.

    Attributes:
        params: trainable and frozen weights, without buffers.
        macs: multiply-adds of one image; of a detector those of backbone and neck.
        step_ms: milliseconds of an optimiser step while it was trained.
        peak_mb: MB (1e6 bytes) at most, of the process that finished it: on a GPU what torch allocated, on a
            CPU all that was resident.
        train_seconds: of the whole training.
    """

    params: int
    macs: int
    step_ms: float | None = None
    peak_mb: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True)
class SeedRun:
    """One finished run of an arm.

    Attributes:
        folder: with what an evaluation keeps of single images, if it kept it, for intervals over images.
        scores: by metric name.
        curve: rows of metrics.csv, not-a-number for what was not measured.
        images: that it was evaluated on; None if it is not known.
    """

    seed: int
    folder: Path
    scores: Mapping[str, float]
    cost: RunCost
    curve: tuple[Mapping[str, float], ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    images: int | None = None
    hardware: str = ""

    def evaluation(self, place: Place) -> Evaluation | None:
        """Return its evaluation at a place; None if there is none."""
        return next((entry for entry in self.evaluations if (entry.axis, entry.at) == place), None)

    def score(self, metric: str, place: Place | None = None) -> float | None:
        """Return its own score, or that of its evaluation at a place; None if it has none."""
        found = self if place is None else self.evaluation(place)
        return None if found is None else found.scores.get(metric)


@dataclass(frozen=True)
class Arm:
    """Runs that differ in the seed alone.

    Attributes:
        name: part of the folders' names.
        label: in tables and legends.
        runs: finished ones, one a seed.
        baseline: name of the arm that it is compared with; None for a baseline.
        settings: in which the arms differ, e.g. {"model.name": "botnet14_nano"}.
        published: what the source reports, by metric name, as fractions; empty if it reports nothing.
        source: where the published values stand.
        trained_at: by axis name, where on the axis it was trained.
        step_ms: milliseconds of an optimiser step, measured side by side with the other arms.
    """

    name: str
    label: str
    runs: tuple[SeedRun, ...]
    baseline: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    trained_at: Mapping[str, float] = field(default_factory=dict)
    step_ms: float | None = None


@dataclass(frozen=True)
class Picture:
    """A PNG to be shown, with its caption and words for those who cannot see it (the caption if empty)."""

    caption: str
    path: Path
    alt: str = ""


@dataclass(frozen=True)
class Outcome:
    """A study as far as it has been run.

    Attributes:
        arms: in the order of the tables.
        metrics: by name; the first one counts most.
        common: what all arms share, by a name to be read.
        environment: hardware, versions, commit, date, by a name to be read.
        commands: to run it again, in order.
        warnings: what makes the comparison unfair or incomplete, a line each.
        notes: what a reader should know beside.
        pictures: of attention.
        uses: of attention, by arm and seed; all of one arm.
    """

    name: str
    title: str
    question: str
    scale: str
    arms: tuple[Arm, ...]
    metrics: Mapping[str, Metric]
    axes: Mapping[str, Axis] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    common: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    uses: Mapping[tuple[str, int], AttentionUse] = field(default_factory=dict)

    def arm(self, name: str) -> Arm:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def evaluations(self) -> Iterator[Evaluation]:
        """Yield what any run was measured as, elsewhere."""
        for arm in self.arms:
            for run in arm.runs:
                yield from run.evaluations

    def places(self, axis: str) -> list[Place]:
        """Return where on an axis any run was measured, ascending."""
        return sorted({(axis, entry.at) for entry in self.evaluations() if entry.axis == axis})

    def label_of(self, place: Place) -> str:
        """Return how a place on an axis is called in tables."""
        labels = (entry.label for entry in self.evaluations() if (entry.axis, entry.at) == place)
        return next(filter(None, labels), f"{place[1]:g}")

    def published(self, terms: Sequence[Term], metric: str) -> float | None:
        """Return a difference by what the source prints; None if it prints not all of it."""
        found = [(sign, self.arm(arm).published.get(metric)) for sign, arm, place in terms if place is None]
        if len(found) < len(terms) or any(value is None for _, value in found):
            return None
        return sum(sign * (value or 0.0) for sign, value in found)

    def cost_of(self, arm: Arm) -> RunCost | None:
        """Return what an arm costs; None without a run.

        Steps are those measured side by side if all arms have one, and the median of the runs otherwise: a
        column of both kinds would mislead. Peak memory is the mean of the runs.
        """
        if not arm.runs:
            return None
        costs = [run.cost for run in arm.runs]
        step = arm.step_ms
        if any(each.step_ms is None for each in self.arms):
            steps = [cost.step_ms for cost in costs if cost.step_ms is not None]
            step = statistics.median(steps) if steps else None
        peaks = [cost.peak_mb for cost in costs if cost.peak_mb is not None]
        return RunCost(costs[0].params, costs[0].macs, step, statistics.fmean(peaks) if peaks else None)


def collect(plan: Plan) -> Outcome:
    """Read the finished runs of a study.

    Args:
        plan: of the study; `data.root` may be missing.

    Returns:
        What has been found so far; runs that are not there yet are named in a warning.

    Raises:
        ValueError: no run is finished, one is of another configuration, or its files cannot be read.
    """
    study, states = plan.study, plan.states()
    runs = {run.name: read_run(run.folder) for run in plan.runs if states[run.name] == "finished"}
    if not runs:
        raise ValueError(f"{plan.folder}: no run of the study {study.name} is finished")
    steps = read_steps(plan)
    return Outcome(
        name=study.name,
        title=study.title,
        question=" ".join(study.question.split()),
        scale=plan.scale_name,
        arms=tuple(_arm(plan, arm, runs, steps) for arm in study.arms),
        metrics=study.metrics,
        axes=study.axes,
        claims=tuple(
            replace(claim, metrics=claim.metrics or tuple(study.metrics), source=claim.source or study.source)
            for claim in study.claims
        ),
        common=_common(plan, list(runs.values())),
        environment=_environment(plan, list(runs.values())),
        commands=(_command(plan, runs.values()),),
        warnings=tuple(_warnings(plan, runs)),
        notes=tuple(_notes(plan, list(runs.values()), steps)),
    )


def _arm(plan: Plan, name: str, found: Mapping[str, Run], steps: StepTimes | None) -> Arm:
    study, runs = plan.study, plan.of_arm(name)
    spec, values = study.arms[name], config_to_dict(runs[0].config)
    baseline = spec.baseline or study.baseline
    settings = {key: value_at(values, key) for key in plan.varied()}
    trained = {axis: value_at(values, each.key) for axis, each in study.axes.items() if each.key is not None}
    return Arm(
        name=name,
        label=plan.scale.arms[name].label,
        runs=tuple(_seed_run(plan, run, found[run.name]) for run in runs if run.name in found),
        baseline=None if baseline == name else baseline,
        settings={key: "not set" if value is None else as_text(value) for key, value in settings.items()},
        published={metric: value / 100 for metric, value in spec.published.items()},
        source=(spec.source or study.source) if spec.published else "",
        trained_at={axis: at for axis, at in trained.items() if isinstance(at, int | float)},
        step_ms=None if steps is None else steps.median[name],
    )


def _seed_run(plan: Plan, run: PlannedRun, found: Run) -> SeedRun:
    facts = run.summary()
    scores = _scores({name: facts[name] for name in plan.study.metrics if name in facts}, plan, run.folder)
    peak, seconds = facts.get("peak_memory_mb"), facts.get("train_seconds")
    return SeedRun(
        seed=run.seed,
        folder=run.folder,
        scores=scores,
        cost=RunCost(found.params, found.macs, found.step_ms, peak, seconds),
        curve=tuple(_curve(run.folder / "metrics.csv")),
        evaluations=tuple(_evaluations(plan, run, scores, found.val_images)),
        images=found.val_images,
        hardware=found.hardware,
    )


def _curve(path: Path) -> Iterator[dict[str, float]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if None not in row.values():  # the last one of a run that was killed may be cut off
                yield {key: float(value) for key, value in row.items()}


def _evaluations(
    plan: Plan, run: PlannedRun, scores: Mapping[str, float], images: int | None
) -> Iterator[Evaluation]:
    """Places on the axes: the run's own, those measured afterwards, those that its evaluation tells apart."""
    own = run.folder / "eval.json"
    measured = {(wanted.axis, wanted.at): run.measured(wanted) for wanted in run.measurements}
    for axis, at in ((axis, at) for axis, places in plan.scale.at.items() for at in places):
        path = measured.get((axis, at), own)
        if path == own:
            yield Evaluation(axis, at, scores, images, table=own)
        elif path is not None:
            found = read_object(path)
            there = _scores({name: _found(found, name) for name in plan.study.metrics}, plan, path)
            yield Evaluation(axis, at, there, found.get("count", images), table=path)
    for axis, spec in plan.study.axes.items():
        if spec.table is None:
            continue
        table = read_object(own).get(spec.table)
        if not isinstance(table, dict):
            raise ValueError(f"{own}: there is no {spec.table}, by which the study compares")
        edges = table["edges"]
        rows = zip(edges[:-1], edges[1:], table["count"], table["top1"], strict=True)
        for group, (low, high, count, top1) in enumerate(rows):
            if top1 is not None:
                middle, label = (low + high) / 2, f"{low:g} to {high:g}"
                yield Evaluation(axis, middle, {"top1": top1}, count, label, own, group)


def _found(values: Mapping[str, Any], metric: str) -> object:
    """A score in an eval.json: of a classifier by its name, of a detector box_ap as bbox.ap."""
    kind, _, name = metric.partition("_")
    part = {"box": "bbox", "mask": "segm"}.get(kind)
    return values.get(metric) if part is None else values.get(part, {}).get(name)


def _scores(values: Mapping[str, object], plan: Plan, path: Path) -> dict[str, float]:
    """All metrics of the study, but for those that are known not to be there."""
    scores = {}
    for name in plan.study.metrics:
        value = values.get(name)
        if name in MAY_LACK and name in values and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{path}: {name} is {value!r}, expected a number")
        scores[name] = float(value)
    return scores


def _common(plan: Plan, runs: Sequence[Run]) -> dict[str, str]:
    images = {f"{run.train_images} to train on, {run.val_images} to measure on" for run in runs}
    found = {
        "data": _listed(run.data for run in runs),
        "images": _listed(images),
        "seeds": ", ".join(str(seed) for seed in plan.scale.seeds),
    }
    for name, key in COMMON.items():
        values = {as_text(value_at(config_to_dict(run.config), key)) for run in plan.runs}
        if len(values) == 1:
            found[name] = values.pop()
    weights = {run.config.model.weights for run in plan.runs}
    path = Path(weights.pop() or "").expanduser()
    if not weights and path.is_file():
        with path.open("rb") as file:
            found["weights"] = f"{path.name} ({hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"
    return found


def _environment(plan: Plan, runs: Sequence[Run]) -> dict[str, str]:
    newest = max((Path(run.folder) / "summary.json").stat().st_mtime for run in runs)
    seconds = sum(run.summary().get("train_seconds") or 0 for run in plan.runs)
    packages = {
        package: _listed(run.versions[package] for run in runs if package in run.versions)
        for package in PACKAGES
    }
    return {
        "hardware": _listed(run.hardware for run in runs if run.hardware),
        "botvision": _listed(str(run.versions.get("botvision", "unknown")) for run in runs),
        "commit": _listed(run.commit or "unknown" for run in runs),
        **{package: version for package, version in packages.items() if version},
        "hours of training, summed": f"{seconds / 3600:.1f}",
        "date": datetime.datetime.fromtimestamp(newest, datetime.UTC).date().isoformat(),
    }


def _command(plan: Plan, runs: Iterable[Run]) -> str:
    """What makes it all again; of paths only the last part, the rest is this machine's."""
    roots = (load_config(Path(run.folder) / "config.yaml").data.root for run in runs)
    root = next(filter(None, roots), None)
    keys = {"data.root": root} if root else {}
    keys |= {key: value for key, value in plan.overrides.items() if key != "data.root"}
    words = [
        word
        for key, value in keys.items()
        for word in (f"--{key}", Path(value).name if key == "data.root" or _lies(key, value) else value)
    ]
    return shown(["study", plan.study.called, "--scale", plan.scale_name, *words])


def _lies(key: str, value: str) -> bool:
    """Whether a key says where something lies."""
    path = value.endswith(".safetensors") or "/" in value or Path(value).exists()  # else a name of timm
    return key in PATHS or (key == "model.weights" and path)


def _warnings(plan: Plan, found: Mapping[str, Run]) -> Iterator[str]:
    missing = [run.name for run in plan.runs if run.name not in found]
    if missing:
        yield f"{len(missing)} of {len(plan.runs)} runs are missing: {', '.join(missing)}"
    measured = [
        f"{run.name} at {wanted.axis} {wanted.at:g}"
        for run in plan.runs
        if run.name in found
        for wanted in run.unmeasured()
    ]
    if measured:
        verb = "measurement is" if len(measured) == 1 else "measurements are"
        yield f"{len(measured)} {verb} missing: {', '.join(measured)}"
    runs = found.values()
    for what, values in (
        ("data", {run.data for run in runs}),
        ("commit of botvision", {str(run.commit) for run in runs}),
        ("number of images", {str((run.train_images, run.val_images)) for run in runs}),
    ):
        if len(values) > 1:
            yield f"the runs differ in {what}: {_listed(values)}"
    for key, value in plan.overrides.items():
        if key not in INCIDENTAL and not _lies(key, value):
            yield f"not the study as its file states it: {key} {value}"
    hardware = {run.hardware for run in runs if run.hardware}
    if len(_processors(runs)) > 1:
        yield f"the runs come from different hardware: {_listed(hardware)}"


def _processors(runs: Iterable[Run]) -> set[str]:
    """Hardware without its threads: their number changes digits, not what is measured."""
    return {re.sub(r", \d+ threads?$", "", run.hardware) for run in runs if run.hardware}


def _notes(plan: Plan, runs: Sequence[Run], steps: StepTimes | None) -> Iterator[str]:
    if plan.scale.note:
        yield " ".join(plan.scale.note.split())
    hardware = {run.hardware for run in runs if run.hardware}
    if len(hardware) > 1 and len(_processors(runs)) == 1:
        yield f"The runs had {_listed(hardware)}: the same seed gives slightly other digits there."
    yield from different_versions(runs)
    copies = [f"{run.name} ({whose})" for run in plan.runs if (whose := taken_from(run.folder))]
    if copies:
        yield f"Trained for another study, with the same configuration and data: {', '.join(copies)}."
    if steps is not None:
        yield str(steps)
    else:
        yield (
            "Step times are medians of the runs, loading of data included; what else ran on the machine "
            "meanwhile slowed them."
        )


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
