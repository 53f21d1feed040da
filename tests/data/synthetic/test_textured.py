"""Drawn images: what they depend on, and that the class cannot be told from what does not define it."""

import numpy as np
import pytest
import torch

from botvision.config.data import DataConfig
from botvision.data.classification import open_splits
from botvision.data.synthetic.textured import CLASSES, GeneratedSource, draw


def source(seed=0, split="train", count=200, classes=10, size=(32, 32)) -> GeneratedSource:
    config = DataConfig(
        source="generated",
        generated_seed=seed,
        num_images=count,
        num_val_images=count,
        image_size=size,
        num_classes=classes,
    )
    return GeneratedSource(config, split)


def test_an_image_depends_on_seed_split_and_index_alone():
    together = source().load_many(torch.arange(200))
    scattered = source()
    for index in (50, 3, 0, 199, 198, 1, 2, 4):
        assert torch.equal(scattered.load(index), together[index])
    ascending = source()
    assert all(torch.equal(ascending.load(index), together[index]) for index in range(200))
    assert torch.equal(source(count=1000).load(7), together[7])
    assert not torch.equal(source(seed=1).load(7), together[7])
    assert not torch.equal(source(split="val").load(7), together[7])


def test_the_run_seed_leaves_the_data_alone():
    config = DataConfig(
        source="generated", image_size=(16, 24), num_images=30, num_val_images=9, num_classes=3
    )
    first, second = open_splits(config, seed=0), open_splits(config, seed=1)
    assert torch.equal(first.train.load(5), second.train.load(5))
    assert first.train.load(5).shape == (3, 16, 24)
    assert first.classes == list(CLASSES[:3])
    assert torch.bincount(first.train.targets).tolist() == [10, 10, 10]
    assert first.val.name_of(4) == "generated/val/ring/000004"


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 32), (7, 9)])
def test_every_shape_lies_within_the_picture(size):
    # The same random numbers but for the class: pictures differ where shapes do, and hardly at the edge.
    draws = np.random.default_rng(0).random((50, 34), dtype=np.float32)
    pictures = np.stack([draw(np.full(50, k), draws, size) for k in range(10)]).astype(np.int64)
    differs = (pictures != pictures[:1]).any(axis=(0, 2))
    assert differs.any(axis=(1, 2)).all()
    if min(size) >= 32:
        border = np.concatenate(
            [differs[:, [0, -1]].reshape(50, -1), differs[:, :, [0, -1]].reshape(50, -1)], 1
        )
        assert border.mean() < 0.01


def test_shapes_are_clearly_lighter_or_darker_than_the_ground():
    draws = np.random.default_rng(1).random((100, 34), dtype=np.float32)
    filled, other = (draw(np.full(100, k), draws, (64, 64)).astype(np.float64).mean(1) for k in (0, 1))
    hole = np.abs(filled - other).max(axis=(1, 2))  # disc against ring: the ring's hole shows the ground
    assert (hole > 0.2 * 255).mean() > 0.95


def test_colour_and_brightness_do_not_tell_the_class():
    images = source(count=2000, size=(24, 24)).load_many(torch.arange(2000)).float()
    features = torch.cat([images.mean((2, 3)), images.std((2, 3)), torch.ones(2000, 1)], 1)
    labels = torch.nn.functional.one_hot(torch.arange(2000) % 10, 10).float()
    weights = torch.linalg.lstsq(features[:1000], labels[:1000]).solution
    accuracy = ((features[1000:] @ weights).argmax(1) == torch.arange(1000) % 10).float().mean()
    assert accuracy < 0.25  # chance is 0.1; areas differ a little, which contrast betrays


def test_ten_classes_look_different():
    draws = np.tile(np.random.default_rng(2).random((1, 34), dtype=np.float32), (10, 1))
    pictures = draw(np.arange(10), draws, (64, 64)).reshape(10, -1).astype(np.int64)
    changed = (np.abs(pictures[:, None] - pictures[None]) > 30).mean(-1)
    assert changed[~np.eye(10, dtype=bool)].min() > 0.02
