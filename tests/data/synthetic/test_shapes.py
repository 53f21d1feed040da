"""Drawn shapes: what the annotations say is what the pictures show."""

import json
from pathlib import Path

import hotcoco
import numpy as np
import pytest
import torch
from PIL import Image

from botvision.data.synthetic.shapes import CLASSES, ShapesSource
from botvision.io.errors import DataError


def shapes(count: int = 60, **changes: object) -> ShapesSource:
    settings = {"seed": 3, "split": "train", "num_classes": 6, "size": (96, 128), "max_objects": 5} | changes
    return ShapesSource(count=count, **settings)  # type: ignore[arg-type]


def test_an_image_depends_on_seed_split_and_index_alone() -> None:
    one, many = shapes(), shapes(count=500)
    for index in (7, 3, 7):
        assert torch.equal(one.load(index), many.load(index))
        assert all(torch.equal(one.instances(index)[k], many.instances(index)[k]) for k in ("boxes", "masks"))
    for other in (shapes(seed=4), shapes(split="val")):
        assert not torch.equal(one.load(0), other.load(0))


def test_types_and_that_boxes_surround_the_visible_pixels() -> None:
    source = shapes()
    for index in range(len(source)):
        image, objects = source.load(index), source.instances(index)
        boxes, labels, masks = objects["boxes"], objects["labels"], objects["masks"]
        assert image.shape == (3, 96, 128)
        assert image.dtype == torch.uint8
        assert (boxes.dtype, labels.dtype, masks.dtype) == (torch.float32, torch.int64, torch.uint8)
        assert boxes.shape == (len(labels), 4)
        assert masks.shape == (len(labels), 96, 128)
        assert masks.sum(dim=0).le(1).all(), "a pixel belongs to two objects"
        for (left, top, right, bottom), mask in zip(boxes.int().tolist(), masks, strict=True):
            y, x = mask.nonzero(as_tuple=True)
            assert (left, top, right, bottom) == (x.min(), y.min(), x.max() + 1, y.max() + 1)


def test_number_sizes_and_classes_vary() -> None:
    source = shapes(count=400, size=(128, 128))
    objects = [source.instances(index) for index in range(400)]
    numbers = np.bincount([len(o["labels"]) for o in objects])
    assert len(numbers) == 6
    assert numbers.min() > 0
    assert numbers[0] < 60
    areas = torch.cat([o["masks"].sum(dim=(1, 2)) for o in objects])
    assert areas.min() > 60
    shares = [((areas >= low) & (areas < high)).float().mean() for low, high in ((0, 1024), (1024, 9216))]
    assert shares[0] > 0.3
    assert shares[1] > 0.3
    assert (areas >= 9216).any()
    labels = torch.cat([o["labels"] for o in objects]).bincount(minlength=7)
    assert labels[0] == 0
    assert labels[1:].min() > 0.7 * labels[1:].float().mean()


def test_masks_are_where_the_picture_differs_from_its_ground() -> None:
    """Every object stands out: its inner pixels differ from the pixels just around the shapes."""
    source = shapes(count=30, size=(128, 128), max_objects=1)
    for index in range(30):
        pixels, masks = source.load(index).float(), source.instances(index)["masks"]
        for mask in masks.bool():
            near = torch.nn.functional.max_pool2d(mask[None].float(), 7, 1, 3)[0].bool() & ~mask
            inside, outside = pixels[:, mask].mean(dim=1), pixels[:, near].mean(dim=1)
            assert (inside - outside).abs().max() > 25


def test_export_is_a_coco_data_set_with_the_same_pixels_and_masks(tmp_path: Path) -> None:
    source = shapes(count=12, split="val", num_classes=3)
    path = source.export(tmp_path)
    assert path == tmp_path / "annotations" / "instances_val.json"
    written = json.loads(path.read_text())
    assert written == source.coco_dict()
    assert [c["name"] for c in written["categories"]] == list(CLASSES[:3])
    coco = hotcoco.COCO(str(path))
    for index, record in enumerate(written["images"]):
        pixels = np.asarray(Image.open(tmp_path / "val" / record["file_name"]))
        assert np.array_equal(pixels.transpose(2, 0, 1), source.load(index).numpy())
        mine = [a for a in written["annotations"] if a["image_id"] == record["id"]]
        masks = source.instances(index)["masks"].numpy()
        assert len(mine) == len(masks)
        for annotation, mask in zip(mine, masks, strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum()


@pytest.mark.parametrize("changes", [{"num_classes": 7}, {"num_classes": 0}, {"max_objects": 0}])
def test_impossible_numbers_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="expected 1"):
        shapes(**changes)  # type: ignore[arg-type]
