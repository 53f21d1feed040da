"""JSON of COCO's files as msgspec hands it over, masks unread."""

import gc
import json
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from botvision.io.errors import DataError
from botvision.io.files import require_regular


class _RawAnnotation(TypedDict, total=False):
    """An annotation as msgspec hands it over: the masks, most of a file, stay text until they are needed."""

    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    area: Any
    iscrowd: Any
    segmentation: msgspec.Raw


class RawFile(TypedDict, total=False):
    """A COCO file as msgspec hands it over."""

    images: Any
    annotations: list[_RawAnnotation]
    categories: Any


def read_json(path: str | Path, kind: Any = Any) -> Any:  # noqa: ANN401
    """Read a JSON file; `kind` is what msgspec is told to make of it, where it is that.

    Raises:
        DataError: no such file, or its content is not JSON.
    """
    require_regular(path)
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected COCO's JSON") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return _decoded(content, kind)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error


def _decoded(content: bytes, kind: Any = Any) -> Any:  # noqa: ANN401
    """What JSON says. What only Python's own reader takes (not-a-number, UTF-16) or explains is its part."""
    collecting = gc.isenabled()
    gc.disable()  # a million new lists and no garbage: looking for some takes as long as reading
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return json.loads(content)
    finally:
        if collecting:
            gc.enable()


def unpacked(values: list[Any]) -> list[Any]:
    """Segmentations of which some, or all, are still JSON."""
    raw = [value for value in values if isinstance(value, msgspec.Raw)]
    if not raw:
        return values
    try:
        decoded = iter(_decoded(b"[" + b",".join(raw) + b"]"))
    except (ValueError, RecursionError):  # what msgspec passes over unread may be no UTF-8, or far too deep
        decoded = iter([_decoded_or_text(each) for each in raw])
    return [next(decoded) if isinstance(value, msgspec.Raw) else value for value in values]


def _decoded_or_text(raw: msgspec.Raw) -> Any:  # noqa: ANN401
    """A value, or a text, which is no mask and will be called that."""
    try:
        return _decoded(bytes(raw))
    except (ValueError, RecursionError):
        return "no valid JSON"
