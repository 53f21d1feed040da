"""What exports of label tools bring: boxes a little outside their image, left and right as classes."""

from pathlib import Path

import pytest
import torch

from botvision.coco.masks import boxes_of
from botvision.config.data import DetectionDataConfig
from botvision.data.detection import open_detection
from tests.coco.annotation_scene import scene, write_scene
from tests.data.test_detection import DATA, check_target, config


def test_a_box_a_little_outside_is_clipped_in_targets_and_measured_as_in_the_file(tmp_path: Path) -> None:
    content = scene()
    box, outline = [-1.5, 30, 19.5, 11.5], [-1.5, 30, 18, 30, 18, 41.5, -1.5, 41.5]
    content["annotations"][1] |= {"bbox": box, "segmentation": [outline]}
    content["annotations"][2] |= {"bbox": [50, -2, 12, 6], "segmentation": [[50, -2, 62, -2, 62, 4, 50, 4]]}
    write_scene(tmp_path, content)
    splits = open_detection(config(tmp_path, augment="none"))
    line = str(tmp_path / "annotations" / "instances_train2017.json") + (
        ": 2 boxes reach up to 2.0 pixels outside the image (annotation 1 of image 500 the first): "
        "clipped for training, measured as in the file"
    )
    assert (splits.train.notes, splits.train.skipped) == ([line], [])
    target = splits.train.instances(0)
    assert target["boxes"].tolist() == [[0, 30, 18, 40], [50, 0, 60, 4]]
    assert boxes_of(target["masks"]).tolist() == [[0, 30, 18, 40], [50, 0, 60, 4]]
    assert [int(mask.sum()) for mask in target["masks"]] == [18 * 10, 10 * 4]
    image, moved, _ = splits.train[(0, 0)]
    check_target(image, moved, 3)
    assert splits.val.ground_truth()["annotations"][0]["bbox"] == box


SIDED = [{"id": 90, "name": "left_door"}, {"id": 7, "name": "Right Door"}, {"id": 13, "name": "hood"}]


def test_flips_of_classes_that_are_left_and_right_are_spoken_of(tmp_path: Path) -> None:
    write_scene(tmp_path, scene() | {"categories": SIDED})
    assert open_detection(config(tmp_path)).train.notes == [
        "left and right are classes of their own (Right Door, left_door), and a mirrored image has the wrong "
        "ones: switch mirroring off with --data.flip false"
    ]
    for other in ({"flip": False}, {"augment": "none"}):
        assert open_detection(config(tmp_path, **other)).train.notes == []
    write_scene(tmp_path / "b")
    assert open_detection(config(tmp_path / "b")).train.notes == []


@pytest.mark.skipif(not (DATA / "car_parts").is_dir(), reason="no shared/data/car_parts")
def test_real_car_parts_are_taken_as_they_are() -> None:
    splits = open_detection(DetectionDataConfig(root=str(DATA / "car_parts"), flip=False))
    (note,) = splits.train.notes
    assert "5 boxes reach up to 1.8 pixels outside" in note
    boxes = [splits.train.instances(index)["boxes"] for index in range(len(splits.train))]
    sizes = [splits.train.size_of(index) for index in range(len(splits.train))]
    assert sum(map(len, boxes)) == 2724
    for found, (height, width) in zip(boxes, sizes, strict=True):
        assert (found >= 0).all()
        assert (found <= torch.tensor([width, height] * 2)).all()
    records = {record["id"]: record for record in splits.train.ground_truth()["annotations"]}
    assert records[1084]["bbox"] == [261.7, -1.8, 250.0, 78.7]
