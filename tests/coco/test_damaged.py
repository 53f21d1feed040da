"""Random damage to annotations: the check never fails, and says no exactly where training does.

What is trained on can be evaluated on, and with the numbers that the file itself would give.
"""

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.instances import Instances
from botvision.coco.read import read_coco
from botvision.coco.truth import KINDS, read_truth
from botvision.config.data import DetectionDataConfig
from botvision.data.check import check_data
from botvision.data.detection import DetectionDataset, DetectionSplits, open_detection
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError

SIZE = (40, 60)
ODD: list[Any] = [
    *(None, True, -1, 0, 2, 1.5, 10**30, 2**63, 1e308, float("nan"), float("inf")),
    *("", "x", "/", "\0", "a\nb"),
    *([], {}, [[]], [None], {"a": 1}, "x" * 5000, [10**400] * 4, [1e308] * 4, ["1", "2", "3", "4"]),
    *([[1, 1, 1, 1, 1, 1]], [[1e300] * 6], [["1"] * 6], [[-1e9, 0, 1e9, 0, 0, 1e9]]),
    *({"size": [*SIZE], "counts": runs} for runs in ("", "aaaa", [2400], [0, 2400], [-1, 2401], [10**20])),
    *({"size": size, "counts": [2400]} for size in ([40.0, 60.0], [True, 60], "40")),
]  # fmt: skip


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values are in nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damage(content: Any, chance: random.Random) -> None:
    path = chance.choice(list(places(content)))
    for key in path[:-1]:
        content = content[key]
    if chance.random() < 0.1:
        del content[path[-1]]
    else:
        content[path[-1]] = copy.deepcopy(chance.choice(ODD))


def opened(config: DetectionDataConfig) -> DetectionSplits | str:
    """The data, all read and trained on; or what training says to them."""
    try:
        splits = open_detection(config)
        splits.train.cache_images()
        splits.val.cache_images()
        splits.train.verify()
        splits.val.verify()
    except ValueError as error:
        return str(error)
    for index in range(len(splits.train)):
        assert splits.train[0, index][1]["boxes"].isfinite().all()
    return splits


def detections(data: DetectionDataset, chance: random.Random) -> list[dict[str, Any]]:
    """The objects of the data, not quite in their places."""
    ids, records = [category.id for category in data.categories], []
    for index in range(len(data)):
        found = data.instances(index)
        boxes = found["boxes"] + chance.choice([0, 1, 2])
        scores = torch.tensor([chance.random() for _ in boxes])
        moved = Instances.of(found | {"boxes": boxes, "scores": scores})
        records += moved.records(data.image_id(index), ids)
    return records


def evaluated(data: DetectionDataset, path: Path, chance: random.Random, *, repaired: bool) -> None:
    """Evaluates; if nothing was repaired, against the file too, where that can be used."""
    truth, found = read_truth(data.ground_truth()), detections(data, chance)
    for kind in KINDS:
        if kind == "segm" and not data.has_masks:
            continue
        metrics = evaluate_coco(truth, found, kind)
        try:
            same = None if repaired else evaluate_coco(path, found, kind)
        except ValueError:
            continue  # the file has what evaluation refuses and training does not look at
        assert same is None or metrics.to_dict() == same.to_dict()


@pytest.mark.parametrize("seed", range(25))
def test_check_training_and_evaluation_agree_on_damaged_annotations(tmp_path: Path, seed: int) -> None:
    for split, count in (("train", 4), ("val", 2)):
        path = ShapesSource(5, split, count, 3, SIZE).export(tmp_path)
    path = path.with_name("instances_train.json")
    content, chance = json.loads(path.read_text()), random.Random(seed)
    for _ in range(chance.choice([1, 1, 2, 4])):
        damage(content, chance)
    path.write_text(json.dumps(content))
    for skip in (False, True):
        config = DetectionDataConfig(root=str(tmp_path), skip_broken=skip)
        report, splits = check_data(config), opened(config)
        assert report.ok == isinstance(splits, DetectionSplits), (report.problems, splits)
        if isinstance(splits, DetectionSplits):
            evaluated(splits.train, path, chance, repaired=skip)


def test_five_hundred_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    """Values of other kinds, and bytes: every problem is one line, and none takes long."""
    path = ShapesSource(5, "val", 3, 3, SIZE).export(tmp_path)
    whole, chance, sound, slowest = path.read_bytes(), random.Random(3), 0, 0.0
    for number in range(500):
        content = json.loads(whole)
        damage(content, chance)
        text = json.dumps(content).encode()
        if number % 2:
            start, stop = sorted(chance.choices(range(len(whole) + 1), k=2))
            piece = chance.choice(
                [b"", b"[" * 3000, b"-", b"9" * 400, b"\xff", b'"', b"null", whole[start:stop]]
            )
            text = whole[:start] + piece + whole[chance.choice([start, stop]) :]
        path.write_bytes(text)
        started = time.monotonic()
        try:
            problems = [problem.line for problem in read_coco(path).problems]
        except DataError as error:
            problems = [str(error)]
        slowest = max(slowest, time.monotonic() - started)
        sound += not problems
        assert all(problem and "\n" not in problem for problem in problems)
    assert 20 < sound < 450
    assert slowest < 20


def test_what_lacks_its_mask_is_never_trained_on_and_all_can_be_evaluated(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 4)):
        path = ShapesSource(5, split, count, 3, SIZE).export(tmp_path)
        content = json.loads(path.read_text())
        del content["annotations"][1]["segmentation"]
        path.write_text(json.dumps(content))
    splits = opened(DetectionDataConfig(root=str(tmp_path)))
    assert isinstance(splits, DetectionSplits)
    for data in (splits.train, splits.val):
        truth = read_truth(data.ground_truth())
        assert 2 in {record["id"] for record in data.ground_truth()["annotations"]}
        own = data.source.file.annotations
        assert own.ids[own.degenerate].tolist() == [2]
        assert [evaluate_coco(truth, detections(data, random.Random(0)), kind).images for kind in KINDS] == [
            4,
            4,
        ]
