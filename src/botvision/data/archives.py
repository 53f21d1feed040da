"""CIFAR-10 and CIFAR-100 in their official archives, through torchvision."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from botvision.data.sources import ArraySource
from botvision.io.errors import DataError

_DATASETS: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def cifar_folder(root: Path, kind: str) -> Path | None:
    """The folder with the archive, packed or unpacked; None where it is not.

    Args:
        root: that folder, the archive itself, or the folder that it unpacks to.
        kind: "cifar10" or "cifar100".
    """
    dataset = _DATASETS[kind]
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
    dataset = _DATASETS[kind]
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
