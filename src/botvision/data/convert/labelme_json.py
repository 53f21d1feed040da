"""One JSON file of LabelMe, without the image."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from botvision.coco.problems import short
from botvision.data.convert.label_files import bytes_in
from botvision.data.convert.labelled import OtherFileError
from botvision.io.errors import DataError

_MOST_BYTES = 256 << 20  # with the image itself in it
_IGNORED = frozenset({"__ignore__", "_background_"})
_QUADRANGLES = frozenset({"oriented_rectangle", "rotation"})


class Shape(NamedTuple):
    """A shape with an area.

    Attributes:
        label: of the class.
        kind: "polygon", "rectangle" (left, top, right, bottom), "circle" (outlined by points, too), or "mask"
            (its corners, the last pixel included).
        points: x, y in turn, in pixels of the image; a polygon may have two points or none.
        mask: PNG in base64, of kind "mask".
        where: file and shape, for messages.
    """

    label: str
    kind: str
    points: list[float]
    mask: str
    where: str


class LabelMeFile(NamedTuple):
    """What a file says.

    Attributes:
        image: its file, as written; "" where it is missing.
        size: (height, width), None where it is missing.
        objects: shapes with one `group_id` and one label are one object.
        left_out: counts of shapes, by what they are.
    """

    image: str
    size: tuple[int, int] | None
    objects: list[list[Shape]]
    left_out: Counter[str]


def read_labelme(path: Path) -> LabelMeFile:
    """Read one file; what LabelMe itself cannot fill, such as lines, is left out and counted.

    Raises:
        OtherFileError: JSON without `shapes`.
        DataError: one line naming the file and the shape.
    """
    content = _content(path)
    objects, left_out = dict[Any, list[Shape]](), Counter[str]()
    for number, value in enumerate(content["shapes"], 1):
        where = f"{path}: shape {number}"
        if not isinstance(value, dict):
            raise DataError(f"{where} is {short(value)}, expected an object with label and points")
        label, kind = value.get("label"), value.get("shape_type") or "polygon"
        if not isinstance(label, str) or not label.strip():
            raise DataError(f"{where}: label is {short(label)}, expected a name")
        label, where = " ".join(label.split()), f"{where} ({label[:60]})"
        if label in _IGNORED:
            left_out["called __ignore__ or _background_"] += 1
            continue
        shape = _shape(value, label, kind, where)
        if shape is None:
            left_out[f"of type {str(kind)[:30]}, which is not read"] += 1
            continue
        group = value.get("group_id")
        if not isinstance(group, int | str | None) and not (isinstance(group, float) and group.is_integer()):
            raise DataError(f"{where}: group_id is {short(group)}, expected a whole number")
        objects.setdefault((number,) if group in (None, "") else (label, group), []).append(shape)
    named = content.get("imagePath") or ""
    if not isinstance(named, str):
        raise DataError(f"{path}: imagePath is {short(named)}, expected a name")
    return LabelMeFile(named, _size(content, path), [*objects.values()], left_out)


def _content(path: Path) -> dict[str, Any]:
    content = bytes_in(path, _MOST_BYTES)
    if content.startswith(b"{") and b'"shapes"' not in content:  # COCO's, say, which takes long to read
        raise OtherFileError(f"{path}: no shapes, expected LabelMe's JSON")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("shapes"), list):
        raise OtherFileError(f"{path}: no list of shapes, expected LabelMe's JSON")
    return found


def _shape(value: dict[str, Any], label: str, kind: object, where: str) -> Shape | None:
    """None for what has no area."""
    if kind not in ("polygon", "rectangle", "circle", "mask", *_QUADRANGLES):
        return None
    points, count = _points(value.get("points"), where), len(value["points"])
    turned = kind == "rectangle" and count == 4 and max(len(set(points[k::2])) for k in (0, 1)) > 2
    if kind in _QUADRANGLES or turned:
        kind = "polygon"
    if kind != "polygon" and count not in ((2, 4) if kind == "rectangle" else (2,)):
        expected = "2, or 4" if kind == "rectangle" else "2"
        raise DataError(f"{where}: {count} points, expected {expected} of a {kind}")
    if kind == "circle":
        points = _circle(*points)
    elif kind != "polygon":
        x, y = points[::2], points[1::2]
        points = [min(x), min(y), max(x), max(y)]
    mask = value.get("mask") if kind == "mask" else ""
    if not isinstance(mask, str):
        raise DataError(f"{where}: mask is {short(mask)}, expected a PNG in base64")
    return Shape(label, str(kind), points, mask, where)


def _points(values: object, where: str) -> list[float]:
    flat = []
    for point in values if isinstance(values, list) else [values]:
        if not (isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))):
            raise DataError(f"{where}: a point is {short(point)}, expected two numbers, x and y")
        flat += map(float, point)
    return flat


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # nor nan


def _circle(x: float, y: float, edge_x: float, edge_y: float) -> list[float]:
    """A polygon at most a tenth of a pixel inside of the circle, up to 1,200 pixels wide."""
    radius = math.dist((x, y), (edge_x, edge_y))
    count = min(max(math.ceil(math.pi * math.sqrt(radius / 0.2)), 12), 180)
    turns = [2 * math.pi * k / count for k in range(count)]
    return [value for t in turns for value in (x + radius * math.cos(t), y + radius * math.sin(t))]


def _size(content: dict[str, Any], path: Path) -> tuple[int, int] | None:
    height, width = (content.get(key) or 0 for key in ("imageHeight", "imageWidth"))
    for value in (height, width):
        if not _is_number(value) or value < 0 or value != int(value):
            raise DataError(f"{path}: imageHeight and imageWidth are {short(height)} and {short(width)}, "
                            "expected whole numbers of pixels")  # fmt: skip
    return (int(height), int(width)) if height and width else None
