"""Run folders of a study to its outcome: scores, curves, costs, and what a reader must know beside them."""

import csv
import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from botvision.config.recipes import config_to_dict, load_config, value_at
from botvision.metrics.runs import MAY_LACK, Run, read_run
from botvision.studies import outcome as result
from botvision.studies.plan import INCIDENTAL, Plan, PlannedRun, as_text, shown
from botvision.studies.reuse import taken_from
from botvision.studies.spec import ClaimSpec
from botvision.studies.timing import StepTimes, read_steps

# What tables say of all arms at once, where it is the same for all: name to be read, dotted key.
COMMON = {
    "epochs": "train.epochs",
    "image size": "data.image_size",
    "batch": "train.batch_size",
    "precision": "train.precision",
    "weights measured": "train.keep",
}


def collect(plan: Plan) -> result.StudyOutcome:
    """Reads the finished runs of a study.

    Args:
        plan: of the study; `data.root` may be missing.

    Returns:
        What has been found so far; runs that are not there yet are named in a warning.

    Raises:
        ValueError: no run is finished, one is of another configuration, or its files cannot be read.
    """
    states = plan.states()
    finished = {run.name: read_run(run.folder) for run in plan.runs if states[run.name] == "finished"}
    if not finished:
        raise ValueError(f"{plan.folder}: no run of the study {plan.study.name} is finished")
    facts = {name: _json(Path(run.folder) / "summary.json") for name, run in finished.items()}
    steps = read_steps(plan)
    arms = tuple(_timed(_arm(plan, arm, finished, facts), steps) for arm in plan.study.arms)
    notes = [" ".join(plan.scale.note.split())] if plan.scale.note else []
    root = _root(finished.values())
    return result.StudyOutcome(
        name=plan.study.name,
        title=plan.study.title,
        question=" ".join(plan.study.question.split()),
        scale=plan.scale_name,
        arms=arms,
        metrics=tuple(result.Metric(n, spec.title, spec.chance) for n, spec in plan.study.metrics.items()),
        axes=tuple(result.Axis(name, spec.title) for name, spec in plan.study.axes.items()),
        claims=tuple(_claim(plan, spec, arms) for spec in plan.study.claims),
        common=_common(plan, list(finished.values())),
        environment=_environment(plan, list(finished.values()), facts.values()),
        commands=(_command(plan, root),),
        warnings=tuple(_warnings(plan, finished)),
        notes=(*notes, *_notes(list(finished.values())), *_note_on_copies(plan), _note_on_steps(steps)),
    )


def _arm(
    plan: Plan, name: str, finished: Mapping[str, Run], facts: Mapping[str, dict[str, Any]]
) -> result.Arm:
    study, scaled = plan.study, plan.scale.arms[name]
    spec, runs = study.arms[name], plan.of_arm(name)
    baseline = spec.baseline or study.baseline
    values = config_to_dict(runs[0].config)
    trained = {axis: value_at(values, s.key) for axis, s in study.axes.items() if s.key is not None}
    return result.Arm(
        name=name,
        label=scaled.label,
        runs=tuple(_seed_run(plan, r, finished[r.name], facts[r.name]) for r in runs if r.name in finished),
        baseline=None if baseline == name else baseline,
        settings={key: _setting(value_at(values, key)) for key in plan.varied()},
        published={metric: value / 100 for metric, value in spec.published.items()},
        source=(spec.source or study.source) if spec.published else "",
        trained_at={axis: at for axis, at in trained.items() if isinstance(at, int | float)},
    )


def _setting(value: object) -> str:
    return "not set" if value is None else as_text(value)


def _timed(arm: result.Arm, steps: StepTimes | None) -> result.Arm:
    """The arm with the time of a step that was measured beside the other arms, not while it was trained."""
    return arm if steps is None else replace(arm, step_ms=steps.median[arm.name])


def _note_on_copies(plan: Plan) -> Iterable[str]:
    copies = [f"{run.name} ({whose})" for run in plan.runs if (whose := taken_from(run.folder))]
    if copies:
        yield f"Trained for another study, with the same configuration and data: {', '.join(copies)}."


def _note_on_steps(steps: StepTimes | None) -> str:
    if steps is None:
        return (
            "Step times are medians of the runs, loading of data included; what else ran on the machine "
            "meanwhile slowed them."
        )
    spread = max(100 * steps.spread[arm] / median for arm, median in steps.median.items())
    how = f"all arms in turn, {steps.rounds} rounds"
    if not steps.together:
        how = f"one arm after the other, {steps.rounds} steps of each"
    return (
        f"Step times: {how}, loading of data left out, on {steps.hardware} "
        f"(commit {steps.commit or 'unknown'}); medians, half the distance of the quartiles is at most "
        f"{spread:.0f} %."
    )


def _seed_run(plan: Plan, run: PlannedRun, found: Run, facts: Mapping[str, Any]) -> result.SeedRun:
    scores = _scores({name: facts[name] for name in plan.study.metrics if name in facts}, plan, run.folder)
    return result.SeedRun(
        seed=run.seed,
        folder=run.folder,
        scores=scores,
        cost=result.Cost(
            found.params, found.macs, found.step_ms, facts.get("peak_memory_mb"), facts.get("train_seconds")
        ),
        curve=tuple(_curve(run.folder / "metrics.csv")),
        evaluations=tuple(_evaluations(plan, run, scores, found.val_images)),
        images=found.val_images,
        hardware=found.hardware,
    )


def _evaluations(
    plan: Plan, run: PlannedRun, scores: Mapping[str, float], images: int | None
) -> Iterable[result.Evaluation]:
    """Places on the axes: the run's own, those measured afterwards, those that its evaluation tells apart."""
    measured = {(m.axis, m.at): m for m in run.measurements}
    for axis, places in plan.scale.at.items():
        for at in places:
            wanted = measured.get((axis, at))
            if wanted is None:
                own = _per_image(run.folder / "eval.json")
                yield result.Evaluation(axis, at, scores, images, per_image=own)
                continue
            path = run.measured(wanted)
            if path is not None:
                found = _json(path)
                values = {name: _found(found, name) for name in plan.study.metrics}
                named = _scores(values, plan, path)
                count = found.get("count", images)
                yield result.Evaluation(axis, at, named, count, per_image=_per_image(path))
    for axis, spec in plan.study.axes.items():
        if spec.table is not None:
            yield from _table(axis, spec.table, run.folder / "eval.json")


def _table(axis: str, key: str, path: Path) -> Iterable[result.Evaluation]:
    """Places of an axis that the run's own evaluation tells apart: intervals between edges."""
    table = _json(path).get(key)
    if not isinstance(table, dict):
        raise ValueError(f"{path}: there is no {key}, by which the study compares")
    edges = table["edges"]
    rows = zip(edges[:-1], edges[1:], table["count"], table["top1"], strict=True)
    for group, (low, high, count, top1) in enumerate(rows):
        if top1 is not None:
            middle, label = (low + high) / 2, f"{low:g} to {high:g}"
            yield result.Evaluation(axis, middle, {"top1": top1}, count, label, _per_image(path), group)


def _per_image(table: Path) -> Path | None:
    """What an evaluation kept of single images, beside its eval*.json; None if it kept nothing."""
    label = table.stem.removeprefix("eval")
    files = (table.with_name(f"{kind}{label}.npz") for kind in ("matches", "predictions"))
    return next((path for path in files if path.is_file()), None)


def _found(values: Mapping[str, Any], metric: str) -> object:
    """A score in an eval.json: of a classifier by its name, of a detector box_ap as bbox.ap."""
    kind, _, name = metric.partition("_")
    part = {"box": "bbox", "mask": "segm"}.get(kind)
    return values.get(metric) if part is None else values.get(part, {}).get(name)


def _scores(values: Mapping[str, object], plan: Plan, path: Path) -> dict[str, float]:
    """All metrics of the study, but for those that are known not to be there."""
    names = [n for n in plan.study.metrics if n not in MAY_LACK or n not in values or values[n] is not None]
    return {name: _score(values.get(name), path, name) for name in names}


def _score(value: object, path: Path, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: {name} is {value!r}, expected a number")
    return float(value)


def _claim(plan: Plan, spec: ClaimSpec, arms: Sequence[result.Arm]) -> result.Claim:
    """A claim with its place on the axis, if anything has been measured there yet."""
    metrics = spec.metrics or tuple(plan.study.metrics)
    source, at = spec.source or plan.study.source, spec.at
    if isinstance(at, str):
        places = [e.at for arm in arms for run in arm.runs for e in run.evaluations if e.axis == spec.axis]
        at = None if not places else min(places) if at == "lowest" else max(places)
    return result.Claim(spec.text, spec.better, spec.worse, metrics, source, spec.axis, at)


def _common(plan: Plan, runs: Sequence[Run]) -> dict[str, str]:
    found = {
        "data": _listed({run.data for run in runs}),
        "images": _listed(
            {f"{run.train_images} to train on, {run.val_images} to measure on" for run in runs}
        ),
        "seeds": ", ".join(str(seed) for seed in plan.scale.seeds),
    }
    for name, key in COMMON.items():
        values = {as_text(value_at(config_to_dict(run.config), key)) for run in plan.runs}
        if len(values) == 1:
            found[name] = values.pop()
    return found


def _environment(plan: Plan, runs: Sequence[Run], facts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    newest = max((Path(run.folder) / "summary.json").stat().st_mtime for run in runs)
    packages = {package: _listed({run.versions[package] for run in runs if package in run.versions})
                for package in ("python", "torch", "torchvision", "timm", "lightning")}  # fmt: skip
    return {
        "hardware": _listed({run.hardware for run in runs if run.hardware}),
        "botvision": _listed({str(run.versions.get("botvision", "unknown")) for run in runs}),
        "commit": _listed({run.commit or "unknown" for run in runs}),
        **{package: version for package, version in packages.items() if version},
        "hours of training, summed": f"{sum(f.get('train_seconds') or 0 for f in facts) / 3600:.1f}",
        "date": datetime.datetime.fromtimestamp(newest, datetime.UTC).date().isoformat(),
    }


def _root(runs: Iterable[Run]) -> Path | None:
    """Where the data of the runs were; None where they need none."""
    found = (load_config(Path(run.folder) / "config.yaml").data.root for run in runs)
    return next((Path(root) for root in found if root), None)


def _command(plan: Plan, root: Path | None) -> str:
    """What makes it all again; of paths only the last part, the rest is this machine's."""
    keys = {key: value for key, value in plan.overrides.items() if key != "data.root"}
    words = ["study", plan.study.called, "--scale", plan.scale_name]
    words += ["--data.root", root.name] if root is not None else []
    return shown([*words, *(word for key, value in keys.items() for word in (f"--{key}", value))])


def _warnings(plan: Plan, finished: Mapping[str, Run]) -> Iterable[str]:
    missing = [run.name for run in plan.runs if run.name not in finished]
    if missing:
        yield f"{len(missing)} of {len(plan.runs)} runs are missing: {', '.join(missing)}"
    measured = [
        f"{run.name} at {wanted.axis} {wanted.at:g}"
        for run in plan.runs
        if run.name in finished
        for wanted in run.measurements
        if run.measured(wanted) is None
    ]
    if measured:
        verb = "measurement is" if len(measured) == 1 else "measurements are"
        yield f"{len(measured)} {verb} missing: {', '.join(measured)}"
    runs = list(finished.values())
    for what, values in (
        ("data", {run.data for run in runs}),
        ("commit of botvision", {str(run.commit) for run in runs}),
        ("number of images", {(run.train_images, run.val_images) for run in runs}),
    ):
        if len(values) > 1:
            yield f"the runs differ in {what}: {_listed({str(value) for value in values})}"
    for key, value in plan.overrides.items():
        if key not in INCIDENTAL:
            yield f"not the study as its file states it: {key} {value}"
    hardware = {run.hardware for run in runs if run.hardware}
    if len(hardware) > 1:
        yield f"the runs come from different hardware: {_listed(hardware)}"


def _notes(runs: Sequence[Run]) -> Iterable[str]:
    for package in sorted({package for run in runs for package in run.versions}):
        versions = {run.versions.get(package, "unknown") for run in runs}
        if len(versions) > 1:
            yield f"the runs come from different versions of {package}: {_listed(versions)}"


def _curve(path: Path) -> Iterable[dict[str, float]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if None not in row.values():  # the last one of a run that was killed may be cut off
                yield {key: float(value) for key, value in row.items()}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object, found {type(values).__name__}")
    return values


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))
