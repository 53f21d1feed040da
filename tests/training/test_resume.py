"""Killed and resumed, a run ends in the same bits as one that was left alone."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from botvision.backbones.weights import load_model
from botvision.config.recipes import ConfigError, load_config, resumed_config
from botvision.training import log, loop, run
from botvision.training.checkpoint import read_checkpoint, read_state
from botvision.training.evaluation import Evaluation
from tests.training.runs import assert_same_run, tiny

ROOT = Path(__file__).parents[2]

KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from botvision.training import log, run
from tests.training.runs import tiny

written = log.History.log_step

def log_step(self, step, *rest):
    written(self, step, *rest)
    if step == 9:  # third of the six steps of the second epoch
        os.kill(os.getpid(), signal.SIGKILL)

log.History.log_step = log_step
run.train(tiny(), sys.argv[1], progress=False)
"""


def test_killed_in_the_middle_of_an_epoch(whole_run: Path, tmp_path: Path):
    """SIGKILL, with dropout, drop path, averaged weights, accumulation and augmentation on."""
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, capture_output=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    state = read_state(folder / "checkpoints" / "last.ckpt")
    assert (state.step, state.epoch, state.batches) == (8, 1, 4)
    assert (
        (folder / "steps.csv").read_text().splitlines()[-1].startswith("9,2,")
    )  # to be dropped and done again
    assert not (folder / "summary.json").exists()
    run.train(tiny(), folder, resume=True, progress=False)
    assert_same_run(whole_run, folder)


class Interrupted(BaseException):
    """In place of a kill, where starting one more process would add nothing."""


@pytest.mark.parametrize(
    ("where", "at", "restored"),
    [
        ("log_step", 1, None),  # before the first checkpoint
        ("log_step", 6, (4, 0, 8)),  # last step of an epoch, before its validation
        ("log_epoch", 1, (4, 0, 8)),  # after the validation, before its checkpoint
        ("save_checkpoint", 1, (6, 1, 0)),  # between two epochs
        ("log_step", 9, (8, 1, 4)),  # in the middle of an epoch, with worker processes
        ("save_checkpoint", 3, (18, 3, 0)),  # trained, but nothing exported yet
    ],
)
def test_interrupted_anywhere(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, at: int, restored: Any
):
    owner: Any = loop if where == "save_checkpoint" else log.History
    original = getattr(owner, where)

    def interrupted(place: Any, reached: Any, *arguments: Any, **named: Any) -> None:
        original(place, reached, *arguments, **named)
        if where == "save_checkpoint":
            reached = reached.epoch if reached.batches == 0 else None
        elif where == "log_epoch":
            reached = reached["epoch"]
        if reached == at:
            raise Interrupted

    # worker processes before, none after: their number must not matter
    workers = 2 if (where, at) == ("log_step", 9) else 0
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, interrupted)
        with pytest.raises(Interrupted):
            run.train(tiny(data__num_workers=workers), tmp_path / "run", progress=False)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    if restored is None:
        assert not last.exists()
    else:
        state = read_state(last)
        assert (state.step, state.epoch, state.batches) == restored
    run.train(tiny(), tmp_path / "run", resume=True, progress=False)
    assert_same_run(whole_run, tmp_path / "run")


def test_more_epochs_follow_the_schedule_of_the_new_length(whole_run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    run.train(tiny(train__epochs=4), folder, resume=True, progress=False)
    steps = log.read_rows(folder / "steps.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 25))
    before, after = float(steps[17]["lr"]), float(steps[18]["lr"])
    assert after > before  # the old cosine had come down; the new one has six steps to go
    assert (folder / "steps.csv").read_text().startswith((whole_run / "steps.csv").read_text())
    assert len(log.read_rows(folder / "metrics.csv")) == 4
    assert read_state(folder / "checkpoints" / "last.ckpt").finished


def interrupt(monkeypatch: pytest.MonkeyPatch, config: Any, folder: Path, at: int, resume: bool) -> None:
    """Trains until the step `at` is logged."""
    original = log.History.log_step

    def interrupted(self: Any, step: int, *rest: Any) -> None:
        original(self, step, *rest)
        if step == at:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(log.History, "log_step", interrupted)
        with pytest.raises(Interrupted):
            run.train(config, folder, resume=resume, progress=False)


def test_an_extension_killed_before_its_first_checkpoint_goes_on(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, alone = tmp_path / "run", tmp_path / "alone"
    for copy in (folder, alone):
        shutil.copytree(whole_run, copy)
    interrupt(monkeypatch, tiny(train__epochs=4), folder, 19, resume=True)
    assert read_state(folder / "checkpoints" / "last.ckpt").step == 18
    assert not (folder / "summary.json").exists()  # a run that goes on must not pass for a finished one
    assert not (folder / "eval.json").exists()
    unfinished = Evaluation(folder)
    best = read_checkpoint(folder / "checkpoints" / "best.ckpt")["state"]
    assert unfinished.measure().top1 == best.best_score
    assert unfinished.note.endswith("weights of best.ckpt, after step 18 (3 of 4 epochs done)")
    assert (folder / "eval-unfinished.json").is_file()
    for copy in (folder, alone):
        run.train(tiny(train__epochs=4), copy, resume=True, progress=False)
    assert read_state(folder / "checkpoints" / "last.ckpt").epoch == 4
    assert_same_run(alone, folder)


def test_keys_that_may_change_have_an_effect_on_a_finished_run(whole_run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    averaged = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["evaluated"]
    run.train(tiny(train__keep="last"), folder, resume=True, progress=False)
    assert json.loads((folder / "summary.json").read_text())["kept"] == "last"
    assert load_config(folder / "config.yaml").train.keep == "last"
    model, _ = load_model(folder / "model")
    assert torch.equal(model.state_dict()["fc.weight"], averaged["fc.weight"])


def test_a_run_that_stopped_early_goes_on_without_early_stopping(tmp_path: Path):
    still: dict[str, Any] = {"optim__lr": 1e-12, "train__ema_decay": 0, "data__num_images": 16}
    early = tiny(**still, train__epochs=6, train__early_stop=1)
    folder = run.train(early, tmp_path / "run", progress=False)
    stopped = read_state(folder / "checkpoints" / "last.ckpt")
    assert (stopped.stopped_early, stopped.finished) == (True, True)
    assert stopped.epoch < 6
    run.train(tiny(**still, train__epochs=6), folder, resume=True, progress=False)
    state = read_state(folder / "checkpoints" / "last.ckpt")
    assert (state.epoch, state.stopped_early) == (6, False)


def test_a_run_goes_on_with_its_own_configuration_and_data_that_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for split, count in (("train", 5), ("val", 2)):
        for level, name in enumerate(("dark", "light")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                picture = Image.new("RGB", (16, 16), (100 * level + i, 0, 0))
                picture.save(tmp_path / "data" / split / name / f"{i}.png")
    here: dict[str, Any] = {"data__source": "auto", "data__root": str(tmp_path / "data"), "train__epochs": 2}
    here |= {"train__batch_size": 4, "train__accumulate": 1}
    whole = run.train(tiny(**here), tmp_path / "whole", progress=False)
    folder = tmp_path / "run"
    interrupt(monkeypatch, tiny(**here), folder, 3, resume=False)
    moved = shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "data")
    run.train(resumed_config(folder, {"data.root": str(moved)}), folder, resume=True, progress=False)
    assert_same_run(whole, folder)
    assert [s["from_step"] for s in json.loads((folder / "versions.json").read_text())] == [0, 2]

    more = resumed_config(folder, {"train.epochs": "3"})
    (moved / "train" / "dark" / "0.png").unlink()
    with pytest.raises(
        ConfigError, match=r"elsewhere: not the data of the run, which had 10 \+ 4 images; here"
    ):
        run.train(more, folder, resume=True, progress=False)
    (moved / "train" / "dark").rename(moved / "train" / "dull")
    (moved / "val" / "dark").rename(moved / "val" / "dull")
    with pytest.raises(ConfigError, match=r"2 classes \(dark, light\); here are 2 classes \(dull, light\)"):
        run.train(more, folder, resume=True, progress=False)


def test_the_own_configuration_needs_a_run_of_the_same_recipe(whole_run: Path, tmp_path: Path):
    assert resumed_config(whole_run) == tiny()
    assert resumed_config(whole_run, {"train.epochs": "5"}, recipe="") == tiny(train__epochs=5)
    with pytest.raises(ConfigError, match="leave the recipe out to resume"):
        resumed_config(whole_run, recipe="cifar10_resnet50")
    with pytest.raises(ConfigError, match="no run to resume"):
        resumed_config(tmp_path)


def test_a_finished_run_is_left_alone(whole_run: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")}
    run.train(tiny(), whole_run, resume=True)
    assert {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")} == before
    assert "nothing to do, the run is finished (3 epochs)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"model__args__heads": 2}, "cannot resume with another model.args.heads: it was None, now 2"),
        ({"data__num_images": 99}, "cannot resume with another data.num_images: it was 100, now 99"),
        ({"train__seed": 4}, "cannot resume with another train.seed: it was 3, now 4"),
        ({"train__epochs": 2}, "has done 3 epochs already, got 2"),
    ],
)
def test_what_would_not_be_the_same_run_is_refused(whole_run: Path, overrides: dict[str, object], line: str):
    with pytest.raises(ConfigError, match=line):
        run.train(tiny(**overrides), whole_run, resume=True, progress=False)


def test_folders_are_not_mixed_up(whole_run: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="already holds a run"):
        run.train(tiny(), whole_run, progress=False)
    with pytest.raises(ConfigError, match="no run to resume"):
        run.train(tiny(), tmp_path / "none", resume=True, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        run.train(tiny(), tmp_path, progress=False)


def test_a_finished_run_without_checkpoints_is_not_trained_anew(whole_run: Path, tmp_path: Path):
    """A copy may leave them behind: what is finished must not be lost."""
    copy = tmp_path / "copy"
    shutil.copytree(whole_run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    before = (copy / "summary.json").read_bytes()
    with pytest.raises(ConfigError, match="is finished, and there are no checkpoints to go on from"):
        run.train(tiny(**{"train.epochs": 9}), copy, resume=True, progress=False)
    assert (copy / "summary.json").read_bytes() == before


def test_a_broken_checkpoint_is_named(whole_run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"last\.ckpt: cannot be read as a checkpoint") as error:
        run.train(tiny(), folder, resume=True, progress=False)
    assert "\n" not in str(error.value)
    torch.save({"state_dict": {}}, last)
    with pytest.raises(ConfigError, match="not a checkpoint of a botvision run"):
        run.train(tiny(), folder, resume=True, progress=False)
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0", "botvision": {"step": 18}}, last)
    with pytest.raises(ConfigError, match=r"last\.ckpt: the checkpoint of an earlier version") as error:
        run.train(tiny(), folder, resume=True, progress=False)
    assert "\n" not in str(error.value)
