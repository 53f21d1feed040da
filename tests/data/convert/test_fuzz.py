"""Damaged folders of labels: converted, or refused in one line."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.data.convert.folder import FolderKind, to_coco
from botvision.io.errors import DataError
from tests.data.convert.files import SIZE, picture, write
from tests.data.convert.test_labelme import labels, shape
from tests.data.convert.test_voc import thing, xml

TEXT = b"nan|inf|-|1e400|{|&a |*a|<<: |\xff\xfe|\xef\xbb\xbf|\0|\n|: |- |? |---\n|\x1b[31m|!!python/name:a.b "
PIECES = [*TEXT.split(b"|"), b"[" * 2000, b"9" * 5000]
PIECES += [b"<", b"<part>", b"&x;", b"<!DOCTYPE a>", b"null", b"[]", b"true", b'"', b"\\ud800"]
OWN: dict[FolderKind, list[str]] = {
    "masks": ["masks"], "yolo": ["labels", "data.yaml"], "voc": ["xmls", "ImageSets/Main/train.txt"],
    "labelme": ["json"],
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[3:9, 4:20], mask[20:30, 10:20] = 3, 9
    for name in ("train/a", "train/b", "val/c"):
        picture(root / "images" / f"{name}.png")
        write(root / "labels" / f"{name}.txt", "0 .5 .5 .2 .2\n1 .1 .1 .5 .1 .5 .5\n")
        path = root / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
        write(root / "xmls" / f"{name}.xml", xml(thing("c&amp;t"), thing("dog", 1, 1, 9, 9), file=path.name))
        circle = shape("dog", kind="circle", points=[[9, 9], [9, 12]])
        write(root / "json" / f"{name}.json", labels(shape(), circle))
    write(root / "ImageSets" / "Main" / "train.txt", "train/a\nb\n")
    write(root / "ImageSets" / "Main" / "val.txt", "c\n")
    write(root / "data.yaml", "path: .\ntrain: images/train\nval: [images/val]\nnames: {0: cat, 1: dog}\n")
    return root


def damage(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start, stop = sorted(rng.choices(range(len(content) + 1), k=2))
    how = rng.randrange(7)
    if how == 0:
        content[start : start + 1] = bytes([rng.randrange(256)])
    elif how == 1:
        del content[start:]
    elif how == 2:
        content[start:start] = rng.choice(PIECES)
    elif how == 3:
        content[start:stop] = content[start:stop] * rng.choice([0, 2, 40])
    path.unlink()
    if how < 4:
        path.write_bytes(content)
    elif how == 4:
        path.symlink_to(rng.choice(["/", "/etc/hostname", "..", ".", path.name, "nowhere", "../../images"]))
    elif how == 5:
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", [*OWN])
def test_a_damaged_folder_is_converted_or_refused(sound: Path, tmp_path: Path, kind: FolderKind) -> None:
    rng, refused = random.Random(7), []
    for number in range(100):
        root = tmp_path / str(number)
        shutil.copytree(sound, root)
        folder, *others = OWN[kind]
        files = [*root.glob("images/*/*"), *2 * [*root.glob(f"{folder}/*/*")]]
        files += 4 * [root / other for other in others]
        damage(rng.choice(files), rng)
        try:
            to_coco(kind, root)
        except DataError as error:
            refused.append((root, str(error)))
    for root, message in refused:
        assert message.startswith(str(root))
        assert not (root / "annotations").exists()
    assert 20 < len(refused) < 95
