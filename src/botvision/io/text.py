"""Text that others wrote, to be shown on a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# C0 and C1 but tab and line feed, and what changes the direction of text: a terminal acts on these.
_CONTROLS = [*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F]
_CONTROLS += [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROLS}


def printable(text: str) -> str:
    r"""Return text with control characters as escapes: a name with ``\x1b[2J`` in it clears no screen."""
    return text.translate(_ESCAPES)


class _Printable:
    """A stream that writes `printable` text to another, and is that other one in all else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Escape control characters in whatever is printed to the standard output meanwhile."""
    stream: Any = sys.stdout
    sys.stdout = _Printable(stream)  # pyrefly: ignore[bad-assignment]
    try:
        yield
    finally:
        sys.stdout = stream
