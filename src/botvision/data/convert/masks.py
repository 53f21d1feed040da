"""One mask image for each image: `images/a.jpg` and `masks/a.png`.

0 is ground, every other value one instance (8 or 16 bits, grey or palette). One category. Masks whose values
are classes look the same and would give one instance for each class: they are not what is meant.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from botvision.coco.annotations import NewFile
from botvision.coco.masks import boxes_of, encode
from botvision.data.cache import Progress
from botvision.data.convert.pairs import read_pairs
from botvision.data.convert.splits import Labels
from botvision.io.errors import DataError

_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")


def read(root: Path, part: str, progress: Progress | None, category: str = "object") -> Labels:
    """Read the masks of a folder.

    Args:
        root: the data set.
        part: only images below this folder of it.
        progress: called with what is being done, how many files are done and how many there are.
        category: the name of all instances.
    """
    records = NewFile([category])
    read_pairs(root, part, "masks", _SUFFIXES, records, _read_mask, progress)
    return Labels({"": records})


def _read_mask(path: Path, size: tuple[int, int], records: NewFile) -> None:
    pixels = _mask_pixels(path)
    if pixels.shape != size:
        raise DataError(
            f"{path}: {pixels.shape[0]} x {pixels.shape[1]} pixels, but its image has {size[0]} x {size[1]}"
        )
    for value in np.unique(pixels[pixels != 0]).tolist():
        mask = torch.from_numpy(pixels == value)[None]
        left, top, right, bottom = boxes_of(mask)[0].tolist()
        records.add(0, [left, top, right - left, bottom - top], int(mask.sum()), encode(mask)[0])


def _mask_pixels(path: Path) -> npt.NDArray[Any]:
    """(H, W) of whole numbers as stored: a palette's indices, 16 bits unscaled."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from error
    if pixels.ndim != 2 or not (np.issubdtype(pixels.dtype, np.integer) or pixels.dtype == bool):
        shape = " x ".join(map(str, pixels.shape))
        raise DataError(f"{path}: {shape} {pixels.dtype}, expected one whole number for each pixel")
    return pixels
