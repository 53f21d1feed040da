"""Images with their objects by class name, and COCO files of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from botvision.coco.annotations import OUTSIDE, OUTSIDE_PART, NewFile
from botvision.io.errors import DataError

_FLAT = "without area: "


class Found(NamedTuple):
    """An object: box as left, top, right, bottom in pixels, segmentation as COCO has it."""

    name: str
    box: Sequence[float]
    area: float
    segmentation: object = None
    crowd: bool = False


class Entry(NamedTuple):
    """An image, named relative to the data set, with its size (height, width)."""

    file: str
    size: tuple[int, int]
    objects: Sequence[Found]


def coco_files(
    entries: Sequence[Entry], splits: Mapping[str, Iterable[str]], names: Iterable[str]
) -> dict[str, NewFile]:
    """Return a COCO file of each split.

    Args:
        entries: of all images.
        splits: files by the name of the split.
        names: of all classes; sorted, they are the categories of every split.
    """
    categories = sorted(set(names))
    place, by_file = {name: k for k, name in enumerate(categories)}, {entry.file: entry for entry in entries}
    files = {}
    for split, members in splits.items():
        records = files[split] = NewFile(categories)
        for entry in (by_file[file] for file in members):
            records.add_image(entry.file, entry.size)
            for name, (left, top, right, bottom), area, segmentation, crowd in entry.objects:
                box = [left, top, right - left, bottom - top]
                records.add(place[name], box, area, segmentation, crowd)
    return files


def clip(
    values: Sequence[float], size: tuple[int, int], where: str, changed: Counter[str], anywhere: bool = False
) -> list[float]:
    """Return x, y, x, y, ... cut off at the edges of an image, which real labels reach a little beyond.

    Args:
        values: in pixels.
        size: (height, width) of the image.
        where: file and object, for messages.
        changed: counts the object as "clipped" if it reaches beyond.
        anywhere: they may lie anywhere, as those of a circle around a point near the edge.

    Raises:
        DataError: more than 2 pixels and 1 % of the side beyond.
    """
    clipped = []
    for k, value in enumerate(values):
        side = size[1 - k % 2]
        reach = max(OUTSIDE, OUTSIDE_PART * side)
        if not (anywhere or -reach <= value <= side + reach):
            raise DataError(
                f"{where}: reaches {'xy'[k % 2]} = {value:g}, outside its image of {size[0]} x {size[1]} "
                "pixels (height x width)"
            )
        clipped.append(float(min(max(value, 0), side)))
    changed["clipped"] += clipped != [float(value) for value in values]
    return clipped


def counted(number: int, noun: str, text: str = "") -> str:
    """Return a note: "1 object reaches ..." or "2 objects ...", `text` beginning after the noun."""
    return f"{number:,} {noun}{'s' * (number != 1)} {text}".rstrip()


def leave_out_flat(where: str, changed: Counter[str]) -> None:
    """Count an object without area, which would be refused later; `where` is its file and place there."""
    changed[f"{_FLAT}{where}"] += 1


def flat_notes(changed: Counter[str], root: Path) -> list[str]:
    """Return the line on objects without area, which names the first; none without any."""
    flat = [key.removeprefix(_FLAT).removeprefix(f"{root}/") for key in changed if key.startswith(_FLAT)]
    count = sum(number for key, number in changed.items() if key.startswith(_FLAT))
    return [f"left out: {counted(count, 'object', 'without area')} ({flat[0]})"] if flat else []
