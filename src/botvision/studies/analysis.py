"""Everything that a report says, computed once: spreads, differences to the baselines, verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from botvision.metrics.seeds import LEVEL, Spread, spread
from botvision.studies.bootstrap import Bootstrap
from botvision.studies.outcome import Arm, Place, StudyOutcome, label_of, score_of
from botvision.studies.statistics import Difference, Verdict, difference, judge


@dataclass(frozen=True)
class Analysis:
    """A study and what follows from it.

    Attributes:
        spreads: By arm and metric, over seeds; without those that no run has.
        differences: By arm and metric, against the arm's baseline; without those that have no pair of runs.
        along: The same at the places of the axes, by arm, metric and place.
        verdicts: One for each claim and each of its metrics.
        resamples: Of the bootstrap over images.
    """

    outcome: StudyOutcome
    spreads: Mapping[tuple[str, str], Spread]
    differences: Mapping[tuple[str, str], Difference]
    along: Mapping[tuple[str, str, Place], Difference]
    verdicts: tuple[Verdict, ...]
    resamples: int

    def places(self, axis: str) -> list[float]:
        """Positions on an axis that any run was measured at, ascending."""
        return [at for name, at in _places(self.outcome) if name == axis]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dump``: scores as fractions, run folders by their last part."""
        outcome = self.outcome
        return {
            "name": outcome.name,
            "title": outcome.title,
            "question": outcome.question,
            "scale": outcome.scale,
            "interval": f"{100 * LEVEL:g} %",
            "resamples": self.resamples,
            "verdicts": [_verdict(outcome, entry) for entry in self.verdicts],
            "arms": [self._arm(arm) for arm in outcome.arms],
            "common": dict(outcome.common),
            "environment": dict(outcome.environment),
            "commands": list(outcome.commands),
            "warnings": list(outcome.warnings),
            "notes": list(outcome.notes),
            "attention_use": [
                {"arm": each.arm, "seed": each.seed, **each.use.to_dict()} for each in outcome.uses
            ],
        }

    def _arm(self, arm: Arm) -> dict[str, Any]:
        metrics = [metric.name for metric in self.outcome.metrics]
        return {
            "name": arm.name,
            "label": arm.label,
            "baseline": arm.baseline,
            "settings": dict(arm.settings),
            "scores": {
                m: asdict(self.spreads[arm.name, m]) for m in metrics if (arm.name, m) in self.spreads
            },
            "differences": {
                m: _difference(self.differences[arm.name, m])
                for m in metrics
                if (arm.name, m) in self.differences
            },
            "differences_along": [
                {**_named(self.outcome, place), "metric": metric, **_difference(found)}
                for (name, metric, place), found in self.along.items()
                if name == arm.name
            ],
            "published": dict(arm.published),
            "source": arm.source,
            "trained_at": dict(arm.trained_at),
            "step_ms": arm.step_ms,
            "runs": [
                {
                    "seed": run.seed,
                    "folder": run.folder.name,
                    "scores": dict(run.scores),
                    "cost": asdict(run.cost),
                    "images": run.images,
                    "hardware": run.hardware,
                    "evaluations": [
                        {**_named(self.outcome, (e.axis, e.at)), "images": e.images, "scores": dict(e.scores)}
                        for e in run.evaluations
                    ],
                    "curve": [_epoch(row, metrics) for row in run.curve],
                }
                for run in arm.runs
            ],
        }


def analyse(outcome: StudyOutcome, bootstrap: Bootstrap | None = None) -> Analysis:
    """Work out what a study says; seconds of bootstrap where runs kept what they made of single images."""
    bootstrap = bootstrap or Bootstrap()
    spreads: dict[tuple[str, str], Spread] = {}
    differences: dict[tuple[str, str], Difference] = {}
    along: dict[tuple[str, str, Place], Difference] = {}
    for arm in outcome.arms:
        for metric in outcome.metrics:
            found = spread_of(arm, metric.name)
            if found is not None:
                spreads[arm.name, metric.name] = found
            if arm.baseline is None:
                continue
            theirs = outcome.arm(arm.baseline)
            against = difference(arm, theirs, metric.name, bootstrap)
            if against is not None:
                differences[arm.name, metric.name] = against
            for place in _places(outcome):
                against = difference(arm, theirs, metric.name, bootstrap, place)
                if against is not None:
                    along[arm.name, metric.name, place] = against
    verdicts = tuple(
        judge(outcome, claim, metric, bootstrap) for claim in outcome.claims for metric in claim.metrics
    )
    return Analysis(outcome, spreads, differences, along, verdicts, bootstrap.resamples)


def spread_of(arm: Arm, metric: str, place: Place | None = None) -> Spread | None:
    """Return mean and standard deviation over the arm's runs that have the score; None if none has it."""
    values = (score_of(run, metric, place) for run in sorted(arm.runs, key=lambda run: run.seed))
    return spread([value for value in values if value is not None])


def _places(outcome: StudyOutcome) -> list[Place]:
    """Where any run was measured, ascending on each axis."""
    return sorted({(e.axis, e.at) for arm in outcome.arms for run in arm.runs for e in run.evaluations})


def _named(outcome: StudyOutcome, place: Place) -> dict[str, Any]:
    return {"axis": place[0], "at": place[1], "label": label_of(outcome, place)}


def _epoch(row: Mapping[str, float], metrics: Sequence[str]) -> dict[str, Any]:
    """What a learning curve needs of a row of metrics.csv, by the names there; None where nothing is."""
    columns = ("train_loss", *(f"val_{metric}" for metric in metrics))
    return {"epoch": int(row["epoch"]), **{column: row.get(column) for column in columns}}


def _difference(found: Difference) -> dict[str, Any]:
    return {**asdict(found), "pairs": {str(seed): value for seed, value in found.pairs.items()}}


def _verdict(outcome: StudyOutcome, found: Verdict) -> dict[str, Any]:
    claim = found.claim
    return {
        "claim": claim.text,
        "source": claim.source,
        "better": claim.better,
        "worse": claim.worse,
        "axis": claim.axis,
        "at": claim.at,
        "label": None if claim.place is None else label_of(outcome, claim.place),
        "metric": found.metric.name,
        "verdict": found.word,
        "sentence": found.sentence,
        "published": found.published,
        "difference": None if found.difference is None else _difference(found.difference),
    }
