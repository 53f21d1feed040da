"""Masks, YOLO labels and VOC boxes as COCO JSON."""

import json
from pathlib import Path

import hotcoco
import numpy as np
import pytest
from PIL import Image

from botvision.coco.read import read_coco
from botvision.data.convert import to_coco
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError

SIZE = (40, 60)


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8)).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


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


def test_instance_masks(tmp_path: Path) -> None:
    """16-bit values, several separate parts, palette masks; the masks come back as they were."""
    source = ShapesSource(seed=1, split="train", count=6, num_classes=3, size=SIZE)
    for index in range(6):
        picture(tmp_path / "images" / "deep" / f"{index}.jpg")
        values = np.zeros(SIZE, dtype=np.uint16 if index % 2 else np.uint8)
        for number, mask in enumerate(source.instances(index)["masks"].numpy()):
            values[mask > 0] = 10 + number * (250 if index % 2 else 1)
        path = tmp_path / "masks" / "deep" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    done = to_coco("masks", tmp_path, tmp_path / "all.json", category="cell")
    assert (done.images, done.categories, done.unlabelled) == (6, ["cell"], 0)
    file = read_coco(done.path)
    assert file.problems == []
    coco = hotcoco.COCO(str(done.path))
    for index, record in enumerate(file.images):
        assert record.file == f"images/deep/{index}.jpg"
        truth = {mask.tobytes() for mask in source.instances(index)["masks"].numpy()}
        found = [coco.annToMask(a) for a in coco.load_anns(coco.get_ann_ids(img_ids=[record.id]))]
        assert {np.ascontiguousarray(mask).tobytes() for mask in found} == truth
        assert len(found) == len(truth)


def test_masks_that_cannot_be_meant(tmp_path: Path) -> None:
    image, mask = picture(tmp_path / "images" / "a.png"), tmp_path / "masks" / "a.png"
    with pytest.raises(DataError, match=r"a.png: nothing of the same name in masks/ \(1 such image"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    picture(mask)
    with pytest.raises(DataError, match=r"masks/a.png: 40 x 60 x 3 uint8, expected one whole number"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    Image.fromarray(np.zeros((4, 6), dtype=np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"masks/a.png: 4 x 6 pixels, but its image has 40 x 60"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    mask.write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"masks/a\.png: cannot be read"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=r"images/a\.png"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_yolo_boxes_and_polygons(yolo: Path) -> None:
    done = to_coco("yolo", yolo, yolo / "annotations" / "instances_train.json", part="images/train")
    assert (done.images, done.annotations, done.unlabelled) == (3, 3, 1)
    content = json.loads(done.path.read_text())
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
    mine, theirs = (json.loads(path.read_text()) for path in (done.path, truth))
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


VOC = """<annotation><filename>a.jpg</filename>
<size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><difficult>{}</difficult>
<bndbox><xmin>11</xmin><ymin>5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def test_voc_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "Annotations" / "a.xml", VOC.format(0))
    done = to_coco("voc", tmp_path, tmp_path / "x.json")
    file = read_coco(done.path)
    assert [image.file for image in file.images] == ["JPEGImages/a.jpg"]
    assert file.annotations.boxes.tolist() == [[10, 4, 20, 16]]
    assert not file.annotations.crowd.any()
    write(tmp_path / "Annotations" / "a.xml", VOC.format(1))
    assert read_coco(to_coco("voc", tmp_path, tmp_path / "x.json").path).annotations.crowd.all()
    write(tmp_path / "Annotations" / "a.xml", VOC[:90])
    with pytest.raises(DataError, match=r"a\.xml"):
        to_coco("voc", tmp_path, tmp_path / "x.json")
    (tmp_path / "Annotations" / "a.xml").unlink()
    with pytest.raises(DataError, match="no XML file"):
        to_coco("voc", tmp_path, tmp_path / "x.json")
