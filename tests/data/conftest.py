"""Small data sets on disk."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Make = Callable[..., Path]


@pytest.fixture
def image_folder(tmp_path) -> Make:
    """Write root/<split>/<class>/<n>.png, each with a brightness of its own; {"train/cat": 3, ...}."""

    def make(counts: dict[str, int], size: tuple[int, int] = (8, 8), name: str = "data") -> Path:
        root, level = tmp_path / name, 0
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                level += 1
                pixels = np.random.default_rng(level).integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")
        return root

    return make


@pytest.fixture
def zipped() -> Callable[..., Path]:
    """Pack a folder, optionally below a top folder inside the zip."""

    def pack(root: Path, top: str = "") -> Path:
        target = root.with_suffix(".zip")
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, top + path.relative_to(root).as_posix())
            archive.writestr("__MACOSX/._junk.png", b"junk")
        return target

    return pack
