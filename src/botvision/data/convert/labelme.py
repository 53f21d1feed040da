"""LabelMe: `a.json` beside `a.jpg`, or in another folder with the image's path in it.

- Polygons, rectangles, circles and masks are objects; lines and points are left out. What has one `group_id`
  and one label is one object.
- Where all are rectangles, they are boxes. Beside other shapes they are masks, too, as LabelMe fills them.
- A file describes the image of its own name, and only without one that which `imagePath` names; the copy of
  the image in `imageData` is not looked at. Shapes called `__ignore__` and `_background_` are left out.
- Splits are folders called train, val(id) and test.
"""

import base64
import binascii
import io
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from botvision.coco.masks import decode, encode, polygons_to_rles, rle_areas, rle_boxes
from botvision.data.cache import Progress
from botvision.data.convert.entries import Found, clip, counted, leave_out_flat
from botvision.data.convert.labelled import Format, Labelled
from botvision.data.convert.labelme_json import LabelMeFile, Shape, read_labelme
from botvision.data.convert.splits import Labels
from botvision.io.errors import DataError

_FORMAT = Format("LabelMe", ".json", "imagePath", read_labelme)


def read(root: Path, part: str, progress: Progress | None) -> Labels:
    """Read the JSON files of a folder.

    Args:
        root: the data set.
        part: only images of this folder of it, or whose labels lie there.
        progress: called with what is being done, how many files are done and how many there are.

    Raises:
        DataError: one line that names the file and the shape.
    """
    data = Labelled(root, _FORMAT, progress)
    shapes = [each for _, file in data.described.values() for group in file.objects for each in group]
    boxes = all(shape.kind == "rectangle" for shape in shapes)
    names = [shape.label for shape in shapes]
    return data.labels(part, names, partial(_objects, boxes=boxes), _notes, progress)


def _objects(file: LabelMeFile, size: tuple[int, int], changed: Counter[str], boxes: bool) -> Sequence[Found]:
    changed.update(file.left_out)
    found = [_object(group, size, changed, boxes) for group in file.objects]
    return [each for each in found if each is not None]


def _object(
    shapes: Sequence[Shape], size: tuple[int, int], changed: Counter[str], boxes: bool
) -> Found | None:
    """One of one shape or more; None without area."""
    first, beyond, around, polygons = shapes[0], Counter[str](), Counter[str](), []
    masks = [_pixels(shape, size, beyond) for shape in shapes if shape.kind == "mask"]
    for shape in shapes:
        if shape.kind == "mask" or (shape.kind == "polygon" and len(shape.points) < 6):
            continue
        circle = shape.kind == "circle"
        points = clip(shape.points, size, shape.where, around if circle else beyond, anywhere=circle)
        if shape.kind == "rectangle":
            left, top, right, bottom = points
            points = [left, top, right, top, right, bottom, left, bottom]
            changed["rectangles"] += not boxes
        polygons.append(points)
    if not (masks or polygons):  # a click or two
        leave_out_flat(first.where, changed)
        return None
    x, y = ([value for points in polygons for value in points[k::2]] for k in (0, 1))
    if boxes:
        box = min(x), min(y), max(x), max(y)
        area = (box[2] - box[0]) * (box[3] - box[1])
        segmentation = None
    else:
        rles = polygons_to_rles([polygons], size) if polygons else []
        if masks:
            rles = encode(np.any([*masks, *decode(rles, size)], axis=0)[None])
        area, segmentation = float(rle_areas(rles)[0]), rles[0] if masks else polygons
        box = rle_boxes(rles)[0].tolist() if masks else (min(x), min(y), max(x), max(y))
    if not area:
        leave_out_flat(first.where, changed)
        return None
    changed["clipped"] += bool(beyond["clipped"])
    changed["circles"] += bool(around["clipped"])
    changed["joined"] += len(shapes) > 1
    return Found(first.label, box, area, segmentation)


def _pixels(shape: Shape, size: tuple[int, int], beyond: Counter[str]) -> npt.NDArray[np.bool_]:
    """A mask on the image: LabelMe stores it cut out, and from which pixel to which."""
    left, top, right, bottom = map(round, shape.points)
    clip([left, top, right + 1, bottom + 1], size, shape.where, beyond)
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.mask)), formats=["PNG"]) as png:
            width, height = png.size
            if abs(width - (right + 1 - left)) > 1 or abs(height - (bottom + 1 - top)) > 1:
                raise DataError(
                    f"{shape.where}: a mask of {height} x {width} pixels (height x width), "
                    f"but its points are those of {bottom + 1 - top} x {right + 1 - left}"
                )
            mask = np.asarray(png.convert("L")) > 0
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise DataError(f"{shape.where}: its mask is no PNG in base64 ({error})") from error
    mask = mask[max(-top, 0) : max(size[0] - top, 0), max(-left, 0) : max(size[1] - left, 0)]
    pixels, top, left = np.zeros(size, dtype=bool), max(top, 0), max(left, 0)
    pixels[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return pixels


def _notes(changed: Counter[str]) -> list[str]:
    texts = {
        "rectangles": ("rectangle", "taken as masks, too, since other objects have outlines"),
        "circles": ("circle", "reaching beyond the image: cut off there"),
        "joined": ("object", "of several shapes with one group_id"),
    }
    told = [counted(changed[key], *text) for key, text in texts.items() if changed[key]]
    left = [key for key in changed if key.startswith(("of type ", "called "))]
    return told + [f"left out: {counted(changed[key], 'shape', key)}" for key in left]
