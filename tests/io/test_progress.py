"""Progress bars."""

from typing import Any

import pytest

from botvision.io import progress as bars


def test_other_work_gets_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []

    class Bar:
        def __init__(self, total: int, desc: str, **_: Any) -> None:
            self.total, self.desc, self.n, self.closed = total, desc, 0, False
            made.append(self)

        def update(self, more: int) -> None:
            self.n += more

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(bars, "tqdm", Bar)
    with bars.CountBar() as bar:
        for label, done, total in (("reading", 1, 2), ("reading", 2, 2), ("images", 1, 5), ("images", 5, 5)):
            bar(label, done, total)
    assert [(b.desc, b.n, b.total, b.closed) for b in made] == [
        ("reading", 2, 2, True),
        ("images", 5, 5, True),
    ]
