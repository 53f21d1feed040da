"""Finished runs evaluated again: on which images, and where the results go."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.cli import main as cli
from botvision.config.recipes import ConfigError
from botvision.io.files import write_json
from botvision.metrics.predictions import load_predictions
from botvision.training import run
from botvision.training.evaluation import evaluation_files
from tests.training.runs import evaluate, tiny


def test_evaluations_are_named_by_what_they_are_of(whole_run: Path, tmp_path: Path):
    def name(split: str = "val", **changes: object) -> str:
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        table, picture = evaluation_files(whole_run, split, keys)
        assert table.parent == picture.parent == whole_run
        assert picture.name == table.name.replace("eval", "confusion").replace(".json", ".png")
        return table.name

    assert name() == name(data__num_workers="1", train__batch_size="4") == "eval.json"
    assert name(data__num_classes="5") == "eval.json"  # the run's own value
    assert name("test") == "eval-test.json"
    elsewhere = name(data__source="folder", data__root=str(tmp_path / "my photos"))
    assert elsewhere == "eval-source-folder-my-photos.json"
    assert name("train", data__image_size="[32, 48]") == "eval-train-image_size-32-48.json"


def test_evaluate_takes_other_data_but_not_other_training(whole_run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    again = evaluate(folder)
    assert again.to_dict().items() <= json.loads((whole_run / "eval.json").read_text()).items()
    own = (folder / "eval.json").read_bytes()
    assert evaluate(folder, "train", {"data.num_images": "20"}).count == 20
    other = json.loads((folder / "eval-train-num_images-20.json").read_text())
    assert (other["count"], other["split"]) == (20, "train")
    assert (folder / "confusion-train-num_images-20.png").is_file()
    assert len(load_predictions(folder / "predictions-train-num_images-20.npz").target) == 20
    assert (folder / "eval.json").read_bytes() == own
    with pytest.raises(ConfigError, match=r"optim\.lr: an evaluation takes only"):
        evaluate(folder, overrides={"optim.lr": 1})
    with pytest.raises(ValueError, match=r"3 classes \(disc, ring, square\), but the run has 5 classes \("):
        evaluate(folder, overrides={"data.num_classes": 3})
    with pytest.raises(ConfigError, match="split: expected train, val or test, got 'all'"):
        evaluate(folder, "all")
    with pytest.raises(ValueError, match="generated data have no test split"):
        evaluate(folder, "test")
    with pytest.raises(ConfigError, match="not a run folder"):
        evaluate(tmp_path)


def test_unfinished_runs_cannot_be_evaluated(whole_run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole_run / "config.yaml", folder)
    with pytest.raises(ConfigError, match="the run is not finished"):
        evaluate(folder)


def test_json_is_never_half_written(tmp_path: Path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_test_split_is_evaluated_alone(tmp_path: Path):
    """From a folder that holds neither train/ nor val/, and lacks a class."""
    for split, names in (("train", "abc"), ("val", "abc"), ("alone/test", "bc")):
        for level, name in enumerate(names):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (16, 16), (80 * level + i, 0, 0)).save(
                    tmp_path / "data" / split / name / f"{i}.png"
                )
    config = tiny(
        data__source="auto", data__root=str(tmp_path / "data"), train__batch_size=2, train__epochs=1
    )
    folder = run.train(config, tmp_path / "run", progress=False)
    own = (folder / "eval.json").read_bytes()
    metrics = evaluate(folder, "test", {"data.root": str(tmp_path / "data" / "alone")})
    assert metrics.classes == ("a", "b", "c")
    assert [sum(row) for row in metrics.confusion] == [0, 2, 2]
    assert json.loads((folder / "eval-test-alone.json").read_text())["per_class"][0] is None
    assert (folder / "eval.json").read_bytes() == own


def test_pictures_of_both_splits_are_said_in_training_and_what_is_left_out_in_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "photos", tmp_path / "run"
    for number, place in enumerate((*["train/a", "train/b"] * 8, "val/a", "val/b")):
        (root / place).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / place / f"{number}.png")
    shutil.copy(root / "train/a/0.png", root / "val/a/again.png")
    run.train(tiny(data__source="folder", data__root=str(root), train__epochs=1), out)
    line = f"note: 1 image of val is also in train: {root}/val/a/again.png = {root}/train/a/0.png; what is "
    assert f"{line}measured flatters\n" in capsys.readouterr().err
    (root / "val/a/notes.txt").write_text("by hand")
    assert cli.main(["eval", str(out)]) == 0
    assert capsys.readouterr().err == "botvision: note: left out: 1 file, no image (val/a/notes.txt)\n"
