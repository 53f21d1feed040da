"""What an outcome says of arms and places."""

from dataclasses import replace

from botvision.studies.outcome import Arm, RunCost
from tests.studies.outcomes import by_distance, cifar, outcome_of, run


def test_steps_measured_side_by_side_count_if_every_arm_has_one():
    slow, fast = (run(k, {}, cost=RunCost(10, 20, step, 100.0 * step)) for k, step in ((0, 3.0), (1, 2.0)))
    r, bot = Arm("r", "a", (slow, fast), step_ms=5.0), Arm("bot", "b", (slow,))
    assert outcome_of(r, bot).cost_of(r) == RunCost(10, 20, 2.5, 250.0)
    both = outcome_of(r, replace(bot, step_ms=7.0))
    assert [getattr(both.cost_of(arm), "step_ms", None) for arm in both.arms] == [5.0, 7.0]
    assert both.cost_of(replace(r, runs=())) is None


def test_places_are_called_by_their_labels(tmp_path):
    numbers = cifar({"r": [0.70]})
    assert [numbers.label_of(place) for place in numbers.places("size")] == ["24", "32", "48"]
    intervals = by_distance({"r": [(1.0,) * 6]}, tmp_path)
    assert intervals.label_of(intervals.places("distance")[-1]) == "76.8 to 112"
    assert intervals.places("size") == []
