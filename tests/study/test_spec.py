"""Study files: what is in them refers to something, and those that come with botvision can be run."""

import re

import pytest

from botvision.study.estimate import estimate
from botvision.study.plan import make_plan
from botvision.study.spec import load_study, study_names
from botvision.training.config import config_to_dict, recipe_names, value_at
from botvision.training.schema import ConfigError
from tests.study.files import write

SLIDES = {  # the slides' three results tables: box AP, mask AP
    "R50": (42.1, 37.7), "BoT50": (43.6, 38.9), "R101": (43.3, 38.4), "BoT101": (45.5, 40.4),
    "R152": (44.2, 39.1), "BoT152": (46.0, 40.6),
    "BoT50 content": (42.7, 38.3), "BoT50 relative position": (43.1, 38.4),
    "BoT50 content + relative position": (43.6, 38.9), "BoT50 content + absolute position": (42.5, 38.1),
    "R50, 1280": (44.0, 39.5), "BoT50, 1024": (45.9, 40.7), "BoT50, 1280": (46.1, 41.2),
}  # fmt: skip


@pytest.mark.parametrize("name", study_names())
def test_studies_that_come_with_botvision(name, tmp_path):
    """Every arm of every scale is a configuration, three seeds each, and arms differ in something."""
    study = load_study(name)
    assert {"cpu", "paper"} <= set(study.scales)
    for scale in study.scales:
        plan = make_plan(study, scale, tmp_path)
        assert len(plan.scale.seeds) >= 3
        assert len(plan.runs) == len(study.arms) * len(plan.scale.seeds)
        assert len({run.folder for run in plan.runs}) == len(plan.runs)
        configs = {str({**config_to_dict(run.config), "recipe": ""}) for run in plan.runs}
        assert len(configs) == len(plan.runs)
        assert {run.recipe for run in plan.runs} <= set(recipe_names())
        tasks = {run.config.task for run in plan.runs}
        assert tasks == {"detect" if "box_ap" in study.metrics else "classify"}


def test_the_small_scales_take_five_hours_at_most(tmp_path):
    plans = [make_plan(load_study(name), "cpu", tmp_path / name) for name in study_names()]
    left = [estimate(plan, plan.states(), slots=2).left for plan in plans]
    known = [minutes for minutes in left if minutes is not None]
    assert len(known) == len(plans)
    assert 60 < sum(known) <= 300


@pytest.mark.parametrize("name", ["backbones", "position", "resolution"])
def test_published_values_are_the_slides(name, tmp_path):
    study = load_study(name)
    labels = {arm: scaled.label for arm, scaled in study.scales["paper"].arms.items()}
    for arm, spec in study.arms.items():
        if spec.published:
            assert (spec.published["box_ap"], spec.published["mask_ap"]) == SLIDES[labels[arm]]
    assert sum(bool(spec.published) for spec in study.arms.values()) >= 3
    if name == "position":
        recipes = make_plan(study, "paper", tmp_path).runs[:5]
        terms = [value_at(config_to_dict(run.config), "model.args.position") for run in recipes]
        assert terms == [None, "content", "position", "relative", "absolute"]
        assert recipes[0].config.model.name == "resnet50"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("question:", "qestion:", "unknown key qestion; did you mean 'question'?"),
        ("baseline: r\n", "baseline: x\n", "baseline: 'x' is not known; known: r, bot"),
        ("published: {top1:", "published: {top2:", "arms.bot.published: 'top2' is not known"),
        ("Attention helps., better: bot", "Attention helps., better: bat", "claims[0]: 'bat' is not known"),
        ("axis: image-size, at: highest", "axis: image-size", "at: expected axis and at, or neither"),
        ("axis: image-size, at", "axis: size, at", "claims[1].axis: 'size' is not known"),
        ("seeds: [0]", "seeds: [0, 0]", "seeds: expected different seeds, got [0, 0]"),
        ("      r: {label: ResNet}\n", "", "scales.cpu.arms: expected all arms, ['r'] among them"),
        ("r: {label: ResNet}", "r: {lable: ResNet}", "unknown key scales.cpu.arms.r.lable"),
        ("    minutes: 2", "    at: {size: [3]}", "scales.cpu.at: 'size' is not known"),
        ("arms:\n  r:\n", "arms:\n  r:\n  r:\n", "key 'r' is given twice"),
    ],
)  # fmt: skip
def test_what_a_file_gets_wrong_is_one_line(tmp_path, old, new, words):
    path = write(tmp_path / "wrong.yaml", (old, new))
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        load_study(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_studies_that_are_not_there():
    with pytest.raises(ConfigError, match=r"no study is called 'cifer'; did you mean 'cifar'\?"):
        load_study("cifer")
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such study file"):
        load_study("nothing.yaml")
