"""Means, intervals and verdicts against numbers worked by hand and tables of Student's t."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.matches import match_coco, save_matches
from botvision.coco.sides import SideAccuracy
from botvision.metrics.bootstrap import ImageSampler
from botvision.metrics.predictions import Predictions, save_predictions
from botvision.metrics.seeds import Interval
from botvision.studies.outcome import Arm, Evaluation, Outcome
from botvision.studies.spec import Claim, Pair, Place
from botvision.studies.statistics import Contrast, contrast, judge
from tests.coco.scenes import random_scene
from tests.studies.outcomes import cifar, keep_predictions, outcome_of, run


def difference(
    outcome: Outcome, metric: str, sampler: ImageSampler | None = None, place: Place | None = None
) -> Contrast | None:
    """The second arm minus the first."""
    theirs, ours = (arm.name for arm in outcome.arms[:2])
    return contrast(outcome, ((1, ours, place), (-1, theirs, place)), metric, sampler)


def test_difference_is_taken_over_shared_seeds():
    outcome = cifar({"r": [0.70, 0.72], "bot": [0.73, 0.73, 0.99]})
    found = difference(outcome, "top1")
    assert found is not None
    assert found.pairs == {0: pytest.approx(0.03), 1: pytest.approx(0.01)}  # seed 2 has no partner
    assert found.mean == pytest.approx(0.02)
    assert found.sd == pytest.approx(0.02 / math.sqrt(2))
    assert found.over_seeds is not None  # 0.02 -+ 12.7062 * 0.01
    assert found.over_seeds.high == pytest.approx(0.147062, abs=1e-6)
    assert found.over_images is None
    assert difference(outcome, "ap") is None


def test_difference_at_a_place_of_an_axis():
    outcome = cifar({"r": [0.70, 0.72], "bot": [0.73, 0.73]})
    found = difference(outcome, "top1", place=("size", 48.0))
    assert found is not None
    assert found.mean == pytest.approx(0.02)
    assert difference(outcome, "top1", place=("size", 7.0)) is None


def test_images_of_accuracy(tmp_path: Path):
    """90 against 70 of 100: the 20 images that differ vary as a binomial, sd 0.04; about 0.2 -+ 0.078."""
    outcome = cifar({"r": [0.70, 0.70], "bot": [0.90, 0.90]}, tmp_path)
    keep_predictions(outcome)
    found = difference(outcome, "top1", ImageSampler(4000))
    assert found is not None
    assert found.over_images is not None
    assert (found.images, found.no_images) == (100, "")
    assert found.over_images.low == pytest.approx(0.2 - 1.96 * 0.04, abs=0.011)
    assert found.over_images.high == pytest.approx(0.2 + 1.96 * 0.04, abs=0.011)


def test_equal_predictions_have_an_interval_without_width(tmp_path: Path):
    outcome = cifar({"r": [0.70], "bot": [0.70]}, tmp_path)
    keep_predictions(outcome)
    found = difference(outcome, "top1", ImageSampler())
    assert found is not None
    assert found.over_images == Interval(0.0, 0.0)


def detector(tmp_path: Path, name: str, seed: int, metric: str = "mask_ap") -> Arm:
    scene = random_scene(7, images=30)
    rng = np.random.default_rng(seed)
    results = [r for r in scene.results if rng.random() < 0.7]
    folder = tmp_path / f"{name}-s0"
    matches = {kind: match_coco(scene.truth, results, kind) for kind in ("bbox", "segm")}
    save_matches(matches, folder / "matches.npz")  # pyrefly: ignore[bad-argument-type]
    score = evaluate_coco(scene.truth, results, "segm").ap
    return Arm(name, name, (run(0, {metric: score}, folder),))


def test_images_of_average_precision(tmp_path: Path):
    r, bot = detector(tmp_path, "r", 0), detector(tmp_path, "bot", 1)
    found = difference(outcome_of(r, bot, metric="mask_ap"), "mask_ap", ImageSampler(500))
    assert found is not None
    assert found.over_images is not None
    assert found.over_images.low < found.mean < found.over_images.high
    assert found.images == 30
    again = difference(outcome_of(r, bot, metric="mask_ap"), "mask_ap", ImageSampler(500))
    assert again == found  # the draws are fixed
    reverse = difference(outcome_of(bot, r, metric="mask_ap"), "mask_ap", ImageSampler(500))
    assert reverse is not None
    assert reverse.over_images is not None
    assert reverse.over_images.low == pytest.approx(-found.over_images.high)
    assert reverse.over_images.high == pytest.approx(-found.over_images.low)


def test_images_of_side_accuracy(tmp_path: Path):
    """Of two parts an image both are right, or in half of the images one: 1 against 0.75 of 40 images."""
    images, two = np.arange(40), np.full(40, 2, np.int32)
    arms = []
    for name, right in (("r", two - images % 2), ("bot", two)):
        folder = tmp_path / name
        folder.mkdir()
        sides = SideAccuracy(images.astype(np.int64), two, two, right.astype(np.int32))
        save_matches({}, folder / "matches.npz", sides)
        arms.append(Arm(name, name, (run(0, {"side_accuracy": sides.accuracy}, folder),)))
    found = difference(outcome_of(*arms, metric="side_accuracy"), "side_accuracy", ImageSampler(4000))
    assert found is not None
    assert found.over_images is not None
    assert (found.mean, found.images) == (0.25, 40)
    # of each image 0 or 0.5: a binomial of 40 draws with probability 1/2, halved, sd 0.04
    assert found.over_images.low == pytest.approx(0.25 - 1.96 * 0.0395, abs=0.015)
    assert found.over_images.high == pytest.approx(0.25 + 1.96 * 0.0395, abs=0.015)


def test_images_of_one_interval_of_a_quantity(tmp_path: Path):
    """Right on all of the images of interval 1 against half of them; of interval 0 nothing is counted."""
    target, group = np.zeros(40, np.int32), np.arange(40, dtype=np.int32) % 2
    arms = []
    for name, right in (("r", np.arange(40) < 20), ("bot", group == 1)):
        folder = tmp_path / name
        folder.mkdir()
        save_predictions(Predictions((~right).astype(np.int32), target, group), folder / "predictions.npz")
        score = float(right[group == 1].mean())
        place = Evaluation("d", 2.0, {"top1": score}, 20, table=folder / "eval.json", group=1)
        arms.append(Arm(name, name, (run(0, {}, folder, evaluations=(place,)),)))
    found = difference(outcome_of(*arms), "top1", ImageSampler(500), ("d", 2.0))
    assert found is not None
    assert found.over_images is not None
    assert (found.mean, found.images) == (0.5, 20)
    # wrong on 10 of 20: a binomial of 20 draws with probability 1/2, sd 0.11
    assert 0.2 < found.over_images.low < 0.35
    assert 0.65 < found.over_images.high < 0.8


def test_says_why_there_is_no_interval_over_images(tmp_path: Path):
    def reason(outcome: Outcome) -> str:
        found = difference(outcome, "top1", ImageSampler(50))
        assert found is not None
        assert found.over_images is None
        return found.no_images

    outcome = cifar({"r": [0.70], "bot": [0.90]}, tmp_path)
    assert reason(outcome) == "the runs kept nothing of single images"
    keep_predictions(outcome)
    other = cifar({"r": [0.70], "bot": [0.80]}, tmp_path)
    assert reason(other) == "bot-s0/predictions.npz does not give the run's score"
    said = Predictions(np.full(10, 3, np.int32), np.array([3] * 9 + [1], np.int32))
    save_predictions(said, tmp_path / "bot-s0" / "predictions.npz")
    assert reason(outcome) == "the runs were not measured on the same images"
    (tmp_path / "r-s0" / "predictions.npz").write_bytes(b"?")
    assert "not a file of predictions" in reason(outcome)
    loss = replace(outcome.arm("r").runs[0], scores={"loss": 1.0})
    found = difference(
        outcome_of(Arm("b", "b", (loss,)), Arm("a", "a", (loss,)), metric="loss"), "loss", ImageSampler(50)
    )
    assert found is not None
    assert found.no_images == "loss is not known for single images"


def verdict(top1: dict[str, list[float]], folder: Path | None = None):
    outcome = cifar(top1, folder or Path("runs"))
    if folder is not None:
        keep_predictions(outcome)
    return judge(outcome, outcome.claims[0], "top1", ImageSampler(500))


def test_a_claim_that_held():
    found = verdict({"r": [0.70, 0.71, 0.72], "bot": [0.73, 0.74, 0.76]})
    assert found.word == "held"
    assert found.sentence == (
        "top-1 of BOT +3.33 points against R, mean of 3 pairs of runs (95 % interval +1.90 to +4.77 over "
        "seeds)."
    )
    assert found.published == pytest.approx(0.01)


def test_a_claim_that_did_not_hold():
    found = verdict({"r": [0.73, 0.74, 0.76], "bot": [0.70, 0.71, 0.72]})
    assert found.word == "did not hold"
    # differences -3, -3, -4: mean -3.33, sd 0.577, reach 4.3027 * 0.577 / 1.732 = 1.434
    assert "-3.33 points" in found.sentence
    assert "-4.77 to -1.90 over seeds" in found.sentence


def test_an_interval_with_zero_tells_nothing():
    found = verdict({"r": [0.70, 0.71, 0.72], "bot": [0.71, 0.70, 0.75]})
    assert found.word == "inconclusive"
    assert found.sentence.endswith(" over seeds): the interval includes zero.")


def test_both_intervals_must_exclude_zero(tmp_path: Path):
    found = verdict({"r": [0.70, 0.70, 0.70, 0.70], "bot": [0.72, 0.72, 0.72, 0.73]}, tmp_path)
    assert found.word == "inconclusive"  # two images of a hundred; over seeds +1.45 to +3.05
    assert found.sentence.endswith("over images): the one over images includes zero.")
    found = verdict({"r": [0.70, 0.70, 0.70], "bot": [0.90, 0.90, 0.91]}, tmp_path)
    assert (found.word, found.sentence[-13:]) == ("held", "over images).")
    assert verdict({"r": [0.90, 0.90, 0.91], "bot": [0.70, 0.70, 0.70]}, tmp_path).word == "did not hold"
    found = verdict({"r": [0.90, 0.71], "bot": [0.70, 0.90]}, tmp_path)
    assert found.sentence.endswith(": both include zero.")


def test_pairs_that_differ_by_the_same_leave_it_to_the_images(tmp_path: Path):
    """Student's t has no width then, which is no certainty: three trainings happened to agree."""
    better = {"r": [0.70, 0.71, 0.72], "bot": [0.90, 0.91, 0.92]}  # but for rounding at the last digit
    same = "every pair differs by the same, which says nothing of other trainings."
    found = verdict(better)
    assert found.word == "inconclusive"
    assert found.sentence.endswith(f"+20.00 to +20.00 over seeds): {same}")
    found = verdict(better, tmp_path)
    assert found.word == "held"
    assert found.sentence.endswith(f"over images): by the one over images alone, as {same}")
    assert verdict({"r": better["bot"], "bot": better["r"]}, tmp_path).word == "did not hold"
    found = verdict({"r": [0.70, 0.70], "bot": [0.71, 0.71]}, tmp_path)
    assert found.word == "inconclusive"
    assert found.sentence.endswith(f": the one over images includes zero, and {same}")


def test_equal_scores_are_said_to_be_equal(tmp_path: Path):
    equal = {"r": [0.70, 0.71], "bot": [0.70, 0.71]}
    for folder in (None, tmp_path):
        found = verdict(equal, folder)
        assert found.word == "inconclusive"
        assert found.sentence.endswith("): both score the same with every seed.")
    assert "+0.00 to +0.00 over seeds, +0.00 to +0.00 over images" in found.sentence


def test_one_pair_tells_nothing_and_no_pair_says_so():
    assert verdict({"r": [0.70], "bot": [0.90]}).sentence == (
        "top-1 of BOT +20.00 points against R, one pair of runs: it says nothing of other trainings."
    )
    assert verdict({"r": [0.70], "bot": []}).word == "not measured yet"
    assert verdict({"r": [0.70], "bot": []}).contrast is None


def test_a_claim_at_a_place():
    outcome = cifar({"r": [0.70, 0.71, 0.72], "bot": [0.73, 0.74, 0.76]})
    claim = Claim("Also when enlarged.", "bot", "r", ("top1",), "us", axis="size", at=48.0)
    found = judge(outcome, claim, "top1")
    assert found.word == "held"
    assert "top-1 of BOT at image size (pixels) 48 +3.33 points" in found.sentence
    assert found.published is None  # that of the whole is none for this place
    assert found.metric == "top1"


def test_a_larger_lead_is_the_difference_of_two_differences(tmp_path: Path):
    """BOT leads by 5, 6, 8 points, S1 by 3, 2, 3, so by 2, 4, 5 more: mean 3.667, sd 1.528, reach 3.795."""
    outcome = cifar({"r": [0.70, 0.71, 0.72], "bot": [0.75, 0.77, 0.80], "s1": [0.73, 0.73, 0.75]}, tmp_path)
    keep_predictions(outcome)
    claim = Claim("BOT gains more.", "bot", "r", ("top1",), "us", than=Pair("s1", "r"))
    found = judge(outcome, claim, "top1", ImageSampler(4000))
    assert found.terms == ((1, "bot", None), (-1, "r", None), (-1, "s1", None), (1, "r", None))
    assert found.contrast is not None
    assert list(found.contrast.pairs.values()) == pytest.approx([0.02, 0.04, 0.05])
    assert found.published == pytest.approx(0.01 - 0.02)
    assert found.contrast.over_images is not None
    # of 100 images four are right by two more of the three seeds, three by one more: sd 0.0141
    assert found.contrast.over_images.low == pytest.approx(0.0367 - 1.96 * 0.0141, abs=0.006)
    assert found.word == "inconclusive"
    assert found.sentence.startswith(
        "top-1: the lead of BOT over R exceeds that of S1 over R by +3.67 points, mean of 3 pairs of runs "
        "(95 % interval -0.13 to +7.46 over seeds, "
    )
    outcome = cifar({"r": [0.7] * 3, "bot": [0.90, 0.91, 0.90], "s1": [0.7] * 3})
    assert judge(outcome, claim, "top1").word == "held"
    assert judge(outcome, replace(claim, better="r", worse="bot"), "top1").word == "did not hold"
    outcome = cifar({"r": [0.7] * 3, "bot": [0.90, 0.91, 0.90], "s1": [0.7]})
    found = judge(outcome, claim, "top1")
    assert found.sentence.endswith(" by +20.00 points, one pair of runs: it says nothing of other trainings.")


def test_a_lead_that_grows_along_an_axis():
    outcome = cifar({"r": [0.70, 0.71, 0.72], "bot": [0.73, 0.74, 0.76]})
    bot = outcome.arm("bot")
    grown = [0.01, 0.02, 0.04]  # more at 48, beside 3, 3 and 4 points everywhere
    runs = tuple(
        replace(
            each,
            evaluations=tuple(
                replace(e, scores={"top1": e.scores["top1"] + more * (e.at == 48)}) for e in each.evaluations
            ),
        )
        for each, more in zip(bot.runs, grown, strict=True)
    )
    outcome = replace(outcome, arms=(outcome.arms[0], replace(bot, runs=runs)))
    claim = Claim("More on large ones.", "bot", "r", ("top1",), "us", "size", "highest", beyond="lowest")
    found = judge(outcome, claim, "top1")
    assert found.contrast is not None
    assert list(found.contrast.pairs.values()) == pytest.approx(grown)
    assert found.published is None
    assert found.sentence.startswith(
        "top-1: the lead of BOT over R at image size (pixels) 48 exceeds that at image size (pixels) 24 by "
        "+2.33 points, "
    )
    assert judge(outcome, replace(claim, beyond=24.0, at=32.0), "top1").contrast is not None
    assert judge(outcome, replace(claim, at=99.0), "top1").word == "not measured yet"
