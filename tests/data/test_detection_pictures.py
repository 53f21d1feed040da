"""Files of detection images: JPEGs decoded smaller, EXIF orientation, other kinds of pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.config.data import DetectionDataConfig
from botvision.data.detection import open_detection
from botvision.io.errors import DataError
from tests.coco.annotation_scene import scene, write_scene


def config(root: Path, **other: Any) -> DetectionDataConfig:
    values: dict[str, Any] = {"val_is_train": True, "image_size": 64}
    return DetectionDataConfig(root=str(root), **(values | other))


def test_exif_orientation_follows_the_annotations(tmp_path: Path) -> None:
    content = scene()
    write_scene(tmp_path, content)
    exif = Image.Exif()
    exif[0x0112] = 6
    draws = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    stored = Image.fromarray(draws)
    stored.save(tmp_path / "train2017" / "a.png", exif=exif)  # stored 40 x 60, upright 60 x 40
    data = open_detection(config(tmp_path)).val
    assert (data.load(0).permute(1, 2, 0).numpy() == draws).all()
    stored = stored.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "train2017" / "a.png", exif=exif)  # stored 60 x 40, upright 40 x 60
    assert (data.load(0).permute(1, 2, 0).numpy() == draws).all()
    Image.fromarray(draws[:30]).save(tmp_path / "train2017" / "a.png", exif=exif)
    with pytest.raises(DataError, match=r"image id 500\): 60 x 30 pixels .* annotations say 40 x 60"):
        data.load(0)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("scale", [0.1, 0.3])
def test_jpegs_decoded_smaller_keep_their_place_and_their_way_up(
    tmp_path: Path, orientation: int, scale: float
) -> None:
    content = scene()
    content["images"] = [{"id": 500, "file_name": "a.jpg", "height": 408, "width": 600}]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 500 and not a["iscrowd"]]
    write_scene(tmp_path, content)
    rows, columns = np.mgrid[0:408, 0:600]
    pixels = np.stack([rows * 255 // 408, columns * 255 // 600, (rows + columns) // 4], axis=-1)
    turns = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    stored, turn, exif = Image.fromarray(pixels.astype(np.uint8)), turns[orientation], Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "train2017" / "a.jpg"
    (stored if turn is None else stored.transpose(turn)).save(path, exif=exif, quality=95)
    plain, cached = (
        open_detection(config(tmp_path, cache=cache, image_size=600, scale_jitter=(scale, scale))).train
        for cache in ("none", "memory")
    )
    cached.cache_images()
    for epoch in range(4):
        fast, slow = plain[(epoch, 0)], cached[(epoch, 0)]
        assert fast[0].shape == slow[0].shape == (3, round(408 * scale), round(600 * scale))
        assert (fast[0].int() - slow[0].int()).abs().max() <= 4
        assert all(torch.equal(fast[1][key], slow[1][key]) for key in fast[1])
    Image.fromarray(pixels[:204, :300].astype(np.uint8)).save(path)  # the half of what is annotated
    with pytest.raises(DataError, match=r"204 x 300 pixels .* annotations say 408 x 600"):
        plain[(0, 0)]


def test_grey_palette_and_transparent_files(tmp_path: Path) -> None:
    write_scene(tmp_path)
    data = open_detection(config(tmp_path)).val
    for mode in ("L", "LA", "P", "RGBA", "1", "I;16"):
        Image.new(mode, (60, 40)).save(tmp_path / "train2017" / "a.png")
        assert data.load(0).shape == (3, 40, 60)
