"""One mask image for each image: `images/a.jpg` and `masks/a.png`, of one category.

0 is ground, every other value one instance: 8 or 16 bits, grey, palette or colours (black and whatever is
transparent are ground). 255 beside small numbers is Pascal VOC's border, and ground, too. Masks whose values
are classes are refused where it shows. An image may have several masks instead, of one object each, as
`pieces` says. A photo that EXIF turns has the size of its mask, upright or as stored.
"""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from botvision.coco.annotations import NewFile
from botvision.coco.masks import boxes_of, encode
from botvision.data.cache import Progress, reported
from botvision.data.convert.entries import counted
from botvision.data.convert.mask_values import Values, is_voc_palette, without_border
from botvision.data.convert.pairs import Pairs
from botvision.data.convert.splits import Labels, splits_of_folders
from botvision.data.images import decode
from botvision.data.left_out import LeftOut
from botvision.io.errors import DataError, text_of

_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")
_ORIENTATION_TAG = 0x0112
Pixels = npt.NDArray[Any]


def read(
    root: Path, part: str, progress: Progress | None, category: str = "object", split_parts: bool = False
) -> Labels:
    """Read the masks of a folder.

    Args:
        root: the data set.
        part: only images below this folder of it.
        progress: called with what is being done, how many files are done and how many there are.
        category: the name of all instances.
        split_parts: parts of a value that do not touch are an instance each.

    Raises:
        DataError: one line, naming the file.
    """
    left_out = LeftOut()
    pairs = Pairs(root, "masks", _SUFFIXES, left_out)
    splits, notes = splits_of_folders(pairs.in_images(part))
    masks = pairs.of(sorted(file for files in splits.values() for file in files))
    pairs.leave_out_alone(part, masks)
    files = {file: [str(mask)] if mask else pairs.pieces_of(file) for file, mask in masks.items()}
    missing = [file for file, found in files.items() if not found]
    if missing:
        such = counted(len(missing), "such image")
        more = "" if len(missing) == len(files) else "; --part takes a folder of the data set alone"
        raise DataError(f"{root / missing[0]}: nothing of the same name in masks/ ({such}){more}")
    reader = _Masks(split_parts)
    records = {split: NewFile([category]) for split in splits}
    images = [(split, file) for split, files in splits.items() for file in files]
    for split, file in reported(images, "converting", progress):
        reader.read(root, file, files[file], records[split])
    notes += reader.notes(root)
    guessed = [  # by the beginning of a name, which may be that of a missing image
        f"{found[0]} for {file}"
        for file, found in files.items()
        if not masks[file] and len(found) == 1 and Path(found[0]).name.startswith(Path(file).stem)
    ]
    if guessed:
        notes.append(
            f"with a mask of a longer name: {counted(len(guessed), 'image')}, {guessed[0]} the first"
        )
    return Labels(records, [*notes, *pairs.alike.notes(), *left_out.notes()])


class _Masks:
    """Masks to objects; counts what the user must know of."""

    def __init__(self, split_parts: bool) -> None:
        self._split_parts, self._counts, self._values = split_parts, Counter[str](), Values()

    def read(self, root: Path, file: str, masks: list[str], records: NewFile) -> None:
        """Add an image and its objects: each value of its only mask, or each of its masks."""
        upright = decode(root / file).whole
        size = upright
        for number, mask in enumerate(masks):
            path = root / mask
            pixels, voc_palette = _mask_pixels(path, upright)
            if number == 0 and pixels.shape != upright:
                size = decode(root / file, upright=False).whole
            if pixels.shape != size:
                raise _misfit(path, pixels.shape, upright)
            _check_edges(pixels, path)
            bare = without_border(pixels, voc_palette)
            self._counts["borders"] += bare is not pixels
            values = tuple(np.unique(bare[bare != 0]).tolist())
            if len(masks) == 1:
                self._values.add(values, voc_palette, path)
            elif len(values) > 1:
                many = f"{file} has {len(masks)} masks, expected one object in each"
                raise DataError(f"{path}: {len(values)} values, but {many}")
            if number == 0:
                self._counts["turned"] += pixels.shape == upright and _fits_as_stored(root / file, upright)
                records.add_image(file, pixels.shape)
            _add_objects(bare, self._split_parts, records, self._counts)
        self._counts["in pieces"] += len(masks) > 1

    def notes(self, root: Path) -> list[str]:
        """What was guessed. Raises DataError where the values are those of classes."""
        return [*([] if self._split_parts else self._values.check(root)), *_notes(self._counts)]


def _notes(counts: Counter[str]) -> list[str]:
    notes = []
    if counts["in pieces"]:
        notes.append(f"with several masks, of one object each: {counted(counts['in pieces'], 'image')}")
    if counts["borders"]:
        border = "255 beside small numbers is taken as border, not as an object"
        notes.append(f"{border}: {counted(counts['borders'], 'mask')}")
    if counts["several"]:
        notes.append(
            f"of several separate parts: {counts['several']:,} of {counts['objects']:,} objects, since each "
            "value of a mask is one object, not a class; --split-parts makes each part one"
        )
    if counts["empty"]:
        notes.append(f"masks of ground alone, so without objects: {counts['empty']:,} of {counts['masks']:,}")
    if 2 * counts["whole"] > counts["masks"]:
        notes.append(
            f"as large as its image: an object of {counts['whole']:,} of {counts['masks']:,} masks; is their "
            "ground another value than 0?"
        )
    if counts["turned"]:
        notes.append(
            "turned by EXIF, with a mask that fits both ways, so taken as upright: "
            f"{counted(counts['turned'], 'image')}"
        )
    return notes


def _misfit(mask: Path, size: tuple[int, ...], upright: tuple[int, int]) -> DataError:
    return DataError(f"{mask}: {size[0]} x {size[1]} pixels, but its image has {upright[0]} x {upright[1]}")


def _fits_as_stored(path: Path, size: tuple[int, ...]) -> bool:
    """Whether EXIF turns a photo, and its mask has the size that it has without."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9) and image.size[::-1] == size
    except Exception:  # metadata too broken to read: upright
        return False


def _add_objects(pixels: Pixels, split_parts: bool, records: NewFile, counts: Counter[str]) -> None:
    parts, values = _parts(pixels)
    several = np.unique(values, return_counts=True)[1] > 1
    planes = parts if split_parts else pixels
    whole = False
    for value in np.unique(planes[planes != 0]).tolist():
        mask = torch.from_numpy(planes == value)[None]
        left, top, right, bottom = boxes_of(mask)[0].tolist()
        records.add(0, [left, top, right - left, bottom - top], int(mask.sum()), encode(mask)[0])
        whole |= (right - left, bottom - top) == pixels.shape[::-1]
    counts.update(masks=1, empty=int(not len(several)), whole=int(whole))
    counts["objects"] += len(several)
    counts["several"] += 0 if split_parts else int(several.sum())


def _parts(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Number the connected parts (8 neighbours) of equal values, from 1 on; and the value of each part.

    Runs of each row are joined to those that they touch in the row below.
    """
    height, width = pixels.shape
    row = width + 2
    flat = np.pad(pixels, ((0, 0), (1, 1))).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    kept = flat[edges] != 0
    starts, stops = edges[kept], np.append(edges[1:], flat.size)[kept]
    low = np.searchsorted(stops, starts + row, "left")
    count = np.maximum(np.searchsorted(starts, stops + row, "right") - low, 0)
    upper = np.repeat(np.arange(len(starts)), count)
    lower = np.arange(len(upper)) + np.repeat(low - np.cumsum(count) + count, count)
    same = flat[starts[upper]] == flat[starts[lower]]
    upper, lower = upper[same], lower[same]
    part, before = np.arange(len(starts)), None
    while before is None or (part != before).any():
        before = part.copy()
        least = np.minimum(before[upper], before[lower])
        np.minimum.at(part, before[upper], least)
        np.minimum.at(part, before[lower], least)
        part = part[part]
    first, numbers = np.unique(part, return_inverse=True)
    out = np.zeros(flat.size, dtype=np.int32)
    out[flat != 0] = np.repeat(numbers.astype(np.int32) + 1, stops - starts)
    return out.reshape(height, row)[:, 1:-1], flat[starts[first]]


def _check_edges(pixels: Pixels, path: Path) -> None:
    """Refuse soft edges: most values are nowhere two pixels wide, and touch other values."""
    values = np.unique(pixels[pixels != 0])
    first, down, right = pixels[:-1, :-1], pixels[1:, :-1], pixels[:-1, 1:]
    wide = (first == down) & (first == right) & (first == pixels[1:, 1:])
    thin = np.setdiff1d(values, first[wide])
    if len(thin) < 2 or 2 * len(thin) <= len(values):
        return
    touching = np.zeros(pixels.shape, dtype=bool)
    for one, other, here, there in (
        (pixels[1:], pixels[:-1], touching[1:], touching[:-1]),
        (pixels[:, 1:], pixels[:, :-1], touching[:, 1:], touching[:, :-1]),
    ):
        apart = (one != other) & (one != 0) & (other != 0)
        here |= apart
        there |= apart
    if touching[np.isin(pixels, thin)].mean() > 0.5:
        raise DataError(
            f"{path}: {len(thin)} of its {len(values)} values lie only along edges, as soft edges do "
            "(resized, smoothed or from JPEG), expected one value for each object: a threshold helps"
        )


def _mask_pixels(path: Path, upright: tuple[int, int]) -> tuple[Pixels, bool]:
    """(H, W) of whole numbers as stored: a palette's indices, 16 bits unscaled; colours as one number.

    And whether the palette is Pascal VOC's.

    Nothing of another size than the image's, upright or turned, is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                frames, mode, size = getattr(image, "n_frames", 1), image.mode, image.size[::-1]
                if sorted(size) != sorted(upright):
                    raise _misfit(path, size, upright)
                if frames > 1:
                    raise DataError(f"{path}: holds {frames} pictures, expected one mask")
                if image.format == "JPEG":
                    raise DataError(f"{path}: is JPEG, which changes a mask's values, expected PNG or TIFF")
                pixels, voc_palette = np.asarray(image), is_voc_palette(image)
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly every type
        raise DataError(f"{path}: cannot be read as an image ({text_of(error)})") from error
    if pixels.ndim == 3 and mode in ("RGB", "RGBA", "LA"):
        return _one_number(pixels, mode, path), False
    if np.issubdtype(pixels.dtype, np.floating):  # as ImageJ stores label maps
        with np.errstate(invalid="ignore"):
            whole = pixels.astype(np.int32)
        pixels = whole if (whole == pixels).all() else pixels
    if pixels.ndim != 2 or not (np.issubdtype(pixels.dtype, np.integer) or pixels.dtype == bool):
        shape = " x ".join(map(str, pixels.shape))
        raise DataError(f"{path}: {shape} {pixels.dtype}, expected one whole number for each pixel")
    return pixels, voc_palette


def _one_number(pixels: Pixels, mode: str, path: Path) -> Pixels:
    """Colours as numbers, greys as their value; 0 where alpha is 0, unless it is so everywhere."""
    colours = pixels[..., : 1 if mode == "LA" else 3].astype(np.int64)
    grey = (colours == colours[..., :1]).all()
    numbers = colours[..., 0] if grey else colours @ np.array([65536, 256, 1])
    alpha = pixels[..., -1] if mode != "RGB" else np.zeros(1)
    if alpha.min() == alpha.max():
        return numbers
    if set(np.unique(alpha).tolist()) != {0, 255}:
        raise DataError(f"{path}: its alpha channel has soft edges, expected 0 and 255 alone")
    return np.where(alpha == 0, 0, numbers if numbers[alpha != 0].any() else 1)
