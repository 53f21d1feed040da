"""Charts: what is drawn is said in words, and only where there is something to draw."""

from dataclasses import replace

from botvision.study.analysis import analyse
from botvision.study.bootstrap import Bootstrap
from botvision.study.figures import charts
from botvision.study.result import Cost
from tests.study.outcomes import cifar


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
