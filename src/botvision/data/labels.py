"""Images with their classes: from a listing of files to the splits of a data set."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.coco.doubts import plain
from botvision.data.check_report import some
from botvision.data.counter_rng import uniform
from botvision.data.left_out import LeftOut
from botvision.data.sources import (
    NO_CLASS,
    ImageSource,
    Listing,
)
from botvision.data.split_names import HELD_NAMES, SPLIT_NAMES, TEST_NAMES, TRAIN_NAMES
from botvision.io.errors import DataError

# Folders of other kinds of data sets, which are no classes though there are images in them.
_OTHERS = "annotations data gt imagesets images img imgs jpegimages labels masks segmentationclass"
_NO_CLASSES = frozenset((*_OTHERS.split(), "segmentationobject"))
_RESULTS = (
    "attention.json",
    "config.yaml",
    "predictions.json",
    "results.json",
    "summary.json",
)  # of botvision
_NEVER_CLASSES = frozenset({"val", "validation", *TEST_NAMES})  # while a class may be called train or valid


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
    (N, G, 2), y and x in pixels of the places at which these labels are asked for. `notes` are lines on
    files that are left out, and on what is odd about the classes.
    """

    source: ImageSource
    targets: Tensor
    classes: list[str]
    grouping: Grouping | None = None
    points: Tensor | None = None
    notes: list[str] = field(default_factory=list)

    def take(self, chosen: Tensor) -> "Labelled":
        """Return the same of some images, int64 (M,)."""
        return Labelled(
            Subset(self.source, chosen),
            self.targets[chosen],
            self.classes,
            self.grouping and self.grouping.take(chosen),
            None if self.points is None else self.points[chosen],
            self.notes,
        )


def split_folders(listing: Listing) -> dict[str, str]:
    """Return which folder serves as "train" and, if there is one, as "val"; "" where classes lie at the root.

    Raises:
        DataError: one line, if there is no `train`, and the folders are no classes either.
    """
    if is_flat(listing):
        return {"train": ""}
    train = next((listing.named[name] for name in TRAIN_NAMES if name in listing.named), None)
    if train is None:
        found = ", ".join(sorted(listing.top)[:5]) or "no folders"
        why = why_not_flat(listing)
        found += f"; {why}" if why else ""
        raise DataError(f"{listing.root}: no train/ folder (found {found}), expected train/<class>/<image>")
    val = next((listing.splits[name] for name in HELD_NAMES if name in listing.splits), None)
    return {"train": train, **({} if val is None else {"val": val})}


def is_flat(listing: Listing) -> bool:
    """Return whether the folders at the root are classes, for all that their names say: cat/, dog/."""
    names = set() if listing.splits else flat_classes(listing)[0]
    return len(names) > 1 and not why_not_flat(listing)


def flat_classes(listing: Listing) -> tuple[set[str], dict[str, str]]:
    """Return the folders at the root that may be classes, and the others with the reason why they are none.

    Those without images count where fewer than two others are left: they may be classes to be filled.
    """
    others: dict[str, str] = {}
    with_images: set[str] = set()
    for index, file in enumerate(listing.files):
        top, _, rest = file.partition("/")
        if rest and rest.rsplit("/", 1)[-1] in _RESULTS:
            others[top] = "results of botvision"
        elif rest and top not in with_images and listing.unread(index) != "no image":
            with_images.add(top)
    others |= {name: "a split by its name" for name in listing.top if name.lower() in _NEVER_CLASSES}
    if len(with_images - set(others)) > 1:
        others |= dict.fromkeys(listing.top - with_images - set(others), "no image in it")
    return listing.top - set(others), others


def why_not_flat(listing: Listing) -> str:
    """Return what name keeps the folders at the root from being taken for classes; "" if none does."""
    names = sorted(flat_classes(listing)[0])
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    like = r"(train|val|test|dev|eval)[^a-z]|.*[^a-z](train|val|test)$"
    splits = [
        *(splits if len(splits) > 1 or len(splits) == len(names) else []),
        *(name for name in names if re.match(like, name.lower())),
        *listing.splits.values(),
    ]
    others = [name for name in names if name.lower() in _NO_CLASSES]
    if splits:
        return f"no classes, as {splits[0]} is called like a split"
    return f"no classes, as {others[0]} is called like a part of another data set" if others else ""


def notes_on_folders(listing: Listing) -> list[str]:
    """Return lines on the folders at the root that training does not use, or not as their names say.

    Raises:
        DataError: as `split_folders`.
    """
    chosen = split_folders(listing)
    if not chosen["train"]:
        return [f"left out: {name}/, {why}" for name, why in sorted(flat_classes(listing)[1].items())]
    unused = sorted(listing.top - set(listing.named.values()))
    notes = [f"folders that training does not use: {some(unused)}"] if unused else []
    bare = sorted(set(listing.named.values()) - set(listing.splits.values()) - {chosen["train"]})
    notes += [f"left out: {name}/, no split, for it has no folders of classes" for name in bare]
    spare = sorted(set(listing.splits.values()) - set(chosen.values()))
    if spare:
        reach = " (botvision eval --split test does use test)" if "test" in spare else ""
        notes.append(f"splits that training does not use: {some(spare)}{reach}")
    if chosen.get("val", "").lower() in TEST_NAMES:
        notes.append(f"no val/ folder: {chosen['val']}/ is used to choose the best epoch")
    return notes


def class_of(file: str, folder: str) -> str | None:
    """Return the class of a listed file in the folder of a split ("": the root); None where it has none."""
    parts = file.split("/")
    if folder and parts[0] != folder:
        return None
    rest = parts[1:] if folder else parts
    return rest[0] if len(rest) > 1 else None


def labelled(listing: Listing, folder: str, classes: list[str] | None = None) -> Labelled:
    """Return the images of one split: a folder for every class, its images in it or deeper.

    Files that neither are called like an image nor begin like one are left out.

    Args:
        listing: of the data set.
        folder: of the split, at the root; "" for the root itself.
        classes: of the training (K), in the order of the targets; the split may lack some, but has no others.
            By default the folders found are the classes, and each must have images.

    Raises:
        DataError: one line, if there are no classes or images, a class is empty, or one is none of `classes`.
    """
    found = {name for each in listing.folders if (name := class_of(f"{each}/", folder))}
    found = sorted(found if folder else flat_classes(listing)[0])
    where = f"{listing.root}{':' if folder and listing.root.is_file() else '/'}{folder}".rstrip("/")
    if not found:
        raise DataError(f"{where}: no classes, expected a folder for each")
    may_lack, classes = classes is not None, found if classes is None else classes
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise DataError(f"{where}: {_not_trained_on(unknown, classes)}")
    number = {name: k for k, name in enumerate(classes)}
    indices, targets, left_out = [], [], LeftOut()
    for index, file in enumerate(listing.files):
        class_name = class_of(file, folder)
        if class_name is not None and class_name not in number:
            continue
        if class_name is None and file.rpartition("/")[0] not in (folder, "" if classes is found else folder):
            continue
        reason = reason_left_out(listing, index, class_name is not None)
        if reason is not None:
            left_out.add(reason, file)
        elif class_name is not None:
            indices.append(index)
            targets.append(number[class_name])
    notes = left_out.notes()
    counts = np.bincount(np.array(targets, dtype=np.int64), minlength=len(classes))
    if not indices:
        raise DataError("; ".join([f"{where}: no images in any class", *notes]))
    if (counts == 0).any() and not may_lack:
        empty = [classes[k] for k in np.flatnonzero(counts == 0)]
        raise DataError("; ".join([f"{where}: no images in {some_classes(empty)}", *notes]))
    lacking = [name for name, count in zip(classes, counts, strict=True) if not count]
    if lacking:
        notes.append(f"{folder} has no images of {some_classes(lacking)}: their accuracy is not measured")
    if len(classes) == 1 and not may_lack:
        notes.append(_of_one_class(listing, f"{folder}/{classes[0]}".lstrip("/"), where))
    images = torch.tensor(targets, dtype=torch.int64)
    return Labelled(Subset(listing.source, indices), images, classes, notes=notes)


def _not_trained_on(unknown: list[str], classes: list[str]) -> str:
    """Say which classes a network does not know; the likely reason is how they are written."""
    shown = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    line = f"{some_classes(unknown)} not among the {len(classes)} trained on ({shown})"
    known = {plain(name): name for name in classes}
    alike = [f"{name} for {known[plain(name)]}" for name in unknown if plain(name) in known]
    return line + (f"; capitals and spaces must be the same ({', '.join(alike[:3])})" if alike else "")


def in_order_of(part: Labelled, classes: list[str], where: str) -> Labelled:
    """Return a part with its targets in the order of a network's classes (K), of which it may lack some.

    Raises:
        DataError: one line, if it has classes that the network does not know.
    """
    if part.classes == classes:
        return part
    if unknown := [name for name in part.classes if name not in classes]:
        raise DataError(f"{where}: {_not_trained_on(unknown, classes)}")
    notes, lacking = part.notes, [name for name in classes if name not in part.classes]
    if lacking:
        notes = [*notes, f"no images of {some_classes(lacking)}: their accuracy is not measured"]
    places = torch.tensor([classes.index(name) for name in part.classes])
    return replace(part, targets=places[part.targets], classes=classes, notes=notes)


def has_classes(listing: Listing) -> bool:
    """Return whether training finds folders that can be classes, and are no parts of other data sets."""
    try:
        folder = split_folders(listing)["train"]
    except DataError:
        return False
    names = (class_of(f"{each}/", folder) for each in listing.folders)
    return not folder or any(name is not None and name.lower() not in _NO_CLASSES for name in names)


def reason_left_out(listing: Listing, index: int, has_class: bool) -> str | None:
    """Return why an image, or what may be one, is not used; None for one that is, and for other strays."""
    unread = listing.unread(index)
    if has_class:
        return unread
    return NO_CLASS if unread is None else None if unread == "no image" else unread


def _of_one_class(listing: Listing, folder: str, where: str) -> str:
    """Say that there is nothing to tell apart, and why that may be."""
    below = sorted(each.rsplit("/", 1)[1] for each in listing.folders if each.rpartition("/")[0] == folder)
    alone = any(file.rpartition("/")[0] == folder for file in listing.files)
    hint = "" if alone or not below else f"; its folders ({', '.join(below[:5])}) lie one folder too deep"
    return f"{where}: one class ({folder.rsplit('/', 1)[-1]}), there is nothing to tell apart{hint}"


def hold_back(
    train: Labelled, fraction: float, name: str, groups: npt.NDArray[np.int64] | None = None
) -> dict[str, Labelled]:
    """Split validation images off, class by class, by a fixed shuffle of each class's images in listed order.

    Args:
        train: all images.
        fraction: of each class.
        name: of the data set, for errors.
        groups: int64 (N), equal for pictures that are held back together or not at all. Those of several
            classes, and those that are more than a class may spare, stay in training.

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
        spared = min(len(mine) - 1, max(1, round(fraction * len(mine))))
        if groups is None:
            held[mine[:spared]] = True
            continue
        for group in dict.fromkeys(groups[mine].tolist()):
            members = torch.from_numpy(groups == group)
            fits = int((held & (train.targets == k)).sum()) + int(members.sum()) <= spared
            if fits and bool((train.targets[members] == k).all()):
                held |= members
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
