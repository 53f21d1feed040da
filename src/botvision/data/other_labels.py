"""Labels of other tools, told from COCO's by the files that lie there, and the command that converts them."""

import os
import re
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from botvision.data.images import IMAGE_SUFFIXES, has_image_suffix
from botvision.data.split_names import SPLITS

LOOKED_AT = 200  # folders, and files of each
_NAMES = ("classes.txt", "obj.names", "data.yaml")  # of YOLO's classes


def convert_hint(root: Path) -> str | None:
    """Return the line on labels that `botvision convert` makes COCO's JSON of; None where there are none."""
    folders = list(islice(_folders(root), LOOKED_AT)) if root.is_dir() else []
    for kind, tool, parts in _TOOLS:
        if any(parts(folder, root) for folder in folders):
            return f"the labels look like {tool}: botvision convert {kind} {shlex.quote(str(root))}"
    return None


def _folders(root: Path) -> Iterator[Path]:
    """The folder and, two levels deep, those in it, labels a level deeper; hidden ones are left out."""
    yield root
    first = subfolders(root)[: LOOKED_AT // 4]
    yield from first
    for folder in first:
        for below in subfolders(folder)[: LOOKED_AT // 4]:
            yield below
            for name in ("Annotations", "masks"):  # of VOCdevkit/VOC2012, or of an image's own folder
                if (labels := below / name).is_dir():
                    yield labels


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones; quick where there are many files."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _files(folder: Path, suffix: str) -> list[Path]:
    seen = islice(folder.iterdir(), LOOKED_AT)
    named = (path for path in seen if path.suffix.lower() == suffix and not path.name.startswith("."))
    return [path for path in named if path.is_file()]


def _yolo(folder: Path, root: Path) -> bool:
    """Whether a text in a labels folder, or beside its image, begins with a class number and four more."""
    texts = _files(folder, ".txt")
    if "labels" not in map(str.lower, folder.relative_to(root).parts):
        if not any((place / name).exists() for place in (root, folder) for name in _NAMES):
            return False
        texts = [path for path in texts if _has_image(folder, path.stem)]
    lines = (_beginning(path).split(b"\n")[0].split() for path in texts)
    return any(len(words) > 4 and all(map(_is_number, words[:5])) for words in lines)


def _voc(folder: Path, root: Path) -> bool:
    near = folder in (root, root / folder.name) or folder.name.lower() == "annotations"
    return near and any(b"<annotation" in _beginning(path) for path in _files(folder, ".xml"))


def _labelme(folder: Path, root: Path) -> bool:
    near = folder in (root, root / folder.name) or folder.parent.name.lower() not in SPLITS
    return near and any(b'"shapes"' in _beginning(path) for path in _files(folder, ".json"))


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
