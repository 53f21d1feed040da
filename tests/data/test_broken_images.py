"""Files that are no images: found before training, or left out by whoever reads the data first."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from botvision.config.data import DetectionDataConfig
from botvision.data.coco_folder import is_detection_data
from botvision.data.detection import open_detection, open_detection_split
from botvision.data.detection_check import check_detection
from botvision.data.images import decode
from botvision.data.loaders import build_loader
from botvision.data.samples import export_detection_samples
from botvision.io.errors import DataError
from tests.coco.annotation_scene import write_scene


def config(root: Path, **other: Any) -> DetectionDataConfig:
    return DetectionDataConfig(root=str(root), val_is_train=True, image_size=64, **other)


@pytest.mark.parametrize("cache", ["none", "auto", "memory"])
def test_an_image_that_cannot_be_read_is_found_before_training(tmp_path: Path, cache: str) -> None:
    write_scene(tmp_path)
    file = tmp_path / "train2017" / "b.png"
    file.write_bytes(file.read_bytes()[:200])
    data = open_detection(config(tmp_path, cache=cache)).train
    with pytest.raises(DataError, match=r"b\.png \(image id 30\): broken image"):
        (data.verify if cache == "none" else data.cache_images)()


@pytest.mark.parametrize("cache", ["none", "auto", "memory"])
@pytest.mark.parametrize("first", ["verify", "prepare", "loader"])
def test_what_cannot_be_read_is_left_out_whoever_asks(tmp_path: Path, cache: str, first: str) -> None:
    write_scene(tmp_path)
    file = tmp_path / "train2017" / "b.png"
    file.write_bytes(file.read_bytes()[:200])
    chosen = config(tmp_path, cache=cache, skip_broken=True)
    calls: list[Any] = []
    for data in (open_detection(chosen).train, open_detection(chosen).val):
        calls.clear()
        if first == "verify":
            assert data.verify(lambda *call: calls.append(call), at_most=1)
        elif first == "loader":
            loader = build_loader(data, 1, train=False, seed=0)
            assert [index for _, _, batch in loader for index in batch.tolist()] == [0, 1]
        data.cache_images(lambda *call: calls.append(call))
        assert (first == "loader") or calls[:3] == [(f"reading {data.name}", done, 3) for done in (1, 2, 3)]
        assert data.verify(at_most=1)
        assert [data.image_id(index) for index in range(len(data))] == [500, 77]
        assert [image["id"] for image in data.ground_truth()["images"]] == [500, 77]
        assert [problem.image_id for problem in data.skipped] == [30]
        assert (data.cache is not None) == (cache != "none")
    calls.clear()
    for split in ("train", "val"):  # what is evaluated on is final when it is open
        data = open_detection_split(chosen, split, progress=lambda *call: calls.append(call))
        assert [calls.pop(0)[1:] for _ in range(3)] == [(1, 3), (2, 3), (3, 3)]
        assert [image["id"] for image in data.ground_truth()["images"]] == [500, 77]
        assert len(data) == 2
    data = open_detection_split(chosen, "val")
    samples = export_detection_samples(data, 3, tmp_path / "samples")
    assert [data.image_id(index) for _, index in samples] == [500, 77]
    (tmp_path / "train2017" / "a.png").write_bytes(b"")
    assert "no image has annotations that can be used" in check_detection(chosen).problems[0]
    with pytest.raises(DataError, match="no image has annotations that can be used"):
        open_detection(chosen).train.cache_images()
    (tmp_path / "train2017" / "empty.png").write_bytes(b"")
    assert "none of the 3 images can be read" in check_detection(chosen).problems[0]
    with pytest.raises(DataError, match="none of the 3 images can be read"):
        open_detection_split(chosen, "val")


def test_pipes_are_named_and_not_waited_for(tmp_path: Path) -> None:
    annotations, image = write_scene(tmp_path), tmp_path / "train2017" / "b.png"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(DataError, match=r"b\.png \(image id 30\): no regular file"):
        open_detection(config(tmp_path)).train.cache_images()
    annotations.unlink()
    os.mkfifo(annotations)
    with pytest.raises(DataError, match=r"instances_train2017\.json: no regular file"):
        open_detection(config(tmp_path))
    annotations.rename(image.parent / "labels.json")
    assert not is_detection_data(image.parent)


def test_choices_in_reading_are_told_and_large_images_refused(tmp_path: Path) -> None:
    write_scene(tmp_path)
    image, pages = tmp_path / "train2017" / "b.png", [Image.new("RGB", (30, 50))] * 3
    pages[0].save(image, "TIFF", save_all=True, append_images=pages[1:])
    data = open_detection(config(tmp_path)).train
    data.cache_images()
    line = f"1 file with several pages or frames, of which the first is used ({image}: 3)"
    assert data.notes[-1] == line
    assert line in check_detection(config(tmp_path)).warnings
    with pytest.raises(DataError, match=r"a\.png \(image id 500\): 40 x 60 pixels .*, too large"):
        open_detection(config(tmp_path, max_pixels=2399)).train.cache_images()


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_told_by_its_content(tmp_path, monkeypatch, brand):
    monkeypatch.setattr("botvision.data.images._register_heif", lambda: None)
    content = b"\0\0\0\x18ftyp" + brand + bytes(120)
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for source in (path, content, io.BytesIO(content)):
        with pytest.raises(DataError, match=r"cannot be read \(HEIC, without pillow-heif\)"):
            decode(source)


@pytest.mark.parametrize(
    ("file", "why"), [("c.heic", r"\(HEIC, without pillow-heif\)"), ("d.dng", "camera raw")]
)
def test_a_file_under_another_name_is_known_by_its_path(tmp_path, file, why):
    path = tmp_path / file
    path.write_bytes(b"junk" * 40)
    with pytest.raises(DataError, match=rf"{file} \(image id 2\): .*{why}"):
        decode(path, f"{path} (image id 2)")


@pytest.mark.parametrize("name", ["a.jpg", "a.heic", "a.dng", "a.jxl"])
def test_empty_files_are_said_to_be_empty(tmp_path, name):
    path = tmp_path / name
    path.touch()
    with path.open("rb") as file:
        for source in (path, b"", file):
            with pytest.raises(DataError, match="empty file, expected an image"):
                decode(source, str(path))
