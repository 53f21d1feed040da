"""A bar on the error stream for work that counts; silent where that stream is no terminal."""

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
        """Move the bar."""
        if self._bar is None:
            self._bar = tqdm(total=total, desc=label, leave=False, disable=None, dynamic_ncols=True)
        self._bar.update(done - self._bar.n)
