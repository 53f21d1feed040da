"""A study as its YAML file states it: arms, claims, published values, and one or more scales to run it at.

Nothing here imports torch. Keys that are not known are refused, as in recipes.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from botvision.config.recipes import read_yaml
from botvision.config.schema import ConfigError, Fraction, Positive, Rate, Rule, build, nearest, require

Place = tuple[str, float]  # axis, position on it
Term = tuple[int, str, Place | None]  # of a difference: sign, arm, place (None: by the runs' own scores)
DIFFERENT = Rule("different values, at least one", lambda values: len(values) == len(set(values)) > 0)
SOME = Rule("one or more", bool)
SEEDS = Rule("whole numbers, 0 <= seed < 2**32", lambda seeds: all(0 <= seed < 2**32 for seed in seeds))
Percent = Annotated[float, Rule("percent from 0 to 100", lambda percent: 0 <= percent <= 100)]
Position = float | Literal["lowest", "highest"]  # ends of the axis, wherever they are at a scale


@dataclasses.dataclass(frozen=True)
class Axis:
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

    @property
    def words(self) -> str:
        """The title within a sentence."""
        return self.title[:1].lower() + self.title[1:]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of summary.json.

    Attributes:
        title: in tables.
        chance: what guessing reaches, as a fraction.
    """

    title: str
    chance: Fraction | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two arms, of which the first is ahead."""

    better: str
    worse: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """One arm is said to be better than another, or its lead to be larger than another lead.

    Attributes:
        metrics: those of the study unless given; each has a verdict.
        source: that of the study unless given.
        axis: compare at one place of it (`at`); without, by the runs' own scores.
        than: the lead is said to be larger than that of this pair.
        beyond: the lead is said to be larger at `at` than here.
    """

    text: str
    better: str
    worse: str
    metrics: tuple[str, ...] = ()
    source: str | None = None
    axis: str | None = None
    at: Position | None = None
    than: Pair | None = None
    beyond: Position | None = None

    def __post_init__(self) -> None:
        require((self.at is None) == (self.axis is None), "at", self.at, "axis and at, or none of them")
        alone = self.beyond is None
        require(alone or self.axis is not None, "beyond", self.beyond, "axis and at beside it")
        require(alone or self.at != self.beyond, "beyond", self.beyond, "another place than in at")
        require(alone or self.than is None, "beyond", self.beyond, "either than or beyond")
        require(self.better != self.worse, "worse", self.worse, "another arm than in better")
        if self.than is not None:
            require(self.than.better != self.than.worse, "than.worse", self.than.worse, "another arm")
            same = self.than == Pair(self.better, self.worse)
            require(not same, "than", dataclasses.asdict(self.than), "another pair of arms")


@dataclasses.dataclass(frozen=True)
class ArmSpec:
    """What is compared, at every scale.

    Attributes:
        published: percent by metric name, as the source prints them.
        source: where they stand; that of the study unless given.
        baseline: arm that it is compared with; the study's unless given.
    """

    published: dict[str, Percent] = dataclasses.field(default_factory=dict)
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
    images: Positive = 5


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
    minutes: Rate | None = None

    def __post_init__(self) -> None:
        _check_set(self.set)


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
    seeds: Annotated[tuple[int, ...], DIFFERENT, SEEDS]
    note: str = ""
    recipe: str | None = None
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    threads: Positive = 1
    minutes: Rate | None = None
    measured: str = ""
    at: dict[str, Annotated[list[float], DIFFERENT]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_set(self.set)
        for name in self.arms:
            usable = name.replace("-", "").replace("_", "").isalnum()
            require(usable, "arms", name, "letters, digits, - and _ (it becomes a folder)")

    def minutes_of(self, arm: str) -> float | None:
        """Return how long a run of an arm takes by the file; None if it does not say."""
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
    metrics: Annotated[dict[str, Metric], SOME]
    arms: Annotated[dict[str, ArmSpec], SOME]
    scales: Annotated[dict[str, Scale], SOME]
    claims: tuple[Claim, ...] = ()
    axes: dict[str, Axis] = dataclasses.field(default_factory=dict)
    attention: AttentionSpec | None = None
    name: str = ""
    folder: str = ""

    def __post_init__(self) -> None:
        _known([self.baseline], self.arms, "baseline")
        for name, arm in self.arms.items():
            _known([arm.baseline or self.baseline], self.arms, f"arms.{name}.baseline")
            _known(arm.published, self.metrics, f"arms.{name}.published")
        _known([self.attention.arm] if self.attention else [], self.arms, "attention.arm")
        for i, claim in enumerate(self.claims):
            self._check_claim(claim, f"claims[{i}]")
        for name, scale in self.scales.items():
            where = f"scales.{name}"
            _known(scale.arms, self.arms, f"{where}.arms")
            missing = [arm for arm in self.arms if arm not in scale.arms]
            require(not missing, f"{where}.arms", list(scale.arms), f"all arms, {missing} among them")
            _known(scale.at, [axis for axis, spec in self.axes.items() if spec.key], f"{where}.at")

    def _check_claim(self, claim: Claim, where: str) -> None:
        _known([claim.better, claim.worse], self.arms, where)
        _known([claim.than.better, claim.than.worse] if claim.than else [], self.arms, f"{where}.than")
        _known(claim.metrics, self.metrics, f"{where}.metrics")
        if claim.axis is None:
            return
        _known([claim.axis], self.axes, f"{where}.axis")
        places = sorted({at for scale in self.scales.values() for at in scale.at.get(claim.axis, ())})
        listed = ", ".join(f"{at:g}" for at in places) or "none"
        expected = f"a place of {claim.axis} at which a scale measures ({listed})"
        for key, at in (("at", claim.at), ("beyond", claim.beyond)):
            elsewhere = self.axes[claim.axis].table is not None or at is None or isinstance(at, str)
            require(elsewhere or at in places, f"{where}.{key}", at, expected)

    @property
    def called(self) -> str:
        """The word after `botvision study`: the name of one that comes with botvision, else the file's."""
        return self.name if Path(self.folder) == _shipped().resolve() else f"{self.name}.yaml"


def study_names() -> list[str]:
    """Return the names of the studies that come with botvision, sorted."""
    return sorted(path.stem for path in _shipped().glob("*.yaml"))


def load_study(name_or_path: str) -> Study:
    """Read a study.

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
        path = _shipped() / f"{name_or_path}.yaml"
        if name_or_path not in study_names():
            raise ConfigError(f"no study is called {name_or_path!r}{nearest(name_or_path, study_names())}")
    try:
        return _build_study(read_yaml(path), path)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _shipped() -> Path:
    return Path(str(resources.files("botvision") / "studies"))


def _build_study(values: Mapping[str, Any], path: Path) -> Study:
    for key, why in (("name", "a study is named after its file"), ("folder", "it is that of the file")):
        if key in values:
            raise ConfigError(f"{key}: leave it out, {why}")
    values = {**values, "name": path.stem, "folder": str(path.resolve().parent)}
    if isinstance(values.get("arms"), Mapping):  # of an arm there may be nothing to say
        values["arms"] = {name: {} if arm is None else arm for name, arm in values["arms"].items()}
    return build(Study, values, "")


def _check_set(values: Mapping[str, Any]) -> None:
    """Check what `set` of a scale and of an arm may be."""
    for key, value in values.items():
        if key == "train.seed":
            raise ConfigError("set.train.seed: leave it out, the study has seeds of its own (scales.*.seeds)")
        free = key == "model.args" or key.startswith("model.args.")
        if isinstance(value, Mapping) and not free:
            inner = ", ".join(f"{key}.{name}" for name in value) or f"{key}.something"
            raise ConfigError(f"set.{key}: expected dotted keys ({inner}), got the mapping {value!r}")
        require(_is_plain(value), f"set.{key}", value, "text, a number, true, false, null or a list of these")


def _is_plain(value: object) -> bool:
    """Whether a command line can say it."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(inner) for name, inner in value.items())
    return value is None or isinstance(value, str | int | float)


def _known(names: Iterable[str], known: Iterable[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: {name!r} is not known{nearest(name, list(known))}")
