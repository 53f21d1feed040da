"""Where labelled images come from: folders, zips, CIFAR's archives."""

import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from botvision.config.data import MAX_PIXELS
from botvision.data.images import RAW, has_image_suffix, is_image, kind_unread, read_image
from botvision.data.left_out import Choices, LeftOut
from botvision.data.split_names import SPLIT_NAMES
from botvision.io.errors import DataError
from botvision.io.files import require_regular

HIDDEN, NO_CLASS = "hidden", "in no class's folder"
_JUNK = ("__MACOSX",)
_LINKED = 100  # times that one folder is listed under the names which links give it
_BYTES_A_PIXEL, _BYTES_BESIDE = 8, 2**24  # of the largest image that is unpacked: four bands of 16 bits
_CIFAR: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


class ImageSource(Protocol):
    """Images of one split, decoded one at a time; safe to use from forked and spawned workers."""

    def __len__(self) -> int: ...

    def name_of(self, index: int) -> str:
        """What messages call the image."""
        ...

    def load(self, index: int) -> Tensor:
        """uint8 (3, H, W)."""
        ...


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class FileSource:
    """Images as files.

    Attributes:
        choices: what was chosen in reading those that were loaded.
    """

    def __init__(self, root: Path, paths: Sequence[str], max_pixels: int = MAX_PIXELS) -> None:
        """Take the root folder, paths relative to it, and the most pixels of an image."""
        self.root, self.max_pixels, self.choices = root, max_pixels, Choices()
        self.paths = np.array(paths, dtype=np.str_)  # one buffer: forked workers do not copy it by objects

    def __len__(self) -> int:
        return len(self.paths)

    def name_of(self, index: int) -> str:
        return str(self.root / self.paths[index])

    @contextmanager
    def stream(self, index: int) -> Iterator[IO[bytes]]:
        """Open the file as stored. Raises DataError, one line, if it cannot be."""
        name = self.name_of(index)
        require_regular(name)
        try:
            file = Path(name).open("rb")  # noqa: SIM115 - what is done with it has errors of its own
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror})") from error
        with file:
            yield file

    def begins_like_image(self, index: int) -> bool:
        return is_image(self.name_of(index))

    def load(self, index: int) -> Tensor:
        name = self.name_of(index)
        return to_tensor(read_image(name, max_pixels=self.max_pixels, choices=self.choices))


class ZipSource:
    """Images inside a zip. Each process opens its own handle: a shared one would share its file position.

    Attributes:
        choices: what was chosen in reading those that were loaded.
    """

    def __init__(self, path: Path, members: Sequence[str], max_pixels: int = MAX_PIXELS) -> None:
        """Take the zip, the names inside, and the most pixels of an image."""
        self.path, self.max_pixels, self.choices = path, max_pixels, Choices()
        self.members = np.array(members, dtype=np.str_)
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self.members)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handle": None}

    def name_of(self, index: int) -> str:
        return f"{self.path}:{self.members[index]}"

    def bytes_of(self, index: int) -> bytes:
        """Unpack one file, if its stated size is that of an image; no more is ever unpacked.

        Raises:
            DataError: one line, if the zip is damaged there, or the file too large.
        """
        most = _BYTES_A_PIXEL * self.max_pixels + _BYTES_BESIDE
        try:
            member = self._archive().getinfo(str(self.members[index]))
            if member.file_size <= most:
                return self._archive().read(member)
        except Exception as error:  # zipfile, zlib and the file system each have their own
            raise DataError(f"{self.name_of(index)}: cannot be unpacked ({error})") from error
        raise DataError(
            f"{self.name_of(index)}: {member.file_size / 1e6:,.0f} MB unpacked, expected an image of at most "
            f"{most / 1e6:,.0f} MB"
        )

    def content_of(self, index: int) -> tuple[int, int]:
        """Return what tells a file's content without unpacking it: its checksum and size."""
        member = self._archive().getinfo(str(self.members[index]))
        return member.CRC, member.file_size

    @contextmanager
    def stream(self, index: int) -> Iterator[IO[bytes]]:
        """Open the unpacked file. Raises DataError as `bytes_of`."""
        yield io.BytesIO(self.bytes_of(index))

    def begins_like_image(self, index: int) -> bool:
        """Unpack no more than it takes to see that."""
        try:
            with self._archive().open(str(self.members[index])) as file:
                return is_image(file)
        except Exception:  # as damage in an image's file
            return True

    def load(self, index: int) -> Tensor:
        content, name = self.bytes_of(index), self.name_of(index)
        return to_tensor(read_image(content, name, max_pixels=self.max_pixels, choices=self.choices))

    def _archive(self) -> zipfile.ZipFile:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), open_zip(self.path))
        return self._handle[1]


class ArraySource:
    """Images that are in memory already, uint8 (N, H, W, 3)."""

    def __init__(self, images: npt.NDArray[np.uint8], name: str) -> None:
        """Take the array and a name for messages."""
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.name = name

    def __len__(self) -> int:
        return len(self.images)

    def name_of(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def load(self, index: int) -> Tensor:
        return self.images[index]


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip.

    Raises:
        DataError: one line, if it is missing or no zip.
    """
    require_regular(path)
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a readable zip ({error})") from error


@dataclass(frozen=True)
class Listing:
    """Every file of a folder or zip, by its path relative to the data set's root.

    Attributes:
        root: the folder or zip.
        source: of the files, in the same order.
        files: sorted.
        folders: all of them.
        left_out: images that are hidden, or named twice.
    """

    root: Path
    source: FileSource | ZipSource
    files: list[str]
    folders: set[str]
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def top(self) -> set[str]:
        """Names of the folders at the root."""
        return {folder for folder in self.folders if "/" not in folder}

    @property
    def named(self) -> dict[str, str]:
        """Folders at the root that are called like a split, by that name in lower case."""
        return {name.lower(): name for name in sorted(self.top) if name.lower() in SPLIT_NAMES}

    @property
    def splits(self) -> dict[str, str]:
        """Those of them that have folders, which can be classes."""
        deep = {folder.partition("/")[0] for folder in self.folders if "/" in folder}
        return {key: name for key, name in self.named.items() if name in deep}

    def unread(self, index: int) -> str | None:
        """Return why a file is not to be read as an image, by its name or else its content; None if it is."""
        if has_image_suffix(self.files[index]):
            return None
        kind = kind_unread(self.files[index])
        if kind != RAW and self.source.begins_like_image(index):
            return None
        return f"cannot be read ({kind})" if kind else "no image"


def list_folder(root: Path, max_pixels: int = MAX_PIXELS, *, as_data_set: bool = True) -> Listing:
    """Walk a folder in sorted order; hidden files and folders are left out.

    Links are followed, also out of the folder, except to a folder that they lie in: that would never end.

    Args:
        root: of the data set.
        max_pixels: of an image.
        as_data_set: one folder around everything, as unpacking makes it, is taken for the root.

    Raises:
        DataError: one line, if there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such file or folder'}")
    base, left_out = root, LeftOut()
    inside = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if as_data_set and len(inside) == 1 and not _has_splits([inside[0].name]):
        below = [path.name for path in inside[0].iterdir() if path.is_dir() and not _is_junk(path.name)]
        base = inside[0] if len(below) > 1 or _has_splits(below) else root
    if base != root:
        for path in sorted(root.iterdir()):
            if has_image_suffix(path) and not path.is_dir():
                left_out.add(HIDDEN if _is_junk(path.name) else NO_CLASS, path)
    paths, folders = _walk(base, left_out)
    files = [path.replace("\\", "/") for path in paths]  # as what Windows packed may be unpacked elsewhere
    if files != paths:
        folders |= _folders_of(map(_split, paths))
    return Listing(base, FileSource(base, paths, max_pixels), files, folders, left_out)


def _walk(base: Path, left_out: LeftOut) -> tuple[list[str], set[str]]:
    """Files and folders below a folder."""
    files: list[str] = []
    folders: set[str] = set()
    above = {os.fspath(base): frozenset([_identity(base)])}
    visits = Counter[tuple[int, int] | None]()
    for here, names, leaves in os.walk(base, followlinks=True):
        around = above.pop(here)
        inner = {name: _identity(Path(here, name)) for name in names}
        visits.update(inner.values())
        relative = Path(here).relative_to(base).as_posix()
        prefix = "" if relative == "." else relative + "/"
        for name in filter(_is_junk, names):
            _count_hidden(Path(here, name), prefix + name, left_out)
        names[:] = sorted(
            name
            for name in names
            if not _is_junk(name) and inner[name] not in around and visits[inner[name]] <= _LINKED
        )
        above |= {os.path.join(here, name): around | {inner[name]} for name in names}  # noqa: PTH118
        folders.update(prefix + name for name in names)
        for leaf in sorted(leaves):
            if not any(map(_is_junk, _split(leaf))):
                files.append(prefix + leaf)
            elif has_image_suffix(leaf):
                left_out.add(HIDDEN, prefix + leaf)
    return files, folders


def _count_hidden(folder: Path, name: str, left_out: LeftOut) -> None:
    """Count what is called like an image in a hidden folder; links are not followed."""
    for here, _, leaves in os.walk(folder):
        for leaf in filter(has_image_suffix, leaves):
            left_out.add(HIDDEN, Path(name, Path(here).relative_to(folder), leaf).as_posix())


def list_zip(path: Path, max_pixels: int = MAX_PIXELS) -> Listing:
    r"""List a zip in sorted order; one folder around everything is tolerated, and `a\b` is taken for `a/b`.

    Raises:
        DataError: one line, if it is missing or no zip.
    """
    with open_zip(path) as archive:
        infos = archive.infolist()
    if any(info.flag_bits & 0x1 for info in infos):
        raise DataError(f"{path}: the zip is encrypted, expected one without a password")
    left_out = LeftOut()
    keep: dict[str, tuple[str, ...]] = {}
    for info in infos:
        parts = _split(info.filename)
        if not any(map(_is_junk, parts)):
            keep[info.filename] = parts
        elif has_image_suffix(info.filename):
            left_out.add(HIDDEN, info.filename)
    ends = {name for name in keep if name.endswith(("/", "\\"))}
    tops = {parts[0] for name, parts in keep.items() if len(parts) > (name not in ends)}
    labels = tops == {"images"} and any("/" not in name and name.endswith(".json") for name in keep)
    if len(tops) == 1 and not _has_splits(tops) and not labels:
        for name in [name for name, parts in keep.items() if len(parts) == 1 and name not in ends]:
            if has_image_suffix(name):
                left_out.add(NO_CLASS, name)
        keep = {name: parts[1:] for name, parts in keep.items()}
    keep = {name: parts for name, parts in keep.items() if parts}
    ends &= set(keep)
    folders = _folders_of(keep.values())
    folders |= {"/".join(keep[name]) for name in ends}
    members: dict[str, str] = {}
    for name in (name for name in keep if name not in ends):
        if members.setdefault("/".join(keep[name]), name) != name:
            left_out.add("under a name that another has", name)
    files = sorted(members)
    return Listing(path, ZipSource(path, [members[f] for f in files], max_pixels), files, folders, left_out)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What a folder is called by the file system, whatever links lead to it; None for one that is gone."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _split(name: str) -> tuple[str, ...]:
    r"""Return the parts of a path, also of `a\b`."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part)


def _folders_of(files: Iterable[tuple[str, ...]]) -> set[str]:
    return {"/".join(parts[:depth]) for parts in files for depth in range(1, len(parts))}


def _has_splits(names: Iterable[str]) -> bool:
    return any(name.lower() in SPLIT_NAMES for name in names)


def cifar_folder(root: Path, kind: str) -> Path | None:
    """The folder with the archive, packed or unpacked; None where it is not.

    Args:
        root: that folder, the archive itself, or the folder that it unpacks to.
        kind: "cifar10" or "cifar100".
    """
    dataset = _CIFAR[kind]
    if (root / dataset.base_folder).is_dir() or (root / dataset.filename).is_file():
        return root
    whole = root.absolute()  # "." has no parent to look into
    found = (whole.is_dir() and whole.name == dataset.base_folder) or (
        whole.is_file() and whole.name == dataset.filename
    )
    return whole.parent if found else None


def open_cifar(root: Path, kind: str, train: bool, download: bool) -> tuple[ArraySource, Tensor, list[str]]:
    """Read one split; torchvision checks the files against their checksums.

    Args:
        root: folder with the archive, or for it; the archive itself, or the folder that it unpacks to.
        kind: "cifar10" or "cifar100".
        train: the 50,000 training images, else the 10,000 test images.
        download: fetch and unpack what is missing.

    Returns:
        Images, int64 targets (N), names of the classes.

    Raises:
        DataError: one line, if it is missing, damaged, or cannot be fetched.
    """
    dataset = _CIFAR[kind]
    root = cifar_folder(root, kind) or root
    packed = (root / dataset.filename).is_file() and not (root / dataset.base_folder).is_dir()
    try:
        # With the archive beside it "download" only checks and unpacks; torchvision has no other word for it.
        data = dataset(str(root), train=train, download=download or packed)
    except OSError as error:  # urllib's errors are OSErrors
        raise DataError(f"{root}: {dataset.filename} cannot be fetched or unpacked ({error})") from error
    except Exception as error:  # checksums, pickles, tar
        wanted = f"{dataset.filename} or {dataset.base_folder}/ with its official files"
        hint = "" if download else "; data.download true fetches it"
        raise DataError(f"{root}: {wanted} is missing or damaged{hint}") from error
    name = f"{kind}/{'train' if train else 'test'}"
    targets = torch.tensor(data.targets, dtype=torch.int64)
    return ArraySource(np.ascontiguousarray(data.data), name), targets, list(data.classes)
