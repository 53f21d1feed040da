"""How sure a difference is: Student's t over seeds, a paired bootstrap over images, and a verdict.

Two things are left to chance, and each has an interval of its own. Over seeds: would other trainings,
measured on these images, say the same? A bootstrap of three values knows nothing of their tails, so that
this one is Student's t over the pairs of runs with the same seed. Over images: would these trained networks,
measured on other images, say the same? There the images, the same ones for both arms, are drawn anew with
replacement.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from botvision.study.bootstrap import LEVEL, Bootstrap
from botvision.study.result import Arm, Claim, Metric, Place, SeedRun, StudyOutcome, label_of, score_of

Word = Literal["held", "did not hold", "could not be told"]


@dataclass(frozen=True)
class Interval:
    """Of a difference of scores, fractions; 95 %."""

    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 if all of it is above zero, -1 if all of it is below, 0 if it includes zero."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Spread:
    """A score over n seeds.

    Attributes:
        sd: Sample standard deviation (divisor n - 1); None for fewer than two.
    """

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """A score of one arm minus that of another, as fractions.

    Attributes:
        pairs: By seed, the difference of the two runs that share it.
        sd: Sample standard deviation over the pairs; None for fewer than two.
        over_seeds: Student's t; None for fewer than two pairs.
        over_images: Bootstrap of the mean over the pairs; None where `no_images` says why.
        images: Over which the bootstrap went.
        no_images: Why there is no interval over images; empty if there is one.
    """

    mean: float
    pairs: Mapping[int, float]
    sd: float | None
    over_seeds: Interval | None
    over_images: Interval | None = None
    images: int | None = None
    no_images: str = ""


@dataclass(frozen=True)
class Verdict:
    """What our runs say of a claim, by one metric.

    Attributes:
        sentence: The numbers, and why they tell nothing if they do not; to be read after `word`.
        difference: Of the arm that is said to be better; None if no pair of runs is there.
        published: The same difference in the source, as a fraction; None if it has none.
    """

    claim: Claim
    metric: Metric
    word: Word
    sentence: str
    difference: Difference | None
    published: float | None


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and standard deviation; None without any value."""
    if not values:
        return None
    return Spread(
        len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    )


def difference(
    ours: Arm, theirs: Arm, metric: str, bootstrap: Bootstrap | None = None, place: Place | None = None
) -> Difference | None:
    """Return ours minus theirs over the seeds that both have.

    Args:
        ours: Arm.
        theirs: Arm that is subtracted.
        metric: Name.
        bootstrap: For the interval over images; None leaves it out.
        place: On an axis; None for the runs' own scores.

    Returns:
        None if no seed has the score in both arms.
    """
    both: list[tuple[SeedRun, SeedRun]] = []
    pairs: dict[int, float] = {}
    for run in sorted(ours.runs, key=lambda run: run.seed):
        other = next((other for other in theirs.runs if other.seed == run.seed), None)
        if other is None:
            continue
        values = score_of(run, metric, place), score_of(other, metric, place)
        if values[0] is not None and values[1] is not None:
            both.append((run, other))
            pairs[run.seed] = values[0] - values[1]
    if not pairs:
        return None
    values = list(pairs.values())
    sd = statistics.stdev(values) if len(values) > 1 else None
    mean = statistics.fmean(values)
    found = Difference(mean, pairs, sd, student(values))
    if bootstrap is None:
        return found
    try:
        low, high, images = bootstrap.interval(both, metric, place)
    except ValueError as error:
        return replace(found, no_images=str(error))
    return replace(found, over_images=Interval(low, high), images=images)


def judge(outcome: StudyOutcome, claim: Claim, metric: str, bootstrap: Bootstrap | None = None) -> Verdict:
    """Hold a claim against the runs.

    It held if every interval there is lies above zero, did not hold if every one lies below, and could not be
    told otherwise: also with fewer than two pairs of runs, as one training says nothing of the next.
    """
    better, worse, measured = outcome.arm(claim.better), outcome.arm(claim.worse), outcome.metric(metric)
    place = None if claim.axis is None or claim.at is None else (claim.axis, claim.at)
    published = None
    if claim.axis is None and metric in better.published and metric in worse.published:
        published = better.published[metric] - worse.published[metric]
    waits = claim.axis is not None and place is None
    found = None if waits else difference(better, worse, metric, bootstrap, place)
    if found is None:
        reason = (
            "nothing has been measured there yet" if waits else "no pair of finished runs with the same seed"
        )
        sentence = f"{measured.title}: {reason}."
        return Verdict(claim, measured, "could not be told", sentence, None, published)
    n = len(found.pairs)
    where = "" if place is None else f" at {outcome.axis(place[0]).words} {label_of(outcome, place)}"
    text = f"{measured.title} of {better.label}{where} {points(found.mean)} points against {worse.label}"
    text += f", mean of {n} pairs of runs" if n > 1 else ", one pair of runs"
    known = {"seeds": found.over_seeds, "images": found.over_images}
    ranges = [
        f"{points(i.low)} to {points(i.high)} over {name}" for name, i in known.items() if i is not None
    ]
    text += f" (95 % interval {', '.join(ranges)})" if ranges else ""
    word, reason = _word(found)
    return Verdict(claim, measured, word, f"{text}{reason and ': '}{reason}.", found, published)


def _word(found: Difference) -> tuple[Word, str]:
    """What a difference says of the claim that it is above zero, and why it says nothing if it does not."""
    if found.over_seeds is None:
        return "could not be told", "it says nothing of other trainings"
    signs = {"seeds": found.over_seeds.sign}
    if found.over_images is not None:
        signs["images"] = found.over_images.sign
    if set(signs.values()) == {1}:
        return "held", ""
    if set(signs.values()) == {-1}:
        return "did not hold", ""
    zero = [name for name, sign in signs.items() if sign == 0]
    if len(zero) == len(signs):
        return "could not be told", "the interval includes zero" if len(zero) == 1 else "both include zero"
    return "could not be told", f"the one over {zero[0]} includes zero" if zero else "the intervals disagree"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * fraction + 0.0:+.2f}"


def student(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean of values by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    reach = t_quantile(0.5 + LEVEL / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return Interval(mean - reach, mean + reach)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the value that Student's t with whole degrees of freedom stays below with a probability.

    Raises:
        ValueError: Not 0.5 <= probability < 1, or no degree of freedom.
    """
    if not 0.5 <= probability < 1 or freedom < 1:
        raise ValueError(f"probability {probability}, {freedom} degrees of freedom: expected 0.5 to 1, and 1")
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(freedom)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, freedom) < probability else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _t_below(angle: float, freedom: int) -> float:
    """Probability below t = tan(angle) sqrt(freedom): a finite series (Abramowitz and Stegun, 26.7.3-4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    if not odd:
        return 0.5 + sine * total / 2
    return 0.5 + (angle + (sine * total if freedom > 1 else 0.0)) / math.pi
