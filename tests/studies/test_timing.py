"""Step times: every arm has its turn in every round, each step does its work, and the report says how."""

import dataclasses
import math

import pytest
import torch

from botvision.config.recipes import build_config, load_recipe
from botvision.metrics.bootstrap import ImageSampler
from botvision.studies import timing
from botvision.studies.outcome import collect
from botvision.studies.report import sections
from botvision.studies.statistics import analyse
from botvision.studies.timing import StepTimes, measure_steps, read_steps
from botvision.training.loop import Stepper
from botvision.training.run import task_of
from tests.studies.files import plan_of
from tests.studies.test_collect import run_all
from tests.studies.test_plan import TWO_SEEDS


def test_arms_take_turns_and_are_written_down(tmp_path, monkeypatch):
    calls = []

    class Fake:
        def __init__(self, task):
            self.name = task.config.model.name

        def __call__(self):
            calls.append(self.name)
            return 0.001 * len(calls)

    monkeypatch.setattr("botvision.training.loop.Stepper", Fake)
    monkeypatch.setattr(timing, "ROUNDS", 3)
    plan = plan_of(tmp_path, TWO_SEEDS)
    plan.folder.mkdir()
    before = torch.get_num_threads()
    found = measure_steps(plan)
    assert torch.get_num_threads() == before
    assert calls == ["resnet14_nano", "botnet14_nano"] * 4  # one to warm up
    assert dict(found.median) == {"r": 5.0, "bot": 6.0}  # of 3, 5, 7 and 4, 6, 8 ms
    assert found.together
    assert read_steps(plan) == found


def test_on_a_gpu_one_arm_comes_after_the_other(tmp_path, monkeypatch):
    calls = []

    def stepper(task):
        return lambda: calls.append(task.config.model.name) or 0.001

    monkeypatch.setattr("botvision.training.loop.Stepper", stepper)
    monkeypatch.setattr("botvision.training.loop.resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("botvision.training.provenance.hardware", lambda _: "a GPU")
    monkeypatch.setattr(timing, "ROUNDS", 2)
    plan = run_all(plan_of(tmp_path, TWO_SEEDS))
    assert not measure_steps(plan).together
    assert calls == ["resnet14_nano"] * 3 + ["botnet14_nano"] * 3
    note = collect(plan).notes[-1]
    assert note.startswith(
        "Step times: one arm after the other, 2 steps of each, loading of data left out, on a"
    )


def test_a_report_takes_them_instead_of_those_of_the_runs(tmp_path):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS))
    outcome = collect(plan)
    assert outcome.arms[0].runs[0].cost.step_ms == 1.5
    assert "Step times are medians of the runs" in outcome.notes[-1]
    steps = StepTimes({"r": 10.0, "bot": 20.0}, {"r": 1.0, "bot": 1.0}, 10, "a CPU, 1 thread", "abc")
    (plan.folder / timing.FILE).write_text(timing.json.dumps(dataclasses.asdict(steps)))
    outcome = collect(plan)
    assert [arm.step_ms for arm in outcome.arms] == [10.0, 20.0]
    assert [run.cost.step_ms for arm in outcome.arms for run in arm.runs] == [1.5] * 4  # as each was trained
    (grid,) = next(iter(sections(analyse(outcome, ImageSampler(10)), drawn=False))).grids
    assert [row[grid.header.index("step (ms)")] for row in grid.rows] == ["10.0", "20.0"]
    assert "all arms in turn, 10 rounds" in outcome.notes[-1]
    assert "at most 10 %" in outcome.notes[-1]


def test_step_times_of_some_arms_alone_are_left_out(tmp_path):
    """Beside times of the runs, of another hour and with loading, they would mislead."""
    plan = run_all(plan_of(tmp_path, TWO_SEEDS))
    path = plan.runs[0].folder / "summary.json"
    path.write_text(path.read_text().replace("a CPU", "another"))
    steps = StepTimes({"r": 10.0}, {"r": 1.0}, 10, "a CPU, 1 thread", "abc")
    (plan.folder / timing.FILE).write_text(timing.json.dumps(dataclasses.asdict(steps)))
    outcome = collect(plan)
    assert [arm.step_ms for arm in outcome.arms] == [None, None]
    assert "Step times are medians of the runs" in outcome.notes[-1]
    assert outcome.warnings == ("the runs come from different hardware: a CPU, another",)


def test_files_of_step_times_are_read_or_none(tmp_path):
    plan = plan_of(tmp_path, TWO_SEEDS)
    plan.folder.mkdir()
    steps = StepTimes({"r": 10.0, "bot": 9.0}, {"r": 1.0, "bot": 1.0}, 10, "a CPU, 1 thread", "abc")
    old = {name: value for name, value in dataclasses.asdict(steps).items() if name != "together"}
    (plan.folder / timing.FILE).write_text(timing.json.dumps(old))
    assert read_steps(plan) == steps
    (plan.folder / timing.FILE).write_text(timing.json.dumps({**old, "median": {"r": 10.0}}))
    assert read_steps(plan) is None  # an arm came later
    (plan.folder / timing.FILE).write_text('{"median": 3}')
    assert read_steps(plan) is None


@pytest.mark.parametrize(
    ("recipe", "batches"),
    [("generated_botnet14_nano", 1), ("generated_botnet14_nano", 3), ("shapes_botnet14_nano", 1)],
)
def test_a_step_has_gradients_of_the_whole_network_and_leaves_it_as_it_was(recipe, batches):
    small = {"data.num_images": "8", "data.num_val_images": "4", "data.image_size": "64",
             "train.batch_size": "4", "optim.clip_norm": "1.0", "train.accumulate": str(batches)}  # fmt: skip
    step = Stepper(task_of(build_config(load_recipe(recipe), small)))
    model, seen = step._learner.model, []
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: seen.append(bool(p.grad.isfinite().all())))
    for _ in range(2):
        assert math.isfinite(step())
    assert len(seen) == 2 * batches * len(before)  # an optimiser step is all batches that it accumulates
    assert all(seen)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name
