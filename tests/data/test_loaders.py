"""Loaders: the same batches after a stop in the middle of an epoch, for any number of workers."""

import itertools
import pickle
from typing import Any

import pytest
import torch

from botvision.data import loaders
from botvision.data.classification import ClassificationDataset, DataConfig, open_splits
from botvision.data.loaders import EpochSampler, build_loader
from botvision.io.errors import DataError


def generated(**changes) -> ClassificationDataset:
    values: dict[str, Any] = {"source": "generated", "image_size": 16, "num_images": 22, "num_val_images": 11}
    values |= {"augment": "flip_crop", **changes}
    return open_splits(DataConfig(**values), seed=5).train


def copied(batches):
    return [[part.clone() for part in batch] for batch in batches]


def assert_same(left, right):
    assert len(left) == len(right)
    for ours, theirs in zip(left, right, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def epoch_of(loader, epoch):
    return copied(loader.epoch(epoch))


def test_batches():
    train = generated()
    batches = list(build_loader(train, 4, train=True, seed=1))
    assert len(batches) == 5  # 22 images: the last two are left out
    for images, targets, indices in batches:
        assert (images.dtype, images.shape) == (torch.float32, (4, 3, 16, 16))
        assert (targets.dtype, indices.dtype) == (torch.int64, torch.int64)
        assert torch.equal(targets, train.targets[indices])
    seen = torch.cat([indices for _, _, indices in batches]).tolist()
    assert len(set(seen)) == 20
    assert seen != sorted(seen)


def test_evaluation_sees_every_image_once_in_order_every_time():
    loader = build_loader(generated(), 4, train=False, seed=1)
    for _ in range(2):
        assert torch.cat([indices for _, _, indices in loader]).tolist() == list(range(22))
    next(iter(loader))  # a pass that was broken off does not shorten the next
    assert len(list(loader)) == 6


@pytest.mark.parametrize("changes", [{}, {"randaugment": 5}], ids=["whole batches", "one by one"])
def test_number_of_workers_makes_no_difference(changes):
    ours, theirs = (build_loader(generated(**changes), 4, train=True, seed=1, num_workers=n) for n in (0, 2))
    for epoch in (0, 1):
        assert_same(epoch_of(ours, epoch), epoch_of(theirs, epoch))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 3, 5])
def test_goes_on_in_the_middle_of_an_epoch(workers, done):
    def loader():
        return build_loader(generated(), 4, train=True, seed=1, num_workers=workers)

    whole = loader()
    first, second, third = (epoch_of(whole, epoch) for epoch in range(3))
    stopped = loader()
    assert_same(epoch_of(stopped, 0), first)
    assert_same(copied(itertools.islice(stopped.epoch(1), done)), second[:done])
    resumed = loader()
    assert_same(copied(resumed.epoch(1, done)), second[done:])
    assert_same(epoch_of(resumed, 2), third)


def test_epochs_and_seeds_differ():
    loader = build_loader(generated(), 4, train=True, seed=1)
    first, second, again = epoch_of(loader, 0), epoch_of(loader, 1), epoch_of(loader, 0)
    assert_same(first, again)
    other = copied(build_loader(generated(), 4, train=True, seed=2))
    orders = [torch.cat([batch[2] for batch in batches]).tolist() for batches in (first, second, other)]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_stays(workers):
    loader = build_loader(generated(randaugment=5), 4, train=True, seed=1, num_workers=workers)
    state = torch.random.get_rng_state()
    list(loader)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_an_epoch(world):
    samplers = [
        EpochSampler(23, seed=1, shuffle=True, multiple=2, rank=r, world_size=world) for r in range(world)
    ]
    orders = [[index for _, index in sampler] for sampler in samplers]
    assert {len(order) for order in orders} == {len(samplers[0])} == {23 // world // 2 * 2}
    assert len({index for order in orders for index in order}) == world * len(samplers[0])
    last = EpochSampler(23, seed=1, shuffle=False, rank=world - 1, world_size=world)  # all measure alike
    assert [index for _, index in last] == list(range(23)) == list(range(len(last)))


def test_refusals(image_folder):
    with pytest.raises(DataError, match="22 images, expected a batch of 16 x 2 or more"):
        build_loader(generated(), 16, train=True, seed=1, share=(0, 2))
    with pytest.raises(ValueError, match=r"rank 2 does not exist, expected 0\.\.1"):
        EpochSampler(40, seed=1, shuffle=True, rank=2, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_in_a_worker_is_still_one_line(image_folder, workers):
    root = image_folder({"train/a": 4, "train/b": 4, "val/a": 1, "val/b": 1})
    (root / "train" / "b" / "002.png").write_bytes(b"broken")
    config = DataConfig(root=str(root), image_size=8, cache="none")
    loader = build_loader(open_splits(config).train, 4, train=True, seed=0, num_workers=workers)
    with pytest.raises(DataError) as caught:
        list(loader)
    assert str(caught.value) == f"{root}/train/b/002.png: not an image in any known format"


def test_zip_is_read_by_forked_workers_and_survives_the_way_to_spawned_ones(image_folder, zipped):
    packed = zipped(image_folder({"train/a": 6, "train/b": 6, "val/a": 1, "val/b": 1}))
    train = open_splits(DataConfig(root=str(packed), image_size=8, cache="none")).train
    train.load(0)  # this process has the zip open when workers start
    here = copied(build_loader(train, 3, train=True, seed=0))
    assert_same(copied(build_loader(train, 3, train=True, seed=0, num_workers=2)), here)
    sent = pickle.loads(pickle.dumps(train))  # what spawning does with it
    assert_same(copied(build_loader(sent, 3, train=True, seed=0)), here)


def test_no_more_workers_than_cores(monkeypatch):
    train = generated()
    monkeypatch.setattr(loaders, "_cores", lambda: 2)
    workers = [
        build_loader(train, 2, train=True, seed=0, num_workers=number).num_workers for number in (0, 1, 2, 9)
    ]
    assert workers == [0, 1, 2, 2]
