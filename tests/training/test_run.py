"""What a run leaves behind, how it ends early, and what stops it before the first step."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from botvision.backbones.models import create_model
from botvision.backbones.weights import load_model
from botvision.config.recipes import ConfigError, build_config, load_config
from botvision.data.classification import ClassificationDataset
from botvision.data.counter_rng import keys
from botvision.io.progress import CountBar
from botvision.metrics.predictions import load_predictions
from botvision.training import classify, loop, run
from botvision.training.checkpoint import RunState, read_state
from botvision.training.classify import Classification
from botvision.training.log import epoch_line, read_rows
from botvision.training.loop import LossMeter, open_fabric, step_seed
from botvision.training.optim import update_average
from botvision.training.task import DivergedError
from tests.training.runs import evaluate, tiny

FOLDER = {
    "config.yaml", "versions.json", "metrics.csv", "steps.csv", "eval.json", "summary.json",
    "curves.png", "confusion.png", "predictions.npz", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
    "checkpoints/previous.ckpt",
    "model/model.safetensors", "model/model.json",
}  # fmt: skip


def test_the_folder_is_complete_and_nothing_temporary_is_left(whole_run: Path):
    files = {path.relative_to(whole_run).as_posix() for path in whole_run.rglob("*") if path.is_file()}
    assert {file for file in files if not file.startswith("tensorboard/")} == FOLDER
    assert any(file.startswith("tensorboard/events") for file in files)
    for picture in ("curves.png", "confusion.png"):
        with Image.open(whole_run / picture) as image:
            assert min(image.size) > 100
    assert load_config(whole_run / "config.yaml") == tiny()


def test_summary_and_evaluation_say_the_same_as_the_best_row(whole_run: Path):
    summary = json.loads((whole_run / "summary.json").read_text())
    evaluation = json.loads((whole_run / "eval.json").read_text())
    rows = read_rows(whole_run / "metrics.csv")
    best = rows[summary["best_epoch"] - 1]
    assert max(float(row["val_top1"]) for row in rows) == float(best["val_top1"]) == summary["top1"]
    assert summary["top1"] == evaluation["top1"]
    assert summary["loss"] == evaluation["loss"] == pytest.approx(float(best["val_loss"]), rel=1e-6)
    assert np.trace(evaluation["confusion"]) / 40 == summary["top1"]
    said = load_predictions(whole_run / "predictions.npz")
    assert said.accuracy(np.ones((1, 40), dtype=int)).tolist() == [summary["top1"]]
    assert np.bincount(said.target).tolist() == [sum(row) for row in evaluation["confusion"]]
    model = create_model("botnet14_tiny", num_classes=5, img_size=16, stem="cifar")
    assert summary["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert (summary["epochs"], summary["steps"], summary["batch_size"]) == (3, 18, 16)
    assert summary["step_ms"] > 0
    assert summary["train_seconds"] >= sum(float(row["seconds"]) for row in rows) - 0.01
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]


def test_exported_weights_are_the_averaged_ones_of_the_best_epoch(whole_run: Path):
    best, last = (
        torch.load(whole_run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")
    )
    model, description = load_model(whole_run / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(value, best["evaluated"][name]), name
    assert best.keys() == {"state", "evaluated"}
    assert any(not torch.equal(last["model"][name], value) for name, value in last["evaluated"].items())
    assert description["classes"] == ["disc", "ring", "square", "triangle", "star"]
    assert description["image_size"] == [16, 16]


def test_max_steps_ends_a_run_in_the_middle_of_an_epoch(tmp_path: Path):
    folder = run.train(tiny(train__max_steps=4, optim__warmup_epochs=0), tmp_path / "run", progress=False)
    state = read_state(folder / "checkpoints" / "last.ckpt")
    assert (state.step, state.epoch, state.finished) == (4, 1, True)
    rows = read_rows(folder / "steps.csv")
    assert len(rows) == 4
    assert float(rows[-1]["lr"]) < 0.5 * 0.05  # the cosine knows that four steps are all
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4


def test_a_run_that_ends_by_steps_is_measured_although_no_epoch_was_due(tmp_path: Path):
    config = tiny(train__max_steps=4, train__eval_every=2)
    folder = run.train(config, tmp_path / "run", progress=False)
    (row,) = read_rows(folder / "metrics.csv")
    assert math.isfinite(float(row["val_loss"]))
    assert json.loads((folder / "summary.json").read_text())["best_epoch"] == 1


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They would all train the same run in the same folder."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 8: a run takes one process"):
        run.train(tiny(), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_early_stopping_counts_epochs_without_a_better_top1(tmp_path: Path):
    # a rate that changes no weight: only the statistics of the norms settle, then nothing gets better
    config = tiny(
        optim__lr=1e-12, train__epochs=9, train__early_stop=2, train__ema_decay=0, data__num_images=16
    )
    folder = run.train(config, tmp_path / "run", progress=False)
    state = read_state(folder / "checkpoints" / "last.ckpt")
    assert state.epoch == state.best_epoch + 2 < 9
    assert (state.stopped_early, state.finished) == (True, True)


def test_a_loss_that_is_not_a_number_stops_with_step_and_images(tmp_path: Path):
    config = tiny(optim__lr=1e30, optim__warmup_epochs=0, optim__clip_norm=0, train__checkpoint_every=0)
    with pytest.raises(
        DivergedError, match=r"^step \d+: the loss is (nan|inf) on the batch of generated/train/"
    ) as error:
        run.train(config, tmp_path / "run", progress=False)
    assert "and 5 more" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_weights_that_are_not_numbers_never_replace_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = loop.update

    def poisoned(job: loop.Job, learner: nn.Module, step: int) -> None:
        original(job, learner, step)
        if step == 3:  # the fourth
            with torch.no_grad():
                job.model.get_parameter("fc.weight")[0, 0] = math.inf

    monkeypatch.setattr(loop, "update", poisoned)
    with pytest.raises(DivergedError, match=r"step 4: fc\.weight is no longer finite"):
        run.train(tiny(), tmp_path / "run", progress=False)
    assert read_state(tmp_path / "run" / "checkpoints" / "last.ckpt").step == 2


def test_logits_that_are_not_numbers_never_count_as_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original, batches = classify.Answers.update, []

    def poisoned(self: classify.Answers, model: nn.Module, batch: classify.Batch) -> None:
        batches.append(batch)
        if len(batches) > 5:  # of the second epoch
            model.get_parameter("fc.bias")[0] = math.nan
        original(self, model, batch)

    monkeypatch.setattr(classify.Answers, "update", poisoned)
    with pytest.raises(DivergedError, match=r"^epoch 2: the logits of 40 validation images are not finite"):
        run.train(tiny(), tmp_path / "run", progress=False)
    assert len(read_rows(tmp_path / "run" / "metrics.csv")) == 1


def test_the_last_group_of_an_epoch_has_a_whole_gradient(tmp_path: Path):
    """One batch an epoch: three of them were asked for, and it must count as much as where one was."""
    plain: dict[str, Any] = {"optim__clip_norm": 0, "data__num_images": 8, "optim__warmup_epochs": 0}
    plain |= {"train__epochs": 2, "train__ema_decay": 0, "train__keep": "last"}
    weights = []
    for accumulate in (1, 3):
        folder = run.train(
            tiny(**plain, train__accumulate=accumulate), tmp_path / str(accumulate), progress=False
        )
        weights.append(load_model(folder / "model")[0].state_dict())
        assert len(read_rows(folder / "steps.csv")) == 2
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


def test_losses_are_weighted_by_images():
    meter = LossMeter(str, RunState())
    meter.add(0, torch.tensor(1.0), torch.arange(6))
    meter.add(0, torch.tensor(4.0), torch.arange(2))
    assert meter.step_loss() == 2.5  # what the gradient is of: the mean of the two batches
    assert meter.mean() == (6 * 1.0 + 2 * 4.0) / 8
    meter.add(1, torch.tensor(3.0), torch.arange(1))
    assert meter.step_loss() == 3.0


def test_several_processes_share_the_loss_and_draw_for_themselves():
    state = RunState()
    meter = LossMeter(str, state, gather=lambda losses: torch.stack([losses, losses + 2]))
    meter.add(0, torch.tensor(1.0), torch.arange(3))
    assert (meter.step_loss(), meter.mean(), state.images) == (2.0, 2.0, 6)
    seeds = {
        step_seed(3, epoch, batch, rank, world)
        for world in (2, 3)
        for rank in range(world)
        for epoch in range(2)
        for batch in range(2)
    }
    alone = [step_seed(3, epoch, batch) for epoch in range(2) for batch in range(2)]
    assert alone == [int(keys(3, epoch, batch)[0]) for epoch in range(2) for batch in range(2)]
    assert len(seeds) == 2 * 6  # each batch of all processes, counted through


def test_the_average_follows_its_formula():
    linear, norm = nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)
    model = nn.Sequential(linear, norm)
    averaged: Any = copy.deepcopy(model)
    expected = 1.0
    for step, value in ((0, 1.0), (1, 5.0), (2, 9.0), (40, 2.0)):  # the first is copied
        with torch.no_grad():
            linear.weight.fill_(value)
            norm.running_mean = torch.full((2,), value)
            norm.num_batches_tracked = torch.tensor(step)
        update_average(averaged, model, step, 0.5)
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        expected = decay * expected + (1 - decay) * value
    assert torch.allclose(averaged[0].weight, torch.full((2, 2), expected))
    assert torch.allclose(averaged[1].running_mean, torch.full((2,), expected))
    assert averaged[1].num_batches_tracked == 40


def test_the_terminal_shows_what_comes_one_line_an_epoch_and_no_notices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run.train(tiny(train__epochs=2, train__log_every=100), tmp_path / "run")
    captured = capsys.readouterr()
    lines = [line.split("\r")[-1] for line in captured.err.splitlines() if line.strip()]
    assert captured.out == ""
    expected = f"{tmp_path / 'run'}: 100 images to train on, 40 to measure on, 6 steps an epoch, 2 epochs"
    assert lines[0] == "botnet14_tiny starts from nothing, with random weights"
    assert lines[1] == expected
    assert [line[:10] for line in lines[2:-1]] == ["epoch 1/2 ", "epoch 2/2 "]
    assert lines[-1].startswith(f"{tmp_path / 'run'}: top-1")


def test_random_state_of_the_caller_is_left_alone(tmp_path: Path):
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(1), np.random.rand(1)
    torch.manual_seed(7)
    np.random.seed(7)
    run.train(tiny(train__max_steps=1), tmp_path / "run", progress=False)
    assert (torch.rand(1), np.random.rand(1)) == expected


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"model__name": "botnet15_tiny"}, "unknown model 'botnet15_tiny'"),
        ({"model__args__haeds": 2}, "haeds"),
        ({"model__args__heads": 3}, "model botnet14_tiny with"),
        ({"model__args__c5_stride": 3}, "model botnet14_tiny with"),
        ({"train__batch_size": 128}, "100 images, expected a batch of 128"),
        (
            {"train__batch_size": 1, "data__image_size": 8},
            "train.batch_size: a batch of 1 is too few for batch norm",
        ),
        ({"data__source": "folder"}, "data.root is not set"),
        ({"data__source": "folder", "data__root": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"model__weights": "/nowhere.safetensors"}, "/nowhere.safetensors"),
    ],
)
def test_what_cannot_work_is_found_before_the_folder_is_made(
    tmp_path: Path, overrides: dict[str, object], line: str
):
    with pytest.raises(ValueError, match=line) as error:
        run.train(tiny(**overrides), tmp_path / "run", progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"train\.device: cuda was asked for"):
        run.train(tiny(train__device="cuda"), tmp_path / "run", progress=False)


def test_a_run_on_image_files_with_workers_and_bf16(tmp_path: Path):
    """Folders of files, worker processes, bf16, channels last, one image size that is not square."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name, level in (("dark", 40), ("light", 200)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(level - 30, level + 30, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    config = build_config(
        {
            "model": {"name": "botnet14_tiny"},
            "data": {
                "root": str(tmp_path / "data"),
                "image_size": [32, 64],
                "augment": "imagenet",
                "num_workers": 1,
            },
            "train": {
                "epochs": 1,
                "batch_size": 4,
                "precision": "bf16-mixed",
                "channels_last": True,
                "device": "cpu",
            },
        }
    )
    folder = run.train(config, tmp_path / "run", progress=False)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["image_size"] == [32, 64]
    assert summary["val_images"] == 4
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["root"] == str(tmp_path / "data")
    assert (evaluate(folder).top1, evaluate(folder).loss) == (summary["top1"], summary["loss"])


@pytest.mark.parametrize("cache", ["none", "auto"])
def test_broken_images_are_found_before_the_folder_is_made(tmp_path: Path, cache: str):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (16, 16)).save(tmp_path / "data" / split / name / f"{i}.png")
    (tmp_path / "data" / "val" / "b" / "2.png").write_bytes(b"\x89PNG")
    data: dict[str, Any] = {
        "data__source": "auto",
        "data__root": str(tmp_path / "data"),
        "data__cache": cache,
    }
    data |= {"data__cache_bytes": 1, "train__batch_size": 2, "train__epochs": 1}
    with pytest.raises(ValueError, match=r"val/b/2\.png"):
        run.train(tiny(**data), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_images_too_many_to_be_read_beforehand_are_mentioned_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassificationDataset, "verify", lambda self, progress: len(self) < 100)
    lines: list[str] = []
    bar = CountBar()
    monkeypatch.setattr(bar, "say", lines.append)
    run._open_and_build(tiny(), open_fabric("cpu"), fresh=True, bar=bar)
    assert len(lines) == 2  # 100 for training, 40 for validation
    assert lines[1].endswith("train: 100 images are not read beforehand; botvision check does it")
    run._open_and_build(tiny(), open_fabric("cpu"), fresh=False, bar=bar)
    assert len(lines) == 2


def test_the_epoch_line_leaves_out_what_there_is_not():
    def line(row: dict[str, Any]) -> str:
        return epoch_line(row, Classification(tiny()).epoch_text(row), 10, best=False)

    row = {"epoch": 3, "train_loss": 1.0, "val_loss": 2.0, "val_top1": 0.5, "val_top5": 0.75, "seconds": 4.0}
    assert "top-1  50.00 %  top-5  75.00 %  4.0 s" in line(row)
    assert "top-1  50.00 %  4.0 s" in line(row | {"val_top5": math.nan})
