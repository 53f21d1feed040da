"""Random scenes with everything that COCO's rules treat in a way of their own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as rle

SIDES = (60, 300)  # so that small, medium and large objects occur


@dataclass(frozen=True)
class Scene:
    """Ground truth and results as COCO's files hold them."""

    truth: dict[str, Any]
    results: list[dict[str, Any]]


def random_scene(seed: int, images: int = 7) -> Scene:
    """Crowds, empty images, results where nothing is, classes without objects, equal scores, gaps in the ids.

    Half of the masks are polygons, the others RLEs; an object's results are the object moved a little.
    """
    random = np.random.default_rng(seed)
    categories = [{"id": k, "name": f"class {k}"} for k in (1, 3, 4, 90)]
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    results = []
    for number in range(images):
        height, width = (int(v) for v in random.integers(*SIDES, size=2))
        image = 17 + 5 * number
        truth["images"].append({"id": image, "height": height, "width": width, "file_name": f"{image}.jpg"})
        for _ in range(int(random.choice([0, 1, 3, 12]))):
            box = _random_box(random, height, width)
            category = int(random.choice([1, 3, 4]))  # 90 never has an object
            crowd = int(random.random() < 0.15)
            truth["annotations"].append(_annotation(random, len(truth["annotations"]), image, box, crowd))
            truth["annotations"][-1]["category_id"] = category
            for _ in range(int(random.choice([0, 1, 1, 2, 4]))):
                moved = np.clip(box + random.normal(0, 0.08, 4) * np.tile(box[2:], 2), 0, None)
                label = category if random.random() < 0.9 else int(random.choice([1, 3, 4, 90]))
                results.append(_result(random, image, label, moved, (height, width)))
        for _ in range(int(random.choice([0, 2, 15]))):
            box = _random_box(random, height, width)
            results.append(_result(random, image, int(random.choice([1, 3, 4, 90])), box, (height, width)))
    order = random.permutation(len(results))
    return Scene(truth, [results[i] for i in order])


def draw_box(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (H, W), an ellipse within x, y, width, height."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y, w, h = box
    inside = ((columns - x - w / 2) / (w / 2 + 1e-6)) ** 2 + ((rows - y - h / 2) / (h / 2 + 1e-6)) ** 2 <= 1
    return inside.astype(np.uint8)


def _random_box(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    sides = np.array([width, height])
    extent = sides * random.uniform(0.04, 0.9, 2) ** 2 + 2
    return np.concatenate([random.uniform(0, 1, 2) * (sides - extent).clip(0), extent]).round(2)


def _annotation(
    random: np.random.Generator, number: int, image: int, box: np.ndarray, crowd: int
) -> dict[str, Any]:
    x, y, w, h = (float(v) for v in box)
    half = [x, y, x + w, y, x + w, y + h / 2, x, y + h / 2]
    rest = [x, y + h / 2, x + w / 2, y + h / 2, x + w / 3, y + h, x, y + h]
    polygons = [half, rest] if random.random() < 0.5 else [half]
    # Area is what the file says, whatever the mask is.
    area = w * h * float(random.choice([0.5, 0.8, 1.0]))
    return {
        "id": number + 1,
        "image_id": image,
        "bbox": [x, y, w, h],
        "area": area,
        "iscrowd": crowd,
        "segmentation": polygons,
    }


def _result(
    random: np.random.Generator, image: int, label: int, box: np.ndarray, size: tuple[int, int]
) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(draw_box(box, *size)))
    return {
        "image_id": image,
        "category_id": label,
        "bbox": [float(v) for v in box],
        "score": float(random.integers(1, 12)) / 12 if random.random() < 0.6 else float(random.random()),
        "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode()},
    }


def crowds_as_rle(scene: Scene) -> Scene:
    """The same scene, its crowds and every third object as RLEs, half of them uncompressed."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in scene.truth["images"]}
    annotations = []
    for annotation in scene.truth["annotations"]:
        if annotation["iscrowd"] or annotation["id"] % 3 == 0:
            mask = draw_box(np.array(annotation["bbox"]), *sizes[annotation["image_id"]])
            flat = mask.ravel(order="F")
            edges = np.flatnonzero(np.diff(flat)) + 1
            runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
            counts: object = ([0] if flat[0] else []) + runs
            if annotation["id"] % 2:
                counts = rle.encode(np.asfortranarray(mask))["counts"].decode()
            annotation = {**annotation, "segmentation": {"size": list(mask.shape), "counts": counts}}
        annotations.append(annotation)
    return Scene({**scene.truth, "annotations": annotations}, scene.results)


def scene_of_boxes(boxes: list[list[float]]) -> dict[str, Any]:
    """Boxes of the one category 2 in an image of 100x100."""
    return {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 2, "name": "thing"}],
        "annotations": [
            {"id": 10 + i, "image_id": 1, "category_id": 2, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
             "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            for i, (x, y, w, h) in enumerate(boxes)
        ],
    }  # fmt: skip
