"""Scores over seeds: mean, spread, and how sure a difference is, by Student's t over pairs of runs.

Scores are fractions 0..1. A pair is two runs with the same seed: what a seed does to both cancels out.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95  # of every interval
POWER = 0.8  # chance with which a difference that counts as detectable is told from zero


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
    """A score over n seeds; `sd` is the sample standard deviation (by n - 1), None for fewer than two."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """A score of some runs minus that of others, as fractions.

    Attributes:
        mean: over the pairs; where there are none, it may be the difference of the two means.
        pairs: by seed, the difference of the two runs that share it.
        sd: sample standard deviation over the pairs; None for fewer than two.
        over_seeds: Student's t; None for fewer than two pairs.
    """

    mean: float
    pairs: Mapping[int, float]
    sd: float | None
    over_seeds: Interval | None


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and standard deviation; None without any value."""
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), sd)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Return ours minus theirs, both scores by seed; None if they share no seed."""
    return difference({seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())})


def difference(pairs: Mapping[int, float]) -> Difference | None:
    """Return what differences by seed amount to; None without any."""
    found = spread(list(pairs.values()))
    return None if found is None else Difference(found.mean, pairs, found.sd, student(list(pairs.values())))


def student(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean of values by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    reach = t_quantile(0.5 + LEVEL / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return Interval(mean - reach, mean + reach)


def detectable(sd: float, n: int) -> float:
    """Return the true difference that `n` pairs would tell from zero in `POWER` of all studies like this.

    By Student's t, with the standard deviation of the pairs' differences; approximate, too low for very few
    pairs.

    Args:
        sd: sample standard deviation over the pairs.
        n: number of pairs, at least two.
    """
    return (t_quantile(0.5 + LEVEL / 2, n - 1) + t_quantile(POWER, n - 1)) * sd / math.sqrt(n)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the value that Student's t with whole degrees of freedom stays below with a probability.

    Raises:
        ValueError: not 0.5 <= probability < 1, or no degree of freedom.
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
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    if not odd:
        return 0.5 + sine * total / 2
    return 0.5 + (angle + (sine * total if freedom > 1 else 0.0)) / math.pi
