"""YOLO's labels as COCO JSON."""

import json
import os
from pathlib import Path

import hotcoco
import pytest

from botvision.coco.read import read_coco
from botvision.data.convert.folder import to_coco
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError
from tests.data.convert.files import SIZE, picture, splits_of, write


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Two images with labels and one without, in the folders that YOLO tools write."""
    root = tmp_path / "yolo"
    write(root / "data.yaml", "train: images/train\nnames:\n- cat\n- 'big dog'\n")
    for name in ("a.jpg", "b.png", "c.png"):
        picture(root / "images" / "train" / name)
    write(root / "labels" / "train" / "a.txt", "1 0.5 0.5 0.2 0.25\n0 0.1 0.1 0.2 0.2\n\n")
    write(root / "labels" / "train" / "b.txt", "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    return root


def test_yolo_boxes_and_polygons(yolo: Path) -> None:
    done = to_coco("yolo", yolo, yolo / "annotations" / "instances_train.json", part="images/train")
    assert (done.images, done.annotations) == (3, 3)
    assert done.notes[0] == "without a label file, so taken as without objects: 1 of 3 images"
    content = json.loads(done.files["train"].read_text())
    assert [c["name"] for c in content["categories"]] == ["cat", "big dog"]
    assert [i["file_name"] for i in content["images"]] == [
        f"images/train/{n}" for n in ("a.jpg", "b.png", "c.png")
    ]
    box, other, polygon = content["annotations"]
    assert (box["category_id"], box["image_id"], polygon["image_id"]) == (2, 1, 2)
    assert box["bbox"] == pytest.approx([24, 15, 12, 10])
    assert box["area"] == pytest.approx(120)
    assert other["bbox"] == pytest.approx([0, 0, 12, 8])
    assert polygon["segmentation"] == [[15, 10, 45, 10, 45, 30, 15, 30]]
    assert (polygon["bbox"], polygon["area"]) == ([15, 10, 30, 20], 600)


def test_yolo_boxes_equal_the_library_s_converter(tmp_path: Path) -> None:
    source = ShapesSource(seed=2, split="train", count=8, num_classes=3, size=SIZE)
    truth = source.export(tmp_path / "shapes")
    (tmp_path / "shapes" / "train").rename(tmp_path / "shapes" / "images")
    hotcoco.COCO(str(truth)).to_yolo(str(tmp_path / "shapes" / "labels"))
    done = to_coco("yolo", tmp_path / "shapes", tmp_path / "yolo.json")
    mine, theirs = (json.loads(path.read_text()) for path in (done.files[""], truth))
    assert done.categories == source.classes
    for ours, original in zip(mine["annotations"], theirs["annotations"], strict=True):
        assert ours["bbox"] == pytest.approx(original["bbox"], abs=1e-3)
        assert (ours["image_id"], ours["category_id"]) == (original["image_id"], original["category_id"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2, but data.yaml names 2 classes .0 to 1."),
        ("0 0.5 0.5 0.1", "3 coordinates"),
        ("0 0.5 0.5 nan 0.1", "no finite number"),
        ("cat 0.5 0.5 0.1 0.1", "expected a class number"),
        ("0 30 20 10 10", "reaches from 15 to 35, expected 0..1"),
    ],
)
def test_a_wrong_line_is_named(yolo: Path, text: str, fault: str) -> None:
    write(yolo / "labels" / "train" / "a.txt", f"0 0.5 0.5 0.1 0.1\n{text}\n")
    with pytest.raises(DataError, match=rf"a.txt: line 2: .*{fault}"):
        to_coco("yolo", yolo, yolo / "x.json")


@pytest.mark.parametrize("names", ["{0: cat, 1: big dog}", "[cat, big dog]", "\n  0: cat\n  1: big dog"])
def test_the_forms_of_names(yolo: Path, names: str) -> None:
    write(yolo / "data.yaml", f"nc: 2\nnames: {names}\n")
    assert to_coco("yolo", yolo, yolo / "x.json").categories == ["cat", "big dog"]


def test_yolo_without_names_labels_or_images(yolo: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in a folder called images"):
        to_coco("yolo", yolo, yolo / "x.json", part="labels")
    for path in (yolo / "labels" / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"nothing of the same name in labels/ \(3"):
        to_coco("yolo", yolo, yolo / "x.json")
    write(yolo / "data.yaml", "nc: 2")
    with pytest.raises(DataError, match="the classes have no names"):
        to_coco("yolo", yolo, yolo / "x.json")
    write(yolo / "data.yaml", "names: {")
    with pytest.raises(DataError, match=r"data.yaml: no YAML"):
        to_coco("yolo", yolo, yolo / "x.json")
    with pytest.raises(DataError, match="no such folder"):
        to_coco("yolo", tmp_path / "nowhere", yolo / "x.json")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{'0': cat, '1': big dog}", ["cat", "big dog"]),
        ("{1: big dog, 0: cat}", ["cat", "big dog"]),
        ("[no, yes]", ["no", "yes"]),
        ("[1, 2.50]", ["1", "2.50"]),
        ("[~, 2026-01-01]", ["~", "2026-01-01"]),
        ("{0: &a [cat], 1: *a}", "names: line 1: a list, expected a name"),
        ("{0: cat, dog: 1}", "names: key 'dog', expected the number of a class"),
        ("{0: cat, '0': dog}", "names: key '0' is given twice"),
        ("{0: cat, 00: dog}", "names: key '00', expected the number of a class, each one once"),
        ("{-1: cat, 0: dog}", "names: key '-1', expected the number"),
        ("{[0]: cat}", "names: line 1: a list, expected a key"),
        ("[[cat, dog]]", "names: line 1: a list, expected a name"),
        ("[cat, '']", "names: a name is empty"),
        ("[]", "names: there are none"),
        ("cat", "names: expected a list of names"),
        ("[cat, dog]\nnames: [dog, cat]", "key 'names' is given twice"),
        ("[cat, dog]\nkpt_shape: [17, 4]", r"kpt_shape is not \[number of key points, 2 or 3\]"),
        ("[" * 3000, r"no YAML \(nested too deeply\)"),
        ("[" * 900 + "]" * 900, r"no YAML \(nested too deeply\)|a list, expected a name"),
        ("&a [*a]", "names: line 1: a list, expected a name"),
        ("[cat, *b]", "no YAML .*undefined alias"),
    ],
)
def test_all_forms_of_names(yolo: Path, names: str, expected: list[str] | str) -> None:
    write(yolo / "data.yaml", f"names: {names}\n")
    if isinstance(expected, list):
        assert to_coco("yolo", yolo).categories == expected
    else:
        with pytest.raises(DataError, match=rf"data\.yaml: {expected}"):
            to_coco("yolo", yolo)


def test_aliases_that_multiply_cost_nothing(yolo: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 40)]
    merged = ["b0: &b0 {x: 1}"] + [
        f"b{k}: &b{k} {{<<: [{', '.join([f'*b{k - 1}'] * 9)}]}}" for k in range(1, 40)
    ]
    write(yolo / "data.yaml", "\n".join([*lines, *merged, "names: [cat, *a39]"]))
    with pytest.raises(DataError, match=r"data\.yaml: names: line 40: a list, expected a name"):
        to_coco("yolo", yolo)
    write(yolo / "data.yaml", "\n".join([*lines, *merged, "names: [cat, dog]"]))
    assert to_coco("yolo", yolo).categories == ["cat", "dog"]


def test_class_numbers_keep_their_names_over_gaps(yolo: Path) -> None:
    write(yolo / "data.yaml", "nc: 3\nnames: {7: dog, 0: cat}\n")
    write(yolo / "labels" / "train" / "a.txt", "7.0 0.5 0.5 0.2 0.2\n0.000e+00 0.5 0.5 0.4 0.4\n")
    done = to_coco("yolo", yolo)
    content = json.loads(done.files["train"].read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    assert [names[each["category_id"]] for each in content["annotations"]] == ["dog", "cat", "cat"]
    assert done.notes[:2] == [
        f"{yolo}/data.yaml: nc is 3, but names has 2 entries",
        f"{yolo}/data.yaml: names has no class 1; the others keep their numbers",
    ]
    write(yolo / "labels" / "train" / "a.txt", "1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=r"a.txt: line 1: class 1, but data.yaml names 2 classes \(0, 7\)"):
        to_coco("yolo", yolo)


def test_data_yaml_comes_before_classes_txt(yolo: Path) -> None:
    write(yolo / "classes.txt", "dog\ncat\n")
    done = to_coco("yolo", yolo)
    assert done.categories == ["cat", "big dog"]
    assert f"{yolo}/classes.txt: not used, as it names other classes than data.yaml" in done.notes
    write(yolo / "classes.txt", "cat\nbig dog\n\n")
    assert not any("classes.txt" in note for note in to_coco("yolo", yolo).notes)
    (yolo / "data.yaml").rename(yolo / "cars.yaml")
    assert to_coco("yolo", yolo).categories == ["cat", "big dog"]
    write(yolo / "more.yml", "names: [dog]")
    with pytest.raises(DataError, match=r"cars.yaml and more.yml name other classes"):
        to_coco("yolo", yolo)
    for name in ("cars.yaml", "more.yml"):
        (yolo / name).unlink()
    assert to_coco("yolo", yolo).categories == ["cat", "big dog"]
    write(yolo / "classes.txt", "cat\n\nbig dog\n")
    with pytest.raises(DataError, match=r"classes.txt: line 2 is empty, expected the name of class 1"):
        to_coco("yolo", yolo)
    write(yolo / "classes.txt", "")
    with pytest.raises(DataError, match=r"classes.txt: line 1 is empty"):
        to_coco("yolo", yolo)


MARK = "\ufeff"


def test_byte_order_marks_and_encodings(yolo: Path) -> None:
    label = yolo / "labels" / "train" / "a.txt"
    label.write_bytes(f"{MARK}0 .5 .5 .2 .2\r\n".encode())
    (yolo / "data.yaml").write_bytes(f"{MARK}train: train.txt\r\nnames: [Käse, dog]\r\n".encode())
    (yolo / "train.txt").write_bytes(f"{MARK}images/train/a.jpg\r\n".encode())
    done = to_coco("yolo", yolo)
    assert (done.annotations, done.categories, done.images) == (1, ["Käse", "dog"], 1)
    (yolo / "data.yaml").unlink()
    (yolo / "classes.txt").write_bytes(f"{MARK}Käse\r\ndog\r\n".encode())
    assert to_coco("yolo", yolo).categories == ["Käse", "dog"]
    for path, text in ((label, "0 .5 .5 .2 .2\n"), (yolo / "classes.txt", "cat\ndog\n")):
        for encoding in ("utf-16", "latin-1"):
            path.write_bytes(text.replace("0 ", "0 \xa0").replace("cat", "K\xe4se").encode(encoding))
            with pytest.raises(DataError, match=rf"{path.name}: not a text file in UTF-8"):
                to_coco("yolo", yolo)
        path.write_text(text)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5, but data.yaml names 2 classes"),
        ("-1 0.5 0.5 0.1 0.1", "class -1, but data.yaml names 2 classes"),
        ("nan 0.5 0.5 0.1 0.1", "no finite number"),
        ("0 0.5 0.5 0.1 0.1 0.93", r"5 coordinates.*\(the last may be the confidence of a prediction\)"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.9", r"7 coordinates.*confidence"),
        ("0 0.05 0.5 0.3 0.2", "reaches from -0.1 to 0.6, expected 0..1"),
        ("0", "0 coordinates"),
    ],
)
def test_more_wrong_lines(yolo: Path, line: str, fault: str) -> None:
    write(yolo / "labels" / "train" / "a.txt", line)
    with pytest.raises(DataError, match=rf"a.txt: line 1: .*{fault}"):
        to_coco("yolo", yolo)


def test_what_reaches_a_little_outside_is_clipped_and_counted(yolo: Path) -> None:
    """2 pixels of 40 by 60; what digits round away is not counted."""
    lines = ["0 0.1 0.5 0.26 0.2", "0 0.9 0.5 0.2001 0.2", "1 0 -0.04 0.5 0.5 0.5 0"]
    write(yolo / "labels" / "train" / "a.txt", "\n".join(lines))
    done = to_coco("yolo", yolo)
    boxes = [each["bbox"] for each in json.loads(done.files["train"].read_text())["annotations"][:3]]
    assert boxes[0] == pytest.approx([0, 16, 13.8, 8])
    assert boxes[1] == pytest.approx([47.997, 16, 12.003, 8])
    assert boxes[2] == pytest.approx([0, 0, 30, 20])
    assert "reaching up to 1 % or 2 pixels outside the image, and clipped: 2 objects" in done.notes


@pytest.mark.parametrize("numbers", [2, 3])
def test_key_points_are_no_polygon(yolo: Path, numbers: int) -> None:
    write(yolo / "data.yaml", f"names: [cat, dog]\nkpt_shape: [5, {numbers}]\n")
    points = " ".join(["0.4 0.6 2"[: 3 * numbers + numbers - 2]] * 5)
    for name in ("a", "b"):
        write(yolo / "labels" / "train" / f"{name}.txt", f"1 0.5 0.5 0.2 0.25 {points}\n0 0.5 0.5 0.1 0.1\n")
    done = to_coco("yolo", yolo)
    objects = json.loads(done.files["train"].read_text())["annotations"]
    assert objects[0]["bbox"] == pytest.approx([24, 15, 12, 10])
    assert not any("segmentation" in each for each in objects)
    assert "key points are left out, and the boxes kept: 2 objects" in done.notes
    write(yolo / "labels" / "train" / "a.txt", "1 0.1 0.1 0.2 0.1 0.2 0.2")
    with pytest.raises(DataError, match=rf"6 numbers, expected 4 of a box and {5 * numbers} \(kpt_shape\)"):
        to_coco("yolo", yolo)


def test_four_corners_may_be_oriented_boxes(yolo: Path) -> None:
    note = "all polygons have 4 corners: 1; if they are oriented boxes"
    assert any(line.startswith(note) for line in to_coco("yolo", yolo).notes)
    write(yolo / "labels" / "train" / "a.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5")
    assert not any("corners" in line for line in to_coco("yolo", yolo).notes)


def test_files_that_are_not_used_are_counted(yolo: Path, tmp_path: Path) -> None:
    """Hidden files, copies that Jupyter and macOS leave, HEIC, labels alone, links out, pipes."""
    train, labels = yolo / "images" / "train", yolo / "labels" / "train"
    write(train / "._a.jpg", "")
    picture(train / ".ipynb_checkpoints" / "a-checkpoint.jpg")
    write(yolo / "__MACOSX" / "images" / "train" / "b.png", "")
    write(train / "d.HEIC", "")
    write(train / "Thumbs.db", "")
    for name in ("d", "e", "f"):
        write(labels / f"{name}.txt", "0 0.5 0.5 0.2 0.2")
    picture(tmp_path / "elsewhere" / "images" / "z.png")
    (train / "z.png").symlink_to(tmp_path / "elsewhere" / "images" / "z.png")
    (yolo / "images" / "more").symlink_to(tmp_path / "elsewhere" / "images")
    (yolo / "images" / "again").symlink_to(yolo)
    os.mkfifo(train / "pipe.png")
    done = to_coco("yolo", yolo, part="images")
    assert splits_of(done) == {"train": [f"images/train/{name}" for name in ("a.jpg", "b.png", "c.png")]}
    notes = set(done.notes)
    assert {line for line in notes if "hidden" in line or "HEIC" in line or "labels without" in line} == {
        "left out: 3 files, hidden (images/train/._a.jpg, images/train/.ipynb_checkpoints/a-checkpoint.jpg, "
        "__MACOSX/images/train/b.png)",
        "left out: 1 file, cannot be read (HEIC, without pillow-heif) (images/train/d.HEIC)",
        "left out: 2 files, labels without an image (labels/train/e.txt, labels/train/f.txt)",
    }
    assert "left out: 2 files, a link out of the folder (images/more, images/train/z.png)" in notes
    assert "left out: 1 file, a link to a folder above it, or in another link (images/again)" in notes
    assert "left out: 1 file, no regular file (images/train/pipe.png)" in notes


def test_labels_that_must_not_be_read_are_one_line(yolo: Path, tmp_path: Path) -> None:
    label, data = yolo / "labels" / "train" / "a.txt", yolo / "data.yaml"
    label.unlink()
    os.mkfifo(label)
    with pytest.raises(DataError, match=r"a.txt: no regular file, so it is not read"):
        to_coco("yolo", yolo)
    label.unlink()
    label.symlink_to(write(tmp_path / "secret.txt", "0 0.5 0.5 0.2 0.2"))
    with pytest.raises(DataError, match=r"a.txt: a link out of the folder, so it is not read"):
        to_coco("yolo", yolo)
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(DataError, match=r"data.yaml: no regular file"):
        to_coco("yolo", yolo)
    data.unlink()
    data.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match=r"data.yaml: a link out of the folder"):
        to_coco("yolo", yolo)
    data.unlink()
    write(data, "names: [cat, dog]" + " " * 2**20)
    with pytest.raises(DataError, match=r"data.yaml: 1,048,593 bytes, expected at most 1,048,576"):
        to_coco("yolo", yolo)


def test_one_label_file_of_two_images(yolo: Path) -> None:
    picture(yolo / "images" / "train" / "c.jpg")
    assert to_coco("yolo", yolo).images == 4
    picture(yolo / "images" / "train" / "a.png")
    with pytest.raises(DataError, match=r"a.txt: belongs to two images, images/train/a.jpg and .*/a.png"):
        to_coco("yolo", yolo)


def test_objects_without_area_are_left_out_and_counted(yolo: Path) -> None:
    """Boxes without a width or above the edge, polygons of one point or smaller than a pixel."""
    flat = [
        "1 0.5 0.5 0 0.1",
        "1 0.5 0.5 0.5 0.5 0.5 0.5",
        "1 0.5 0.5 0.501 0.5 0.501 0.501",
        "1 0.5 0 0.1 -0",
    ]
    write(yolo / "labels" / "train" / "a.txt", "\n".join(["0 0.5 0.5 0.2 0.25", *flat]))
    done = to_coco("yolo", yolo)
    assert done.annotations == 2
    assert "left out: 4 objects without area (labels/train/a.txt: line 2)" in done.notes


def test_boxes_beside_polygons_get_an_outline(yolo: Path) -> None:
    """Also in a split without polygons; boxes alone stay boxes."""
    done = to_coco("yolo", yolo)
    file = read_coco(done.files["train"])
    assert [p for p in file.problems if p.fatal] == []
    box = json.loads(done.files["train"].read_text())["annotations"][0]
    assert box["segmentation"] == [pytest.approx([24, 15, 36, 15, 36, 25, 24, 25])]
    assert box["area"] == 120
    note = "2 objects with a box alone: taken as masks, too, since other objects have outlines"
    assert note in done.notes
    assert not any("have 4 corners: 3" in each for each in done.notes)
    write(yolo / "labels" / "train" / "b.txt", "0 0.5 0.5 0.2 0.2")
    boxes = json.loads(to_coco("yolo", yolo).files["train"].read_text())["annotations"]
    assert not any("segmentation" in each for each in boxes)
