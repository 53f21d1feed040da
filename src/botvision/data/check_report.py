"""What a check of a data set found."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        kind: "classification", "detection", or "images" for a folder that is neither.
        name: of the data set.
        rows: one for each split: split, images, broken, `size_range`, and what its kind of data has besides.
        problems: one line each, errors: broken files, empty classes, whatever training would refuse.
        warnings: one line each: worth knowing, no obstacle.
        readable: images that were read.
        broken: files that could not be.
        categories: detection data: id, name, and the number of objects in each split.
        keys: configuration keys, and their values, that a training on these data should be given.
        other: number of problems besides broken files; None: all lines but those.
    """

    kind: str
    name: str
    rows: list[dict[str, Any]]
    problems: list[str]
    warnings: list[str]
    readable: int
    broken: int
    categories: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    other: int | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; False wherever training would refuse the data."""
        return not self.problems

    @property
    def summary(self) -> str:
        """One closing line."""
        other = len(self.problems) - self.broken if self.other is None else self.other
        counts = [(self.readable, "readable image"), (self.broken, "broken file")]
        counts += [(n, word) for n, word in ((other, "other problem"), (len(self.warnings), "note")) if n]
        return f"{self.name}: {', '.join(f'{n} {word}' + 's' * (n != 1) for n, word in counts)}"


def size_range(sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Return the smallest, the median and the largest of sizes by their areas, as "height x width"."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1]) or [(0, 0)]
    places = {"size_min": 0, "size_median": len(ordered) // 2, "size_max": -1}
    return {key: "{} x {}".format(*ordered[place]) for key, place in places.items()}


def some(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def digest(content: bytes) -> bytes:
    """Return what tells the content of files apart."""
    return hashlib.blake2b(content, digest_size=12).digest()


def digest_of(file: IO[bytes]) -> bytes:
    """Return the digest of a whole file, which need not fit into memory."""
    file.seek(0)
    found = hashlib.blake2b(digest_size=12)
    while part := file.read(2**20):
        found.update(part)
    return found.digest()
