"""Batches made on a device equal those made in the usual way, and picture by picture, bit for bit."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from botvision.data import transforms
from botvision.data.classification import ClassificationDataset, DataConfig, open_splits
from botvision.data.counter_rng import uniform
from botvision.data.loaders import build_loader
from botvision.data.transforms import PadMode, fits, flip_crop, moves_of, normalise, windows

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def opened(split: str = "train", **changes: Any) -> ClassificationDataset:
    values: dict[str, Any] = {
        "source": "generated",
        "image_size": (12, 16),
        "num_images": 22,
        "num_val_images": 9,
    }
    splits = open_splits(DataConfig(**(values | {"augment": "flip_crop"} | changes)), seed=5)
    data = splits.train if split == "train" else splits.val
    data.cache_images()
    return data


def one_by_one(data: ClassificationDataset, epoch: int, indices: list[int]) -> torch.Tensor:
    """The slow twin: torchvision's steps on one picture after the other."""
    (height, width), padding = data.config.size, data.config.padding
    fill = "constant" if data.config.pad_mode == "zeros" else "reflect"
    images = []
    for index in indices:
        down, right, mirror = uniform(3, data.seed, epoch, index)[0].tolist()
        image = F.pad(data.load(index), [padding], padding_mode=fill)
        shifts = int(down * (2 * padding + 1)), int(right * (2 * padding + 1))
        image = F.crop(image, *shifts, height, width)
        image = F.horizontal_flip(image) if mirror < 0.5 else image
        images.append(normalise(image, data.config.mean, data.config.std))
    return torch.stack(images)


def assert_same(left: Any, right: Any) -> None:
    for ours, theirs in zip(left, right, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.cpu(), theirs.cpu())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(("size", "padding"), [((9, 14), 4), ((5, 5), 4), ((8, 3), 0), ((1, 1), 0)])
def test_windows_equal_flip_crop(size: tuple[int, int], padding: int, mode: PadMode, device: str) -> None:
    images = torch.randint(0, 256, (30, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    chosen, draws = torch.arange(29, -1, -2).repeat(9), uniform(3, 1, np.arange(135))
    moves = moves_of(draws, padding)
    sent = torch.from_numpy(moves).to(device)
    found = windows(images.to(device), chosen.to(device), sent, padding, mode)
    assert torch.equal(found.cpu(), flip_crop(images[chosen], moves, padding, mode))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{}, {"pad_mode": "reflect", "padding": 3}, {"padding": 0}])
def test_batches_equal_those_made_picture_by_picture(changes: dict[str, Any], device: str) -> None:
    data = opened(**changes)
    data.place(torch.device(device))
    assert data.placed
    indices = [*range(21, -1, -1), 3, 3]
    for epoch in (0, 2):
        images, targets, found = data.__getitems__([(epoch, index) for index in indices])
        assert torch.equal(images.cpu(), one_by_one(data, epoch, indices))
        assert torch.equal(targets.cpu(), data.targets[indices])
        assert found.tolist() == indices


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("changes", [{}, {"pad_mode": "reflect", "padding": 3}, {"augment": "none"}])
def test_batches_are_the_same(changes: dict[str, Any], split: str, device: str) -> None:
    usual, moved = (opened(split, **changes, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)) for _ in range(2))
    moved.place(torch.device(device))
    assert (moved.placed, usual.placed) == (True, False)
    pairs = [(epoch, index) for epoch in (0, 3) for index in range(8, -1, -1)]
    batch = moved.__getitems__(pairs)
    assert {part.device.type for part in batch} == {device}
    assert_same(batch, usual.__getitems__(pairs))
    assert_same(moved.__getitems__([4]), usual.__getitems__([4]))


@pytest.mark.parametrize("device", DEVICES)
def test_a_loader_goes_on_in_the_middle_of_an_epoch(device: str) -> None:
    whole = build_loader(opened(), 4, train=True, seed=1)
    batches = [*whole.epoch(0), *whole.epoch(1)]
    data = opened()
    data.place(torch.device(device))
    stopped = build_loader(data, 4, train=True, seed=1, pin_memory=True)
    assert not stopped.pin_memory
    first = list(itertools.islice(stopped.epoch(0), 3))
    resumed = build_loader(data, 4, train=True, seed=1)
    found = [*first, *resumed.epoch(0, 3), *resumed.epoch(1)]
    assert len(found) == len(batches) == 10
    for ours, theirs in zip(found, batches, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    "changes",
    [
        {"cache": "none"},
        {"cache_bytes": 1000},
        {"num_workers": 1},
        {"randaugment": 5},
        {"random_erase": 0.5},
        {"augment": "imagenet"},
    ],
)
def test_what_cannot_be_placed_stays(changes: dict[str, Any]) -> None:
    data = opened(**changes)
    data.place(CPU)
    assert not data.placed


def test_a_copy_leaves_most_of_a_gpu_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    for free, enough in ((480 * transforms.SHARE, True), (480 * transforms.SHARE - 1, False)):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda _, free=free: (free, 10 * free))
        assert fits(images, torch.device("cuda")) == enough
    assert fits(images, CPU)


def test_a_full_gpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (1000, 10**9))
    data, usual = opened(), opened()
    data.place(torch.device("cuda"))
    assert not data.placed
    assert_same(data.__getitems__([(1, 2)]), usual.__getitems__([(1, 2)]))


def test_placing_again_copies_nothing() -> None:
    data = opened()
    data.place(CPU)
    before = data._on_device
    data.place(CPU)
    assert data._on_device is before
