"""A detector's run from beginning to end, on drawn shapes."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.cli import main as cli
from botvision.coco.evaluate import evaluate_coco
from botvision.coco.matches import load_matches, load_sides
from botvision.coco.sides import side_accuracy
from botvision.config.recipes import build_config
from botvision.config.run import DetectionRunConfig
from botvision.config.schema import ConfigError
from botvision.data.detection import open_detection
from botvision.data.synthetic.shapes import ShapesSource
from botvision.detection.weights import load_detector
from botvision.training import detect, log
from botvision.training.checkpoint import read_state
from botvision.training.detect import LOSSES, Detection
from botvision.training.evaluation import evaluation_files
from botvision.training.log import read_rows
from botvision.training.run import train
from botvision.training.task import DivergedError
from tests.training.runs import assert_same_run, evaluate

SMALL: dict[str, Any] = {
    "task": "detect",
    "model": {
        "name": "botnet14_nano",
        "args": {"drop_path_rate": 0.1},
        "detector": {
            "heads": "light", "channels": 16, "box_channels": 32, "mask_convs": 1, "detections": 20,
            "anchor_sizes": [8, 16, 32, 64, 128], "rpn_post_nms_train": 50, "rpn_post_nms_test": 30,
            "roi_batch": 16, "score_threshold": 0.0,
        },
    },
    "data": {"source": "generated", "image_size": 64, "num_images": 12, "num_val_images": 5},
    "optim": {"lr": 0.02, "warmup_epochs": 1, "clip_norm": 1.0},
    "train": {
        "epochs": 2, "batch_size": 2, "accumulate": 2, "seed": 1, "ema_decay": 0.9, "checkpoint_every": 2,
        "log_every": 1, "device": "cpu",
    },
}  # fmt: skip


def small(**overrides: object) -> DetectionRunConfig:
    """The configuration; `train__epochs=2` sets train.epochs."""
    config = build_config(SMALL, {key.replace("__", "."): value for key, value in overrides.items()})
    assert isinstance(config, DetectionRunConfig)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, not to be written to."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = train(small(), tmp_path_factory.mktemp("detect") / "run", progress=False)
    torch.set_num_threads(threads)
    return folder


def test_the_folder_holds_what_a_person_looks_for(run: Path):
    for name in (
        "curves.png",
        "precision_recall.png",
        "sheet.png",
        "results.json",
        "model/model.safetensors",
    ):
        assert (run / name).stat().st_size > 0, name
    rows = read_rows(run / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(math.isfinite(float(row["val_mask_ap50"])) for row in rows)
    steps = read_rows(run / "steps.csv")
    assert len(steps) == 6
    last = steps[-1]
    assert all(float(last[name]) >= 0 for name in LOSSES)


ONE_BATCH_A_STEP = {
    "data__num_images": 5, "train__accumulate": 1, "train__checkpoint_every": 1, "train__epochs": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def by_batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that makes a step of every batch, not to be written to."""
    return train(small(**ONE_BATCH_A_STEP), tmp_path_factory.mktemp("by_batches") / "run", progress=False)


def test_the_loss_is_the_sum_of_its_parts(by_batches: Path):
    for row in read_rows(by_batches / "steps.csv"):
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in LOSSES), rel=1e-5)


def test_numbers_are_those_of_the_written_results(run: Path):
    table = json.loads((run / "eval.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    truth = open_detection(small().data, 0).val.ground_truth()
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        again = evaluate_coco(truth, run / "results.json", kind, 20)
        assert again.ap == table[kind]["ap"] == summary[f"{name}_ap"]
        assert float(read_rows(run / "metrics.csv")[-1][f"val_{name}_ap"]) == pytest.approx(
            again.ap, abs=1e-9
        )
        matches = load_matches(run / "matches.npz", kind)
        assert matches is not None
        everything = np.ones((1, len(matches.images)), dtype=np.int64)
        assert matches.average_precision(everything)[0] == pytest.approx(again.ap, abs=1e-12)


def test_the_averaged_weights_are_kept(run: Path):
    """And the average of a network with hooks is a network with hooks of its own."""
    model, description = load_detector(run / "model")
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored["evaluated"][name]), name
    name = "backbone.body.conv1.0.weight"
    assert not torch.equal(stored["model"][name], model.state_dict()[name])
    assert description["classes"] == open_detection(small().data, 0).classes


def test_interrupted_and_resumed_is_the_same_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Killed(BaseException):
        pass

    original = log.History.log_step

    def interrupted(self: log.History, step: int, *rest: Any, **parts: Any) -> None:
        original(self, step, *rest, **parts)
        if step == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(log.History, "log_step", interrupted)
        with pytest.raises(Killed):
            train(small(), tmp_path / "run", progress=False)
    state = read_state(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert (state.step, state.epoch, state.batches) == (4, 1, 2)
    train(small(), tmp_path / "run", resume=True, progress=False)
    assert_same_run(run, tmp_path / "run")
    assert (run / "results.json").read_bytes() == (tmp_path / "run" / "results.json").read_bytes()


def test_evaluation_again_and_with_other_choices(run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    again = evaluate(folder)
    assert json.loads((run / "eval.json").read_text()) == json.loads((folder / "eval.json").read_text())
    few = evaluate(folder, overrides={"model.detector.detections": "1"})
    files = evaluation_files(folder, overrides={"model.detector.detections": "1"})
    assert files[0].name == "eval-detections-1.json"
    assert json.loads(files[0].read_text())["bbox"]["max_detections"] == 1
    assert few.bbox.ar_max <= again.bbox.ar_max
    assert len(json.loads((folder / "results-detections-1.json").read_text())) == 5
    larger = evaluate(folder, overrides={"data.image_size": "96"})
    assert math.isfinite(larger.bbox.ap)
    assert evaluate(folder, "train").bbox.images == 12
    with pytest.raises(
        ConfigError, match=r"^model\.detector\.roi_batch: an evaluation takes only data\.\*, "
    ):
        evaluate(folder, overrides={"model.detector.roi_batch": "1"})


def test_epochs_that_are_not_evaluated(tmp_path: Path):
    folder = train(
        small(train__epochs=3, train__eval_every=2, data__num_images=4), tmp_path / "run", progress=False
    )
    found = [float(row["val_box_ap"]) for row in read_rows(folder / "metrics.csv")]
    assert [math.isnan(value) for value in found] == [True, False, False]


def test_boxes_alone(tmp_path: Path):
    folder = train(
        small(model__detector__masks=False, train__epochs=1, train__ema_decay=0),
        tmp_path / "run",
        progress=False,
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["mask_ap"] is None
    assert math.isfinite(summary["box_ap"])
    assert "segm" not in json.loads((folder / "eval.json").read_text())
    assert all("segmentation" not in record for record in json.loads((folder / "results.json").read_text()))


def test_left_and_right_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for split, count in (("train", 6), ("val", 3)):
        ShapesSource(seed=5, split=split, count=count, num_classes=3, size=(40, 60)).export(tmp_path)
        path = tmp_path / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for category, name in zip(content["categories"], ("left_ear", "nose", "right_ear"), strict=True):
            category["name"] = name
        path.write_text(json.dumps(content))
    config = small(data__source="coco", data__root=str(tmp_path), train__epochs=1, optim__lr=0.001)
    folder = train(config, tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("note: left and right are classes of their own (left_ear, right_ear), ") == 1
    truth = open_detection(config.data).val.ground_truth()
    sides = side_accuracy(truth, folder / "results.json")
    assert sides is not None
    assert sides.parts.sum() > 0
    kept = load_sides(folder / "matches.npz")
    assert kept is not None
    assert kept.found.tolist() == sides.found.tolist()
    known = sides.accuracy if sides.found.any() else None
    for name in ("eval.json", "summary.json"):
        values = json.loads((folder / name).read_text())
        assert (values["side_accuracy"], values["side_parts"]) == (known, sides.found.sum())
    assert cli.main(["eval", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"Sides: of {sides.parts.sum()} parts that have a left and a right, {sides.found.sum()} are" in out
    train(
        small(data__source="coco", data__root=str(tmp_path), data__flip=False, train__epochs=1),
        tmp_path / "b",
    )
    assert "left and right" not in capsys.readouterr().err


def test_a_loss_that_is_no_number_names_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = Detection.loss

    def poisoned(self: Detection, *given: Any) -> Any:
        loss, parts = original(self, *given)
        return loss * math.nan, parts

    monkeypatch.setattr(Detection, "loss", poisoned)
    with pytest.raises(
        DivergedError,
        match=r"^step 1: the loss is nan on the batch of .*\(image id \d+\), .*\(image id \d+\)",
    ):
        train(small(), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_detections_that_are_no_numbers_name_the_image():
    data = open_detection(small().data, 0).val
    results = detect.Results(data, 20, masks=False)
    found = {"boxes": torch.full((1, 4), math.nan), "labels": torch.ones(1), "scores": torch.ones(1)}
    with pytest.raises(DivergedError, match=r"^the detections of .*\(image id 3\) are not finite"):
        results.add([found], torch.tensor([2]))


def test_training_on_images_of_which_one_has_no_object(tmp_path: Path):
    """A COCO data set of two images, one without annotations."""
    ShapesSource(0, "train", 8, 2, (64, 64), 3).export(tmp_path)
    path = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    first = content["annotations"][0]["image_id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == first]
    path.write_text(json.dumps(content))
    config = small(
        data__source="coco", data__root=str(tmp_path), data__val_is_train=True, train__epochs=1,
        train__accumulate=1, train__batch_size=1,
    )  # fmt: skip
    folder = train(config, tmp_path / "run", progress=False)
    losses = [float(row["loss"]) for row in read_rows(folder / "steps.csv")]
    assert len(losses) == 8
    assert all(math.isfinite(loss) for loss in losses)


def test_a_mask_detector_on_data_without_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 5, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 50, "height": 40}],
        "annotations": [box],
        "categories": [{"id": 5, "name": "thing"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    where: dict[str, Any] = {
        "data__source": "coco", "data__root": str(tmp_path), "data__train_annotations": "boxes.json",
        "data__train_images": ".", "data__val_is_train": True, "train__batch_size": 1, "train__accumulate": 1,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"boxes without masks; model\.detector\.masks false trains"):
        Detection(small(**where)).open()
    config = small(**where, model__detector__masks=False, train__epochs=1)
    drawn, draw = [], detect.truth_and_prediction_sheet
    monkeypatch.setattr(
        detect,
        "truth_and_prediction_sheet",
        lambda pairs, classes: drawn.extend(pairs) or draw(pairs, classes),
    )
    folder = train(config, tmp_path / "run", progress=False)
    assert {record["category_id"] for record in json.loads((folder / "results.json").read_text())} <= {5}
    assert dataclasses.asdict(config)["model"]["detector"]["masks"] is False
    assert [(pair.truth.boxes.tolist(), pair.truth.masks) for pair in drawn] == [([[4, 4, 24, 24]], None)]


def test_a_batch_of_one_that_batch_norm_cannot_average(tmp_path: Path):
    one: dict[str, Any] = {"train__batch_size": 1, "train__accumulate": 1, "data__image_size": 32}
    with pytest.raises(
        ConfigError, match=r"^train\.batch_size: a batch of 1 is too few for batch norm on images of 32x32"
    ):
        train(small(**one), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    folder = train(
        small(**one, model__detector__norm="group", data__num_images=2, train__epochs=1),
        tmp_path / "run",
        progress=False,
    )
    assert len(read_rows(folder / "steps.csv")) == 2


@pytest.mark.parametrize(
    "frozen", [{"model__detector__norm": "frozen"}, {"model__detector__frozen_stages": 2}]
)
def test_what_is_frozen_needs_weights(frozen: dict[str, Any], tmp_path: Path):
    with pytest.raises(
        ConfigError,
        match=r"^model\.detector\.\w+ \w+ never .*: give --model.weights, or --model\.detector\.norm group",
    ):
        train(small(**frozen), tmp_path / "run", progress=False)


def test_a_classifier_run_warms_up_the_backbone(whole_run: Path, tmp_path: Path):
    """With the report in the folder; the classifier's own layer is what does not fit."""
    args = {"stem": "cifar"}
    config = small(
        model__name="botnet14_tiny", model__args=args, model__weights=str(whole_run), train__max_steps=1,
        train__ema_decay=0, data__image_size=32,
    )  # fmt: skip
    folder = train(config, tmp_path / "run", progress=False)
    text = (folder / "warm_start.txt").read_text()
    assert re.search(r"^missing +0$", text, re.MULTILINE)
    assert re.search(r"^unexpected +2  fc.bias, fc.weight$", text, re.MULTILINE)


def test_every_image_takes_part_in_every_epoch(by_batches: Path, tmp_path: Path):
    """Five images by two are three batches, also for one who comes back after the second."""
    assert len(read_rows(by_batches / "steps.csv")) == 6
    part = tmp_path / "part"
    for epochs in (1, 2):
        config = small(**{**ONE_BATCH_A_STEP, "train__epochs": epochs})
        train(config, part, resume=epochs == 2, progress=False)
    assert [row["step"] for row in read_rows(part / "steps.csv")] == [str(step) for step in range(1, 7)]


def test_keys_of_the_other_task_are_unknown():
    with pytest.raises(ConfigError, match=r"unknown key model\.detektor; did you mean 'model\.detector'"):
        build_config(SMALL, {"model.detektor.masks": False})
    with pytest.raises(ConfigError, match=r"model\.detector\.neck: expected one of fpn, c5"):
        small(model__detector__neck="fnp")
    with pytest.raises(ConfigError, match=r"train\.label_smoothing: expected 0, a detector has none"):
        small(train__label_smoothing=0.1)
