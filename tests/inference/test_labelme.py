"""Detections as LabelMe's JSON, and back through `convert labelme`."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from botvision.cli import main as cli
from botvision.coco.instances import Instances
from botvision.coco.masks import decode, encode, polygons_to_rles, rle_boxes
from botvision.data.convert.folder import to_coco
from botvision.detection.weights import save_detector
from botvision.inference.labelme import record, write_labelme
from botvision.inference.predictor import FileResult
from tests.inference.test_detector import CATEGORIES, network
from tests.terminal import complaint

SIZE = (120, 160)
CLASSES = ["disc", "ring"]


def drawn(kind: str, *corners: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    image = Image.new("L", size[::-1])
    getattr(ImageDraw.Draw(image), kind)(corners, fill=1)
    return np.asarray(image)


def found(*masks: np.ndarray, labels: list[int] | None = None) -> Instances:
    boxes = rle_boxes(encode(np.stack(masks))).astype(np.float32)
    scores = np.linspace(0.9, 0.6, len(masks)).astype(np.float32)
    return Instances(boxes, np.array(labels or [1] * len(masks)), scores, encode(np.stack(masks)), SIZE)


def back(tmp_path: Path, objects: Instances) -> tuple[list[dict[str, Any]], np.ndarray, list[str]]:
    """What `convert labelme` makes of it: annotations, masks, notes."""
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos" / "a.png"
    Image.new("RGB", SIZE[::-1]).save(photo)
    results = [FileResult(str(photo), objects, None)]
    assert list(write_labelme(results, tmp_path / "out", [photo], CLASSES, 0.5, Counter())) == results
    done = to_coco("labelme", tmp_path, tmp_path / "coco")
    content = json.loads((tmp_path / "coco").read_text())
    assert [image["file_name"] for image in content["images"]] == ["photos/a.png"]
    names = [each["name"] for each in content["categories"]]
    annotations = [{**each, "name": names[each["category_id"] - 1]} for each in content["annotations"]]
    shapes = [each["segmentation"] for each in annotations if "segmentation" in each]
    rles = [s if isinstance(s, dict) else polygons_to_rles([s], SIZE)[0] for s in shapes]
    return annotations, decode(rles, SIZE), done.notes


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_masks_come_back_within_a_pixel(tmp_path: Path) -> None:
    parts = drawn("rectangle", 2, 100, 30, 110) | drawn("ellipse", 60, 90, 90, 115)
    masks = [
        drawn("ellipse", 20, 10, 75, 60), drawn("rectangle", 100, 0, 159, 40), parts,
        drawn("polygon", 90, 50, 150, 60, 130, 100, 120, 70), drawn("point", 5, 5),
        drawn("line", 40, 70, 70, 100),
    ]  # fmt: skip
    annotations, pixels, notes = back(tmp_path, found(*masks, labels=[1, 2, 1, 2, 1, 2]))
    assert [each["name"] for each in annotations] == ["disc", "ring"] * 3
    for k, (mask, other) in enumerate(zip(masks, pixels, strict=True)):
        assert overlap(mask, other) >= (0.95 if k < 4 else 0.4), k
        grown = np.array([np.roll(mask, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)])
        assert not (other & ~grown.any(axis=0).astype(np.uint8)).any()
        assert not (grown.all(axis=0).astype(np.uint8) & ~other).any()
    for each, box in zip(annotations, rle_boxes(encode(np.stack(masks))), strict=True):
        x, y, width, height = each["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box, abs=1)
    assert notes == ["1 object of several shapes with one group_id"]


def test_smooth_outlines_need_few_points() -> None:
    large = record(found(drawn("ellipse", 5, 5, 150, 115)), CLASSES, "a.png", Counter())
    (shape,) = large["shapes"]
    assert 12 <= len(shape["points"]) <= 60
    assert (shape["label"], shape["description"], shape["group_id"]) == ("disc", "score 0.900", None)


def test_objects_with_holes_stay_masks(tmp_path: Path) -> None:
    ring = drawn("ellipse", 20, 10, 75, 60) ^ drawn("ellipse", 35, 25, 60, 45)
    counts = Counter[str]()
    (shape,) = record(found(ring), CLASSES, "a.png", counts)["shapes"]
    assert (shape["shape_type"], shape["points"]) == ("mask", [[20, 10], [75, 60]])
    assert counts == {"objects": 1, "with holes": 1}
    annotations, pixels, _ = back(tmp_path, found(ring, ring))
    assert (pixels == ring).all()
    assert annotations[0]["bbox"] == [20, 10, 56, 51]


def test_random_masks_come_back(tmp_path: Path) -> None:
    """Any mask at all: no part is lost, none is off by more than a pixel."""
    generator = np.random.default_rng(0)
    masks = []
    for k in range(12):
        noise = Image.fromarray(generator.integers(0, 256, (3 + 2 * k, 4 + 2 * k), dtype=np.uint8))
        masks.append((np.asarray(noise.resize(SIZE[::-1], Image.Resampling.BICUBIC)) > 150).astype(np.uint8))
    _, pixels, _ = back(tmp_path, found(*masks))
    for mask, other in zip(masks, pixels, strict=True):
        assert overlap(mask, other) > 0.85


def test_boxes_are_rectangles(tmp_path: Path) -> None:
    boxes = np.array([[1.25, 2, 30.5, 40], [5, 5, 9, 9]], np.float32)
    objects = Instances(boxes, np.array([2, 1]), np.array([0.75, 0.4], np.float32), None, SIZE)
    annotations, _, notes = back(tmp_path, objects)
    assert [(each["name"], each["bbox"]) for each in annotations] == [("ring", [1.25, 2, 29.25, 38])]
    assert "segmentation" not in annotations[0]
    assert notes == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each image has a file with what LabelMe asks for; moved beside the images, they are labels."""
    save_detector(network(), tmp_path / "run" / "model", classes=CLASSES, categories=CATEGORIES)
    photos, out = tmp_path / "photos", tmp_path / "out"
    (photos / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.png"):
        pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / name)
    (photos / "broken.png").write_bytes(b"no image")
    words = [
        "predict",
        str(tmp_path / "run"),
        str(photos),
        "--out",
        str(out),
        "--score",
        "0.01",
        "--device",
        "cpu",
    ]
    assert cli.main([*words, "--write", "labelme"]) == 0
    said = capsys.readouterr().out
    assert f"{out / 'labelme'}/" in said
    results = json.loads((out / "results.json").read_text())
    assert f"LabelMe: {len(results)} objects with a score of at least 0.01" in said
    assert sorted(path.relative_to(out) for path in out.rglob("labelme/**/*.json")) == [
        Path("labelme/a.json"), Path("labelme/deep/b.json")
    ]  # fmt: skip
    total = 0
    for name in ("a.jpg", "deep/b.png"):
        path = (out / "labelme" / name).with_suffix(".json")
        content = json.loads(path.read_text())
        assert {"version", "flags", "shapes", "imagePath", "imageData"} <= content.keys()
        assert (path.parent / content["imagePath"]).resolve() == (photos / name).resolve()
        assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (64, 80, None)
        for shape in content["shapes"]:
            assert isinstance(shape["group_id"], int | None)
            assert shape["label"] in CLASSES
        shutil.move(path, (photos / name).with_suffix(".json"))
        groups = [shape["group_id"] or (k,) for k, shape in enumerate(content["shapes"])]
        total += len(set(groups))
    assert total == len(results) > 0
    (photos / "broken.png").unlink()
    assert cli.main(["convert", "labelme", str(photos)]) == 0
    assert f"2 images with {total} objects" in capsys.readouterr().out


def test_a_classifier_writes_no_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text('{"task": "classify"}')
    said = complaint(capsys, "predict", str(tmp_path), "--write", "labelme")
    assert "--write" in said
    assert "is a classifier" in said
