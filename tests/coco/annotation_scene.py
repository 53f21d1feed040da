"""A small COCO data set, made by hand."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 90, "name": "kite"}, {"id": 7, "name": "boat"}, {"id": 13, "name": "sign"}]

IMAGES: list[dict[str, Any]] = [
    {"id": 500, "file_name": "a.png", "height": 40, "width": 60},
    {"id": 30, "file_name": "b.png", "height": 50, "width": 30},
    {"id": 77, "file_name": "empty.png", "height": 20, "width": 20},
]


def _annotation(number: int, image: int, category: int, box: list[float], **other: Any) -> dict[str, Any]:
    x, y, width, height = box
    square = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    record = {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    return record | {"area": width * height, "segmentation": square} | other


ANNOTATIONS = [
    _annotation(4, 30, 13, [1, 2, 10, 20]),
    _annotation(1, 500, 7, [10.5, 4.25, 20, 10]),
    _annotation(
        2, 500, 90, [2, 20, 40, 18], area=320,
        segmentation=[[2, 20, 22, 20, 22, 30, 2, 30], [30, 28, 42, 28, 42, 38, 30, 38]],
    ),
    _annotation(
        3, 500, 7, [0, 0, 2, 40], area=80, iscrowd=1,
        segmentation={"size": [40, 60], "counts": [0, 80, 2320]},
    ),
]  # fmt: skip


def scene() -> dict[str, Any]:
    """Three categories with gaps between the ids, three images, one empty, four annotations, one a crowd."""
    return copy.deepcopy({"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES})


def write_scene(root: Path, content: dict[str, Any] | None = None, split: str = "train") -> Path:
    """Write annotations and pictures as COCO has them; returns the JSON."""
    content = scene() if content is None else content
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"{split}2017").mkdir(exist_ok=True)
    for image in IMAGES:
        draws = np.random.default_rng(image["id"])
        pixels = draws.integers(0, 256, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{split}2017" / image["file_name"])
    path = root / "annotations" / f"instances_{split}2017.json"
    path.write_text(json.dumps(content))
    return path
