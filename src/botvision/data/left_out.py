"""Files of a data set that are not used: counted by reason, everywhere in the same words."""

from pathlib import Path

_SHOWN = 3


class LeftOut:
    """Collects files and why each is left out."""

    def __init__(self) -> None:
        self._files: dict[str, list[str]] = {}

    def add(self, reason: str, file: str | Path) -> None:
        """Count a file under a reason that follows its name, such as "hidden" or "cannot be read (HEIC)"."""
        self._files.setdefault(reason, []).append(str(file))

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    def notes(self) -> list[str]:
        """Return one line for each reason, in the order they came: "left out: 2 files, hidden (a, b)"."""
        lines = []
        for reason, files in self._files.items():
            count = "1 file" if len(files) == 1 else f"{len(files):,} files"
            more = ", ..." if len(files) > _SHOWN else ""
            lines.append(f"left out: {count}, {reason} ({', '.join(files[:_SHOWN])}{more})")
        return lines
