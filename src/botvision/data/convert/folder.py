"""Folders of other tools to COCO JSON, which all else reads: one file for each split.

Each kind has a module, which says what it reads: `masks`, `yolo`, `voc` and `labelme`. Boxes without masks
train a Faster R-CNN.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from botvision.data.cache import Progress
from botvision.data.convert import labelme, masks, voc, yolo
from botvision.data.convert.entries import counted
from botvision.data.convert.splits import Labels
from botvision.io.errors import DataError
from botvision.io.files import write_text

FolderKind = Literal["masks", "yolo", "voc", "labelme"]
Reader = Callable[[Path, str, Progress | None], Labels]


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        files: the COCO JSON of each split, by its name.
        root: the folder that their file names are relative to.
        images: number of images in all of them.
        annotations: number of instances.
        categories: names, in the order of their ids 1, 2, ...
        notes: lines that the user must read: what was left out, guessed or changed.
    """

    files: dict[str, Path]
    root: Path
    images: int
    annotations: int
    categories: list[str]
    notes: list[str]


def to_coco(
    kind: FolderKind,
    folder: str | Path,
    out: str | Path | None = None,
    *,
    part: str = "",
    category: str = "object",
    split_parts: bool = False,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> Conversion:
    """Write a folder's labels as COCO JSON; the images stay where they are.

    Args:
        kind: what lies beside the images.
        folder: the data set; the JSON's file names are relative to it.
        out: the JSON to write; of several splits that of the training set, beside which the others put their
            names before the suffix. A folder for `instances_train.json` and so on in it, None for the data
            set's `annotations/`.
        part: only images below this folder of it, such as "images/train".
        category: the name of all instances of kind "masks".
        split_parts: of kind "masks": parts of a value that do not touch are an instance each.
        overwrite: False refuses files that are there already.
        progress: called with what is being done, how many files are done and how many there are.

    Raises:
        DataError: one line naming the file (and line) that cannot be read, or is there already; or no image
            has an object.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    readers: dict[FolderKind, Reader] = {
        "masks": partial(masks.read, category=category, split_parts=split_parts), "yolo": yolo.read,
        "voc": voc.read, "labelme": labelme.read,
    }  # fmt: skip
    labels = readers[kind](root, os.path.normpath(part) if part else "", progress)
    notes = labels.notes + _without_objects(labels, root)
    files = _outputs(labels, root, None if out is None else Path(out))
    for path in files.values():
        if path.exists() and not overwrite:
            raise DataError(f"{path}: is there already; --out names another file")
    for split, path in files.items():
        write_text(path, json.dumps(labels.splits[split].to_dict()))
    contents = list(labels.splits.values())
    counts = sum(len(one.images) for one in contents), sum(len(one.annotations) for one in contents)
    return Conversion(files, root, *counts, contents[0].categories, notes)


def _without_objects(labels: Labels, root: Path) -> list[str]:
    """A note on splits without objects. Raises DataError if none has any: nothing could be learnt from it."""
    empty = {
        split: counted(len(one.images), "image")
        for split, one in labels.splits.items()
        if not one.annotations
    }
    if len(empty) == len(labels.splits):
        images = counted(sum(len(one.images) for one in labels.splits.values()), "image")
        why = "; ".join(labels.notes) or "the label files are without any"
        raise DataError(f"{root}: no object in {images}, so nothing is written ({why})")
    return [f"no object in {split} ({images})" for split, images in empty.items()]


def _outputs(labels: Labels, root: Path, out: Path | None) -> dict[str, Path]:
    """The file of each split: names under which `check` and training find them."""
    out = root / "annotations" if out is None else out
    if out == root / "annotations" or out.is_dir() or (len(labels.splits) > 1 and out.suffix != ".json"):
        return {split: out / f"instances_{split or 'train'}.json" for split in labels.splits}
    first = "train" if "train" in labels.splits else next(iter(labels.splits))
    others = {split: out.with_name(f"{out.stem}_{split}{out.suffix}") for split in labels.splits}
    return {**others, first: out}
