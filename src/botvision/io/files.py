"""Files that are whole or not there, written under another name and renamed; JSON."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

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

    Folders are made. After an error the temporary file is gone and `path` is what it was; an error of the
    file system, such as a full disk, names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cut: a name that is nearly as long as the file system allows has no room for more.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
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


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `replacing`, in a folder, of processes that are no more."""
    for path in folder.glob(".*.tmp"):
        number = path.name.split(".")[-2]
        if number.isdigit() and (int(number) == os.getpid() or not process_lives(int(number))):
            path.unlink(missing_ok=True)


def process_lives(number: int) -> bool:
    """Return whether there is a process of that number on this computer."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
