"""Files of labels as untrusted input: bounded, never waited for, and every fault a DataError of one line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from botvision.io.errors import DataError, text_of
from botvision.io.read import LARGEST_TEXT, read_bytes, read_text

T = TypeVar("T", str, bytes)


def text_in(path: Path, at_most: int = LARGEST_TEXT) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark."""
    return _read(read_text, path, at_most)


def bytes_in(path: Path, at_most: int = LARGEST_TEXT) -> bytes:
    """Return the content of a file."""
    return _read(read_bytes, path, at_most)


def _read(read: Callable[[Path, int], T], path: Path, at_most: int) -> T:
    try:
        return read(path, at_most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(text_of(error)) from error
