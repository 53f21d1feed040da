"""Small files that people and programs write, as untrusted input: bounded, and never waited for."""

import json
from pathlib import Path
from typing import Any

from botvision.io.files import require_regular

LARGEST_TEXT = 64 * 1024**2  # bytes; COCO files and weights are read elsewhere


def check_regular(path: str | Path) -> int:
    """Return the size in bytes of a regular file; a pipe would be waited for, a device has no end.

    Raises:
        OSError: it is not there.
        ValueError: it is something else.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder, expected a file")
    require_regular(path)
    return Path(path).stat().st_size


def read_text(path: str | Path, at_most: int = LARGEST_TEXT) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark.

    Raises:
        OSError: the file cannot be read.
        ValueError: no regular file, one that is larger than so many bytes, or no text.
    """
    _check_size(path, at_most)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None


def read_bytes(path: str | Path, at_most: int = LARGEST_TEXT) -> bytes:
    """Return the content of a file. Raises OSError and ValueError as `read_text`."""
    _check_size(path, at_most)
    return Path(path).read_bytes()


def _check_size(path: str | Path, at_most: int) -> None:
    size = check_regular(path)
    if size > at_most:
        raise ValueError(f"{path}: {size:,} bytes, expected at most {at_most:,}")


def read_object(path: str | Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, is nested too deeply, or holds something else.
    """
    text = read_text(path)
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"{path}: not valid JSON (nested too deeply)") from None
    except ValueError as error:
        raise ValueError(
            f"{path}: not valid JSON ({error if text.strip() else 'the file is empty'})"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, found {type(found).__name__}")
    return found
