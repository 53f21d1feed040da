"""A study's outcome refuses names that refer to nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from botvision.studies.outcome import (
    Arm,
    Axis,
    Claim,
    Cost,
    Evaluation,
    Metric,
    SeedRun,
    StudyOutcome,
    cost_of,
)


def run(seed=0, axis=None):
    evaluations = (Evaluation(axis, 64, {"top1": 0.5}),) if axis else ()
    return SeedRun(seed, Path(f"arm-s{seed}"), {"top1": 0.5}, Cost(10, 20), evaluations=evaluations)


def outcome(**changes):
    arms = (Arm("r", "ResNet", (run(),)), Arm("bot", "BoTNet", (run(),), baseline="r"))
    return replace(StudyOutcome("cifar", "t", "q", "cpu", arms, (Metric("top1", "top-1"),)), **changes)


def test_finds_arms_and_metrics_by_name():
    found = outcome()
    assert (found.arm("bot").label, found.metric("top1").title) == ("BoTNet", "top-1")
    with pytest.raises(KeyError):
        found.arm("t")
    with pytest.raises(KeyError):
        found.metric("t")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ()}, "at least one arm"),
        ({"metrics": ()}, "at least one arm and one metric"),
        ({"arms": (Arm("r", "a", ()), Arm("r", "b", ()))}, "arm r is there twice"),
        ({"arms": (Arm("r", "a", (run(3), run(3))),)}, "arm r: seed 3 is there twice"),
        ({"arms": (Arm("r", "a", (), baseline="x"),)}, "baseline x is unknown, expected one of r"),
        ({"arms": (Arm("r", "a", (), published={"box_ap": 0.4}),)}, "published metric box_ap is unknown"),
        ({"arms": (Arm("r", "a", (run(axis="size"),)),)}, "axis size is unknown, expected one of none"),
        ({"arms": (Arm("r", "a", (), trained_at={"size": 3}),)}, "axis size is unknown"),
        ({"claims": (Claim("c", "bot", "x", ("top1",), "s"),)}, "claim 'c': arm x is unknown"),
        ({"claims": (Claim("c", "bot", "r", ("ap",), "s"),)}, "metric ap is unknown, expected one of top1"),
        ({"claims": (Claim("c", "bot", "r", ("top1",), "s", axis="d"),)}, "axis d is unknown"),
    ],
)
def test_refuses_what_refers_to_nothing(changes, said):
    with pytest.raises(ValueError, match=said):
        outcome(**changes)


def test_steps_measured_side_by_side_count_if_every_arm_has_one():
    slow, fast = (replace(run(k), cost=Cost(10, 20, step, 100.0 * step)) for k, step in ((0, 3.0), (1, 2.0)))
    r, bot = Arm("r", "a", (slow, fast), step_ms=5.0), Arm("bot", "b", (slow,))
    assert cost_of(outcome(arms=(r, bot)), r) == Cost(10, 20, 2.5, 250.0)
    both = outcome(arms=(r, replace(bot, step_ms=7.0)))
    assert [getattr(cost_of(both, arm), "step_ms", None) for arm in both.arms] == [5.0, 7.0]
    assert cost_of(both, replace(r, runs=())) is None


def test_takes_an_axis_that_is_declared():
    arms = (Arm("r", "ResNet", (run(axis="size"),), trained_at={"size": 32}),)
    assert outcome(arms=arms, axes=(Axis("size", "Image size (pixels)"),)).arms == arms
