"""Data sets whose images have a label file each, which may name its image: Pascal VOC's and LabelMe's."""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, Protocol, TypeVar

from botvision.data.cache import Progress, reported
from botvision.data.convert.entries import Entry, Found, coco_files, counted, flat_notes
from botvision.data.convert.image_index import ImageIndex
from botvision.data.convert.image_sets import image_sets, splits_of_lists
from botvision.data.convert.splits import Labels, splits_of_folders
from botvision.data.convert.walk import folded, is_below
from botvision.data.detection_sources import read_annotated
from botvision.data.images import decode, kind_unread
from botvision.data.left_out import LeftOut
from botvision.io.errors import DataError

MASKS = ("SegmentationObject", "SegmentationClass")  # folders of Pascal VOC
_SMALLEST = 8  # at a fraction of its sides a JPEG is decoded faster


class OtherFileError(DataError):
    """A file that is sound, and holds something else."""


class LabelFile(Protocol):
    """What a label file says."""

    @property
    def image(self) -> str:
        """The file that it describes, as written; "" where it does not say."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the image, None where it does not say."""


F = TypeVar("F", bound=LabelFile)


@dataclass(frozen=True)
class Format(Generic[F]):
    """A kind of label file.

    Attributes:
        name: of the kind, for messages.
        suffix: of the files.
        field: what names the image in them.
        read: reads one; raises OtherFileError for what is of another kind, DataError for what is broken.
    """

    name: str
    suffix: str
    field: str
    read: Callable[[Path], F]


class Labelled(Generic[F]):
    """Images and their label files.

    Attributes:
        described: label file and what it says, by image.
        changed: counts of what is not taken as it is written; those called "renamed", "without" and "clipped"
            are told of here.
        left_out: files that are not used.
    """

    def __init__(self, root: Path, form: Format[F], progress: Progress | None) -> None:
        """Read all label files of a data set.

        Raises:
            DataError: one line: a broken file, two for one image, or none that can be used.
        """
        self.root, self._form = root, form
        self.left_out, self.changed = LeftOut(), Counter[str]()
        self._index = ImageIndex(root, form.suffix, self.left_out)
        labels = self._index.others(form.suffix)
        if not labels:
            kind = form.suffix.removeprefix(".").upper()
            notes = "; ".join(["", *self.left_out.notes()])
            raise DataError(f"{root}: no {kind} file in it or below it, expected those of {form.name}{notes}")
        self.described: dict[str, tuple[str, F]] = {}
        lost = dict[str, F]()
        for label in reported(labels, "reading labels", progress):
            found = self._read(label)
            if found is None:
                continue
            if not self._take(label, found):
                lost[label] = found
        self._take_far(lost)
        for file, taken in self._index.passed_over.items():
            if file not in self.described:
                self.left_out.add(f"of one name with another image, which {form.field} names", file, taken)
        if not self.described:
            notes = "; ".join(self.left_out.notes())
            raise DataError(f"{root}: none of its {form.suffix} files can be used; {notes}")

    def labels(
        self,
        part: str,
        names: Iterable[str],
        objects: Callable[[F, tuple[int, int], Counter[str]], Sequence[Found]],
        notes: Callable[[Counter[str]], list[str]],
        progress: Progress | None,
    ) -> Labels:
        """Open the images and return COCO files of them.

        Args:
            part: a folder of images or labels, or a list in `ImageSets`; "" for all.
            names: of the classes.
            objects: what a label file says of an image of some size; counts what it changes.
            notes: what is to be said of these counts.
            progress: called with what is being done, how many files are done and how many there are.
        """
        without = self._without()
        splits, said = self._splits(part, without)
        for file in sorted(
            self._index.files - self.described.keys() - without - self._index.passed_over.keys()
        ):
            if not part and PurePosixPath(file).parent.name not in MASKS:
                self.left_out.add("in a folder without label files", file)
        chosen = sorted(set().union(*splits.values()))
        self.changed["without"] = len(without.intersection(chosen))
        entries = [self._entry(file, objects) for file in reported(chosen, "converting", progress)]
        said += _notes(self.changed, self._form.field) + notes(self.changed)
        said += flat_notes(self.changed, self.root)
        return Labels(coco_files(entries, splits, names), said + self.left_out.notes())

    def images_in(self, folder: str) -> int:
        """Return the number of images in folders of this name."""
        return sum(PurePosixPath(file).parent.name == folder for file in self._index.files)

    def _take(self, label: str, found: F) -> bool:
        """Find the image of a label file near it; say whether there is one."""
        stem, places = PurePosixPath(label).stem, self._places(label)
        image = self._index.find(stem, places, found.image)
        if image is None and (unread := self._index.unread(stem, places)):
            self.left_out.add(f"cannot be read ({kind_unread(unread)})", unread)
            return True
        if image is None:
            return False
        self._describe(image, label, found)
        own = {PurePosixPath(image).stem, PurePosixPath(image).name}
        self.changed["alike"] += own.isdisjoint((stem, _base(found.image)))
        return True

    def _take_far(self, lost: dict[str, F]) -> None:
        """Find images in other folders, of those that have no label file near them."""
        near = {*self.described}
        for label, found in lost.items():
            path = PurePosixPath(label)
            image = self._index.find_far(path.stem, found.image, str(path.parent))
            if image is None or image in near:
                reason = f"without an image of the same name, or of that in {self._form.field}"
                reason = reason if image is None else "whose image has labels of its own"
                self.left_out.add(reason, label)
            else:
                self._describe(image, label, found)
                self.changed["far"] += 1

    def _describe(self, image: str, label: str, found: F) -> None:
        if image in self.described:
            raise DataError(f"{self.root / label}: describes {image}, but so does {self.described[image][0]}")
        self.described[image] = label, found

    def _read(self, label: str) -> F | None:
        try:
            return self._form.read(self.root / label)
        except OtherFileError:
            if self._index.find(PurePosixPath(label).stem, self._places(label), ""):
                raise  # its image would pass for one without objects
            self.left_out.add(f"not {self._form.name}'s", label)
            return None

    def _places(self, label: str) -> list[str]:
        """Where the image of a label file may lie."""
        folder = str(PurePosixPath(label).parent)
        base, inside = self._index.base_of(folder)
        return list(dict.fromkeys([str(PurePosixPath(base, inside)), base, folder]))

    def _without(self) -> set[str]:
        """Images without a label file beside those that have one."""
        folders = {str(PurePosixPath(label).parent) for label, _ in self.described.values()}
        bases = {base: base != folder for folder in folders for base in [self._index.base_of(folder)[0]]}
        bases |= {str(PurePosixPath(file).parent): False for file in self.described} | bases
        images = set().union(*(self._index.below(*each) for each in bases.items()))
        return images - self.described.keys() - self._index.passed_over.keys()

    def _entry(
        self, file: str, objects: Callable[[F, tuple[int, int], Counter[str]], Sequence[Found]]
    ) -> Entry:
        """An image is opened, to know that it can be read, and its size."""
        path = self.root / file
        if file not in self.described:
            return Entry(file, decode(path, reduce=_SMALLEST).whole, [])
        label, found = self.described[file]
        if found.size is None:
            size = decode(path, reduce=_SMALLEST).whole
        else:
            size = found.size
            read_annotated(path, size, f"{path} ({label})", _SMALLEST)
        path = PurePosixPath(file)
        names = "", folded(path.name), folded(path.stem)
        self.changed["renamed"] += folded(_base(found.image)) not in names
        return Entry(file, size, objects(found, size, self.changed))

    def _splits(self, part: str, without: set[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Images by split, and what is to be said of it."""
        files = sorted(self.described.keys() | without)
        lists = image_sets(self.root, self._index, files, self.left_out)
        if part and not (self.root / part).is_dir():
            if not lists.get(part):
                there = f", nor a list of ImageSets ({', '.join(lists)})" if lists else ""
                raise DataError(f"{self.root / part}: no such folder{there}")
            return {part: lists[part]}, []
        chosen = [file for file in files if self._is_part(file, part)]
        if not chosen:
            raise DataError(f"{self.root / part}: no images with {self._form.suffix} files there")
        if lists:
            return splits_of_lists(self.root, lists, chosen, self.left_out)
        return ({"": chosen}, []) if part else splits_of_folders(chosen)

    def _is_part(self, file: str, part: str) -> bool:
        """Whether an image lies in a folder, its label file does, or would."""
        folder = posixpath.normpath(Path(part).as_posix())
        images = str(PurePosixPath(*self._index.base_of(folder)))
        label, _ = self.described.get(file, (file, None))
        return is_below(file, folder) or is_below(file, images) or is_below(label, folder)


def _base(named: str) -> str:
    """The name of a file without its folders, as any system writes them."""
    return named.replace("\\", "/").rpartition("/")[2]


def _notes(changed: Counter[str], field: str) -> list[str]:
    texts = {
        "without": ("image", "without a label file: taken as images without objects"),
        "alike": ("label file", "whose name is its image's but for capital letters or encoded accents"),
        "far": ("label file", "whose image lies in another folder, the only one of that name"),
        "renamed": ("label file", f"naming another image in {field}: that of the file's own name is taken"),
        "clipped": ("object", "reaching up to 2 pixels or 1 % beyond the image: cut off there"),
    }
    return [counted(changed[key], *text) for key, text in texts.items() if changed[key]]
