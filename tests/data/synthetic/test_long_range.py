"""Pairs of glyphs: what they depend on, that the label lies in both together and in nothing else."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from botvision.config.data import DataConfig
from botvision.config.schema import ConfigError
from botvision.data.check import check_data
from botvision.data.classification import open_split, open_splits
from botvision.data.synthetic.long_range import _COLOURS, CLASSES, KINDS, LongRangeSource
from botvision.io.errors import DataError

EDGES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
BLOCK = 2 * 6 * 2  # labels x intervals x kinds of the first glyph


def source(seed=0, split="train", count=BLOCK, size=(64, 64), distances=EDGES) -> LongRangeSource:
    config = DataConfig(
        source="long_range",
        generated_seed=seed,
        num_images=count,
        num_val_images=count,
        image_size=size,
        distances=distances,
    )
    return LongRangeSource(config, split)


def test_an_image_depends_on_seed_split_and_index_alone():
    together = source().load_many(torch.arange(BLOCK))
    scattered, ascending = source(), source()
    for index in (17, 3, 0, 23, 22, 1, 2, 4):
        assert torch.equal(scattered.load(index), together[index])
    assert all(torch.equal(ascending.load(index), together[index]) for index in range(BLOCK))
    assert torch.equal(source(count=1000).load(7), together[7])
    assert not torch.equal(source(seed=1).load(7), together[7])
    assert not torch.equal(source(split="val").load(7), together[7])
    assert not torch.equal(source(seed=1).grouping.values, source().grouping.values)


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (160, 96)])
def test_glyphs_of_the_stated_kinds_lie_at_the_stated_distance_within_the_picture(size):
    pairs = source(size=size)
    centres = pairs.centres(torch.arange(BLOCK))
    assert torch.allclose((centres[:, 0] - centres[:, 1]).abs().amax(1), pairs.grouping.values)
    edge = min(size) / 16
    assert float(centres.min()) >= edge - 1e-9
    assert float((torch.tensor(size) - centres).min()) >= edge - 1e-9
    images = pairs.load_many(torch.arange(BLOCK)).float() / 255
    rows = torch.arange(BLOCK)
    for glyph in range(2):
        y, x = centres[:, glyph].long().T
        found = images[rows, :, y, x]
        ratio = found / torch.from_numpy(_COLOURS)[pairs.kinds[:, glyph]]  # brightness varies, hue does not
        assert ((ratio > 0.8) & (ratio < 1.02)).all()


def test_every_direction_occurs():
    centres = source(count=10 * BLOCK).centres(torch.arange(10 * BLOCK))
    offset = centres[:, 1] - centres[:, 0]
    far = offset.abs().argmax(1)
    signs = offset.gather(1, far[:, None])[:, 0] > 0
    for axis, sign in itertools.product((0, 1), (True, False)):
        assert ((far == axis) & (signs == sign)).float().mean() > 0.15


def test_labels_distances_and_kinds_are_balanced_together():
    pairs = source()
    group = pairs.grouping.groups()
    assert torch.equal(pairs.targets == 0, pairs.kinds[:, 0] == pairs.kinds[:, 1])
    for label, g in itertools.product((0, 1), range(6)):
        chosen = (pairs.targets == label) & (group == g)
        assert int(chosen.sum()) == 2
        for glyph in range(2):
            assert torch.bincount(pairs.kinds[chosen, glyph], minlength=2).tolist() == [1, 1]
    different = pairs.kinds[(pairs.targets == 1) & (group == 3)].tolist()
    assert sorted(map(tuple, different)) == sorted(itertools.permutations(range(2)))
    assert torch.bincount(source(count=60).grouping.groups()).tolist() == [10] * 6
    low, high = torch.tensor(pairs.grouping.edges)[group], torch.tensor(pairs.grouping.edges)[group + 1]
    assert ((pairs.grouping.values >= low) & (pairs.grouping.values < high)).all()


def test_a_bag_of_single_glyphs_cannot_tell_at_any_distance():
    """Counts of kinds, each with its interval: the gradient of the cross entropy at the constant is zero.

    As that loss is convex, no sum of terms that each see one glyph is better than guessing.
    """
    pairs = source()
    bag = torch.nn.functional.one_hot(pairs.kinds, len(KINDS)).sum(1).double()
    group = torch.nn.functional.one_hot(pairs.grouping.groups(), 6).double()
    features = torch.einsum("ni,nj->nij", torch.cat([torch.ones(BLOCK, 1), bag], 1).double(), group)
    gradient = torch.einsum("n,nij->ij", 0.5 - pairs.targets.double(), features)
    assert gradient.abs().max() == 0
    together = (bag.amax(1) == 2).double()  # seen together they tell everything
    assert torch.equal(together, 1 - pairs.targets.double())


def test_a_sum_over_single_glyphs_counts_at_most_three_quarters_right():
    """The best of many sums tuned by hand, what the docstring says of them."""
    pairs, generator = source().kinds, torch.Generator().manual_seed(0)
    values = torch.cat([torch.rand(2000, 2, generator=generator), torch.tensor([[0.0, 1.0]])])
    sums = values[:, pairs].sum(-1)  # (2001, 24)
    same = (source().targets == 0)[None, :]
    best = 0.0
    for threshold in sums.unique(dim=1).T:
        right = ((sums > threshold[:, None] - 1e-6) == same).double().mean(1)
        best = max(best, float(torch.maximum(right, 1 - right).max()))
    assert best == pytest.approx(3 / 4)


def test_colours_brightness_and_patches_do_not_tell_the_label():
    """Sums over places of what is seen there, fitted on one half of the pictures and tried on the other.

    Colours of each part, means of their products, a histogram. (A maximum over the picture, or a square of
    its mean, does tell: it looks at all places together.)
    """
    count = 240 * BLOCK
    images = source(count=count, size=(32, 32)).load_many(torch.arange(count)).float() / 255
    small = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
    products = torch.einsum("nchw,ndhw->ncd", images, images).flatten(1) / 32**2
    bins = (images * 3.999).long() * torch.tensor([16, 4, 1]).view(3, 1, 1)
    histogram = torch.nn.functional.one_hot(bins.sum(1).flatten(1), 64).float().mean(1)
    features = torch.cat([small, products, histogram], 1)
    targets = source(count=count).targets.float() * 2 - 1
    half = count // 2
    weights = _ridge(features[:half], targets[:half])
    right = ((features[half:] @ weights > 0) == (targets[half:] > 0)).float().mean()
    assert abs(float(right) - 0.5) < 4 * 0.5 / math.sqrt(half)


def _ridge(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    square = features.T @ features + 1e-3 * torch.eye(features.shape[1])
    return torch.linalg.solve(square, features.T @ targets)


def config(**changes: object) -> DataConfig:
    base = DataConfig(source="long_range", image_size=32, num_images=72, num_val_images=36)
    return dataclasses.replace(base, **changes)  # pyrefly: ignore[bad-argument-type]


def test_splits_and_their_distances():
    splits = open_splits(config())
    assert (splits.classes, splits.name) == (list(CLASSES), "long-range pairs")
    assert (len(splits.train), len(splits.val)) == (72, 36)
    known = splits.val.grouping
    assert known is not None
    assert (known.name, known.unit, known.edges) == ("distance", "px", tuple(32 * e for e in EDGES))
    name = splits.train.name_of(3)
    distance = float(splits.train.grouping.values[3])  # pyrefly: ignore[missing-attribute]
    assert name == f"long_range/train/different/000003 ({distance:.0f} px)"
    assert torch.equal(open_splits(config(), seed=5).train.load(3), splits.train.load(3))


def test_a_limit_keeps_images_and_distances_together():
    whole = open_splits(config()).train
    part = open_splits(config(limit=24)).train
    assert part.grouping is not None
    assert whole.grouping is not None
    assert torch.bincount(part.grouping.groups()).tolist() == [4] * 6
    for index in (0, 13, 23):
        (same,) = [i for i in range(72) if torch.equal(whole.load(i), part.load(index))]
        assert part.grouping.values[index] == whole.grouping.values[same]


def test_train_is_measured_with_its_distances_and_there_is_no_test_split():
    train = open_split(config(), "train", list(CLASSES))
    assert train.grouping is not None
    assert len(train.grouping.values) == len(train) == 72
    with pytest.raises(DataError, match="long_range data have no test split, expected val or train"):
        open_split(config(), "test", list(CLASSES))


def test_other_distances():
    near = source(distances=(0.1, 0.2, 0.25)).grouping
    assert near.edges == pytest.approx((6.4, 12.8, 16))
    assert torch.bincount(near.groups()).tolist() == [BLOCK // 2] * 2
    assert float(near.values.min()) >= 6.4
    assert float(near.values.max()) < 16


@pytest.mark.parametrize("edges", [(0.5,), (0.5, 0.25), (0.2, 0.2), (0.05, 0.5), (0.5, 0.9), ()])
def test_impossible_distances_are_one_line(edges):
    with pytest.raises(ConfigError, match=r"data\.distances: expected two or more ascending edges within"):
        config(distances=edges)


def test_files_beside_it_are_refused():
    with pytest.raises(ConfigError, match=r"data\.root: x is not used, since data\.source is long_range"):
        config(root="x")


def test_check_counts_them():
    found = check_data(config())
    assert found.ok
    assert [(row["split"], row["images"], row["class_min"]) for row in found.rows] == [
        ("train", 72, 36),
        ("val", 36, 18),
    ]


def test_kinds_look_different():
    pairs = source(size=(128, 128))
    rows = torch.arange(BLOCK)
    patches = []
    for kind in range(len(KINDS)):
        index = int(rows[(pairs.kinds == kind).all(1)][0])
        y, x = pairs.centres(torch.tensor([index]))[0, 0].round().long().tolist()
        patches.append(pairs.load(index)[:, y - 5 : y + 6, x - 5 : x + 6].numpy().astype(np.int64))
    for one, two in itertools.combinations(patches, 2):
        assert np.abs(one - two).mean() > 20
