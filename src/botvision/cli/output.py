"""The error stream."""

import contextlib
import sys
from collections.abc import Callable

from botvision.io.text import printable


def warn(text: str, code: int = 2, say: Callable[[str], object] | None = None) -> int:
    """Write one line to the error stream, after what was printed before it, and return the exit code.

    While a bar is shown its `say` writes the line above it.
    """
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    line = printable(f"botvision: {' '.join(text.split())}")
    if say is None:
        print(line, file=sys.stderr, flush=True)
    else:
        say(line)
    return code
