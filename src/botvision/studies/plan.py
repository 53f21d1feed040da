"""A study at one scale: which runs there are, what each is made of, and how far each has come.

Nothing here imports torch: a mistyped key costs milliseconds.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from botvision.config.data import SYNTHETIC
from botvision.config.recipes import (
    build_config,
    changed_keys,
    config_to_dict,
    load_config,
    load_recipe,
    value_at,
    with_absolute_paths,
)
from botvision.config.run import AnyRunConfig
from botvision.config.schema import ConfigError, nearest
from botvision.io.files import write_text
from botvision.metrics.runs import INCIDENTAL_SETTINGS
from botvision.studies.checks import blamed, check_run
from botvision.studies.spec import Scale, Study

State = Literal["new", "begun", "finished"]

# What does not decide about the numbers of a run; where the data are is looked at apart.
INCIDENTAL = INCIDENTAL_SETTINGS - {"train.seed"}
LOADING = INCIDENTAL & {"data.num_workers", "data.cache", "data.cache_bytes", "train.device"}
LOGS = "logs"
OWNER = "study.txt"  # says whose the folder is


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A finished run measured once more.

    Attributes:
        axis: name.
        at: place on the axis.
        key: dotted key that is set to it.
    """

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
        """Returns the words of the command that trains it, or goes on with it where the data are now.

        A run that goes on has its configuration; it is told only what decides about no number.
        """
        if not resume:
            return ["train", self.recipe, "--out", str(self.folder), *_words(self.overrides)]
        told = {key: value for key, value in self.overrides.items() if key in INCIDENTAL}
        if self.config.data.root is not None:
            told["data.root"] = self.config.data.root
        return ["train", "--out", str(self.folder), "--resume", *_words(told)]

    def measuring(self, measurement: Measurement) -> list[str]:
        """Returns the words of the command that measures it elsewhere, where the data are now."""
        loading = {key: value for key, value in self.overrides.items() if key in LOADING}
        return ["eval", str(self.folder), *_words({**loading, **self._overrides(measurement)})]

    def measured(self, measurement: Measurement) -> Path | None:
        """Returns the JSON in which a finished run was measured elsewhere; None if that was not done yet."""
        from botvision.training.run import evaluation_files

        # before or after the data moved, which the file's name tells
        asked = (measurement.overrides, self._overrides(measurement))
        paths = (evaluation_files(self.folder, overrides=overrides)[0] for overrides in asked)
        return next((path for path in paths if path.is_file()), None)

    def _overrides(self, measurement: Measurement) -> dict[str, str]:
        root, own = self.config.data.root, load_config(self.folder / "config.yaml").data.root
        moved = root is not None and own is not None and not Path(own).exists()
        return {**measurement.overrides, **({"data.root": root} if moved else {})}

    def state(self) -> State:
        """Looks at the folder.

        Raises:
            ConfigError: it holds a run of another configuration, or on other data.
        """
        path = self.folder / "config.yaml"
        if not path.is_file():
            return "new"
        there = load_config(path)
        for key in changed_keys(there, with_absolute_paths(self.config)):
            if key not in INCIDENTAL:
                before, after = (value_at(config_to_dict(c), key) for c in (there, self.config))
                raise ConfigError(
                    f"{self.folder}: a run with {key} {as_text(before)} is here already, the study asks for "
                    f"{as_text(after)}; choose another --out, or remove the folder"
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
        scale_name: of the scale.
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
        """Runs of an arm, by seed as the file names them."""
        return [run for run in self.runs if run.arm == arm]

    def varied(self) -> list[str]:
        """Dotted keys in which the arms differ, in the order of the configuration."""
        first = self.runs[: len(self.study.arms)]
        found = [changed_keys(first[0].config, run.config) for run in first[1:]]
        return [key for key in dict.fromkeys(key for keys in found for key in keys) if key != "recipe"]

    def check_folder(self) -> None:
        """Raises ConfigError where the folder is something else: another study's, a run's, or a file."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"--out: {self.folder} is a file, expected a folder")
        owner = self._owner()
        if owner is not None and owner != self._name():
            raise ConfigError(f"{self.folder}: holds {owner} already; choose another --out")
        if owner is None and (self.folder / "config.yaml").is_file():
            raise ConfigError(f"{self.folder}: is the folder of a run; choose another --out")

    def claim_folder(self) -> None:
        """Writes whose folder it is. Raises ConfigError like `check_folder`."""
        self.check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / OWNER, self._name() + "\n")

    def _name(self) -> str:
        return f"study {self.study.called} at scale {self.scale_name}"

    def _owner(self) -> str | None:
        try:
            return (self.folder / OWNER).read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def states(self) -> dict[str, State]:
        """Returns how far each run has come, by name. Raises ConfigError like `PlannedRun.state`."""
        return {run.name: run.state() for run in self.runs}

    def check_data(self) -> None:
        """Raises ConfigError where images are needed and nothing says where, or they are not there."""
        if self.lacks_data():
            raise ConfigError(f"data.root: missing; expected --data.root with {self.scale.data}")
        roots = (run.config.data.root for run in self.runs)
        for root in dict.fromkeys(root for root in roots if root is not None):
            if not Path(root).expanduser().exists():
                raise ConfigError(f"data.root: {root}: no such file or folder")

    def lacks_data(self) -> bool:
        """Returns whether images are needed and nothing says where they are."""
        for data in (run.config.data for run in self.runs):
            named = data.root is not None or getattr(data, "train_annotations", None) is not None
            if not named and not getattr(data, "download", False) and data.source not in SYNTHETIC:
                return True
        return False


def missing_measurements(run: PlannedRun) -> list[list[str]]:
    """Returns the commands that measure a finished run where it has not been measured yet."""
    return [run.measuring(wanted) for wanted in run.measurements if run.measured(wanted) is None]


def make_plan(
    study: Study, scale_name: str, folder: Path, overrides: Mapping[str, str] | None = None
) -> Plan:
    """Expands arms and seeds.

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
        check_run(study, scale_name, run.arm, run.config)
    if overrides:
        alone = _expanded(study, scale_name, folder, {})
        wrong = next((key for key in alone.varied() for given in overrides if _meets(key, given)), None)
        if wrong is not None:
            raise ConfigError(f"{wrong}: the arms of {study.name} differ in it, so it cannot be set for all")
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
    chosen, at_scale = scale.arms[arm], f"scales.{scale_name}"
    recipe, where = chosen.recipe or scale.recipe, f"{at_scale}.arms.{arm}"
    recipe_where = f"{where if chosen.recipe else at_scale}.recipe"
    if recipe is None:
        raise ConfigError(f"{study.name}: {where}.recipe: missing, and the scale has none")
    if recipe.endswith((".yaml", ".yml")):
        recipe = str(Path(study.folder) / recipe)
    shared, own = ({key: as_text(value) for key, value in part.set.items()} for part in (scale, chosen))
    given = {**shared, **own, **overrides, "train.seed": str(seed)}
    try:
        values = load_recipe(recipe)
    except ConfigError as error:
        raise ConfigError(f"{study.name}: {recipe_where}: {error}") from None
    try:
        config = build_config(values, given)
    except ConfigError as error:
        layers = ((recipe_where, {}), (f"{at_scale}.set", shared), (f"{where}.set", own))
        place = blamed(values, layers, otherwise="")  # the command line
        raise ConfigError(f"{study.name}: {place}: {error}" if place else str(error)) from None
    measurements = []
    for axis, places in scale.at.items():
        key = study.axes[axis].key
        assert key is not None  # checked when the study was read
        own_place = value_at(config_to_dict(config), key)
        measurements += [Measurement(axis, at, key) for at in places if at != own_place]
    return PlannedRun(arm, seed, recipe, given, config, folder / f"{arm}-s{seed}", tuple(measurements))


def _meets(key: str, given: str) -> bool:
    """Whether setting `given` also sets `key`."""
    return key == given or key.startswith(f"{given}.")


def _words(overrides: Mapping[str, str]) -> list[str]:
    # one word each: a value may begin with a minus
    return [f"--{key}={value}" for key, value in overrides.items()]


def as_text(value: Any) -> str:  # noqa: ANN401
    """A value as it is written on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def shown(words: list[str]) -> str:
    """Returns a command to be typed."""
    return shlex.join(["botvision", *words])
