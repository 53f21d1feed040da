"""A study at one scale: which runs there are, what each is made of, and how far each has come.

Nothing here imports torch: a mistyped key costs milliseconds.
"""

import dataclasses
import json
import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from botvision.config.data import QUANTITIES, SYNTHETIC
from botvision.config.recipes import (
    build_config,
    changed_keys,
    config_to_dict,
    load_config,
    load_recipe,
    value_at,
    with_absolute_paths,
)
from botvision.config.run import EVALUATION_KEYS, AnyRunConfig, DetectionRunConfig
from botvision.config.schema import ConfigError, nearest
from botvision.io.files import write_text
from botvision.metrics.runs import INCIDENTAL_SETTINGS, SCORES
from botvision.studies.spec import Scale, Study

State = Literal["new", "begun", "finished"]

# What does not decide about the numbers of a run; where the data are is looked at apart.
INCIDENTAL = INCIDENTAL_SETTINGS - {"train.seed"}
LOADING = INCIDENTAL & {"data.num_workers", "data.cache", "data.cache_bytes", "train.device"}
LOGS = "logs"
OWNER = "study.txt"  # says whose the folder is


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A finished run measured once more, with `key` set to a place on an axis."""

    axis: str
    at: float
    key: str

    @property
    def overrides(self) -> dict[str, str]:
        """What the evaluation is told."""
        return {self.key: f"{self.at:g}"}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One arm with one seed.

    Attributes:
        recipe: name, or path of a YAML file.
        overrides: dotted key to text, as on the command line.
        config: what they amount to.
        folder: of the run.
        measurements: beside the run's own evaluation.
    """

    arm: str
    seed: int
    recipe: str
    overrides: dict[str, str]
    config: AnyRunConfig
    folder: Path
    measurements: tuple[Measurement, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """Where the output of its processes goes; not into the folder, which must be empty for a new run."""
        return self.folder.parent / LOGS / f"{self.name}.log"

    def training(self, resume: bool) -> list[str]:
        """Return the words of the command that trains it, or goes on with it where the data are now.

        A run that goes on has its configuration; it is told only what decides about no number.
        """
        if not resume:
            return ["train", self.recipe, "--out", str(self.folder), *_words(self.overrides)]
        told = {key: value for key, value in self.overrides.items() if key in INCIDENTAL}
        if self.config.data.root is not None:
            told["data.root"] = self.config.data.root
        return ["train", "--out", str(self.folder), "--resume", *_words(told)]

    def measured(self, measurement: Measurement) -> Path | None:
        """Return the JSON in which a finished run was measured elsewhere; None if that was not done yet."""
        from botvision.training.evaluation import evaluation_files

        # before or after the data moved, which the file's name tells
        asked = (measurement.overrides, {**measurement.overrides, **self.moved})
        paths = (evaluation_files(self.folder, overrides=overrides)[0] for overrides in asked)
        return next((path for path in paths if path.is_file()), None)

    def unmeasured(self) -> list[Measurement]:
        """Return where a finished run has not been measured yet."""
        return [wanted for wanted in self.measurements if self.measured(wanted) is None]

    def measuring(self, measurement: Measurement) -> list[str]:
        """Return the words of the command that measures it elsewhere, where the data are now."""
        loading = {key: value for key, value in self.overrides.items() if key in LOADING}
        return ["eval", str(self.folder), *_words({**loading, **measurement.overrides, **self.moved})]

    @property
    def moved(self) -> dict[str, str]:
        """Where the data are now, if they are no longer where the finished run found them."""
        root, own = self.config.data.root, load_config(self.folder / "config.yaml").data.root
        return {"data.root": root} if root is not None and own is not None and not Path(own).exists() else {}

    def summary(self) -> dict[str, Any]:
        """Return what a finished run says of itself, nothing where that cannot be read."""
        try:
            found = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def minutes(self) -> float | None:
        """What the training of a finished run took; None if its summary does not say."""
        seconds = self.summary().get("train_seconds")
        return seconds / 60 if isinstance(seconds, int | float) and seconds > 0 else None

    @property
    def part_left(self) -> float:
        """The part of its epochs, 0 to 1, that has no row in metrics.csv yet."""
        path = self.folder / "metrics.csv"
        rows = (
            path.read_text(encoding="utf-8").count("\n") if path.is_file() else 1
        )  # the first is the header
        return max(0.0, 1 - max(0, rows - 1) / self.config.train.epochs)

    def differing(self, there: AnyRunConfig) -> str | None:
        """Return the first key that decides about numbers in which a run's configuration is another."""
        keys = changed_keys(there, with_absolute_paths(self.config))
        return next((key for key in keys if key not in INCIDENTAL), None)

    def state(self) -> State:
        """Look at the folder.

        Raises:
            ConfigError: it holds a run of another configuration, or on other data.
        """
        if self.config.train.batch_size == "auto":
            raise ConfigError("train.batch_size: arms of a study share a batch, expected a number, got auto")
        path = self.folder / "config.yaml"
        if not path.is_file():
            return "new"
        there = load_config(path)
        key = self.differing(there)
        if key is not None:
            before, after = (as_text(value_at(config_to_dict(c), key)) for c in (there, self.config))
            raise ConfigError(
                f"{self.folder}: a run with {key} {before} is here already, the study asks for {after}; "
                "choose another --out, or remove the folder"
            )
        finished = (self.folder / "summary.json").is_file()
        old, new = there.data.root, self.config.data.root
        # data that moved are not there any more; a run that goes on compares the data itself
        if finished and old and new and Path(old).exists() and not Path(old).samefile(Path(new).expanduser()):
            raise ConfigError(
                f"{self.folder}: a run on {old} is here already, the study is given {new}; "
                "choose another --out"
            )
        return "finished" if finished else "begun"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All runs of a study at one scale, seed by seed: interrupted, it can be compared already.

    Attributes:
        folder: that holds all of it.
        overrides: of the user, for all runs.
    """

    study: Study
    scale_name: str
    folder: Path
    overrides: dict[str, str]
    runs: tuple[PlannedRun, ...]

    @property
    def scale(self) -> Scale:
        """The scale."""
        return self.study.scales[self.scale_name]

    def of_arm(self, arm: str) -> list[PlannedRun]:
        """Return the runs of an arm, by seed as the file names them."""
        return [run for run in self.runs if run.arm == arm]

    def varied(self) -> list[str]:
        """Return the dotted keys in which the arms differ, in the order of the configuration."""
        first, *others = self.runs[: len(self.study.arms)]
        found = (key for run in others for key in changed_keys(first.config, run.config))
        return [key for key in dict.fromkeys(found) if key != "recipe"]

    def states(self) -> dict[str, State]:
        """Return how far each run has come, by name. Raises ConfigError like `PlannedRun.state`."""
        return {run.name: run.state() for run in self.runs}

    def check_folder(self, claim: bool = False) -> None:
        """Refuse a folder that is something else; write down that it is this study's if it is claimed.

        Raises:
            ConfigError: it is another study's, a run's, or a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"--out: {self.folder} is a file, expected a folder")
        path, name = self.folder / OWNER, f"study {self.study.called} at scale {self.scale_name}"
        owner = path.read_text(encoding="utf-8").strip() if path.is_file() else None
        if owner not in (None, name):
            raise ConfigError(f"{self.folder}: holds {owner} already; choose another --out")
        if owner is None and (self.folder / "config.yaml").is_file():
            raise ConfigError(f"{self.folder}: is the folder of a run; choose another --out")
        if claim:
            write_text(path, f"{name}\n")

    def check_data(self) -> None:
        """Raise ConfigError where images are needed and nothing says where, or they are not there."""
        if self.lacks_data():
            raise ConfigError(f"data.root: missing; expected --data.root with {self.scale.data}")
        roots = (run.config.data.root for run in self.runs)
        for root in dict.fromkeys(root for root in roots if root is not None):
            if not Path(root).expanduser().exists():
                raise ConfigError(f"data.root: {root}: no such file or folder")

    def lacks_data(self) -> bool:
        """Return whether images are needed and nothing says where they are."""
        for data in (run.config.data for run in self.runs):
            named = data.root is not None or getattr(data, "train_annotations", None) is not None
            if not named and not getattr(data, "download", False) and data.source not in SYNTHETIC:
                return True
        return False


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Minutes.

    Attributes:
        per_run: of a whole run, by arm; None where nothing is known.
        measured: arms whose minutes are those of finished runs.
        left: until the study is done; None where an arm that is to be run has no minutes.
    """

    per_run: dict[str, float | None]
    measured: list[str]
    left: float | None


def estimate(plan: Plan, states: Mapping[str, State], slots: int) -> Estimate:
    """Estimate the time left: an arm takes what its finished runs took; without any, what the file states.

    Args:
        plan: of the study.
        states: by run's name.
        slots: runs at a time.
    """
    per_run = {arm: plan.scale.minutes_of(arm) for arm in plan.study.arms}
    finished: dict[str, list[float]] = {}
    for run in plan.runs:
        if states[run.name] == "finished" and (took := run.minutes):
            finished.setdefault(run.arm, []).append(took)
    per_run |= {arm: statistics.fmean(took) for arm, took in finished.items()}
    waiting = [run for run in plan.runs if states[run.name] != "finished"]
    jobs = [(per_run[run.arm] or 0.0) * run.part_left for run in waiting]
    known = all(per_run[run.arm] is not None for run in waiting)
    left = max(sum(jobs) / slots, max(jobs, default=0.0)) if known else None
    return Estimate(per_run, list(finished), left)


def duration(minutes: float) -> str:
    """Return e.g. "40 s", "12 min", "2 h 10 min", "3 days 4 h"."""
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    whole, hours = round(minutes), round(minutes / 60)
    if whole < 60:
        return f"{whole} min"
    return f"{whole // 60} h {whole % 60} min" if whole < 48 * 60 else f"{hours // 24} days {hours % 24} h"


def make_plan(
    study: Study, scale_name: str, folder: Path, overrides: Mapping[str, str] | None = None
) -> Plan:
    """Expand arms and seeds.

    Args:
        study: from `load_study`.
        scale_name: one of its scales.
        folder: that shall hold the runs.
        overrides: dotted keys that are set for all runs, on top of the file.

    Raises:
        ConfigError: no such scale, a recipe or key that does not exist, a key in which the runs differ, or a
            metric or place on an axis that the runs cannot be measured by.
    """
    if scale_name not in study.scales:
        known = nearest(scale_name, list(study.scales))
        raise ConfigError(f"--scale: study {study.called} has no scale {scale_name!r}{known}")
    scale, overrides = study.scales[scale_name], dict(overrides or {})
    if "train.seed" in overrides:
        raise ConfigError(f"train.seed: the study has seeds of its own: {', '.join(map(str, scale.seeds))}")
    plan = _expanded(study, scale_name, folder, overrides)
    for run in plan.runs[: len(study.arms)]:
        _check_scores(study, scale_name, run)
    for key in _expanded(study, scale_name, folder, {}).varied() if overrides else ():
        if any(key == given or key.startswith(f"{given}.") for given in overrides):
            raise ConfigError(f"{key}: the arms of {study.name} differ in it, so it cannot be set for all")
    return plan


def _expanded(study: Study, scale_name: str, folder: Path, overrides: dict[str, str]) -> Plan:
    runs = [
        _planned(study, scale_name, arm, seed, folder, overrides)
        for seed in study.scales[scale_name].seeds
        for arm in study.arms
    ]
    return Plan(study, scale_name, folder, overrides, tuple(runs))


def _planned(
    study: Study, scale_name: str, arm: str, seed: int, folder: Path, overrides: dict[str, str]
) -> PlannedRun:
    scale = study.scales[scale_name]
    chosen, at_scale = scale.arms[arm], f"{study.name}: scales.{scale_name}"
    recipe, at_arm = chosen.recipe or scale.recipe, f"{at_scale}.arms.{arm}"
    if recipe is None:
        raise ConfigError(f"{at_arm}.recipe: missing, and the scale has none")
    if recipe.endswith((".yaml", ".yml")):
        recipe = str(Path(study.folder) / recipe)
    at_recipe = f"{at_arm if chosen.recipe else at_scale}.recipe"
    try:
        values = load_recipe(recipe)
    except ConfigError as error:
        raise ConfigError(f"{at_recipe}: {error}") from None
    layers = {at_recipe: {}, f"{at_scale}.set": scale.set, f"{at_arm}.set": chosen.set}
    shared = {key: as_text(value) for layer in layers.values() for key, value in layer.items()}
    given = {**shared, **overrides, "train.seed": str(seed)}
    try:
        config = build_config(values, given)
    except ConfigError as error:
        place = _blamed(values, layers)
        raise ConfigError(f"{place}: {error}" if place else str(error)) from None
    measurements = []
    for axis, places in scale.at.items():
        key = study.axes[axis].key
        assert key is not None  # checked when the study was read
        own = value_at(config_to_dict(config), key)
        measurements += [Measurement(axis, at, key) for at in places if at != own]
    return PlannedRun(arm, seed, recipe, given, config, folder / f"{arm}-s{seed}", tuple(measurements))


def _blamed(recipe: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The place in the file whose keys make no configuration any more; None if the command line's do."""
    given: dict[str, str] = {}
    for place, keys in layers.items():
        given |= {key: as_text(value) for key, value in keys.items()}
        try:
            build_config(recipe, given)
        except ConfigError:
            return place
    return None


def _check_scores(study: Study, scale_name: str, run: PlannedRun) -> None:
    """Look for the study's metrics and axes in what a run and its evaluations yield."""
    config = run.config
    masks = not isinstance(config, DetectionRunConfig) or config.model.detector.masks
    scores = [name for name in SCORES[config.task] if masks or not name.startswith("mask_")]
    for metric in study.metrics:
        if metric not in scores:
            raise ConfigError(
                f"{study.name}: metrics: a run of arm {run.arm} (task {config.task}) has no score "
                f"{metric!r}{nearest(metric, scores)}"
            )
    quantity = QUANTITIES.get(config.data.source)
    known = f"top1_by_{quantity}" if quantity else "none"
    for axis, spec in study.axes.items():
        if spec.table not in (None, known):
            raise ConfigError(
                f"{study.name}: axes.{axis}.table: {spec.table!r} is no table in the evaluations of arm "
                f"{run.arm}; known: {known}"
            )
        if spec.key is not None:
            _check_key(f"{study.name}: axes.{axis}.key", spec.key, config)
            for place in study.scales[scale_name].at.get(axis, ()):
                try:
                    build_config(config_to_dict(config), {spec.key: f"{place:g}"})
                except ConfigError as error:
                    raise ConfigError(f"{study.name}: scales.{scale_name}.at.{axis}: {error}") from None


def _check_key(where: str, key: str, config: AnyRunConfig) -> None:
    # train.* is how fast an evaluation goes: it finds the same
    allowed = tuple(name for name in EVALUATION_KEYS[config.task] if not name.startswith("train."))
    if not key.startswith(allowed):
        words = " or ".join(f"{name}*" if name.endswith(".") else name for name in allowed)
        raise ConfigError(f"{where}: expected a key that an evaluation can set, {words}, got {key!r}")
    if key in INCIDENTAL_SETTINGS:
        raise ConfigError(f"{where}: expected a key on which the scores depend, got {key!r}")
    values: Any = config_to_dict(config)
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            known = nearest(part, list(values)) if isinstance(values, dict) else ""
            raise ConfigError(f"{where}: unknown key {key}{known}")
        values = values[part]


def _words(overrides: Mapping[str, str]) -> list[str]:
    # one word each: a value may begin with a minus
    return [f"--{key}={value}" for key, value in overrides.items()]


def as_text(value: Any) -> str:  # noqa: ANN401
    """Return a value as it is written on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def shown(words: list[str]) -> str:
    """Return a command to be typed."""
    return shlex.join(["botvision", *words])
