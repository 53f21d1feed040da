"""How sure a difference of arms is, over seeds and over images, and what follows for a claim.

Two things are left to chance, and each has an interval of its own. Over seeds: would other trainings,
measured on these images, say the same? A bootstrap of three values knows nothing of their tails, so that
this one is Student's t over the runs with the same seed. Over images: would these trained networks,
measured on other images, say the same? There the images, the same ones for all arms, are drawn anew with
replacement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from botvision.metrics.bootstrap import ImageSampler, interval_of, per_image_file
from botvision.metrics.seeds import LEVEL, Difference, Interval, Spread, difference, spread
from botvision.studies.outcome import Arm, Evaluation, Outcome, SeedRun
from botvision.studies.spec import Claim, Place, Term
from botvision.tables.markdown import points

Word = Literal["held", "did not hold", "inconclusive", "not measured yet"]

ROUNDING = 1e-9  # differences closer to each other are equal: subtraction rounds, and no score is as fine
EQUAL = 1e-6  # a score from the file of single images may differ from the summary's by its rounding


@dataclass(frozen=True)
class Contrast(Difference):
    """A score of one arm minus that of another, or the difference of two such differences.

    Attributes:
        over_images: bootstrap of the mean over the seeds; None where `no_images` says why.
        images: over which the bootstrap went.
        no_images: why there is no interval over images; empty if there is one.
    """

    over_images: Interval | None = None
    images: int | None = None
    no_images: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "pairs": {str(seed): value for seed, value in self.pairs.items()}}


@dataclass(frozen=True)
class Verdict:
    """What became of a claim, by one metric.

    Attributes:
        word: "not measured yet" where no seed has all runs.
        sentence: the numbers, and why nothing can be said if nothing can.
        terms: what is added up; None as long as nothing was measured there.
        published: the same difference in the source, as a fraction; None if it has none.
    """

    claim: Claim
    metric: str
    word: Word
    sentence: str
    terms: tuple[Term, ...] | None
    contrast: Contrast | None
    published: float | None


@dataclass(frozen=True)
class Analysis:
    """A study and what follows from it.

    Attributes:
        spreads: by arm and metric, over seeds; without those that no run has.
        differences: by arm, metric and place (None: own scores), against the arm's baseline; without those
            that have no pair of runs.
        verdicts: one for each claim and each of its metrics.
        resamples: of the bootstrap over images.
    """

    outcome: Outcome
    spreads: Mapping[tuple[str, str], Spread]
    differences: Mapping[tuple[str, str, Place | None], Contrast]
    verdicts: tuple[Verdict, ...]
    resamples: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values: scores as fractions, run folders by their last part."""
        outcome = self.outcome
        uses = [{"arm": arm, "seed": seed, **use.to_dict()} for (arm, seed), use in outcome.uses.items()]
        return {
            **_fields(outcome, "name", "title", "question", "scale"),
            "interval": f"{100 * LEVEL:g} %",
            "resamples": self.resamples,
            "verdicts": [self._verdict(verdict) for verdict in self.verdicts],
            "arms": [self._arm(arm) for arm in outcome.arms],
            **_fields(outcome, "common", "environment", "commands", "warnings", "notes"),
            "attention_use": uses,
        }

    def _verdict(self, found: Verdict) -> dict[str, Any]:
        claim, terms = found.claim, found.terms
        place, other = (None, None) if terms is None else (terms[0][2], terms[-1][2])
        interaction = {"than": asdict(claim.than)} if claim.than else {}
        interaction |= {"beyond": other and other[1]} if claim.beyond is not None else {}
        return {
            "claim": claim.text,
            **_fields(claim, "source", "better", "worse", "axis"),
            "at": place and place[1],
            "label": place and self.outcome.label_of(place),
            **interaction,
            "metric": found.metric,
            "verdict": found.word,
            **_fields(found, "sentence", "published"),
            "difference": found.contrast and found.contrast.to_json(),
        }

    def _arm(self, arm: Arm) -> dict[str, Any]:
        own = {metric: self.spreads.get((arm.name, metric)) for metric in self.outcome.metrics}
        found = [(key, each.to_json()) for key, each in self.differences.items() if key[0] == arm.name]
        return {
            **_fields(arm, "name", "label", "baseline", "settings"),
            "scores": {metric: asdict(each) for metric, each in own.items() if each is not None},
            "differences": {metric: each for (_, metric, place), each in found if place is None},
            "differences_along": [
                {**self._named(place), "metric": metric, **each}
                for (_, metric, place), each in found
                if place is not None
            ],
            **_fields(arm, "published", "source", "trained_at", "step_ms"),
            "runs": [self._run(run) for run in arm.runs],
        }

    def _run(self, run: SeedRun) -> dict[str, Any]:
        columns = ("train_loss", *(f"val_{metric}" for metric in self.outcome.metrics))
        evaluations = [
            {**self._named((each.axis, each.at)), **_fields(each, "images", "scores")}
            for each in run.evaluations
        ]
        curve = [{"epoch": int(row["epoch"]), **{c: row.get(c) for c in columns}} for row in run.curve]
        return {
            "seed": run.seed,
            "folder": run.folder.name,
            "scores": run.scores,
            "cost": asdict(run.cost),
            **_fields(run, "images", "hardware"),
            "evaluations": evaluations,
            "curve": curve,
        }

    def _named(self, place: Place) -> dict[str, Any]:
        return {"axis": place[0], "at": place[1], "label": self.outcome.label_of(place)}


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def analyse(outcome: Outcome, sampler: ImageSampler | None = None) -> Analysis:
    """Work out what a study says; seconds of bootstrap where runs kept what they made of single images."""
    sampler = sampler or ImageSampler()
    spreads: dict[tuple[str, str], Spread] = {}
    differences: dict[tuple[str, str, Place | None], Contrast] = {}
    places = (None, *(place for axis in sorted(outcome.axes) for place in outcome.places(axis)))
    for arm in outcome.arms:
        for metric in outcome.metrics:
            own = spread_of(arm, metric)
            if own is not None:
                spreads[arm.name, metric] = own
            for place in places if arm.baseline is not None else ():
                terms = ((1, arm.name, place), (-1, str(arm.baseline), place))
                found = contrast(outcome, terms, metric, sampler)
                if found is not None:
                    differences[arm.name, metric, place] = found
    verdicts = tuple(
        judge(outcome, claim, metric, sampler) for claim in outcome.claims for metric in claim.metrics
    )
    return Analysis(outcome, spreads, differences, verdicts, sampler.resamples)


def spread_of(arm: Arm, metric: str, place: Place | None = None) -> Spread | None:
    """Return mean and standard deviation over the arm's runs that have the score; None if none has it."""
    values = (run.score(metric, place) for run in sorted(arm.runs, key=lambda run: run.seed))
    return spread([value for value in values if value is not None])


def contrast(
    outcome: Outcome, terms: Sequence[Term], metric: str, sampler: ImageSampler | None = None
) -> Contrast | None:
    """Add up scores, seed by seed.

    Args:
        outcome: with the arms.
        terms: e.g. one arm with sign 1 and another with sign -1.
        metric: name.
        sampler: for the interval over images; None leaves it out.

    Returns:
        None if no seed has the score in all of the terms.
    """
    by_seed = [{run.seed: run for run in outcome.arm(arm).runs} for _, arm, _ in terms]
    chosen: dict[int, list[SeedRun]] = {}
    pairs: dict[int, float] = {}
    for seed in sorted(set(by_seed[0]).intersection(*by_seed[1:])):
        runs = [of_arm[seed] for of_arm in by_seed]
        scores = [run.score(metric, place) for run, (*_, place) in zip(runs, terms, strict=True)]
        if None not in scores:
            chosen[seed] = runs
            pairs[seed] = sum(sign * (score or 0.0) for (sign, *_), score in zip(terms, scores, strict=True))
    found = difference(pairs)
    if found is None:
        return None
    if sampler is None:
        return Contrast(**vars(found))
    try:
        interval, count = _over_images(list(chosen.values()), terms, metric, sampler)
    except ValueError as error:
        return Contrast(**vars(found), no_images=str(error))
    return Contrast(**vars(found), over_images=interval, images=count)


def _over_images(
    runs: Sequence[Sequence[SeedRun]], terms: Sequence[Term], metric: str, sampler: ImageSampler
) -> tuple[Interval, int]:
    """The 95 % interval of the mean over seeds of the runs of each term, and the number of images.

    Every sample of images is the same for all of the runs, so that what makes an image hard for all of them
    cancels out. Raises ValueError where there is no such interval, and why.
    """
    means = np.zeros(sampler.resamples)
    marks: dict[Place | None, bytes] = {}
    counts: dict[bytes, int] = {}
    for members in runs:
        for run, (sign, _, place) in zip(members, terms, strict=True):
            own = Evaluation("", 0.0, run.scores, table=run.folder / "eval.json")
            found = own if place is None else run.evaluation(place)
            file = None if found is None or found.table is None else per_image_file(found.table, metric)
            if found is None or file is None or not file.is_file():
                raise ValueError("the runs kept nothing of single images")
            sampled = sampler.sampled(file, metric, found.group)
            if abs(sampled.whole - found.scores[metric]) > EQUAL:
                raise ValueError(f"{run.folder.name}/{file.name} does not give the run's score")
            means += sign * sampled.samples / len(runs)
            counts[sampled.mark] = sampled.images
            if marks.setdefault(place, sampled.mark) != sampled.mark:
                raise ValueError("the runs were not measured on the same images")
    return interval_of(means), sum(counts.values())


def terms_of(outcome: Outcome, claim: Claim) -> tuple[Term, ...] | None:
    """Return what a claim says to be above zero; None as long as nothing was measured on its axis."""
    places: list[tuple[int, Place | None]] = [(1, None)]
    if claim.axis is not None:
        known = outcome.places(claim.axis)
        if not known:
            return None
        ends = {"lowest": known[0], "highest": known[-1]}
        at = [(1, claim.at), *([] if claim.beyond is None else [(-1, claim.beyond)])]
        places = [
            (sign, ends[end] if isinstance(end, str) else (claim.axis, float(end or 0))) for sign, end in at
        ]
    pairs = [(1, claim.better, claim.worse)]
    pairs += [(-1, claim.than.better, claim.than.worse)] if claim.than else []
    return tuple(
        (sign * outer * inner, arm, place)
        for outer, place in places
        for inner, *pair in pairs
        for sign, arm in zip((1, -1), pair, strict=True)
    )


def judge(outcome: Outcome, claim: Claim, metric: str, sampler: ImageSampler | None = None) -> Verdict:
    """Hold a claim against the runs.

    It held if every interval there is lies above zero, did not hold if every one lies below, and is
    inconclusive otherwise: also with fewer than two seeds, as one training says nothing of the next. Where
    all seeds differ by the same, the interval over seeds has no width, as if nothing were left to chance:
    that is no knowledge of other trainings, and the one over images decides alone.
    """
    terms, title = terms_of(outcome, claim), outcome.metrics[metric].title
    published = None if terms is None else outcome.published(terms, metric)
    found = None if terms is None else contrast(outcome, terms, metric, sampler)
    if found is None or terms is None:
        reason = "no pair of finished runs with the same seed"
        reason = "nothing has been measured there yet" if terms is None else reason
        return Verdict(claim, metric, "not measured yet", f"{title}: {reason}.", terms, None, published)
    n = len(found.pairs)
    text = f"{_said(outcome, claim, terms, title, points(found.mean))}, "
    text += f"mean of {n} pairs of runs" if n > 1 else "one pair of runs"
    known = {"seeds": found.over_seeds, "images": found.over_images}
    ranges = [
        f"{points(i.low)} to {points(i.high)} over {name}" for name, i in known.items() if i is not None
    ]
    text += f" (95 % interval {', '.join(ranges)})" if ranges else ""
    word, reason = _word(found)
    return Verdict(claim, metric, word, f"{text}{reason and ': '}{reason}.", terms, found, published)


def _said(outcome: Outcome, claim: Claim, terms: Sequence[Term], title: str, mean: str) -> str:
    """The beginning of a verdict's sentence."""
    labels = [outcome.arm(arm).label for _, arm, _ in terms]
    places = [
        "" if place is None else f" at {outcome.axes[place[0]].words} {outcome.label_of(place)}"
        for _, _, place in terms
    ]
    if len(terms) == 2:
        return f"{title} of {labels[0]}{places[0]} {mean} points against {labels[1]}"
    lead = f"{title}: the lead of {labels[0]} over {labels[1]}{places[0]} exceeds that "
    other = f"of {labels[2]} over {labels[3]}" if claim.than else places[2].strip()
    return f"{lead}{other} by {mean} points"


def _word(found: Contrast) -> tuple[Word, str]:
    """What a contrast says of the claim that it is above zero, and why it says nothing if it does not."""
    if found.over_seeds is None:
        return "inconclusive", "it says nothing of other trainings"
    signs = {"seeds": found.over_seeds.sign}
    if found.over_images is not None:
        signs["images"] = found.over_images.sign
    word, reason = "inconclusive", "the intervals disagree"
    zero = [name for name, sign in signs.items() if sign == 0]
    if set(signs.values()) in ({1}, {-1}):
        word, reason = ("held" if 1 in signs.values() else "did not hold"), ""
    elif zero:
        reason = f"the one over {zero[0]} includes zero" if len(zero) == 1 else "both include zero"
        reason = "the interval includes zero" if len(signs) == 1 else reason
    if max(found.pairs.values()) - min(found.pairs.values()) > ROUNDING:
        return word, reason
    if abs(found.mean) <= ROUNDING:
        return "inconclusive", "both score the same with every seed"
    same = "every pair differs by the same, which says nothing of other trainings"
    if found.over_images is None:
        return "inconclusive", same
    return word, f"{reason}, and {same}" if reason else f"by the one over images alone, as {same}"
