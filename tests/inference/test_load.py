"""A run in one's own code: what goes in, what comes out, and that it is what `predict` says."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import botvision as bv
from botvision.backbones.weights import save_model
from botvision.coco.masks import decode
from botvision.inference.detector import DetectionPredictor
from botvision.inference.load import LoadedClassifier, LoadedDetector
from botvision.inference.predictor import Predictor
from tests.inference.test_detector import GAPS, network, noise, predictor, tensor
from tests.inference.test_detector import run as run
from tests.inference.test_predictor import ChannelMeans
from tests.inference.test_predictor import predictor as colours


def detector(**options: Any) -> LoadedDetector:
    return LoadedDetector(predictor(GAPS, **options))


def classifier() -> LoadedClassifier:
    return LoadedClassifier(colours())


def test_an_image_of_any_kind(tmp_path: Path) -> None:
    """Files, pictures, arrays and tensors of one image give one result; a list gives a list."""
    image = noise(40, 60)
    image.save(tmp_path / "a.png")
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), image, np.asarray(image), tensor(image)]
    kinds.append(tensor(image).double() / 255)
    for loaded in (detector(), classifier()):
        alone: list[Any] = [loaded.predict(kind) for kind in kinds]
        for one, other in zip(alone, loaded.predict(kinds), strict=True):
            assert one.names == other.names == alone[0].names
            np.testing.assert_array_equal(one.scores, other.scores)
            np.testing.assert_array_equal(one.scores, alone[0].scores)
        assert [each.file for each in alone] == [str(tmp_path / "a.png")] * 2 + [None] * 4
        assert loaded.predict([]) == []


def test_a_detector() -> None:
    image, loaded = noise(48, 64), detector()
    found = loaded.predict(image)
    assert loaded.classes == ["disc", "ring"]
    assert loaded.model.training is False
    assert len(found) == len(found.boxes) == len(found.names) == 8
    assert found.boxes.shape == (8, 4)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [64, 48, 64, 48]).all()
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert found.names == [loaded.classes[k] for k in found.class_ids]
    assert found.masks is not None
    assert (found.masks.shape, found.masks.dtype) == ((8, 48, 64), bool)
    (wanted,) = predictor(GAPS).predict([image])
    records = found.to_coco(7)
    assert [each["label"] for each in wanted["detections"]] == found.names
    for record, other, mask in zip(records, wanted["detections"], found.masks, strict=True):
        assert (record["image_id"], record["category_id"]) == (7, other["category_id"])
        assert record["category_id"] in (3, 90)
        assert record["bbox"] == other["box"]
        assert (decode([record["segmentation"]], (48, 64))[0] == mask).all()
    for key, value in found.to_supervision().items():
        expected = {"xyxy": found.boxes, "mask": found.masks, "confidence": found.scores}
        if key in expected:
            np.testing.assert_array_equal(value, expected[key])
    assert found.to_supervision()["class_id"].tolist() == found.class_ids.tolist()
    assert found.to_supervision()["data"]["class_name"].tolist() == found.names
    assert found.plot(score=0).size >= image.size
    assert found.plot(score=0).tobytes() != found.plot(score=0.999).tobytes()


def test_a_result_is_one_line(tmp_path: Path) -> None:
    noise(48, 64).save(tmp_path / "a.png")
    found = detector().predict(tmp_path / "a.png")
    scored = zip(found.names[:3], found.scores[:3], strict=True)
    best = ", ".join(f"{name} {score:.2f}" for name, score in scored)
    assert repr(found) == f"Detections(8 objects in {tmp_path}/a.png: {best}, ...)"
    assert repr(detector(score_threshold=0.999999).predict(noise(48, 64))) == "Detections(0 objects)"


def test_a_detector_without_what_it_needs_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botvision.inference.detector", None)
    with pytest.raises(ImportError, match=r'a detector, which needs .*: pip install "botvision\[train\]"$'):
        bv.load(run)


def test_a_detector_that_finds_nothing_and_one_without_masks() -> None:
    nothing = detector(score_threshold=0.999).predict(noise(40, 60))
    assert (len(nothing), nothing.boxes.shape, nothing.names) == (0, (0, 4), [])
    assert nothing.masks is not None
    assert nothing.masks.shape == (0, 40, 60)
    assert nothing.to_coco() == []
    description = {"name": "botnet14_tiny", "task": "detect", "categories": GAPS}
    boxes = LoadedDetector(DetectionPredictor(network(masks=False), description, device="cpu"))
    found = boxes.predict(noise(40, 60))
    assert found.masks is found.to_supervision()["mask"] is None
    assert len(found) > 0


def test_a_classifier() -> None:
    found = classifier().predict(Image.new("RGB", (20, 10), "#0000ff"))
    assert found.names[0] == "blue"
    assert sorted(found.names) == ["blue", "green", "red"]
    assert found.class_ids[0] == 2
    assert found.scores.sum() == pytest.approx(1)
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert found.plot().width > 256


def test_runs_are_loaded_from_their_folders(run: Path, tmp_path: Path) -> None:
    assert isinstance(bv.load(run, device="cpu"), LoadedDetector)
    few: Any = bv.load(str(run / "model"), device="cpu", max_detections=2, score_threshold=0.0)
    assert len(few.predict(noise(40, 60))) == 2
    net = bv.create_model("botnet14_tiny", num_classes=2, img_size=32)
    description = {"image_size": [32, 32], "mean": [0.5] * 3, "std": [0.2] * 3}
    described = {"classes": ["cat", "dog"], "task": "classify", **description}
    arguments = {"num_classes": 2, "img_size": 32}
    save_model(net, tmp_path / "c" / "model", "botnet14_tiny", arguments, **described)
    loaded: Any = bv.load(tmp_path / "c", device="cpu")
    result = loaded.predict(noise(32, 32))
    (expected,) = Predictor.from_run(tmp_path / "c", device="cpu").predict([noise(32, 32)])
    assert result.names == [each["label"] for each in expected["top"]]
    with pytest.raises(ValueError, match="a classifier, which has no score_threshold"):
        bv.load(tmp_path / "c", score_threshold=0.5)
    with pytest.raises(ValueError, match="nowhere: no such run folder"):
        bv.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(1, 8, 8), r"tensor of shape \(1, 8, 8\) and torch.float32, expected \(3, H, W\)"),
        (torch.randn(3, 8, 8), "outside 0 to 1: is it normalised"),
        (torch.full((3, 8, 8), float("nan")), "outside 0 to 1"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "and torch.int64, expected"),
        (3, "int is not an image"),
    ],
)
def test_what_is_no_image(image: Any, message: str) -> None:
    for loaded in (detector(), LoadedClassifier(Predictor(ChannelMeans(), colours().description))):
        with pytest.raises(ValueError, match=message):
            loaded.predict(image)
