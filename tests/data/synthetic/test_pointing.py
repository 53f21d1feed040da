"""Arrows and marks: what they depend on, and that an arrow's label lies where it points and nowhere else."""

import dataclasses

import numpy as np
import pytest
import torch

from botvision.config.data import DataConfig
from botvision.config.schema import ConfigError
from botvision.data.check import check_data
from botvision.data.classification import open_split, open_splits
from botvision.data.synthetic.pointing import (
    _COLOURS,
    ARROWS,
    CLASSES,
    DIRECTIONS,
    MARKS,
    Board,
    PointingSource,
    steps_of_intervals,
)

EDGES = (0.1, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125)
MANY = 7200  # images, whole rounds of the intervals, 21,600 labels; nothing is drawn


def source(seed=0, split="train", count=24, size=(64, 64), distances=EDGES) -> PointingSource:
    config = DataConfig(
        source="pointing",
        generated_seed=seed,
        num_images=count,
        num_val_images=count,
        image_size=size,
        distances=distances,
    )
    return PointingSource(config, split)


@pytest.fixture(scope="module")
def many() -> PointingSource:
    return source(count=MANY, size=(128, 128))


def chi_square(one: torch.Tensor, two: torch.Tensor) -> float:
    """Of the table of two int64 variables, in standard deviations above its mean."""
    counts = torch.zeros(int(one.max()) + 1, int(two.max()) + 1, dtype=torch.float64)
    counts.index_put_((one, two), torch.ones(len(one), dtype=torch.float64), accumulate=True)
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


def test_an_image_depends_on_seed_split_and_index_alone():
    together = source().load_many(torch.arange(24))
    scattered, ascending = source(), source()
    for index in (17, 3, 0, 23, 22, 1, 2, 4):
        assert torch.equal(scattered.load(index), together[index])
    assert all(torch.equal(ascending.load(index), together[index]) for index in range(24))
    longer = source(count=1000)
    assert torch.equal(longer.load(7), together[7])
    assert torch.equal(longer.targets[:24], source().targets)
    assert torch.equal(longer.points()[7], source().points()[7])
    for other in (source(seed=1), source(split="val")):
        assert not torch.equal(other.load(7), together[7])
        assert not torch.equal(other.targets, source().targets)


def test_places_lie_at_whole_steps_within_the_picture():
    board = Board.of_picture((128, 128))
    assert (board.rows, board.columns, board.step) == (7, 7, 16)
    assert board.centres(np.array([0, 8, 48])).tolist() == [[16, 16], [32, 32], [112, 112]]
    wide = Board.of_picture((96, 160))
    assert (wide.rows, wide.columns, wide.step) == (7, 13, 12)
    assert wide.centres(np.array([12, 13])).tolist() == [[12, 156], [24, 12]]


def test_a_scene_by_hand(many):
    """The rule, worked out again from the places alone: the only mark straight ahead gives the label."""
    layout, board = many.layout, many.board
    for image in range(300):
        marks = {}
        for places, kinds in zip(layout.marks[image], layout.kinds[image], strict=True):
            for place, kind in zip(places, kinds, strict=True):
                marks[divmod(int(place), board.columns)] = int(kind)
        arrows = [divmod(int(place), board.columns) for place in layout.arrows[image]]
        assert len(marks) == ARROWS * MARKS
        assert len({*marks, *arrows}) == ARROWS * (MARKS + 1)
        for arrow, (row, column) in enumerate(arrows):
            down, right = DIRECTIONS[layout.directions[image, arrow]]
            ahead = [(n, (row + n * down, column + n * right)) for n in range(1, 7)]
            met = [(n, marks[place]) for n, place in ahead if place in marks]
            assert met == [(layout.steps[image, arrow], int(many.targets[image, arrow]))]


def test_no_mark_of_an_arrow_lies_nearer_than_the_one_it_points_to(many):
    layout, columns = many.layout, many.board.columns
    down = np.abs(layout.marks // columns - (layout.arrows // columns)[..., None])
    right = np.abs(layout.marks % columns - (layout.arrows % columns)[..., None])
    away = np.maximum(down, right)
    assert (away[..., 0] == layout.steps).all()
    assert (away >= layout.steps[..., None]).all()
    assert (away[..., 1:] == layout.steps[..., None]).mean() > 0.6  # most lie as far, in other directions
    assert (np.sort(layout.kinds, axis=-1) == np.arange(MARKS)).all()  # one of each kind


def test_labels_are_independent_of_what_an_arrow_shows_and_of_its_distance(many):
    labels = many.targets.flatten()
    assert torch.bincount(labels).sub(labels.numel() / 4).abs().max() < 4 * (labels.numel() * 3 / 16) ** 0.5
    place = torch.from_numpy(many.layout.arrows.flatten())
    direction = torch.from_numpy(many.layout.directions.flatten())
    colour = torch.from_numpy(many.layout.colours.flatten())
    shown = (direction, colour, 4 * direction + colour, place, many.grouping.groups().flatten())
    for variable in shown:
        assert abs(chi_square(labels, variable)) < 4
    assert chi_square(labels, torch.from_numpy(many.layout.kinds[:, :, 1].flatten())) > 100  # it can fail
    others = many.targets.roll(1, 1).flatten()  # the label of another arrow in the picture
    assert abs(chi_square(labels, others)) < 4


def test_what_a_window_shows_that_does_not_reach_the_mark_tells_nothing(many):
    """Counts of kinds within a square around the arrow, and those in the whole picture: independent."""
    layout, columns = many.layout, many.board.columns
    places, kinds = layout.marks.reshape(MANY, 1, -1), layout.kinds.reshape(MANY, 1, -1)
    arrows = layout.arrows[..., None]
    away = np.maximum(abs(places // columns - arrows // columns), abs(places % columns - arrows % columns))
    for reach in (1, 2, 3, 4):
        far = torch.from_numpy(layout.steps > reach)
        for kind in range(MARKS):
            seen = torch.from_numpy(((away <= reach) & (kinds == kind)).sum(-1))
            assert abs(chi_square(many.targets[far], seen[far].clamp(max=2))) < 4
        near = ~far
        seen = torch.from_numpy(((away <= reach) & (kinds == 0)).sum(-1))
        assert (
            chi_square(many.targets[near], seen[near].clamp(max=2)) > 20
        )  # where it does reach it, it tells
    assert (np.stack([(kinds == kind).sum((1, 2)) for kind in range(MARKS)]) == ARROWS).all()


def test_intervals_take_turns(many):
    assert torch.bincount(many.grouping.groups().flatten()).tolist() == [3600] * 6
    assert many.grouping.values.unique().tolist() == [16, 32, 48, 64, 80, 96]
    assert steps_of_intervals((0.1, 0.3, 0.8)) == [[1, 2], [3, 4, 5, 6]]
    coarse = source(count=600, distances=(0.1, 0.3, 0.8))
    assert torch.bincount(coarse.grouping.groups().flatten()).tolist() == [900, 900]
    assert set((coarse.grouping.values / 8).flatten().tolist()) == {1, 2, 3, 4, 5, 6}


def test_near_and_far_marks_lie_in_the_same_pictures(many):
    steps = torch.from_numpy(many.layout.steps)
    others = (steps.sum(1, keepdim=True) - steps).double() / (ARROWS - 1)
    for far in range(1, 7):  # three of each in a round of 18, drawn without putting back
        assert float(others[steps == far].mean()) == pytest.approx((3 * 21 - far) / 17, abs=0.1)
    shorter = source(count=MANY - 5, size=(128, 128))
    assert np.array_equal(shorter.layout.steps, many.layout.steps[: MANY - 5])


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (160, 96)])
def test_glyphs_show_their_kinds_where_they_are_said_to_be(size):
    drawn = source(size=size)
    indices = torch.arange(24)
    images = drawn.load_many(indices).float() / 255
    centres, _ = drawn._glyphs(indices.numpy())
    kinds = drawn.layout.kinds.reshape(24, -1)
    y, x = torch.from_numpy(centres[:, ARROWS:]).long().unbind(-1)
    for kind in (0, 1, 2):  # in the middle of a ring is ground
        image, mark = np.nonzero(kinds == kind)
        found = images[image, :, y[image, mark], x[image, mark]]
        ratio = found / torch.from_numpy(_COLOURS)[kind]
        assert ((ratio > 0.8) & (ratio < 1.02)).all()


def test_arrows_point_where_the_layout_says():
    """Of an arrow the shaft has its pixels behind the middle, the wide head before it."""
    drawn = source(count=60, size=(256, 256))
    indices = torch.arange(60)
    images, points = drawn.load_many(indices).float(), drawn.points()
    for image in range(60):
        for arrow in range(ARROWS):
            y, x = points[image, arrow].long().tolist()
            patch = images[image, :, y - 14 : y + 15, x - 14 : x + 15]
            colourful = (patch.amax(0) - patch.amin(0) > 90).nonzero().double() - 14
            down, right = DIRECTIONS[drawn.layout.directions[image, arrow]]
            along = colourful @ torch.tensor([down, right], dtype=torch.float64)
            across = (colourful @ torch.tensor([right, down], dtype=torch.float64)).abs()
            assert across[along > -4].max() > across[along < -6].max() + 2


def config(**changes: object) -> DataConfig:
    base = DataConfig(
        source="pointing", image_size=32, num_images=24, num_val_images=12, distances=EDGES, augment="none"
    )
    return dataclasses.replace(base, **changes)  # pyrefly: ignore[bad-argument-type]


def test_splits_hold_labels_with_their_places_and_distances():
    splits = open_splits(config())
    assert (splits.classes, splits.name) == (list(CLASSES), "pointing arrows")
    train = splits.train
    assert train.points is not None
    assert train.grouping is not None
    assert train.targets.shape == train.grouping.values.shape == (24, ARROWS)
    assert train.points.shape == (24, ARROWS, 2)
    assert train.name_of(3) == "pointing/train/000003"
    images, targets, indices = train.__getitems__([5, 2])
    assert images.shape == (2, 3, 32, 32)
    assert torch.equal(targets, train.targets[indices])
    assert train[5][1] == train.targets[5].tolist()
    assert train.point_of(5) == tuple(train.points[5, 0].long().tolist())
    assert torch.equal(open_splits(config(), seed=5).train.load(3), train.load(3))
    part = open_splits(config(limit=6)).train
    (same,) = [i for i in range(24) if torch.equal(train.load(i), part.load(4))]
    assert part.points is not None
    assert torch.equal(part.points[4], train.points[same])
    assert torch.equal(part.targets[4], train.targets[same])
    assert len(open_split(config(), "train", list(CLASSES))) == 24


def test_check_counts_labels():
    found = check_data(config())
    assert found.ok
    assert [row["split"] for row in found.rows] == ["train", "val"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augment": "flip_crop"}, "data.augment: the places and directions"),
        ({"randaugment": 5}, "data.augment: the places and directions"),
        ({"distances": (0.1, 0.12, 0.5)}, "data.distances: 0.1 to 0.12 holds no distance of pointing"),
        ({"distances": (0.125, 0.8, 0.875)}, "data.distances: 0.8 to 0.875 holds no distance of pointing"),
        ({"root": "x"}, "data.root: x is not used, since data.source is pointing"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, words):
    with pytest.raises(ConfigError, match=words):
        config(**changes)
