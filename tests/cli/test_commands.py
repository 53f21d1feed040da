"""What the commands print and write: numbers in the tables, files, progress."""

import gc
import io
import json
import re
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

import botvision as bv
from botvision.cli import main as cli
from botvision.config.detector import DetectorOptions
from botvision.config.recipes import recipe_names
from botvision.detection.weights import save_detector
from botvision.inference import writers
from tests.conftest import RECIPE
from tests.terminal import complaint, table


def test_check_of_a_sound_and_a_broken_folder(capsys, tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (20, 10 + k), (k * 20, count * 50, 3 * len(split))).save(
                    tmp_path / split / name / f"{k}.png"
                )
    assert cli.main(["check", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    rows = {row[0]: row for row in table(captured.out, "split")}
    assert rows["train"][:5] == ["train", "6", "0", "2", "3 to 3, median 3"]
    assert rows["val"][1:4] == ["4", "0", "2"]
    assert rows["train"][5] == "10 x 20 to 12 x 20, median 11 x 20"
    assert captured.err == ""
    broken = tmp_path / "train" / "cat" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0")
    assert str(broken) in complaint(capsys, "check", str(tmp_path))


def test_cost_prints_the_numbers_of_the_paper(capsys):
    assert cli.main(["cost", "botnet50", "--vs", "resnet50"]) == 0
    out = capsys.readouterr().out
    rows = table(out, "stage")
    assert rows[0][2::3] == ["botnet50", "resnet50"]
    assert [row[0] for row in rows[1:]] == ["c1", "c2", "c3", "c4", "c5", "head", "total"]
    assert rows[-1][3:5] == ["20.85", "4.02"]  # PAPER: counted at 224
    assert rows[-1][6:8] == ["25.56", "4.09"]
    assert rows[5][1:3] == ["7x7", "[1x1, 512; MHSA, 512; 1x1, 2048] x3"]
    assert "botnet50 / resnet50: parameters 0.82, multiply-adds 0.98" in out


def test_cost_takes_arguments_of_the_model_sizes_and_time(capsys):
    argv = [
        "cost",
        "botnet14_tiny",
        "--size",
        "32",
        "64",
        "--model.args.c5_stride",
        "1",
        "--vs",
        "resnet14_tiny",
    ]
    assert cli.main([*argv, "--time"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("botnet14_tiny beside resnet14_tiny, one image of 32x64\n")
    assert table(out, "stage")[5][1] == "2x4 / 1x2"
    assert (
        len(
            re.findall(
                r"training step \d+\.\d ms \(median of \d+, best \d+\.\d, batch 1, float32, cpu\)", out
            )
        )
        == 2
    )
    assert re.search(r"step time \d+\.\d\d$", out.rstrip())
    line = complaint(capsys, "cost", "botnet14_tiny", "--model.args.wings", "2")
    assert "botnet14_tiny" in line
    assert "wings" in line


def test_models_are_listed(capsys):
    assert cli.main(["models"]) == 0
    rows = table(capsys.readouterr().out, "model")
    assert ["botnet50", "3-4-6-3", "2", "none", "relu", "224", "resnet50"] in rows


def test_recipes_are_listed_with_their_promise(capsys):
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(recipe_names())]] == recipe_names()
    assert all(len(line.split()) > 3 for line in lines[: len(recipe_names())])


def test_train_eval_predict_compare(capsys, tmp_path, recipe):
    run, photos, out = tmp_path / "run", tmp_path / "photos", tmp_path / "out"
    assert cli.main(["train", recipe, "--out", str(run), "--data.num_images", "32"]) == 0
    captured = capsys.readouterr()
    assert table(captured.out, "model")[1][0] == "botnet14_tiny"
    assert f"next: botvision eval {run}" in captured.out
    summary = json.loads((run / "summary.json").read_text())

    assert cli.main(["eval", str(run)]) == 0
    out_of_eval = capsys.readouterr().out
    assert table(out_of_eval, "images")[1][:2] == ["32", f"{100 * summary['top1']:.2f}"]
    assert "resume" in complaint(capsys, "train", recipe, "--out", str(run))

    assert cli.main(["train", "--out", str(run), "--resume"]) == 0  # neither the recipe nor num_images again
    captured = capsys.readouterr()
    assert "nothing to do, the run is finished" in captured.err
    assert json.loads((run / "summary.json").read_text()) == summary
    assert cli.main(["eval", str(run), "--split", "train"]) == 0
    assert f"written: {run / 'eval-train.json'}, {run / 'confusion-train.png'}" in capsys.readouterr().out

    photos.mkdir()
    Image.new("RGB", (30, 20), "red").save(photos / "red.png")
    (photos / "broken.png").write_bytes(b"\x89PNG")
    assert cli.main(["predict", str(run), str(photos), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert str(photos / "broken.png") in captured.err
    assert "2 files: 1 classified, 1 could not be read" in captured.out
    assert len(json.loads((out / "predictions.json").read_text())["predictions"]) == 1
    assert (out / "pictures" / "red.jpg").is_file()

    assert "holds predictions.json and pictures already" in complaint(
        capsys, "predict", str(run), str(photos), "--out", str(out)
    )
    nothing = str(tmp_path / "nothing")
    assert cli.main(["predict", str(run), str(photos / "broken.png"), "--out", nothing]) == 2
    capsys.readouterr()
    assert "name the images to use" in complaint(capsys, "predict", str(run / "model"))

    assert cli.main(["compare", str(run), "--out", str(tmp_path / "t" / "table.md")]) == 0
    text = (tmp_path / "t" / "table.md").read_text()
    assert capsys.readouterr().out.startswith(text)
    assert table(text, "model")[1][6] == f"{100 * summary['top1']:.2f}"
    assert json.loads((tmp_path / "t" / "table.json").read_text())["groups"][0]["n"] == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run; evaluated again it stays as it is."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(RECIPE)
    assert cli.main(["train", str(folder / "tiny.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_pictures_of_a_run_over_many_files_are_not_kept(monkeypatch, tmp_path, trained):
    run, photos = trained, tmp_path / "photos"
    photos.mkdir()
    for k in range(6):
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(photos / f"{k}.png")
    pictures, alive = [], []
    original = writers.write_predictions

    def watched(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for prediction in original(*args, **kwargs):
            pictures.append(weakref.ref(prediction.picture))
            yield prediction
            del prediction
            gc.collect()
            alive.append(sum(picture() is not None for picture in pictures))

    monkeypatch.setattr(writers, "write_predictions", watched)
    assert cli.main(["predict", str(run), str(photos), "--out", str(tmp_path / "out"), "--batch", "1"]) == 0
    assert len(alive) == 6
    assert max(alive) <= 2  # the last one, and the one before it in the loop that prints
    assert not (tmp_path / "out" / "sheet.png").exists()
    assert cli.main(["predict", str(run), "--out", str(tmp_path / "shown"), "--samples", "3"]) == 0
    assert max(alive) == 3
    assert (tmp_path / "shown" / "sheet.png").is_file()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", ["check", "eval"])
def test_long_commands_show_how_far_they_are_on_a_terminal(monkeypatch, tmp_path, trained, command):
    run, photos = trained, tmp_path / "photos"
    for k in range(3):
        (photos / str(k)).mkdir(parents=True)
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(photos / str(k) / "0.png")

    screen, pipe = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    assert cli.main([command, str(run if command == "eval" else photos)]) == 0
    words = {"check": ["checking: "], "eval": ["reading generated", "evaluating: "]}[command]
    assert all(word in screen.getvalue() for word in words)
    monkeypatch.setattr(sys, "stderr", pipe)
    assert cli.main([command, str(run if command == "eval" else photos)]) == 0
    assert pipe.getvalue() == ""


def test_what_cannot_be_read_is_said_above_the_bar(monkeypatch, tmp_path):
    options = DetectorOptions(heads="light", channels=16, box_channels=16, mask_convs=1)
    network = bv.mask_rcnn("resnet14_nano", 1, options, image_size=32)
    save_detector(network, tmp_path / "model", classes=["a"], categories=[{"id": 1, "name": "a"}])
    (tmp_path / "photos").mkdir()
    for k in range(3):
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(tmp_path / "photos" / f"{k}.png")
    (tmp_path / "photos" / "1.png").write_bytes(b"\x89PNG")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("botvision.cli.predict.LISTED", 2)
    words = [str(tmp_path), str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--no-pictures"]
    assert cli.main(["predict", *words]) == 0
    assert "searching: " in screen.getvalue()
    assert re.search(r"[\r\n]botvision: \S+1\.png: ", screen.getvalue())
