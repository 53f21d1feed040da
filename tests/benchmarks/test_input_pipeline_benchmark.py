"""Both pipelines deliver the same kind of samples, and the benchmark says what it measured."""

import csv
import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

import input_pipeline
from botvision.coco.masks import boxes_of
from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.data.classification import open_splits
from botvision.data.counter_rng import uniform
from botvision.data.detection import DetectionDataset
from botvision.data.detection_transforms import DRAWS, Window, choose_window
from botvision.data.transforms import normalise, windows
from input_pipeline import FULL, SMOKE, body, cifar, coco, members_of
from pipelines import (
    BATCHES,
    CIFAR_OTHERS,
    COCO_OTHERS,
    OURS,
    OURS_PADDED,
    BoxesFromMasks,
    cifar_contenders,
    coco_contenders,
    padded,
    torchvision_coco,
    torchvision_detection,
    torchvision_pictures,
)

DATA = Path(os.environ.get("BOTVISION_DATA") or Path(__file__).parents[3] / "shared" / "data")
with_data = pytest.mark.skipif(
    not ((DATA / "coco").is_dir() and (DATA / "cifar10_jpeg.zip").is_file()), reason="no shared/data"
)
CPU = torch.device("cpu")


def scaled_and_cut(pixels: Tensor, window: Window, mode: F.InterpolationMode) -> Tensor:
    """torchvision's way to a window of ours: scale everything, cut, mirror."""
    scaled = F.resize(pixels, list(window.scaled), interpolation=mode, antialias=True)
    out = F.crop(scaled, window.top, window.left, *window.size)
    return F.horizontal_flip(out) if window.mirrored else out


def chosen_windows(data: DetectionDataset, count: int) -> list[Window]:
    draws = [uniform(DRAWS, data.seed, 0, index)[0].tolist()[:4] for index in range(count)]
    return [choose_window(data.size_of(index), data.config, draw) for index, draw in enumerate(draws)]


@with_data
@pytest.mark.parametrize("recipe", input_pipeline.COCO_RECIPES)
def test_with_the_same_scale_and_crop_both_deliver_the_same_sample(recipe: str) -> None:
    data = coco(recipe, DATA / "coco", dataclasses.replace(FULL, limit=12))
    found, places = torchvision_coco(DATA / "coco", None)
    both = either = 0
    for index, window in enumerate(chosen_windows(data, len(data))):
        image, target, _ = data[(0, index)]
        picture, theirs = found[places[data.image_id(index)]]
        expected = scaled_and_cut(F.pil_to_tensor(picture), window, F.InterpolationMode.BILINEAR)
        difference = (image.int() - expected.int()).abs()
        assert difference.max() <= 1 if window.reduction == 1 else difference.float().mean() < 1
        masks = scaled_and_cut(
            theirs["masks"].as_subclass(Tensor), window, F.InterpolationMode.NEAREST_EXACT
        ).bool()
        seen = masks.flatten(1).any(1)
        # category ids have gaps, labels have none
        names = [data.categories[label - 1].id for label in target["labels"].tolist()]
        assert theirs["labels"][seen].tolist() == names
        # ours draws outlines at the size of the result, torchvision at that of the file, to be scaled then,
        both += int((masks[seen] & target["masks"].bool()).sum())
        either += int((masks[seen] | target["masks"].bool()).sum())
        # which moves an edge by up to a pixel of the file
        grown = math.ceil(max(window.scale)) + 1
        assert (boxes_of(masks[seen]) - target["boxes"]).abs().max() <= grown
    assert both / either > 0.97


@with_data
def test_contenders_deliver_the_same_shapes() -> None:
    data = coco(input_pipeline.COCO_RECIPES[1], DATA / "coco", SMOKE)
    torch.manual_seed(0)
    runs: dict[str, Any] = coco_contenders(data, DATA / "coco", chunk=2)
    assert list(runs) == [OURS, OURS_PADDED, *COCO_OTHERS]
    for _ in range(4):  # twice through all images
        for name, run in runs.items():
            for image, target, *_ in run():
                count, size = len(target["labels"]), tuple(image.shape[-2:])
                assert image.dtype == (torch.uint8 if name == OURS else torch.float32)
                assert max(size) <= 96 if name == OURS else size == (96, 96)
                assert (target["masks"].shape, target["masks"].dtype) == ((count, *size), torch.uint8)
                assert (target["boxes"].shape, target["boxes"].dtype) == ((count, 4), torch.float32)
                assert image.max() <= (255 if name == OURS else 1)
                if name == OURS_PADDED or "from masks" in name:
                    assert torch.equal(
                        boxes_of(target["masks"].as_subclass(Tensor)), target["boxes"].as_subclass(Tensor)
                    )


def test_padding_keeps_the_sample() -> None:
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    masks = torch.ones(2, 5, 7, dtype=torch.uint8)
    found, target = padded((image, {"masks": masks, "labels": torch.ones(2)}, 0), (8, 9))
    assert torch.equal((found[:, :5, :7] * 255).round().to(torch.uint8), image)
    assert (found.shape, target["masks"].shape) == ((3, 8, 9), (2, 8, 9))
    assert found[:, 5:].abs().sum() + found[:, :, 7:].abs().sum() == 0
    assert int(target["masks"].sum()) == int(masks.sum())
    assert len(target["labels"]) == 2


def test_boxes_from_masks_leave_out_what_is_empty() -> None:
    masks = torch.zeros(3, 6, 8, dtype=torch.uint8)
    masks[0, 1:3, 2:7] = masks[2, 5, 7] = 1
    _, target = BoxesFromMasks()(torch.zeros(3, 6, 8), {"masks": masks})
    assert target["boxes"].tolist() == [[2, 1, 7, 3], [0, 0, 0, 0], [7, 5, 8, 6]]


def test_the_reference_is_the_usual_large_scale_jitter() -> None:
    config = DetectionDataConfig(image_size=64, scale_jitter=(0.1, 2.0))
    for tensors in (False, True):
        names = [type(step).__name__ for step in torchvision_detection(config, tensors, True).transforms]
        expected = ["ScaleJitter", "RandomCrop", "RandomHorizontalFlip", "ToDtype", "BoxesFromMasks"]
        assert [name for name in names if name != "ToImage"] == [*expected, "SanitizeBoundingBoxes"]
        assert names.index("ToImage") == (0 if tensors else 3)


@pytest.mark.parametrize("name", CIFAR_OTHERS)
def test_torchvision_draws_from_the_same_augmentations(name: str) -> None:
    config = DataConfig(
        source="generated", image_size=16, num_images=3, num_val_images=2, augment="flip_crop"
    )
    images = torch.stack([open_splits(config).train.load(index) for index in range(3)])
    transform = torchvision_pictures(config, name)
    moves = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2))
    torch.manual_seed(0)
    for index, image in enumerate(images):
        all_of_them = windows(images, torch.full((len(moves),), index), moves, config.padding, "zeros")
        choices = normalise(all_of_them, config.mean, config.std)
        for _ in range(5):
            found = transform(image if "tensors" in name else F.to_pil_image(image))
            assert (found - choices).abs().flatten(1).amax(1).min() < 2e-6


@with_data
@pytest.mark.parametrize("cached", [True, False])
def test_batches_of_cifar(cached: bool) -> None:
    data = cifar(DATA / "cifar10_jpeg.zip", cached, SMOKE)
    runs: dict[str, Any] = cifar_contenders(data, 8, 3, CPU, [] if cached else members_of(data))
    assert list(runs) == [BATCHES, *(name for name in CIFAR_OTHERS if cached or "tensors" not in name)]
    assert (data.cache is not None) == cached
    for run in runs.values():
        found = [*run(), *run()]
        assert len(found) == 6  # more than an epoch
        for images, targets, *_ in found:
            assert (images.shape, images.dtype) == ((8, 3, 32, 32), torch.float32)
            assert (targets.shape, targets.dtype) == ((8,), torch.int64)
            assert 0.3 < float(images.std()) < 3


@with_data
def test_smoke_run(tmp_path: Path, monkeypatch, capsys) -> None:
    threads = torch.get_num_threads()
    words = ["--smoke", "--seconds", "0.05", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["input_pipeline.py", *words])
    try:
        input_pipeline.main()
    finally:
        torch.set_num_threads(threads)
    rows = list(csv.DictReader((tmp_path / "input_pipeline_cpu.csv").read_text().splitlines()))
    found = [row["contender"] for row in rows]
    assert found == [
        *(OURS, OURS_PADDED, *COCO_OTHERS) * 2,
        BATCHES,
        *CIFAR_OTHERS,
        BATCHES,
        *CIFAR_OTHERS[:2],
    ]
    for row in rows:
        numbers = ("images a second", "ms", "ours times faster")
        assert all(0 < float(row[name]) < math.inf for name in numbers)
    text = (tmp_path / "input_pipeline_cpu.md").read_text()
    assert text.count("times faster than torchvision") == 3
    assert (tmp_path / "input_pipeline_cpu.png").stat().st_size > 10_000
    document = json.loads((tmp_path / "input_pipeline_cpu.json").read_text())
    assert document["environment"]["threads"] == "1"
    assert [row["contender"] for row in document["rows"]] == found
    assert text.rstrip().endswith(capsys.readouterr().out.rstrip())


def test_what_was_asked_is_compared_with_the_fastest() -> None:
    row = {"data": "coco", "setting": "s", "judged": "yes"}
    rows = [
        row | {"contender": OURS_PADDED, "ours times faster": 1.0},
        row | {"contender": COCO_OTHERS[0], "ours times faster": 2.5},
        row | {"contender": COCO_OTHERS[1], "ours times faster": 1.9},
        row | {"data": "cifar", "contender": CIFAR_OTHERS[0], "ours times faster": 12.0},
        row
        | {
            "data": "cifar",
            "setting": "disk",
            "contender": CIFAR_OTHERS[0],
            "ours times faster": 1.1,
            "judged": "no",
        },
    ]
    lines = [line for line in body(rows).splitlines() if ">=" in line]
    assert lines == [
        "| coco, s: times faster than torchvision, tensors | 1.9 | >= 2 | no |",
        "| cifar, s: times faster than torchvision v1, PIL | 12.0 | >= 10 | yes |",
    ]


@with_data
def test_settings_are_those_of_the_recipes() -> None:
    data = [coco(recipe, DATA / "coco", FULL) for recipe in input_pipeline.COCO_RECIPES]
    assert [one.config.scale_jitter for one in data] == [(0.8, 1.25), (0.1, 2.0)]
    assert {(one.config.size, one.config.augment, one.config.cache) for one in data} == {
        ((1024, 1024), "jitter", "none")
    }
