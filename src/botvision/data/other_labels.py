"""Labels of other tools, told from COCO's by the files that lie there, and the command that converts them."""

import os
import re
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from botvision.data.images import IMAGE_SUFFIXES, has_image_suffix
from botvision.data.split_names import SPLIT_NAMES

LOOKED_AT, DEPTH = 200, 4  # folders and files of each; levels of folders
_LABELS = ("labels", "annotations", "masks")
_NAMES = ("classes.txt", "obj.names", "data.yaml", "data.yml", "dataset.yaml")  # of YOLO's classes


def convert_hint(root: Path) -> str | None:
    """Return the line on labels that `botvision convert` makes COCO's JSON of; None where there are none."""
    folders = list(islice(_folders(root), LOOKED_AT)) if root.is_dir() else []
    for kind, tool, parts in _TOOLS:
        found = next((folder for folder in folders if parts(folder, root)), None)
        if found is not None:
            place = _with_names(found, root) if kind == "yolo" else root
            return f"the labels look like {tool}: botvision convert {kind} {shlex.quote(str(place))}"
    return None


def _folders(root: Path) -> Iterator[Path]:
    """The folder, those in it, and those that lie deeper, likely ones first; hidden ones are left out."""
    yield root
    first = _likely_first(root)
    yield from first
    for folder in first:
        yield from _below(folder, DEPTH - 1)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for inner in _likely_first(folder) if depth else []:
        yield inner
        yield from _below(inner, depth - 1)


def _likely_first(folder: Path) -> list[Path]:
    """A part of the folders in a folder, those that are called like labels before others."""
    found = sorted(subfolders(folder), key=lambda each: each.name.lower() not in _LABELS)
    return found[: LOOKED_AT // 4]


def _with_names(folder: Path, root: Path) -> Path:
    """The data set of some labels: the outermost folder with names of the classes, or else the root."""
    parts = folder.relative_to(root).parts
    inner = (k for k, part in enumerate(parts) if part.lower() in ("labels", *SPLIT_NAMES))
    places = [root.joinpath(*parts[:k]) for k in range(next(inner, len(parts)) + 1)]
    return next((place for place in places if any((place / name).exists() for name in _NAMES)), root)


def _near(folder: Path, root: Path) -> bool:
    """Whether a folder lies at most two levels deep, and is not that of a class in a split."""
    parts = folder.relative_to(root).parts
    return len(parts) < 2 or (len(parts) == 2 and parts[0].lower() not in SPLIT_NAMES)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones; quick where there are many files."""
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    # Of links in a circle an entry's own method raises.
    is_folder = lambda entry: Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()  # noqa: E731
    return sorted(Path(entry) for entry in seen if is_folder(entry))


def _files(folder: Path, suffix: str) -> list[Path]:
    seen = islice(folder.iterdir(), LOOKED_AT)
    named = (path for path in seen if path.suffix.lower() == suffix and not path.name.startswith("."))
    return [path for path in named if path.is_file()]


def _yolo(folder: Path, root: Path) -> bool:
    """Whether a text in a labels folder, or beside its image, begins with a class number and four more."""
    texts = _files(folder, ".txt")
    if "labels" not in map(str.lower, folder.relative_to(root).parts):
        places = (root, *(each for each in folder.parents if root in each.parents), folder)
        if not any((place / name).exists() for place in places for name in _NAMES):
            return False
        texts = [path for path in texts if _has_image(folder, path.stem)]
    lines = (_beginning(path).split(b"\n")[0].split() for path in texts)
    return any(len(words) > 4 and all(map(_is_number, words[:5])) for words in lines)


def _voc(folder: Path, root: Path) -> bool:
    near = _near(folder, root) or folder.name.lower() == "annotations"
    return near and any(b"<annotation" in _beginning(path) for path in _files(folder, ".xml"))


def _labelme(folder: Path, root: Path) -> bool:
    contents = map(_beginning, _files(folder, ".json"))
    return _near(folder, root) and any(b'"shapes"' in text for text in contents)


def _masks(folder: Path, root: Path) -> bool:
    """Whether a mask, its name up to some point, or the folder around several has the name of an image."""
    if folder.name.lower() != "masks" or folder == root:
        return False
    places = [folder.parent, *(p for p in subfolders(folder.parent) if p.name.lower() == "images")]
    masks = [path for path in islice(folder.iterdir(), LOOKED_AT) if has_image_suffix(path)]
    beginnings = (mask.stem[: cut.start()] for mask in masks for cut in re.finditer(r"[_\-. ]", mask.stem))
    names = [mask.stem for mask in masks] + ([folder.parent.name] if len(masks) > 1 else [])
    names = dict.fromkeys([*names, *beginnings, *(each.name for each in subfolders(folder)[:LOOKED_AT])])
    return any(_has_image(place, name) for name in names for place in places)


def _has_image(folder: Path, stem: str) -> bool:
    suffixes = (case for suffix in IMAGE_SUFFIXES for case in (suffix, suffix.upper()))
    return any((folder / f"{stem}{suffix}").is_file() for suffix in suffixes)


_TOOLS = (
    ("yolo", "YOLO's", _yolo), ("voc", "Pascal VOC's", _voc), ("labelme", "LabelMe's", _labelme),
    ("masks", "mask images", _masks),
)  # fmt: skip


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
