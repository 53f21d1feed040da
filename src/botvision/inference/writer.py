"""Predictions to files: one JSON, and a labelled picture for each image."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from botvision.inference.predictor import Prediction
from botvision.io.files import replacing, write_text
from botvision.plots.overlay import annotate, contact_sheet

PREDICTIONS = "predictions.json"
PICTURES = "pictures"
SHEET = "sheet.png"
JPEG_QUALITY = 92


def write_predictions(
    predictions: Iterable[Prediction],
    out: str | Path,
    files: Sequence[Path],
    description: Mapping[str, Any],
    *,
    pictures: bool = True,
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
        pictures: Draw upon those that the predictions carry; without, ``files`` are not looked at.
    """
    out = Path(out)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    names = picture_names(files) if pictures else itertools.repeat("")
    for prediction, name in zip(predictions, names, strict=pictures):
        row = prediction.to_json()
        if prediction.error is not None:
            failed.append(row)
        else:
            if pictures and prediction.picture is not None:
                row["picture"] = f"{PICTURES}/{name}"
                card = annotate(prediction.picture, prediction.top)
                with replacing(out / PICTURES / name) as temporary:
                    card.save(temporary, "JPEG", quality=JPEG_QUALITY)
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
    sheet = contact_sheet(pictures, captions, cell=200)
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")
    return path


def picture_names(files: Sequence[Path]) -> Iterator[str]:
    """Yield a distinct ``.jpg`` name for each file: its path below the common folder with another suffix.

    Where two would get the same name (``a.png`` beside ``a.gif``) the later one keeps its own: ``a.gif.jpg``.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100 - links stay what they are called
    if not absolute:
        return
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    taken: set[str] = set()
    for path in absolute:
        inside = path.relative_to(common)
        others = (Path(f"{inside}{'_' * i}.jpg") for i in itertools.count())
        candidates = (c.as_posix() for c in itertools.chain([inside.with_suffix(".jpg")], others))
        # Without regard to case: some file systems have none.
        name = next(c for c in candidates if c.lower() not in taken)
        taken.add(name.lower())
        yield name
