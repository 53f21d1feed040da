"""Finished runs of other studies: what has been trained with the very same configuration need not be again.

Studies overlap: the plain ResNet of one is that of another. On the same machine a run is a function of its
configuration, so a copy is as good as a repetition.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from botvision.config.recipes import changed_keys, load_config, with_absolute_paths
from botvision.config.schema import ConfigError
from botvision.studies.plan import INCIDENTAL, Plan, PlannedRun

TAKEN = "taken_from.txt"  # in the folder of a run that was copied: study's folder and run's folder
DEPTH = 3  # levels below the folder that is named
LEFT_OUT = shutil.ignore_patterns("checkpoints", "tensorboard")  # a finished run is not gone on with


def find_copies(plan: Plan, folder: Path) -> dict[str, Path]:
    """Looks for finished runs of the same configuration and data, for runs that are not there yet.

    Args:
        plan: of the study.
        folder: below which finished runs lie, such as that of another study.

    Returns:
        Folder of the run to be copied, by name of the study's run.

    Raises:
        ConfigError: no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"--reuse: {folder}: no such folder")
    waiting = [run for run in plan.runs if run.state() == "new" and not run.folder.exists()]
    copies = {}
    for found in _finished(folder, plan.folder):
        run = next((run for run in waiting if _is_same(run, found)), None)
        if run is not None:
            waiting.remove(run)
            copies[run.name] = found
    return copies


def take_over(plan: Plan, folder: Path, tell: Callable[[str], object]) -> list[str]:
    """Copies what `find_copies` finds; the plan's folder is its own already, and nobody else works in it.

    Args:
        plan: of the study.
        folder: below which finished runs lie.
        tell: receives a line for each.

    Returns:
        Names of the runs that were copied.

    Raises:
        ConfigError: no such folder.
    """
    copies = find_copies(plan, folder)
    for name, found in copies.items():
        _copy(found, plan.folder / name)
        tell(f"{name}: taken from {found}")
    return list(copies)


def taken_from(folder: Path) -> str | None:
    """Returns whose run a copied one is, as "study/run"; None for a run of the study's own."""
    try:
        return (folder / TAKEN).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _finished(folder: Path, own: Path) -> list[Path]:
    """Folders of finished runs, sorted; without those of the study itself, and copies that were cut off."""
    patterns = ["/".join(["*"] * depth + ["summary.json"]) for depth in range(1, DEPTH + 1)]
    found = {path.parent for pattern in patterns for path in folder.glob(pattern)}
    whole = (path for path in found if not path.name.startswith("."))
    return sorted(path for path in whole if path.parent.resolve() != own.resolve())


def _is_same(run: PlannedRun, found: Path) -> bool:
    try:
        there = load_config(found / "config.yaml")
    except (ConfigError, OSError):
        return False
    wanted = with_absolute_paths(run.config)
    if type(there) is not type(wanted) or set(changed_keys(there, wanted)) - INCIDENTAL:
        return False
    ours, theirs = wanted.data.root, there.data.root
    if ours is None or theirs is None:
        return ours == theirs
    return Path(ours).exists() and Path(theirs).exists() and Path(ours).samefile(theirs)


def _copy(source: Path, target: Path) -> None:
    """All of it or nothing: the name is given last."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=LEFT_OUT)
    whose = taken_from(source) or f"{source.resolve().parent.name}/{source.name}"
    (partial / TAKEN).write_text(f"{whose}\n", encoding="utf-8")
    partial.rename(target)
