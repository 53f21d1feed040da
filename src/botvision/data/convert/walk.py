"""All files of a data set, none of them opened."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from botvision.io.errors import DataError

HIDDEN = "hidden"
OUTSIDE = "a link out of the folder"


def walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """Yield files, relative to a folder, folder by folder, and why one must not be used; None for most.

    Links are followed, though none within a folder that is a link: they could multiply. Hidden is, too, what
    macOS adds to archives.
    """
    inside = os.path.realpath(root)
    waiting = [("", False, False)]
    while waiting:
        folder, hidden, linked = waiting.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{root / folder}: cannot be read ({error.strerror})") from error
        for entry in entries:
            file, link = f"{folder}{entry.name}", entry.is_symlink()
            unseen = hidden or entry.name.startswith(".") or entry.name == "__MACOSX"
            target = os.path.realpath(entry.path) if link else inside
            path = Path(entry.path) if link else entry  # of links in a circle, an entry's methods raise
            is_folder, reason = path.is_dir(), None
            if not is_below(target, inside):
                reason = OUTSIDE
            elif link and is_folder and (linked or is_below(os.path.realpath(root / folder), target)):
                reason = "a link to a folder above it, or in another link"
            elif is_folder:
                waiting.append((f"{file}/", unseen, linked or link))
                continue
            elif not path.is_file():
                reason = "no regular file"
            yield file, HIDDEN if unseen else reason


def folded(file: str) -> str:
    """Return a name as systems have it that ignore capitals, or write an accent as a letter of its own."""
    return unicodedata.normalize("NFC", file).casefold()


def is_below(file: str, folder: str) -> bool:
    """Return whether a path is a folder or lies below it; both are relative to the same, or absolute."""
    folder = folder.rstrip("/")
    return folder in ("", ".") or file == folder or file.startswith(f"{folder}/")
