"""Which image a label file describes: that of its own name, or the one that it names."""

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from botvision.data.images import has_image_suffix
from botvision.data.left_out import LeftOut
from botvision.io.errors import DataError

_LABEL_FOLDERS = frozenset({"annotations", "annotation", "annots", "labels", "label", "xml", "xmls", "json"})
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")
_DEEPEST = 100  # folders within one another


def label_files(root: Path, suffix: str, left_out: LeftOut) -> list[str]:
    """Return the files below a folder that end so, relative to it, without hidden ones, which are counted."""
    files = []
    for path in _walk(root):
        if path.suffix.lower() != suffix:
            continue
        file = path.relative_to(root)
        if _is_hidden(file):
            left_out.add("hidden", file)
        elif path.is_file():  # no pipe, which would wait forever
            files.append(file.as_posix())
    return files


class ImageIndex:
    """All images below a folder, none of them opened; each is named by its path relative to it.

    Nothing outside can be found: names are looked up, never followed.
    """

    def __init__(self, root: Path) -> None:
        paths = (path.relative_to(root) for path in _walk(root) if has_image_suffix(path.name))
        self.files = {path.as_posix() for path in paths if not _is_hidden(path) and (root / path).is_file()}
        self._named: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._folders: set[str] = set()
        self._bases: dict[str, tuple[str, str]] = {}
        for file in sorted(self.files):
            path = PurePosixPath(file)
            for name in {path.stem, path.name}:
                self._named[str(path.parent), name].append(file)
            self._folders.update(map(str, path.parents))
        self._holding = {str(PurePosixPath(file).parent) for file in self.files}

    def find(self, label: str, folders: Sequence[str], named: str) -> str | None:
        """Return the image that a label file describes.

        That is the image of the label file's own name, as tools write them; images and labels renamed
        together keep an old name inside. Only where there is none, or several, the name inside is looked at.

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
        own = next((found for f in folders if (found := self._named.get((f, label)))), [])
        if len(own) > 1:
            own = [file for file in own if file in meant]
            if not own:
                own = self._named[next(f for f in folders if (f, label) in self._named), label]
                raise DataError(
                    f"{' and '.join(own[:2])}: one label file for both, {label!r}; which is meant?"
                )
        without_suffix = next((found for f in folders if (found := self._named.get((f, base)))), [])
        return next(iter([*own, *meant, *without_suffix]), None)

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

    def below(self, base: str) -> set[str]:
        """Return the images of a folder: those in it, and, if it is one for images alone, all below it."""
        if PurePosixPath(base).name.lower() in _IMAGE_FOLDERS:
            return {file for file in self.files if is_below(file, base)}
        return {file for file in self.files if str(PurePosixPath(file).parent) == base}

    def _image_folder(self, parent: str) -> str | None:
        found = {
            PurePosixPath(folder).name.lower(): folder
            for folder in sorted(self._folders, reverse=True)
            if folder != "." and str(PurePosixPath(folder).parent) == parent
        }
        return next((found[name] for name in _IMAGE_FOLDERS if name in found), None)


def is_below(file: str, folder: str) -> bool:
    """Return whether a path lies in a folder or below it; both are relative to the same."""
    return folder == "." or file.startswith(f"{folder}/")


def _walk(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files, sorted. Links are followed, except to a folder that they lie in: that would never end."""
    here = os.path.realpath(folder)
    if here in above or len(above) > _DEEPEST:
        return
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    for path in paths:
        if path.is_dir():
            yield from _walk(path, above | {here})
        else:
            yield path


def _is_hidden(path: Path) -> bool:
    """Also what macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
