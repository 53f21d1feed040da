"""Small files of other tools' data sets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from botvision.data.convert.folder import Conversion

SIZE = (40, 60)


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8)).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def splits_of(done: Conversion) -> dict[str, list[str]]:
    """File names of each split as its JSON has them."""
    contents = {split: json.loads(path.read_text()) for split, path in done.files.items()}
    return {name: [image["file_name"] for image in content["images"]] for name, content in contents.items()}
