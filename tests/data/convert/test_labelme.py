"""LabelMe's JSON as COCO JSON."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from botvision.coco.masks import decode, polygons_to_rles
from botvision.coco.read import read_coco
from botvision.data.convert.folder import Conversion, to_coco
from botvision.io.errors import DataError
from tests.data.convert.files import picture, write

TRIANGLE = [[10, 5], [30, 5], [30, 25]]


def shape(
    label: object = "cat", points: object = TRIANGLE, kind: object = "polygon", **rest: Any
) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **rest}


def mask_shape(pixels: np.ndarray, left: float, top: float, **rest: Any) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    corner = [left + pixels.shape[1] - 1, top + pixels.shape[0] - 1]
    text = base64.b64encode(file.getvalue()).decode()
    return shape(**{"points": [[left, top], corner], "kind": "mask", "mask": text, **rest})


def labels(*shapes: object, **rest: Any) -> str:
    content = {"version": "5.5.0", "flags": {"day": True}, "imagePath": "a.jpg", "imageData": None}
    return json.dumps(content | {"shapes": shapes, "imageHeight": 40, "imageWidth": 60} | rest)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of one image."""
    picture(tmp_path / "a.jpg")
    return tmp_path


def convert(root: Path, part: str = "") -> Conversion:
    return to_coco("labelme", root, root / "made" / "coco", part=part)


def found(root: Path, *shapes: object, **rest: Any) -> list[dict[str, Any]]:
    """The annotations of an image, with the names of their classes."""
    write(root / "a.json", labels(*shapes, **rest))
    path = convert(root).files[""]
    assert [p for p in read_coco(path).problems if p.fatal] == [] if shapes else True
    content = json.loads(path.read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    return [{**each, "name": names[each["category_id"]]} for each in content["annotations"]]


def test_polygons_are_masks(root: Path) -> None:
    dog, cat = found(
        root, shape("dog"), shape(" cat ", [[0.5, 0], [60, 0], [60, 40.0]], None, description="x")
    )
    assert (dog["name"], dog["bbox"], dog["segmentation"]) == (
        "dog",
        [10, 5, 20, 20],
        [[10, 5, 30, 5, 30, 25]],
    )
    assert dog["area"] == pytest.approx(200, abs=15)
    assert (cat["name"], cat["category_id"], cat["bbox"]) == ("cat", 1, [0.5, 0, 59.5, 40])
    assert convert(root).notes == []


def test_rectangles_alone_are_boxes(root: Path) -> None:
    corners = [[[30, 25], [10, 5]], [[10, 25], [30, 5]], [[10, 5], [30, 5], [30, 25], [10, 25]]]
    for each in found(root, *(shape(points=points, kind="rectangle") for points in corners)):
        assert (each["bbox"], each["area"], "segmentation" in each) == ([10, 5, 20, 20], 400, False)


def test_rectangles_beside_polygons_are_masks_too(root: Path) -> None:
    rectangle, _ = found(root, shape(points=[[10, 5], [30, 25]], kind="rectangle"), shape())
    assert (rectangle["bbox"], rectangle["area"]) == ([10, 5, 20, 20], 400)
    assert rectangle["segmentation"] == [[10, 5, 30, 5, 30, 25, 10, 25]]
    assert convert(root).notes == ["1 rectangle taken as masks, too, since other objects have outlines"]


def test_turned_rectangles_are_polygons(root: Path) -> None:
    diamond = [[20, 5], [30, 15], [20, 25], [10, 15]]
    for kind in ("oriented_rectangle", "rotation", "rectangle"):
        (each,) = found(root, shape(points=diamond, kind=kind))
        assert each["segmentation"] == [[20, 5, 30, 15, 20, 25, 10, 15]]


def test_circles(root: Path) -> None:
    whole, cut = found(
        root, shape(points=[[30, 20], [30, 32]], kind="circle"), shape(points=[[0, 0], [8, 6]], kind="circle")
    )
    assert whole["bbox"] == pytest.approx([18, 8, 24, 24], abs=0.1)
    assert whole["area"] == pytest.approx(math.pi * 12**2, rel=0.03)
    assert cut["bbox"] == pytest.approx([0, 0, 10, 10], abs=0.1)
    assert cut["area"] == pytest.approx(math.pi * 10**2 / 4, rel=0.15)
    y, x = np.mgrid[:40, :60] + 0.5
    assert convert(root).notes == ["1 circle reaching beyond the image: cut off there"]
    pixels = decode_one(whole)
    assert (pixels != ((x - 30) ** 2 + (y - 20) ** 2 < 12**2)).mean() < 0.01


def decode_one(annotation: dict[str, Any]) -> np.ndarray:
    segmentation = annotation["segmentation"]
    rles = [segmentation] if isinstance(segmentation, dict) else polygons_to_rles([segmentation], (40, 60))
    return decode(rles, (40, 60))[0]


@pytest.mark.parametrize(("left", "top"), [(7, 3), (0, 0), (-2, -1), (54, 34)])
def test_masks(root: Path, left: int, top: int) -> None:
    """They lie where their points say; those that reach a little beyond are cut off."""
    pixels = np.zeros((7, 8), dtype=bool)
    pixels[1:6, :5], pixels[3, 2], pixels[6, 7] = True, False, True
    expected = np.zeros((60, 80), dtype=bool)
    expected[10 + top : 17 + top, 10 + left : 18 + left] = pixels
    expected = expected[10:50, 10:70]
    (each,) = found(root, mask_shape(pixels, left, top))
    assert (decode_one(each) == expected).all()
    rows, columns = np.flatnonzero(expected.any(1)), np.flatnonzero(expected.any(0))
    size = [columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    assert (each["bbox"], each["area"]) == ([columns[0], rows[0], *size], expected.sum())
    assert len(convert(root).notes) == (left < 0 or left > 50)


def test_group_ids_join_shapes_of_one_label(root: Path) -> None:
    one, two = [[0, 0], [4, 0], [4, 4], [0, 4]], [[20, 20], [30, 20], [30, 30], [20, 30]]
    whole = mask_shape(np.ones((10, 10)), 20, 20)["mask"]
    shapes = [
        shape("dog", one, group_id=1), shape("cat", one, group_id=1), shape("dog", two, group_id=1),
        shape("dog", one, group_id=2), shape("dog", one), shape("dog", one),
        mask_shape(np.ones((10, 10)), 20, 20, label="cat", group_id=1, mask=whole),
    ]  # fmt: skip
    dog, cat, *others = found(root, *shapes)
    assert (dog["name"], dog["bbox"], dog["area"]) == ("dog", [0, 0, 30, 30], 116)
    assert dog["segmentation"] == [[0, 0, 4, 0, 4, 4, 0, 4], [20, 20, 30, 20, 30, 30, 20, 30]]
    assert (cat["name"], cat["bbox"], cat["area"]) == ("cat", [0, 0, 30, 30], 116)
    assert decode_one(cat).sum() == 116
    assert [(each["name"], each["area"]) for each in others] == [("dog", 16)] * 3
    assert convert(root).notes == ["2 objects of several shapes with one group_id"]
    (box,) = found(root, *(shape(points=[p[0], p[2]], kind="rectangle", group_id="a") for p in (one, two)))
    assert (box["bbox"], box["area"], "segmentation" in box) == ([0, 0, 30, 30], 900, False)
    assert len(found(root, *(shape(points=each, group_id="") for each in (one, two)))) == 2
    assert len(found(root, *(shape(points=each, group_id=1.0) for each in (one, two)))) == 1


def test_what_labelme_does_not_fill_is_left_out(root: Path) -> None:
    lines = [shape(points=[[1, 1], [2, 2]], kind=kind) for kind in ("line", "linestrip", "linestrip")]
    ignored = [shape("__ignore__"), shape("_background_")]
    content = found(root, *lines, shape(points=[[1, 1]], kind="point"), *ignored, shape("dog"))
    assert [each["name"] for each in content] == ["dog"]
    done = convert(root)
    assert done.categories == ["dog"]
    assert done.notes == [
        "left out: 1 shape of type line, which is not read",
        "left out: 2 shapes of type linestrip, which is not read",
        "left out: 1 shape of type point, which is not read",
        "left out: 2 shapes called __ignore__ or _background_",
    ]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (shape(points=[[1, 1], [2, math.nan], [3, 5]]), "shape 2 (cat): a point is [2, nan], expected two"),
        (shape(points=[[1, 1], [2, math.inf], [3, 5]]), "a point is [2, inf], expected two numbers"),
        (shape(points=[[1, 1], [2, "3"], [3, 5]]), "a point is [2, '3'], expected two numbers"),
        (shape(points=[[1, 1], [2], [3, 5]]), "a point is [2], expected two numbers"),
        (shape(points=None), "a point is None, expected two numbers"),
        (shape(points=[[1, 1], [10**400, 2], [3, 5]]), "a point is "),
        (shape(points=TRIANGLE, kind="rectangle"), "3 points, expected 2, or 4 of a rectangle"),
        (shape(points=TRIANGLE, kind="circle"), "3 points, expected 2 of a circle"),
        (shape(points=[[1, 1], [90, 1], [3, 5]]), "shape 2 (cat): reaches x = 90, outside its image of"),
        (shape(label=5), "shape 2: label is 5, expected a name"),
        (shape(label=" "), "shape 2: label is ' ', expected a name"),
        (shape(group_id=[1]), "shape 2 (cat): group_id is [1], expected a whole number"),
        ("cat", "shape 2 is 'cat', expected an object"),
        (shape(points=[[1, 1], [5, 5]], kind="mask"), "(cat): mask is None, expected a PNG in base64"),
        (shape(points=[[1, 1], [5, 5]], kind="mask", mask="?"), "its mask is no PNG in base64"),
        (mask_shape(np.ones((4, 5)), 1, 1, points=[[1, 1], [20, 5]]), "mask of 4 x 5 pixels (height x"),
        (mask_shape(np.ones((4, 5)), 58, 1), "shape 2 (cat): reaches x = 63, outside its image"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(root: Path, wrong: object, fault: str) -> None:
    write(root / "a.json", labels(shape("dog"), wrong))
    with pytest.raises(DataError) as error:
        convert(root)
    assert str(error.value).startswith(f"{root / 'a.json'}: ")
    assert fault in str(error.value)
    assert not (root / "made").exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"shapes": ', "[1]", '{"shapes": 5}', '{"a": 1}', '{"shapes":' + "[" * 10**6,
     '{"shapes": ' + "9" * 5000, b"\xff\xfe{}",
     labels(imagePath=5), labels(imageHeight="40"), labels(imageWidth=60.5)],
)  # fmt: skip
def test_the_file_of_an_image_that_is_none(root: Path, text: str | bytes) -> None:
    (root / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        convert(root)
    assert str(error.value).startswith(f"{root / 'a.json'}: ")


def test_sizes_are_those_of_the_images(root: Path) -> None:
    for size in ({}, {"imageHeight": None, "imageWidth": None}, {"imageHeight": 40.0}):
        found(root, shape(), **size)
        image = read_coco(convert(root).files[""]).images[0]
        assert (image.height, image.width) == (40, 60)
    with pytest.raises(
        DataError, match=r"a\.jpg \(a\.json\): 40 x 60 pixels .* its annotations say 400 x 60"
    ):
        found(root, shape(), imageHeight=400)


def test_images_are_found_by_their_path(tmp_path: Path) -> None:
    paths = {
        "one": "..\\photos\\one.png",
        "two": "../photos/other.jpg",
        "three": "/home/u/three.jpg",
        "four": None,
    }
    for name in ("one.png", "other.jpg", "three.jpg", "four.jpg", "empty.jpg"):
        picture(tmp_path / "photos" / name)
    for name, path in paths.items():
        folder = "photos" if name in ("three", "four") else "notes"
        write(tmp_path / folder / f"{name}.json", labels(shape(name), imagePath=path))
    write(tmp_path / "notes" / "gone.json", labels(shape("gone"), imagePath="../../x.jpg"))
    write(tmp_path / "notes" / "list.json", "[]")
    write(tmp_path / "notes" / "._one.json", "\0")
    picture(tmp_path / "notes" / "shown" / "one.png")
    done = convert(tmp_path)
    content = json.loads(done.files[""].read_text())
    assert [image["file_name"] for image in content["images"]] == [
        f"photos/{name}" for name in ("empty.jpg", "four.jpg", "one.png", "other.jpg", "three.jpg")
    ]
    assert [each["image_id"] for each in content["annotations"]] == [2, 3, 4, 5]
    assert done.notes == [
        "1 image without a label file: taken as images without objects",
        "left out: 1 file, hidden (notes/._one.json)",
        "left out: 1 file, not LabelMe's (notes/list.json)",
        "left out: 1 file, without an image of the same name, or of that in imagePath (notes/gone.json)",
        "left out: 1 file, in a folder without label files (notes/shown/one.png)",
    ]


def test_images_in_another_folder_are_found_if_there_is_one_of_their_name(tmp_path: Path) -> None:
    """But not for a second file, such as a copy, nor across splits."""
    for name in (
        "photos/a.jpg",
        "photos/b.jpg",
        "train/pics/c.jpg",
        "val/pics/d.jpg",
        "one/e.jpg",
        "two/e.jpg",
    ):
        picture(tmp_path / name)
    for name in ("jsons/a", "photos/b", "old/b", "train/notes/c", "train/notes/d", "jsons/e"):
        write(tmp_path / f"{name}.json", labels(shape(), imagePath=f"{name[-1]}.jpg"))
    done = convert(tmp_path)
    content = json.loads(done.files["train"].read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found = sorted(names[each["image_id"]] for each in content["annotations"])
    assert found == ["photos/a.jpg", "photos/b.jpg", "train/pics/c.jpg"]
    assert done.notes == [
        "in no folder called train, val or test, so taken for training: 2 images",
        "2 label files whose image lies in another folder, the only one of that name",
        "left out: 2 files, without an image of the same name, or of that in imagePath (jsons/e.json, "
        "train/notes/d.json)",
        "left out: 1 file, whose image has labels of its own (old/b.json)",
        "left out: 3 files, in a folder without label files (one/e.jpg, two/e.jpg, val/pics/d.jpg)",
    ]
    write(tmp_path / "more" / "a.json", labels(shape()))
    with pytest.raises(DataError, match=r"more/a\.json: describes photos/a\.jpg, but so does jsons/a\.json"):
        convert(tmp_path)


def test_folders_called_train_and_val_are_splits(tmp_path: Path) -> None:
    for name in ("train/a", "val/b"):
        picture(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.json", labels(shape(name[0]), imagePath=f"{name[-1]}.jpg"))
    done = to_coco("labelme", tmp_path)
    assert [path.name for path in done.files.values()] == ["instances_train.json", "instances_val.json"]
    assert to_coco("labelme", tmp_path).images == 2  # with these files beside them
    assert convert(tmp_path, "val").categories == ["t", "v"]
    with pytest.raises(DataError, match="no JSON file in it or below it"):
        to_coco("labelme", picture(tmp_path / "x" / "a.jpg").parent)


def test_shapes_without_area_are_left_out_and_counted(root: Path) -> None:
    """A double click, a polygon of two points or none, a circle outside the image, an empty mask."""
    flat = [
        shape(points=[[1, 1], [1, 1], [1, 1]]), shape(points=TRIANGLE[:2]), shape(points=[]),
        shape(points=[[1, 1], [1, 1]], kind="rectangle"), shape(points=[[-9, 1], [-9, 5]], kind="circle"),
        mask_shape(np.zeros((4, 5)), 1, 1),
    ]  # fmt: skip
    assert [each["name"] for each in found(root, shape("dog"), *flat, shape("cow"))] == ["dog", "cow"]
    assert "left out: 6 objects without area (a.json: shape 2 (cat))" in convert(root).notes
    assert [each["name"] for each in found(root, shape("dog"), flat[1])] == ["dog"]
    assert "left out: 1 object without area (a.json: shape 2 (cat))" in convert(root).notes
