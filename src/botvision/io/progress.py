"""Bars on the error stream, shown where it is a terminal, and lines above them, written anywhere."""

import sys
from typing import Any, Self

from tqdm.auto import tqdm

from botvision.io.text import printable


class CountBar:
    """Call it with what is being done, how many are done, and how many there are; it vanishes at the end.

    Args:
        shown: False keeps bar and lines to itself.
    """

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        self._bar: tqdm[Any] | None = None
        self._label = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __call__(self, label: str, done: int, total: int, text: str = "") -> None:
        """Move the bar, and set the text beside it; other work, or another total, has a bar of its own."""
        if self._bar is None or (self._label, self._bar.total) != (label, total) or done < self._bar.n:
            self.__exit__()
            self._label, disable = label, None if self._shown else True
            self._bar = tqdm(
                total=total, desc=printable(label), leave=False, disable=disable, dynamic_ncols=True
            )
        if text:
            self._bar.set_postfix_str(printable(text), refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.__exit__()

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        if self._shown:
            tqdm.write(printable(line), file=sys.stderr)


class StatusBar:
    """How many of so many are done, and what is going on; silent where the error stream is no terminal."""

    def __init__(self, label: str, total: int) -> None:
        self._bar = tqdm(total=total, desc=printable(label), leave=False, disable=None, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, done: int, text: str) -> None:
        """Move the bar and set the text beside it."""
        self._bar.n = done
        self._bar.set_postfix_str(printable(text))

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        tqdm.write(printable(line), file=sys.stderr)
