"""What a YOLO data set says of itself: the names of its classes, its splits, whether it has key points.

Read as text, so that a class called `no` or `1` keeps its name, and at no greater depth than is needed, so
that aliases that multiply cost nothing.
"""

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from botvision.data.convert.label_files import text_in
from botvision.data.convert.walk import is_below
from botvision.data.split_names import SPLITS
from botvision.io.errors import DataError, text_of

_USUAL = ("data.yaml", "data.yml", "dataset.yaml")
_LARGEST = 1024**2  # bytes; the names of 10,000 classes have 200 kB


@dataclass
class Description:
    """What data.yaml (or classes.txt) says.

    Attributes:
        file: its path, relative to the data set.
        names: of the classes, by number.
        base: the folder that the splits are relative to.
        splits: folders, lists and images of each split, as they are written.
        key_numbers: how many numbers of key points follow each box.
        notes: what the user must read.
    """

    file: str
    names: dict[int, str]
    base: str = ""
    splits: dict[str, list[str]] = field(default_factory=dict)
    key_numbers: int = 0
    notes: list[str] = field(default_factory=list)


def describe(root: Path) -> Description:
    """Read data.yaml or another YAML file with names, or else classes.txt or obj.names.

    Raises:
        DataError: one line, if there is none, or it cannot be used.
    """
    lists = _lists(root)
    usual = [path for name in _USUAL if (path := root / name).exists()]
    places = [path for pattern in ("*.yaml", "*.yml", "labels/*.yaml") for path in sorted(root.glob(pattern))]
    for path in (*lists, *usual, *places):
        if not is_below(os.path.realpath(path), os.path.realpath(root)):
            raise DataError(f"{path}: a link out of the folder, so it is not read")
    found = [one for path in usual if (one := _read_yaml(path, root)) is not None][:1]
    found = found or [one for path in places if path not in usual and (one := _read_yaml(path, root))]
    if any(one.names != found[0].names for one in found):
        files = " and ".join(one.file for one in found[:2])
        raise DataError(f"{root}: {files} name other classes; please call the right one data.yaml")
    if not found and not lists:
        below = [path for name in _USUAL for path in sorted(root.glob(f"[!.]*/{name}"))]
        more = (
            f"; {below[0]} is of the folder {below[0].parent}" if below else ", so the classes have no names"
        )
        raise DataError(f"{root}: no data.yaml with names: and no classes.txt or obj.names{more}")
    if not found:
        return _of_lists(lists, root)
    for path in lists[:1]:
        with contextlib.suppress(DataError):
            if list(_read_list(path, root).names.values()) == list(found[0].names.values()):
                continue
        found[0].notes.append(f"{path}: not used, as it names other classes than {found[0].file}")
    return found[0]


def _lists(root: Path) -> list[Path]:
    """Files with a name a line: in the data set, beside labels or images; the outermost first."""
    patterns = ("classes.txt", "obj.names", "*.names", "[!.]*/classes.txt", "[!.]*/[!.]*/classes.txt")
    found = dict.fromkeys(path for pattern in patterns for path in sorted(root.glob(pattern)))
    return [path for path in found if "__MACOSX" not in path.parts]


def _of_lists(paths: list[Path], root: Path) -> Description:
    """What the first list says, and the splits of obj.data. Raises DataError if another disagrees."""
    found = _read_list(paths[0], root)
    for path in paths[1:]:
        if len(path.parts) == len(paths[0].parts) and _read_list(path, root).names != found.names:
            other = path.relative_to(root)
            raise DataError(f"{root}: {found.file} and {other} name other classes; data.yaml could say which")
    for path in sorted(root.glob("*.data"))[:1]:
        if not is_below(os.path.realpath(path), os.path.realpath(root)):
            raise DataError(f"{path}: a link out of the folder, so it is not read")
        for line in text_in(path, _LARGEST).splitlines():
            key, _, value = map(str.strip, line.partition("="))
            if key.lower() in SPLITS and value:
                inner = value.removeprefix("data/")  # a folder of CVAT's own, which is not in the archive
                found.splits[SPLITS[key.lower()]] = [inner if (root / inner).exists() else value]
    return found


def _read_list(path: Path, root: Path) -> Description:
    names = [line.strip() for line in text_in(path, _LARGEST).rstrip().splitlines()]
    if "" in names or not names:
        line = names.index("") + 1 if names else 1
        raise DataError(f"{path}: line {line} is empty, expected the name of class {line - 1}")
    return Description(path.relative_to(root).as_posix(), dict(enumerate(names)))


def _read_yaml(path: Path, root: Path) -> Description | None:
    """None for a file without names."""
    top = _mapping(path)
    if "names" not in top:
        return None
    description = Description(path.relative_to(root).as_posix(), _names(top["names"], path))
    names, base = description.names, top.get("path")
    description.base = base.value if isinstance(base, yaml.ScalarNode) else ""
    for key, node in top.items():
        if key in SPLITS:
            paths = _texts(node, f"{path}: {key}", "a path")
            description.splits[SPLITS[key]] = [text for text in paths if text]
    count = top.get("nc")
    if isinstance(count, yaml.ScalarNode) and count.value not in ("", str(len(names))):
        description.notes.append(f"{path}: nc is {count.value[:20]}, but names has {len(names):,} entries")
    if max(names) >= len(names):
        gap = next(k for k in range(max(names)) if k not in names)
        description.notes.append(f"{path}: names has no class {gap}; the others keep their numbers")
    if "kpt_shape" in top:
        shape = [_whole(text) for text in _texts(top["kpt_shape"], f"{path}: kpt_shape", "a number")]
        if len(shape) != 2 or not shape[0] or shape[1] not in (2, 3):
            raise DataError(f"{path}: kpt_shape is not [number of key points, 2 or 3]")
        description.key_numbers = shape[0] * shape[1]
    return description


def _mapping(path: Path) -> dict[str, yaml.Node]:
    """The keys and nodes of a YAML file; none if it holds something else."""
    text = text_in(path, _LARGEST)
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except RecursionError:
        raise DataError(f"{path}: no YAML (nested too deeply)") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{path}: no YAML ({text_of(error)})") from error
    return _keys(root, str(path)) if isinstance(root, yaml.MappingNode) else {}


def _keys(node: yaml.MappingNode, where: str) -> dict[str, yaml.Node]:
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        text = _text(key, where, "a key")
        if text in found:
            raise DataError(f"{where}: key {text[:40]!r} is given twice")
        found[text] = value
    return found


def _names(node: yaml.Node, path: Path) -> dict[int, str]:
    where = f"{path}: names"
    if isinstance(node, yaml.MappingNode):
        names = {}
        for text, value in _keys(node, where).items():
            number = _whole(text)
            if number is None or number in names:
                raise DataError(f"{where}: key {text[:40]!r}, expected the number of a class, each one once")
            names[number] = _text(value, where, "a name")
        names = dict(sorted(names.items()))
    elif isinstance(node, yaml.SequenceNode):
        names = dict(enumerate(_texts(node, where, "a name")))
    else:
        raise DataError(f"{where}: expected a list of names, or a mapping of numbers to names")
    if not names or not all(names.values()):
        raise DataError(f"{where}: {'a name is empty' if names else 'there are none'}")
    return names


def _texts(node: yaml.Node, where: str, expected: str) -> list[str]:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [_text(each, where, expected) for each in nodes]


def _text(node: yaml.Node, where: str, expected: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
        raise DataError(f"{where}: line {node.start_mark.line + 1}: {found}, expected {expected}")
    return node.value.strip()


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None
