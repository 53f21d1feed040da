"""Where YOLO's images and labels may lie, and which split they are of."""

import json
from pathlib import Path

import pytest

from botvision.config.data import DetectionDataConfig
from botvision.data.coco_folder import find_split_files
from botvision.data.convert.folder import to_coco
from botvision.data.other_labels import convert_hint
from botvision.io.errors import DataError
from tests.data.convert.files import picture, splits_of, write


def labelled(root: Path, *images: str, line: str = "0 0.5 0.5 0.2 0.2\n") -> None:
    """Pictures and their label files."""
    for name in images:
        picture(root / name)
        head, _, tail = name.rpartition("images/")
        write((root / head / "labels" / tail).with_suffix(".txt"), line)


@pytest.mark.parametrize(
    ("layout", "yaml"),
    [
        ("images/{}", "train: images/train\nval: images/val\ntest: images/test\n"),
        ("{}/images", "train: ../train/images\nval: ../val/images\ntest: ../test/images\n"),
        (
            "images/{}",
            "path: ../data/cars\ntrain: images/train/\nval: ./images/val\ntest: images\\test\n",
        ),
        ("images/{}", "path: .\ntrain: [images/train]\nval: lists/val.txt\ntest:\n- ./lists/test.txt\n"),
        ("in/images/{}", "path: in\ntrain: images/train\nval: images/val\ntest: images/test\n"),
        ("images/{}", "train: images/nowhere\nval: # none\n"),
        ("{}/images", ""),
    ],
)
def test_one_file_for_each_split(tmp_path: Path, layout: str, yaml: str) -> None:
    """Folders, lists, a path in front, paths that mean nothing; then the folders' names."""
    files = {split: [f"{layout.format(split)}/{k}.png" for k in "ab"] for split in ("train", "val", "test")}
    labelled(tmp_path, *(name for names in files.values() for name in names))
    write(tmp_path / "lists" / "val.txt", "".join(f"./{name}\n" for name in files["val"]))
    write(tmp_path / "lists" / "test.txt", "".join(f"/home/me/cars/{name}\r\n" for name in files["test"]))
    write(tmp_path / "data.yaml", f"{yaml}names: [cat]\n")
    done = to_coco("yolo", tmp_path)
    assert splits_of(done) == files
    assert done.files["val"] == tmp_path / "annotations" / "instances_val.json"
    lost = "data.yaml: train: images/nowhere is left out: no images there, or outside this folder"
    folders = "none of the splits of data.yaml is here, so images are taken by their folders"
    assert done.notes == ([lost, folders] if "nowhere" in yaml else [])
    assert done.images == 6
    found = find_split_files(DetectionDataConfig(root=str(tmp_path)))
    assert {name: split.annotations for name, split in found.items()} == {
        name: path for name, path in done.files.items() if name != "test"
    }


def test_where_the_splits_are_written(tmp_path: Path) -> None:
    root = tmp_path / "cars"
    labelled(root, "images/train/a.png", "images/val/b.png")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat]\n")
    for out, names in {
        "x.json": ["x.json", "x_val.json"],
        "deep/folder": ["folder/instances_train.json", "folder/instances_val.json"],
    }.items():
        done = to_coco("yolo", root, tmp_path / out)
        assert [str(path.relative_to((tmp_path / out).parent)) for path in done.files.values()] == names
    one = tmp_path / "y.json"
    assert to_coco("yolo", root, one, part="images/val/").files == {"val": one}
    with pytest.raises(DataError, match=r"x.json: is there already"):
        to_coco("yolo", root, tmp_path / "x.json", overwrite=False)


def test_what_the_splits_hold_is_said(tmp_path: Path) -> None:
    """The same images twice, images in no split, lines that name nothing, other computers' paths."""
    a, b, c = "images/train/a.png", "images/train/b.png", "images/more/c.png"
    labelled(tmp_path, a, b, c, "../other/images/z.png")
    write(tmp_path / "val.txt", "images/train/b.png\nimages/train/gone.png\n../other/images/z.png\n")
    write(tmp_path / "data.yaml", "train: /content/drive/cars/images/train\nval: val.txt\nnames: [cat]\n")
    done = to_coco("yolo", tmp_path)
    assert splits_of(done) == {"train": [a, b], "val": [b]}
    assert done.notes == [
        "data.yaml: train: /content/drive/cars/images/train is taken to be images/train",
        "both in train and in val: 1 image",
        "left out: 2 files, listed in val.txt, but not there (images/train/gone.png, ../other/images/z.png)",
        "left out: 1 file, in no split of data.yaml (images/more/c.png)",
    ]
    assert splits_of(to_coco("yolo", tmp_path, part="images/more")) == {"": [c]}


def test_images_outside_folders_of_splits_are_for_training(tmp_path: Path) -> None:
    labelled(tmp_path, "images/a.png", "images/Validation/b.png", "images/train2017/c.png")
    write(tmp_path / "classes.txt", "cat\n")
    done = to_coco("yolo", tmp_path)
    assert splits_of(done) == {
        "val": ["images/Validation/b.png"],
        "train": ["images/a.png", "images/train2017/c.png"],
    }
    assert done.notes == ["in no folder called train, val or test, so taken for training: 1 image"]


def test_labels_beside_their_images_where_data_yaml_names_the_folder(tmp_path: Path) -> None:
    picture(tmp_path / "cars" / "a.png")
    write(tmp_path / "cars" / "a.txt", "0 0.5 0.5 0.2 0.2")
    write(tmp_path / "data.yaml", "train: cars\nnames: [cat]\n")
    done = to_coco("yolo", tmp_path)
    assert (splits_of(done), done.annotations, done.notes) == ({"train": ["cars/a.png"]}, 1, [])


def test_splits_without_labels(tmp_path: Path) -> None:
    """A test split may have none; training data without any are a mistake; empty files are ground."""
    labelled(tmp_path, "images/train/a.png")
    picture(tmp_path / "images" / "test" / "t.png")
    write(tmp_path / "classes.txt", "cat")
    done = to_coco("yolo", tmp_path)
    assert (list(done.files), done.annotations) == (["train", "test"], 1)
    assert done.notes == [
        "without a label file, so taken as without objects: 1 of 2 images",
        "no object in test (1 image)",
    ]
    picture(tmp_path / "images" / "val" / "v.png")
    with pytest.raises(DataError, match=r"val/v.png: nothing of the same name in labels/ \(1 such image\)"):
        to_coco("yolo", tmp_path)
    write(tmp_path / "labels" / "val" / "v.txt", "\n")
    assert to_coco("yolo", tmp_path).annotations == 1


@pytest.mark.parametrize(
    ("image", "label", "names"),
    [
        ("{}.jpg", "{}.txt", "classes.txt"),
        ("images/train/{}.jpg", "images/train/{}.txt", "images/train/classes.txt"),
        ("obj_train_data/{}.jpg", "obj_train_data/{}.txt", "obj.names"),
        ("Images/{}.jpg", "Labels/{}.txt", "classes.txt"),
        ("{}.jpg", "labels/{}.txt", "labels/classes.txt"),
        ("train/{}.jpg", "labels/train/{}.txt", "classes.txt"),
    ],
)
def test_labels_beside_images_and_other_places(tmp_path: Path, image: str, label: str, names: str) -> None:
    """They are converted, and the hint offers it; a third image has no label."""
    for name in "abc":
        picture(tmp_path / image.format(name))
    for number, name in enumerate("abd"):
        write(tmp_path / label.format(name), f"{number % 2} 0.5 0.5 0.2 0.25\n")
    write(tmp_path / names, "dog\ncat\n")
    assert convert_hint(tmp_path) == f"the labels look like YOLO's: botvision convert yolo {tmp_path}"
    done = to_coco("yolo", tmp_path)
    content = json.loads(next(iter(done.files.values())).read_text())
    assert [each["file_name"] for each in content["images"]] == [image.format(name) for name in "abc"]
    assert [(each["image_id"], each["category_id"]) for each in content["annotations"]] == [(1, 1), (2, 2)]
    assert f"left out: 1 file, labels without an image ({label.format('d')})" in done.notes
    assert "without a label file, so taken as without objects: 1 of 3 images" in done.notes


def test_the_splits_of_obj_data(tmp_path: Path) -> None:
    for name in ("obj_train_data/a", "obj_valid_data/b"):
        picture(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.txt", "0 0.5 0.5 0.2 0.25\n")
    write(tmp_path / "obj.names", "cat\n")
    write(tmp_path / "obj.data", "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nbackup = b/\n")
    write(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n")
    write(tmp_path / "valid.txt", "data/obj_valid_data/b.jpg\n")
    done = to_coco("yolo", tmp_path)
    assert splits_of(done) == {"train": ["obj_train_data/a.jpg"], "val": ["obj_valid_data/b.jpg"]}
    assert done.notes == []


@pytest.mark.parametrize(("image", "label"), [("IMG_1.JPG", "img_1"), ("cafe\u0301.jpg", "caf\u00e9")])
def test_names_that_differ_in_capitals_or_encoded_accents(tmp_path: Path, image: str, label: str) -> None:
    picture(tmp_path / "images" / image)
    write(tmp_path / "labels" / f"{label}.txt", "0 0.5 0.5 0.2 0.25\n")
    write(tmp_path / "classes.txt", "cat")
    done = to_coco("yolo", tmp_path)
    why = "whose name is its image's but for capital letters or encoded accents"
    assert (done.annotations, done.notes) == (1, [f"1 file {why} (labels/{label}.txt)"])
    picture(tmp_path / "images" / f"{label}.jpg")
    assert to_coco("yolo", tmp_path).notes == [
        "without a label file, so taken as without objects: 1 of 2 images"
    ]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (
            [".5", ".5", ".4", ".4", ".91", "1"],
            "all polygons have 3 corners: 3; if they are boxes with their sc",
        ),
        (
            [".5", ".5", ".4", ".4", *[".3", ".6", "1"] * 2],
            "all polygons have 5 corners: 3; if they are boxes w",
        ),
        ([".5", ".5", ".4", ".4"], None),
    ],
)
def test_polygons_that_may_be_something_else(tmp_path: Path, values: list[str], note: str | None) -> None:
    """Predictions of a tracker, and key points of which no kpt_shape tells."""
    lines = [f"0 {' '.join(values)}\n"] * 3
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.png.txt", "".join(lines))
    write(tmp_path / "classes.txt", "cat")
    notes = to_coco("yolo", tmp_path).notes
    assert [each.startswith(str(note)) for each in notes] == ([True] if note else [])
    write(tmp_path / "labels" / "a.png.txt", "".join([*lines, "0 .1 .1 .5 .1 .5 .5 .4 .5\n"]))
    assert not any("corners" in each for each in to_coco("yolo", tmp_path).notes) or note is None


def test_images_in_other_places_are_counted(tmp_path: Path) -> None:
    labelled(tmp_path, "images/a.png")
    for name in ("shots/b.png", "shots/c.png", "val/d.png"):
        picture(tmp_path / name)
    write(tmp_path / "val.txt", "val/d.png")
    write(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    why = "in no folder called images, nor near labels"
    notes = to_coco("yolo", tmp_path).notes
    assert notes == [f"left out: 3 files, {why} (shots/b.png, shots/c.png, val/d.png)"]
    write(tmp_path / "data.yaml", "train: images\ntest: [val, nothing]\nnames: [cat]\n")
    done = to_coco("yolo", tmp_path)
    assert splits_of(done) == {"train": ["images/a.png"], "test": ["val/d.png"]}
    assert done.notes[-2:] == [
        f"left out: 2 files, {why} (shots/b.png, shots/c.png)",
        "no object in test (1 image)",
    ]


def test_names_one_folder_deeper_are_pointed_at(tmp_path: Path) -> None:
    labelled(tmp_path / "my cars", "images/a.png")
    write(tmp_path / "my cars" / "data.yaml", "names: [cat]\n")
    with pytest.raises(
        DataError, match=r"no data\.yaml with .*; .*my cars/data\.yaml is of the folder .*my cars$"
    ):
        to_coco("yolo", tmp_path)
    assert to_coco("yolo", tmp_path / "my cars").annotations == 1
