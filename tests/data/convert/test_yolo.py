"""YOLO's labels as COCO JSON."""

import json
from pathlib import Path

import hotcoco
import pytest

from botvision.data.convert.folder import to_coco
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError
from tests.data.convert.files import SIZE, picture, write


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
    assert done.notes == ["1 images have no label file: taken as images without objects"]
    content = json.loads(done.files[""].read_text())
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
        ("2 0.5 0.5 0.1 0.1", "class 2, expected 0..1"),
        ("0 0.5 0.5 0.1", "3 coordinates"),
        ("0 0.5 0.5 nan 0.1", "no finite number"),
        ("cat 0.5 0.5 0.1 0.1", "expected a class number"),
        ("0 30 20 10 10", "reaches from 15 to 35, expected 0..1"),
        ("0 0.5 0.5 0 0.1", "has no area"),
        ("0 0.5 0.5 0.5 0.5 0.5 0.5", "the polygon has no area"),
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
    write(yolo / "data.yaml", "names: {1: cat}")
    with pytest.raises(DataError, match="the classes have no names"):
        to_coco("yolo", yolo, yolo / "x.json")
    write(yolo / "data.yaml", "names: {")
    with pytest.raises(DataError, match=r"data.yaml: no YAML"):
        to_coco("yolo", yolo, yolo / "x.json")
    with pytest.raises(DataError, match="no such folder"):
        to_coco("yolo", tmp_path / "nowhere", yolo / "x.json")
