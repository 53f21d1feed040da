"""How much of a network's score comes from its attention: what replacing it costs, in numbers and a sentence.

Scores are fractions 0..1. A contribution is the score as trained minus the score with attention replaced, in
the same images; its interval is over images.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from botvision.io.files import write_json
from botvision.metrics.bootstrap import ImageSampler, interval_of, per_image_file
from botvision.metrics.seeds import Interval

FILE = "attention_use.json"
TITLES = {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP"}  # the last one that there is counts


@dataclass(frozen=True)
class Contribution:
    """Of attention to one score: as trained minus with attention replaced, and its interval over images."""

    mean: float
    interval: Interval

    def negated(self) -> "Contribution":
        """Return what replacing attention changes the score by."""
        return Contribution(-self.mean, Interval(-self.interval.high, -self.interval.low))

    def text(self) -> str:
        """Return both in percentage points, e.g. `+1.9 (95 % +1.2 to +2.6)`."""
        return f"{self.mean_text()} (95 % {self.interval_text()})"

    def mean_text(self) -> str:
        """Return the mean in percentage points, e.g. `+1.9`."""
        return _points(self.mean)

    def interval_text(self) -> str:
        """Return the interval in percentage points, e.g. `+1.2 to +2.6`."""
        return f"{_points(self.interval.low)} to {_points(self.interval.high)}"


@dataclass(frozen=True)
class Effect:
    """Of one replacement.

    Attributes:
        how: what took the place of attention, an `Ablation`.
        block: name of the one block in which it did; None for all of them.
        scores: with attention replaced, by metric.
        contributions: by metric.
    """

    how: str
    block: str | None
    scores: Mapping[str, float]
    contributions: Mapping[str, Contribution]


@dataclass(frozen=True)
class AttentionUse:
    """What all replacements did to one run.

    Attributes:
        split: of the images; `data`: name of the data.
        images: number of images.
        as_trained: scores without any replacement, by metric.
        blocks: names of the blocks with attention.
        effects: in the order in which they were measured.
        run: of summary.json, which tells whether the run has been trained on since: steps, kept.
    """

    split: str
    images: int
    as_trained: Mapping[str, float]
    blocks: tuple[str, ...]
    effects: tuple[Effect, ...]
    run: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """Name of the score that counts: top-1, mask AP, or box AP without masks."""
        known = [name for name in TITLES if name in self.as_trained]
        if not known:
            raise ValueError("the images have no objects that a score could be measured on")
        return known[-1]

    def effect(self, how: str, block: str | None = None) -> Effect | None:
        """Return the effect of a replacement; None if it was not measured."""
        return next((each for each in self.effects if (each.how, each.block) == (how, block)), None)

    def sentence(self) -> str:
        """Say what attention contributes and which block most of it, or that it contributes nothing."""
        none, even = self.effect("zero"), self.effect("even")
        if none is None:
            raise ValueError("the sentence needs an evaluation without attention")
        title, found = TITLES[self.metric], none.contributions[self.metric]
        parts = [f"{_verb(found)} {found.text()} {title} over none"]
        if even is not None:
            over = even.contributions[self.metric]
            nothing = " (nothing measurable)" if found.interval.sign and not over.interval.sign else ""
            parts.append(f"{over.text()} over even weights{nothing}")
        most = self._most(found.mean) if found.interval.sign > 0 and len(self.blocks) > 1 else ""
        return ", ".join(parts) + most

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        effects = [
            {
                "attention": each.how,
                "block": each.block or "all",
                **each.scores,
                "contribution": {
                    name: {"mean": found.mean, **asdict(found.interval)}
                    for name, found in each.contributions.items()
                },
            }
            for each in self.effects
        ]
        return {
            "summary": self.sentence(),
            "split": self.split,
            "images": self.images,
            "run": dict(self.run),
            "blocks": list(self.blocks),
            "as_trained": dict(self.as_trained),
            "effects": effects,
        }

    def _most(self, total: float) -> str:
        """Which block does most of it, if that was measured; effects of single blocks do not add up."""
        alone = [each for name in self.blocks if (each := self.effect("zero", name)) is not None]
        most = [str(each.block) for each in alone if each.contributions[self.metric].mean > total / 2]
        if len(most) > 1:
            return f"; without any of {', '.join(most)} more than half of it is lost"
        if alone:
            return f"; {most[0]} does most of it" if most else "; no single block does most of it"
        return ""


def effect_of(
    sampler: ImageSampler, label: tuple[str, str | None], own: Path, replaced: Path, metrics: Sequence[str]
) -> Effect:
    """Hold an evaluation with attention replaced against the one as trained.

    Args:
        sampler: which keeps what it has read.
        label: what took the place of attention, and the name of the one block.
        own: JSON of the evaluation as trained; the file of single images lies beside it.
        replaced: of the other.
        metrics: names; those that the ground truth has nothing of are left out.

    Raises:
        ValueError: files that cannot be read, or evaluations of other images.
    """
    scores, contributions = {}, {}
    for name in metrics:
        ours, theirs = (sampler.sampled(per_image_file(path, name), name) for path in (own, replaced))
        if ours.mark != theirs.mark:
            raise ValueError(
                f"{own.name} is of other images than there are now; evaluate the run as trained again"
            )
        if math.isfinite(ours.whole):
            scores[name] = theirs.whole
            interval = interval_of(ours.samples - theirs.samples)
            contributions[name] = Contribution(ours.whole - theirs.whole, interval)
    return Effect(*label, scores, contributions)


def save_use(use: AttentionUse, path: Path) -> None:
    """Write JSON, all of it or nothing."""
    write_json(path, use.to_dict())


def load_use(path: Path) -> AttentionUse | None:
    """Read what `save_use` wrote in a run folder; None where there is none, or the run was trained on since.

    Raises:
        ValueError: the file is not such a file.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        summary = json.loads((path.parent / "summary.json").read_text(encoding="utf-8"))
        blocks, effects = tuple(found["blocks"]), tuple(_effect(each) for each in found["effects"])
        use = AttentionUse(
            found["split"], found["images"], found["as_trained"], blocks, effects, found["run"]
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path}: not a file of eval --attention all ({type(error).__name__})") from None
    return use if use.run == run_facts(summary) else None


def run_facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of its summary.json tells the state of a run."""
    return {key: summary.get(key) for key in ("steps", "kept")}


def _effect(found: Mapping[str, Any]) -> Effect:
    contributions = {
        name: Contribution(each["mean"], Interval(each["low"], each["high"]))
        for name, each in found["contribution"].items()
    }
    block = None if found["block"] == "all" else found["block"]
    return Effect(found["attention"], block, {name: found[name] for name in contributions}, contributions)


def _verb(found: Contribution) -> str:
    if found.interval.sign > 0:
        return "attention contributes"
    return "attention costs:" if found.interval.sign < 0 else "attention contributes nothing measurable:"


def _points(fraction: float) -> str:
    return f"{100 * fraction + 0.0:+.1f}".replace("-0.0", "+0.0")
