"""The lists of images in a VOC data set's `ImageSets/Main`, or in `ImageSets` itself."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from botvision.data.convert.entries import counted
from botvision.data.convert.image_index import ImageIndex
from botvision.data.convert.label_files import text_in
from botvision.data.convert.walk import is_below
from botvision.data.left_out import LeftOut
from botvision.data.split_names import SPLITS
from botvision.io.errors import DataError


def image_sets(
    root: Path, index: ImageIndex, files: Sequence[str], left_out: LeftOut
) -> dict[str, list[str]]:
    """Return the images of each list that is a split: train, val, test and trainval.

    Args:
        root: the data set, or a folder of several, whose lists are then joined.
        index: of its files.
        files: its images that can be used.
        left_out: takes what a list names and is not there.

    Raises:
        DataError: a list that is no text, or a line that may mean several images.
    """
    lists: dict[str, dict[str, None]] = {}
    for file in index.others(".txt"):
        path = PurePosixPath(file)
        folder = path.parent.parent if path.parent.name.lower() == "main" else path.parent
        split = {**SPLITS, "trainval": "trainval"}.get(path.stem.lower())
        if split is None or folder.name.lower() != "imagesets":
            if "imagesets" in map(str.lower, path.parts[:-1]):
                left_out.add("other lists of ImageSets than train, val, test and trainval", file)
            elif {"trainval", *SPLITS}.intersection(re.split("[_-]", path.stem.lower())):
                left_out.add("not in ImageSets, so not read as lists of a split", file)
            continue
        known = _by_name([each for each in files if is_below(each, str(folder.parent))])
        lines = text_in(root / file).splitlines()
        members = lists.setdefault(split, {})
        for number, line in enumerate(filter(None, map(str.strip, lines)), 1):
            name = _name(line, known)
            if name is None:
                left_out.add(f"named in {file}, but not there", line[:100])
            elif len(known[name]) > 1:
                first, second, *_ = known[name]
                raise DataError(f"{root / file}: entry {number}: {line[:60]!r} may be {first} or {second}")
            else:
                members[known[name][0]] = None
    return {split: [*lists[split]] for split in ("train", "val", "test", "trainval") if split in lists}


def splits_of_lists(
    root: Path, lists: dict[str, list[str]], chosen: Sequence[str], left_out: LeftOut
) -> tuple[dict[str, list[str]], list[str]]:
    """Return images by split, and what is to be said of it.

    Args:
        root: the data set.
        lists: as `image_sets` returns them; trainval is the training set where train and val are missing.
        chosen: the images to take, of those that are listed.
        left_out: takes those that are not.

    Raises:
        DataError: none is listed.
    """
    whole = lists.get("trainval", [])
    named = {name: files for name, files in lists.items() if name != "trainval"}
    if not named.keys() & {"train", "val"}:
        named = {"train": whole, **named}
    kept = set(chosen)
    splits = {name: [file for file in files if file in kept] for name, files in named.items()}
    splits = {name: files for name, files in splits.items() if files}
    times = Counter(file for files in splits.values() for file in files)
    for file in chosen:
        if file not in times:
            left_out.add("in none of these lists of ImageSets", file)
    if not splits:
        missing = "; ".join(left_out.notes())
        raise DataError(f"{root}: none of the images is in a list of ImageSets that is a split; {missing}")
    said = ", ".join(f"{name} ({len(files):,})" for name, files in splits.items())
    notes = [f"lists of ImageSets, a file for each: {said}; --part takes one"]
    if several := sum(count > 1 for count in times.values()):
        notes.append(counted(several, "image", "of these in more than one list"))
    return splits, notes


def _by_name(files: Sequence[str]) -> dict[str, list[str]]:
    """Images by every end of their path, with and without suffix."""
    known: dict[str, list[str]] = defaultdict(list)
    for file in files:
        parts = PurePosixPath(file).parts
        for start in range(len(parts)):
            end = PurePosixPath(*parts[start:])
            known[str(end)].append(file)
            known[str(end.with_suffix(""))].append(file)
    return known


def _name(line: str, known: dict[str, list[str]]) -> str | None:
    """What a line means: a name, in quotes or not, a number behind it (as in lists of classes), or a path."""
    plain = line.strip('"').replace("\\", "/").removeprefix("./")
    first, _, rest = plain.rpartition(" ")
    candidates = [plain, *([first.strip()] if rest in ("-1", "0", "1") else []), PurePosixPath(plain).name]
    return next((name for name in candidates if name in known), None)
