"""Ground truth, read by `data`, written as results and evaluated, is perfect: nothing shifts on the way."""

import json
import os
from pathlib import Path

import pytest
import torch

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.instances import Instances
from botvision.config.data import DetectionDataConfig
from botvision.data.detection import DetectionDataset, open_detection_split

DATA = Path(os.environ.get("BOTVISION_DATA") or Path(__file__).parents[3] / "shared" / "data")


def perfect_results(data: DetectionDataset) -> list[dict]:
    """Every object as its own detection, through JSON."""
    ids = [category.id for category in data.categories]
    records = []
    for index in range(len(data)):
        found = data.instances(index)
        scores = torch.ones(len(found["labels"]))
        records += Instances.of(found | {"scores": scores}).records(data.image_id(index), ids)
    return json.loads(json.dumps(records))


@pytest.mark.skipif(not (DATA / "coco").is_dir(), reason="no COCO images: set BOTVISION_DATA")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_ground_truth_of_coco_fed_back(kind):
    data = open_detection_split(DetectionDataConfig(root=str(DATA / "coco")), "val", seed=0)
    metrics = evaluate_coco(data.ground_truth(), perfect_results(data), kind)
    file = json.loads((DATA / "coco" / "annotations" / "instances_val2017.json").read_text())
    objects = sum(not annotation["iscrowd"] for annotation in file["annotations"])
    assert (metrics.images, metrics.instances) == (len(file["images"]), objects)
    assert metrics.numbers() | {"ar1": 1, "ar10": 1} == pytest.approx(dict.fromkeys(metrics.numbers(), 1))


@pytest.mark.skipif(not (DATA / "dsb2018").is_dir(), reason="no nuclei: set BOTVISION_DATA")
def test_ground_truth_of_nuclei_needs_as_many_detections_as_there_are():
    config = DetectionDataConfig(root=str(DATA / "dsb2018"), val_is_train=True, limit=40, limit_val=40)
    data = open_detection_split(config, "val", seed=0)
    records = perfect_results(data)
    most = max(sum(r["image_id"] == data.image_id(i) for r in records) for i in range(len(data)))
    assert evaluate_coco(data.ground_truth(), records, "segm", most).ap == pytest.approx(1)
    assert evaluate_coco(data.ground_truth(), records, "segm", most // 2).ap < 0.99


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_ground_truth_of_generated_shapes_fed_back(kind):
    config = DetectionDataConfig(source="generated", image_size=128, num_images=4, num_val_images=20)
    data = open_detection_split(config, "val", seed=0)
    metrics = evaluate_coco(data.ground_truth(), perfect_results(data), kind)
    assert (metrics.ap, metrics.ar_max) == pytest.approx((1, 1))
