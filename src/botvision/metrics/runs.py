"""What a finished run says of itself: `summary.json`, and `config.yaml` where it lies beside it."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botvision.io.read import read_object

# What is compared, by task: names in summary.json, fractions 0..1. The first one every run has; a detector
# without masks has no mask_*, and side_accuracy is that of data with left and right as classes of their own.
SCORES: dict[str, tuple[str, ...]] = {
    "classify": ("top1",),
    "detect": ("box_ap", "box_ap50", "mask_ap", "mask_ap50", "side_accuracy"),
}

# Scores that even a run of the right data may lack: no part may have been found whose side could be right.
MAY_LACK = frozenset({"side_accuracy"})

# Settings that say where the data lies and how the machine is kept busy, not what is learned.
INCIDENTAL_SETTINGS = frozenset({
    "recipe", "train.seed", "train.log_every", "train.checkpoint_every", "train.device", "data.root",
    "data.download", "data.cache", "data.cache_bytes", "data.num_workers",
})  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What the comparison needs of one run folder.

    Attributes:
        scores: those of `SCORES` that it has, 0..1.
        macs: multiply-adds; of a detector those of backbone and neck.
        step_ms: milliseconds; None where it was not measured.
        kept: which weights were evaluated, "best" or "last".
        train_images: images it learned from.
        val_images: images it was evaluated on.
        commit: of the code, None where it is not known.
        versions: of the packages that decide about numbers.
        settings: configuration by dotted key, as JSON, without those that do not change what is learned.
        configured: whether the folder had a configuration; `settings` is but a stand-in otherwise.
    """

    folder: str
    model: str
    data: str
    seed: int
    epochs: int
    scores: dict[str, float]
    params: int
    macs: int
    image_size: tuple[int, int]
    precision: str
    task: str = "classify"
    hardware: str = ""
    step_ms: float | None = None
    kept: str | None = None
    train_images: int | None = None
    val_images: int | None = None
    commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    configured: bool = False

    @property
    def size(self) -> str:
        """Image size as height x width."""
        height, width = self.image_size
        return f"{height}x{width}"


def run_folders(folder: str | Path) -> list[Path]:
    """Return the run folder itself; of a folder of runs, such as a study's, the finished ones, by name."""
    folder = Path(folder)
    if (folder / "summary.json").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("[!.]*/summary.json"))
    return inside or [folder]


def read_run(folder: str | Path) -> Run:
    """Read the summary of one finished run.

    Raises:
        ValueError: the folder holds no readable summary, or a number is missing or impossible.
    """
    folder = Path(folder)
    path = folder / "summary.json"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    if not path.is_file():
        raise ValueError(f"{path}: missing; is this a run folder, and has its training finished?")
    return _to_run(read_object(path), folder, path)


def _to_run(summary: dict[str, Any], folder: Path, path: Path) -> Run:
    """Check the fields of a summary and keep those the comparison needs."""

    def number(key: str) -> float:
        value = summary.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{path}: {key} is {value!r}, expected a number")
        return value

    def whole_or_none(key: str) -> int | None:
        return None if summary.get(key) is None else int(number(key))

    if not isinstance(summary.get("model"), str):
        raise ValueError(f"{path}: model is {summary.get('model')!r}, expected a name")
    task = summary.get("task", "classify")
    if task not in SCORES:
        raise ValueError(f"{path}: task is {task!r}, expected {' or '.join(SCORES)}")
    names = [name for k, name in enumerate(SCORES[task]) if k == 0 or summary.get(name) is not None]
    scores = {name: float(number(name)) for name in names}
    for name, score in scores.items():
        if not 0 <= score <= 1:
            raise ValueError(f"{path}: {name} is {score}, expected a fraction from 0 to 1")
    size = summary.get("image_size")
    height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    if not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(f"{path}: image_size is {size!r}, expected [height, width]")
    settings = _settings(folder / "config.yaml")
    versions = summary.get("versions")
    return Run(
        folder=str(folder),
        model=summary["model"],
        data=str(summary.get("data", "unknown")),
        seed=int(number("seed")),
        epochs=int(number("epochs")),
        task=task,
        scores=scores,
        params=int(number("params")),
        macs=int(number("macs")),
        image_size=(height, width),
        precision=str(summary.get("precision", "unknown")),
        hardware=str(summary.get("hardware") or ""),
        step_ms=None if summary.get("step_ms") is None else float(number("step_ms")),
        kept=summary.get("kept"),
        train_images=whole_or_none("train_images"),
        val_images=whole_or_none("val_images"),
        commit=summary.get("commit"),
        versions={str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
        settings=settings or {"recipe": str(summary.get("recipe"))},
        configured=bool(settings),
    )


def different_versions(runs: Iterable[Run]) -> Iterator[str]:
    """Say in a line each which packages the runs have in different versions."""
    versions = [run.versions for run in runs]
    for package in sorted({package for one in versions for package in one}):
        found = {one.get(package, "unknown") for one in versions}
        if len(found) > 1:
            yield f"the runs come from different versions of {package}: {', '.join(sorted(found))}"


def _settings(path: Path) -> dict[str, str]:
    """Flatten a configuration to dotted keys, without those that do not change what is learned."""
    from botvision.io.yaml import read_yaml  # PyYAML is not needed to import this module

    if not path.is_file():
        return {}
    config = read_yaml(path)
    flat: dict[str, str] = {}

    def walk(node: object, key: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                walk(value, f"{key}.{name}" if key else str(name))
        elif key not in INCIDENTAL_SETTINGS:
            flat[key] = json.dumps(node, default=str)

    walk(config, "")
    return flat
