"""Images, and the file that belongs to each, `images/a.jpg` and `labels/a.txt`.

The last folder called images in an image's path is replaced: `train/images/a.jpg` goes with
`train/labels/a.txt`, `images/train/a.jpg` with `labels/train/a.txt`.

Not used, and counted: hidden files, hidden folders and __MACOSX; links out of the data set; what is no
regular file; images of other formats; labels without an image.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from botvision.data.images import has_image_suffix
from botvision.data.left_out import LeftOut
from botvision.io.errors import DataError

# Pictures that has_image_suffix does not know: of phones, of cameras, drawings.
_OTHERS = ".heic .heif .hif .jxl .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .svg .eps"
_OTHER_FORMATS = frozenset(_OTHERS.split())


class Pairs:
    """All files of a data set, none of them opened.

    Attributes:
        images: the image files, sorted, relative to the data set.
        texts: the files called .txt.
    """

    def __init__(self, root: Path, beside: str, suffixes: Collection[str], left_out: LeftOut) -> None:
        """Walk through a data set.

        Args:
            root: the data set.
            beside: what the folder of the files that belong to images is called.
            suffixes: of these files.
            left_out: counts what is not used.
        """
        self.root, self._beside, self._left_out = root, beside, left_out
        self._unusable: dict[str, str] = {}
        files = sorted(self._usable(), key=PurePosixPath)
        self.images = [file for file in files if has_image_suffix(file) and self._place(file) != beside]
        self.texts = {file for file in files if file.lower().endswith(".txt")}
        self._labels: dict[str, list[str]] = defaultdict(list)
        for file in (*files, *self._unusable):
            if PurePosixPath(file).suffix.lower() in suffixes and self._place(file) != "images":
                self._labels[_stem(file)].append(file)
        self._others = [file for file in files if in_images(file) and not has_image_suffix(file)]

    def in_images(self, part: str) -> list[str]:
        """Return the images below a folder that lie in one called images. Raises DataError if none does."""
        files = [file for file in self.images if in_images(file) and is_below(file, part)]
        if not files:
            skipped = "; ".join(self._left_out.notes())
            raise DataError(
                f"{self.root / part}: no images in a folder called images{f' ({skipped})' if skipped else ''}"
            )
        return files

    def of(self, images: Iterable[str]) -> dict[str, str | None]:
        """Return the file that belongs to each image; None where there is none.

        Raises:
            DataError: two images with one file, two files of one image, or a file that must not be read.
        """
        found: dict[str, str | None] = {}
        owner: dict[str, str] = {}
        for image in images:
            labels = self._labels.get(self._twin(image), [])
            if len(labels) > 1:
                raise DataError(f"{self.root / image}: {' and '.join(labels)} have that name; which is it?")
            label = found[image] = labels[0] if labels else None
            if label is None:
                continue
            if label in self._unusable:
                raise DataError(f"{self.root / label}: {self._unusable[label]}, so it is not read")
            if owner.setdefault(label, image) != image:
                raise DataError(
                    f"{self.root / label}: belongs to two images, {owner[label]} and {image}; rename one"
                )
        return found

    def leave_out_alone(self, below: str) -> None:
        """Count images of other formats, and labels without an image, that lie (or would) below a folder."""
        others = {self._twin(file): file for file in self._others}
        for twin, file in others.items():
            suffix = PurePosixPath(file).suffix.lower()
            if is_below(file, below) and (twin in self._labels or suffix in _OTHER_FORMATS):
                self._left_out.add(f"of a format that is not read ({suffix})", file)
        known = {*map(self._twin, self.images), *others}
        for stem, files in self._labels.items():
            image = _replaced(stem, self._beside, "images")
            if stem not in known and image != stem and is_below(image, below):
                for file in files:
                    if PurePosixPath(file).name != "classes.txt":
                        self._left_out.add(f"{self._beside} without an image", file)

    def _twin(self, image: str) -> str:
        """The path of what belongs to an image, without a suffix."""
        return _replaced(_stem(image), "images", self._beside)

    def _place(self, file: str) -> str:
        """Which of the two folders a file lies in; of both, the inner one."""
        return next((name for name in reversed(_folders(file)) if name in ("images", self._beside)), "")

    def _usable(self) -> Iterator[str]:
        """Regular files that are not hidden; counts the images among all others.

        Links are followed, though none within a folder that is a link: they could multiply.
        """
        inside = os.path.realpath(self.root)
        waiting = [("", False, False)]
        while waiting:
            folder, hidden, linked = waiting.pop()
            folder_path = self.root / folder
            try:
                entries = sorted(os.scandir(folder_path), key=lambda entry: entry.name)
            except OSError as error:
                raise DataError(f"{folder_path}: cannot be read ({error.strerror})") from error
            for entry in entries:
                file, link = f"{folder}{entry.name}", entry.is_symlink()
                unseen = hidden or entry.name.startswith(".") or entry.name == "__MACOSX"
                target = os.path.realpath(entry.path) if link else inside
                path = Path(entry.path) if link else entry  # of links in a circle, an entry's methods raise
                is_folder = path.is_dir()
                if not is_below(target, inside):
                    self._refuse(file, "a link out of the folder", unseen)
                elif link and is_folder and (linked or is_below(os.path.realpath(folder_path), target)):
                    self._refuse(file, "a link to a folder above it, or in another link", unseen)
                elif is_folder:
                    waiting.append((f"{file}/", unseen, linked or link))
                elif unseen:
                    self._refuse(file, "hidden", unseen)
                elif not path.is_file():
                    self._refuse(file, "no regular file", unseen)
                else:
                    yield file

    def _refuse(self, file: str, reason: str, hidden: bool) -> None:
        if not hidden:
            self._unusable[file] = reason
        # A link without a suffix may be a folder of images.
        looks = has_image_suffix(file) or (not hidden and not PurePosixPath(file).suffix)
        if looks and self._place(file) != self._beside:
            self._left_out.add(reason, file)


def is_below(file: str, folder: str) -> bool:
    """Return whether a path is a folder or lies below it; both are relative to the same, or absolute."""
    folder = folder.rstrip("/")
    return folder in ("", ".") or file == folder or file.startswith(f"{folder}/")


def in_images(file: str) -> bool:
    """Return whether a file lies below a folder called images."""
    return "images" in _folders(file)


def _folders(file: str) -> tuple[str, ...]:
    return PurePosixPath(file).parts[:-1]


def _stem(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def _replaced(file: str, old: str, new: str) -> str:
    """The path with its last folder of that name replaced; unchanged where there is none."""
    *folders, name = PurePosixPath(file).parts
    if old in folders:
        folders[len(folders) - 1 - folders[::-1].index(old)] = new
    return "/".join((*folders, name))
