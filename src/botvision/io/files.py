"""Files that are whole or not there, written under another name and renamed; JSON."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botvision.io.errors import DataError


def require_regular(path: str | os.PathLike[str], name: str | None = None) -> None:
    """Raise DataError for a pipe, a device or a socket: whoever reads it may wait for ever.

    What is not there, or a folder, is left to those who open it.

    Args:
        path: of the file; links are followed.
        name: how the error calls it; the path by default.
    """
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode  # noqa: PTH116 - of a path in any form
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError(f"{name or os.fspath(path)}: no regular file")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its place when the block ends without an error.

    Folders are made. After an error the temporary file is gone and `path` is what it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cut: a name that is nearly as long as the file system allows has no room for more.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    r"""Write UTF-8 text; what UTF-8 cannot hold, such as a file name's stray bytes, becomes ``\udcff``.

    That is JSON's own escape: such a name read back from JSON names the same file.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, values: object) -> None:
    """Write JSON, all of it or nothing. Raises ValueError for numbers that JSON has not, such as NaN."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, found {type(found).__name__}")
    return found
