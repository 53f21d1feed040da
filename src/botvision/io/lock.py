"""A folder that one process at a time writes to: the lock dies with the processes that hold it."""

import contextlib
import errno
import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from botvision.io.files import process_lives

WAIT_SECONDS = 10.0  # what a killed process has started (loaders, a study's runs) needs a moment to end
POLL_SECONDS = 0.2


class FolderInUseError(ValueError):
    """Another process writes to the folder; the message is one line that names it."""


@contextlib.contextmanager
def locked(path: Path, doing: str, say: Callable[[str], object] | None = None) -> Iterator[int]:
    """Keep other processes out of a folder; yield the open lock, for processes that inherit it.

    The file goes when the block ends. After a kill it stays, and the next one takes it over.

    Args:
        path: the lock's file; its folder is made, and goes again if it is empty in the end.
        doing: what is done there, as in "is being trained".
        say: receives a line where the file system has no locks, so that nobody is kept out.

    Raises:
        FolderInUseError: another process, or one that it left behind, holds the lock.
    """
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _taken(path, doing, say)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {platform.node()}\n".encode(), 0)
        yield descriptor
    finally:
        path.unlink(missing_ok=True)  # before it is let go: who waits for it sees that it is another file
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def refuse_held(path: Path, doing: str) -> None:
    """Raise FolderInUseError at once if a living process holds the lock of that file."""
    if path.is_file():
        with contextlib.suppress(OSError), path.open("rb") as file:
            if not _try(file.fileno()) and _lives(who := _holder(path)):
                raise FolderInUseError(_busy(path, doing, who))


def _taken(path: Path, doing: str, say: Callable[[str], object] | None) -> int:
    """An open and locked file of that name."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        try:
            free = _try(descriptor)
        except OSError as error:
            if say is not None:
                reason = (error.strerror or "unknown reason").lower()
                say(f"note: {path.parent}: no locks on this file system ({reason}): nobody else is kept out")
            return descriptor
        with contextlib.suppress(FileNotFoundError):
            if free and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)
        if not free:
            who = _holder(path)
            if time.monotonic() > until or _lives(who):
                raise FolderInUseError(_busy(path, doing, who))
            time.sleep(POLL_SECONDS)


def _try(descriptor: int) -> bool:
    """Lock an open file unless another process has; OSError where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _holder(path: Path) -> tuple[int, str] | None:
    """Number and computer of the process that wrote itself down."""
    try:
        number, _, computer = path.read_text(encoding="utf-8").strip().partition(" ")
        return int(number), computer
    except (OSError, ValueError):
        return None


def _lives(who: tuple[int, str] | None) -> bool:
    """Whether the holder is there still, as far as can be seen from here."""
    if who is None:
        return False
    return who[1] != platform.node() or process_lives(who[0])


def _busy(path: Path, doing: str, who: tuple[int, str] | None) -> str:
    name = "unknown" if who is None else f"{who[0]}{'' if who[1] == platform.node() else f' on {who[1]}'}"
    return f"{path.parent}: {doing} here already (process {name}, or one that it started)"
