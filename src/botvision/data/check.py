"""Is this data set sound? Every file is read once, before an hour is wasted."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.data.cache import Progress, reported
from botvision.data.check_report import CheckReport, digest, size_range, some
from botvision.data.classification import Splits, open_splits, resolve_source
from botvision.data.coco_folder import is_detection_data
from botvision.data.detection_check import check_detection
from botvision.data.duplicates import Pictures, repeated_pictures
from botvision.data.images import decode, has_image_suffix, is_image
from botvision.data.labels import labelled, some_classes, split_folders
from botvision.data.other_labels import convert_hint
from botvision.data.sources import SPLIT_NAMES, Listing, counts_as_image, list_folder, list_zip
from botvision.io.errors import DataError


@dataclass
class _Tally:
    """What one split's files turned out to be."""

    classes: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    digests: dict[bytes, str] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=Pictures)
    doubles: list[tuple[str, str]] = field(default_factory=list)  # the same file under two classes
    broken: int = 0


def check_data(
    data: DataConfig | DetectionDataConfig | str | Path, progress: Progress | None = None
) -> CheckReport:
    """Read every image of a data set and report what is wrong; raises nothing for bad data.

    A folder with COCO annotations is a detection data set. Any other, or a zip, is a classification data set
    if it has a folder called train, val, valid, validation or test, and else a heap of images. Files called
    like images must be readable; others count if their content is an image.

    Args:
        data: the configuration training would use, or a folder or zip.
        progress: called with what is being done, how many files are done and how many there are.

    Returns:
        The report.
    """
    if isinstance(data, DetectionDataConfig):
        return check_detection(data, progress)
    if not isinstance(data, DataConfig):
        root = Path(data).expanduser()
        if is_detection_data(root):
            return check_detection(DetectionDataConfig(root=str(root)), progress)
        if hint := convert_hint(root):
            return CheckReport("detection", root.name or str(root), [], [f"{root}: {hint}"], [], 0, 0)
    config = data if isinstance(data, DataConfig) else DataConfig(root=str(data))
    name = str(config.root) if config.root is not None else config.source
    try:
        kind = resolve_source(config)
        if kind in ("folder", "zip"):
            root = Path(str(config.root))
            return _check_files(config, list_zip(root) if kind == "zip" else list_folder(root), progress)
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
    has_splits = bool(listing.top & set(SPLIT_NAMES))
    tallies: dict[str, _Tally] = {}
    problems: list[str] = []
    ignored: list[str] = []
    stray: list[str] = []
    for index, file in enumerate(reported(listing.files, "checking", progress)):
        split, class_name = _place(file) if has_splits else ("images", "")
        if split is None and _belongs_nowhere(file) and counts_as_image(listing, index):
            stray.append(file)
        if split is not None:
            _read_one(listing, index, tallies.setdefault(split, _Tally()), class_name, problems, ignored)
    warnings = _duplicates(tallies)
    if stray:
        warnings.append(f"{len(stray)} images in no class's folder are not used: {some(stray)}")
    if ignored:
        warnings.append(f"{len(ignored)} files that are no images are ignored: {some(ignored)}")
    if has_splits:
        problems += _structure(config, listing, warnings)
    else:
        warnings.append("no train/ folder: images were read, but this is no classification data set")
        if not tallies or not sum(tally.classes.total() + tally.broken for tally in tallies.values()):
            problems.append(f"{listing.root}: no images found")
    return CheckReport(
        kind="classification" if has_splits else "images",
        name=listing.root.name or str(listing.root),
        rows=[_row(split, tally) for split, tally in sorted(tallies.items())],
        problems=problems,
        warnings=warnings,
        readable=sum(tally.classes.total() for tally in tallies.values()),
        broken=sum(tally.broken for tally in tallies.values()),
    )


def _place(file: str) -> tuple[str | None, str]:
    """Split and class of a listed file; no split where training would not look."""
    parts = file.split("/")
    return (parts[0], parts[1]) if len(parts) > 2 and parts[0] in SPLIT_NAMES else (None, "")


def _belongs_nowhere(file: str) -> bool:
    """Whether a file lies where classes are expected: at the root, or directly in a split."""
    folder, _, rest = file.partition("/")
    return not rest or (folder in SPLIT_NAMES and "/" not in rest)


def _read_one(
    listing: Listing, index: int, tally: _Tally, class_name: str, problems: list[str], ignored: list[str]
) -> None:
    file, source = listing.files[index], listing.source
    name = source.name_of(index)
    try:
        content = source.bytes_of(index)
        if not has_image_suffix(file) and not is_image(content):
            ignored.append(file)
            return
        image, mode, _ = decode(content, name)
    except DataError as error:
        problems.append(str(error))
        tally.broken += 1
        return
    tally.classes[class_name] += 1
    tally.sizes.append((image.height, image.width))
    tally.modes[mode] += 1
    key = digest(content)
    tally.pictures.add(file, key, image)
    first = tally.digests.setdefault(key, file)
    if _place(first)[1] != class_name:
        tally.doubles.append((first, file))


def _structure(config: DataConfig, listing: Listing, warnings: list[str]) -> list[str]:
    """What training would refuse apart from broken files, and what it would do without being told."""
    unused = sorted(listing.top - set(SPLIT_NAMES))
    if unused:
        warnings.append(f"folders that training does not use: {some(unused)}")
    try:
        chosen = list(split_folders(listing).values())
    except DataError as error:
        return [str(error)]
    spare = sorted((listing.top & set(SPLIT_NAMES)) - set(chosen))
    if spare:
        reach = " (botvision eval --split test does use test)" if "test" in spare else ""
        warnings.append(f"splits that training does not use: {some(spare)}{reach}")
    problems: list[str] = []
    classes: list[str] | None = None
    for folder in chosen:
        try:
            part = labelled(listing, folder, classes)
        except DataError as error:
            problems.append(str(error))
            continue
        classes = part.classes
        lacking = [name for k, name in enumerate(classes) if not (part.targets == k).any()]
        if lacking:
            warnings.append(
                f"{folder} has no images of {some_classes(lacking)}: their accuracy is not measured"
            )
    if problems:
        return problems
    try:
        if open_splits(config).held_back:
            warnings.append(f"no val/ or test/ folder: {config.val_fraction:.0%} of train will be held back")
    except DataError as error:
        return [str(error)]
    return []


def _duplicates(tallies: dict[str, _Tally]) -> list[str]:
    """Files that are in two classes, in a split twice, or in training and validation."""
    doubles = {split: tally.doubles for split, tally in sorted(tallies.items()) if tally.doubles}
    line = "{} files of {} are in two classes, such as {} = {}".format
    lines = [line(len(found), split, *found[0][::-1]) for split, found in doubles.items()]
    return lines + repeated_pictures("files", {split: tally.pictures for split, tally in tallies.items()})


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
