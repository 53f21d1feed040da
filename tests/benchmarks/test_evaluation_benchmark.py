"""The benchmark of the evaluation evaluates the same with both, and says what it measured."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hotcoco import mask as rle

import evaluation
import shared_data
from evaluation import PARTS, Scene, body, contenders, difference, multiplied, repeated, shifted, threads
from tests.coco.scenes import random_scene

DATA = Path(os.environ.get("BOTVISION_DATA") or Path(__file__).parents[3] / "shared" / "data")
with_data = pytest.mark.skipif(
    not (DATA / evaluation.REFERENCE).is_dir(), reason="no shared/data/coco_eval_ref"
)


def scene() -> Scene:
    made = random_scene(3)
    return Scene(made.truth, made.results)


@pytest.mark.parametrize("part", PARTS)
def test_contenders_give_equal_numbers(part: str, tmp_path: Path) -> None:
    many = repeated(multiplied(scene(), 3, np.random.default_rng(0)), 2, np.random.default_rng(1))
    runs = contenders(many, part, tmp_path)
    assert list(runs) == ["ours", "pycocotools"]
    assert len(runs["ours"]()) == 12
    assert difference(runs) <= evaluation.TOLERANCE
    assert difference(runs) <= evaluation.TOLERANCE  # no contender has changed what the next run reads
    runs["ours"] = lambda: [0.5] * 12
    assert difference(runs) > 0.01


def test_copies_are_images_of_their_own_with_other_scores() -> None:
    few = scene()
    many = repeated(few, 3, np.random.default_rng(0))
    assert [image["id"] for image in many.truth["images"]] == list(range(1, 3 * len(few.truth["images"]) + 1))
    assert len(many.truth["annotations"]) == 3 * len(few.truth["annotations"])
    assert len({record["id"] for record in many.truth["annotations"]}) == len(many.truth["annotations"])
    first, last = (many.results[k * len(few.results)] for k in (0, 2))
    assert first["image_id"] + 2 * len(few.truth["images"]) == last["image_id"]
    assert first["bbox"] == last["bbox"]
    assert first["score"] != last["score"]


def test_a_result_is_moved_with_box_and_mask() -> None:
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[5:9, 20:28] = 1
    encoded = rle.encode(mask)
    segmentation = {"size": [20, 30], "counts": encoded["counts"].decode()}
    record = {"image_id": 1, "bbox": [20, 5, 8, 4], "segmentation": segmentation}
    moved = shifted(record, 4, -3)
    assert moved["bbox"] == [24, 2, 8, 4]
    assert rle.to_bbox([moved["segmentation"]]).tolist() == [[24, 2, 6, 4]]  # what leaves the image is lost
    assert shifted(record, 0, 0) == record


@with_data
def test_smoke_run(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--smoke", "--seconds", "0.1", "--out", str(tmp_path)])
    evaluation.main()
    rows = list(csv.DictReader((tmp_path / "evaluation.csv").read_text().splitlines()))
    assert [row["part"] for row in rows] == list(PARTS)
    for row in rows:
        assert (row["images"], row["detections"]) == ("100", "734")
        assert all(
            0 < float(row[name]) < math.inf
            for name in ("ours, ms", "pycocotools, ms", "times faster", "matching alone, ms")
        )
        assert float(row["largest difference"]) <= evaluation.TOLERANCE
    text = (tmp_path / "evaluation.md").read_text()
    assert text.rstrip().endswith(capsys.readouterr().out.rstrip())
    assert json.loads((tmp_path / "evaluation.json").read_text())["environment"]["commit"]


def test_what_was_asked() -> None:
    row = {
        "images": 2000, "detections": 5, "part": "bbox", "ours, ms": 80.0, "times faster": 9.96,
        "matching alone, ms": 20.0, "matching alone, times faster": 39.84,
    }  # fmt: skip
    text = body([row, row | {"times faster": 10.04}])
    assert "| 2000 images, 5 detections, bbox: times faster | 10.0 | >= 10 | no |" in text
    assert "| 2000 images, 5 detections, bbox: times faster | 10.0 | >= 10 | yes |" in text
    assert "| 5 detections, bbox | 80 | 25% | 10.0 | 39.8 |" in text


def test_threads_are_those_that_hotcoco_may_use(monkeypatch) -> None:
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert threads() == "1"
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert threads() == "6"
    monkeypatch.setenv("RAYON_NUM_THREADS", "2")
    assert threads() == "2"


def test_without_data_there_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("BOTVISION_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--smoke", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        evaluation.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no {evaluation.REFERENCE} in BOTVISION_DATA={tmp_path}" in line
    assert shared_data.BESIDE.name == "data"
