"""The error stream."""

import contextlib
import sys


def warn(text: str, code: int = 2) -> int:
    """Write one line to the error stream, after what was printed before it, and return the exit code."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    print(f"botvision: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return code
