"""The command `botvision`, and `python -m botvision`: what ends it from outside is one line, at any moment.

Nothing is imported before that is so. While the command's own modules are imported there is nothing to clean
up: it ends on the spot. Afterwards SIGINT, SIGTERM and SIGHUP are exceptions in it.
"""

import os
import signal
import sys


def _end_now(number: int, _: object) -> None:
    os.write(2, f"botvision: {'interrupted' if number == signal.SIGINT else 'ended'}\n".encode())
    os._exit(128 + number)


def _watch(handler: signal.Handlers | object, *names: str) -> None:
    for name in names:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, handler)  # pyrefly: ignore[bad-argument-type]


def main() -> int:
    """Run the command with the arguments of the process, and return its exit code."""
    _watch(_end_now, "SIGINT", "SIGTERM", "SIGHUP")
    from botvision.cli import main as command

    _watch(command.ended, "SIGINT", "SIGTERM", "SIGHUP")
    try:
        return command.main()
    finally:
        _watch(_end_now, "SIGINT", "SIGTERM", "SIGHUP")  # nothing but Python's own end is left


if __name__ == "__main__":
    sys.exit(main())
