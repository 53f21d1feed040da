"""What attention contributes: numbers worked by hand, the sentence, and the file."""

import json
from pathlib import Path

import numpy as np
import pytest

from botvision.metrics.attention_use import (
    AttentionUse,
    Contribution,
    Effect,
    effect_of,
    load_use,
    save_use,
)
from botvision.metrics.bootstrap import ImageSampler, Interval, interval_of
from botvision.metrics.predictions import Predictions, save_predictions

BLOCKS = ("layer4.0", "layer4.1", "layer4.2")


def effect(how: str, mean: float, low: float, high: float, block: str | None = None) -> Effect:
    return Effect(how, block, {"top1": 0.8 - mean}, {"top1": Contribution(mean, Interval(low, high))})


def use(*effects: Effect, blocks: tuple[str, ...] = BLOCKS) -> AttentionUse:
    return AttentionUse("val", 1000, {"top1": 0.8}, blocks, effects, {"steps": 6, "kept": "last"})


def alone(*means: float) -> list[Effect]:
    pairs = zip(BLOCKS, means, strict=True)
    return [effect("zero", mean, mean - 0.001, mean + 0.001, name) for name, mean in pairs]


def evaluated(folder: Path, name: str, right: list[bool]) -> Path:
    target = np.arange(len(right), dtype=np.int32) % 3
    said = np.where(right, target, target + 1).astype(np.int32)
    save_predictions(Predictions(said, target), folder / f"predictions{name}.npz")
    return folder / f"eval{name}.json"


def test_a_contribution_is_paired_over_images(tmp_path: Path):
    """Of 100 images 30 more are right with attention, 10 fewer: the other 60 do not widen the interval."""
    ours = evaluated(tmp_path, "", [True] * 30 + [False] * 10 + [True] * 60)
    theirs = evaluated(tmp_path, "-attention-zero", [False] * 30 + [True] * 10 + [True] * 60)
    found = effect_of(ImageSampler(4000), ("zero", None), ours, theirs, ("top1",))
    assert found.scores == {"top1": pytest.approx(0.7)}
    between = found.contributions["top1"]
    assert between.mean == pytest.approx(0.2)
    # differences of -1, 0 and 1: their variance is 0.4 - 0.2 ** 2
    reach = 1.96 * (0.36 / 100) ** 0.5
    assert between.interval.low == pytest.approx(0.2 - reach, abs=0.01)
    assert between.interval.high == pytest.approx(0.2 + reach, abs=0.01)
    same = effect_of(ImageSampler(50), ("as-trained", None), ours, ours, ("top1",)).contributions["top1"]
    assert (same.mean, same.interval) == (0.0, Interval(0.0, 0.0))


def test_other_images_are_refused(tmp_path: Path):
    ours, theirs = evaluated(tmp_path, "", [True] * 4), evaluated(tmp_path, "-x", [True] * 5)
    with pytest.raises(ValueError, match=r"^eval\.json is of other images than there are now"):
        effect_of(ImageSampler(50), ("zero", None), ours, theirs, ("top1",))


def test_an_interval_leaves_out_samples_without_a_score():
    values = np.array([np.nan, *np.linspace(0, 1, 1001)])
    found = interval_of(values)
    assert (found.low, found.high) == (pytest.approx(0.025), pytest.approx(0.975))


def test_the_sentence():
    zero, even = effect("zero", 0.019, 0.012, 0.026), effect("even", 0.004, 0.001, 0.007)
    assert use(zero, even, *alone(0.001, 0.002, 0.012)).sentence() == (
        "attention contributes +1.9 (95 % +1.2 to +2.6) top-1 over none, "
        "+0.4 (95 % +0.1 to +0.7) over even weights; layer4.2 does most of it"
    )
    assert (
        use(zero, even, *alone(0.006, 0.006, 0.007)).sentence().endswith("; no single block does most of it")
    )
    assert use(zero, blocks=BLOCKS[:1]).sentence().endswith("top-1 over none")
    none_over_even = use(zero, effect("even", 0.001, -0.002, 0.004)).sentence()
    assert none_over_even.endswith(", +0.1 (95 % -0.2 to +0.4) over even weights (nothing measurable)")


def test_the_sentence_says_plainly_that_there_is_nothing():
    nothing = effect("zero", -0.0003, -0.005, 0.004)
    assert use(nothing, effect("even", 0.0, 0.0, 0.0), *alone(0, 0, 0)).sentence() == (
        "attention contributes nothing measurable: +0.0 (95 % -0.5 to +0.4) top-1 over none, "
        "+0.0 (95 % +0.0 to +0.0) over even weights"
    )
    worse = use(effect("zero", -0.02, -0.03, -0.01)).sentence()
    assert worse == "attention costs: -2.0 (95 % -3.0 to -1.0) top-1 over none"


def test_masks_count_before_boxes():
    between = {
        "box_ap": Contribution(0.1, Interval(0.1, 0.1)),
        "mask_ap": Contribution(0.2, Interval(0.2, 0.2)),
    }
    found = AttentionUse(
        "val", 5, {"box_ap": 0.5, "mask_ap": 0.4}, ("layer4.0",),
        (Effect("zero", None, {"box_ap": 0.4, "mask_ap": 0.2}, between),), {},
    )  # fmt: skip
    assert found.sentence() == "attention contributes +20.0 (95 % +20.0 to +20.0) mask AP over none"


def test_the_file_is_read_back_until_the_run_is_trained_on(tmp_path: Path):
    path, summary = tmp_path / "attention_use.json", tmp_path / "summary.json"
    assert load_use(path) is None
    summary.write_text('{"steps": 6, "kept": "last", "top1": 0.8}')
    found = use(effect("zero", 0.019, 0.012, 0.026), *alone(0.001, 0.002, 0.012))
    save_use(found, path)
    assert load_use(path) == found
    assert json.loads(path.read_text())["summary"] == found.sentence()
    summary.write_text('{"steps": 12, "kept": "last"}')
    assert load_use(path) is None
    path.write_text('{"effects": 3}')
    with pytest.raises(
        ValueError, match=r"attention_use\.json: not a file of eval --attention all \(KeyError\)"
    ):
        load_use(path)
