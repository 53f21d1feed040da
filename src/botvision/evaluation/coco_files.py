"""COCO's two files, ground truth and results, read and checked before anything is computed from them.

hotcoco is lenient: a mask of the wrong size or with impossible counts is just a mask that matches nothing.
Here such a record ends the evaluation with one line that names it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hotcoco
from hotcoco import mask as rle

from botvision.evaluation.coco_bulk import usual_annotations, usual_results
from botvision.evaluation.coco_checks import box_of, known_id, mask_trouble, number_of, size_of, whole_id

Kind = Literal["bbox", "segm"]
KINDS: tuple[Kind, ...] = ("bbox", "segm")
FIELDS: Mapping[Kind, str] = {"bbox": "bbox", "segm": "segmentation"}


@dataclass(frozen=True)
class Category:
    """A class of the ground truth.

    Attributes:
        images: that hold at least one instance.
        instances: objects; crowds, which are no objects to be found, do not count.
    """

    id: int
    name: str
    images: int
    instances: int


@dataclass(frozen=True)
class CocoTruth:
    """Checked ground truth; read once, it serves any number of evaluations.

    Attributes:
        name: for messages.
        coco: hotcoco's index of it.
        sizes: (height, width) of each image by its id; None where the file does not say.
        categories: in ascending order of their ids.
        no_masks: why masks cannot be evaluated, one line; None if they can.
    """

    name: str
    coco: hotcoco.COCO
    sizes: Mapping[int, tuple[int, int] | None]
    categories: tuple[Category, ...]
    no_masks: str | None


def read_truth(truth: CocoTruth | Mapping[str, Any] | str | Path) -> CocoTruth:
    """Read and check ground truth.

    The annotations' own ids play no part: pycocotools holds an object whose id is 0 for never found. Where
    ``area`` is missing it is the mask's, without a mask the box's; where ``iscrowd`` is missing it is 0;
    ``ignore`` is not read.

    Args:
        truth: A dict with ``images``, ``annotations`` and ``categories``, or a JSON file of it. Ground truth
            that was read before is returned as it is.

    Raises:
        ValueError: An id twice or unknown, a box that is no box; one line that names the record.
    """
    if isinstance(truth, CocoTruth):
        return truth
    name = "ground truth" if isinstance(truth, Mapping) else str(truth)
    data = truth if isinstance(truth, Mapping) else read_json(truth)
    if not isinstance(data, Mapping):
        raise ValueError(f"{name}: expected an object with images, annotations and categories")
    images = {record["id"]: size_of(record) for record in _records(data, "images", name)}
    names = {r["id"]: str(r.get("name", r["id"])) for r in _records(data, "categories", name)}
    if not names:
        raise ValueError(f"{name}: no categories, expected at least one")
    annotations, no_masks = _annotations(data, images, names, name)
    pictures = [{"id": key, **_sides(size)} for key, size in images.items()]
    kinds = [{"id": key, "name": text} for key, text in sorted(names.items())]
    coco = hotcoco.COCO({"images": pictures, "annotations": annotations, "categories": kinds})
    holders: dict[int, list[int]] = {key: [] for key in sorted(names)}
    for annotation in annotations:
        if not annotation["iscrowd"]:
            holders[annotation["category_id"]].append(annotation["image_id"])
    categories = tuple(Category(k, names[k], len(set(found)), len(found)) for k, found in holders.items())
    return CocoTruth(name, coco, images, categories, no_masks)


def read_results(
    results: Sequence[Mapping[str, Any]] | str | Path,
) -> tuple[Sequence[Mapping[str, Any]], str]:
    """Return the records of COCO results, and a name for messages.

    Raises:
        ValueError: Not JSON, or not a list of objects.
    """
    name = str(results) if isinstance(results, str | Path) else "results"
    data = read_json(results) if isinstance(results, str | Path) else results
    if not isinstance(data, Sequence) or any(not isinstance(record, Mapping) for record in data):
        raise ValueError(f"{name}: expected a list of objects with image_id, category_id, score, ...")
    return data, name


def kinds_in(results: Sequence[Mapping[str, Any]], truth: CocoTruth) -> list[Kind]:
    """Say what can be evaluated: what the results carry; without any results, what the truth has."""
    if results:
        return [kind for kind in KINDS if any(FIELDS[kind] in record for record in results)]
    return [kind for kind in KINDS if kind == "bbox" or truth.no_masks is None]


def checked_results(
    results: Sequence[Mapping[str, Any]], truth: CocoTruth, kind: Kind, name: str
) -> list[dict[str, Any]]:
    """Return the records with the fields of one kind alone.

    A box beside a mask must not stay: the size of a result, and with it AP by size, would be the box's.

    Raises:
        ValueError: One line that names the first record that cannot be used, and why.
    """
    categories = {category.id for category in truth.categories}
    usual = usual_results(results, truth.sizes, categories, masks=kind == "segm")
    if usual is not None:
        return usual
    field = FIELDS[kind]
    checked = []
    for number, record in enumerate(results, 1):
        where = f"{name}: result {number}"
        image = known_id(record, "image_id", truth.sizes, where)
        category = known_id(record, "category_id", categories, where)
        score = number_of(record, "score", where)
        if kind == "bbox":
            value: object = box_of(record, where)
        else:
            trouble = mask_trouble(record, truth.sizes[image], where, polygons=False)
            if trouble:
                raise ValueError(trouble)
            value = record["segmentation"]
        checked.append({"image_id": image, "category_id": category, "score": score, field: value})
    return checked


def read_json(path: str | Path) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Raises:
        ValueError: Its content is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def _records(
    data: Mapping[str, Any], key: str, name: str, unique: bool = True
) -> Iterator[Mapping[str, Any]]:
    """Go through the objects of a list; their ids are whole numbers and different, where that matters."""
    records = data.get(key)
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise ValueError(f"{name}: expected a list of {key}, found {type(records).__name__}")
    seen: set[int] = set()
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping):
            raise ValueError(f"{name}: {key} number {number} is no object")
        if unique:
            identity = whole_id(record, "id", f"{name}: {key} number {number}")
            if identity in seen:
                raise ValueError(
                    f"{name}: {key} number {number} has id {identity}, which another one has, too"
                )
            seen.add(identity)
        yield record


def _annotations(
    data: Mapping[str, Any],
    images: Mapping[int, tuple[int, int] | None],
    categories: Mapping[int, str],
    name: str,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return checked annotations, numbered from 1, and why their masks cannot be used (None if they can)."""
    records = list(_records(data, "annotations", name, unique=False))
    usual = usual_annotations(records, images, set(categories))
    if usual is not None:
        return usual, None
    annotations: list[dict[str, Any]] = []
    no_masks: str | None = None
    for number, record in enumerate(records, 1):
        where = f"{name}: annotation {record.get('id', f'number {number}')}"
        image = known_id(record, "image_id", images, where)
        box = box_of(record, where)
        trouble = mask_trouble(record, images[image], where)
        no_masks = no_masks or trouble
        if record.get("area") is not None:
            area = number_of(record, "area", where)
        else:
            area = box[2] * box[3] if trouble else _pixels(record["segmentation"], images[image])
        annotations.append(
            {
                "id": number,
                "image_id": image,
                "category_id": known_id(record, "category_id", categories, where),
                "bbox": box,
                "area": area,
                "iscrowd": int(bool(record.get("iscrowd"))),
                "segmentation": record.get("segmentation"),
            }
        )
    if no_masks is not None:  # what cannot be used must not disturb the boxes
        for annotation in annotations:
            del annotation["segmentation"]
    return annotations, no_masks


def _sides(size: tuple[int, int] | None) -> dict[str, int]:
    return {} if size is None else {"height": size[0], "width": size[1]}


def _pixels(segmentation: Any, size: tuple[int, int] | None) -> float:  # noqa: ANN401
    """Area of a checked mask in an image (height, width)."""
    assert size is not None  # or the mask would not have passed
    pieces = rle.frPyObjects(segmentation, *size)
    return float(rle.area(rle.merge(pieces) if isinstance(pieces, list) else pieces))
