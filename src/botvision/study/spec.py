"""A study as its YAML file states it: arms, claims, published values, and one or more scales to run it at.

Nothing here imports torch. Keys that are not known are refused, as in recipes.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from botvision.study.result import Axis, Metric
from botvision.training.config import read_yaml
from botvision.training.schema import ConfigError, build, nearest, require


@dataclasses.dataclass(frozen=True)
class AxisSpec:
    """Something that finished runs are measured along.

    Attributes:
        title: under a figure.
        key: dotted key of the configuration that is set for each place on the axis; None where the places
            come out of the run's own evaluation.
        table: key of such a table in eval.json, with `edges`, `count` and `top1`.
    """

    title: str
    key: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        require((self.key is None) != (self.table is None), "key", self.key, "either key or table")


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """A score of summary.json.

    Attributes:
        title: in tables.
        chance: what guessing reaches, as a fraction.
    """

    title: str
    chance: float | None = None


@dataclasses.dataclass(frozen=True)
class ClaimSpec:
    """One arm is said to be better than another; see `botvision.study.result.Claim`.

    Attributes:
        metrics: those of the study unless given.
        source: that of the study unless given.
        axis: compare at one place of it, not by the runs' own scores.
        at: the place; "lowest" or "highest" for the end of the axis, wherever that is at a scale.
    """

    text: str
    better: str
    worse: str
    metrics: tuple[str, ...] = ()
    source: str | None = None
    axis: str | None = None
    at: float | Literal["lowest", "highest"] | None = None

    def __post_init__(self) -> None:
        require((self.axis is None) == (self.at is None), "at", self.at, "axis and at, or neither")


@dataclasses.dataclass(frozen=True)
class ArmSpec:
    """What is compared, at every scale.

    Attributes:
        published: percent by metric name, as the source prints them.
        source: where they stand; that of the study unless given.
        baseline: arm that it is compared with; the study's unless given.
    """

    published: dict[str, float] = dataclasses.field(default_factory=dict)
    source: str | None = None
    baseline: str | None = None


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """What the report shows of a trained network's attention.

    Attributes:
        arm: whose first finished run is looked at.
        images: of its validation data, drawn.
    """

    arm: str
    images: int = 5

    def __post_init__(self) -> None:
        require(self.images > 0, "attention.images", self.images, "a number above 0")


@dataclasses.dataclass(frozen=True)
class ScaledArm:
    """An arm at one scale.

    Attributes:
        label: in tables and legends.
        recipe: a recipe's name, or a YAML file beside the study's; the scale's unless given.
        set: dotted keys that are set in its recipe, on top of those of the scale.
        minutes: that a run takes; see `Scale`.
    """

    label: str
    recipe: str | None = None
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    minutes: float | None = None


@dataclasses.dataclass(frozen=True)
class Scale:
    """One size at which the study is run.

    Attributes:
        data: which data, and where they are; shown where `data.root` is missing.
        note: what this scale can show and what it cannot.
        arms: of every arm of the study.
        seeds: of the runs of each arm.
        recipe: of arms that name none.
        set: dotted keys that are set for all runs.
        threads: of a process on a CPU; the numbers depend on it, so it is not the user's choice.
        minutes: that a run of any arm takes on the machine named in `measured`; None if that is not known.
        measured: that machine.
        at: places on the axes that have a key, where finished runs are measured once more.
    """

    data: str
    arms: dict[str, ScaledArm]
    seeds: tuple[int, ...]
    note: str = ""
    recipe: str | None = None
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    threads: int = 1
    minutes: float | None = None
    measured: str = ""
    at: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.seeds) == len(set(self.seeds)) > 0, "seeds", list(self.seeds), "different seeds")
        require(self.threads > 0, "threads", self.threads, "a number above 0")
        for name in self.arms:
            usable = name.replace("-", "").replace("_", "").isalnum()
            require(usable, "arms", name, "letters, digits, - and _ (it becomes a folder)")

    def minutes_of(self, arm: str) -> float | None:
        """Returns how long a run of an arm takes by the file; None if it does not say."""
        own = self.arms[arm].minutes
        return self.minutes if own is None else own


@dataclasses.dataclass(frozen=True)
class Study:
    """One study file.

    Attributes:
        title: a headline.
        question: what it asks, in a sentence or two.
        source: where claims and published values stand.
        baseline: arm that the others are compared with.
        metrics: by name in summary.json; the first one counts most.
        arms: by name, in the order of the tables.
        claims: put to the test.
        axes: by name.
        attention: pictures of it in the report; none unless given.
        name: the file's stem.
        folder: of the file: recipes that are files lie beside it.
    """

    title: str
    question: str
    source: str
    baseline: str
    metrics: dict[str, MetricSpec]
    arms: dict[str, ArmSpec]
    scales: dict[str, Scale]
    claims: tuple[ClaimSpec, ...] = ()
    axes: dict[str, AxisSpec] = dataclasses.field(default_factory=dict)
    attention: AttentionSpec | None = None
    name: str = ""
    folder: str = ""

    def __post_init__(self) -> None:
        _known([self.baseline], self.arms, "baseline")
        for name, arm in self.arms.items():
            _known([arm.baseline or self.baseline], self.arms, f"arms.{name}.baseline")
            _known(arm.published, self.metrics, f"arms.{name}.published")
        for i, claim in enumerate(self.claims):
            _known([claim.better, claim.worse], self.arms, f"claims[{i}]")
            _known(claim.metrics, self.metrics, f"claims[{i}].metrics")
            _known([claim.axis] if claim.axis else [], self.axes, f"claims[{i}].axis")
        _known([self.attention.arm] if self.attention else [], self.arms, "attention.arm")
        require(bool(self.scales), "scales", {}, "one or more")
        for name, scale in self.scales.items():
            where = f"scales.{name}"
            _known(scale.arms, self.arms, f"{where}.arms")
            missing = [arm for arm in self.arms if arm not in scale.arms]
            require(not missing, f"{where}.arms", list(scale.arms), f"all arms, {missing} among them")
            keyed = [axis for axis, spec in self.axes.items() if spec.key]
            _known(scale.at, keyed, f"{where}.at")

    def metric_list(self) -> tuple[Metric, ...]:
        """Returns the metrics as the report takes them."""
        return tuple(Metric(name, spec.title, spec.chance) for name, spec in self.metrics.items())

    def axis_list(self) -> tuple[Axis, ...]:
        """Returns the axes as the report takes them."""
        return tuple(Axis(name, spec.title) for name, spec in self.axes.items())


def study_names() -> list[str]:
    """Returns the names of the studies that come with botvision, sorted."""
    folder = resources.files("botvision") / "studies"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_study(name_or_path: str) -> Study:
    """Reads a study.

    Args:
        name_or_path: a name of `study_names()`, or the path of a YAML file.

    Raises:
        ConfigError: no such study, an unknown key, a wrong value, or a name that refers to nothing.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigError(f"{name_or_path}: no such study file")
    else:
        path = Path(str(resources.files("botvision") / "studies")) / f"{name_or_path}.yaml"
        if name_or_path not in study_names():
            raise ConfigError(f"no study is called {name_or_path!r}{nearest(name_or_path, study_names())}")
    try:
        return _build_study(read_yaml(path), path)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _build_study(values: Mapping[str, Any], path: Path) -> Study:
    parts = {"metrics": MetricSpec, "arms": ArmSpec, "axes": AxisSpec}
    values = {**values, "name": path.stem, "folder": str(path.resolve().parent)}
    for key, cls in parts.items():
        if key in values:
            values[key] = _each(cls, values[key], key)
    scales = {}
    for name, scale in _mapping(values.get("scales"), "scales").items():
        arms = _each(ScaledArm, _mapping(scale, f"scales.{name}").get("arms"), f"scales.{name}.arms")
        scales[name] = build(Scale, {**scale, "arms": arms}, f"scales.{name}.")
    return build(Study, {**values, "scales": scales}, "")


def _each(cls: type[Any], values: object, where: str) -> dict[str, Any]:
    return {
        name: build(cls, value or {}, f"{where}.{name}.") for name, value in _mapping(values, where).items()
    }


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{where}: expected a mapping of names to values, got {value!r}")
    return value


def _known(names: Iterable[str], known: Iterable[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: {name!r} is not known{nearest(name, list(known))}")
