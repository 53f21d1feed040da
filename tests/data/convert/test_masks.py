"""Mask images as COCO JSON."""

from pathlib import Path

import hotcoco
import numpy as np
import pytest
from PIL import Image

from botvision.coco.read import read_coco
from botvision.data.convert.folder import to_coco
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError
from tests.data.convert.files import SIZE, picture


def test_instance_masks(tmp_path: Path) -> None:
    """16-bit values, several separate parts, palette masks; the masks come back as they were."""
    source = ShapesSource(seed=1, split="train", count=6, num_classes=3, size=SIZE)
    for index in range(6):
        picture(tmp_path / "images" / "deep" / f"{index}.jpg")
        values = np.zeros(SIZE, dtype=np.uint16 if index % 2 else np.uint8)
        for number, mask in enumerate(source.instances(index)["masks"].numpy()):
            values[mask > 0] = 10 + number * (250 if index % 2 else 1)
        path = tmp_path / "masks" / "deep" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    done = to_coco("masks", tmp_path, tmp_path / "all.json", category="cell")
    assert (done.images, done.categories, done.notes) == (6, ["cell"], [])
    file = read_coco(done.files[""])
    assert file.problems == []
    coco = hotcoco.COCO(str(done.files[""]))
    for index, record in enumerate(file.images):
        assert record.file == f"images/deep/{index}.jpg"
        truth = {mask.tobytes() for mask in source.instances(index)["masks"].numpy()}
        found = [coco.annToMask(a) for a in coco.load_anns(coco.get_ann_ids(img_ids=[record.id]))]
        assert {np.ascontiguousarray(mask).tobytes() for mask in found} == truth
        assert len(found) == len(truth)


def test_masks_that_cannot_be_meant(tmp_path: Path) -> None:
    image, mask = picture(tmp_path / "images" / "a.png"), tmp_path / "masks" / "a.png"
    with pytest.raises(DataError, match=r"a.png: nothing of the same name in masks/ \(1 such image"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    picture(mask)
    with pytest.raises(DataError, match=r"masks/a.png: 40 x 60 x 3 uint8, expected one whole number"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    Image.fromarray(np.zeros((4, 6), dtype=np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"masks/a.png: 4 x 6 pixels, but its image has 40 x 60"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    mask.write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"masks/a\.png: cannot be read"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=r"images/a\.png"):
        to_coco("masks", tmp_path, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
