"""COCO's two files, ground truth and results, read and checked before anything is computed from them.

hotcoco is lenient: a mask of the wrong size or with impossible counts is just a mask that matches nothing.
Here such a record ends the evaluation with one line that names it.
"""

import gc
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hotcoco
import msgspec
import numpy as np
from hotcoco import mask as rle

from botvision.coco.bulk import Annotations, usual_annotations, usual_results
from botvision.coco.checks import box_of, known_id, mask_trouble, number_of, size_of, whole_id

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
    images = {record["id"]: size_of(record) for record in _with_ids(data, "images", name)}
    names = {r["id"]: str(r.get("name", r["id"])) for r in _with_ids(data, "categories", name)}
    if not names:
        raise ValueError(f"{name}: no categories, expected at least one")
    found, no_masks = _annotations(data, images, names, name)
    coco = hotcoco.COCO.from_arrays(
        [{"id": key, **_sides(size)} for key, size in images.items()],
        [{"id": key, "name": text} for key, text in sorted(names.items())],
        np.array(found.images, dtype=np.int64),
        np.array(found.categories, dtype=np.int64),
        found.boxes,
        ids=np.arange(1, len(found.images) + 1),
        area=found.areas,
        iscrowd=found.crowd.astype(np.int64),
        segmentation=found.masks,
    )
    return CocoTruth(name, coco, images, _counted(names, found), no_masks)


def read_results(
    results: Sequence[Mapping[str, Any]] | str | Path,
) -> tuple[Sequence[Mapping[str, Any]], str]:
    """Return the records of COCO results, and a name for messages.

    Raises:
        ValueError: Not JSON, or not a list of objects.
    """
    name = str(results) if isinstance(results, str | Path) else "results"
    data = read_json(results) if isinstance(results, str | Path) else results
    if not isinstance(data, Sequence) or not _are_objects(data):
        raise ValueError(f"{name}: expected a list of objects with image_id, category_id, score, ...")
    return data, name


def kinds_in(results: Sequence[Mapping[str, Any]], truth: CocoTruth) -> list[Kind]:
    """Say what can be evaluated: what the results carry; without any results, what the truth has."""
    if results:
        return [kind for kind in KINDS if any(FIELDS[kind] in record for record in results)]
    return [kind for kind in KINDS if kind == "bbox" or truth.no_masks is None]


def load_results(
    results: Sequence[Mapping[str, Any]], truth: CocoTruth, kind: Kind, name: str
) -> hotcoco.COCO:
    """Return hotcoco's index of the results, with the fields of one kind alone.

    A box beside a mask must not count: the size of a result, and with it AP by size, would be the box's.

    Raises:
        ValueError: One line that names the first record that cannot be used, and why.
    """
    categories = {category.id for category in truth.categories}
    usual = usual_results(results, truth.sizes, categories, masks=kind == "segm")
    if usual is not None:
        loaded = truth.coco.load_res(usual.rows, segmentation=usual.masks)
        if usual.areas is not None:
            loaded.update_anns(ids=np.arange(1, len(results) + 1), area=usual.areas)
        return loaded
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
    return truth.coco.load_res(checked)


def read_json(path: str | Path) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Raises:
        ValueError: Its content is not JSON.
    """
    content = Path(path).read_bytes()
    collecting = gc.isenabled()
    gc.disable()  # a million new lists and no garbage: looking for some takes as long as reading
    try:
        return _decoded(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    finally:
        if collecting:
            gc.enable()


def _decoded(content: bytes) -> Any:  # noqa: ANN401
    """What JSON says. What only Python's own reader takes (not-a-number, UTF-16) or explains is its part."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return json.loads(content)


def _are_objects(records: Sequence[object]) -> bool:
    return set(map(type, records)) <= {dict} or all(isinstance(record, Mapping) for record in records)


def _records(data: Mapping[str, Any], key: str, name: str) -> Sequence[Mapping[str, Any]]:
    """A list of objects."""
    records = data.get(key)
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise ValueError(f"{name}: expected a list of {key}, found {type(records).__name__}")
    if not _are_objects(records):
        for number, record in enumerate(records, 1):
            if not isinstance(record, Mapping):
                raise ValueError(f"{name}: {key} number {number} is no object")
    return records


def _with_ids(data: Mapping[str, Any], key: str, name: str) -> Iterator[Mapping[str, Any]]:
    """Go through a list of objects whose ids are whole numbers and different."""
    seen: set[int] = set()
    for number, record in enumerate(_records(data, key, name), 1):
        identity = whole_id(record, "id", f"{name}: {key} number {number}")
        if identity in seen:
            raise ValueError(f"{name}: {key} number {number} has id {identity}, which another one has, too")
        seen.add(identity)
        yield record


def _counted(names: Mapping[int, str], found: Annotations) -> tuple[Category, ...]:
    """The categories with what there is of them, crowds aside."""
    pairs = zip(found.categories, found.images, found.crowd.tolist(), strict=True)
    objects = [(category, image) for category, image, crowd in pairs if not crowd]
    instances = Counter(category for category, _ in objects)
    images = Counter(category for category, _ in set(objects))
    return tuple(Category(key, names[key], images[key], instances[key]) for key in sorted(names))


def _annotations(
    data: Mapping[str, Any],
    images: Mapping[int, tuple[int, int] | None],
    categories: Mapping[int, str],
    name: str,
) -> tuple[Annotations, str | None]:
    """Return checked annotations, and why their masks cannot be used (None if they can)."""
    records = _records(data, "annotations", name)
    usual = usual_annotations(records, images, set(categories))
    if usual is not None:
        return usual, None
    no_masks: str | None = None
    own, kinds, boxes, areas = [], [], [], []
    for number, record in enumerate(records, 1):
        where = f"{name}: annotation {record.get('id', f'number {number}')}"
        own.append(known_id(record, "image_id", images, where))
        boxes.append(box_of(record, where))
        trouble = mask_trouble(record, images[own[-1]], where)
        no_masks = no_masks or trouble
        if record.get("area") is not None:
            area = number_of(record, "area", where)
        else:
            area = (
                boxes[-1][2] * boxes[-1][3] if trouble else _pixels(record["segmentation"], images[own[-1]])
            )
        areas.append(area)
        kinds.append(known_id(record, "category_id", categories, where))
    crowd = np.array([bool(record.get("iscrowd")) for record in records], dtype=np.bool_)
    # what cannot be used must not disturb the boxes
    masks = None if no_masks is not None else [record.get("segmentation") for record in records]
    found = Annotations(
        own, kinds, np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(areas), crowd, masks
    )
    return found, no_masks


def _sides(size: tuple[int, int] | None) -> dict[str, int]:
    return {} if size is None else {"height": size[0], "width": size[1]}


def _pixels(segmentation: Any, size: tuple[int, int] | None) -> float:  # noqa: ANN401
    """Area of a checked mask in an image (height, width)."""
    assert size is not None  # or the mask would not have passed
    pieces = rle.frPyObjects(segmentation, *size)
    return float(rle.area(rle.merge(pieces) if isinstance(pieces, list) else pieces))
