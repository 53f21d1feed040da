"""Random damage to the files of a run: used, or refused in one line that names the file, and soon."""

import json
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from botvision.backbones.weights import load_model
from botvision.config.recipes import load_config
from botvision.training.checkpoint import read_checkpoint
from tests.coco.test_damaged import ODD, places

MUTANTS, SECONDS, MOST_MB = 100, 20, 2000
PIECES = [
    b"nan",
    b"-1",
    b"1e400",
    b"{",
    b"[" * 3000,
    b"9" * 5000,
    b"*a",
    b"<<: ",
    b"\xff\xfe",
    b"\0",
    b"\n",
    b": ",
]
LARGE: list[Any] = [10**6, 10**9, [10**7, 10**7], 3.5, "botnet50", {"checkpoint_path": "x"}, [[[]]] * 9]


def spoil_bytes(content: bytes, chance: random.Random) -> bytes:
    """A byte, a piece more, a part less or several times; for text and binary files alike."""
    start, stop = sorted(chance.choices(range(len(content) + 1), k=2))
    return chance.choice(
        [
            content[:start] + bytes([chance.randrange(256)]) + content[start + 1 :],
            content[:start] + chance.choice(PIECES) + content[start:],
            content[:start],
            content[:start] + content[stop:],
            content[:stop] + content[start:],
            bytes(chance.randrange(256) for _ in range(chance.choice([0, 1, 100]))),
        ]
    )


def spoil_values(content: Any, chance: random.Random) -> Any:
    """A value of another type or size, a key less, or one more."""
    *inside, last = chance.choice(list(places(content)))
    place = content
    for key in inside:
        place = place[key]
    how = chance.randrange(8)
    if how == 0:
        del place[last]
    elif how == 1 and isinstance(place, dict):
        place[chance.choice(["", "checkpoint_path", "pretrained_cfg", "num_classes", "depth"])] = place[last]
    else:
        place[last] = chance.choice(ODD + LARGE)
    return content


def damaged_json(content: bytes, chance: random.Random) -> bytes:
    return json.dumps(spoil_values(json.loads(content), chance)).encode("utf-8", "surrogatepass")


def damaged_yaml(content: bytes, chance: random.Random) -> bytes:
    return yaml.safe_dump(spoil_values(yaml.safe_load(content), chance)).encode()


def in_halves(other: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    return lambda content, chance: chance.choice([other, spoil_bytes])(content, chance)


@pytest.mark.parametrize(
    ("file", "read", "spoil"),
    [
        ("model/model.json", lambda path: load_model(path.parent), in_halves(damaged_json)),
        ("config.yaml", load_config, in_halves(damaged_yaml)),
        ("checkpoints/last.ckpt", read_checkpoint, spoil_bytes),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_files_are_used_or_refused(
    file: str, read: Callable[[Path], object], spoil: Any, whole_run: Path, tmp_path: Path
) -> None:
    chance, refused, slowest = random.Random(11), list[str](), 0.0
    folder = Path(shutil.copytree(whole_run, tmp_path / "run"))
    content = (folder / file).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(MUTANTS):
        (folder / file).write_bytes(spoil(content, chance))
        started = time.monotonic()
        try:
            read(folder / file)
        except ValueError as error:
            refused.append(str(error))
        slowest = max(slowest, time.monotonic() - started)
    assert len(refused) > 30
    assert [
        each for each in refused if str(folder / file) not in each and str(folder / "model") not in each
    ] == []
    assert [each for each in refused if "\n" in each or "weights_only" in each] == []
    assert slowest < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MB
