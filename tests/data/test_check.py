"""The check of a data set: every fault is a line, and nothing that training refuses passes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.data.check import check_data
from botvision.data.classification import DataConfig, open_splits
from botvision.io.errors import DataError

DATA = Path(os.environ.get("BOTVISION_DATA", Path(__file__).parents[3] / "shared" / "data"))
ODD = DATA / "odd_images"
SOUND = {"train/cat": 3, "train/dog": 1, "train/eel": 2, "val/cat": 1, "val/dog": 1, "val/eel": 1}


def test_sound_folder_and_zip(image_folder, zipped):
    root = image_folder(SOUND, size=(6, 9))
    for path in (root, zipped(root)):
        report = check_data(path)
        hidden = [] if path == root else ["left out: 1 file, hidden (__MACOSX/._junk.png)"]
        assert (report.ok, report.problems, report.kind) == (True, [], "classification")
        assert report.warnings == hidden
        assert (report.readable, report.broken) == (9, 0)
        train, val = report.rows
        assert (train["split"], train["images"], train["classes"]) == ("train", 6, 3)
        assert (train["class_min"], train["class_median"], train["class_max"]) == (1, 2, 3)
        assert (train["size_min"], train["size_max"], train["modes"]) == ("6 x 9", "6 x 9", "RGB 6")
        assert val["images"] == 3
        notes = "" if path == root else ", 1 note"
        assert report.summary == f"{path.name}: 9 readable images, 0 broken files{notes}"


def test_every_broken_file_is_a_line(image_folder):
    root = image_folder(SOUND)
    whole = (root / "train" / "cat" / "001.png").read_bytes()
    (root / "train" / "cat" / "001.png").write_bytes(whole[: len(whole) // 2])
    (root / "val" / "eel" / "000.png").write_bytes(b"")
    report = check_data(root)
    assert not report.ok
    assert [line.split(": ")[0] for line in report.problems] == [
        str(root / "train" / "cat" / "001.png"),
        str(root / "val" / "eel" / "000.png"),
    ]
    assert (report.readable, report.broken, [row["broken"] for row in report.rows]) == (7, 2, [1, 1])


def test_a_class_that_validation_lacks_is_a_warning(image_folder):
    report = check_data(image_folder({"train/a": 1, "train/b": 1, "train/c": 1, "val/a": 1, "val/b": 0}))
    assert report.ok
    assert "val has no images of 2 classes (b, c): their accuracy is not measured" in report.warnings


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        ({"train/cat": 1, "train/dog": 0, "val/cat": 1, "val/dog": 0}, {}),
        ({"train": 0, "val/cat": 1}, {}),
        ({"val/cat": 1}, {}),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "val/c": 1}, {}),
        ({"train/a": 2, "train/b": 2}, {"val_fraction": 0.0}),
        ({"train/a": 2, "train/b": 1}, {}),
    ],
)
def test_what_training_refuses_is_a_problem(image_folder, counts, changes):
    config = DataConfig(root=str(image_folder(counts)), **changes)
    with pytest.raises(DataError) as refusal:
        open_splits(config)
    report = check_data(config)
    assert not report.ok
    assert str(refusal.value) in report.problems


def test_empty_classes_of_all_splits_are_named(image_folder):
    report = check_data(image_folder({"train/a": 1, "train/b": 0, "val/a": 0, "val/b": 1}))
    assert [line.rsplit("/", 1)[1] for line in report.problems] == [
        "train: no images in class b",
        "val: no images in class a",
    ]


def test_warnings_do_not_fail(image_folder):
    root = image_folder({**SOUND, "test/cat": 1, "extra/cat": 1})
    shutil.copy(root / "train" / "cat" / "000.png", root / "val" / "dog" / "copy.png")
    (root / "train" / "cat" / "notes.txt").write_text("by hand")
    report = check_data(root)
    assert report.ok
    assert report.warnings == [
        "1 file of val is also in train: val/dog/copy.png = train/cat/000.png",
        "folders that training does not use: extra",
        "splits that training does not use: test (botvision eval --split test does use test)",
        "left out: 1 file, no image (train/cat/notes.txt)",
    ]
    held = check_data(image_folder({"train/a": 5, "train/b": 5}, name="held"))
    assert held.warnings == ["no val/ or test/ folder: 10% of train will be held back"]


def test_images_outside_every_class_and_in_two_classes_are_said(image_folder):
    root = image_folder(SOUND)
    for place in ("cover.png", "train/stray.png", "val/stray.png"):
        shutil.copy(root / "train" / "eel" / "000.png", root / place)
    (root / "readme.txt").write_text("how they were taken")
    shutil.copy(root / "train" / "cat" / "000.png", root / "train" / "dog" / "again.png")
    shutil.copy(root / "train" / "cat" / "000.png", root / "train" / "cat" / "twice.png")
    report = check_data(root)
    assert report.ok
    assert report.warnings == [
        "1 file of train is in two classes, such as train/dog/again.png = train/cat/000.png",
        "2 files of train are there twice, such as train/cat/twice.png = train/cat/000.png",
        "left out: 2 files, in no class's folder (cover.png, train/stray.png)",
        "left out: 1 file, in no class's folder (val/stray.png)",
    ]


def test_a_heap_of_images(image_folder):
    root = image_folder({"holiday": 3, "holiday/beach": 2})
    calls = []
    report = check_data(root, lambda *call: calls.append(call))
    assert (report.ok, report.kind, report.readable) == (True, "images", 5)
    assert calls == [("checking", done, 5) for done in range(1, 6)]
    assert report.rows[0]["classes"] == 0


def test_check_and_training_say_the_same(image_folder):
    root = image_folder({"cat": 3, "dog": 3})
    Image.fromarray(np.full((8, 8), 4095, dtype=np.uint16)).save(root / "cat" / "000.png")
    (root / "cat" / "b.heic").write_bytes(b"junk")
    report, splits = check_data(root), open_splits(DataConfig(root=str(root)))
    for split in (splits.train, splits.val):
        split.cache_images()
    assert (report.ok, report.kind, report.rows[0]["classes"]) == (True, "classification", 2)
    said = [*splits.train.notes, *splits.val.notes]
    assert sorted(line.replace(f"{root}/", "") for line in said) == sorted(report.warnings)
    assert len(said) == 4


def test_a_heap_says_why_it_is_no_data_set(image_folder):
    report = check_data(image_folder({"beach": 3, "town": 1}))
    assert (report.ok, report.kind) == (True, "images")
    assert "class town has 1 image" in report.warnings[0]


def test_nothing_to_check(tmp_path):
    assert check_data(tmp_path).problems == [f"{tmp_path}: no images found"]
    assert check_data(tmp_path / "gone").problems == [f"{tmp_path}/gone: no such file or folder"]
    text = tmp_path / "text.zip"
    text.write_text("text")
    assert "not a readable zip" in check_data(text).problems[0]


def test_generated_data_are_sound():
    report = check_data(DataConfig(source="generated", image_size=16, num_images=16, num_val_images=8))
    assert report.ok
    assert [(row["images"], row["class_min"], row["size_min"]) for row in report.rows] == [
        (16, 2, "16 x 16"),
        (8, 1, "16 x 16"),
    ]


@pytest.mark.skipif(not ODD.is_dir(), reason=f"the collection of odd images is not at {ODD}")
def test_odd_images(capfd):
    entries = json.loads((ODD / "manifest.json").read_text())
    bad = {entry["file"] for entry in entries if {"open_err", "load_err", "huge"} & entry.keys()}
    report = check_data(ODD)
    assert {line.split(": ")[0] for line in report.problems} == {str(ODD / file) for file in bad}
    assert (report.readable, report.broken) == (len(entries) - len(bad), len(bad))
    assert not any("\n" in line for line in report.problems)
    assert "20 files of images are nearly the same picture as another there, such as" in report.warnings[0]
    assert report.warnings[1] == "left out: 2 files, no image (LICENSE.Pillow, manifest.json)"
    assert any(line.startswith("8 files with several pages or frames") for line in report.warnings)
    assert capfd.readouterr() == ("", "")
