"""``botvision convert``, and that what it writes can be checked at once."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.cli import main as cli
from tests.data.convert.files import picture, write
from tests.terminal import complaint


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Three images with two cells each, as masks."""
    for number in range(3):
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[5:12, 4 + number : 15], mask[15:25, 20:33] = 7, 200
        for folder, pixels in (("images", mask * 2), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def test_masks_are_converted_and_then_checked(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", "masks", str(cells), "--category", "cell"]) == 0
    out = capsys.readouterr().out
    assert "3 images with 6 objects of 1 categor" in out
    assert f"written: {cells / 'annotations' / 'instances_train.json'}" in out
    command = re.search(r"next: botvision (.*)", out)
    assert command is not None
    assert cli.main(command[1].split()) == 0
    assert re.search(r"\| +1 \| cell +\| +6 \|", capsys.readouterr().out)
    assert "is there already" in complaint(capsys, "convert", "masks", str(cells))


def test_a_file_elsewhere_is_named_to_the_check(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cells / "sub" / "mine.json"
    assert cli.main(["convert", "masks", str(cells), "--out", str(out)]) == 0
    command = re.search(r"next: botvision (.*)", capsys.readouterr().out)
    assert command is not None
    assert cli.main(command[1].split()) == 0
    assert "3 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "part", "hint"),
    [
        ("annotations/instances_train.json", "", "botvision check {0}"),
        ("annotations/mine.json", "", "botvision check {0}"),
        ("mine.json", "", "botvision check {0}"),
        ("sub/mine.json", "", "botvision check {0} --data.train_annotations {1}"),
        ("annotations/instances_val.json", "", "botvision check {0}"),
        ("sub/mine.json", "images/val", "botvision check {0} --data.val_annotations {1}"),
    ],
)  # fmt: skip
def test_the_hint_names_no_key_that_is_not_needed(
    cells: Path, capsys: pytest.CaptureFixture[str], out: str, part: str, hint: str
) -> None:
    for folder in ("images", "masks") if part else ():
        (cells / folder / "val").mkdir()
        (cells / folder / "2.png").rename(cells / folder / "val" / "2.png")
    words = ["convert", "masks", str(cells), "--out", str(cells / out), "--part", part]
    assert cli.main(words) == 0
    hint = hint.format(cells, cells / out)
    assert f"next: {hint}\n" in capsys.readouterr().out
    assert cli.main(hint.split()[1:]) == 0


def test_a_val_file_goes_with_the_training_file(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert = ["convert", "masks", str(cells)]
    assert cli.main(convert) == 0
    for name, hint in (("annotations/instances_val.json", ""), ("a/val.json", " --data.val_annotations {}")):
        capsys.readouterr()
        assert cli.main([*convert, "--out", str(cells / name)]) == 0
        found = capsys.readouterr().out.partition("next: ")[2].strip()
        assert found == f"botvision check {cells}" + hint.format(cells / name)
        assert cli.main(found.split()[1:]) == 0
        assert "| val " in capsys.readouterr().out


def test_what_cannot_be_converted_is_one_line(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no data.yaml" in complaint(capsys, "convert", "yolo", str(cells))
    assert "no XML file" in complaint(capsys, "convert", "voc", str(cells))
    (cells / "masks" / "1.png").write_bytes(b"")
    assert "1.png" in complaint(capsys, "convert", "masks", str(cells))
    assert not (cells / "annotations").exists()


def test_each_split_is_found_by_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, classes in (("train", "0123"), ("val", "012")):
        for number, category in enumerate(classes):
            picture(tmp_path / split / "images" / f"{number}.png")
            write(tmp_path / split / "labels" / f"{number}.txt", f"{category} 0.5 0.5 0.4 0.4\n")
    write(tmp_path / "data.yaml", "train: ../train/images\nval: ../val/images\nnames: [cat, dog, no, '1']\n")
    assert cli.main(["convert", "yolo", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "7 images with 7 objects of 4 categories" in out
    assert f"written: {tmp_path}/annotations/instances_train.json\n" in out
    assert f"written: {tmp_path}/annotations/instances_val.json\n" in out
    assert f"next: botvision check {tmp_path}\n" in out
    assert cli.main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\| train +\| +4 ", out)
    assert re.search(r"\| val +\| +3 ", out)
    assert re.search(r"\| no +\| +1 \| +1 \|", out)
    elsewhere = tmp_path / "sub" / "mine.json"
    assert cli.main(["convert", "yolo", str(tmp_path), "--out", str(elsewhere)]) == 0
    out = capsys.readouterr().out
    names = {"train": "mine.json", "val": "mine_val.json"}
    keys = [f"--data.{split}_annotations {tmp_path}/sub/{name}" for split, name in names.items()]
    assert f"next: botvision check {tmp_path} {' '.join(keys)}\n" in out
    assert "mine.json: is there already" in complaint(
        capsys, "convert", "yolo", str(tmp_path), "--out", str(elsewhere)
    )


def test_parts_of_a_mask_are_objects_on_request(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (cells / "masks").iterdir():
        Image.fromarray(255 * (np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    convert = ["convert", "masks", str(cells), "--out", str(cells / "one.json")]
    assert cli.main(convert) == 0
    out = capsys.readouterr().out
    assert "3 images with 3 objects" in out
    assert "note: of several separate parts: 3 of 3 objects" in out
    assert "--split-parts" in out
    assert cli.main([*convert[:-1], str(cells / "all.json"), "--split-parts"]) == 0
    out = capsys.readouterr().out
    assert "3 images with 6 objects" in out
    assert "note:" not in out


@pytest.mark.parametrize("splits", [("train", "valid", "test"), ("train", "test")])
def test_a_test_split_is_named_only_where_there_is_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], splits: tuple[str, ...]
) -> None:
    for split in splits:
        picture(tmp_path / split / "images" / f"{split}.png")
        write(tmp_path / split / "labels" / f"{split}.txt", "0 0.5 0.5 0.4 0.4\n")
    write(tmp_path / "data.yaml", "names: [cat]\n")
    assert cli.main(["convert", "yolo", str(tmp_path)]) == 0
    test = tmp_path / "annotations" / "instances_test.json"
    key = "" if "valid" in splits else f" --data.val_annotations {test}"
    assert f"next: botvision check {tmp_path}{key}\n" in capsys.readouterr().out
    assert test.exists()
    assert cli.main(["convert", "yolo", str(tmp_path), "--out", str(tmp_path / "sub" / "a.json")]) == 0
    name = "a_val" if "valid" in splits else "a_test"
    keys = f"train_annotations {tmp_path}/sub/a.json --data.val_annotations {tmp_path}/sub/{name}.json"
    assert f"next: botvision check {tmp_path} --data.{keys}\n" in capsys.readouterr().out


@pytest.mark.parametrize("others", ["", "train", "valid", "train valid"])
def test_the_hint_of_a_test_part_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], others: str
) -> None:
    """It takes nobody's place, and can be checked."""
    for split in ("test", *others.split()):
        for name in "ab":
            picture(tmp_path / split / "images" / f"{split}{name}.png")
            write(tmp_path / split / "labels" / f"{split}{name}.txt", "0 0.5 0.5 0.4 0.4\n")
    write(tmp_path / "data.yaml", "names: [cat]\n")
    for split in (*others.split(), "test"):
        capsys.readouterr()
        assert cli.main(["convert", "yolo", str(tmp_path), "--part", split]) == 0
    key = f" --data.val_annotations {tmp_path}/annotations/instances_test.json" if others == "train" else ""
    hint = capsys.readouterr().out.partition("next: ")[2].strip()
    assert hint == f"botvision check {tmp_path}{key}"
    assert cli.main(hint.split()[1:]) == 0


@pytest.mark.parametrize("kind", ["yolo", "voc", "labelme", "masks"])
def test_labels_without_any_object_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """All in one folder, of no object, or of none that is read."""
    for name in "ab":
        picture(tmp_path / ("images" if kind == "masks" else "") / f"{name}.png")
    if kind == "yolo":
        write(tmp_path / "a.txt", "")
        write(tmp_path / "b.txt", "0 0.5 0.5 0 0.5\n")
        write(tmp_path / "classes.txt", "cat\n")
    elif kind == "voc":
        write(tmp_path / "a.xml", "<annotation/>")
        write(tmp_path / "b.xml", "<annotation/>")
    elif kind == "labelme":
        point = '{"label": "cat", "shape_type": "point", "points": [[3, 4]]}'
        write(tmp_path / "a.json", '{"shapes": [' + point + "]}")
    else:
        for name in "ab":
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    why = {
        "yolo": "left out: 1 object without area (b.txt: line 1)",
        "voc": "the label files are without any",
        "labelme": "1 image without a label file: taken as images without objects; "
        "left out: 1 shape of type point, which is not read",
        "masks": "masks of ground alone, so without objects: 2 of 2",
    }[kind]
    said = complaint(capsys, "convert", kind, str(tmp_path))
    assert said == f"{tmp_path}: no object in 2 images, so nothing is written ({why})"
    assert not (tmp_path / "annotations").exists()


def test_one_of_each_is_said_in_the_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.4 0.4\n")
    write(tmp_path / "classes.txt", "cat")
    assert cli.main(["convert", "yolo", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("1 image with 1 object of 1 category\n")
