"""A mask for each object, and what the values of masks are."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.data.convert.folder import to_coco
from botvision.data.other_labels import convert_hint
from botvision.io.errors import DataError
from tests.data.convert.files import SIZE, picture

BOXES = ((2, 3, 9, 8), (12, 30, 20, 42), (25, 5, 38, 15))  # top, left, bottom, right
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [9] * 756


def save(
    path: Path, *boxes: tuple[int, int, int, int], values: tuple[int, ...] = (), voc: bool = False
) -> None:
    """Draw boxes of 255, or of values."""
    pixels = np.zeros(SIZE, dtype=np.uint8)
    for box, value in zip(boxes, values or [255] * len(boxes), strict=True):
        pixels[box[0] : box[2], box[1] : box[3]] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if voc:
        image = image.convert("P")
        image.putpalette(VOC)
    image.save(path)


def objects(path: Path) -> dict[str, list[list[float]]]:
    """Boxes by image, sorted."""
    content = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[list[float]]] = {name: [] for name in names.values()}
    for each in content["annotations"]:
        found[names[each["image_id"]]].append(each["bbox"])
    return {name: sorted(boxes) for name, boxes in found.items()}


def expected(*boxes: tuple[float, float, float, float]) -> list[list[float]]:
    return sorted([left, top, right - left, bottom - top] for top, left, bottom, right in boxes)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("stage1_train/{0}/images/{0}.png", "stage1_train/{0}/masks/{1}.png"),
        ("{0}/images/photo.jpg", "{0}/masks/{1}.png"),
        ("{0}/image.png", "{0}/masks/{1}.png"),
        ("images/{0}.jpg", "masks/{0}/{1}.png"),
        ("images/{0}.jpg", "masks/{0}_{1}.png"),
        ("images/train/{0}.jpg", "masks/train/{0}_mask-{1}.tif"),
    ],
)
def test_a_mask_for_each_object(tmp_path: Path, image: str, mask: str) -> None:
    """Also where they overlap; an image's only mask is read by its values."""
    for name, boxes in (("a", BOXES), ("a_1", BOXES[:2]), ("b", BOXES[:1])):
        picture(tmp_path / image.format(name))
        for number, box in enumerate(boxes):
            save(tmp_path / mask.format(name, f"x{number}"), box)
    save(tmp_path / mask.format("b", "x9"), (3, 4, 30, 30))
    (tmp_path / mask.format("a_1", "x1")).unlink()
    save(tmp_path / mask.format("a_1", "x0"), *BOXES, values=(1, 2, 3))
    hint = convert_hint(tmp_path)
    assert hint is None or "botvision convert masks" in hint
    assert hint or image in ("{0}/images/photo.jpg", "{0}/image.png", "images/train/{0}.jpg")
    done = to_coco("masks", tmp_path)
    assert "with several masks, of one object each: 2 images" in done.notes
    names = image.format("a_1"), mask.format("a_1", "x0")
    guessed = f"with a mask of a longer name: 1 image, {names[1]} for {names[0]} the first"
    assert (guessed in done.notes, len(done.notes)) == ((True, 2) if "{0}_" in mask else (False, 1))
    assert objects(next(iter(done.files.values()))) == {
        image.format("a"): expected(*BOXES), image.format("a_1"): expected(*BOXES),
        image.format("b"): expected(BOXES[0], (3, 4, 30, 30)),
    }  # fmt: skip


def test_a_mask_that_may_be_of_a_missing_image_is_said(tmp_path: Path) -> None:
    for name in ("cell", "b"):
        picture(tmp_path / "images" / f"{name}.png")
    for name in ("cell_2", "b"):
        save(tmp_path / "masks" / f"{name}.png", BOXES[0])
    line = "with a mask of a longer name: 1 image, masks/cell_2.png for images/cell.png the first"
    assert line in to_coco("masks", tmp_path).notes


def test_several_masks_that_cannot_be_meant(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    for number in (1, 2):
        save(tmp_path / "masks" / f"a_{number}.png", BOXES[number])
    save(tmp_path / "masks" / "other.png", BOXES[0])
    done = to_coco("masks", tmp_path)
    assert done.annotations == 2
    assert done.notes[-1] == "left out: 1 file, masks without an image (masks/other.png)"
    save(tmp_path / "masks" / "a_2.png", *BOXES[:2], values=(1, 2))
    with pytest.raises(
        DataError, match=r"a_2\.png: 2 values, but images/a\.png has 2 masks, expected one ob"
    ):
        to_coco("masks", tmp_path)
    save(tmp_path / "masks" / "a.png", *BOXES, values=(1, 2, 3))  # of the image's own name
    assert to_coco("masks", tmp_path).annotations == 3


def test_masks_of_another_name_are_not_guessed(tmp_path: Path) -> None:
    for folder in ("", "train"):
        root = tmp_path / f"x{folder}"
        picture(root / folder / "images" / "a.png")
        save(root / folder / "masks" / "b.png", BOXES[0])
        with pytest.raises(DataError, match=r"a\.png: nothing of the same name in masks/"):
            to_coco("masks", root)
    picture(tmp_path / "xtrain" / "test" / "images" / "t.png")
    save(tmp_path / "xtrain" / "train" / "masks" / "a.png", BOXES[0])
    with pytest.raises(DataError, match=r"t\.png: nothing .*\(1 such image\); --part takes a folder"):
        to_coco("masks", tmp_path / "xtrain")
    assert to_coco("masks", tmp_path / "xtrain", part="train").annotations == 1
    picture(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match=r"near masks, expected images/a\.jpg and masks/a\.png"):
        to_coco("masks", tmp_path / "photos")


@pytest.mark.parametrize("kind", ["grey", "palette", "colours"])
def test_the_border_of_voc_masks_is_no_object(tmp_path: Path, kind: str) -> None:
    picture(tmp_path / "images" / "a.png")
    mask, around = tmp_path / "masks" / "a.png", (11, 29, 21, 43)
    save(mask, BOXES[0], around, BOXES[1], values=(1, 255, 2), voc=kind == "palette")
    if kind == "colours":
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[[1, 2, 255]] = (128, 0, 0), (0, 128, 0), (224, 224, 192)
        Image.fromarray(palette[np.asarray(Image.open(mask))]).save(mask)
    done = to_coco("masks", tmp_path)
    assert objects(done.files[""]) == {"images/a.png": expected(*BOXES[:2])}
    assert done.notes == ["255 beside small numbers is taken as border, not as an object: 1 mask"]


def test_255_is_an_object_beside_large_values_and_alone(tmp_path: Path) -> None:
    for name, values in (("a", (254, 255)), ("b", (100, 255)), ("c", (255,))):
        picture(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png", *BOXES[: len(values)], values=values)
    done = to_coco("masks", tmp_path)
    assert (done.annotations, done.notes) == (5, [])
    numbers = np.arange(600) * (np.arange(600) < 256)
    full = np.kron(numbers.reshape(20, 30), np.ones((2, 2))).astype(np.uint8)  # 255 objects
    Image.fromarray(full).save(tmp_path / "masks" / "c.png")
    assert to_coco("masks", tmp_path).annotations == 4 + 255


def test_masks_of_classes_are_refused(tmp_path: Path) -> None:
    """One class alone in many images, never the same; VOC's palette with numbers left out tells at once."""
    for name, values in {"a": (1,), "b": (2,), "c": (1, 2), "d": (1,)}.items():
        picture(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png", *BOXES[: len(values)], values=values)
    with pytest.raises(
        DataError, match=r"look like numbers of classes \(2 values in 4 masks: 1, 2; .*--split"
    ):
        to_coco("masks", tmp_path)
    assert to_coco("masks", tmp_path, split_parts=True).annotations == 5
    save(tmp_path / "masks" / "b.png", *BOXES[:2], values=(1, 2))
    assert to_coco("masks", tmp_path).annotations == 6
    voc = tmp_path / "voc"
    picture(voc / "images" / "a.png")
    save(voc / "masks" / "a.png", BOXES[0], BOXES[1], values=(15, 255), voc=True)
    with pytest.raises(
        DataError, match=r"masks/a\.png: 15, in Pascal VOC's palette: numbers of classes, as in S"
    ):
        to_coco("masks", voc)


def test_the_same_values_in_every_mask_are_noted(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png", *BOXES[:2], values=(127, 254))
    (note,) = to_coco("masks", tmp_path).notes
    assert note.startswith("all 3 masks have the same values (127, 254): if these are classes, each object")
    save(tmp_path / "masks" / "c.png", BOXES[0], values=(127,))
    assert to_coco("masks", tmp_path).notes == []
