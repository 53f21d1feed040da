"""Pictures that are the same, or nearly: listed twice, stored twice, or saved again smaller or more coarsely.

Nearly the same are pictures whose thumbnails of 16 x 16 grey values agree but for brightness and contrast: a
correlation of at least `ALIKE`. (Of photographs, nuclei and cars no two others reach 0.9.) Flat pictures, and
ones that are cut out, turned or mirrored, are found only if they are the same to the byte. A thumbnail takes
milliseconds, comparing all with all seconds for `MOST` of them; of more pictures only those are found that
are the same to the byte, and of their files only samples are compared.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from botvision.data.check_report import digest
from botvision.io.errors import DataError

Groups = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Those that are the same, and those that are nearly the same, too; int64 (N) each, as of `grouped`."""

MOST = 10_000
SMALLER = 8  # times, that a JPEG is decoded smaller to see what it shows
SIDE = 16
ALIKE, FLAT = 0.99, 1.0  # correlation; standard deviation in grey levels
_ROWS = 512  # thumbnails that are compared with all at the same time


def thumbnail(image: Image.Image | Tensor) -> npt.NDArray[np.float32]:
    """Return grey values, float32 (256), averaged over a picture of any size, PIL's or uint8 (3, H, W)."""
    if isinstance(image, Tensor):
        image = Image.fromarray(image.permute(1, 2, 0).numpy())
    small = image.resize((4 * SIDE, 4 * SIDE), Image.Resampling.BOX).convert("L")
    grey = np.asarray(small, dtype=np.float32)
    return grey.reshape(SIDE, 4, SIDE, 4).mean(axis=(1, 3)).reshape(-1)


def grouped(
    contents: Sequence[object], thumbnails: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.int64]:
    """Group pictures: by content, and if there are thumbnails also those that are nearly the same.

    Args:
        contents: N values, the same for the same file or content.
        thumbnails: float32 (N, 256); not-a-number where there is none.

    Returns:
        int64 (N), for each the place of the first picture that it belongs to, directly or through others.
    """
    first: dict[object, int] = {}
    labels = np.array([first.setdefault(content, k) for k, content in enumerate(contents)], dtype=np.int64)
    if thumbnails is None or not len(labels):
        return labels
    unit = np.nan_to_num(thumbnails - thumbnails.mean(axis=1, keepdims=True))
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit = np.where(lengths > FLAT * SIDE, unit / np.maximum(lengths, 1e-6), 0)
    for start in range(0, len(labels), _ROWS):
        alike = unit[start : start + _ROWS] @ unit.T >= ALIKE
        for k in np.flatnonzero(alike.sum(axis=1) > 1).tolist():
            mates = labels[alike[k]]
            if (mates != mates[0]).any():
                labels[np.isin(labels, mates)] = mates.min()
    return labels


def same_pictures(paths: Sequence[Path], read: Callable[[int], Image.Image | Tensor]) -> Groups:
    """Group image files; the pictures are looked at, unless they are more than `MOST`.

    Args:
        paths: N files. Links to a file are that file; the content of those of the same size is compared.
        read: the picture of a place, as small as it may come; what raises DataError is like no other.
    """
    stats = [_stat(path) for path in paths]
    seen, twice = set[int](), set[int]()
    for size in {identity: size for identity, size in stats if identity is not None}.values():
        (twice if size in seen else seen).add(size)
    contents = [
        _content(path, size, whole=len(paths) <= MOST) if size in twice else identity or path
        for path, (identity, size) in zip(paths, stats, strict=True)
    ]
    return seen_together(contents, read)


def seen_together(contents: Sequence[object], read: Callable[[int], Image.Image | Tensor]) -> Groups:
    """Group pictures; they are looked at, unless they are more than `MOST`.

    Args:
        contents: N values, the same for the same file or content.
        read: as of `same_pictures`.
    """
    same = grouped(contents)
    if len(contents) > MOST:
        return same, same
    thumbnails = np.full((len(contents), SIDE**2), np.nan, dtype=np.float32)
    for place in range(len(contents)):
        try:
            thumbnails[place] = thumbnail(read(place))
        except DataError:
            continue
    return same, grouped(contents, thumbnails)


def sides_of(name: str, groups: Groups) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return groups of pictures that are held back together or not at all, and lines that say so.

    Args:
        name: of the data set.
        groups: of its pictures.
    """
    same, labels = groups
    largest = int(np.bincount(labels).max(initial=0))
    if largest > len(labels) // 2:
        if largest > np.bincount(same).max():
            line = f"{name}: {largest} images are nearly the same picture, so what is held back flatters"
            return same, [line]
        labels = same
    notes = []
    again = len(labels) - len(np.unique(labels))
    if again:
        said = f"{again} images are the same as others, or nearly, and stay on their side"
        said = "1 image is the same as another, or nearly, and stays on its side" if again == 1 else said
        notes.append(f"{name}: {said}")
    if len(labels) > MOST:
        notes.append(f"{name}: of more than {MOST:,} images only the same files are kept together")
    return labels, notes


def _stat(path: Path) -> tuple[tuple[int, int] | None, int]:
    """What the file system calls a file, whatever links lead to it, and its size; None if it is no file."""
    try:
        found = path.stat()
    except OSError:
        return None, -1
    return ((found.st_dev, found.st_ino), found.st_size) if S_ISREG(found.st_mode) else (None, -1)


def _content(path: Path, size: int, whole: bool) -> object:
    """What tells a file's content: all of it, or 16 pieces of 4 kB; the path if it cannot be read."""
    try:
        with path.open("rb") as file:
            if whole or size <= 16 * 4096:
                return digest(file.read())
            starts = [place * (size - 4096) // 15 for place in range(16)]
            return digest(b"".join(file.read(4096) for start in starts if file.seek(start) >= 0))
    except OSError:
        return path


class Pictures:
    """Collects the pictures of a split by what they show."""

    def __init__(self) -> None:
        self.names, self.contents = list[str](), list[bytes]()
        self.thumbnails = list[npt.NDArray[np.float32]]()

    def add(self, name: str, content: bytes, image: Image.Image | Tensor) -> None:
        """Add a picture; the same `content`, a digest, is the same picture."""
        self.names.append(name)
        self.contents.append(content)
        if len(self.names) <= MOST:
            self.thumbnails.append(thumbnail(image))


def repeated_pictures(word: str, splits: Mapping[str, Pictures]) -> list[str]:
    """Return lines on pictures that are in a split twice, and on those that are in train, too.

    Args:
        word: what one of them is called, such as "image".
        splits: their pictures by name.
    """
    contents = [content for pictures in splits.values() for content in pictures.contents]
    names = [name for pictures in splits.values() for name in pictures.names]
    own = np.repeat([*splits], [len(pictures.names) for pictures in splits.values()])
    thumbnails = [each for pictures in splits.values() for each in pictures.thumbnails]
    few = 0 < len(names) <= MOST
    groups = grouped(contents), grouped(contents, np.stack(thumbnails) if few else None)
    train, lines = np.flatnonzero(own == "train"), list[str]()
    for split in sorted(splits):
        mine = np.flatnonzero(own == split)
        first = np.unique(groups[1][mine], return_index=True)[1]
        said = f"of {split}", "there twice", "another there"
        lines += _alike(word, said, names, groups, np.delete(mine, first), mine[first])
        if split != "train":
            lines += in_train(word, split, names, groups, mine, train)
    return lines


def shared_with_train(names: Sequence[str], count: int, groups: Groups) -> list[str]:
    """Return lines on images of val that are in train, too, or nearly: what is measured on them flatters.

    Args:
        names: of the images of train, `count` of them, and then of val.
        count: of train.
        groups: of them all.
    """
    places = np.arange(len(names))
    lines = in_train("image", "val", names, groups, places[count:], places[:count])
    lines = [f"{line}; what is measured flatters" for line in lines]
    if len(names) > MOST:
        lines.append(f"of more than {MOST:,} images only the same files are found in train and val")
    return lines


def in_train(
    word: str, split: str, names: Sequence[str], groups: Groups, mine: npt.NDArray[np.int64],
    train: npt.NDArray[np.int64],
) -> list[str]:  # fmt: skip
    """Return lines on pictures of another split, at some of N places, that are in train, too, or nearly."""
    found = mine[np.isin(groups[1][mine], groups[1][train])]
    return _alike(word, (f"of {split}", "also in train", "one of train"), names, groups, found, train)


def _alike(
    word: str, said: tuple[str, str, str], names: Sequence[str], groups: Groups,
    places: npt.NDArray[np.int64], others: npt.NDArray[np.int64],
) -> list[str]:  # fmt: skip
    """A line on pictures that are the same as others, and one on those that are nearly the same."""
    whose, same, nearly = said
    is_same, lines = np.isin(groups[0][places], groups[0][others]), list[str]()
    for found, labels, what, sign in (
        (places[is_same], groups[0], same, "="),
        (places[~is_same], groups[1], f"nearly the same picture as {nearly}", "and"),
    ):
        if len(found):
            like = others[labels[others] == labels[found[0]]][0]
            count = f"1 {word} {whose} is" if len(found) == 1 else f"{len(found):,} {word}s {whose} are"
            such = ":" if len(found) == 1 else ", such as"
            lines.append(f"{count} {what}{such} {names[found[0]]} {sign} {names[like]}")
    return lines
