"""What a study found, as plain values: arms, their runs by seed, and the claims that it puts to the test.

Scores are fractions 0..1 throughout; percent is the business of whoever prints them.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from botvision.metrics.attention_use import AttentionUse

Place = tuple[str, float]  # axis, position on it


@dataclass(frozen=True)
class Metric:
    """A score that the arms are compared by.

    Attributes:
        name: As in summary.json and in `Run.scores`, e.g. "top1", "box_ap", "mask_ap".
        title: In tables, e.g. "top-1", "box AP".
        chance: What guessing reaches, drawn as a line; None where that is about zero or not known.
    """

    name: str
    title: str
    chance: float | None = None


@dataclass(frozen=True)
class Axis:
    """Something that evaluations vary: image size, distance between objects.

    Attributes:
        name: As in `Evaluation.axis`, e.g. "image-size".
        title: Under a figure, e.g. "Image size (pixels)".
    """

    name: str
    title: str

    @property
    def words(self) -> str:
        """The title within a sentence."""
        return self.title[:1].lower() + self.title[1:]


@dataclass(frozen=True)
class Evaluation:
    """A finished run measured again, elsewhere on an axis; accuracy by distance is many of these.

    Attributes:
        axis: Name of the `Axis`.
        at: Position on it.
        scores: By metric name.
        images: Evaluated; None if it is not known.
        label: In tables, e.g. "160x160"; empty for `at` as a number.
        per_image: Its ``matches*.npz`` or ``predictions*.npz``, if there is one, for intervals over images.
        group: Of the images in that file only those of this interval of a quantity; None for all.
    """

    axis: str
    at: float
    scores: Mapping[str, float]
    images: int | None = None
    label: str = ""
    per_image: Path | None = None
    group: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        params: Trainable and frozen weights, without buffers.
        macs: Multiply-adds of one image; of a detector those of backbone and neck.
        step_ms: Milliseconds of an optimiser step while it was trained; None where it was not measured.
        peak_mb: MB (1e6 bytes) at most, of the process that finished it: on a GPU what torch allocated, on a
            CPU all that was resident. None where it was not measured.
        train_seconds: Of the whole training; None where it is not known.
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
        folder: Of the run. If it holds ``matches.npz`` (detectors) or ``predictions.npz`` (classifiers), the
            report has intervals over images, too.
        scores: By metric name.
        curve: Rows of metrics.csv, not-a-number for what was not measured.
        images: That it was evaluated on; None if it is not known.
    """

    seed: int
    folder: Path
    scores: Mapping[str, float]
    cost: Cost
    curve: tuple[Mapping[str, float], ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    images: int | None = None
    hardware: str = ""


@dataclass(frozen=True)
class Arm:
    """Runs that differ in the seed alone.

    Attributes:
        name: Short and unique, part of the folders' names.
        label: In tables and legends.
        runs: Finished ones, any number; one a seed.
        baseline: Name of the arm that the differences in its row are taken against; None for a baseline.
        settings: In which the arms differ, e.g. {"model.name": "botnet14_nano"}.
        published: What the source reports, by metric name, as fractions; empty if it reports nothing.
        source: Where the published values stand, e.g. "slides, second results table".
        trained_at: By axis name, where on the axis it was trained, e.g. {"image-size": 128}.
        step_ms: Milliseconds of an optimiser step, measured side by side with the other arms; None if it was
            not.
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
class Claim:
    """One arm is said to be better than another.

    Attributes:
        text: A sentence, e.g. "Relative position encodings beat absolute ones."
        better: Name of the arm that is said to score higher.
        worse: Name of the other.
        metrics: Names of the metrics that decide, one verdict each.
        source: Who says so, and where.
        axis: Compare at one place of this axis; None for the runs' own scores.
        at: Place on the axis; None with an axis as long as nothing has been measured there.
    """

    text: str
    better: str
    worse: str
    metrics: tuple[str, ...]
    source: str
    axis: str | None = None
    at: float | None = None

    @property
    def place(self) -> Place | None:
        """Where on an axis it is judged; None for the runs' own scores, or as long as `at` is not known."""
        return None if self.axis is None or self.at is None else (self.axis, self.at)


@dataclass(frozen=True)
class Picture:
    """A picture to be shown, e.g. of attention.

    Attributes:
        caption: Below it.
        path: PNG.
        alt: What is to be seen, for those who cannot see it; the caption if it is empty.
    """

    caption: str
    path: Path
    alt: str = ""


@dataclass(frozen=True)
class Use:
    """How much one run relies on its attention.

    Attributes:
        arm: Name.
        seed: Of the run.
        use: Its evaluations with attention replaced.
    """

    arm: str
    seed: int
    use: AttentionUse


@dataclass(frozen=True)
class StudyOutcome:
    """A study as far as it has been run.

    Attributes:
        name: Of the study and of the report's files, e.g. "position".
        title: A headline.
        question: What the study asks, in a sentence or two.
        scale: "cpu" or "paper".
        arms: In the order of the tables.
        metrics: The first one counts most.
        axes: Of the evaluations; none if there are none beside the runs' own.
        claims: Put to the test, in the order of the verdicts.
        common: What all arms share, by a name to be read, e.g. {"data": "dsb2018", "epochs": "16"}.
        environment: By a name to be read: hardware, threads, versions, commit, date.
        commands: To run it again, in order.
        warnings: What makes the comparison unfair or incomplete ("2 of 9 runs missing"), a line each.
        notes: What a reader should know beside.
        pictures: Of attention, if there are any.
        uses: Of attention, of the finished runs of the arm that the study looks at; all of one arm.
    """

    name: str
    title: str
    question: str
    scale: str
    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]
    axes: tuple[Axis, ...] = ()
    claims: tuple[Claim, ...] = ()
    common: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    uses: tuple[Use, ...] = ()

    def __post_init__(self) -> None:
        """Check that names refer to something. Raises ValueError: one line that says which does not."""
        names = [arm.name for arm in self.arms]
        if not names or not self.metrics:
            raise ValueError(f"{self.name}: a study needs at least one arm and one metric")
        _once(names, f"{self.name}: arm")
        metrics, axes = [metric.name for metric in self.metrics], [axis.name for axis in self.axes]
        _once(metrics, f"{self.name}: metric")
        for arm in self.arms:
            where = f"{self.name}: arm {arm.name}"
            _once([run.seed for run in arm.runs], f"{where}: seed")
            _known([arm.baseline] if arm.baseline else [], names, f"{where}: baseline")
            _known(arm.published, metrics, f"{where}: published metric")
            _known(arm.trained_at, axes, f"{where}: axis")
            for run in arm.runs:
                _known([entry.axis for entry in run.evaluations], axes, f"{where}: axis")
        for claim in self.claims:
            where = f"{self.name}: claim {claim.text!r}"
            _known([claim.better, claim.worse], names, f"{where}: arm")
            _known(claim.metrics, metrics, f"{where}: metric")
            _known([claim.axis] if claim.axis else [], axes, f"{where}: axis")

    def arm(self, name: str) -> Arm:
        """Return the arm of that name. Raises KeyError: there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)

    def axis(self, name: str) -> Axis:
        """Return the axis of that name. Raises KeyError: there is none."""
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise KeyError(name)

    def metric(self, name: str) -> Metric:
        """Return the metric of that name. Raises KeyError: there is none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)


def score_of(run: SeedRun, metric: str, place: Place | None = None) -> float | None:
    """Return a run's own score, or that of its evaluation at a place; None if it has none."""
    if place is None:
        return run.scores.get(metric)
    found = evaluation_at(run, place)
    return None if found is None else found.scores.get(metric)


def evaluation_at(run: SeedRun, place: Place) -> Evaluation | None:
    """Return the run's evaluation at a place; None if there is none."""
    return next((entry for entry in run.evaluations if (entry.axis, entry.at) == place), None)


def label_of(outcome: StudyOutcome, place: Place) -> str:
    """Return how a place on an axis is called in tables."""
    for arm in outcome.arms:
        for run in arm.runs:
            found = evaluation_at(run, place)
            if found is not None and found.label:
                return found.label
    return f"{place[1]:g}"


def cost_of(outcome: StudyOutcome, arm: Arm) -> Cost | None:
    """Return what an arm costs; None without a run.

    Steps are those measured side by side if all arms have one, and the median of the runs otherwise: a column
    of both kinds would mislead. Peak memory is the mean of the runs.
    """
    costs = [run.cost for run in arm.runs]
    if not costs:
        return None
    step = arm.step_ms
    if any(each.step_ms is None for each in outcome.arms):
        steps = [cost.step_ms for cost in costs if cost.step_ms is not None]
        step = statistics.median(steps) if steps else None
    peaks = [cost.peak_mb for cost in costs if cost.peak_mb is not None]
    return Cost(costs[0].params, costs[0].macs, step, statistics.fmean(peaks) if peaks else None)


def _once(names: Sequence[str | int], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where} {name} is there twice")


def _known(names: Iterable[str], known: Sequence[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where} {name} is unknown, expected one of {', '.join(known) or 'none'}")
