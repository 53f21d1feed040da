"""Arms and seeds to runs: their values, what is refused, how far they have come, how long they take."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from botvision.config.recipes import build_config, config_to_dict, load_recipe, with_absolute_paths
from botvision.config.schema import ConfigError
from botvision.studies.plan import Measurement, duration, estimate
from tests.studies.files import plan_of

TWO_SEEDS = ("seeds: [0]", "seeds: [4, 7]")
PLACES = ("minutes: 2", "minutes: 2\n    at: {image-size: [16, 24]}")


def begin(run, **changes):
    """Put a configuration where a run has one, `train__epochs=2` otherwise than planned."""
    run.folder.mkdir(parents=True)
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    config = build_config(config_to_dict(with_absolute_paths(run.config)), keys)
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config)))


def finish(run, seconds, **changes):
    begin(run, **changes)
    (run.folder / "summary.json").write_text(json.dumps({"train_seconds": seconds}))


def test_seeds_come_one_after_the_other_with_all_arms(tmp_path):
    plan = plan_of(tmp_path, TWO_SEEDS, PLACES)
    assert [run.name for run in plan.runs] == ["r-s4", "bot-s4", "r-s7", "bot-s7"]
    assert [run.config.train.seed for run in plan.runs] == [4, 4, 7, 7]
    assert plan.runs[1].config.model.name == "botnet14_nano"
    assert plan.runs[1].config.model.args == {"attn_drop": 0.1}
    assert plan.runs[0].measurements == (Measurement("image-size", 24, "data.image_size"),)  # 16 is its own
    assert plan.varied() == ["model.name", "model.args.attn_drop"]
    assert plan.runs[0].log == tmp_path / "out" / "logs" / "r-s4.log"


def test_the_command_of_a_run_says_all_that_the_plan_says(tmp_path):
    run = plan_of(tmp_path, optim__betas="[0.8, 0.9]", optim__lr="1e-2").runs[1]
    verb, recipe, out, folder, *words = run.training(resume=False)
    assert (verb, out, folder) == ("train", "--out", str(run.folder))
    overrides = dict(word.removeprefix("--").split("=", 1) for word in words)
    assert build_config(load_recipe(recipe), overrides) == run.config
    assert run.config.optim.betas == (0.8, 0.9)
    # the run has its own configuration; what is asked for of what decides about no number is new to it
    told = ["--train.log_every=1", "--train.checkpoint_every=3"]
    assert run.training(resume=True) == ["train", "--out", str(run.folder), "--resume", *told]
    other = plan_of(tmp_path, data__num_workers="3", train__device="cpu").runs[1]
    assert other.training(resume=True)[-2:] == ["--data.num_workers=3", "--train.device=cpu"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"train__seed": "3"}, "train.seed: the study has seeds of its own: 0"),
        (
            {"model__name": "resnet50"},
            "model.name: the arms of tiny differ in it, so it cannot be set for all",
        ),
        ({"model__args": "{}"}, "model.args.attn_drop: the arms of tiny differ in it"),
        ({"train__epoch": "3"}, "unknown key train.epoch; did you mean 'train.epochs'?"),
    ],
)
def test_keys_that_cannot_be_set_for_all_runs(tmp_path, overrides, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        plan_of(tmp_path, **overrides)


DETECTOR = ("generated_resnet14_nano", "shapes_resnet14_nano")
MASKS = (
    ("{published: {top1: 12.5}, source: a table}", ""),
    ("{top1: {title: top-1, chance: 0.5}}", "{mask_ap: {title: AP}}"),
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([("top1: {title", "top2: {title"), ("top1: 12", "top2: 12")],
         "metrics: a run of arm r (task classify) has no score 'top2'; did you mean 'top1'?"),
        (MASKS, "metrics: a run of arm r (task classify) has no score 'mask_ap'; known: top1"),
        ([*MASKS, DETECTOR, ("train.batch_size: 16", "model.detector.masks: false")],
         "metrics: a run of arm r (task detect) has no score 'mask_ap'; known: box_ap, box_ap50"),
        ([("data.image_size}", "data.image_sise}")],
         "axes.image-size.key: unknown key data.image_sise; did you mean 'image_size'?"),
        ([("data.image_size}", "data.image_size.height}")],
         "axes.image-size.key: unknown key data.image_size.height"),
        ([("data.image_size}", "model.args.heads}")],
         "axes.image-size.key: expected a key that an evaluation can set, data.*, got 'model.args.heads'"),
        ([("data.image_size}", "train.batch_size}")],
         "axes.image-size.key: expected a key that an evaluation can set, data.*, got 'train.batch_size'"),
        ([("data.image_size}", "model.detector.nsm}"), DETECTOR, *MASKS],
         "axes.image-size.key: expected a key that an evaluation can set, data.* or model.detector.det"),
        ([("data.image_size}", "data.num_workers}")],
         "axes.image-size.key: expected a key on which the scores depend, got 'data.num_workers'"),
        ([("key: data.image_size}", "table: top1_by_distance}")],
         "axes.image-size.table: 'top1_by_distance' is no table in the evaluations of arm r; known: none"),
        ([("minutes: 2", "at: {image-size: [24.5]}")],
         "scales.cpu.at.image-size: data.image_size: expected int or tuple[int, int], got 24.5"),
        ([("minutes: 2", "at: {image-size: [16, 0]}")],
         "scales.cpu.at.image-size: data.image_size: expected 1 to 8192 pixels a side, got 0"),
        ([("train.epochs", "train.epoch")], "scales.cpu.set: unknown key train.epoch; did you mean"),
        ([("model.args.attn", "mode.args.attn")], "scales.cpu.arms.bot.set: unknown key mode; did you mean"),
        ([("    recipe: generated_resnet14_nano\n", "")],
         "scales.cpu.arms.r.recipe: missing, and the scale has none"),
        ([("generated_resnet14_nano", "own.yaml")], "scales.cpu.recipe: "),
        ([("{label: ResNet}", "{label: ResNet, recipe: generated_resnet14}")],
         "scales.cpu.arms.r.recipe: no recipe is called 'generated_resnet14'; did you mean"),
    ],
)  # fmt: skip
def test_what_would_be_found_out_after_training_is_found_out_before(tmp_path, changes, words):
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, *changes)
    assert str(error.value).startswith(f"tiny: {words}")
    assert "\n" not in str(error.value)


def test_a_detector_is_measured_along_its_own_options(tmp_path):
    axis = ("data.image_size}", "model.detector.nms}")
    plan = plan_of(tmp_path, axis, DETECTOR, *MASKS, ("minutes: 2", "at: {image-size: [0.25, 0.5]}"))
    assert plan.runs[0].measurements == (Measurement("image-size", 0.25, "model.detector.nms"),)


def test_planning_loads_nothing_heavy(tmp_path):
    code = (
        "import sys; from pathlib import Path; from botvision.studies.plan import make_plan; "
        "from botvision.studies.spec import load_study; "
        "[make_plan(load_study(name), 'cpu', Path()) for name in ('resolution', 'pointing')]; "
        "print([m for m in ('torch', 'lightning', 'timm', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_scale_that_is_not_there_and_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no recipe is called 'generated_resnet15_nano'; did you mean"):
        plan_of(tmp_path, ("generated_resnet14_nano", "generated_resnet15_nano"))
    with pytest.raises(ConfigError, match=r"--scale: study tiny.yaml has no scale 'cpu'; known: large"):
        plan_of(tmp_path, ("  cpu:", "  large:"))


def test_recipes_that_are_files_lie_beside_the_study(tmp_path):
    (tmp_path / "own.yaml").write_text("extends: generated_resnet14_nano\ntrain: {batch_size: 8}\n")
    plan = plan_of(tmp_path, ("recipe: generated_resnet14_nano", "recipe: own.yaml"))
    assert plan.runs[0].config.recipe == "own"
    assert plan.runs[0].recipe == str(tmp_path / "own.yaml")


def test_states(tmp_path):
    plan = plan_of(tmp_path, TWO_SEEDS)
    begin(plan.runs[0], data__num_workers=2, train__log_every=7)  # what decides about no number may differ
    finish(plan.runs[1], 60)
    assert plan.states() == {"r-s4": "begun", "bot-s4": "finished", "r-s7": "new", "bot-s7": "new"}


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train__epochs", 3, "a run with train.epochs 3 is here already, the study asks for 25"),
        ("model__args__attn_drop", 0.2, "a run with model.args.attn_drop 0.2 is here already"),
        ("train__seed", 9, "a run with train.seed 9 is here already, the study asks for 0"),
    ],
)
def test_a_run_of_another_configuration_is_refused(tmp_path, done, key, value, words):
    plan = plan_of(tmp_path)
    (lambda **changes: finish(plan.runs[1], 60, **changes) if done else begin(plan.runs[1], **changes))(
        **{key: value}
    )
    with pytest.raises(ConfigError, match=re.escape(f"{plan.runs[1].folder}: {words}")):
        plan.states()


def test_a_batch_that_each_arm_would_choose_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="arms of a study share a batch, expected a number, got auto"):
        plan_of(tmp_path, train__batch_size="auto").states()


def test_a_run_on_other_data_is_refused_but_data_may_move(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    photos = ("recipe: generated_resnet14_nano", "recipe: photos_resnet50")
    changes = (photos, ("model.name: botnet14_nano", "model.name: botnet50"))
    plan = plan_of(tmp_path, *changes, data__root=str(here))
    finish(plan.runs[0], 60)
    assert plan.runs[0].state() == "finished"
    assert plan_of(tmp_path, *changes).runs[0].state() == "finished"  # a report needs no data
    moved = plan_of(tmp_path, *changes, data__root=str(there)).runs[0]
    with pytest.raises(ConfigError, match=re.escape(f"a run on {here} is here already, the study is given")):
        moved.state()
    here.rmdir()
    assert moved.state() == "finished"
    assert f"--data.root={there}" in moved.training(resume=True)


def test_data_that_is_missing_is_said_before_anything_runs(tmp_path):
    changes = (("recipe: generated_resnet14_nano", "recipe: photos_resnet50"),
               ("nothing, the images are drawn", "photos of cats"))  # fmt: skip
    with pytest.raises(ConfigError, match=r"data\.root: missing; expected --data\.root with photos of cats"):
        plan_of(tmp_path, *changes).check_data()
    with pytest.raises(ConfigError, match=r"data\.root: /no/cats: no such file or folder"):
        plan_of(tmp_path, *changes, data__root="/no/cats").check_data()
    plan_of(tmp_path).check_data()


def test_time_left_by_the_file_and_by_finished_runs(tmp_path):
    plan = plan_of(tmp_path, TWO_SEEDS, ("label: BoTNet,", "label: BoTNet, minutes: 3,"))
    assert estimate(plan, plan.states(), 1).left == 2 + 3 + 2 + 3
    assert estimate(plan, plan.states(), 2).left == 5
    assert estimate(plan, plan.states(), 8).left == 3  # no run is shared out
    finish(plan.runs[0], 4 * 60)
    found = estimate(plan, plan.states(), 1)
    assert (found.per_run, found.measured, found.left) == ({"r": 4, "bot": 3}, ["r"], 3 + 4 + 3)
    begin(plan.runs[1])
    (plan.runs[1].folder / "metrics.csv").write_text("epoch\n" + "1\n" * 5)  # 5 of 25 epochs
    assert estimate(plan, plan.states(), 1).left == pytest.approx(0.8 * 3 + 4 + 3)
    unknown = plan_of(tmp_path, ("    minutes: 2\n", ""))
    assert estimate(unknown, dict.fromkeys(unknown.states(), "new"), 1).left is None


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.5, "30 s"), (59.4, "59 min"), (59.6, "1 h 0 min"), (130, "2 h 10 min"), (4560, "3 days 4 h")],
)
def test_durations(minutes, text):
    assert duration(minutes) == text
