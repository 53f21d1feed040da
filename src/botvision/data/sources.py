"""Where labelled images come from: folders, zips, CIFAR's archives."""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from botvision.data.images import has_image_suffix, is_image, read_image
from botvision.io.errors import DataError

VAL_NAMES = ("val", "valid", "validation", "test")
SPLIT_NAMES = ("train", *VAL_NAMES)
_JUNK = ("__MACOSX",)
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
    """Images as files."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        """Take the root folder and paths relative to it."""
        self.root = root
        self.paths = np.array(paths, dtype=np.str_)  # one buffer: forked workers do not copy it by objects

    def __len__(self) -> int:
        return len(self.paths)

    def name_of(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def bytes_of(self, index: int) -> bytes:
        """The file as stored.

        Raises:
            DataError: one line, if it cannot be read.
        """
        try:
            return Path(self.name_of(index)).read_bytes()
        except OSError as error:
            raise DataError(f"{self.name_of(index)}: cannot be read ({error.strerror})") from error

    def load(self, index: int) -> Tensor:
        return to_tensor(read_image(self.name_of(index)))


class ZipSource:
    """Images inside a zip. Each process opens its own handle: a shared one would share its file position."""

    def __init__(self, path: Path, members: Sequence[str]) -> None:
        """Take the zip and the names inside."""
        self.path = path
        self.members = np.array(members, dtype=np.str_)
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self.members)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handle": None}

    def name_of(self, index: int) -> str:
        return f"{self.path}:{self.members[index]}"

    def bytes_of(self, index: int) -> bytes:
        """The file as stored.

        Raises:
            DataError: one line, if the zip is damaged there.
        """
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), open_zip(self.path))
        try:
            return self._handle[1].read(str(self.members[index]))
        except Exception as error:  # zipfile, zlib and the file system each have their own
            raise DataError(f"{self.name_of(index)}: cannot be unpacked ({error})") from error

    def load(self, index: int) -> Tensor:
        return to_tensor(read_image(self.bytes_of(index), self.name_of(index)))


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
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a readable zip ({error})") from error


@dataclass(frozen=True)
class Listing:
    """Every file of a folder or zip, by its path relative to the data set's root."""

    root: Path
    source: FileSource | ZipSource
    files: list[str]
    folders: set[str]

    @property
    def top(self) -> set[str]:
        """Names of the folders at the root."""
        return {folder for folder in self.folders if "/" not in folder}


def list_folder(root: Path) -> Listing:
    """Walk a folder in sorted order; hidden files and folders are left out.

    Links are followed, except to a folder that they lie in: that would never end.

    Raises:
        DataError: one line, if there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such file or folder'}")
    base, files, folders = root, [], set()
    inside = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if len(inside) == 1 and _has_splits({path.name for path in inside[0].iterdir()}):
        base = root if _has_splits({inside[0].name}) else inside[0]
    above = {os.fspath(base): frozenset([_identity(base)])}
    for here, names, leaves in os.walk(base, followlinks=True):
        around = above.pop(here)
        inner = {name: _identity(Path(here, name)) for name in names}
        names[:] = sorted(name for name in names if not _is_junk(name) and inner[name] not in around)
        above |= {os.path.join(here, name): around | {inner[name]} for name in names}  # noqa: PTH118
        relative = Path(here).relative_to(base).as_posix()
        prefix = "" if relative == "." else relative + "/"
        folders.update(prefix + name for name in names)
        files += [prefix + leaf for leaf in sorted(leaves) if not leaf.startswith(".")]
    return Listing(base, FileSource(base, files), files, folders)


def list_zip(path: Path) -> Listing:
    """List a zip in sorted order; one folder around everything is tolerated.

    Raises:
        DataError: one line, if it is missing or no zip.
    """
    with open_zip(path) as archive:
        infos = archive.infolist()
    if any(info.flag_bits & 0x1 for info in infos):
        raise DataError(f"{path}: the zip is encrypted, expected one without a password")
    parts = {info.filename: PurePosixPath(info.filename).parts for info in infos}
    keep = {name: p for name, p in parts.items() if p and not any(map(_is_junk, p))}
    tops = {p[0] for p in keep.values()}
    if len(tops) == 1 and not _has_splits(tops):
        keep = {name: p[1:] for name, p in keep.items() if len(p) > 1}
    folders = {"/".join(p[:depth]) for p in keep.values() for depth in range(1, len(p))}
    folders |= {"/".join(p) for name, p in keep.items() if name.endswith("/")}
    members = {"/".join(p): name for name, p in keep.items() if not name.endswith("/")}
    files = sorted(members)
    return Listing(path, ZipSource(path, [members[file] for file in files]), files, folders)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What a folder is called by the file system, whatever links lead to it; None for one that is gone."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _has_splits(names: set[str]) -> bool:
    return bool(names & set(SPLIT_NAMES))


def counts_as_image(listing: Listing, index: int) -> bool:
    """Whether a listed file is to be read as an image: by its name, or else by its content."""
    if has_image_suffix(listing.files[index]):
        return True
    source = listing.source
    return is_image(source.bytes_of(index) if isinstance(source, ZipSource) else source.name_of(index))


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
