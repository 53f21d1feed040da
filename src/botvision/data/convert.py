"""Folders of other tools to COCO JSON, which all else reads.

Three kinds, by what lies beside the images:

- "masks": one mask image for each image, `images/a.jpg` and `masks/a.png`: 0 is ground, every other value one
  instance (8 or 16 bits, grey or palette). One category. Masks whose values are classes look the same and
  would give one instance for each class: they are not what is meant.
- "yolo": `images/a.jpg` and `labels/a.txt`, names in `data.yaml` (or `classes.txt`): boxes, or polygons where
  a line has more than four numbers. Read here: hotcoco's own reader drops the files' suffixes and images
  without labels, and refuses polygons.
- "voc": `Annotations/*.xml` and `JPEGImages/`, boxes, through hotcoco's reader, which makes objects marked
  as difficult crowds: ignored in evaluation, never trained on.

For the first two, folders may be nested as YOLO's are (`images/train/a.jpg`, `train/images/a.jpg`): the last
folder called images in a path is replaced by labels or masks. Boxes without masks train a Faster R-CNN.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hotcoco
import numpy as np
import numpy.typing as npt
import torch
import yaml
from PIL import Image

from botvision.coco.annotations import NewFile
from botvision.coco.masks import boxes_of, encode, polygons_to_rles, rle_areas
from botvision.data.cache import Progress, reported
from botvision.data.images import has_image_suffix, read_image
from botvision.io.errors import DataError
from botvision.io.files import write_text

FolderKind = Literal["masks", "yolo", "voc"]
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
_ROUNDING = 1e-3  # of the image: what a box may reach beyond its edge, from coordinates with few digits


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        path: the COCO JSON.
        root: the folder that its file names are relative to.
        images: number of images.
        annotations: number of instances.
        categories: names, in the order of their ids 1, 2, ...
        unlabelled: images that had no label file, taken as images without objects.
    """

    path: Path
    root: Path
    images: int
    annotations: int
    categories: list[str]
    unlabelled: int


def to_coco(
    kind: FolderKind,
    folder: str | Path,
    out: str | Path,
    *,
    part: str = "",
    category: str = "object",
    progress: Progress | None = None,
) -> Conversion:
    """Write a folder's labels as COCO JSON; the images stay where they are.

    Args:
        kind: what lies beside the images, see the module.
        folder: the data set; the JSON's file names are relative to it.
        out: the JSON to write.
        part: only images below this folder of it, such as "images/train".
        category: the name of all instances of kind "masks".
        progress: called with what is being done, how many files are done and how many there are.

    Raises:
        DataError: one line naming the file (and line) that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if kind == "voc":
        content, unlabelled = _voc(root, part), 0
    else:
        records = NewFile([category] if kind == "masks" else _yolo_names(root))
        unlabelled = _pairs(root, part, kind, records, progress)
        content = records.to_dict()
    write_text(out, json.dumps(content))
    names = [str(entry["name"]) for entry in content["categories"]]
    counts = len(content["images"]), len(content["annotations"])
    return Conversion(Path(out), root, *counts, names, unlabelled)


def _pairs(root: Path, part: str, kind: FolderKind, records: NewFile, progress: Progress | None) -> int:
    """Read every image and what belongs to it; returns the number of images without a label file."""
    beside, suffixes = ("masks", _MASK_SUFFIXES) if kind == "masks" else ("labels", (".txt",))
    files = list(_image_files(root, part, beside))
    missing = []
    for file, twin in reported(files, "converting", progress):
        path = root / file
        image = read_image(path)
        records.add_image(file.as_posix(), (image.height, image.width))
        label = next((p for p in (root / twin.with_suffix(s) for s in suffixes) if p.is_file()), None)
        if label is None:
            missing.append(path)
        elif kind == "masks":
            _read_mask(label, (image.height, image.width), records)
        else:
            _read_labels(label, (image.height, image.width), records)
    if missing and (kind == "masks" or len(missing) == len(files)):
        raise DataError(f"{missing[0]}: nothing of the same name in {beside}/ ({len(missing)} such images)")
    return len(missing)


def _image_files(root: Path, part: str, twin: str) -> Iterator[tuple[Path, Path]]:
    """Each image below a folder called images, and where its twin would lie; both relative to the root."""
    start, found = root / part, False
    for path in sorted(start.rglob("*")):
        file = path.relative_to(root)
        folders = list(file.parent.parts)
        if "images" not in folders or not has_image_suffix(path.name) or not path.is_file():
            continue
        found = True
        last = len(folders) - 1 - folders[::-1].index("images")
        yield file, Path(*folders[:last], twin, *folders[last + 1 :], path.name)
    if not found:
        raise DataError(f"{start}: no images in a folder called images")


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


def _yolo_names(root: Path) -> list[str]:
    for path in (root / "classes.txt", root / "labels" / "classes.txt"):
        if path.is_file():
            return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    places = [*sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml")), *sorted(root.glob("labels/*.yaml"))]
    for path in places:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeError) as error:
            raise DataError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[k] for k in range(len(names))]
        if isinstance(names, list) and names:
            return [str(name) for name in names]
    raise DataError(f"{root}: no data.yaml with names: and no classes.txt, so the classes have no names")


def _read_labels(path: Path, size: tuple[int, int], records: NewFile) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeError as error:
        raise DataError(f"{path}: no text") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {number}"
        try:
            category, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise DataError(f"{where}: {line[:60]!r}, expected a class number and coordinates") from error
        if not 0 <= category < len(records.categories):
            raise DataError(f"{where}: class {category}, expected 0..{len(records.categories) - 1}")
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise DataError(f"{where}: {len(values)} coordinates, expected 4 (a box) or 3 or more points")
        if not all(math.isfinite(value) for value in values):
            raise DataError(f"{where}: {line[:60]!r} holds what is no finite number")
        if len(values) == 4:
            _add_box(category, values, size, where, records)
        else:
            _add_polygon(category, values, size, where, records)


def _add_box(category: int, values: list[float], size: tuple[int, int], where: str, records: NewFile) -> None:
    x, y, width, height = values
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    left, top, right, bottom = _pixels(corners, size, where)
    if right <= left or bottom <= top:
        raise DataError(f"{where}: a box of width {width:g} and height {height:g} has no area")
    box = [left, top, right - left, bottom - top]
    records.add(category, box, box[2] * box[3])


def _add_polygon(
    category: int, values: list[float], size: tuple[int, int], where: str, records: NewFile
) -> None:
    scaled = _pixels(values, size, where)
    x, y = scaled[::2], scaled[1::2]
    area = int(rle_areas(polygons_to_rles([[scaled]], size))[0])
    if area == 0:
        raise DataError(f"{where}: the polygon has no area")
    records.add(category, [min(x), min(y), max(x) - min(x), max(y) - min(y)], area, [scaled])


def _pixels(values: list[float], size: tuple[int, int], where: str) -> list[float]:
    """YOLO's x, y, ..., which are parts of the image's width and height (pixels would be far above 1)."""
    if min(values) < -_ROUNDING or max(values) > 1 + _ROUNDING:
        raise DataError(f"{where}: reaches from {min(values):g} to {max(values):g}, expected 0..1")
    return [min(max(v, 0), 1) * size[1 - k % 2] for k, v in enumerate(values)]


def _voc(root: Path, part: str) -> dict[str, Any]:
    folder = root / part
    try:
        content = hotcoco.COCO.from_voc(str(folder)).dataset
    except (ValueError, OSError) as error:
        raise DataError(f"{folder}: {' '.join(str(error).split())}") from error
    if not content["images"]:
        raise DataError(f"{folder}: no XML file in it or in its Annotations/")
    images = folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else folder
    for record in content["images"]:
        record["file_name"] = (images / record["file_name"]).relative_to(root).as_posix()
    return {key: content[key] for key in ("images", "annotations", "categories")}
