"""A bar on the error stream for work that counts; silent where that stream is no terminal."""

import sys
from typing import Any, Self

from tqdm.auto import tqdm


class CountBar:
    """Call it with what is being done, how many are done, and how many there are; it vanishes at the end."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, label: str, done: int, total: int) -> None:
        """Move the bar; other work, or another total, has a bar of its own."""
        if self._bar is not None and (self._bar.total != total or done < self._bar.n):
            self._bar.close()
            self._bar = None
        if self._bar is None:
            self._bar = tqdm(total=total, desc=label, leave=False, disable=None, dynamic_ncols=True)
        self._bar.update(done - self._bar.n)


class StatusBar:
    """How many of so many are done, and what is going on; silent where the error stream is no terminal."""

    def __init__(self, label: str, total: int) -> None:
        self._bar = tqdm(total=total, desc=label, leave=False, disable=None, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, done: int, text: str) -> None:
        """Move the bar and set the text beside it."""
        self._bar.n = done
        self._bar.set_postfix_str(text)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        tqdm.write(line, file=sys.stderr)
