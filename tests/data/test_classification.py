"""Data sets: what is found, how it is split, what is refused; and that the fast way equals the slow one."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.config.schema import ConfigError
from botvision.data.cache import fill_cache
from botvision.data.classification import DataConfig, open_split, open_splits
from botvision.data.counter_rng import keys, uniform
from botvision.data.sources import list_folder
from botvision.data.transforms import normalise
from botvision.io.errors import DataError

BOTH = {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 2}


def config(root, **changes) -> DataConfig:
    values: dict[str, Any] = {"root": str(root), "image_size": 8, **changes}
    return DataConfig(**values)


def test_folder(image_folder):
    root = image_folder(BOTH)
    splits = open_splits(config(root))
    assert splits.classes == ["cat", "dog"]
    assert splits.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert splits.val.targets.tolist() == [0, 1, 1]
    assert splits.train.name_of(3) == str(root / "train" / "dog" / "000.png")
    assert (splits.name, splits.held_back) == ("data", False)


@pytest.mark.parametrize("top", ["", "outer/"])
def test_zip_holds_the_same_as_the_folder(image_folder, zipped, top):
    root = image_folder(BOTH)
    packed = zipped(root, top)
    folder, archive = open_splits(config(root)), open_splits(config(packed))
    assert archive.classes == folder.classes
    for index in range(len(folder.train)):
        assert torch.equal(archive.train.load(index), folder.train.load(index))
    assert archive.train.name_of(0) == f"{packed}:{top}train/cat/000.png"


def test_a_folder_around_everything_is_tolerated(image_folder):
    root = image_folder(BOTH)
    assert len(open_splits(config(shutil.copytree(root, root.parent / "outer" / "inner").parent)).train) == 5


def test_test_folder_serves_where_there_is_no_val(image_folder):
    assert (
        len(open_splits(config(image_folder({"train/a": 1, "train/b": 1, "test/a": 2, "test/b": 3}))).val)
        == 5
    )


def test_other_files_are_left_out_and_images_without_suffix_are_not(image_folder):
    root = image_folder(BOTH)
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"x")
    (root / "train" / "cat" / "000.png").rename(root / "train" / "cat" / "bare")
    splits = open_splits(config(root))
    assert [splits.train.name_of(index).rsplit("/", 1)[1] for index in range(3)] == [
        "001.png",
        "002.png",
        "bare",
    ]


def test_held_back_images_are_a_fixed_part_of_every_class(image_folder):
    root = image_folder({"train/a": 20, "train/b": 10})
    first, second = (open_splits(config(root, val_fraction=0.2), seed) for seed in (0, 1))
    assert first.held_back
    assert torch.bincount(first.val.targets).tolist() == [4, 2]
    assert torch.bincount(first.train.targets).tolist() == [16, 8]
    names = [{split.name_of(index) for index in range(len(split))} for split in (first.train, first.val)]
    assert not names[0] & names[1]
    assert names[1] == {second.val.name_of(index) for index in range(len(second.val))}


def test_validation_may_lack_a_rare_class(image_folder):
    splits = open_splits(config(image_folder({"train/a": 1, "train/b": 1, "train/c": 1, "val/c": 2})))
    assert splits.val.classes == ["a", "b", "c"]
    assert splits.val.targets.tolist() == [2, 2]


def test_one_split_is_opened_without_the_others(image_folder):
    root = image_folder({"test/b": 2, "test/c": 1})
    opened = config(root)
    test = open_split(opened, "test", ["a", "b", "c"])
    assert (test.classes, test.targets.tolist(), test.train) == (["a", "b", "c"], [1, 1, 2], False)
    assert torch.equal(open_split(opened, "val", ["a", "b", "c"]).targets, test.targets)
    with pytest.raises(DataError, match="data/test: class c not among those trained on"):
        open_split(opened, "test", ["a", "b"])
    with pytest.raises(DataError, match="no train/ folder"):
        open_split(opened, "train", ["a", "b", "c"])


def test_test_is_reached_beside_val(image_folder):
    root = image_folder({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 3, "test/b": 4})
    sizes = {split: len(open_split(config(root), split, ["a", "b"])) for split in ("train", "val", "test")}
    assert sizes == {"train": 4, "val": 2, "test": 7}
    shutil.rmtree(root / "test")
    with pytest.raises(DataError, match="data: no test/ folder"):
        open_split(config(root), "test", ["a", "b"])


def test_limit_takes_from_all_classes(image_folder):
    splits = open_splits(config(image_folder({"train/a": 9, "train/b": 9, "val/a": 1, "val/b": 5}), limit=4))
    assert splits.train.targets.tolist() == [0, 0, 1, 1]
    assert splits.val.targets.tolist() == [0, 1, 1, 1]
    assert splits.train.name_of(2).endswith("b/000.png")


@pytest.mark.parametrize(
    ("counts", "changes", "message"),
    [
        ({"train/cat": 1, "train/dog": 0, "val/cat": 1}, {}, "data/train: no images in class dog"),
        ({"train": 0, "val/cat": 1}, {}, "data/train: no classes, expected a folder for each"),
        ({"cat": 2, "dog": 2}, {}, r"no train/ folder \(found cat, dog\), expected train/<class>/<image>"),
        (
            {"train/a": 1, "train/b": 1, "val/a": 1, "val/c": 1},
            {},
            r"data/val: class c not among those trained on \(2 classes \(a, b\)\)",
        ),
        (
            {"train/a": 2, "train/b": 2},
            {"val_fraction": 0.0},
            "no val/ or test/ folder and data.val_fraction is 0",
        ),
        ({"train/a": 1, "train/b": 1, "val/a": 0}, {}, "data/val: no images in any class"),
        ({"train/a": 2, "train/b": 1}, {}, "class b has 1 image, expected 2"),
    ],
)
def test_unusable_folders_are_one_line(image_folder, counts, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        open_splits(config(image_folder(counts), **changes))
    assert "\n" not in str(caught.value)


def test_unusable_roots(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        open_splits(config(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"data\.root is not set"):
        open_splits(DataConfig())
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a readable zip"):
        open_splits(config(broken))


def test_damage_inside_a_zip_names_the_member(image_folder, zipped):
    packed = zipped(image_folder(BOTH))
    content = bytearray(packed.read_bytes())
    start = content.index(b"train/dog/001.png") + len("train/dog/001.png")
    content[start + 60] ^= 0xFF
    packed.write_bytes(content)
    splits = open_splits(config(packed))
    with pytest.raises(DataError, match=r"data\.zip:train/dog/001\.png: cannot be unpacked"):
        splits.train.cache_images()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 0), ("val_fraction", 1.0), ("limit", 0), ("num_classes", 11), ("padding", -1),
        ("crop_scale", (0.0, 1.0)), ("eval_crop", 1.5), ("randaugment", 31), ("random_erase", -0.1),
        ("std", (1.0, 0.0, 1.0)), ("num_workers", -1), ("num_images", 0), ("num_val_images", 0),
    ],
)  # fmt: skip
def test_impossible_settings_name_the_key(key, value):
    with pytest.raises(ConfigError, match=rf"data\.{key}: "):
        DataConfig(**{key: value})


def test_reflection_needs_a_border_smaller_than_the_image():
    with pytest.raises(ConfigError, match=r"data\.padding: expected less than .* got 8"):
        DataConfig(image_size=8, augment="flip_crop", pad_mode="reflect", padding=8)


AUGMENTATIONS = [
    {"augment": "flip_crop"},
    {"augment": "flip_crop", "randaugment": 9, "random_erase": 0.5},
    {"augment": "imagenet"},
    {"augment": "imagenet", "randaugment": 9, "cache": "none"},
]


@pytest.mark.parametrize("changes", AUGMENTATIONS)
def test_augmentation_depends_on_seed_epoch_and_index_alone(image_folder, changes):
    root = image_folder(BOTH, size=(12, 16))
    train = open_splits(config(root, **changes), seed=3).train
    train.cache_images()
    state = torch.random.get_rng_state()
    together = train.__getitems__([(1, index) for index in range(5)])[0]
    torch.rand(7)  # the global state must neither matter
    alone = torch.stack([train[1, index][0] for index in reversed(range(5))]).flip(0)
    assert torch.equal(together, alone)
    torch.random.set_rng_state(state)
    train.__getitems__([(1, 0), (2, 0)])
    assert torch.equal(torch.random.get_rng_state(), state)  # ... nor change
    other_epoch = train.__getitems__([(2, index) for index in range(5)])[0]
    other_seed = open_splits(config(root, **changes), seed=4).train.__getitems__([(1, i) for i in range(5)])[
        0
    ]
    assert not torch.equal(together, other_epoch)
    assert not torch.equal(together, other_seed)


def test_validation_is_not_augmented(image_folder):
    val = open_splits(config(image_folder(BOTH), augment="flip_crop", random_erase=1.0)).val
    images, targets, indices = val.__getitems__([(7, 2), (0, 0)])
    expected = torch.stack([normalise(val.load(i), val.config.mean, val.config.std) for i in (2, 0)])
    assert torch.equal(images, expected)
    assert (targets.tolist(), indices.tolist()) == ([1, 0], [2, 0])


@pytest.mark.parametrize("augment", ["flip_crop", "imagenet"])
def test_cached_and_uncached_pictures_are_the_same(image_folder, augment):
    root = image_folder({"train/a": 4, "train/b": 3, "val/a": 1, "val/b": 1}, size=(10, 20))
    Image.new("RGB", (9, 30)).save(root / "train" / "a" / "odd.png")
    cached, uncached = (
        open_splits(config(root, augment=augment, cache=kind)).train for kind in ("memory", "none")
    )
    calls = []
    cached.cache_images(lambda *call: calls.append(call))
    uncached.cache_images()
    assert cached.cache is not None
    assert cached.cache.nbytes == (8 * 192 if augment == "flip_crop" else 7 * 600 + 810)
    assert uncached.cache is None
    assert calls == [("reading data train", done, 8) for done in range(1, 9)]
    wanted = [(0, index) for index in range(8)]
    assert torch.equal(cached.__getitems__(wanted)[0], uncached.__getitems__(wanted)[0])


def test_cache_keeps_its_limit(image_folder):
    root = image_folder({"train/a": 4, "train/b": 3, "val/a": 1, "val/b": 1})
    for limit, expected in ((7 * 192, 7 * 192), (7 * 192 - 1, None), (10, None)):
        train = open_splits(config(root, cache_bytes=limit)).train
        train.cache_images()
        assert (train.cache.nbytes if train.cache else None) == expected


def test_one_large_image_does_not_size_the_whole_cache(monkeypatch):
    images = [torch.zeros(3, 100, 100, dtype=torch.uint8)] + [torch.ones(3, 2, 2, dtype=torch.uint8)] * 63
    asked = []
    original = torch.empty

    def empty(*sizes, **options):
        asked.extend(sizes)
        return original(*sizes, **options)

    monkeypatch.setattr(torch, "empty", empty)
    cached = fill_cache(images.__getitem__, 64, None, "")
    assert cached is not None
    assert cached.nbytes == 30_000 + 63 * 12
    assert torch.equal(cached[0], images[0])
    assert torch.equal(cached[63], images[63])
    assert max(asked) < 70_000  # not 64 times the first one
    asked.clear()
    assert fill_cache(images.__getitem__, 64, 60_000, "") is not None
    assert max(asked) <= 60_000


@pytest.mark.parametrize("changes", [{"cache": "none"}, {"cache_bytes": 10}])
def test_images_that_are_not_cached_are_read_once_beforehand(image_folder, changes):
    root = image_folder(BOTH)
    train = open_splits(config(root, **changes)).train
    train.cache_images()
    calls = []
    assert train.verify(lambda *call: calls.append(call))
    assert calls == [("reading data train", done, 5) for done in range(1, 6)]
    assert not train.verify(at_most=4)  # too many: left to botvision check
    (root / "train" / "dog" / "001.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train/dog/001\.png: not an image"):
        train.verify()


def test_broken_image_is_found_before_the_first_step(image_folder):
    root = image_folder(BOTH)
    (root / "train" / "dog" / "001.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train/dog/001\.png: not an image"):
        open_splits(config(root)).train.cache_images()


def test_listing_follows_links_to_folders(image_folder, tmp_path):
    root = image_folder({"train/a": 2})
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(root / "train")
    assert list_folder(tmp_path / "linked").files == ["train/a/000.png", "train/a/001.png"]


def test_draws_are_uniform_and_independent():
    values = uniform(4, 5, 2, np.arange(20000))
    assert values.shape == (20000, 4)
    assert values.min() >= 0
    assert values.max() < 1
    np.testing.assert_allclose(values.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(np.cov(values.T), np.eye(4) / 12, atol=0.003)
    assert np.array_equal(uniform(4, 5, 2, 77)[0], values[77])
    assert len(np.unique(keys(0, np.arange(100).repeat(100), np.tile(np.arange(100), 100)))) == 10000
