"""Labels of other tools, told from COCO's by the files that lie there, and the command that converts them."""

import os
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from botvision.data.images import has_image_suffix

LOOKED_AT = 200  # folders, and files of each


def convert_hint(root: Path) -> str | None:
    """Return the line on labels that `botvision convert` makes COCO's JSON of; None where there are none."""
    folders = list(islice(_folders(root), LOOKED_AT)) if root.is_dir() else []
    for kind, tool, parts in _TOOLS:
        if any(parts(folder, root) for folder in folders):
            return f"the labels look like {tool}: botvision convert {kind} {shlex.quote(str(root))}"
    return None


def _folders(root: Path) -> Iterator[Path]:
    """The folder and, two levels deep, those in it; hidden ones are left out."""
    yield root
    first = subfolders(root)
    yield from first
    for folder in first:
        yield from subfolders(folder)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones; quick where there are many files."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _files(folder: Path, suffix: str) -> list[Path]:
    seen = islice(folder.iterdir(), LOOKED_AT)
    named = (path for path in seen if path.suffix.lower() == suffix and not path.name.startswith("."))
    return [path for path in named if path.is_file()]


def _yolo(folder: Path, root: Path) -> bool:
    """Whether a text below a folder called labels begins with a class number and at least four more."""
    if "labels" not in folder.relative_to(root).parts:
        return False
    lines = (_beginning(path).split(b"\n")[0].split() for path in _files(folder, ".txt"))
    return any(len(words) > 4 and all(map(_is_number, words[:5])) for words in lines)


def _voc(folder: Path, root: Path) -> bool:
    near = folder in (root, root / folder.name) or folder.name == "Annotations"
    return near and any(b"<annotation" in _beginning(path) for path in _files(folder, ".xml"))


def _labelme(folder: Path, root: Path) -> bool:
    contents = map(_beginning, _files(folder, ".json"))
    return folder in (root, root / folder.name) and any(b'"shapes"' in text for text in contents)


def _masks(folder: Path, root: Path) -> bool:
    beside = folder.name == "masks" and (folder.parent / "images").is_dir() and folder != root
    return beside and any(has_image_suffix(path) for path in islice(folder.iterdir(), LOOKED_AT))


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
