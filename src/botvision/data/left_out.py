"""Files of a data set that are not used, or in part: counted by reason, everywhere in the same words."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

_SHOWN = 3


class LeftOut:
    """Collects files and why each is left out."""

    _lead: ClassVar[str] = "left out: "
    _joint: ClassVar[str] = ", "

    def __init__(self) -> None:
        self._files: dict[str, dict[str, str]] = {}

    def add(self, reason: str, file: str | Path, more: str = "") -> None:
        """Count a file, once, under a reason that follows it, such as "hidden" or "cannot be read (HEIC)".

        Args:
            reason: the same for many files.
            file: its name.
            more: particulars of this file.
        """
        self._files.setdefault(reason, {}).setdefault(str(file), more)

    def extend(self, others: "LeftOut", folder: Path) -> None:
        """Count what others have, whose names are relative to a folder."""
        for reason, files in others._files.items():
            for file, more in files.items():
                self.add(reason, folder / file, more)

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    def notes(self) -> list[str]:
        """Return one line for each reason, in the order they came: "left out: 2 files, hidden (a, b)"."""
        lines = []
        for reason, files in self._files.items():
            count = "1 file" if len(files) == 1 else f"{len(files):,} files"
            shown = [f"{file}: {more}" if more else file for file, more in list(files.items())[:_SHOWN]]
            more = ", ..." if len(files) > _SHOWN else ""
            lines.append(f"{self._lead}{count}{self._joint}{reason} ({', '.join(shown)}{more})")
        return lines


class Choices(LeftOut):
    """Collects files that are used, though something was chosen in reading them: "2 files of 16 bits ..."."""

    _lead, _joint = "", " "

    def take(self, choices: Mapping[str, str], file: str | Path) -> None:
        """Count a file under each of its choices."""
        for reason, more in choices.items():
            self.add(reason, file, more)

    def told(self) -> list[str]:
        """Return the notes and forget them: what comes is of other images."""
        notes, self._files = self.notes(), {}
        return notes
