"""Images with their classes: from a listing of files to the splits of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from botvision.data.counter_rng import uniform
from botvision.data.sources import VAL_NAMES, ImageSource, Listing, counts_as_image
from botvision.io.errors import DataError


class Subset:
    """Some images of a source."""

    def __init__(self, source: ImageSource, indices: Sequence[int] | Tensor) -> None:
        """Take the source and the indices in it that remain."""
        self.source = source
        self.indices = torch.as_tensor(indices, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def name_of(self, index: int) -> str:
        return self.source.name_of(int(self.indices[index]))

    def load(self, index: int) -> Tensor:
        return self.source.load(int(self.indices[index]))


@dataclass(frozen=True)
class Grouping:
    """A quantity by which accuracy can be broken down, such as a distance, and its value for every label.

    Attributes:
        name: of the quantity, one word, e.g. "distance".
        unit: of the quantity, e.g. "px".
        edges: ascending (G+1); group g holds values from edge g up to, without, edge g+1.
        values: float64 (N,), or (N, G) for G labels in an image.
    """

    name: str
    unit: str
    edges: tuple[float, ...]
    values: Tensor

    def intervals(self) -> list[tuple[float, float]]:
        """Return the lower and upper edge of each (G)."""
        return list(zip(self.edges[:-1], self.edges[1:], strict=True))

    def groups(self) -> Tensor:
        """Return the interval of every value, int64, from 0."""
        return torch.bucketize(self.values, torch.tensor(self.edges, dtype=torch.float64), right=True) - 1

    def take(self, indices: Tensor) -> "Grouping":
        """Return the same of some images, int64 (M,)."""
        return Grouping(self.name, self.unit, self.edges, self.values[indices])


@dataclass(frozen=True)
class Labelled:
    """One split as its source has it: images, int64 targets (N), names of the classes (K).

    `grouping` is a quantity of the images by which accuracy is broken down, where the source has one.
    Sources with G labels an image have targets (N, G), values of the quantity (N, G), and `points`, float64
    (N, G, 2), y and x in pixels of the places at which these labels are asked for.
    """

    source: ImageSource
    targets: Tensor
    classes: list[str]
    grouping: Grouping | None = None
    points: Tensor | None = None

    def take(self, chosen: Tensor) -> "Labelled":
        """Return the same of some images, int64 (M,)."""
        return Labelled(
            Subset(self.source, chosen),
            self.targets[chosen],
            self.classes,
            self.grouping and self.grouping.take(chosen),
            None if self.points is None else self.points[chosen],
        )


def split_folders(listing: Listing) -> dict[str, str]:
    """Return which folder serves as "train" and, if there is one, as "val".

    Raises:
        DataError: one line, if there is no `train`.
    """
    if "train" not in listing.top:
        found = ", ".join(sorted(listing.top)[:5]) or "no folders"
        raise DataError(f"{listing.root}: no train/ folder (found {found}), expected train/<class>/<image>")
    val = [name for name in VAL_NAMES if name in listing.top]
    return {"train": "train", **({"val": val[0]} if val else {})}


def labelled(listing: Listing, folder: str, classes: list[str] | None = None) -> Labelled:
    """Return the images of one split: a folder for every class, its images in it or deeper.

    Files that neither are called like an image nor begin like one are left out.

    Args:
        listing: of the data set.
        folder: of the split, at the root.
        classes: of the training (K), in the order of the targets; the split may lack some, but has no others.
            By default the folders found are the classes, and each must have images.

    Raises:
        DataError: one line, if there are no classes or images, a class is empty, or one is none of `classes`.
    """
    below = [name.split("/") for name in listing.folders]
    found = sorted(parts[1] for parts in below if parts[0] == folder and len(parts) == 2)
    where = f"{listing.root}{':' if listing.root.is_file() else '/'}{folder}"
    if not found:
        raise DataError(f"{where}: no classes, expected a folder for each")
    may_lack, classes = classes is not None, found if classes is None else classes
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise DataError(
            f"{where}: {some_classes(unknown)} not among those trained on ({some_classes(classes)})"
        )
    number = {name: k for k, name in enumerate(classes)}
    indices, targets = [], []
    for index, file in enumerate(listing.files):
        parts = file.split("/")
        if parts[0] == folder and len(parts) > 2 and counts_as_image(listing, index):
            indices.append(index)
            targets.append(number[parts[1]])
    counts = np.bincount(np.array(targets, dtype=np.int64), minlength=len(classes))
    if not indices:
        raise DataError(f"{where}: no images in any class")
    if (counts == 0).any() and not may_lack:
        empty = [classes[k] for k in np.flatnonzero(counts == 0)]
        raise DataError(f"{where}: no images in {some_classes(empty)}")
    return Labelled(Subset(listing.source, indices), torch.tensor(targets, dtype=torch.int64), classes)


def hold_back(train: Labelled, fraction: float, name: str) -> dict[str, Labelled]:
    """Split validation images off, class by class, by a fixed shuffle of each class's images in listed order.

    Raises:
        DataError: one line, if the fraction is 0 or a class has too few images.
    """
    if fraction == 0:
        raise DataError(
            f"{name}: no val/ or test/ folder and data.val_fraction is 0, expected one or the other"
        )
    order = torch.from_numpy(np.argsort(uniform(1, np.arange(len(train.targets)))[:, 0], kind="stable"))
    held = torch.zeros(len(train.targets), dtype=torch.bool)
    for k, class_name in enumerate(train.classes):
        mine = order[train.targets[order] == k]
        if len(mine) < 2:
            raise DataError(
                f"{name}: class {class_name} has 1 image, expected 2 to hold one back for validation"
            )
        held[mine[: min(len(mine) - 1, max(1, round(fraction * len(mine))))]] = True
    return {"train": train.take((~held).nonzero()[:, 0]), "val": train.take(held.nonzero()[:, 0])}


def spread(targets: Tensor, limit: int) -> Tensor:
    """Return indices int64 (limit,) of the first images of every class in turn, in listed order."""
    turn = torch.zeros_like(targets)
    for k in targets.unique():
        mine = targets == k
        turn[mine] = torch.arange(int(mine.sum()))
    return turn.argsort(stable=True)[:limit].sort().values


def some_classes(names: list[str]) -> str:
    """Return their number and the first names, for a message."""
    if len(names) == 1:
        return f"class {names[0]}"
    return f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
