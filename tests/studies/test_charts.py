"""Charts: what is drawn is said in words, and only where there is something to draw."""

import re
from dataclasses import replace

from botvision.metrics.bootstrap import ImageSampler
from botvision.studies import charts
from botvision.studies.charts import axis_charts, cost_charts, difference_charts, learning_charts
from botvision.studies.outcome import RunCost
from botvision.studies.statistics import analyse
from tests.studies.outcomes import by_distance, cifar


def drawn(outcome):
    found = analyse(outcome, ImageSampler(10))
    return {
        "differences": list(difference_charts(found)),
        "places": [chart for axis in outcome.axes for chart in axis_charts(found, axis)],
        "learning": list(learning_charts(found)),
        "cost": list(cost_charts(found)),
    }


def test_words_carry_the_numbers():
    found = drawn(cifar({"r": [0.70, 0.72], "bot": [0.75, 0.77]}))
    assert {name: len(some) for name, some in found.items()} == {
        "differences": 1, "places": 1, "learning": 2, "cost": 4
    }  # fmt: skip
    (places,) = found["places"]
    assert places.title == "top-1 by image size (pixels)"
    assert places.alt == (
        "top-1 by image size (pixels): R 67.00 % at 24 and 63.00 % at 48; "
        "BOT 72.00 % at 24 and 68.00 % at 48."
    )
    assert "Rings: where the arm was trained." in places.caption
    top1, loss = found["learning"]
    assert top1.alt == "top-1 (%) by epoch: R 71 after epoch 3, BOT 76 after epoch 3."
    assert loss.alt == "Training loss by epoch: R 0.6667 after epoch 3, BOT 0.6667 after epoch 3."
    assert found["cost"][1].alt == "top-1 over Parameters (1e6): R 1.5 and 71.00 %, BOT 1.1 and 76.00 %."
    assert found["cost"][0].title == "top-1 over M.Adds of an image"
    assert found["cost"][1].title == "top-1 over parameters"


def test_places_are_called_as_in_the_tables(tmp_path):
    """An interval by its ends, at the ticks and in words; its middle is where it is drawn."""
    (level,) = drawn(cifar({"r": [0.70]}))["places"]
    outcome = by_distance({"r": [(1.0, 1.0, 1.0, 0.99, 0.75, 0.52)]}, tmp_path)
    (chart,) = drawn(outcome)["places"]
    assert chart.alt == (
        "top-1 by distance to the mark (pixels): R 100.00 % at 12.8 to 19.2 and 52.00 % at 76.8 to 112."
    )
    names = ("12.8 to 19.2", "19.2 to 25.6", "25.6 to 38.4", "38.4 to 57.6", "57.6 to 76.8", "76.8 to 112")
    assert [name for name in names if f"<!-- {name} -->" in chart.svg] == list(names)
    assert (chart.svg.count("rotate(-45)"), level.svg.count("rotate(-45)")) == (6, 0)
    # what turned labels need is not taken from the curves
    height = [float(re.findall(r'height="(.*?)pt"', each.svg)[0]) for each in (level, chart)]
    assert height[1] > height[0] + 36


def test_costs_are_those_measured_side_by_side():
    outcome = cifar({"r": [0.70], "bot": [0.75]})
    arms = tuple(replace(arm, step_ms=80.0 + 10 * k) for k, arm in enumerate(outcome.arms))
    chart = drawn(replace(outcome, arms=arms))["cost"][2]
    assert chart.alt == "top-1 over Training step (ms): R 80 and 70.00 %, BOT 90 and 75.00 %."


def test_epochs_that_were_not_evaluated_are_left_out():
    outcome = cifar({"r": [0.70]})
    curve = ({"epoch": 1.0, "val_top1": float("nan")}, {"epoch": 2.0, "val_top1": 0.5})
    arm = outcome.arms[0]
    runs = (replace(arm.runs[0], curve=curve),)
    found = drawn(replace(outcome, arms=(replace(arm, runs=runs),), claims=()))
    assert [chart.alt for chart in found["learning"]] == ["top-1 (%) by epoch: R 50 after epoch 2."]
    assert found["differences"] == []


def test_what_was_not_measured_has_no_chart():
    outcome = cifar({"r": [0.70]}, claims=())
    arm = outcome.arms[0]
    bare = replace(arm.runs[0], cost=RunCost(10, 20), curve=(), evaluations=())
    found = drawn(replace(outcome, arms=(replace(arm, runs=(bare,)),)))
    assert found["learning"] == found["places"] == []
    assert len(found["cost"]) == 2


def test_many_arms_have_looks_of_their_own():
    outcome = cifar({f"a{k}": [0.5 + k / 100, 0.6] for k in range(9)})
    (places,) = drawn(outcome)["places"]
    assert all(colour in places.svg for colour in charts.COLOURS)


def test_the_same_values_give_the_same_text():
    outcome = cifar({"r": [0.70, 0.72], "bot": [0.75, 0.77]})
    assert drawn(outcome) == drawn(outcome)
