"""Detection data sets: splits, targets, ground truth, and what happens to broken ones."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.coco.masks import boxes_of
from botvision.coco.read import read_coco
from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.config.schema import ConfigError
from botvision.data.detection import DetectionDataset, open_detection, open_detection_split
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError
from tests.coco.annotation_scene import scene, write_scene

DATA = Path(os.environ.get("BOTVISION_DATA", Path(__file__).parents[3] / "shared" / "data"))


def config(root: Path, **other: Any) -> DetectionDataConfig:
    values: dict[str, Any] = {"val_is_train": True, "image_size": 64}
    return DetectionDataConfig(root=str(root), **(values | other))


def check_target(image: torch.Tensor, target: dict[str, torch.Tensor], classes: int) -> None:
    """What every target must be."""
    count, (_, height, width) = len(target["boxes"]), image.shape
    assert (image.dtype, image.shape[0]) == (torch.uint8, 3)
    assert image.is_contiguous()
    assert (target["boxes"].shape, target["boxes"].dtype) == ((count, 4), torch.float32)
    assert (target["labels"].shape, target["labels"].dtype) == ((count,), torch.int64)
    assert (target["masks"].shape, target["masks"].dtype) == ((count, height, width), torch.uint8)
    assert (target["image_id"].shape, target["image_id"].dtype) == ((), torch.int64)
    if count:
        boxes = target["boxes"]
        assert boxes.min() >= 0
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes[:, [0, 2]].max() <= width
        assert boxes[:, [1, 3]].max() <= height
        assert 1 <= int(target["labels"].min()) <= int(target["labels"].max()) <= classes
        assert int(target["masks"].max()) == 1


def test_targets_of_evaluation_are_the_annotations(tmp_path: Path) -> None:
    write_scene(tmp_path)
    data = open_detection(config(tmp_path)).val
    assert (len(data), data.classes) == (3, ["boat", "sign", "kite"])
    assert [data.image_id(i) for i in range(3)] == [500, 30, 77]
    assert data.size_of(1) == (50, 30)
    assert data.name_of(0) == f"{tmp_path / 'train2017' / 'a.png'} (image id 500)"
    images, found, indices = data.__getitems__([(3, 0), (3, 1), (3, 2)])
    assert indices.tolist() == [0, 1, 2]
    assert found == [{"image_id": torch.tensor(number)} for number in (500, 30, 77)]  # no mask is drawn
    targets = [data.instances(index) for index in range(3)]
    for image, target in zip(images, targets, strict=True):
        check_target(image, target, 3)
    assert targets[0]["boxes"].tolist() == [[10.5, 4.25, 30.5, 14.25], [2, 20, 42, 38]]
    assert targets[0]["labels"].tolist() == [1, 3]  # no crowd
    assert int(targets[0]["masks"][1].sum()) == 20 * 10 + 12 * 10
    assert (len(targets[2]["boxes"]), targets[2]["masks"].shape) == (0, (0, 20, 20))
    pixels = np.asarray(Image.open(tmp_path / "train2017" / "b.png"))
    assert (images[1].permute(1, 2, 0).numpy() == pixels).all()


def test_ground_truth_holds_crowds_and_the_ids_of_the_file(tmp_path: Path) -> None:
    write_scene(tmp_path)
    truth = open_detection(config(tmp_path, limit=1)).val.ground_truth()
    assert [image["id"] for image in truth["images"]] == [500]
    assert [(record["id"], record["category_id"]) for record in truth["annotations"]] == [
        (1, 7),
        (2, 90),
        (3, 7),
    ]
    assert [record["iscrowd"] for record in truth["annotations"]] == [0, 0, 1]


@pytest.mark.parametrize("augment", ["none", "flip", "jitter"])
def test_training_is_a_function_of_seed_epoch_and_index(tmp_path: Path, augment: str) -> None:
    write_scene(tmp_path)
    chosen = config(tmp_path, augment=augment, color_jitter=0.2, scale_jitter=(0.3, 2.0))
    first, again = open_detection(chosen, seed=5).train, open_detection(chosen, seed=5).train
    other = open_detection(chosen, seed=6).train
    state = torch.get_rng_state()
    pairs = [(epoch, index) for epoch in range(6) for index in range(3)]
    images, targets, _ = first.__getitems__(pairs)
    backwards = again.__getitems__(pairs[::-1])
    assert torch.equal(torch.get_rng_state(), state)
    for image, target, same, same_target in zip(
        images, targets, backwards[0][::-1], backwards[1][::-1], strict=True
    ):
        check_target(image, target, 3)
        assert max(image.shape[1:]) <= 64
        assert torch.equal(image, same)
        assert all(torch.equal(values, same_target[key]) for key, values in target.items())
        assert torch.equal(target["boxes"], boxes_of(target["masks"]))
    shapes = {tuple(image.shape) for image in images}
    assert (len(shapes) > 3) == (augment == "jitter")
    others = other.__getitems__(pairs)[0]
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(images, others, strict=True))


def test_boxes_only_follow_the_view_and_masks_are_full_boxes(tmp_path: Path) -> None:
    content = scene()
    for record in content["annotations"]:
        del record["segmentation"]
    write_scene(tmp_path, content)
    data = open_detection(config(tmp_path, augment="flip", image_size=(50, 60))).train
    assert not data.has_masks
    mirrored = set()
    for epoch in range(8):
        image, target, _ = data[(epoch, 1)]
        check_target(image, target, 3)
        mirrored.add(tuple(target["boxes"][0].tolist()))
        assert int(target["masks"].sum()) == 200
    assert mirrored == {(1, 2, 11, 22), (19, 2, 29, 22)}


def test_a_val_file_of_its_own_is_read_against_the_training_categories(tmp_path: Path) -> None:
    write_scene(tmp_path)
    content = scene()
    content["categories"] = [{"id": 90, "name": "kite"}, {"id": 13, "name": "sign"}]
    content["annotations"] = [record for record in content["annotations"] if record["category_id"] != 7]
    write_scene(tmp_path, content, split="val")
    splits = open_detection(config(tmp_path, val_is_train=False))
    assert not splits.held_back
    assert splits.val.categories == splits.train.categories == splits.categories
    assert splits.val.instances(1)["labels"].tolist() == [2]
    alone = open_detection_split(config(tmp_path, val_is_train=False), "val", categories=splits.categories)
    assert alone.instances(0)["labels"].tolist() == [3]
    train = open_detection_split(config(tmp_path, val_is_train=False), "train")
    assert torch.equal(train[0][0], train.load(0))
    with pytest.raises(DataError, match="no test annotations such as"):
        open_detection_split(config(tmp_path), "test")
    with pytest.raises(DataError, match=r"category 7 \(boat\) is not among those of the training data"):
        open_detection_split(config(tmp_path), "train", categories=splits.categories[1:])


def many(root: Path, count: int = 40) -> None:
    """One JSON, images with and without annotations."""
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    images, annotations = [], []
    for number in range(count):
        file = f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / file)
        images.append({"id": 1000 - number, "file_name": file, "height": 20, "width": 20})
        if number % 4:
            record = {"id": number + 1, "image_id": 1000 - number, "category_id": 1, "bbox": [2, 2, 9, 9]}
            annotations.append(record | {"segmentation": [[2, 2, 11, 2, 11, 11]]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations" / "all.json").write_text(json.dumps(content))


def ids(data: DetectionDataset) -> list[int]:
    return [data.image_id(index) for index in range(len(data))]


def test_validation_is_held_back_by_image_id(tmp_path: Path) -> None:
    many(tmp_path)
    chosen = config(tmp_path, val_is_train=False)
    splits = open_detection(chosen, seed=1)
    assert (len(splits.train), len(splits.val), splits.held_back) == (34, 6, True)
    assert set(ids(splits.train)) | set(ids(splits.val)) == set(range(961, 1001))
    assert ids(open_detection(chosen, seed=2).val) == ids(splits.val)
    content = json.loads((tmp_path / "annotations" / "all.json").read_text())
    content["images"].reverse()
    (tmp_path / "annotations" / "all.json").write_text(json.dumps(content))
    assert sorted(ids(open_detection(chosen).val)) == sorted(ids(splits.val))
    with pytest.raises(DataError, match="no validation annotations"):
        open_detection(config(tmp_path, val_is_train=False, val_fraction=0.0))


def test_limits_take_annotated_images_spread_over_the_file(tmp_path: Path) -> None:
    many(tmp_path)
    assert ids(open_detection(config(tmp_path, limit=3)).train) == [999, 986, 973]
    most = open_detection(config(tmp_path, limit=35, limit_val=2))
    assert (len(most.train), len(most.val)) == (35, 2)
    assert int(most.train.source.annotated[most.train.indices].sum()) == 30
    assert len(open_detection(config(tmp_path, keep_empty=False)).train) == 30


def test_broken_data_are_refused_or_left_out(tmp_path: Path) -> None:
    content = scene()
    content["annotations"][1]["segmentation"] = [[1, 2, 3, 4, 5]]
    content["annotations"][0]["category_id"] = 999
    content["annotations"][2]["bbox"] = [1, 1, 0, 1]
    write_scene(tmp_path, content)
    with pytest.raises(
        DataError, match=r"annotation 4 of image 30: .* 999 \(and 1 more: see botvision check\)"
    ):
        open_detection(config(tmp_path))
    content["annotations"][1]["segmentation"] = scene()["annotations"][1]["segmentation"]
    path = write_scene(tmp_path, content)
    data = open_detection(config(tmp_path, skip_broken=True)).train
    assert [problem.annotation_id for problem in data.skipped] == [4, 2]
    assert data.instances(1)["boxes"].shape == (0, 4)
    (tmp_path / "train2017" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png \(image id 500\): no such file|999"):
        open_detection(config(tmp_path))
    with pytest.raises(DataError, match="no image has annotations that can be used"):
        open_detection(config(tmp_path, skip_broken=True))
    path.unlink()
    with pytest.raises(DataError, match="no COCO annotations"):
        open_detection(config(tmp_path))


def test_cached_images_are_the_same(tmp_path: Path) -> None:
    write_scene(tmp_path)
    plain, cached = (open_detection(config(tmp_path, cache=cache)).train for cache in ("none", "memory"))
    cached.cache_images()
    assert cached.cache is not None
    assert cached.cache.nbytes == 3 * (40 * 60 + 50 * 30 + 20 * 20)
    for index in range(3):
        assert torch.equal(plain[(2, index)][0], cached[(2, index)][0])
    small = open_detection(config(tmp_path, cache_bytes=1000)).train
    small.cache_images()
    assert small.cache is None


def test_generated_shapes(tmp_path: Path) -> None:
    chosen = DetectionDataConfig(source="generated", image_size=(64, 80), num_images=6, num_val_images=3)
    splits = open_detection(chosen)
    splits.train.cache_images()
    assert splits.train.verify()
    assert (len(splits.train), len(splits.val), len(splits.classes)) == (6, 3, 3)
    more = open_detection(dataclasses.replace(chosen, num_images=40)).train
    empty = [not len(more.instances(index)["labels"]) for index in range(40)]
    assert (~more.source.annotated).tolist() == empty
    assert any(empty)
    for index in range(6):
        image, target, _ = splits.train[(1, index)]
        check_target(image, target, 3)
    image, target = splits.val.load(1), splits.val.instances(1)
    check_target(image, target, 3)
    assert image.shape == (3, 64, 80)
    shapes = ShapesSource(0, "val", 3, 3, (64, 80), chosen.max_objects).instances(1)
    assert torch.equal(target["masks"], shapes["masks"])
    assert torch.equal(target["boxes"], shapes["boxes"])
    truth = splits.val.ground_truth()
    assert {record["image_id"] for record in truth["annotations"]} <= {1, 2, 3}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 0), ("val_fraction", 1.0), ("limit", 0), ("scale_jitter", (0.0, 1.0)),
        ("scale_jitter", (2.0, 1.0)), ("color_jitter", 2.0), ("num_classes", 7), ("std", (0.0, 1.0, 1.0)),
    ],
)  # fmt: skip
def test_impossible_values_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{key}: "):
        DetectionDataConfig(**{key: value})


def test_files_are_looked_for_in_the_usual_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root is not set"):
        open_detection(DetectionDataConfig())
    with pytest.raises(DataError, match="no such folder"):
        open_detection(config(tmp_path / "none"))
    write_scene(tmp_path / "a")
    deep = tmp_path / "a" / "of" / "my" / "holiday"
    deep.parent.mkdir(parents=True)
    (tmp_path / "a" / "train2017").rename(deep)
    with pytest.raises(DataError, match=r"none of its 3 images is in the usual .* data\.train_images"):
        open_detection(config(tmp_path / "a"))
    deep.rename(tmp_path / "a" / "pictures")
    assert len(open_detection(config(tmp_path / "a")).train) == 3
    assert len(open_detection(config(tmp_path / "a", train_images="pictures")).train) == 3
    with pytest.raises(DataError, match=r"no such folder.*data\.train_images"):
        open_detection(config(tmp_path / "a", train_images="photos"))
    other = tmp_path / "a" / "annotations" / "instances_train.json"
    other.write_bytes(other.with_name("instances_train2017.json").read_bytes())
    with pytest.raises(DataError, match=r"2 files could be meant .* data\.train_annotations"):
        open_detection(config(tmp_path / "a"))
    # As Roboflow exports: annotations beside the images.
    write_scene(tmp_path / "b")
    (tmp_path / "b" / "train2017").rename(tmp_path / "b" / "train")
    source = tmp_path / "b" / "annotations" / "instances_train2017.json"
    source.rename(tmp_path / "b" / "train" / "_annotations.coco.json")
    assert len(open_detection(config(tmp_path / "b")).train) == 3


@pytest.mark.skipif(not (DATA / "coco").is_dir(), reason="no shared/data/coco")
def test_real_photographs_with_their_masks() -> None:
    splits = open_detection(DetectionDataConfig(root=str(DATA / "coco"), scale_jitter=(0.1, 2.0)))
    assert (len(splits.train), len(splits.val), len(splits.classes), splits.held_back) == (343, 50, 80, False)
    for index in range(0, 343, 25):
        image, target, _ = splits.train[(index, index)]
        check_target(image, target, 80)
        assert max(image.shape) <= 512
    assert [image["id"] for image in splits.val.ground_truth()["images"]] == [
        image.id for image in read_coco(DATA / "coco" / "annotations" / "instances_val2017.json").images
    ]


@pytest.mark.skipif(not (DATA / "dsb2018").is_dir(), reason="no shared/data/dsb2018")
def test_real_nuclei_sixty_held_back() -> None:
    splits = open_detection(DetectionDataConfig(root=str(DATA / "dsb2018"), image_size=256))
    assert (len(splits.train), len(splits.val), splits.classes) == (340, 60, ["nucleus"])
    counts = np.bincount(splits.train.source.file.annotations.images)[splits.train.indices]
    image, target, _ = splits.train[(0, int(counts.argmax()))]
    check_target(image, target, 1)
    assert len(target["boxes"]) > 100


@pytest.mark.parametrize("config", [DataConfig, DetectionDataConfig])
def test_a_folder_that_drawn_images_would_not_use_is_refused(config: type[DataConfig | DetectionDataConfig]):
    with pytest.raises(
        ConfigError, match=r"^data\.root: photos is not used, since data\.source is generated"
    ):
        config(source="generated", root="photos")
