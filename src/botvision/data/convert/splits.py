"""What every reader of labels returns, and which split the folders of an image name."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from botvision.coco.annotations import NewFile
from botvision.data.convert.entries import counted
from botvision.data.split_names import SPLITS


@dataclass
class Labels:
    """Labels of a folder, ready to be written as COCO JSON.

    Attributes:
        splits: a file for each split, by its name ("train", "val", "test"); "" where the folder has none.
        notes: lines that the user must read: what was left out, guessed or changed.
    """

    splits: dict[str, NewFile]
    notes: list[str] = field(default_factory=list)


def splits_of_folders(files: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return files by the folder before or after the last one called images, and what was guessed.

    That is `train` of `train/images/a.jpg` and of `images/train2017/a.jpg`; without one, any folder. Files
    outside such folders are one split "" alone, and training data beside others.
    """
    splits: dict[str, list[str]] = {name: [] for name in ("", *SPLITS.values())}
    for file in files:
        splits[split_of(file)].append(file)
    splits = {name: found for name, found in splits.items() if found}
    if len(splits) < 2 or "" not in splits:
        return splits, []
    loose = splits.pop("")
    taken = "in no folder called train, val or test, so taken for training"
    note = f"{taken}: {counted(len(loose), 'image')}"
    return {"train": sorted([*splits.pop("train", []), *loose]), **splits}, [note]


def split_of(file: str) -> str:
    """Return the split that the folders of a file name, "" where they name none."""
    near = folders = PurePosixPath(file).parts[:-1]
    lower = tuple(map(str.lower, folders))
    if "images" in lower:
        last = len(folders) - 1 - lower[::-1].index("images")
        near = (*folders[last + 1 : last + 2], *folders[max(last - 1, 0) : last])
    names = (folder.lower().rstrip("0123456789_-") for folder in near)
    return next((SPLITS[name] for name in names if name in SPLITS), "")
