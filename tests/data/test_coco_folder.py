"""Which files a folder of detection data has: by whole words, in small or capital letters."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from botvision.cli import main as cli
from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.data.check import check_data
from botvision.data.classification import open_splits
from botvision.data.coco_folder import find_split_files, words_of
from botvision.data.detection import open_detection, open_detection_split
from botvision.io.errors import DataError
from tests.coco.annotation_scene import IMAGES, scene, write_scene
from tests.terminal import complaint


def laid_out(root: Path, *names: str) -> Path:
    """Annotation files of these names, that hold nothing but the lists."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('{"images": [], "annotations": [], "categories": []}')
    return root


def config(root: Path, **other: Any) -> DetectionDataConfig:
    return DetectionDataConfig(root=str(root), **other)


def found(root: Path, **other: Any) -> dict[str, str]:
    files = find_split_files(config(root, **other), need_train=False)
    return {split: parts.annotations.relative_to(root).as_posix() for split, parts in files.items()}


def test_words_of_names() -> None:
    assert words_of("instances_trainval2017") == {"instances", "trainval"}
    assert words_of("TrainSet-2") == {"train", "set"}
    assert words_of("instances_VALID") == {"instances", "valid"}
    assert words_of("valves") == {"valves"}


NAMES: list[tuple[str | None, str | None, list[str]]] = [
    ("annotations/valves.json", None, []),
    ("valves.json", "instances_val.json", []),
    ("annotations/trainval.json", None, []),
    ("annotations/train_val.json", None, []),
    ("annotations/contrail_evaluation.json", None, []),
    ("annotations/instances_Train.json", "annotations/instances_Validation.json", []),
    (
        *("annotations/instances_Train.json", "annotations/instances_Validation.json"),
        ["annotations/instances_Test.json"],
    ),
    ("Annotations/TRAINING.JSON", "Annotations/VALIDATION.JSON", []),
    (
        *("annotations/instances_train2014.json", "annotations/instances_minival2014.json"),
        ["annotations/person_keypoints_train2014.json", "annotations/._instances_train2014.json"],
    ),
    ("Train/_annotations.coco.json", "Valid/_annotations.coco.json", ["Test/_annotations.coco.json"]),
    ("train/annotations.json", "val/annotations.json", []),
    (None, "annotations/instances_val.json", []),
    (None, "annotations/instances_val.json", ["annotations/instances_test.json"]),
    (None, "annotations/instances_val.json", ["annotations/instances_Testing.json"]),
]


@pytest.mark.parametrize(("train", "val", "others"), NAMES)
def test_files_by_their_names(tmp_path: Path, train: str | None, val: str | None, others: list[str]) -> None:
    expected = {split: name for split, name in (("train", train), ("val", val)) if name}
    assert found(laid_out(tmp_path, *expected.values(), *others)) == expected


def test_a_test_file_is_never_trained_on(tmp_path: Path) -> None:
    laid_out(tmp_path, "annotations/instances_test.json")
    with pytest.raises(DataError, match=r"annotations/instances_test\.json is of another split by its name"):
        found(tmp_path)
    named = "annotations/instances_test.json"
    assert found(tmp_path, train_annotations=named) == {"train": named}
    with pytest.raises(
        DataError, match=r"named for training and validation; data\.val_is_train true measures"
    ):
        found(tmp_path, train_annotations=named, val_annotations=named)


def test_other_json_is_no_second_choice(tmp_path: Path) -> None:
    laid_out(tmp_path, "boats.json")
    (tmp_path / "package.json").write_text("{}")
    assert found(tmp_path) == {"train": "boats.json"}
    laid_out(tmp_path, "cars.json")
    with pytest.raises(
        DataError, match=r"2 files could be meant \(boats.json, cars.json\), please set data.t"
    ):
        found(tmp_path)
    assert found(tmp_path, val_annotations="cars.json") == {"train": "boats.json", "val": "cars.json"}


def test_folders_of_images_in_capital_letters(tmp_path: Path) -> None:
    """As tools export subsets."""
    (tmp_path / "Images").mkdir()
    for split, name, folder in (("train", "Train", "train"), ("val", "Validation", "Validation")):
        path = write_scene(tmp_path, split=split)
        path.rename(path.with_name(f"instances_{name}.json"))
        (tmp_path / f"{split}2017").rename(tmp_path / "Images" / folder)
    splits = open_detection(config(tmp_path))
    assert splits.train.name_of(0).startswith(str(tmp_path / "Images" / "train"))
    assert splits.val.name_of(0).startswith(str(tmp_path / "Images" / "Validation"))
    assert check_data(tmp_path).ok


def test_file_names_with_backslashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = scene()
    for image in content["images"]:
        image["file_name"] = "train2017\\" + image["file_name"]
    path = write_scene(tmp_path, content)
    line = f"{path}: backslashes in file names are read as slashes (3 images)"
    train = open_detection(config(tmp_path, val_is_train=True)).train
    assert (train.notes, train.skipped) == ([line], [])
    assert cli.main(["check", str(tmp_path)]) == 0
    assert f"note: {line}" in capsys.readouterr().out
    for image in IMAGES:  # as some programs unpack them: the backslash is part of the name
        name = image["file_name"]
        (tmp_path / "train2017" / name).rename(tmp_path / f"train2017\\{name}")
    assert open_detection(config(tmp_path, val_is_train=True)).train.name_of(0).count("\\") == 1
    assert check_data(tmp_path).ok


def test_validation_alone_can_be_checked_and_measured_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene(tmp_path, split="val")
    assert cli.main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "note: no training annotations: these data are for eval and predict alone" in out
    assert f"next: botvision eval RUN --data.root {tmp_path}\n" in out
    named = open_detection(config(tmp_path, train_annotations="annotations/instances_val2017.json"))
    assert named.held_back
    assert len(open_detection_split(config(tmp_path), "val", categories=named.categories)) == 3
    with pytest.raises(
        DataError, match=r"no annotations to train on \(annotations/instances_val2017\.json is"
    ):
        open_detection(config(tmp_path))


def test_annotations_that_are_not_used_are_counted(tmp_path: Path) -> None:
    write_scene(tmp_path)
    write_scene(tmp_path, split="val")
    laid_out(tmp_path, "annotations/instances_Test.json", "annotations/captions_train2017.json")
    assert check_data(tmp_path).warnings[-1] == (
        "left out: 2 files, annotations that training does not use (annotations/instances_Test.json, "
        "annotations/captions_train2017.json)"
    )


@pytest.mark.parametrize("empty", [("images", "annotations"), ("annotations",)])
def test_validation_without_anything_to_measure_is_one_line(
    tmp_path: Path, empty: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene(tmp_path)
    path = write_scene(tmp_path, scene() | {key: [] for key in empty}, split="val")
    with pytest.raises(DataError, match=r"no images|none of the 3 images has objects to measure on"):
        open_detection(config(tmp_path))
    assert cli.main(["check", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    fault = "no images" if "images" in empty else "no image has objects to measure on"
    assert line == f"botvision: {path}: {fault}"
    (tmp_path / "found.json").write_text("[]")
    line = complaint(capsys, "eval", str(tmp_path / "found.json"), "--truth", str(path))
    assert line.endswith("images and no objects: there is nothing to measure")


def test_images_of_both_files_are_said(tmp_path: Path) -> None:
    write_scene(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(scene()))
    (note,) = open_detection(config(tmp_path, val_images="train2017")).shared()
    first = f"{tmp_path / 'train2017' / 'a.png'} (image id 500)"
    assert note == f"3 images of val are also in train, such as {first} = {first}; what is measured flatters"


def test_objects_that_are_crowds_are_said(tmp_path: Path) -> None:
    content = scene()
    for record in content["annotations"]:
        record["iscrowd"] = int(record["category_id"] in (7, 90))
    path = write_scene(tmp_path, content)
    line = f"{path}: all annotations of categories boat, kite (3) are crowds (iscrowd 1), which are never "
    line += "trained on"
    chosen = config(tmp_path, val_is_train=True)
    assert open_detection(chosen).train.notes == [line]
    warnings = check_data(tmp_path).warnings
    assert line in warnings
    assert not any("cannot be learnt" in warning for warning in warnings)
    for record in content["annotations"]:
        record["iscrowd"] = 1
    write_scene(tmp_path, content)
    why = "no image has annotations that can be used: all 4 are crowds"
    with pytest.raises(DataError, match=why):
        open_detection(chosen)
    assert any(why in problem for problem in check_data(chosen).problems)


LINE = "0 0.5 0.5 0.2 0.2\n"


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"data.yaml": "names: [a]", "images/train/a.png": "", "labels/train/a.txt": LINE}, "yolo"),
        ({"train/images/a.png": "", "train/labels/a.txt": LINE}, "yolo"),
        ({"JPEGImages/a.jpg": "", "Annotations/a.xml": "<annotation></annotation>"}, "voc"),
        ({"VOC2012/JPEGImages/a.jpg": "", "VOC2012/Annotations/a.xml": "<annotation/>"}, "voc"),
        ({"VOCdevkit/VOC2012/Annotations/a.xml": "<annotation/>"}, "voc"),
        ({"project/batch/a.json": '{"shapes": []}'}, "labelme"),
        ({"train/a.jpg": "", "train/a.xml": '<?xml version="1.0"?><annotation>'}, "voc"),
        ({"a.png": "", "a.json": '{"shapes": [], "imagePath": "a.png"}'}, "labelme"),
        ({"annotations/a.json": '{"shapes": []}', "annotations/b.json": '{"shapes": []}'}, "labelme"),
        ({"images/a.png": "", "masks/a.png": ""}, "masks"),
    ],
)
def test_labels_of_other_tools_get_the_command_that_converts_them(
    tmp_path: Path, files: dict[str, str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "my data"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    command = f"botvision convert {kind} '{root}'"
    assert cli.main(["check", str(root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert command in line
    words = ["train", "shapes_botnet14_nano", "--data.source", "coco", "--data.root", str(root)]
    assert command in complaint(capsys, *words, "--out", str(tmp_path / "run"))
    with pytest.raises(DataError, match=re.escape(command)):
        open_splits(DataConfig(root=str(root)))


def test_images_of_classes_are_no_labels_of_another_tool(tmp_path: Path) -> None:
    for name, content in {
        "train/cat/a.txt": LINE, "train/cat/a.json": '{"shapes": []}', "train/cat/a.xml": "<annotation>",
        "train/labels/b.txt": "a text", "masks/a.txt": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert not any("botvision convert" in problem for problem in check_data(tmp_path).problems)


@pytest.mark.parametrize(
    ("named", "there"), [("café.png", "cafe\u0301.png"), ("B.PNG", "b.png"), ("my%20b.png", "my b.png")]
)
@pytest.mark.parametrize("folder", ["", "shots/"])
def test_names_that_differ_in_case_or_unicode_form_are_found(
    tmp_path: Path, named: str, there: str, folder: str
) -> None:
    content = scene()
    content["images"][1]["file_name"] = folder.upper() + named
    write_scene(tmp_path, content)
    (tmp_path / "train2017" / folder).mkdir(exist_ok=True)
    (tmp_path / "train2017" / "b.png").rename(tmp_path / "train2017" / folder / there)
    train = open_detection(config(tmp_path, val_is_train=True)).train
    assert train.source.file.images[1].file == folder + there
    assert train.source.load(1).shape == (3, 50, 30)
    (line,) = [note for note in train.notes if "differ" in note]
    assert "in case, Unicode form or %20 alone are read as those (1 images, " in line
    (tmp_path / "train2017" / folder / there.upper().replace(".PNG", ".Png")).write_bytes(b"")
    with pytest.raises(DataError, match="no such file"):
        open_detection(config(tmp_path, val_is_train=True))


def renamed(root: Path, name: Callable[[str], str]) -> Path:
    """A scene with file names of another form; returns the annotations."""
    content = scene()
    for image in content["images"]:
        image["file_name"] = name(image["file_name"])
    return write_scene(root, content)


def test_names_that_leave_the_data_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    content = scene()
    write_scene(tmp_path / "other")
    for image, name in zip(
        content["images"],
        ("../../other/train2017/a.png", f"{tmp_path}/other/train2017/b.png", "empty.png"),
        strict=True,
    ):
        image["file_name"] = name
    write_scene(root, content)
    problems = check_data(root).problems
    assert f"(image id 500): outside {root}, so it is not read" in problems[0]
    assert problems[1].startswith(f"{tmp_path}/other/train2017/b.png (image id 30): outside {root}, so it is")
    with pytest.raises(DataError, match=r"a\.png \(image id 500\): outside .*\(and 1 more: see botvision ch"):
        open_detection(config(root, val_is_train=True))
    named = config(root, val_is_train=True, train_images=str(tmp_path / "other" / "train2017"))
    assert len(open_detection(named).train) == 3  # all lie there


def test_names_relative_to_the_annotations_or_absolute_stay_inside(tmp_path: Path) -> None:
    for name, write in (
        ("relative", "../train2017/{}".format),
        ("absolute", f"{tmp_path}/absolute/train2017/{{}}".format),
    ):
        renamed(tmp_path / name, write)
        assert check_data(tmp_path / name).ok
        assert len(open_detection(config(tmp_path / name, val_is_train=True)).train) == 3
    (tmp_path / "linked").symlink_to(tmp_path / "absolute")  # names hold the path that the link stands for
    assert len(open_detection(config(tmp_path / "linked", val_is_train=True)).train) == 3


@pytest.mark.parametrize("form", ["/home/someone/upload/{}", "C:\\data\\{}", "../elsewhere/{}", "old/{}"])
def test_folders_of_another_machine_are_left_out_of_names(tmp_path: Path, form: str) -> None:
    path = renamed(tmp_path, form.format)
    report = check_data(tmp_path)
    assert report.ok
    line = f"{path}: file names are read without their folders, which are not there (3 images, "
    assert f"{line}{form.format('a.png').replace(chr(92), '/')} the first)" in report.warnings


def test_links_that_lead_nowhere_are_lines_like_others(tmp_path: Path) -> None:
    write_scene(tmp_path)
    for name, target in (("a.png", "a.png"), ("b.png", "/nowhere/b.png")):
        (tmp_path / "train2017" / name).unlink()
        (tmp_path / "train2017" / name).symlink_to(target)
    report = check_data(tmp_path)
    assert (report.readable, report.broken) == (1, 2)
    assert [line.partition(" (")[0] for line in report.problems[:2]] == [
        f"{tmp_path / 'train2017' / name}" for name in ("a.png", "b.png")
    ]


def test_links_that_lead_out_of_the_data_are_counted(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "data")
    assert not any("links" in line for line in check_data(tmp_path / "data").warnings)
    image = tmp_path / "data" / "train2017" / "a.png"
    image.rename(tmp_path / "a.png")
    image.symlink_to(tmp_path / "a.png")
    line = f"{path}: images that links lead to, out of {tmp_path / 'data'}, are read "
    first = f"{image} the first)"
    assert f"{line}(1 of them, {first}" in check_data(tmp_path / "data").warnings
    image.parent.rename(tmp_path / "pictures")
    image.parent.symlink_to(tmp_path / "pictures")
    assert (
        f"{line}(3 of them, {first}"
        in open_detection(config(tmp_path / "data", val_is_train=True)).train.notes
    )
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert any("3 of them" in line for line in check_data(tmp_path / "link").warnings)
