"""Images, and the file that belongs to each, `images/a.jpg` and `labels/a.txt`.

The last folder called images in an image's path is replaced: `train/images/a.jpg` goes with
`train/labels/a.txt`, `images/train/a.jpg` with `labels/train/a.txt`, in small or capital letters. Without
such a file, one beside the image is taken (of labels that are no images), or one in a folder called labels
beside or above it; then `a.jpg.txt`, and one whose name differs in capital letters or in how accents are
encoded alone. Of masks, an image without such a file may have several, as `pieces` says.

Not used, and counted: hidden files, hidden folders and __MACOSX; links out of the data set; what is no
regular file; images of other formats; labels without an image.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from botvision.data.convert.pieces import pieces
from botvision.data.convert.walk import HIDDEN, folded, is_below, walk
from botvision.data.images import has_image_suffix, kind_unread
from botvision.data.left_out import Choices, LeftOut
from botvision.io.errors import DataError

_NO_LABELS = ("classes", "train", "val", "valid", "test", "readme")


class Pairs:
    """All files of a data set, none of them opened.

    Attributes:
        images: the image files, sorted, relative to the data set.
        texts: the files called .txt.
        alike: files that belong to an image by a name that differs a little.
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
        self.alike = Choices()
        self._texts = not any(has_image_suffix(f"a{suffix}") for suffix in suffixes)
        self._labels: dict[str, list[str]] = {}
        for file in (*files, *self._unusable):
            place = self._place(file)
            if PurePosixPath(file).suffix.lower() in suffixes and (self._texts or place == beside):
                self._labels.setdefault(_replaced(_stem(file), beside, beside), []).append(file)
        self._alike: dict[str, list[str]] = defaultdict(list)
        for key in self._labels:
            self._alike[folded(key)].append(key)
        self._images_alike = Counter(folded(_stem(file)) for file in self.images)
        self._pieces = {} if self._texts else self._find_pieces()
        self.wanted = [file for file in self.images if in_images(file)] or self._near()
        self._others = [file for file in files if in_images(file) and not has_image_suffix(file)]

    def in_images(self, part: str) -> list[str]:
        """Return the images below a folder that lie in one called images, or all near labels if none does.

        Raises:
            DataError: there are none.
        """
        files = [file for file in self.wanted if is_below(file, part)]
        if not files:
            skipped = "; ".join(self._left_out.notes())
            more = f" ({skipped})" if skipped else ""
            place = f"in a folder called images, nor near {self._beside}"
            suffix = "txt" if self._texts else "png"
            expected = f"expected images/a.jpg and {self._beside}/a.{suffix}"
            raise DataError(f"{self.root / part}: no images {place}, {expected}{more}")
        return files

    def of(self, images: Iterable[str]) -> dict[str, str | None]:
        """Return the file that belongs to each image; None where there is none.

        Raises:
            DataError: two images with one file, two files of one image, or a file that must not be read.
        """
        found: dict[str, str | None] = {}
        owner: dict[str, str] = {}
        for image in images:
            labels, exact = self._found(image)
            if len(labels) > 1:
                raise DataError(f"{self.root / image}: {' and '.join(labels)} have that name; which is it?")
            label = found[image] = labels[0] if labels else None
            if label is None:
                continue
            if not exact:
                self.alike.add("whose name is its image's but for capital letters or encoded accents", label)
            if label in self._unusable:
                raise DataError(f"{self.root / label}: {self._unusable[label]}, so it is not read")
            if owner.setdefault(label, image) != image:
                raise DataError(
                    f"{self.root / label}: belongs to two images, {owner[label]} and {image}; rename one"
                )
        return found

    def pieces_of(self, image: str) -> list[str]:
        """Return the files that belong to an image together; none where one alone does.

        Raises:
            DataError: one of them must not be read.
        """
        files = self._pieces.get(image, [])
        for file in files:
            if file in self._unusable:
                raise DataError(f"{self.root / file}: {self._unusable[file]}, so it is not read")
        return files

    def leave_out_alone(self, below: str, taken: Collection[str]) -> None:
        """Count images of other formats or places, and labels without an image, that are (or would be) below.

        Args:
            below: a folder.
            taken: the images that are used.
        """
        others = {self._twin(file): file for file in self._others}
        for twin, file in others.items():
            kind, suffix = kind_unread(file), PurePosixPath(file).suffix.lower()
            if is_below(file, below) and (twin in self._labels or kind):
                self._left_out.add(f"cannot be read ({kind or suffix})", file)
        places = {*self.wanted, *taken}
        for file in self.images:
            if file not in places and is_below(file, below):
                self._left_out.add(f"in no folder called images, nor near {self._beside}", file)
        used = {
            label for image in self.images for label in self._found(image)[0] or self._pieces.get(image, [])
        }
        folders = {_folder(label) for label in used}
        for stem, files in self._labels.items():
            image = _replaced(stem, self._beside, "images")
            near = image != stem or _folder(stem) in folders
            if stem in others or not (near and (is_below(image, below) or is_below(stem, below))):
                continue
            for file in files:
                if file not in used and not PurePosixPath(file).stem.lower().startswith(_NO_LABELS):
                    self._left_out.add(f"{self._beside} without an image", file)

    def _found(self, image: str) -> tuple[list[str], bool]:
        """The files that belong to an image, and whether their names are its own."""
        keys, suffix = self._keys(image), PurePosixPath(image).suffix
        for key in (*keys, *(f"{key}{suffix}" for key in keys)):
            if key in self._labels:
                return self._labels[key], True
        if self._images_alike[folded(_stem(image))] == 1:
            for key in keys:
                if len(alike := self._alike.get(folded(key), [])) == 1:
                    return self._labels[alike[0]], False
        return [], True

    def _keys(self, image: str) -> list[str]:
        """Where what belongs to an image may lie, the likeliest first, without suffixes."""
        *folders, name = _stem(image).split("/")
        keys = [self._twin(image)] if in_images(image) else []
        keys += [_stem(image)] if self._texts else []
        places = reversed(range(len(folders) + 1))
        return keys + ["/".join((*folders[:k], self._beside, *folders[k:], name)) for k in places]

    def _near(self) -> list[str]:
        """Images of the folders in which any has a label."""
        folders = {_folder(file) for file in self.images if self._found(file)[0] or file in self._pieces}
        return [file for file in self.images if _folder(file) in folders]

    def _find_pieces(self) -> dict[str, list[str]]:
        """Several files of each image that has no other, of those that are of no other."""
        found = {image: self._found(image)[0] for image in self.images}
        used = set().union(*found.values())
        alone = {key: files for key, files in self._labels.items() if used.isdisjoint(files)}
        return pieces(
            alone, {image: self._keys(image) for image in self.images if not found[image]}, self.root
        )

    def _twin(self, image: str) -> str:
        """The path of what belongs to an image, without a suffix."""
        return _replaced(_stem(image), "images", self._beside)

    def _place(self, file: str) -> str:
        """Which of the two folders a file lies in; of both, the inner one."""
        return next(
            (name for name in map(str.lower, reversed(_folders(file))) if name in ("images", self._beside)),
            "",
        )

    def _usable(self) -> Iterator[str]:
        """Regular files that are not hidden; counts the images among all others."""
        for file, reason in walk(self.root):
            if reason is None:
                yield file
            else:
                self._refuse(file, reason)

    def _refuse(self, file: str, reason: str) -> None:
        hidden = reason == HIDDEN
        if not hidden:
            self._unusable[file] = reason
        # A link without a suffix may be a folder of images.
        looks = has_image_suffix(file) or (not hidden and not PurePosixPath(file).suffix)
        if looks and self._place(file) != self._beside:
            self._left_out.add(reason, file)


def in_images(file: str) -> bool:
    """Return whether a file lies below a folder called images."""
    return "images" in map(str.lower, _folders(file))


def _folder(file: str) -> str:
    return str(PurePosixPath(file).parent)


def _folders(file: str) -> tuple[str, ...]:
    return PurePosixPath(file).parts[:-1]


def _stem(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def _replaced(file: str, old: str, new: str) -> str:
    """The path with its last folder of that name, in any case, replaced; unchanged where there is none."""
    *folders, name = PurePosixPath(file).parts
    lower = [folder.lower() for folder in folders]
    if old in lower:
        folders[len(folders) - 1 - lower[::-1].index(old)] = new
    return "/".join((*folders, name))
