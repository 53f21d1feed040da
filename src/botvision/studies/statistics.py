"""How sure a difference of arms is: over seeds, over images, and what follows for a claim.

Two things are left to chance, and each has an interval of its own. Over seeds: would other trainings,
measured on these images, say the same? A bootstrap of three values knows nothing of their tails, so that
this one is Student's t over the pairs of runs with the same seed. Over images: would these trained networks,
measured on other images, say the same? There the images, the same ones for both arms, are drawn anew with
replacement.
"""

from dataclasses import dataclass, replace
from typing import Literal

from botvision.metrics import seeds
from botvision.metrics.seeds import Interval
from botvision.studies.bootstrap import Bootstrap
from botvision.studies.outcome import Arm, Claim, Metric, Place, StudyOutcome, label_of, score_of
from botvision.tables.markdown import points

Word = Literal["held", "did not hold", "could not be told", "not measured yet"]

ROUNDING = 1e-9  # differences closer to each other are equal: subtraction rounds, and no score is as fine


@dataclass(frozen=True)
class Difference(seeds.Difference):
    """A score of one arm minus that of another, over seeds and over images.

    Attributes:
        over_images: Bootstrap of the mean over the pairs; None where `no_images` says why.
        images: Over which the bootstrap went.
        no_images: Why there is no interval over images; empty if there is one.
    """

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
    mine, other = ({run.seed: run for run in arm.runs} for arm in (ours, theirs))
    scores = [
        {seed: value for seed, run in runs.items() if (value := score_of(run, metric, place)) is not None}
        for runs in (mine, other)
    ]
    over_seeds = seeds.paired(*scores)
    if over_seeds is None:
        return None
    both = [(mine[seed], other[seed]) for seed in over_seeds.pairs]
    found = Difference(**vars(over_seeds))
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
    told otherwise: also with fewer than two pairs of runs, as one training says nothing of the next. Where
    all pairs differ by the same, the interval over seeds has no width, as if nothing were left to chance:
    that is no knowledge of other trainings, and the one over images decides alone.
    """
    better, worse, measured = outcome.arm(claim.better), outcome.arm(claim.worse), outcome.metric(metric)
    place = claim.place
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
        return Verdict(claim, measured, "not measured yet", sentence, None, published)
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
    values = found.pairs.values()
    if max(values) - min(values) > ROUNDING:
        return _by_intervals(found.over_seeds, found.over_images)
    if abs(found.mean) <= ROUNDING:
        return "could not be told", "both score the same with every seed"
    same = "every pair differs by the same, which says nothing of other trainings"
    if found.over_images is None:
        return "could not be told", same
    word, reason = _by_intervals(found.over_seeds, found.over_images)
    return word, f"{reason}, and {same}" if reason else f"by the one over images alone, as {same}"


def _by_intervals(over_seeds: Interval, over_images: Interval | None) -> tuple[Word, str]:
    """The word, and why it is neither yes nor no."""
    signs = {"seeds": over_seeds.sign}
    if over_images is not None:
        signs["images"] = over_images.sign
    if set(signs.values()) == {1}:
        return "held", ""
    if set(signs.values()) == {-1}:
        return "did not hold", ""
    zero = [name for name, sign in signs.items() if sign == 0]
    if len(zero) == len(signs):
        return "could not be told", "the interval includes zero" if len(zero) == 1 else "both include zero"
    return "could not be told", f"the one over {zero[0]} includes zero" if zero else "the intervals disagree"
