"""Which annotation files and image folders a detection data set has."""

import mmap
import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from botvision.coco.annotations import Category, CocoFile
from botvision.coco.problems import Problem
from botvision.coco.read import read_coco
from botvision.config.data import DetectionDataConfig
from botvision.data.convert.walk import is_below
from botvision.data.images import has_image_suffix
from botvision.data.labels import has_classes
from botvision.data.left_out import LeftOut
from botvision.data.other_labels import convert_hint, subfolders
from botvision.data.sources import list_folder
from botvision.data.split_names import SPLIT_NAMES, TEST_NAMES, TRAIN_NAMES, VAL_NAMES
from botvision.io.errors import DataError

TRAIN_WORDS = frozenset({*TRAIN_NAMES, "trainval", "trainset"})
VAL_WORDS = frozenset({*VAL_NAMES, "valset", "minival"})
TEST_WORDS = frozenset(TEST_NAMES)
HELD_WORDS = VAL_WORDS | TEST_WORDS
MOST_FOLDERS = 20  # of a folder, that are looked into for data
BESIDE_IMAGES = ("_annotations.coco.json", "annotations.json", "labels.json")


@dataclass(frozen=True)
class SplitFiles:
    """Annotations and images of one split."""

    annotations: Path
    images: Path | None
    """None: to be found beside the annotations."""


def find_test_files(config: DetectionDataConfig) -> SplitFiles | None:
    """Return the annotations that are of a test split by their name, instances_test.json say, or None.

    Raises:
        DataError: one line, if several files could be meant.
    """
    root = Path(str(config.root))
    if not root.is_dir():
        return None
    mine = lambda words: bool(words & TEST_WORDS) and not words & (TRAIN_WORDS | VAL_WORDS)  # noqa: E731
    path = _found(root, _tiers(root), "val_annotations", mine)
    return None if path is None else SplitFiles(path, None)


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
    tiers = _tiers(root)
    train = train or _found(root, tiers, "train_annotations", lambda words: bool(words & TRAIN_WORDS))
    val = val or _found(
        root, tiers, "val_annotations", lambda words: bool(words & VAL_WORDS) and not words & TRAIN_WORDS
    )
    if train is None:
        rest = [[path for path in tiers[place] if path != val] for place in (1, 4)]
        train = _found(root, rest, "train_annotations", lambda words: not words & HELD_WORDS)
        if train is not None and not _is_coco(train) and (hint := convert_hint(root)):
            raise DataError(f"{root}: {hint}")
    if train is None and (need_train or val is None):
        raise DataError(f"{root}: {_no_training(root, tiers)}")
    if named[1] is not None and val == train:
        instead = "data.val_is_train true measures on the training images"
        raise DataError(f"{val}: named for training and validation; {instead}")
    files = {}
    if train is not None:
        files["train"] = SplitFiles(train, _folder(root, config.train_images, "train_images"))
    if val is not None and val != train:
        files["val"] = SplitFiles(val, _folder(root, config.val_images, "val_images"))
    return files


def naming_key(root: Path, annotations: Path, part: str = "") -> str | None:
    """Return the key by which `check` must be told of an annotations file.

    Args:
        root: of the data set.
        annotations: a file that is there.
        part: of the data set that it describes, such as "images/val".

    Returns:
        "train_annotations" or "val_annotations"; None where it is found without, or is of a test split beside
        validation data, which it must not replace.
    """
    config = DetectionDataConfig(root=str(root))
    words = words_of(f"{part} {annotations.stem}")
    test = bool(words & TEST_WORDS) and not words & (TRAIN_WORDS | VAL_WORDS)
    try:
        found = find_split_files(config, need_train=False)
    except DataError:  # none, or several that could be meant
        found = {}
    files = [*found.values(), *filter(None, [None if found else find_test_files(config)])]
    if annotations.resolve() in (each.annotations.resolve() for each in files) or (test and "val" in found):
        return None
    return "val_annotations" if words & HELD_WORDS else "train_annotations"


def words_of(name: str) -> frozenset[str]:
    """Return the words of a file's name in lower case: instances_trainval2017 has two, TrainSet too."""
    return frozenset(word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name))


def unused_annotations(root: Path, files: Mapping[str, SplitFiles]) -> LeftOut:
    """Count the annotation files in their usual places that are of neither split."""
    used, left_out = {parts.annotations.resolve() for parts in files.values()}, LeftOut()
    for path in dict.fromkeys(path for tier in _tiers(root)[:3] for path in tier):
        if path.resolve() not in used:
            left_out.add("annotations that training does not use", path.relative_to(root))
    return left_out


def is_detection_data(root: Path) -> bool:
    """Return whether a folder holds JSON with COCO's keys, or annotations/*.json and no classes."""
    if not root.is_dir():
        return False
    _, inside, beside, _, single = _tiers(root)
    if any(map(_is_coco, [*inside, *beside, *single])):
        return True
    return bool(inside) and not has_classes(list_folder(root))


def deeper(root: Path) -> str | None:
    """Return a line on the data set that lies one or two folders below this one; None without any."""
    first = subfolders(root)[:MOST_FOLDERS]
    for folder in chain(first, *(subfolders(each)[:MOST_FOLDERS] for each in first)):
        if any(_is_coco(path) for tier in _tiers(folder)[1:] for path in tier):
            return f"the data lie deeper: botvision check {shlex.quote(str(folder))}"
    alone = first[0] if len(first) == 1 and first[0].name.lower() not in SPLIT_NAMES else None
    if alone is not None and has_classes(list_folder(alone)):
        return f"the data lie deeper: botvision check {shlex.quote(str(alone))}"
    return None


def image_folder(file: CocoFile, files: SplitFiles, root: Path) -> tuple[Path, int]:
    """Find the folder that the images' file names are relative to.

    The usual ones are tried (train2017/ for instances_train2017.json, images/, the annotations' own folder,
    the root), in small or capital letters; the one with the most of the first images' files is taken, the
    first of them in a tie.

    Returns:
        The folder, and how many of up to eight images it holds.
    """
    stem = re.sub("(?i)^instances_", "", files.annotations.stem)
    plain = stem.rstrip("0123456789_-")
    words = words_of(stem)
    kinds = (VAL_WORDS, TRAIN_WORDS, TEST_WORDS)
    alike: frozenset[str] = next((kind for kind in kinds if words & kind), frozenset())
    beside, names = files.annotations.parent, dict.fromkeys([stem, plain, *sorted(alike)])
    images = _in_any_case([root / "images", beside / "images"])
    folders = [place / name for place in (root, images[0], beside) for name in names]
    folders += [*images, beside, root]
    folders = [files.images] if files.images is not None else _in_any_case(folders)
    sample, names_there = file.images[:: max(1, len(file.images) // 8)], FileNames()

    def best(folders: Sequence[Path], find: Callable[[Path, str], object]) -> tuple[Path, int]:
        counts = [sum(bool(find(folder, image.file)) for image in sample) for folder in folders]
        return folders[counts.index(max(counts))], max(counts)

    below = (
        each for top in (subfolders(root) if files.images is None else []) for each in _with_folders(top)
    )
    exact = lambda folder, name: _is(Path.is_file, folder / name)  # noqa: E731
    found = folders[0], 0
    for tried in (folders, [*below]):
        for find in (exact, names_there.find):
            if tried and not found[1] and (now := best(tried, find))[1]:
                found = now
    return found


def _with_folders(folder: Path) -> Iterator[Path]:
    yield folder
    yield from subfolders(folder)


class FileNames:
    """The names in folders, each of which is listed once."""

    def __init__(self) -> None:
        self._there: dict[Path, set[str]] = {}
        self._alike: dict[Path, dict[str, list[str]]] = {}

    def __contains__(self, path: Path) -> bool:
        return path.name in self._listed(path.parent)

    def find(self, folder: Path, name: str) -> str | None:
        """Return the only path in a folder that is `name` but for case, Unicode form and percent signs."""
        found: list[str] = []
        for part in PurePosixPath(name).parts:
            place = folder.joinpath(*found)
            if part not in self._listed(place):
                if place not in self._alike:
                    alike = self._alike[place] = {}
                    for entry in self._there[place]:
                        alike.setdefault(same_name(entry), []).append(entry)
                alike = self._alike[place]
                others = alike.get(same_name(part)) or alike.get(same_name(unquote(part)), [])
                if len(others) != 1:
                    return None
                part = others[0]
            found.append(part)
        return "/".join(found)

    def _listed(self, folder: Path) -> set[str]:
        if folder not in self._there:
            there = _is(Path.is_dir, folder)
            self._there[folder] = {entry.name for entry in folder.iterdir()} if there else set()
        return self._there[folder]


def same_name(name: str) -> str:
    """Return a form in which names are equal that differ in case or Unicode form (of accents) alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


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
    folder, found = image_folder(file, files, root)
    changed = sum("\\" in image.file for image in file.images)
    if changed:  # as Windows writes paths
        slashed = [image._replace(file=image.file.replace("\\", "/")) for image in file.images]
        other = replace(file, images=slashed)
        other_folder, more = image_folder(other, files, root)
        if more >= found:
            file, folder, found = other, other_folder, more
            line = f"{file.name}: backslashes in file names are read as slashes ({changed} images)"
            file.problems.append(Problem("note", line, fatal=False))
    if not found:
        file, folder = _without_folders(file, files, root) or (file, folder)
    names, where = FileNames(), f"{folder}" if files.images else f"the usual folders or others of {root}"
    file = _as_on_disk(file, folder, names)
    bases = [root, files.annotations.parent, *([] if files.images is None else [files.images])]
    left, outside = _outside(file, folder, bases)
    return file, folder, [*file.problems, *left, *_missing(file, folder, where, names, outside)]


def _without_folders(file: CocoFile, files: SplitFiles, root: Path) -> tuple[CocoFile, Path] | None:
    """Take the last part of each file name, the rest being of another machine; None if that is not there."""
    last = [image._replace(file=image.file.replace("\\", "/").rpartition("/")[2]) for image in file.images]
    changed = [old.file for old, new in zip(file.images, last, strict=True) if old.file != new.file]
    if not changed or len({image.file for image in last}) < len(last):
        return None
    other = replace(file, images=last)
    folder, found = image_folder(other, files, root)
    line = f"{file.name}: file names are read without their folders, which are not there "
    line += f"({len(changed)} images, {changed[0]} the first)"
    file.problems.extend([Problem("note", line, fatal=False)] if found else [])
    return (other, folder) if found else None


def _outside(file: CocoFile, folder: Path, bases: Sequence[Path]) -> tuple[list[Problem], set[int]]:
    """Refuse names that leave the data set, with their image ids, and count links that lead out of it."""
    named, real = ([way(base) for base in bases] for way in (os.path.abspath, os.path.realpath))
    problems, refused, linked = list[Problem](), set[int](), list[Path]()
    links: dict[Path, tuple[bool, set[str]]] = {}
    for image in file.images:
        path = folder / image.file
        leaves = ".." in image.file or Path(image.file).is_absolute()
        place = os.path.normpath(path.absolute()) if leaves else ""
        if leaves and not any(is_below(place, base) for base in (*named, *real)):
            line = f"{path} (image id {image.id}): outside {bases[0]}, so it is not read"
            line += "" if path.exists() else ", and not there"
            line += "; data.root, data.train_images or data.val_images name the folder of the images"
            problems.append(Problem("file", line, image.id))
            refused.add(image.id)
            continue
        if path.parent not in links:
            is_folder = _is(Path.is_dir, path.parent)
            there = [*os.scandir(path.parent)] if is_folder else []
            inside = not is_folder or any(is_below(os.path.realpath(path.parent), base) for base in real)
            links[path.parent] = inside, {entry.name for entry in there if entry.is_symlink()}
        inside, own = links[path.parent]
        if path.name in own:
            inside = any(is_below(os.path.realpath(path), base) for base in real)
        linked += [] if inside else [path]
    if linked:
        line = f"{file.name}: images that links lead to, out of {bases[0]}, are read "
        line += f"({len(linked)} of them, {linked[0]} the first)"
        problems.append(Problem("note", line, fatal=False))
    return problems, refused


def _as_on_disk(file: CocoFile, folder: Path, names: FileNames) -> CocoFile:
    """Take files whose names differ in case or Unicode form alone; images of a name that is there stay."""
    taken = {image.file for image in file.images}
    images, changed = [*file.images], list[str]()
    for place, image in enumerate(file.images):
        if folder / image.file not in names:
            found = names.find(folder, image.file)
            if found is not None and found not in taken:
                images[place] = image._replace(file=found)
                changed.append(image.file)
    if changed:
        line = (
            f"{file.name}: file names that differ from those on disk in case, Unicode form or %20 alone are "
        )
        line += f"read as those ({len(changed)} images, {changed[0]} the first)"
        file.problems.append(Problem("note", line, fatal=False))
    return replace(file, images=images)


def _missing(file: CocoFile, folder: Path, where: str, names: FileNames, refused: Set[int]) -> list[Problem]:
    """A problem for every image whose file is not there; one for all, where none is."""
    paths = [(folder / image.file, image.id) for image in file.images if image.id not in refused]
    lacking = [(path, number) for path, number in paths if path not in names]
    problems = [Problem("file", f"{path} (image id {n}): no such file", n) for path, n in lacking]
    if len(problems) > 1 and len(lacking) == len(paths):
        line = f"{file.name}: none of its {len(paths)} images is in {where} (first: {file.images[0].file}); "
        line += "data.train_images or data.val_images names their folder"
        problems = [Problem("file", line, paths[0][1]), *(replace(p, fatal=False) for p in problems[1:])]
    return problems


def unnamed_images(parts: Sequence[tuple[CocoFile, Path]]) -> LeftOut:
    """Count the images that lie beside those of annotations files, and that none of these names.

    Args:
        parts: files, and the folders of their images.
    """
    named = {folder / image.file for file, folder in parts for image in file.images}
    left_out = LeftOut()
    for folder in dict.fromkeys(path.parent for path in named):
        for path in sorted(folder.iterdir()) if _is(Path.is_dir, folder) else []:
            if path not in named and has_image_suffix(path.name) and not path.name.startswith("."):
                left_out.add("not in the annotations", path)
    return left_out


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


def _in_any_case(folders: Sequence[Path]) -> list[Path]:
    """The folders, those that are not there as ones whose names differ in case alone."""
    parents = dict.fromkeys(folder.parent for folder in folders)
    there = {
        (parent, path.name.lower()): path
        for parent in parents
        if _is(Path.is_dir, parent)
        for path in subfolders(parent)
    }
    return [
        folder if _is(Path.is_dir, folder) else there.get((folder.parent, folder.name.lower()), folder)
        for folder in folders
    ]


def _tiers(root: Path) -> list[list[Path]]:
    """JSON files by where they lie, the likeliest first.

    annotations/instances*.json, annotations/*.json, beside the images of a split, instances*.json, *.json.
    """
    folders = subfolders(root)
    inside = [f for folder in folders if folder.name.lower() == "annotations" for f in _json_files(folder)]
    splits = [folder for folder in folders if words_of(folder.name) & (TRAIN_WORDS | HELD_WORDS)]
    beside = [folder / name for folder in splits for name in BESIDE_IMAGES if (folder / name).is_file()]
    single = _json_files(root)
    named = [[path for path in tier if "instances" in words_of(path.stem)] for tier in (inside, single)]
    return [named[0], inside, beside, named[1], single]


def _json_files(folder: Path) -> list[Path]:
    return sorted(
        f for f in folder.glob("*.[jJ][sS][oO][nN]") if not f.name.startswith(".") and not f.is_dir()
    )


def _is_coco(path: Path) -> bool:
    return _mentions(path, b'"annotations"') and _mentions(path, b'"images"')


def _found(
    root: Path, tiers: Sequence[list[Path]], key: str, meant: Callable[[frozenset[str]], bool]
) -> Path | None:
    """The only file of the first tier that has some whose words, or its folder's, are meant."""
    for tier in tiers:
        found = [path for path in tier if meant(words_of(_split_name(path, root)))]
        found = [path for path in found if len(found) == 1 or _is_coco(path)]
        if len(found) > 1:
            shown = ", ".join(str(path.relative_to(root)) for path in found[:4])
            raise DataError(f"{root}: {len(found)} files could be meant ({shown}), please set data.{key}")
        if found:
            return found[0]
    return None


def _split_name(path: Path, root: Path) -> str:
    """What says which split a file is of: its own name, or the folder's where all files have the same."""
    return path.parent.name if path.name in BESIDE_IMAGES and path.parent != root else path.stem


def _no_training(root: Path, tiers: list[list[Path]]) -> str:
    """Half a line on a folder without annotations to train on, and what can be done."""
    others = [str(path.relative_to(root)) for path in dict.fromkeys(chain(*tiers)) if _is_coco(path)]
    if others:
        by_name = f"{others[0]} is of another split by its name"
        by_name += ", which eval --split test measures on" if words_of(others[0]) & TEST_WORDS else ""
        return f"no annotations to train on ({by_name}), expected some or data.train_annotations"
    hint = convert_hint(root)
    if not hint and has_classes(list_folder(root)):
        return (
            "folders of classes, which the recipes photos_* train on (photos_botnet50), expected COCO files"
        )
    if not hint and (inner := deeper(root)):
        return inner
    hint = hint or "botvision convert makes one of other labels"
    return (
        "no COCO annotations, expected annotations/instances_train*.json or a single *.json; "
        f"data.train_annotations names another file, and {hint}"
    )


def _folder(root: Path, given: str | None, key: str) -> Path | None:
    if given is None:
        return None
    folder = root / given
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected the images (data.{key})")
    return folder
