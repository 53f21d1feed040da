"""Study files: what is in them refers to something, and those that come with botvision can be run."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from botvision.backbones.surgery import Surgery
from botvision.config.recipes import config_to_dict, recipe_names, value_at
from botvision.config.schema import ConfigError
from botvision.studies.plan import estimate, make_plan
from botvision.studies.spec import Pair, load_study, study_names
from botvision.training.run import task_of
from tests.studies.files import write

SLIDES = {  # the slides' three results tables: box AP, mask AP
    "R50": (42.1, 37.7), "BoT50": (43.6, 38.9), "R101": (43.3, 38.4), "BoT101": (45.5, 40.4),
    "R152": (44.2, 39.1), "BoT152": (46.0, 40.6),
    "BoT50 content": (42.7, 38.3), "BoT50 relative position": (43.1, 38.4),
    "BoT50 content + relative position": (43.6, 38.9), "BoT50 content + absolute position": (42.5, 38.1),
    "R50, 1280": (44.0, 39.5), "BoT50, 1024": (45.9, 40.7), "BoT50, 1280": (46.1, 41.2),
}  # fmt: skip


# In what arms may differ: anything else would make the comparison unfair.
VARIED = {
    "backbones": {"model.name"},
    "cifar": {"model.name"},
    "cifar-controls": {"model.name", "model.args.position", "model.args.se", "model.args.key_init"},
    "photos": {"model.name"},
    "sides": {"model.name"},
    "warm-start": {"model.name", "model.warm_start"},
    "pointing": {
        *("model.name", "model.args.position", "model.args.se", "model.args.key_init"),
        *("model.args.channels", "model.args.layers", "model.args.output_stride"),  # view and equal costs
    },
    "position": {"model.name", "model.args.position"},
    "resolution": {"model.name", "data.image_size"},
}


@pytest.mark.parametrize("name", study_names())
def test_studies_that_come_with_botvision(name, tmp_path):
    """Every arm of every scale is a configuration, three seeds each, and arms differ in what they may."""
    study = load_study(name)
    assert "cpu" in study.scales
    for scale in study.scales:
        plan = make_plan(study, scale, tmp_path)
        assert len(plan.scale.seeds) >= 3
        assert len(plan.runs) == len(study.arms) * len(plan.scale.seeds)
        assert len({run.folder for run in plan.runs}) == len(plan.runs)
        configs = {str({**config_to_dict(run.config), "recipe": ""}) for run in plan.runs}
        assert len(configs) == len(plan.runs)
        assert {run.recipe for run in plan.runs} <= set(recipe_names())
        assert set(plan.varied()) - {"model.weights"} <= VARIED[name]  # each backbone starts from its own
        tasks = {run.config.task for run in plan.runs}
        assert tasks == {"detect" if "box_ap" in study.metrics else "classify"}


def test_the_study_on_the_page(tmp_path):
    readme = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(title:.*?)```", readme, re.S)
    (tmp_path / "mine.yaml").write_text(text)
    plan = make_plan(load_study(str(tmp_path / "mine.yaml")), "cpu", tmp_path / "out")
    assert len(plan.runs) == 6
    assert {run.config.train.epochs for run in plan.runs} == {10}
    assert plan.runs[1].config.model.args == {"heads": 8}


@pytest.mark.parametrize("name", study_names())
def test_a_small_scale_is_done_in_an_afternoon(name, tmp_path):
    plan = make_plan(load_study(name), "cpu", tmp_path)
    left = estimate(plan, plan.states(), slots=max(1, 2 // plan.scale.threads)).left
    assert left is not None
    assert 5 < left <= 300


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
        assert terms == [None, "content", "position", None, "absolute"]  # relative is what BoTNets have
        assert [run.config.model.name for run in recipes] == ["resnet50", *["botnet50"] * 4]
        assert Surgery().position == "relative"


@pytest.mark.parametrize("name", study_names())
def test_every_network_can_be_tried_out_without_memory(name, tmp_path):
    """Before a study begins all of them are, and none that can be trained may be refused."""
    study = load_study(name)
    for scale in study.scales:
        plan = make_plan(study, scale, tmp_path)
        for arm in study.arms:
            splits: Any = SimpleNamespace(classes=["thing"] * 80)
            with torch.device("meta"):
                network = task_of(plan.of_arm(arm)[0].config).build(splits)
            assert all(weight.is_meta for weight in network.parameters())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("question:", "qestion:", "unknown key qestion; did you mean 'question'?"),
        ("baseline: r\n", "baseline: x\n", "baseline: 'x' is not known; known: r, bot"),
        ("published: {top1:", "published: {top2:", "arms.bot.published: 'top2' is not known"),
        ("Attention helps., better: bot", "Attention helps., better: bat", "claims[0]: 'bat' is not known"),
        ("axis: image-size, at: highest", "axis: image-size", "claims[1].at: expected axis and at, or none"),
        ("axis: image-size, at", "axis: '', at", "claims[1].axis: '' is not known; known: image-size"),
        ("axis: image-size, at", "axis: size, at", "claims[1].axis: 'size' is not known"),
        ("seeds: [0]", "seeds: [0, 0]", "scales.cpu.seeds: expected different values, at least one, got"),
        ("      r: {label: ResNet}\n", "", "scales.cpu.arms: expected all arms, ['r'] among them"),
        ("r: {label: ResNet}", "r: {lable: ResNet}", "unknown key scales.cpu.arms.r.lable"),
        ("axis: image-size, at: highest", "axis: image-size, beyond: lowest", "claims[1].at: expected axis"),
        ("axis: image-size, at: highest", "beyond: lowest", "claims[1].beyond: expected axis and at"),
        ("axis: image-size, at: highest", "axis: image-size, at: lowest, beyond: lowest",
         "claims[1].beyond: expected another place than in at, got 'lowest'"),
        ("axis: image-size, at: highest", "axis: image-size, at: highest, beyond: 24",
         "claims[1].beyond: expected a place of image-size at which a scale measures (none), got 24"),
        ("axis: image-size, at: highest", "axis: image-size, at: 24, beyond: top",
         "claims[1].beyond: expected float or one of lowest, highest or null, got 'top'"),
        ("axis: image-size, at: highest", "axis: image-size, at: highest, from_: lowest",
         "unknown key claims[1].from_"),
        ("axis: image-size, at: highest", "than: {better: bot, worse: r}",
         "claims[1].than: expected another pair of arms, got {'better': 'bot', 'worse': 'r'}"),
        ("axis: image-size, at: highest", "than: {better: bot, worse: bot}", "claims[1].than.worse: exp"),
        ("axis: image-size, at: highest", "than: {better: bat, worse: r}", "claims[1].than: 'bat' is not"),
        ("axis: image-size, at: highest", "than: {better: bot}", "claims[1].than.worse: missing"),
        ("    minutes: 2", "    at: {size: [3]}", "scales.cpu.at: 'size' is not known"),
        ("arms:\n  r:\n", "arms:\n  r:\n  r:\n", "key 'r' is given twice"),
        ("arms:\n  r:\n", "arms:\n  r: [1]\n", "arms.r: expected a mapping of keys to values, got [1]"),
        ("arms:\n  r:\n", "arms:\n  r:\n  no:\n", "arms: expected names as keys, got False; put it in"),
        ("{top1: {title: top-1, chance: 0.5}}", "{}", "metrics: expected one or more, got {}"),
        ("{top1: {title: top-1, chance: 0.5}}", "[top1]",
         "metrics: expected a mapping of names to values, got ['top1']"),
        ("chance: 0.5", "chance: 50", "metrics.top1.chance: expected at least 0 and below 1, got 50"),
        ("top1: 12.5", "top1: 12.5 %", "arms.bot.published.top1: expected float, got '12.5 %'"),
        ("top1: 12.5", "top1:", "arms.bot.published.top1: expected float, got None"),
        ("top1: 12.5", "top1: 1250", "arms.bot.published.top1: expected percent from 0 to 100, got 1250"),
        ("axis: image-size, at: highest", "axis: image-size, at: 24",
         "claims[1].at: expected a place of image-size at which a scale measures (none), got 24"),
        ("axis: image-size, at: highest", "axis: image-size, at: top",
         "claims[1].at: expected float or one of lowest, highest or null, got 'top'"),
        ("helps., better: bot", "helps., better: r", "claims[0].worse: expected another arm than in better"),
        ("{title: Image size (pixels), key: data.image_size}", "{title: x}",
         "axes.image-size.key: expected either key or table, got None"),
        ("title: Small", "name: small\ntitle: Small", "name: leave it out, a study is named after its file"),
        ("title: Small", "folder: here\ntitle: Small", "folder: leave it out, it is that of the file"),
        ("seeds: [0]", "seeds: [-1]", "scales.cpu.seeds: expected whole numbers, 0 <= seed < 2**32, got"),
        ("seeds: [0]", "seeds: 0", "scales.cpu.seeds: expected a list of whole numbers, got 0"),
        ("    minutes: 2", "    minutes: 0", "scales.cpu.minutes: expected a number above 0, got 0"),
        ("{label: ResNet}", "{label: ResNet, minutes: -1}", "scales.cpu.arms.r.minutes: expected a num"),
        ("    minutes: 2", "    at: {image-size: 24}",
         "scales.cpu.at.image-size: expected a list of numbers, got 24"),
        ("    minutes: 2", "    at: {image-size: [a]}", "scales.cpu.at.image-size[0]: expected float, got"),
        ("    minutes: 2", "    at: {image-size: [8, 8.0]}",
         "scales.cpu.at.image-size: expected different values, at least one, got [8.0, 8.0]"),
        ("train.epochs: 25", "train: {epochs: 25, seed: 1}",
         "scales.cpu.set.train: expected dotted keys (train.epochs, train.seed), got the mapping {'ep"),
        ("train.epochs: 25", "train.seed: 25", "scales.cpu.set.train.seed: leave it out, the study has"),
        ("model.name: botnet14_nano", "train.seed: 1", "scales.cpu.arms.bot.set.train.seed: leave it out"),
        ("train.epochs: 25", "train.epochs: 2025-01-01",
         "scales.cpu.set.train.epochs: expected text, a number, true, false, null or a list of these"),
    ],
)  # fmt: skip
def test_what_a_file_gets_wrong_is_one_line(tmp_path, old, new, words):
    path = write(tmp_path / "wrong.yaml", (old, new))
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        load_study(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_claim_may_name_a_place_of_any_scale_or_of_a_table(tmp_path):
    place = ("axis: image-size, at: highest", "axis: image-size, at: 24")
    measured = load_study(write(tmp_path / "a.yaml", place, ("minutes: 2", "at: {image-size: [8, 24]}")))
    assert measured.claims[1].at == 24
    with pytest.raises(ConfigError, match=r"claims\[1\]\.at: .* measures \(8, 16\), got 24"):
        load_study(write(tmp_path / "b.yaml", place, ("minutes: 2", "at: {image-size: [16, 8]}")))
    table = ("key: data.image_size", "table: top1_by_distance")
    assert load_study(write(tmp_path / "c.yaml", place, table)).claims[1].at == 24


def test_a_claim_may_be_of_a_larger_lead(tmp_path):
    along = ("axis: image-size, at: highest", "axis: image-size, at: highest, beyond: lowest")
    claim = load_study(write(tmp_path / "a.yaml", along)).claims[1]
    assert (claim.axis, claim.beyond, claim.at) == ("image-size", "lowest", "highest")
    (gain,) = [claim for claim in load_study("resolution").claims if claim.than]
    assert (gain.better, gain.worse, gain.than) == ("bot-large", "bot-small", Pair("r-large", "r-small"))


def test_a_mapping_of_arguments_may_be_set_as_a_whole(tmp_path):
    changes = ("model.args.attn_drop: 0.1", "model.args: {attn_drop: 0.1}")
    arm = load_study(write(tmp_path / "a.yaml", changes)).scales["cpu"].arms["bot"]
    assert arm.set == {"model.name": "botnet14_nano", "model.args": {"attn_drop": 0.1}}


def test_studies_that_are_not_there():
    with pytest.raises(ConfigError, match=r"no study is called 'cifer'; did you mean 'cifar'\?"):
        load_study("cifer")
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such study file"):
        load_study("nothing.yaml")


def test_messages_name_arms_as_they_are_written(tmp_path):
    changes = (
        ("  r:\n", "  from_scratch:\n"),
        ("      r: {", "      from_scratch: {"),
        ("baseline: r\n", "baseline: nope\n"),
    )
    with pytest.raises(ConfigError, match="baseline: 'nope' is not known; known: from_scratch, bot"):
        load_study(write(tmp_path / "from_scratch.yaml", *changes))
