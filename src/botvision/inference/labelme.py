"""Detections as LabelMe's JSON, for people to correct: one file for each image.

Masks become polygons that are nowhere more than a pixel off; the polygons of one object share a `group_id`.
A polygon cannot have a hole, so what has one stays a mask. Detectors without masks give rectangles. Scores
stand in the shapes' descriptions.
"""

import base64
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
import numpy.typing as npt
from PIL import Image

from botvision.coco.instances import Instances
from botvision.coco.masks import Masks, polygons_to_rles, rle_areas
from botvision.inference.predictor import FileResult
from botvision.inference.writers import picture_names
from botvision.io.files import write_json

FOLDER = "labelme"
_VERSION = "5.5.0"  # of LabelMe, whose form of masks this is
_TOLERANCE = 0.75  # pixels; outlines go through the edges of pixels, half a pixel off a smooth one at most
_KEPT = 0.8  # of the area, or all points are kept

Points = npt.NDArray[np.float64]


def write_labelme(
    found: Iterable[FileResult[Instances]],
    out: str | Path,
    files: Sequence[Path],
    classes: Sequence[str],
    least: float,
    counts: Counter[str],
) -> Iterator[FileResult[Instances]]:
    """Hand detections on one by one, each after its file is written.

    Args:
        found: of all `files`, in their order.
        out: the folder of these JSON files, called like the images, below the folder they have in common.
        files: the images; the JSON files name them by the way from there.
        classes: K names.
        least: detections with lower scores are left out.
        counts: takes "objects", and those "with holes".
    """
    for each, file, name in zip(found, files, picture_names(files), strict=True):
        if each.found is not None and each.found.size is not None:
            path = (Path(out) / name).with_suffix(".json")
            image = Path(os.path.relpath(file, path.parent)).as_posix()
            write_json(path, record(each.found.above(least), classes, image, counts))
        yield each


def record(found: Instances, classes: Sequence[str], image: str, counts: Counter[str]) -> dict[str, Any]:
    """Return LabelMe's content for one image, whose path is relative to the file."""
    shapes: list[dict[str, Any]] = []
    scores = [None] * len(found) if found.scores is None else found.scores.tolist()
    for k, (label, score) in enumerate(zip(found.labels.tolist(), scores, strict=True)):
        left, top, right, bottom = found.boxes[k].astype(float).round(2).tolist()
        outlines = [] if found.masks is None else _shapes(found.mask(k))
        if not outlines:
            outlines = [{"shape_type": "rectangle", "points": [[left, top], [right, bottom]]}]
        counts["objects"] += 1
        counts["with holes"] += any(each["shape_type"] == "mask" for each in outlines)
        for each in outlines:
            shapes.append(
                {
                    "label": classes[label - 1],
                    "group_id": k + 1 if len(outlines) > 1 else None,
                    "description": "" if score is None else f"score {score:.3f}",
                    "flags": {},
                    "mask": None,
                    **each,
                }
            )
    height, width = found.size or (None, None)
    content = {"version": _VERSION, "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    return content | {"imageHeight": height, "imageWidth": width}


def _shapes(mask: Masks) -> list[dict[str, Any]]:
    """A polygon for each part of a mask, or the mask itself where it has holes; none for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    cut = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    padded = np.pad(cut, 1).astype(np.float64)
    tracer = contourpy.contour_generator(z=padded, name="serial", fill_type="OuterOffset")
    traced: Any = tracer.filled(0.499, 2.0)  # below a half: pixels that touch at a corner are one part
    parts, offsets = traced
    if any(len(each) > 2 for each in offsets):
        corners = [[left, top], [int(columns[-1]), int(rows[-1])]]
        return [{"shape_type": "mask", "points": corners, "mask": _png(cut)}]
    origin = np.array([left - 0.5, top - 0.5])  # a pixel's centre is a whole number to the tracer, and padded
    outlines = [_outline(np.asarray(part)[:-1], cut.shape) + origin for part in parts]
    return [{"shape_type": "polygon", "points": each.round(2).tolist()} for each in outlines]


def _outline(ring: Points, size: tuple[int, ...]) -> Points:
    """A ring with fewer points; whole, or as the box around it, where these would lose what is thin."""
    fewer = _simplified(ring)
    rings = [fewer, ring] if len(fewer) >= 3 else [ring]
    flat = [[(each - 0.5).reshape(-1).tolist()] for each in rings]
    areas = rle_areas(polygons_to_rles(flat, (size[0], size[1])))
    if areas[-1]:
        return rings[0] if areas[0] >= _KEPT * areas[-1] else ring
    (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _simplified(ring: Points) -> Points:
    """Points of a closed ring; no other is far from the lines between them (Douglas and Peucker)."""
    far = int(np.abs(ring - ring[0]).sum(axis=1).argmax())
    closed, keep = np.concatenate([ring, ring[:1]]), {0, far}
    waiting = [(0, far), (far, len(ring))]
    while waiting:
        start, end = waiting.pop()
        between = closed[start + 1 : end] - closed[start]
        if not len(between):
            continue
        along = closed[end] - closed[start]
        length = np.hypot(*along)
        across = np.abs(between[:, 0] * along[1] - between[:, 1] * along[0])
        distances = across / length if length else np.hypot(*between.T)
        farthest = int(distances.argmax())
        if distances[farthest] > _TOLERANCE:
            middle = start + 1 + farthest
            keep.add(middle)
            waiting += [(start, middle), (middle, end)]
    return ring[sorted(keep)]


def _png(mask: Masks) -> str:
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
