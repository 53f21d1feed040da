"""Which image a label file describes: that of its own name, or the one that it names."""

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from botvision.data.convert.splits import split_of
from botvision.data.convert.walk import HIDDEN, OUTSIDE, folded, is_below, walk
from botvision.data.images import has_image_suffix, kind_unread
from botvision.data.left_out import LeftOut
from botvision.io.errors import DataError

_LABEL_FOLDERS = frozenset({"annotations", "annotation", "annots", "labels", "label", "xml", "xmls", "json"})
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")


class ImageIndex:
    """All files below a folder, none of them opened; each is named by its path relative to it.

    Nothing outside can be found: names are looked up, never followed, nor are links out of the folder.
    """

    def __init__(self, root: Path, suffix: str, left_out: LeftOut) -> None:
        """Walk through a data set.

        Args:
            root: the data set.
            suffix: of the label files.
            left_out: counts images and label files that are hidden, or must not be read.
        """
        self._root = root
        files, images = list[str](), set[str]()
        for file, reason in sorted(walk(root), key=lambda each: each[0]):
            if reason is None:
                (images.add if has_image_suffix(file) else files.append)(file)
            elif (
                has_image_suffix(file)
                or file.lower().endswith(suffix)
                or reason == OUTSIDE
                or ("imagesets/" in file.lower() and reason != HIDDEN)
            ):
                left_out.add(reason, file)
        self.files, self._others = images, files
        self._named: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._anywhere: dict[str, list[str]] = defaultdict(list)
        self._folders: set[str] = set()
        self._alike: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._bases: dict[str, tuple[str, str]] = {}
        for file in sorted(self.files):
            path = PurePosixPath(file)
            for name in {path.stem, path.name}:
                self._named[str(path.parent), name].append(file)
                self._anywhere[name].append(file)
            self._folders.update(map(str, path.parents))
        self._unread = {
            (str(path.parent), path.stem): file for file in self._others if kind_unread(file)
            for path in [PurePosixPath(file)]
        }  # fmt: skip
        self.passed_over: dict[str, str] = {}
        self._holding = {str(PurePosixPath(file).parent) for file in self.files}

    def others(self, suffix: str) -> list[str]:
        """Return the files of a suffix, in order."""
        return [file for file in self._others if file.lower().endswith(suffix)]

    def unread(self, label: str, folders: Sequence[str]) -> str | None:
        """Return the image of a label file's own name, of a format that cannot be read."""
        return next((self._unread[f, label] for f in folders if (f, label) in self._unread), None)

    def find(self, label: str, folders: Sequence[str], named: str) -> str | None:
        """Return the image that a label file describes.

        That is the image of the label file's own name, as tools write them; images and labels renamed
        together keep an old name inside. Only where there is none, or several, the name inside is looked at.
        `passed_over` then gets the others, each with the image that is taken.

        Args:
            label: of the label file, without its suffix.
            folders: where the image may lie, the likeliest first; a name inside may be relative to any.
            named: what the label file says.

        Raises:
            DataError: several images could be meant.
        """
        named = named.replace("\\", "/")
        base = posixpath.basename(named)
        places = [posixpath.normpath(posixpath.join(f, n)) for n in (named, base) for f in folders]
        meant = [place for place in places if place in self.files]
        found = next((each for f in folders if (each := self._named.get((f, label)))), [])
        own = found if len(found) == 1 else [file for file in found if file in meant]
        own = own or [file for file in found if folded(file) in map(folded, places)]
        if found and not own:
            raise DataError(
                f"{self._root / found[0]}: labels called {label} may be its or {found[1]}'s; which is meant?"
            )
        self.passed_over.update({file: own[0] for file in found if file != own[0]})
        without_suffix = [each for f in folders for each in self._named.get((f, base), [])]
        exact = next(iter([*own, *meant, *without_suffix]), None)
        return exact or self._find_alike(label, folders) or self._find_alike(base, folders)

    def find_far(self, label: str, named: str, folder: str) -> str | None:
        """Return the only image of a label file's name, or of that in it, in any folder of the data set.

        Args:
            label: of the label file, without its suffix.
            named: what the label file says.
            folder: of the label file; if it is that of a split, the image must be, too.
        """
        names = {label, posixpath.basename(named.replace("\\", "/"))}
        found = {file for name in names for file in self._anywhere.get(name, ())}
        images = [file for file in found if split_of(f"{folder}/x") in ("", split_of(file))]
        return images[0] if len(found) == len(images) == 1 else None

    def _find_alike(self, name: str, folders: Sequence[str]) -> str | None:
        """The only image whose name differs in capital letters or the encoding of accents alone."""
        if not self._alike:
            for file in self.files:
                path = PurePosixPath(file)
                for each in {folded(path.stem), folded(path.name)}:
                    self._alike[str(path.parent), each].append(file)
        found = [each for f in folders for each in self._alike.get((f, folded(name)), [])]
        return found[0] if len(set(found)) == 1 else None

    def base_of(self, labels: str) -> tuple[str, str]:
        """Return the folder of the images of a folder of labels, and the path below both that they share.

        `Annotations/x` has its images in `JPEGImages/x` (or images, imgs, ...); other labels lie beside their
        images, or above a folder of them.
        """
        if labels not in self._bases:
            self._bases[labels] = self._base_of(labels)
        return self._bases[labels]

    def _base_of(self, labels: str) -> tuple[str, str]:
        parts = PurePosixPath(labels).parts
        at = next((k for k in reversed(range(len(parts))) if parts[k].lower() in _LABEL_FOLDERS), None)
        if at is not None:
            parent, inside = str(PurePosixPath(*parts[:at])), str(PurePosixPath(*parts[at + 1 :]))
            beside = self._image_folder(parent)
            if beside is not None:
                return beside, inside
            if labels not in self._holding:
                return parent, inside
        below = None if labels in self._holding else self._image_folder(labels)
        return below or labels, "."

    def below(self, base: str, deep: bool) -> set[str]:
        """Return the images in a folder, or all below it."""
        if deep:
            return {file for file in self.files if is_below(file, base)}
        return {file for file in self.files if str(PurePosixPath(file).parent) == base}

    def _image_folder(self, parent: str) -> str | None:
        found = {
            PurePosixPath(folder).name.lower(): folder
            for folder in sorted(self._folders, reverse=True)
            if folder != "." and str(PurePosixPath(folder).parent) == parent
        }
        return next((found[name] for name in _IMAGE_FOLDERS if name in found), None)
