"""Folders of other tools' labels: which command converts them, however deep they lie."""

from pathlib import Path

import pytest
from PIL import Image

from botvision.data.convert.folder import FolderKind, to_coco
from botvision.data.other_labels import convert_hint

XML = (
    "<annotation><filename>{}.png</filename><size><width>40</width><height>30</height></size>{}</annotation>"
)
BOX = "<object><name>cat</name>"
BOX += "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
LABELS = {
    ".txt": "0 0.5 0.5 0.2 0.2\n",
    ".xml": XML.format("a", BOX),
    ".json": '{"shapes": [{"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}], '
    '"imagePath": "a.png", "imageHeight": 30, "imageWidth": 40}',
}


def laid_out(root: Path, image: str, label: str, *others: str) -> Path:
    """An image, its label, and other files with the name of a class."""
    for name in (image, label, *others):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (90, 20, 200)).save(root / image)
    (root / label).write_text(LABELS[Path(label).suffix])
    for name in others:
        (root / name).write_text("names: [cat]\n" if "data.y" in name else "cat\n")
    return root


@pytest.mark.parametrize(
    ("kind", "tool", "place", "files"),
    [
        ("yolo", "YOLO's", "", ("images/a.png", "labels/a.txt", "classes.txt")),
        ("yolo", "YOLO's", "", ("images/train/a.png", "labels/train/a.txt", "data.yaml")),
        ("yolo", "YOLO's", "", ("images/a.png", "labels/a.txt", "labels/classes.txt")),
        ("yolo", "YOLO's", "", ("train/images/a.png", "train/labels/a.txt", "data.yaml")),
        ("yolo", "YOLO's", "set", ("set/images/a.png", "set/labels/a.txt", "set/data.yaml")),
        ("yolo", "YOLO's", "my/s", ("my/s/images/val/a.png", "my/s/labels/val/a.txt", "my/s/data.yml")),
        ("yolo", "YOLO's", "my/s", ("my/s/val/images/a.png", "my/s/val/labels/a.txt", "my/s/data.yaml")),
        ("yolo", "YOLO's", "my/s", ("my/s/a.png", "my/s/a.txt", "my/s/classes.txt")),
        ("voc", "Pascal VOC's", "", ("VOCkit/VOC2007/JPEGImages/a.png", "VOCkit/VOC2007/Annotations/a.xml")),
        ("voc", "Pascal VOC's", "", ("my/s/a.png", "my/s/a.xml")),
        ("labelme", "LabelMe's", "", ("project/batch1/a.png", "project/batch1/a.json")),
        ("labelme", "LabelMe's", "", ("images/train/a.png", "labels/train/a.json")),
    ],
)  # fmt: skip
def test_the_line_converts_the_labels(
    tmp_path: Path, kind: FolderKind, tool: str, place: str, files: tuple[str, str]
) -> None:
    laid_out(tmp_path / "data", *files)
    folder = tmp_path / "data" / place
    assert (
        convert_hint(tmp_path / "data") == f"the labels look like {tool}: botvision convert {kind} {folder}"
    )
    assert to_coco(kind, folder).annotations == 1


def test_labels_beside_the_images_of_classes_are_none_of_these(tmp_path: Path) -> None:
    for suffix in (".xml", ".json"):
        assert convert_hint(laid_out(tmp_path / suffix, "train/cat/a.png", f"train/cat/a{suffix}")) is None
