"""One XML file of Pascal VOC, read by expat, which knows references and encodings."""

import codecs
import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from botvision.data.convert.label_files import bytes_in
from botvision.data.convert.labelled import OtherFileError
from botvision.io.errors import DataError

_DEEPEST = 100  # elements within one another; VOC has five
_ENCODING = re.compile(rb"""<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_YES, _NO = {"1", "true", "yes"}, {"", "0", "false", "no", "unspecified"}
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """One box of an `<object>`.

    Attributes:
        name: of the class.
        box: left, top, right, bottom as edges of pixels, counted from 0; they may be swapped.
        difficult: marked as such.
        where: file and object, for messages.
    """

    name: str
    box: list[float]
    difficult: bool
    where: str


@dataclass(frozen=True)
class VocFile:
    """What an XML file says.

    Attributes:
        image: its file, as written; "" where it is missing.
        size: (height, width), None where it is missing or 0.
        objects: in the order of the file.
        several: objects with more than one `<bndbox>`.
        polygons: objects with a polygon beside the box, which is not read.
    """

    image: str
    size: tuple[int, int] | None
    objects: list[VocObject]
    several: int
    polygons: int


def read_voc(path: Path) -> VocFile:
    """Read one file.

    Coordinates are numbers of pixels, counted from 1, the last one included, as VOC has them: a box from 1 to
    60 covers an image 60 pixels wide.

    Raises:
        OtherFileError: the root is no `<annotation>`.
        DataError: one line naming the file and the object.
    """
    root = _tree(path)
    if root.tag != "annotation":
        raise OtherFileError(f"{path}: its root is <{root.tag[:60]}>, expected Pascal VOC's <annotation>")
    objects, several, elements = list[VocObject](), 0, root.findall("object")
    for number, element in enumerate(elements, 1):
        found = _objects(element, f"{path}: object {number}")
        several += len(found) > 1
        objects += found
    polygons = sum(element.find("polygon") is not None for element in elements)
    return VocFile(_text(root, "filename"), _size(root, path), objects, several, polygons)


class _Tree(ElementTree.TreeBuilder):
    """Elements, as far as they may be nested; document types, which declare entities, are refused."""

    depth = 0

    def doctype(self, *_: object) -> None:
        raise DataError("it declares a document type (DOCTYPE); labels need none, and none is read")

    def start(self, tag: str, attrs: dict[str, str], /) -> ElementTree.Element:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise DataError(f"more than {_DEEPEST} elements within one another")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)


def _tree(path: Path) -> ElementTree.Element:
    content = bytes_in(path)
    try:
        parser = ElementTree.XMLParser(target=_Tree())
        parser.feed(_content(content))
        return parser.close()
    except (DataError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(
            f"{path}: {'' if isinstance(error, DataError) else 'not valid XML: '}{error}"
        ) from error


def _content(content: bytes) -> bytes | str:
    """Text in an encoding that expat does not know, such as GBK; all else as it is."""
    if content.startswith(codecs.BOM_UTF8):
        return content.decode("utf-8-sig")
    declared = _ENCODING.match(text := content.lstrip())
    if declared is None:
        return text if text.startswith(b"<?xml") else content
    encoding = declared[1].decode()
    if encoding.lower().startswith(("utf-16", "utf16", "ucs")):  # though its letters are single bytes
        encoding = "utf-8"
    return text.decode(encoding)


def _objects(element: ElementTree.Element, where: str) -> list[VocObject]:
    """One for each box; boxes of its parts are not its own."""
    names = [" ".join((name.text or "").split()) for name in element.findall("name")]
    if len(names) != 1 or not names[0]:
        raise DataError(
            f"{where}: {len(names)} names, expected one" if len(names) > 1 else f"{where}: no <name>"
        )
    where = f"{where} ({names[0][:60]})"
    difficult = _text(element, "difficult").lower()
    if difficult not in _YES | _NO:
        raise DataError(f"{where}: difficult is {difficult[:60]!r}, expected 0 or 1")
    boxes = element.findall("bndbox")
    if not boxes:
        raise DataError(f"{where}: no <bndbox>")
    return [VocObject(names[0], _box(box, where), difficult in _YES, where) for box in boxes]


def _box(element: ElementTree.Element, where: str) -> list[float]:
    left, top, right, bottom = (_number(element, side, where) for side in _SIDES)
    return [left - 1, top - 1, right, bottom]


def _number(element: ElementTree.Element, tag: str, where: str) -> float:
    text = _text(element, tag)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {tag} is {text[:60] or 'missing'}, expected a number")
    return value


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None or not (_text(size, "height") and _text(size, "width")):
        return None
    height, width = (_number(size, tag, f"{path}: size") for tag in ("height", "width"))
    if height != int(height) or width != int(width) or min(height, width) < 0:
        raise DataError(f"{path}: size: {height:g} x {width:g}, expected whole numbers of pixels")
    return (int(height), int(width)) if height and width else None


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()
