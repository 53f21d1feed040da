"""Is this data set sound? Every file is read once, before an hour is wasted."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.data.cache import Progress, reported
from botvision.data.check_report import CheckReport, digest_of, size_range
from botvision.data.classification import Splits, listed, open_splits, resolve_source
from botvision.data.coco_folder import is_detection_data
from botvision.data.detection_check import check_detection
from botvision.data.duplicates import Pictures, repeated_pictures
from botvision.data.images import decode
from botvision.data.labels import (
    class_of,
    flat_classes,
    is_flat,
    labelled,
    notes_on_folders,
    split_folders,
    why_not_flat,
)
from botvision.data.left_out import Choices, LeftOut
from botvision.data.other_labels import convert_hint
from botvision.data.sources import Listing
from botvision.io.errors import DataError


@dataclass
class _Tally:
    """What one split's files turned out to be."""

    classes: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    digests: dict[bytes, str] = field(default_factory=dict)
    class_of: dict[bytes, str] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=Pictures)
    doubles: list[tuple[str, str]] = field(default_factory=list)  # the same file under two classes
    broken: int = 0


def check_data(
    data: DataConfig | DetectionDataConfig | str | Path, progress: Progress | None = None
) -> CheckReport:
    """Read every image of a data set and report what is wrong; raises nothing for bad data.

    A folder with COCO annotations is a detection data set. Any other, or a zip, is a classification data set
    if it has a folder called train, val, valid, validation or test, or if training can take its folders for
    classes, and else a heap of images. Files called like images must be readable; others count if their
    content is an image.

    Args:
        data: the configuration training would use, or a folder or zip.
        progress: called with what is being done, how many files are done and how many there are.

    Returns:
        The report.
    """
    if isinstance(data, DetectionDataConfig):
        return check_detection(data, progress)
    if not isinstance(data, DataConfig):
        data = root = Path(data).expanduser()
        if is_detection_data(root):
            return check_detection(DetectionDataConfig(root=str(root)), progress)
        if hint := convert_hint(root):
            return CheckReport("detection", root.name or str(root), [], [f"{root}: {hint}"], [], 0, 0)
    config = data if isinstance(data, DataConfig) else DataConfig(root=str(data))
    name = str(config.root) if config.root is not None else config.source
    try:
        kind = resolve_source(config)
        if kind in ("folder", "zip"):
            return _check_files(config, listed(config, kind)[1], progress)
        return _check_splits(open_splits(config))
    except DataError as error:
        return CheckReport("classification", name, [], [str(error)], [], 0, 0)


def _check_splits(splits: Splits) -> CheckReport:
    """Archives and drawn images were checked, or made, when they were opened: counting is what is left."""
    rows, readable = [], 0
    for split, dataset in (("train", splits.train), ("val", splits.val)):
        tally = _Tally(Counter(dataset.classes[k] for k in dataset.targets.flatten().tolist()))
        _, height, width = dataset.load(0).shape
        tally.sizes = [(height, width)] * len(dataset)
        tally.modes["RGB"] = len(dataset)
        rows.append(_row(split, tally))
        readable += len(dataset)
    return CheckReport("classification", splits.name, rows, [], [], readable, 0)


def _check_files(config: DataConfig, listing: Listing, progress: Progress | None) -> CheckReport:
    splits, fault = list((listing.splits or listing.named).values()), ""
    others: dict[str, str] = {}
    if is_flat(listing):
        splits, others = [], flat_classes(listing)[1]
        try:
            open_splits(config)
            splits = [""]
        except DataError as error:
            fault = f" ({error})"
    elif not splits and (why := why_not_flat(listing)):
        fault = f" ({why})"
    tallies: dict[str, _Tally] = {}
    problems: list[str] = []
    choices, left_out = Choices(), LeftOut()
    for index, file in enumerate(reported(listing.files, "checking", progress)):
        split, class_name = _place(file, splits) if splits else ("images", "")
        if class_name in others:
            continue
        reason = None if split is None else listing.unread(index)
        if reason is not None:
            left_out.add(reason, file)
        elif split is not None:
            _read_one(
                config, listing, index, tallies.setdefault(split, _Tally()), class_name, problems, choices
            )
    warnings = _duplicates(tallies)
    if splits:
        problems += _structure(config, listing, warnings)
    else:
        warnings += [*listing.left_out.notes(), *left_out.notes()]
        warnings.append(f"no train/ folder: images were read, but this is no classification data set{fault}")
        if not tallies or not sum(tally.classes.total() + tally.broken for tally in tallies.values()):
            problems.append(f"{listing.root}: no images found")
    return CheckReport(
        kind="classification" if splits else "images",
        name=listing.root.name or str(listing.root),
        rows=[_row(split, tally) for split, tally in sorted(tallies.items())],
        problems=problems,
        warnings=[*warnings, *choices.notes()],
        readable=sum(tally.classes.total() for tally in tallies.values()),
        broken=sum(tally.broken for tally in tallies.values()),
    )


def _place(file: str, splits: list[str]) -> tuple[str | None, str]:
    """Split and class of a listed file; no split where training would not look."""
    found = ((split, class_of(file, split)) for split in splits)
    return next(((split or "train", name) for split, name in found if name is not None), (None, ""))


def _read_one(
    config: DataConfig, listing: Listing, index: int, tally: _Tally, class_name: str,
    problems: list[str], choices: Choices,
) -> None:  # fmt: skip
    file, source = listing.files[index], listing.source
    try:
        with source.stream(index) as content:
            found = decode(content, source.name_of(index), max_pixels=config.max_pixels)
            key = digest_of(content)
    except DataError as error:
        problems.append(str(error))
        tally.broken += 1
        return
    choices.take(found.choices, file)
    tally.classes[class_name] += 1
    tally.sizes.append((found.rgb.height, found.rgb.width))
    tally.modes[found.mode] += 1
    tally.pictures.add(file, key, found.rgb)
    first = tally.digests.setdefault(key, file)
    if tally.class_of.setdefault(key, class_name) != class_name:
        tally.doubles.append((first, file))


def _structure(config: DataConfig, listing: Listing, warnings: list[str]) -> list[str]:
    """What training would refuse apart from broken files, and what it would do without being told."""
    try:
        chosen = list(split_folders(listing).values())
        warnings += notes_on_folders(listing)
    except DataError as error:
        return [str(error)]
    problems: list[str] = []
    classes: list[str] | None = None
    for folder in chosen:
        try:
            part = labelled(listing, folder, classes)
        except DataError as error:
            problems.append(str(error))
            continue
        classes = part.classes
        warnings += part.notes
    if problems:
        return problems
    try:
        splits = open_splits(config)
    except DataError as error:
        return [str(error)]
    warnings += [note for note in splits.notes if note not in warnings]
    return []


def _duplicates(tallies: dict[str, _Tally]) -> list[str]:
    """Files that are in two classes, in a split twice, or in training and validation."""
    doubles = {split: tally.doubles for split, tally in sorted(tallies.items()) if tally.doubles}
    lines = []
    for split, found in doubles.items():
        count = f"1 file of {split} is" if len(found) == 1 else f"{len(found)} files of {split} are"
        lines.append(f"{count} in two classes, such as {' = '.join(found[0][::-1])}")
    return lines + repeated_pictures("file", {split: tally.pictures for split, tally in tallies.items()})


def _row(split: str, tally: _Tally) -> dict[str, Any]:
    counts = sorted(tally.classes.values()) or [0]
    return {
        "split": split,
        "images": tally.classes.total(),
        "broken": tally.broken,
        "classes": len([name for name in tally.classes if name]),
        "class_min": counts[0],
        "class_median": median(counts),
        "class_max": counts[-1],
        **size_range(tally.sizes),
        "modes": ", ".join(f"{mode} {count}" for mode, count in tally.modes.most_common()),
    }
