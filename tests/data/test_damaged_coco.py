"""Random damage to annotations: the check never fails, and says no exactly where training does."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from botvision.data.check import check_data
from botvision.data.detection import open_detection
from botvision.data.detection_config import DetectionDataConfig
from botvision.data.shapes import ShapesSource

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


def refusal(config: DetectionDataConfig) -> str | None:
    """What training says to the data, reading all of it; None if it is satisfied."""
    try:
        splits = open_detection(config)
        splits.train.verify()
        splits.val.verify()
    except ValueError as error:
        return str(error)
    for index in range(len(splits.train)):
        assert splits.train[0, index][1]["boxes"].isfinite().all()
    return None


@pytest.mark.parametrize("seed", range(25))
def test_check_and_training_agree_on_damaged_annotations(tmp_path: Path, seed: int) -> None:
    for split, count in (("train", 4), ("val", 2)):
        path = ShapesSource(5, split, count, 3, SIZE).export(tmp_path)
    path = path.with_name("instances_train.json")
    content, chance = json.loads(path.read_text()), random.Random(seed)
    for _ in range(chance.choice([1, 1, 2, 4])):
        damage(content, chance)
    path.write_text(json.dumps(content))
    for skip in (False, True):
        config = DetectionDataConfig(root=str(tmp_path), skip_broken=skip)
        report = check_data(config)
        assert report.ok == (refusal(config) is None), (report.problems, refusal(config))
