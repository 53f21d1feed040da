"""Folders as people have them: which are splits, which are classes, and what is said of the others."""

import json
import re
import shutil

import pytest

from botvision.config.data import DetectionDataConfig
from botvision.data.check import check_data
from botvision.data.classification import DataConfig, Splits, open_split, open_splits
from botvision.data.detection import open_detection
from botvision.io.errors import DataError


def opened(root) -> Splits:
    """Open a data set, of which check must say the same."""
    splits, report = open_splits(DataConfig(root=str(root))), check_data(root)
    assert (report.ok, report.kind) == (True, "classification")
    assert set(splits.train.notes) <= set(report.warnings)
    return splits


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_split_without_folders_of_classes_is_none(image_folder, zipped, name):
    root = image_folder({"train/cat": 10, "train/dog": 10, name: 3})
    for path in (root, zipped(root)):
        splits = opened(path)
        assert (splits.held_back, len(splits.val)) == (True, 2)
        assert f"left out: {name}/, no split, for it has no folders of classes" in splits.notes
        if name == "test":
            with pytest.raises(DataError, match="no test/ folder, expected test/<class>/<image>"):
                open_split(DataConfig(root=str(path)), "test", ["cat", "dog"])


def test_test_in_place_of_val_is_said(image_folder):
    counts = {"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1}
    splits = opened(image_folder(counts))
    assert splits.notes == ["no val/ folder: test/ is used to choose the best epoch"]
    assert opened(image_folder({**counts, "val/cat": 1, "val/dog": 1}, name="whole")).notes == [
        "splits that training does not use: test (botvision eval --split test does use test)"
    ]


def test_folders_beside_flat_classes_are_left_out(image_folder, zipped):
    counts = {"cat": 20, "dog": 20, "runs/first/pictures": 2, "predictions": 1, "annotations": 0, "test": 2}
    root = image_folder(counts)
    (root / "runs/first/config.yaml").write_text("seed: 0")
    (root / "predictions/predictions.json").write_text("{}")
    (root / "annotations/a.csv").write_text("x")
    for path in (root, zipped(root)):
        splits = opened(path)
        assert splits.classes == ["cat", "dog"]
        assert len(splits.train) + len(splits.val) == 40
        assert check_data(path).readable == 40
        assert [note for note in splits.notes if note.endswith(("botvision", "it", "name"))] == [
            "left out: annotations/, no image in it",
            "left out: predictions/, results of botvision",
            "left out: runs/, results of botvision",
            "left out: test/, a split by its name",
        ]


def test_one_folder_around_flat_classes(image_folder):
    assert opened(image_folder({"photos/cat": 9, "photos/dog": 9})).classes == ["cat", "dog"]


@pytest.mark.parametrize("name", ["train", "valid"])
def test_a_class_may_be_called_like_a_split(image_folder, name):
    root = image_folder({"bus": 9, "car": 9, name: 9})
    assert opened(root).classes == ["bus", "car", name]


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({"train": 3, "test": 3}, "train: no classes, expected a folder for each"),
        ({"train": 3, "valid": 3, "extra": 3}, "train: no classes, expected a folder for each"),
        ({"test_bad": 3, "good": 3}, r"found good, test_bad; no classes, as test_bad is called like a split"),
        ({"labels": 3, "cat": 3}, "no classes, as labels is called like a part of another data set"),
        ({"val/cat": 3, "cat": 3}, "found cat, val; no classes, as val is called like a split"),
    ],
)
def test_why_folders_are_no_classes_is_said(image_folder, counts, why):
    root = image_folder(counts)
    with pytest.raises(DataError, match=why):
        open_splits(DataConfig(root=str(root)))
    report = check_data(root)
    assert why.rpartition("; ")[2] in " ".join([*report.problems, *report.warnings])


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("annotations/instances_train.json", "COCO annotations"),
        ("train/_annotations.coco.json", "COCO annotations"),
        ("result.json", "COCO annotations"),
        ("labels/train/1.txt", "labels of YOLO"),
        ("Annotations/1.xml", "labels of Pascal VOC"),
    ],
)
def test_a_zip_of_another_kind_of_data_is_named(image_folder, zipped, file, kind):
    root = image_folder({"images/train": 2})
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text('{"images": [], "annotations": []}')
    path = zipped(root, "" if "/" not in file else "set/")
    line = f"{path}: holds {kind} ({file}): unpack it, then botvision check FOLDER"
    assert check_data(path).problems == [line]
    with pytest.raises(DataError, match="unpack it"):
        open_splits(DataConfig(root=str(path)))


def test_a_class_of_which_nothing_is_held_back_is_said(image_folder):
    root = image_folder({"cat": 20, "dog": 1})
    shutil.copy(root / "dog/000.png", root / "dog/again.png")
    assert "nothing of class dog is held back, so their accuracy is not measured" in opened(root).notes


@pytest.mark.parametrize("name", ["labels.csv", "photo.jpg", "set.tar.gz"])
def test_other_files_are_no_data_set(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"other")
    assert check_data(path).problems == [f"{path}: expected a folder or a zip, got another file"]


def test_a_home_folder_is_found(image_folder, monkeypatch):
    root = image_folder({"train/cat": 9, "train/dog": 9})
    monkeypatch.setenv("HOME", str(root.parent))
    assert check_data("~/data").readable == 18


def test_flat_classes_are_measured_in_the_order_of_the_network(image_folder):
    """Of which they may lack some; the images held back are those of training on the same folder."""
    root = image_folder({"cat": 20, "dog": 10})
    config = DataConfig(root=str(root))
    held = open_splits(config).val
    found = open_split(config, "val", ["owl", "dog", "cat"])
    assert [found.name_of(k) for k in range(len(found))] == [held.name_of(k) for k in range(len(held))]
    named = [found.classes[k] for k in found.targets.tolist()]
    assert named == [found.name_of(k).split("/")[-2] for k in range(3)] == ["cat", "cat", "dog"]
    assert found.notes == [
        "no train/ folder: 2 classes (cat, dog) found at the root",
        "no val/ or test/ folder: 10% of train will be held back",
        "no images of class owl: their accuracy is not measured",
        "measured on the 3 images that are held back; of a folder val/ around those of the classes all are "
        "measured on",
    ]
    rest = open_split(config, "train", ["owl", "dog", "cat"])
    assert (len(rest), rest.train, set(rest.targets.tolist())) == (27, False, {1, 2})


def test_classes_that_a_network_does_not_know_are_named(image_folder):
    config = DataConfig(root=str(image_folder({"Cat": 2, "dog": 2, "fox ": 2})))
    line = r"classes \(Cat, fox \) not among the 3 trained on \(cat, dog, fox\); capitals and spaces must be "
    for split in ("val", "train"):
        with pytest.raises(DataError, match=line + r"the same \(Cat for cat, fox for fox\)"):
            open_split(config, split, ["cat", "dog", "fox"])
    with pytest.raises(DataError, match=r"class dog not among the 1 trained on \(Cat\)$"):
        open_split(DataConfig(root=str(image_folder({"val/dog": 1}, name="one"))), "val", ["Cat"])


def test_data_of_the_other_kind_name_their_recipes(image_folder, tmp_path):
    content = json.dumps({"images": [], "annotations": [], "categories": []})
    for name, (images, annotations) in enumerate(
        (("images", "annotations/instances_train.json"), ("train", "train/_annotations.coco.json"),
         ("train2017", "annotations/instances_train2017.json"), ("train/images", "train.json"))
    ):  # fmt: skip
        root = image_folder({images: 2}, name=f"coco{name}")
        (root / annotations).parent.mkdir(exist_ok=True)
        (root / annotations).write_text(content)
        with pytest.raises(
            DataError, match=r"COCO annotations, which the recipes objects_\* train on \(objects_b"
        ):
            open_splits(DataConfig(root=str(root)))
    for name, counts in enumerate(({"train/cat": 2, "train/dog": 2}, {"cat": 2, "dog": 2})):
        root = image_folder(counts, name=f"classes{name}")
        with pytest.raises(
            DataError, match=r"folders of classes, which the recipes photos_\* train on \(photos_b"
        ):
            open_detection(DetectionDataConfig(root=str(root)))
    (root / "labels.json").write_text(content)  # of a tool, beside classes
    assert open_splits(DataConfig(root=str(root))).classes == ["cat", "dog"]
    for name, inner in (("coco0", "coco0"), ("classes0", "")):
        around = tmp_path / f"around {name}"
        (around / "in").mkdir(parents=True)
        shutil.move(tmp_path / name, around / "in")
        line = f"{around}: the data lie deeper: botvision check '{around / 'in' / inner}'"
        assert check_data(around).problems == [line]
        with pytest.raises(DataError, match=re.escape(line)):
            open_splits(DataConfig(root=str(around)))
        with pytest.raises(DataError, match=re.escape(line)):
            open_detection(DetectionDataConfig(root=str(around)))
    root = image_folder({"train/cat": 2, "train/dog": 2}, name="beside")
    (root / "annotations").mkdir()
    (root / "annotations" / "meta.json").write_text("{}")
    assert opened(root).classes == ["cat", "dog"]
