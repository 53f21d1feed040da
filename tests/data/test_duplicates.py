"""Pictures that are the same, or nearly: found, told, and never on both sides of a split."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.data import duplicates
from botvision.data.check import check_data
from botvision.data.classification import open_splits
from botvision.data.counter_rng import keys
from botvision.data.detection import DetectionSplits, open_detection
from botvision.data.duplicates import (
    FLAT,
    SIDE,
    Pictures,
    grouped,
    repeated_pictures,
    same_pictures,
    thumbnail,
)
from botvision.data.images import read_image
from botvision.io.errors import DataError


def photo(seed: int) -> Image.Image:
    """A smooth picture of soft spots, none like another."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((128, 96), Image.Resampling.BICUBIC)


def picture_groups(folder: Path, names: list[str]) -> list[int]:
    paths = [folder / name for name in names]

    def read(place: int) -> Image.Image:
        if not paths[place].is_file():
            raise DataError(f"{paths[place]}: no such file")
        return Image.open(paths[place])

    return same_pictures(paths, read)[1].tolist()


def unread(place: int) -> Image.Image:
    pytest.fail(f"picture {place} was read")


def test_a_picture_is_found_again_whatever_it_is_saved_as(tmp_path: Path) -> None:
    first = photo(1)
    first.save(tmp_path / "a.png")
    first.save(tmp_path / "b.jpg", quality=40)
    first.resize((64, 48)).save(tmp_path / "c.png")
    first.point(lambda value: 20 + value * 0.8).save(tmp_path / "d.png")  # brighter, with less contrast
    photo(2).save(tmp_path / "e.png")
    (tmp_path / "f.png").hardlink_to(tmp_path / "e.png")
    (tmp_path / "g.png").symlink_to(tmp_path / "e.png")
    names = ["e.png", "a.png", "b.jpg", "gone.png", "c.png", "d.png", "f.png", "g.png", "also gone.png"]
    assert picture_groups(tmp_path, names) == [0, 1, 1, 3, 1, 1, 0, 0, 8]


def test_without_reading_pictures_only_the_same_files_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    photo(1).save(tmp_path / "c.jpg")
    other = bytearray((tmp_path / "a.png").read_bytes())
    other[-1] ^= 1  # of the same size
    (tmp_path / "d.png").write_bytes(other)
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.jpg", "d.png", "a.png")]
    read_whole = []
    original = duplicates.digest
    monkeypatch.setattr(duplicates, "digest", lambda data: read_whole.append(len(data)) or original(data))
    same, nearly = same_pictures(paths, lambda place: Image.open(paths[place]))
    assert (same.tolist(), nearly[2]) == ([0, 0, 2, 3, 0], 0)  # a file of an own size is looked at alone
    assert len(read_whole) == 4
    monkeypatch.setattr(duplicates, "MOST", 4)
    for groups in same_pictures(paths, unread):
        assert groups.tolist() == [0, 0, 2, 3, 0]
    content = bytearray(np.random.default_rng(0).bytes(200_000))
    for name, place in (("a", None), ("b", None), ("c", 0), ("d", -1), ("e", 15 * (200_000 - 4096) // 15)):
        (tmp_path / name).write_bytes(content)
        if place is not None:
            other = bytearray(content)
            other[place] ^= 1
            (tmp_path / name).write_bytes(other)
    assert same_pictures([tmp_path / name for name in "abcde"], unread)[0].tolist() == [0, 0, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        os.mkfifo(tmp_path / name)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]

    def read(place: int) -> Image.Image:
        return read_image(paths[place])

    assert same_pictures(paths, read)[1].tolist() == [0, 1]


def test_groups_go_through_others_and_all_rows_are_compared() -> None:
    """A chain of 600 thumbnails, each nearly its neighbour, is one group; noise is not."""
    values = np.random.default_rng(0).normal(0, 50, (2, SIDE**2)).astype(np.float32)
    angles = np.linspace(0, np.pi / 2, 600)[:, None]
    chain = (np.cos(angles) * values[0] + np.sin(angles) * values[1]).astype(np.float32)
    order = np.random.default_rng(1).permutation(600)
    assert not grouped(range(600), chain[order]).any()
    noise = np.random.default_rng(2).normal(0, 50, (600, SIDE**2)).astype(np.float32)
    assert grouped(range(600), noise).tolist() == [*range(600)]
    assert grouped([7, 8, 7, 9], noise[:4]).tolist() == [0, 1, 0, 3]


def test_flat_pictures_are_not_told_by_their_thumbnails() -> None:
    greys = [Image.new("RGB", (40, 30), (level,) * 3) for level in (0, 0, 90, 255)]
    assert grouped(range(4), np.stack([thumbnail(grey) for grey in greys])).tolist() == [0, 1, 2, 3]
    assert thumbnail(photo(1)).std() > FLAT


def test_lines_on_what_is_there_twice() -> None:
    splits = {"val": Pictures(), "train": Pictures()}
    for split, name, seed, content in [
        ("train", "a", 1, b"1"), ("train", "b", 2, b"2"), ("train", "c", 1, b"1"), ("train", "d", 2, b"2b"),
        ("val", "x", 1, b"1"), ("val", "y", 3, b"3"), ("val", "z", 2, b"2c"),
    ]:  # fmt: skip
        splits[split].add(name, content, photo(seed))
    assert repeated_pictures("image", splits) == [
        "1 image of train is there twice: c = a",
        "1 image of train is nearly the same picture as another there: d and b",
        "1 image of val is also in train: x = a",
        "1 image of val is nearly the same picture as one of train: z and b",
    ]
    assert repeated_pictures("image", {"train": Pictures()}) == repeated_pictures("image", {}) == []


def written(root: Path, seeds: list[int], annotated: list[bool] | None = None) -> Path:
    """A data set of one file; pictures of the same seed are the same picture under two names and formats."""
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for place, seed in enumerate(seeds):
        photo(seed).save(root / "images" / name_of(place))
        images.append({"id": place + 1, "file_name": name_of(place), "height": 96, "width": 128})
        if annotated is None or annotated[place]:
            box = {"id": place + 1, "image_id": place + 1, "category_id": 1, "bbox": [5, 5, 40, 40]}
            annotations.append(box | {"iscrowd": 0, "area": 1600})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "spot"}]}
    (root / "spots.json").write_text(json.dumps(content))
    return root


def name_of(place: int) -> str:
    return f"{place}.{'png' if place % 2 else 'jpg'}"


def opened(root: Path, **other: Any) -> DetectionSplits:
    return open_detection(DetectionDataConfig(root=str(root), image_size=64, **other))


def ids(splits: DetectionSplits) -> tuple[set[int], set[int]]:
    train, val = ([data.image_id(k) for k in range(len(data))] for data in (splits.train, splits.val))
    return set(train), set(val)


def ids_by_hash(count: int, held: int) -> set[int]:
    numbers = np.arange(1, count + 1)
    return set(numbers[np.argsort(keys(numbers), kind="stable")[:held]].tolist())


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.8])
def test_the_same_picture_is_never_on_both_sides(tmp_path: Path, fraction: float) -> None:
    seeds = [k // 2 for k in range(20)]
    splits = opened(written(tmp_path, seeds), val_fraction=fraction)
    train, val = ids(splits)
    assert {seeds[k - 1] for k in train}.isdisjoint({seeds[k - 1] for k in val})
    assert train | val == {*range(1, 21)}
    assert len(val) == round(20 * fraction)
    assert splits.train.notes[0].endswith(
        "10 images are the same as others, or nearly, and stay on their side"
    )
    assert ids(opened(tmp_path, val_fraction=fraction)) == (train, val)


def test_a_file_that_is_listed_twice_is_on_one_side(tmp_path: Path) -> None:
    root = written(tmp_path, [*range(10)])
    content = json.loads((root / "spots.json").read_text())
    content["images"] += [image | {"id": image["id"] + 100} for image in content["images"]]
    content["annotations"] += [
        each | {"id": each["id"] + 100, "image_id": each["image_id"] + 100} for each in content["annotations"]
    ]
    (root / "spots.json").write_text(json.dumps(content))
    train, val = ids(opened(root, val_fraction=0.4))
    assert {k % 100 for k in train}.isdisjoint({k % 100 for k in val})
    assert len(val) == 8


def test_without_doubles_the_ids_decide_alone(tmp_path: Path) -> None:
    """As they did before pictures were compared: the images that old runs were measured on."""
    splits = opened(written(tmp_path, [*range(20)]), val_fraction=0.3)
    assert ids(splits)[1] == ids_by_hash(20, 6)
    assert splits.train.notes == []


def test_where_all_is_nearly_the_same_the_files_decide_and_it_is_said(tmp_path: Path) -> None:
    splits = opened(written(tmp_path / "a", [1] * 10), val_fraction=0.5)  # two files, five times each
    assert [len(part) for part in ids(splits)] == [5, 5]
    root = written(tmp_path / "b", [1] * 10)
    for place in range(10):  # the same view, each a file of its own
        picture = photo(1)
        picture.putpixel((place, 0), (255, 255, 255))
        picture.save(root / "images" / name_of(place))
    splits = opened(root, val_fraction=0.3)
    assert [len(part) for part in ids(splits)] == [7, 3]
    assert splits.train.notes == ["b: 10 images are nearly the same picture, so what is held back flatters"]


def test_copies_of_one_file_cannot_be_held_back(tmp_path: Path) -> None:
    root = written(tmp_path, [1] * 4)
    for place in range(4):
        (root / "images" / name_of(place)).write_bytes((root / "images" / "1.png").read_bytes())
    with pytest.raises(DataError, match="all 4 images are the same picture: none can be held back"):
        opened(root)
    assert not check_data(root).ok


def test_what_is_held_back_can_be_measured_on(tmp_path: Path) -> None:
    held = ids_by_hash(20, 3)
    annotated = [number not in held for number in range(1, 21)]  # none of those that come first
    splits = opened(written(tmp_path / "a", [*range(20)], annotated))
    assert held < ids(splits)[1]
    assert len(ids(splits)[1]) == 4
    assert splits.val.source.annotated[splits.val.indices].any()
    annotated = [number == min({*range(1, 21)} - held) for number in range(1, 21)]
    only = opened(written(tmp_path / "b", [*range(20)], annotated))
    assert only.train.notes == ["b: none of the images held back has objects: AP is not measured"]


def test_class_folders_whose_splits_share_pictures_are_said(
    tmp_path: Path, zipped: Callable[..., Path]
) -> None:
    """Under another name, and saved again; a limit and a zip change nothing."""
    root, seed = tmp_path / "photos", 0
    for folder in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (root / folder).mkdir(parents=True)
        for name in "ab":
            photo(seed := seed + 1).save(root / folder / f"{name}.png")
    assert open_splits(DataConfig(root=str(root))).shared() == []
    photo(1).save(root / "val" / "cat" / "c.png")
    photo(4).save(root / "val" / "dog" / "c.jpg", quality=60)
    seen: list[tuple[int, int]] = []
    for limit, given, first in ((None, root, f"{root}/"), (6, zipped(root), f"{root}.zip:")):
        splits = open_splits(DataConfig(root=str(given), limit=limit))
        assert splits.shared(lambda _, done, total: seen.append((done, total))) == [
            f"1 image of val is also in train: {first}val/cat/c.png = {first}train/cat/a.png; "
            "what is measured flatters",
            f"1 image of val is nearly the same picture as one of train: {first}val/dog/c.jpg and "
            f"{first}train/dog/b.png; what is measured flatters",
        ]
        assert seen[-1] == (10, 10)
    shutil.rmtree(root / "val")
    assert open_splits(DataConfig(root=str(root))).shared() == []


def test_validation_images_saved_again_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's files of several folders: not the names and ids decide, which differ, but what is shown."""
    written(tmp_path, [1, 2, 3])
    (tmp_path / "later").mkdir()
    shutil.copy(tmp_path / "spots.json", tmp_path / "later" / "copy.json")
    content = json.loads((tmp_path / "spots.json").read_text())
    for k, image in enumerate(content["images"]):
        image["file_name"] = f"{k}.png"
        photo([7, 2, 8][k]).point(lambda value: 20 + value * 0.8).save(tmp_path / "later" / f"{k}.png")
    (tmp_path / "val.json").write_text(json.dumps(content))
    (line,) = opened(tmp_path, val_images="later").shared()
    assert line.startswith("1 image of val is nearly the same picture as one of train: ")
    assert f"{tmp_path / 'later' / '1.png'} (image id 2) and " in line
    monkeypatch.setattr("botvision.data.detection.VERIFIED", 5)  # only paths are compared, which differ
    assert opened(tmp_path, val_images="later").shared() == []
    (line,) = opened(tmp_path, val_annotations="later/copy.json", val_images="images").shared()
    assert line.startswith("3 images of val are also in train, such as ")


def test_of_too_many_images_to_look_at_a_line_says_that_only_the_same_files_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicates, "MOST", 2)
    names, note = ["a", "b", "c"], "of more than 2 images only the same files are found in train and val"
    assert duplicates.shared_with_train(names, 2, (np.arange(3),) * 2) == [note]
    assert duplicates.shared_with_train(names[:2], 1, (np.arange(2),) * 2) == []
