"""Data sets: what is found, how it is split, what is refused; and that the fast way equals the slow one."""

import os
import shutil
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.config.schema import ConfigError
from botvision.data.cache import fill_cache
from botvision.data.classification import DataConfig, open_split, open_splits
from botvision.data.counter_rng import keys, uniform
from botvision.data.sources import list_folder, list_zip
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


def test_the_same_picture_is_never_on_both_sides(image_folder, tmp_path):
    """Copies, and the same saved smaller, in a folder as in a zip; those under two classes are trained on."""
    root, rng = image_folder({"train/cat": 8, "train/dog": 8}), np.random.default_rng(5)
    for name in ("train/cat", "train/dog"):
        for path in (root / name).iterdir():
            path.unlink()
        for number in range(4):
            blocks = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(blocks).resize((96, 96), Image.Resampling.BICUBIC)
            picture.save(root / name / f"{number}.png")
            picture.resize((48, 48)).save(root / name / f"{number}-small.jpg")
    shutil.copy(root / "train/cat/0.png", root / "train/dog/cat.png")
    shutil.make_archive(str(tmp_path / "packed"), "zip", root)
    found = []
    for form in (root, tmp_path / "packed.zip"):
        splits = open_splits(DataConfig(root=str(form), val_fraction=0.3))
        names: dict[str, set[str]] = {"train": set(), "val": set()}
        for side, data in (("train", splits.train), ("val", splits.val)):
            for place in range(len(data)):
                *_, kind, file = data.name_of(place).split("/")
                names[side].add(kind + file[0])
        assert not names["train"] & names["val"]
        assert {len(splits.val), len(splits.train)} == {4, 13}
        assert "cat0" in names["train"]
        assert any(
            line.endswith("9 images are the same as others, or nearly, and stay on their side")
            for line in splits.notes
        )
        found.append(names)
    assert found[0] == found[1]


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
    with pytest.raises(DataError, match=r"data/test: class c not among the 2 trained on \(a, b\)"):
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
        ({"cat": 2}, {}, r"no train/ folder \(found cat\), expected train/<class>/<image>"),
        ({"images": 2, "masks": 2}, {}, "the labels look like mask images: botvision convert masks"),
        ({"JPEGImages": 2, "SegmentationClass": 2}, {}, "no train/ folder"),
        ({"train_set": 2, "test_set": 2}, {}, "no train/ folder"),
        ({"cat": 2, "dog": 0}, {}, "data: no images in class dog"),
        ({"cat": 2, "dog": 1}, {}, "class dog has 1 image, expected 2"),
        (
            {"train/a": 1, "train/b": 1, "val/a": 1, "val/c": 1},
            {},
            r"data/val: class c not among the 2 trained on \(a, b\)",
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


def test_folders_of_classes_without_a_train_folder_are_the_training_data(image_folder, zipped):
    root = image_folder({"cat": 20, "dog": 10, "dog/old": 1})
    shutil.copy(root / "cat" / "000.png", root / "cover.png")
    for path in (root, zipped(root, "photos/")):
        splits = open_splits(config(path))
        assert (splits.classes, splits.held_back) == (["cat", "dog"], True)
        assert torch.bincount(splits.train.targets).tolist() == [18, 10]
        assert torch.bincount(splits.val.targets).tolist() == [2, 1]
        hidden = [] if path == root else ["left out: 1 file, hidden (__MACOSX/._junk.png)"]
        assert splits.train.notes == [
            *hidden,
            "no train/ folder: 2 classes (cat, dog) found at the root",
            "no val/ or test/ folder: 10% of train will be held back",
            "left out: 1 file, in no class's folder (cover.png)",
        ]
        assert splits.val.notes == []


def test_splits_may_be_written_otherwise(image_folder):
    splits = open_splits(config(image_folder({"Training/a": 2, "Training/b": 1, "Testing/a": 1})))
    assert (len(splits.train), len(splits.val), splits.held_back) == (3, 1, False)
    root = image_folder({"Test/a": 3, "Test/b": 1}, name="other")
    assert len(open_split(config(root), "test", ["a", "b"])) == 4


def test_one_class_is_said_and_why_that_may_be(image_folder):
    (line,) = open_splits(config(image_folder({"train/x/cat": 2, "train/x/dog": 2, "val/x": 1}))).train.notes
    alone = "data/train: one class (x), there is nothing to tell apart"
    assert line.endswith(f"{alone}; its folders (cat, dog) lie one folder too deep")
    (line,) = open_splits(config(image_folder({"train/x": 2, "val/x": 1}, name="one"))).train.notes
    assert line.endswith("one/train: one class (x), there is nothing to tell apart")


def test_images_that_are_not_used_are_counted(image_folder):
    root = image_folder(BOTH)
    for name in ("train/cat/a.heic", "train/cat/._000.png", "train/.trash/dog/1.png", "train/dog/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"junk")
    splits = open_splits(config(root))
    assert splits.train.notes == [
        "left out: 2 files, hidden (train/.trash/dog/1.png, train/cat/._000.png)",
        "left out: 1 file, cannot be read (HEIC, without pillow-heif) (train/cat/a.heic)",
        "left out: 1 file, no image (train/dog/notes.txt)",
    ]
    for path in (root / "train" / "dog").glob("*.png"):
        path.rename(path.with_suffix(".heic"))
        path.with_suffix(".heic").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"no images in class dog; left out: 3 files, cannot be read \(HEIC"):
        open_splits(config(root))


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_choices_in_reading_are_counted_once_for_each_split(image_folder, cache):
    root = image_folder(BOTH)
    deep = Image.fromarray(np.full((8, 8), 4095, dtype=np.uint16))
    for name in ("train/cat/000.png", "train/cat/001.png", "val/dog/000.png"):
        deep.save(root / name)
    splits = open_splits(config(root, cache=cache))
    for split in (splits.train, splits.val):
        split.cache_images()
        split.verify()
    rule = "of 16 bits without a value above 4095, which is taken for white"
    names = [f"{root}/{name}: up to 4095" for name in ("train/cat/000.png", "train/cat/001.png")]
    assert splits.train.notes == [f"2 files {rule} ({', '.join(names)})"]
    assert splits.val.notes == [f"1 file {rule} ({root}/val/dog/000.png: up to 4095)"]


def test_a_limit_on_pixels_holds_for_training(image_folder, zipped):
    root = image_folder(BOTH)
    for path in (root, zipped(root)):
        with pytest.raises(
            DataError, match=r"train/cat/000\.png: 8 x 8 pixels .* data\.max_pixels allows more"
        ):
            open_splits(config(path, max_pixels=63)).train.cache_images()


def test_names_in_a_zip_may_have_backslashes_or_lead_from_the_root(image_folder, tmp_path):
    root = image_folder(BOTH)
    packed = tmp_path / "windows.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(root.rglob("*.png")):
            name = path.relative_to(root).as_posix()
            info = zipfile.ZipInfo("x")
            info.filename = "/" + name if "val" in name else name.replace("/", "\\")
            archive.writestr(info, path.read_bytes())
        archive.writestr("train/cat/000.png", b"another of that name")
    splits = open_splits(config(packed))
    assert (splits.classes, len(splits.train), len(splits.val)) == (["cat", "dog"], 5, 3)
    assert splits.train.notes == ["left out: 1 file, under a name that another has (train/cat/000.png)"]
    assert torch.equal(splits.train.load(4), open_splits(config(root)).train.load(4))


def test_names_with_backslashes_in_a_folder_are_paths(image_folder, tmp_path):
    root, flat = image_folder(BOTH), tmp_path / "unpacked"
    flat.mkdir()
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, flat / path.relative_to(root).as_posix().replace("/", "\\"))
    splits = open_splits(config(flat))
    assert (splits.classes, len(splits.train), len(splits.val)) == (["cat", "dog"], 5, 3)
    assert torch.equal(splits.train.load(4), open_splits(config(root)).train.load(4))


def test_files_beside_the_folder_in_a_zip_do_not_matter(image_folder, zipped):
    packed = zipped(image_folder(BOTH), "outer/")
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("README.md", "how they were taken")
        archive.writestr("cover.png", b"junk")
    splits = open_splits(config(packed))
    assert (splits.classes, len(splits.train)) == (["cat", "dog"], 5)
    assert "left out: 1 file, in no class's folder (cover.png)" in splits.train.notes


def test_large_members_of_a_zip_are_not_unpacked(image_folder, tmp_path):
    packed = tmp_path / "bomb.zip"
    root = image_folder(BOTH)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root).as_posix())
        archive.writestr("train/cat/readme.txt", bytes(2**26))
        archive.writestr("train/dog/z.png", bytes(2**26))
    splits = open_splits(config(packed, max_pixels=2**20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"z\.png: 67 MB unpacked, expected an image of at most 25 MB"):
            splits.train.load(5)
        listing = list_zip(packed)
        assert listing.unread(listing.files.index("train/cat/readme.txt")) == "no image"
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_pipes_among_the_images_are_refused_and_not_waited_for(image_folder):
    root = image_folder(BOTH)
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    os.mkfifo(root / "train" / "cat" / "pipe")
    with pytest.raises(DataError, match=r"train/cat/pipe\.png: no regular file"):
        open_splits(config(root)).train.cache_images()


def test_folders_that_links_lead_to_in_many_ways_are_listed_so_often_and_no_more(tmp_path):
    for level in range(12):  # 2 ** 12 ways to the last
        (tmp_path / str(level)).mkdir()
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1))
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "x.png").write_bytes(b"")
    assert 1 < len(list_folder(tmp_path / "0").files) <= 100
