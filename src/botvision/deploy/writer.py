"""Predictions to files: one JSON, and a labelled picture for each image."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from botvision.deploy.predictor import Prediction
from botvision.draw import annotate, contact_sheet

PREDICTIONS = "predictions.json"
PICTURES = "pictures"
SHEET = "sheet.png"
JPEG_QUALITY = 92


def write_predictions(
    predictions: Iterable[Prediction], out: str | Path, files: Sequence[Path], description: Mapping[str, Any]
) -> Iterator[Prediction]:
    """Hand predictions on one by one, each after its picture is written; the JSON follows the last.

    ``predictions.json`` holds ``model``, ``task``, ``classes``, ``predictions`` (``file``, ``top`` and, if
    drawn, ``picture``, relative to the JSON) and ``failed`` (``file``, ``error``). It is written only if all
    went well.

    Args:
        predictions: Of all ``files``, in their order.
        out: Folder, made if it is not there.
        files: Names of the pictures follow these paths, below the folder they have in common.
        description: Of the model: ``name``, ``task``, ``classes``.
    """
    out = Path(out)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for prediction, name in zip(predictions, picture_names(files), strict=True):
        row = prediction.to_json()
        if prediction.error is not None:
            failed.append(row)
        else:
            if prediction.picture is not None:
                row["picture"] = f"{PICTURES}/{name}"
                _save(annotate(prediction.picture, prediction.top), out / PICTURES / name)
            done.append(row)
        yield prediction
    facts = {
        "model": description.get("name"),
        "task": description.get("task"),
        "classes": description["classes"],
    }
    text = json.dumps({**facts, "predictions": done, "failed": failed}, indent=2, ensure_ascii=False)
    write_text(out / PREDICTIONS, text + "\n")


def write_sheet(
    shown: Sequence[tuple[Image.Image | None, list[dict[str, Any]], str]], out: str | Path
) -> Path:
    """Write `sheet.png`: the images in a grid, each with its best label, its score and its true class.

    Args:
        shown: picture, predictions (best first) and true class of each image; without picture it is left out.
        out: folder, made if it is not there.
    """
    captions, pictures = [], []
    for picture, top, truth in shown:
        if picture is not None:
            right = top[0]["label"] == truth
            verdict = "right" if right else f"is {truth}"
            captions.append(f"{top[0]['label']} {100 * top[0]['score']:.0f}% ({verdict})")
            pictures.append(picture)
    path = Path(out) / SHEET
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    contact_sheet(pictures, captions, cell=200).save(temporary, "PNG")
    temporary.replace(path)
    return path


def picture_names(files: Sequence[Path]) -> list[str]:
    """Return a distinct ``.jpg`` name for each file: its path below the common folder with another suffix.

    Where two would get the same name (``a.png`` beside ``a.gif``) the later one keeps its own: ``a.gif.jpg``.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100 - links stay what they are called
    if not absolute:
        return []
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    taken: set[str] = set()
    names = []
    for path in absolute:
        inside = path.relative_to(common)
        candidates = [
            inside.with_suffix(".jpg"),
            *(Path(f"{inside}{'_' * i}.jpg") for i in range(len(files))),
        ]
        # Without regard to case: some file systems have none.
        name = next(c.as_posix() for c in candidates if c.as_posix().lower() not in taken)
        taken.add(name.lower())
        names.append(name)
    return names


def write_text(path: Path, text: str) -> None:
    """Write a text under a temporary name, then rename it; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        picture.save(temporary, "JPEG", quality=JPEG_QUALITY)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
