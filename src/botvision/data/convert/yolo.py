"""YOLO's labels: `images/a.jpg` and `labels/a.txt`, names and splits in `data.yaml` (or `classes.txt`).

Labels may lie beside the images, too, as LabelImg and CVAT (obj.data, obj.names) write them.

A line is a class number and a box, or the corners of a polygon; with `kpt_shape` in data.yaml a box and key
points, which are not read. Four corners may be an oriented box: nothing in the file tells, so they are a
polygon, with its upright box. Read here: hotcoco's own reader drops the files' suffixes and images without
labels, and refuses polygons.
"""

import math
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from botvision.coco.annotations import OUTSIDE, OUTSIDE_PART, NewFile
from botvision.coco.masks import polygons_to_rles, rle_areas
from botvision.data.cache import Progress, reported
from botvision.data.convert.entries import counted, flat_notes, leave_out_flat
from botvision.data.convert.label_files import text_in
from botvision.data.convert.pairs import Pairs
from botvision.data.convert.splits import Labels, splits_of_folders
from botvision.data.convert.walk import is_below
from botvision.data.convert.yolo_yaml import Description, describe
from botvision.data.images import read_image
from botvision.data.left_out import LeftOut
from botvision.io.errors import DataError

_ROUNDING = 1e-3  # of the image: what a box may reach beyond its edge, from coordinates with few digits


def read(root: Path, part: str, progress: Progress | None) -> Labels:
    """Read the labels of a folder.

    Args:
        root: the data set.
        part: only images below this folder of it.
        progress: called with what is being done, how many files are done and how many there are.

    Raises:
        DataError: one line, naming the file and its line.
    """
    left_out, data = LeftOut(), describe(root)
    pairs = Pairs(root, "labels", (".txt",), left_out)
    splits, notes = _splits(data, pairs, part, left_out)
    labels = pairs.of(sorted({file for files in splits.values() for file in files}))
    pairs.leave_out_alone(part, labels)
    lines = _Lines(data, _any_outline(root, labels, data))
    records = {split: NewFile(list(data.names.values())) for split in splits}
    images = [(split, file) for split, files in splits.items() for file in files]
    for split, file in reported(images, "converting", progress):
        image = read_image(root / file)
        records[split].add_image(file, (image.height, image.width))
        if (label := labels[file]) is not None:
            lines.read(root / label, (image.height, image.width), records[split])
    notes += _without_labels(root, splits, labels)
    return Labels(records, [*data.notes, *notes, *lines.notes(root), *pairs.alike.notes(), *left_out.notes()])


def _splits(
    data: Description, pairs: Pairs, part: str, left_out: LeftOut
) -> tuple[dict[str, list[str]], list[str]]:
    """The images of each split by data.yaml or, where it names none that is here, by their folders."""
    splits, notes = _listed(data, pairs, left_out) if data.splits else ({}, [])
    wanted = {name: mine for name, all_ in splits.items() if (mine := [f for f in all_ if is_below(f, part)])}
    if wanted:
        listed = {file for mine in wanted.values() for file in mine}
        for file in pairs.wanted:
            if file not in listed and is_below(file, part):
                left_out.add(f"in no split of {data.file}", file)
        return wanted, notes + _shared(wanted)
    if data.splits and not splits:
        notes.append(f"none of the splits of {data.file} is here, so images are taken by their folders")
    splits, guessed = splits_of_folders(pairs.in_images(part))
    return splits, notes + guessed


def _listed(data: Description, pairs: Pairs, left_out: LeftOut) -> tuple[dict[str, list[str]], list[str]]:
    """The images that data.yaml lists for each split."""
    splits, notes = {}, []
    images = set(pairs.images)
    folders = {str(above) for file in pairs.images for above in _parents(file)}
    known = folders | images | pairs.texts
    for split, entries in data.splits.items():
        found: set[str] = set()
        for entry in entries:
            place, guessed = _resolve(entry, (data.base, ""), known)
            if place is None:
                notes.append(
                    f"{data.file}: {split}: {entry} is left out: no images there, or outside this folder"
                )
            elif guessed:
                notes.append(f"{data.file}: {split}: {entry} is taken to be {place}")
            if place in pairs.texts:
                found.update(_of_list(place, pairs.root, data.base, images, left_out))
            elif place is not None:
                found.update(file for file in images if is_below(file, place))
        if found:
            splits[split] = [file for file in pairs.images if file in found]
    return splits, notes


def _of_list(file: str, root: Path, base: str, images: set[str], left_out: LeftOut) -> Iterator[str]:
    """The images that the lines of a file name."""
    for line in text_in(root / file).splitlines():
        if line.strip():
            place, _ = _resolve(line.strip(), (posixpath.dirname(file), base, ""), images)
            if place is None:
                left_out.add(f"listed in {file}, but not there", line.strip())
            else:
                yield place


def _resolve(entry: str, bases: Iterable[str], known: set[str]) -> tuple[str | None, bool]:
    """The file or folder of a data set that a path means, relative to it, and whether that is a guess.

    Paths of other computers are cut off from the left until they name something here, by two parts at least.
    Roboflow's `../train/images` means `train/images`, which is no guess.
    """
    entry = entry.replace("\\", "/")
    for base in bases:
        place = posixpath.normpath(posixpath.join(base, entry))
        if place in known:
            return place, False
    parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
    for start in range(max(1, len(parts) - 1)):
        place = "/".join(parts[start:])
        if place in known:
            return place, start > 0 or entry.startswith("/")
    return None, False


def _parents(file: str) -> list[str]:
    """The folders that a file lies below, "." the last of them."""
    found = []
    while file:
        file = posixpath.dirname(file)
        found.append(file or ".")
    return found


def _shared(splits: Mapping[str, list[str]]) -> list[str]:
    names = list(splits)
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    counts = {pair: len(set(splits[pair[0]]) & set(splits[pair[1]])) for pair in pairs}
    return [f"both in {a} and in {b}: {counted(count, 'image')}" for (a, b), count in counts.items() if count]


def _without_labels(
    root: Path, splits: Mapping[str, list[str]], labels: Mapping[str, str | None]
) -> list[str]:
    """A note on images without a label file. Raises DataError where a split but for test has no other."""
    missing = {split: [file for file in files if labels[file] is None] for split, files in splits.items()}
    count = len({file for files in missing.values() for file in files})
    for split, files in missing.items():
        if len(files) == len(splits[split]) and (split != "test" or count == len(labels)):
            such = counted(len(files), "such image")
            raise DataError(f"{root / files[0]}: nothing of the same name in labels/ ({such})")
    if not count:
        return []
    return [f"without a label file, so taken as without objects: {count:,} of {len(labels):,} images"]


def _any_outline(root: Path, labels: Mapping[str, str | None], data: Description) -> bool:
    """Whether any object is a polygon: the boxes beside it then need an outline, too."""
    texts = (text_in(root / label) for label in labels.values() if label and not data.key_numbers)
    return any(len(line.split()) > 6 for text in texts for line in text.splitlines())


class _Lines:
    """Lines of labels to objects; counts what the user must know of."""

    def __init__(self, data: Description, outlined: bool) -> None:
        self._outlined = outlined
        self._places = {number: place for place, number in enumerate(data.names)}
        self._key_numbers, self._file = data.key_numbers, data.file
        self._counts, self._lengths = Counter[str](), Counter[int]()

    def notes(self, root: Path) -> list[str]:
        """What was left out, clipped or may be meant otherwise."""
        count = self._counts
        notes = []
        if count["key points"]:
            notes.append(
                f"key points are left out, and the boxes kept: {counted(count['key points'], 'object')}"
            )
        if count["clipped"]:
            reaching = "reaching up to 1 % or 2 pixels outside the image, and clipped"
            notes.append(f"{reaching}: {counted(count['clipped'], 'object')}")
        if len(self._lengths) == 1:
            ((length, polygons),) = self._lengths.items()
            meant = {
                6: "boxes with their score and a number, they are read wrongly",
                8: "oriented boxes, the masks show these, not the objects",
            }.get(length, f"boxes with key points, they are read wrongly: kpt_shape in {self._file} tells")
            if polygons > 2 or length == 8:
                notes.append(f"all polygons have {length // 2} corners: {polygons:,}; if they are {meant}")
        if count["rectangles"]:
            also = "with a box alone: taken as masks, too, since other objects have outlines"
            notes.append(counted(count["rectangles"], "object", also))
        return notes + flat_notes(count, root)

    def read(self, path: Path, size: tuple[int, int], records: NewFile) -> None:
        """Add the objects of a file to the latest image, of (height, width) pixels."""
        for number, line in enumerate(text_in(path).splitlines(), 1):
            if words := line.split():
                self._add(words, size, f"{path}: line {number}", records)

    def _add(self, words: list[str], size: tuple[int, int], where: str, records: NewFile) -> None:
        shown = " ".join(words)[:60]
        try:
            category, *values = [float(word) for word in words]
        except ValueError as error:
            raise DataError(f"{where}: {shown!r}, expected a class number and coordinates") from error
        if not all(map(math.isfinite, (category, *values))):
            raise DataError(f"{where}: {shown!r} holds what is no finite number")
        if category not in self._places:
            numbers = list(self._places)
            known = (
                f"0 to {numbers[-1]}"
                if len(numbers) > max(1, numbers[-1])
                else ", ".join(map(str, numbers[:20]))
            )
            named = f"{self._file} names {len(numbers):,} class{'es' * (len(numbers) > 1)} ({known})"
            raise DataError(f"{where}: class {category:g}, but {named}")
        place = self._places[int(category)]
        if self._key_numbers and len(values) == 4 + self._key_numbers:
            self._counts["key points"] += 1
            values = values[:4]
        elif self._key_numbers and len(values) != 4:
            raise DataError(
                f"{where}: {len(values)} numbers, expected 4 of a box and {self._key_numbers} (kpt_shape)"
            )
        if len(values) == 4:
            x, y, width, height = values
            corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            left, top, right, bottom = self._pixels(corners, size, where)
            if right <= left or bottom <= top:
                leave_out_flat(where, self._counts)
            elif self._outlined:
                self._counts["rectangles"] += 1
                self._add_outline(
                    place, [left, top, right, top, right, bottom, left, bottom], size, where, records
                )
            else:
                records.add(place, [left, top, right - left, bottom - top], (right - left) * (bottom - top))
        elif len(values) < 6 or len(values) % 2:
            hint = " (the last may be the confidence of a prediction)" if len(values) > 4 else ""
            raise DataError(
                f"{where}: {len(values)} coordinates, expected 4 (a box) or 3 or more points{hint}"
            )
        else:
            self._lengths[len(values)] += 1
            self._add_outline(place, self._pixels(values, size, where), size, where, records)

    def _add_outline(
        self, place: int, scaled: list[float], size: tuple[int, int], where: str, records: NewFile
    ) -> None:
        x, y = scaled[::2], scaled[1::2]
        area = int(rle_areas(polygons_to_rles([[scaled]], size))[0])
        if area == 0:
            leave_out_flat(where, self._counts)
            return
        records.add(place, [min(x), min(y), max(x) - min(x), max(y) - min(y)], area, [scaled])

    def _pixels(self, values: list[float], size: tuple[int, int], where: str) -> list[float]:
        """YOLO's x, y, ..., which are parts of the image's width and height (pixels would be far above 1)."""
        beyond = [max(-value, value - 1) for value in values]
        if any(by > max(OUTSIDE_PART, OUTSIDE / size[1 - k % 2]) for k, by in enumerate(beyond)):
            raise DataError(f"{where}: reaches from {min(values):g} to {max(values):g}, expected 0..1")
        self._counts["clipped"] += max(beyond) > _ROUNDING
        return [min(max(v, 0), 1) * size[1 - k % 2] for k, v in enumerate(values)]
