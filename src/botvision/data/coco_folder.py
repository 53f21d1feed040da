"""Which annotation files and image folders a detection data set has."""

import mmap
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from botvision.coco.annotations import Category, CocoFile
from botvision.coco.problems import Problem
from botvision.coco.read import read_coco
from botvision.config.data import DetectionDataConfig
from botvision.io.errors import DataError

TRAIN_PATTERNS = (
    "annotations/instances_train*.json", "annotations/*train*.json", "train/_annotations.coco.json",
    "instances_train*.json", "*train*.json",
)  # fmt: skip
VAL_PATTERNS = (
    "annotations/instances_val*.json", "annotations/*val*.json", "valid/_annotations.coco.json",
    "val/_annotations.coco.json", "instances_val*.json", "*val*.json",
)  # fmt: skip
SINGLE_PATTERNS = ("annotations/*.json", "*.json")
VAL_WORDS = frozenset({"val", "valid", "validation", "test"})


@dataclass(frozen=True)
class SplitFiles:
    """Annotations and images of one split."""

    annotations: Path
    images: Path | None
    """None: to be found beside the annotations."""


def find_split_files(config: DetectionDataConfig, *, need_train: bool = True) -> dict[str, SplitFiles]:
    """Return the files of "train" and, where there are any, of "val".

    Args:
        config: root and, where they are set, the files.
        need_train: whether there must be training data.

    Raises:
        DataError: one line, if the root or the annotations are missing, or several files could be meant.
    """
    if config.root is None:
        raise DataError(config.missing_root)
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder, expected annotations/*.json and images")
    named = (config.train_annotations, config.val_annotations)
    train, val = (None if given is None else root / given for given in named)
    train = train or _found(root, TRAIN_PATTERNS, "train_annotations")
    val = val or _found(root, VAL_PATTERNS, "val_annotations")
    if train is None:
        train = _found(root, SINGLE_PATTERNS, "train_annotations", besides=val)
    if train is None and (need_train or val is None):
        raise DataError(
            f"{root}: no COCO annotations, expected annotations/instances_train*.json or a single *.json; "
            "data.train_annotations names another file, and botvision convert makes one of other labels"
        )
    files = {}
    if train is not None:
        files["train"] = SplitFiles(train, _folder(root, config.train_images, "train_images"))
    if val is not None and val != train:
        files["val"] = SplitFiles(val, _folder(root, config.val_images, "val_images"))
    return files


def naming_key(root: Path, annotations: Path, part: str = "") -> tuple[str | None, bool]:
    """Return how training and `check` come to know of an annotations file.

    Args:
        root: of the data set.
        annotations: a file that is there.
        part: of the data set that it describes, such as "images/val".

    Returns:
        The key that must name it, "train_annotations" or "val_annotations", or None where it is found
        without; and whether there are training annotations then.
    """
    try:
        found = find_split_files(DetectionDataConfig(root=str(root)), need_train=False)
    except DataError:  # none, or several that could be meant
        found = {}
    here = annotations.resolve()
    if any(files.annotations.resolve() == here for files in found.values()):
        return None, "train" in found
    words = {word for name in (annotations.stem, part) for word in re.split("[^a-z]+", name.lower())}
    key = "val_annotations" if words & VAL_WORDS else "train_annotations"
    return key, key == "train_annotations" or "train" in found


def is_detection_data(root: Path) -> bool:
    """Return whether a folder holds COCO annotations: annotations/*.json, or JSON with COCO's keys."""
    if not root.is_dir():
        return False
    if next(root.glob("annotations/*.json"), None) is not None:
        return True
    patterns = ("*.json", *(f"{split}/_annotations.coco.json" for split in ("train", "valid", "val")))
    candidates = [path for pattern in patterns for path in root.glob(pattern)]
    return any(_mentions(path, b'"annotations"') and _mentions(path, b'"images"') for path in candidates)


def image_folder(file: CocoFile, files: SplitFiles, root: Path) -> Path:
    """Return the folder that the images' file names are relative to.

    The usual ones are tried (train2017/ for instances_train2017.json, images/, the annotations' own folder,
    the root); the one with the most of the first images' files is taken, the first of them in a tie.
    """
    if files.images is not None:
        return files.images
    stem = files.annotations.stem.removeprefix("instances_")
    plain = stem.rstrip("0123456789_-")
    beside = files.annotations.parent
    names = [f"{top}{name}" for name in dict.fromkeys((stem, plain)) for top in ("", "images/")]
    folders = [root / name for name in names] + [beside / stem, root / "images", beside / "images"]
    folders += [beside, root]
    if plain.startswith("val"):
        folders.insert(0, root / "valid")
    sample = file.images[:: max(1, len(file.images) // 8)]
    counts = [sum(_is(Path.is_file, folder / image.file) for image in sample) for folder in folders]
    return folders[counts.index(max(counts))]


def read_split(
    files: SplitFiles, root: Path, categories: Sequence[Category] | None = None
) -> tuple[CocoFile, Path, list[Problem]]:
    """Read a split's annotations and see which files are missing.

    Args:
        files: of the split.
        root: of the data set.
        categories: of the training data, which those of validation must be among.

    Returns:
        What was read, the folder of the images, and all problems.

    Raises:
        DataError: one line, if the annotations are no COCO file.
    """
    file = read_coco(files.annotations, categories)
    folder = image_folder(file, files, root)
    return file, folder, [*file.problems, *missing_files(file, folder)]


def missing_files(file: CocoFile, folder: Path) -> list[Problem]:
    """Return a problem for every image whose file is not there (asked folder by folder, not file by file)."""
    listed: dict[Path, set[str]] = {}
    problems = []
    for image in file.images:
        path = folder / image.file
        if path.parent not in listed:
            there = _is(Path.is_dir, path.parent)
            listed[path.parent] = {entry.name for entry in path.parent.iterdir()} if there else set()
        if path.name not in listed[path.parent]:
            problems.append(Problem("file", f"{path} (image id {image.id}): no such file", image.id))
    return problems


def _mentions(path: Path, word: bytes) -> bool:
    """Whether a file holds a word; maps it, so that a large one is not read into memory."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(word) >= 0
    except (OSError, ValueError):  # ValueError: the file is empty
        return False


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Whether a path is there, of a kind; a name too long for the file system names nothing."""
    try:
        return kind(path)
    except OSError:
        return False


def _found(root: Path, patterns: tuple[str, ...], key: str, besides: Path | None = None) -> Path | None:
    for pattern in patterns:
        found = sorted(path for path in root.glob(pattern) if path != besides)
        if len(found) > 1:
            shown = ", ".join(str(path.relative_to(root)) for path in found[:4])
            raise DataError(f"{root}: {len(found)} files could be meant ({shown}), please set data.{key}")
        if found:
            return found[0]
    return None


def _folder(root: Path, given: str | None, key: str) -> Path | None:
    if given is None:
        return None
    folder = root / given
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected the images (data.{key})")
    return folder
