"""Charts: what is drawn is said in words, and only where there is something to draw."""

from dataclasses import replace
from itertools import pairwise

from matplotlib.figure import Figure

from botvision.studies import figures
from botvision.studies.analysis import analyse
from botvision.studies.bootstrap import Bootstrap
from botvision.studies.chart import HEIGHT, label_places
from botvision.studies.figures import charts
from botvision.studies.outcome import Cost
from tests.studies.outcomes import by_distance, cifar


def drawn(outcome):
    return charts(analyse(outcome, Bootstrap(10)))


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


def test_places_are_called_as_in_the_tables(tmp_path, monkeypatch):
    """An interval by its ends, at the ticks and in words; its middle is where it is drawn."""
    given = {}
    monkeypatch.setattr(figures, "drawn", lambda draw, title, *rest: given.setdefault(title, (draw, *rest)))
    outcome = by_distance({"r": [(1.0, 1.0, 1.0, 0.99, 0.75, 0.52)]}, tmp_path)
    drawn(replace(outcome, claims=()))
    draw, _, alt, height = given["top-1 by distance of the two glyphs (pixels)"]
    assert alt == (
        "top-1 by distance of the two glyphs (pixels): R 100.00 % at 12.8 to 19.2 and 52.00 % at 76.8 to 112."
    )
    axes = Figure().subplots()
    draw(axes)
    names = {
        at: label.get_text() for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    }
    assert names == {
        16: "12.8 to 19.2", 22.4: "19.2 to 25.6", 32: "25.6 to 38.4", 48: "38.4 to 57.6",
        67.2: "57.6 to 76.8", 94.4: "76.8 to 112",
    }  # fmt: skip
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {45}
    assert height > HEIGHT + 0.5  # what turned labels need is not taken from the curves


def test_labels_do_not_run_into_each_other():
    level = label_places({24: "24", 32: "32", 48: "48"})
    assert (level.turned, level.height) == (False, 0)
    turned = label_places({at: f"{at}.0 to {at + 20}.0" for at in range(0, 100, 20)})
    assert (turned.turned, len(turned.labels)) == (True, 5)
    many = label_places({at: f"{at} to {at + 1}" for at in range(50)})
    assert {0, 49} < set(many.labels)
    ends = sorted(many.labels)
    assert 5 < len(ends) < 15
    assert min(b - a for a, b in pairwise(ends)) == 4  # 250 / 49 points a place, 13 * sqrt(2) are needed
    assert label_places({7: "a place of its own"}).labels == {7: "a place of its own"}


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
    assert found["differences"] == ()


def test_what_was_not_measured_has_no_chart():
    outcome = cifar({"r": [0.70]}, claims=())
    arm = outcome.arms[0]
    bare = replace(arm.runs[0], cost=Cost(10, 20), curve=(), evaluations=())
    found = drawn(replace(outcome, arms=(replace(arm, runs=(bare,)),)))
    assert found["learning"] == found["places"] == ()
    assert len(found["cost"]) == 2


def test_many_arms_have_looks_of_their_own():
    outcome = cifar({f"a{k}": [0.5 + k / 100, 0.6] for k in range(9)})
    (places,) = drawn(outcome)["places"]
    assert places.svg.startswith("<svg ")
    assert places.svg.endswith("</svg>")
    assert all(f"var(--arm-{k}," in places.svg for k in range(7))


def test_the_same_values_give_the_same_text():
    outcome = cifar({"r": [0.70, 0.72], "bot": [0.75, 0.77]})
    assert drawn(outcome) == drawn(outcome)
