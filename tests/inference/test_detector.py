"""Detectors in use: what they find equals torchvision's own forward; files, bad files, COCO results."""

import dataclasses
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.cli import main as cli
from botvision.coco.annotations import Category, ImageRecord
from botvision.coco.evaluate import evaluate_coco
from botvision.coco.masks import decode
from botvision.config.detector import DetectorOptions
from botvision.data.synthetic.shapes import ShapesSource
from botvision.detection import masks
from botvision.detection.mask_rcnn import mask_rcnn
from botvision.detection.weights import save_detector
from botvision.inference.detector import DetectionPredictor, Truth
from botvision.inference.predictor import Predictor
from botvision.inference.writers import write_detections
from tests.terminal import complaint

CATEGORIES = [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}]
OPTIONS = DetectorOptions(
    heads="light", channels=16, box_channels=16, mask_convs=1, score_threshold=0.0, detections=8
)
ARGUMENTS = {"img_size": 64}
GAPS = [{"id": 3, "name": "disc"}, {"id": 90, "name": "ring"}]


def network(**changes):
    torch.manual_seed(0)
    options = dataclasses.replace(OPTIONS, **changes)
    return mask_rcnn("botnet14_tiny", 2, options, image_size=64, backbone_args=ARGUMENTS).eval()


def predictor(categories=CATEGORIES, **options):
    description = {"name": "botnet14_tiny", "task": "detect", "categories": categories}
    return DetectionPredictor(network(), description, device="cpu", batch_size=2, **options)


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture
def photos(tmp_path):
    """Two shapes, a file that is no image, another shape; and their truth."""
    source = ShapesSource(0, "val", 3, 2, (64, 80), 3)
    truth = source.export(tmp_path / "data")
    folder = tmp_path / "data" / "val"
    (folder / "broken.png").write_bytes(b"no image")
    return folder, truth


@pytest.fixture
def run(tmp_path):
    """A run folder, as training leaves it."""
    folder = tmp_path / "run"
    classes = [str(each["name"]) for each in CATEGORIES]
    save_detector(network(), folder / "model", classes=classes, categories=CATEGORIES)
    return folder


def test_detections_are_those_of_the_network_itself(monkeypatch):
    monkeypatch.setattr(masks, "PIXELS_AT_ONCE", 3 * 50 * 90)  # three masks at a time
    images = [noise(50, 90), noise(120, 40, 1), noise(64, 64, 2)]
    results = predictor(GAPS).predict(images)
    with torch.no_grad():
        expected = [network()([tensor(image)])[0] for image in images]
    for image, result, wanted in zip(images, results, expected, strict=True):
        assert result["size"] == [image.height, image.width]
        assert len(result["detections"]) == len(wanted["scores"]) == 8
        for k, found in enumerate(result["detections"]):
            x, y, width, height = found["box"]
            assert np.allclose([x, y, x + width, y + height], wanted["boxes"][k], atol=0.03)
            assert found["score"] == pytest.approx(wanted["scores"][k].item(), abs=1e-4)
            assert found["category_id"] == {"disc": 3, "ring": 90}[found["label"]]
            mask = decode([found["mask"]], (image.height, image.width))[0]
            assert (mask != (wanted["masks"][k, 0] > 0.5).numpy()).mean() < 1e-3


def test_boxes_alone():
    description = {"categories": CATEGORIES}
    found = DetectionPredictor(network(masks=False), description, device="cpu").predict([noise(64, 64)])
    assert set(found[0]["detections"][0]) == {"label", "category_id", "score", "box"}


def test_threshold_and_number_of_detections():
    most = predictor(max_detections=3).predict([noise(64, 64)])[0]["detections"]
    assert len(most) == 3
    scores = [found["score"] for found in predictor().predict([noise(64, 64)])[0]["detections"]]
    assert scores == sorted(scores, reverse=True)
    middle = (scores[3] + scores[4]) / 2
    assert len(predictor(score_threshold=middle).predict([noise(64, 64)])[0]["detections"]) == 4
    assert predictor(score_threshold=0.999).predict([noise(64, 64)])[0]["detections"] == []


def test_paths_arrays_and_other_modes(tmp_path):
    noise(64, 64).save(tmp_path / "a.png")
    results = predictor().predict([tmp_path / "a.png", np.array(noise(64, 64)), noise(64, 64).convert("L")])
    assert [result["file"] for result in results] == [str(tmp_path / "a.png"), None, None]
    for one, other in zip(results[0]["detections"], results[1]["detections"], strict=True):
        assert one["box"] == pytest.approx(other["box"], abs=0.02)
    with pytest.raises(ValueError, match="not an image"):
        predictor().predict([3])  # pyrefly: ignore


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"score_threshold": 1.5}, "score threshold is 1.5"),
        ({"max_detections": 0}, "most detections of an image is 0"),
        ({"device": "abacus"}, "device: expected auto, cpu"),
    ],
)
def test_impossible_options(options, words):
    given: dict[str, Any] = {"device": "cpu", **options}
    with pytest.raises(ValueError, match=words):
        DetectionPredictor(network(), {"categories": CATEGORIES}, **given)


@pytest.mark.parametrize("description", [{}, {"categories": []}, {"categories": [{"id": 1}]}])
def test_a_description_without_categories(description):
    with pytest.raises(ValueError, match="categor"):
        DetectionPredictor(network(), description, device="cpu")


def test_files_are_written_as_coco_has_them(tmp_path, photos):
    folder, truth_file = photos
    files = sorted(folder.iterdir())
    model, out = predictor(), tmp_path / "out"
    images = Truth.read(truth_file).find(files)
    ids = {file: image.id for file, image in images.items()} | {folder / "broken.png": -1}
    found = model.predict_files(files, keep_pictures=True)
    seen = list(write_detections(found, out, files, model.description, image_ids=ids, drawn=0.0))
    assert [each.error is not None for each in seen] == [file.name == "broken.png" for file in files]
    results = json.loads((out / "results.json").read_text())
    assert len(results) == 3 * 8
    assert {record["image_id"] for record in results} == {1, 2, 3}
    truth = json.loads(truth_file.read_text())
    for kind in ("bbox", "segm"):
        assert evaluate_coco(truth, results, kind).images == 3
    listing = json.loads((out / "results-images.json").read_text())
    assert [image["id"] for image in listing["images"]] == [1, 2, 3]
    assert (listing["images"][0]["height"], listing["images"][0]["width"]) == (64, 80)
    assert listing["categories"] == CATEGORIES
    readable = json.loads((out / "predictions.json").read_text())
    assert len(readable["predictions"]) == 3
    assert len(readable["failed"]) == 1
    for row in readable["predictions"]:
        assert Image.open(out / row["picture"]).size == (768, 614)
        assert "mask" not in row["detections"][0]


def test_nothing_is_left_behind_by_an_interruption(tmp_path, photos):
    files = sorted(photos[0].glob("[!b]*.png"))
    model, out = predictor(), tmp_path / "out"
    writing = cast(Generator, write_detections(model.predict_files(files), out, files, model.description))
    next(writing)
    writing.close()
    assert list(out.iterdir()) == []


def test_no_image_at_all_is_valid_json(tmp_path):
    assert list(write_detections([], tmp_path, [], {"categories": CATEGORIES})) == []
    assert json.loads((tmp_path / "results.json").read_text()) == []
    assert json.loads((tmp_path / "results-images.json").read_text())["images"] == []
    assert json.loads((tmp_path / "predictions.json").read_text())["failed"] == []


def test_boxes_of_a_large_image_are_drawn_in_its_picture(tmp_path):
    noise(1000, 2000).save(tmp_path / "large.png")
    (found,) = predictor().predict_files([tmp_path / "large.png"], keep_pictures=True)
    assert found.picture is not None
    assert found.picture.size == (1600, 800)
    assert found.found is not None
    assert found.found.size == (1000, 2000)  # what the boxes are pixels of


def test_truth_is_found_by_the_end_of_the_path(tmp_path):
    images = {"val/a.png": ImageRecord(7, "val/a.png", 0, 0), "b.png": ImageRecord(8, "b.png", 0, 0)}
    truth = Truth("t.json", images, {1: "disc", 2: "ring"})
    files = [tmp_path / "val" / "a.png", tmp_path / "b.png", tmp_path / "a.png"]
    assert truth.find(files) == dict(zip(files, images.values(), strict=False))
    with pytest.raises(ValueError, match="but so is"):
        truth.find([tmp_path / "x" / "b.png", tmp_path / "b.png"])
    assert truth.compare([Category(1, "disc"), Category(2, "Ring ")]) == []
    assert truth.compare([Category(1, "disc"), Category(3, "square")]) == ["square"]
    with pytest.raises(ValueError, match="none of the model's 1 categories is listed"):
        truth.compare([Category(3, "disc")])
    with pytest.raises(ValueError, match="category 1 is 'disc', the model's 'square'"):
        truth.compare([Category(1, "square")])


def test_categories_of_other_ids_get_those_of_the_truth():
    truth = Truth("t.json", {}, {7: "disc", 1: "Ring"})
    model = [Category(1, "disc"), Category(2, "ring"), Category(3, "star")]
    numbered = truth.numbered(model)
    assert numbered == [Category(7, "disc"), Category(1, "ring"), Category(10, "star")]
    assert truth.compare(numbered) == ["star"]
    same = [Category(7, "disc"), Category(2, "star")]
    assert truth.numbered(same) == same


def test_names_of_a_truth_may_have_backslashes(tmp_path):
    images = [{"id": 3, "file_name": "val\\a.png"}, {"id": 4, "file_name": "val\\b.png"}]
    (tmp_path / "t.json").write_text(
        json.dumps({"images": images, "categories": [{"id": 1, "name": "disc"}]})
    )
    files = [tmp_path / "val" / "b.png", tmp_path / "val\\a.png", tmp_path / "c.png"]
    found = Truth.read(tmp_path / "t.json").find(files)
    assert [(file, image.id) for file, image in found.items()] == [(files[0], 4), (files[1], 3)]


def test_names_of_a_truth_may_differ_in_case_and_unicode_form(tmp_path):
    names = ["caf\u00e9.png", "B.PNG", "c.png", "C.png"]
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    (tmp_path / "t.json").write_text(
        json.dumps({"images": images, "categories": [{"id": 1, "name": "disc"}]})
    )
    files = [tmp_path / name for name in ("cafe\u0301.png", "b.png", "C.PNG", "c.png")]
    found = Truth.read(tmp_path / "t.json").find(files)
    assert [(file, image.id) for file, image in found.items()] == [
        (files[0], 0),
        (files[1], 1),
        (files[3], 2),
    ]


def test_images_of_the_truth_that_are_not_given_are_counted(capsys, tmp_path, run, photos):
    folder, truth = photos
    one = json.loads(truth.read_text())["images"][0]["file_name"]
    words = ["predict", str(run), str(folder / one), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert cli.main([*words, "--truth", str(truth), "--no-pictures"]) == 0
    line = f"2 of 3 images of {truth} are not among the files (first: "
    err = capsys.readouterr().err
    assert line in err
    assert "their objects will count as missed" in err


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"images": [{}], "categories": []}', '{"images": 3}'),
        '{"images": [{"id": 1}], "categories": []}',
    ],
)
def test_a_broken_truth_is_one_line(tmp_path, text):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"truth\.json: .*(JSON|expected)"):
        Truth.read(path)


def test_the_command(capsys, tmp_path, run, photos):
    folder, truth = photos
    out = tmp_path / "out"
    words = ["predict", str(run), str(folder), "--out", str(out), "--device", "cpu"]
    assert cli.main([*words, "--score", "0.01"]) == 0
    captured = capsys.readouterr()
    assert "4 files: 3 searched, 1 could not be read" in captured.out
    assert captured.err.count("\n") == 1
    assert "broken.png" in captured.err
    assert len(list((out / "pictures").glob("*.jpg"))) == 3
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    said = complaint(capsys, *words)
    assert said == f"{out}: holds predictions.json and results.json already; --out {out}-2 is new"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    out = tmp_path / "others"
    words[4] = str(out)
    assert cli.main([*words, "--truth", str(truth), "--no-pictures", "--max-detections", "2"]) == 0
    captured = capsys.readouterr()
    assert "broken.png: no image of" in captured.err
    assert "next: botvision eval" in captured.out
    results = json.loads((out / "results.json").read_text())
    assert len(results) == 6
    assert cli.main(["eval", str(out / "results.json"), "--truth", str(truth)]) == 0


def test_images_lie_as_their_truth_says(capsys, tmp_path, run, photos):
    folder, truth = photos
    content = json.loads(truth.read_text())
    turned, wrong = (folder / image["file_name"] for image in content["images"][:2])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: upright 80 x 64, annotated as stored, 64 x 80
    plain = Image.open(turned).copy()
    plain.save(turned, exif=exif)
    noise(70, 80).save(wrong)
    content["images"][2] = {key: content["images"][2][key] for key in ("id", "file_name")}  # no size: upright
    truth.write_text(json.dumps(content))
    out = tmp_path / "out"
    words = ["predict", str(run), str(folder), "--out", str(out), "--device", "cpu", "--truth", str(truth)]
    assert cli.main([*words, "--batch", "3"]) == 0
    captured = capsys.readouterr()
    size = "70 x 80 pixels (height x width), but its annotations say 64 x 80"
    assert f"{wrong} (image id 2): {size}" in captured.err
    assert "3 files: 2 searched, 1 could not be read" in captured.out
    results = json.loads((out / "results.json").read_text())
    assert {record["image_id"] for record in results} == {1, 3}
    (wanted,) = DetectionPredictor.from_run(run, device="cpu").predict([plain])
    found = [record for record in results if record["image_id"] == 1]
    assert [r["segmentation"] for r in found] == [d["mask"] for d in wanted["detections"]]
    with Image.open(out / "pictures" / f"{turned.stem}.jpg") as picture:
        assert picture.width > picture.height


def test_samples_of_the_run_beside_their_truth(capsys, tmp_path, run):
    config = """
task: detect
recipe: shapes
model: {name: botnet14_tiny}
data: {source: generated, image_size: 64, num_images: 4, num_val_images: 4, num_classes: 2}
"""
    (run / "config.yaml").write_text(config)
    out = tmp_path / "out"
    words = ["predict", str(run), "--out", str(out), "--samples", "3", "--device", "cpu", "--score", "0.01"]
    assert cli.main(words) == 0
    assert "sheet.png" in capsys.readouterr().out
    assert Image.open(out / "sheet.png").width > 700
    assert len(list((out / "images").glob("*.png"))) == 3
    for name in ("predictions.json", "results.json", "results-images.json", "sheet.png"):
        (out / name).unlink()
    assert "holds pictures and images already" in complaint(capsys, *words)


def test_mistakes_are_one_line(capsys, tmp_path, run, photos):
    folder, truth = photos
    words = ["predict", str(run), str(folder), "--out", str(tmp_path / "out")]
    assert "--topk" in complaint(capsys, *words, "--topk", "3")
    assert "--score: " in complaint(capsys, *words, "--score", "2")
    assert "expected PATH" in complaint(capsys, "predict", str(run), "--truth", str(truth))
    assert "name the images to use" in complaint(capsys, "predict", str(run), "--out", str(tmp_path / "out"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"images": [], "categories": CATEGORIES}))
    assert "none of the 4 files" in complaint(capsys, *words, "--truth", str(other))
    with pytest.raises(ValueError, match="a detector, not a classifier"):
        Predictor.from_run(run)
    (Path(run) / "model" / "model.json").write_text("{}")
    assert complaint(capsys, *words)
