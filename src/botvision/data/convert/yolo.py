"""YOLO's labels: `images/a.jpg` and `labels/a.txt`, names in `data.yaml` (or `classes.txt`).

Boxes, or polygons where a line has more than four numbers. Read here: hotcoco's own reader drops the files'
suffixes and images without labels, and refuses polygons.
"""

import math
from pathlib import Path

import yaml

from botvision.coco.annotations import NewFile
from botvision.coco.masks import polygons_to_rles, rle_areas
from botvision.data.cache import Progress
from botvision.data.convert.pairs import read_pairs
from botvision.data.convert.splits import Labels
from botvision.io.errors import DataError

_ROUNDING = 1e-3  # of the image: what a box may reach beyond its edge, from coordinates with few digits


def read(root: Path, part: str, progress: Progress | None) -> Labels:
    """Read the labels of a folder.

    Args:
        root: the data set.
        part: only images below this folder of it.
        progress: called with what is being done, how many files are done and how many there are.
    """
    records = NewFile(_yolo_names(root))
    missing = read_pairs(root, part, "labels", (".txt",), records, _read_labels, progress)
    notes = [f"{missing} images have no label file: taken as images without objects"] if missing else []
    return Labels({"": records}, notes)


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
