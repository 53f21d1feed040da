"""Mask images as COCO JSON."""

import io
import json
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from PIL import Image

from botvision.coco.read import read_coco
from botvision.data.convert.folder import to_coco
from botvision.data.convert.masks import _parts
from botvision.data.detection_sources import read_annotated
from botvision.data.other_labels import convert_hint
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError
from tests.data.convert.files import SIZE, picture


@pytest.mark.filterwarnings("error")
def test_label_maps_stored_as_floating_point(tmp_path: Path) -> None:
    """As ImageJ writes them: whole numbers are objects, others and what is no number are refused."""
    values = np.zeros(SIZE, dtype=np.float32)
    values[2:9, 3:8], values[12:20, 3:8] = 1, 700
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(values).save(tmp_path / "masks" / "a.tif")
    assert to_coco("masks", tmp_path, tmp_path / "all.json").annotations == 2
    for wrong in (0.5, float("nan"), 1e30):
        values[0, 0] = wrong
        Image.fromarray(values).save(tmp_path / "masks" / "a.tif")
        with pytest.raises(DataError, match="expected one whole number for each pixel"):
            to_coco("masks", tmp_path, tmp_path / "other.json")


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
    assert (done.images, done.categories) == (6, ["cell"])
    assert len(done.notes) == 1  # one object is covered in its middle
    assert done.notes[0].startswith("of several separate parts: 1 of 21 objects")
    file = read_coco(done.files[""])
    assert file.problems == []
    coco = hotcoco.COCO(str(done.files[""]))
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
    mask.parent.mkdir()
    Image.fromarray(np.zeros((*SIZE, 4), dtype=np.uint8), "CMYK").save(mask, "TIFF")
    with pytest.raises(DataError, match=r"masks/a.png: 40 x 60 x 4 uint8, expected one whole number"):
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


def discs(*centres: tuple[int, int], radius: float = 6, soft: float = 0) -> np.ndarray:
    """Float (H, W) of 0 and 1: discs, their edges so many pixels wide."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    far = np.min([np.hypot(y - a, x - b) for a, b in centres], axis=0)
    return np.clip((radius + soft / 2 - far) / soft, 0, 1) if soft else (far <= radius).astype(float)


def save_mask(root: Path, pixels: np.ndarray, name: str = "a.png", **options: Any) -> None:
    """A mask, and a picture of its size."""
    picture(root / "images" / Path(name).with_suffix(".png"), pixels.shape[:2])
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(root / "masks" / name, **options)


THREE = ((10, 10), (10, 45), (30, 28))


def test_parts_of_one_value_are_one_object_unless_asked(tmp_path: Path) -> None:
    white = (255 * discs(*THREE)).astype(np.uint8)
    white[0, 58], white[1, 59] = 255, 255  # touch at a corner: one part
    save_mask(tmp_path, white)
    done = to_coco("masks", tmp_path)
    assert done.annotations == 1
    assert done.notes[0].startswith("of several separate parts: 1 of 1 objects")
    done = to_coco("masks", tmp_path, split_parts=True)
    assert (done.annotations, done.notes) == (4, [])
    objects = json.loads(done.files[""].read_text())["annotations"]
    one = int(discs(THREE[0]).sum())
    assert sorted(each["area"] for each in objects) == [2, one, one, one]
    assert sorted(each["bbox"] for each in objects)[0] == [4, 4, 13, 13]


def test_masks_of_white_ground_and_of_ground_alone_are_noted(tmp_path: Path) -> None:
    black = (255 * (discs(*THREE) == 0)).astype(np.uint8)
    save_mask(tmp_path, black, "a.png")
    save_mask(tmp_path, black, "b.png")
    save_mask(tmp_path, black * 0, "c.png")
    assert to_coco("masks", tmp_path).notes == [
        "masks of ground alone, so without objects: 1 of 3",
        "as large as its image: an object of 2 of 3 masks; is their ground another value than 0?",
    ]
    save_mask(tmp_path, 255 - black, "b.png")
    assert not any("as large as" in note for note in to_coco("masks", tmp_path).notes)


def test_parts_equal_a_flood_fill(tmp_path: Path) -> None:
    """Noise of three values, whose parts wind about; the plain way looks at one pixel after the other."""
    rng = np.random.default_rng(4)
    pixels = rng.choice([0, 0, 1, 2, 2], SIZE).astype(np.uint8)
    pixels[5:30, 5:50] = 0
    for k in range(0, 24, 4):  # a snake
        pixels[5 + k, 5:50], pixels[5 + k : 10 + k, 49 if k % 8 else 5] = 1, 1
    seen, areas = np.zeros(SIZE, dtype=bool), []
    for start in zip(*np.nonzero(pixels), strict=True):
        waiting, area = ([] if seen[start] else [start]), 0
        while waiting:
            y, x = waiting.pop()
            if 0 <= y < SIZE[0] and 0 <= x < SIZE[1] and not seen[y, x] and pixels[y, x] == pixels[start]:
                seen[y, x], area = True, area + 1
                waiting += [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        areas += [area] if area else []
    parts, values = _parts(pixels)
    assert sorted(np.bincount(parts.ravel())[1:].tolist()) == sorted(areas)
    assert (np.append(0, values)[parts] == pixels).all()


@pytest.mark.parametrize("scale", [1.0, 0.31])
def test_soft_edges_are_refused(tmp_path: Path, scale: float) -> None:
    """Smoothed, resized, from JPEG and back, and JPEG itself; hard edges of many touching cells are not."""
    hard = discs(*THREE)
    small = Image.fromarray((255 * scale * hard).astype(np.uint8))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=90)
    faults = {
        "smoothed": (255 * scale * discs(*THREE, soft=2)).astype(np.uint8),
        "resized": np.asarray(small.resize((30, 20), Image.Resampling.BILINEAR)),
        "from_jpeg": np.asarray(Image.open(jpeg)),
    }
    for name, pixels in faults.items():
        save_mask(tmp_path / name, pixels)
        with pytest.raises(DataError, match=r"masks/a\.png: .* only along edges, as soft edges do"):
            to_coco("masks", tmp_path / name)
    save_mask(tmp_path / "jpeg", faults["smoothed"], "a.jpg")
    with pytest.raises(DataError, match=r"masks/a\.jpg: is JPEG"):
        to_coco("masks", tmp_path / "jpeg")


def test_cells_side_by_side_and_thin_lines_are_hard(tmp_path: Path) -> None:
    cells = 1 + np.arange(SIZE[0])[:, None] // 3 * 20 + np.arange(SIZE[1])[None] // 3
    save_mask(tmp_path, cells.astype(np.uint16))
    assert to_coco("masks", tmp_path).annotations == 14 * 20
    lines = np.zeros(SIZE, dtype=np.uint8)
    lines[::3] = np.arange(1, 15)[:, None]
    save_mask(tmp_path, lines)
    assert to_coco("masks", tmp_path).annotations == 14


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBA of colours", "LA", "clear LA", "P", "1", "colours"])
def test_masks_of_other_modes(tmp_path: Path, mode: str) -> None:
    """Two discs, grey or in colour, opaque, or told by the alpha channel alone; twice the same objects."""
    one, two = discs(THREE[0]) > 0, discs(THREE[1]) > 0
    grey = (100 * one + 255 * two).astype(np.uint8)
    colours = np.stack([grey, 90 * one, 0 * grey], axis=-1).astype(np.uint8)
    both = (255 * (one | two)).astype(np.uint8)
    opaque = np.full(SIZE, 255, dtype=np.uint8)
    pixels, areas = {
        "RGB": (np.stack([grey] * 3, axis=-1), 2),
        "colours": (colours, 2),
        "RGBA": (np.dstack([grey, grey, grey, opaque]), 2),
        "RGBA of colours": (np.dstack([colours + 7, both]), 2),
        "LA": (np.dstack([grey * 0, both]), 1),
        "clear LA": (np.dstack([grey, opaque * 0]), 2),
        "P": (grey, 2),
        "1": (both > 0, 1),
    }[mode]
    save_mask(tmp_path, pixels)
    if mode == "P":
        image = Image.fromarray(grey, "P")
        image.putpalette([5] * 768)
        image.save(tmp_path / "masks" / "a.png")
    content = json.loads(to_coco("masks", tmp_path).files[""].read_text())
    expected = [one.sum(), two.sum()] if areas == 2 else [(one | two).sum()]
    assert [each["area"] for each in content["annotations"]] == expected


def test_masks_of_several_pictures_and_of_soft_alpha(tmp_path: Path) -> None:
    mask = Image.fromarray((9 * discs(*THREE)).astype(np.uint8))
    save_mask(tmp_path, np.asarray(mask), "a.tif", save_all=True, append_images=[mask, mask])
    with pytest.raises(DataError, match=r"masks/a\.tif: holds 3 pictures, expected one mask"):
        to_coco("masks", tmp_path)
    (tmp_path / "masks" / "a.tif").unlink()
    alpha = (255 * discs(*THREE, soft=2)).astype(np.uint8)
    save_mask(tmp_path, np.dstack([alpha * 0] * 3 + [alpha]))
    with pytest.raises(DataError, match=r"masks/a\.png: its alpha channel has soft edges"):
        to_coco("masks", tmp_path)


@pytest.mark.parametrize(("size", "turned"), [((40, 60), (60, 40)), ((50, 50), (50, 50))])
def test_masks_of_photos_that_exif_turns(
    tmp_path: Path, size: tuple[int, int], turned: tuple[int, int]
) -> None:
    """Stored pixels or upright ones, by the size; where both fit, upright, and said."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for shape in (size, turned):
        root = tmp_path / str(shape)
        save_mask(root, np.eye(*shape, dtype=np.uint8)[:, ::-1] * (np.arange(shape[1]) > 20).astype(np.uint8))
        (root / "images" / "a.png").unlink()
        Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(root / "images" / "a.jpg", exif=exif)
        done = to_coco("masks", root)
        image = json.loads(done.files[""].read_text())["images"][0]
        assert (image["height"], image["width"]) == shape
        assert done.notes == (
            ["turned by EXIF, with a mask that fits both ways, so taken as upright: 1 image"]
            * (size == turned)
        )
        assert read_annotated(root / "images" / "a.jpg", shape, "a").size == shape[::-1]


def test_splits_two_masks_and_masks_alone(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        for number in range(2):
            picture(tmp_path / "images" / folder / f"{number}.jpg")
            path = tmp_path / "masks" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(discs(*THREE[: number + 1]).astype(np.uint8)).save(path)
    Image.fromarray(discs(*THREE).astype(np.uint8)).save(tmp_path / "masks" / "val" / "9.png")
    done = to_coco("masks", tmp_path)
    assert [path.name for path in done.files.values()] == ["instances_train.json", "instances_val.json"]
    assert done.notes[-1] == "left out: 1 file, masks without an image (masks/val/9.png)"
    (tmp_path / "masks" / "val" / "0.png").rename(tmp_path / "masks" / "val" / "1.tif")
    with pytest.raises(DataError, match=r"1\.jpg: masks/val/1.png and masks/val/1.tif have that name"):
        to_coco("masks", tmp_path)


def test_masks_are_offered_only_where_they_have_the_images_names(tmp_path: Path) -> None:
    picture(tmp_path / "Images" / "a.png")
    (tmp_path / "Masks").mkdir()
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[5:20, 5:20] = 1
    Image.fromarray(mask).save(tmp_path / "Masks" / "x.png")
    assert convert_hint(tmp_path) is None
    (tmp_path / "Masks" / "x.png").rename(tmp_path / "Masks" / "a.png")
    assert "botvision convert masks" in str(convert_hint(tmp_path))
    assert to_coco("masks", tmp_path).annotations == 1
