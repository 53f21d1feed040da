"""Is this detection data set sound? Annotations and every image are read once, before an hour is wasted."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from botvision.coco.annotations import CocoFile
from botvision.coco.problems import Problem
from botvision.config.data import DetectionDataConfig
from botvision.data.cache import Progress, reported
from botvision.data.check_report import CheckReport, digest, size_range, some
from botvision.data.coco_folder import (
    find_split_files,
    find_test_files,
    read_split,
    unnamed_images,
    unused_annotations,
)
from botvision.data.detection import open_generated
from botvision.data.detection_notes import crowd_notes, mirror_note, nothing_usable
from botvision.data.detection_sources import CocoSource
from botvision.data.duplicates import Pictures, repeated_pictures
from botvision.io.errors import DataError

SMALL, MEDIUM = 32**2, 96**2  # COCO's bounds of an object's area in pixels
SHOWN = 20  # notes of a kind that are listed one by one
CROWDED = 100  # the usual number of detections that an evaluation keeps of an image


def check_detection(config: DetectionDataConfig, progress: Progress | None = None) -> CheckReport:
    """Read annotations and images of a detection data set; raises nothing for bad data.

    Args:
        config: what training would use; "generated" data are drawn and looked at like others.
        progress: called with what is being done, how many files are done and how many there are.

    Returns:
        A report of kind "detection": a row for each split, counts for each category, and a line with image
        and annotation ids for everything that is wrong: problems are what training refuses, warnings what it
        leaves out or mends.
    """
    if config.source == "generated":
        opened = open_generated(config)
        drawn = {name: _Split(name, source, [*source.file.problems]) for name, (source, *_) in opened.items()}
        return _report(config, "generated", drawn, [], progress)
    name = Path(str(config.root)).name or str(config.root)
    try:
        files = find_split_files(config, need_train=False)
    except DataError as error:
        try:
            test = find_test_files(config)
        except DataError:
            test = None
        if test is None:
            return CheckReport("detection", name, [], [str(error)], [], 0, 0)
        files = {"test": test}
    splits: dict[str, _Split] = {}
    problems: list[str] = []
    for split, parts in files.items():
        try:
            known = splits["train"].file.categories if "train" in splits else None
            file, folder, found = read_split(parts, Path(str(config.root)), known)
        except DataError as error:
            problems.append(str(error))
            continue
        splits[split] = _Split(split, CocoSource(file, folder, config.max_pixels), found)
    report = _report(config, name, splits, problems, progress)
    report.warnings.extend(unused_annotations(Path(str(config.root)), files).notes())
    read = [(split.file, split.source.folder) for split in splits.values()]
    report.warnings.extend(unnamed_images(read).notes())
    return report


@dataclasses.dataclass
class _Split:
    """A split as it was read, and what its files turned out to be."""

    name: str
    source: CocoSource
    problems: list[Problem]
    readable: int = 0
    pictures: Pictures = dataclasses.field(default_factory=Pictures)

    @property
    def file(self) -> CocoFile:
        """The annotations."""
        return self.source.file

    def read_images(self, progress: Progress | None) -> None:
        """Decode every image that is there; what cannot be is added to the problems."""
        gone = self.gone
        there = [index for index, image in enumerate(self.file.images) if image.id not in gone]
        for index in reported(there, f"checking {self.name}", progress):
            image = self.file.images[index]
            try:
                pixels = self.source.load(index)
            except DataError as error:
                self.problems.append(Problem("file", str(error), image.id))
            else:
                self.readable += 1
                content = digest(bytes(str(pixels.shape), "ascii") + pixels.numpy().tobytes())
                self.pictures.add(f"{image.file} (image id {image.id})", content, pixels)

    @property
    def gone(self) -> set[int | None]:
        """Ids of the images that are missing or cannot be used."""
        return {problem.image_id for problem in self.problems if problem.kind == "file"}

    @property
    def broken(self) -> int:
        """Number of images that are missing or cannot be used."""
        return sum(problem.kind == "file" for problem in self.problems)

    @property
    def refused(self) -> list[str]:
        """Lines of what training refuses: the first of each kind, and how many more."""
        found = [(problem.kind, problem.line) for problem in self.problems if problem.fatal]
        return self._first(found, "problems with")

    @property
    def notes(self) -> list[str]:
        """Lines of what training leaves out or mends: the first of each kind, and how many more."""
        noted = [p for p in self.problems if not p.fatal and p.kind != "file"]  # one line is of all files
        ends = {"degenerate": "; not trained on"}
        return self._first([(p.kind, f"{p.line}{ends.get(p.kind, '')}") for p in noted], "notes on")

    def _first(self, lines: Sequence[tuple[str, str]], what: str) -> list[str]:
        seen, first = Counter[str](), list[str]()
        for kind, line in lines:
            seen[kind] += 1
            if seen[kind] <= SHOWN:
                first.append(line)
        more = {_KINDS.get(kind, kind): count - SHOWN for kind, count in seen.items() if count > SHOWN}
        return first + [f"{self.name}: {count} more {what} {kind}" for kind, count in more.items()]

    def objects(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Number of objects of every image, without crowds and what has no area, (N)."""
        annotations = self.file.annotations
        return np.bincount(annotations.images[annotations.objects], minlength=len(self.file.images))

    @property
    def trainable(self) -> bool:
        """Whether there is an image with objects that can be read."""
        gone, images = self.gone, zip(self.file.images, self.objects(), strict=True)
        return any(count and image.id not in gone for image, count in images)

    def by_category(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Number of objects of every category, without crowds and what has no area, (K)."""
        annotations = self.file.annotations
        return np.bincount(annotations.categories[annotations.objects], minlength=len(self.file.categories))


_KINDS = {"degenerate": "objects without area", "area": "stated areas", "image": "images", "file": "files"}


def _report(
    config: DetectionDataConfig,
    name: str,
    splits: dict[str, _Split],
    problems: list[str],
    progress: Progress | None,
) -> CheckReport:
    warnings, uncounted = [], 0
    for split in splits.values():
        split.read_images(progress)
        if not config.skip_broken:  # of many equal ones a few are listed
            uncounted += sum(p.fatal and p.kind != "file" for p in split.problems) - len(split.refused)
        (warnings if config.skip_broken else problems).extend(split.refused)
        images = len(split.file.images)
        if not images:
            problems.append(f"{split.file.name}: no images")
        elif config.skip_broken and not split.readable:
            problems.append(f"{split.file.name}: none of the {images} images can be read")
        warnings += [*split.notes, *split.source.choices.notes()]
    if config.source != "generated":
        warnings += repeated_pictures("image", {split.name: split.pictures for split in splits.values()})
    if "train" in splits:
        more, others = _structure(config, splits)
        if not problems:  # else they follow from those
            problems += more
        warnings += others
    elif splits:
        warnings.append("no training annotations: these data are for eval and predict alone")
    val = splits.get("val")
    if val is not None and val.file.images and not val.trainable and not problems and not config.val_is_train:
        problems.append(f"{val.file.name}: no image has objects to measure on")
    names = [category.name for split in splits.values() for category in split.file.categories]
    mirrored = mirror_note(list(dict.fromkeys(names)), config)
    warnings += [mirrored] if mirrored else []
    return CheckReport(
        kind="detection",
        name=name,
        rows=[_row(split) for split in splits.values()],
        problems=problems,
        warnings=warnings,
        readable=sum(split.readable for split in splits.values()),
        broken=sum(split.broken for split in splits.values()),
        categories=_categories(splits),
        keys={"data.flip": "false"} if mirrored else {},
        other=len(problems) + uncounted,
    )


def _structure(config: DetectionDataConfig, splits: dict[str, _Split]) -> tuple[list[str], list[str]]:
    """What training would refuse in sound files, and what is worth knowing about them."""
    problems, warnings = [], []
    train, val = splits["train"], splits.get("val")
    used = train.by_category()
    if not train.trainable:
        problems.append(f"{train.file.name}: {nothing_usable(train.file)}")
    if val is None and not config.val_is_train:
        if (
            config.val_fraction == 0
            or len(train.file.images) < 2
            or len({*train.pictures.contents}) == 1 < train.readable
        ):
            problems.append(f"{train.file.name}: no validation annotations, and no images to hold back")
        else:
            warnings.append(
                f"no validation annotations: {config.val_fraction:.0%} of the training images are held back"
            )
    names = [category.name for category in train.file.categories]
    crowds = np.bincount(
        train.file.annotations.categories[train.file.annotations.crowd], minlength=len(names)
    )
    lacking = [name for name, *counts in zip(names, used, crowds, strict=True) if not any(counts)]
    warnings += crowd_notes(train.file)
    if lacking and used.any():
        warnings.append(f"train has no objects of {_few(lacking)}: they cannot be learnt")
    if val is not None:
        bare = [n for n, a, b in zip(names, used, val.by_category(), strict=True) if a and not b]
        if bare:
            warnings.append(f"val has no objects of {_few(bare)}: their AP is not measured")
    for split in splits.values():
        most = int(split.objects().max(initial=0))
        if most > CROWDED:
            many = f"{split.name} has images with up to {most} objects"
            warnings.append(f"{many}: with {CROWDED} detections an image AP cannot reach 1")
        if len(split.file.annotations) and not split.file.annotations.has_masks:
            warnings.append(f"{split.name} has boxes without masks: they train a Faster R-CNN")
    return problems, warnings


def _row(split: _Split) -> dict[str, Any]:
    annotations, images = split.file.annotations, split.file.images
    objects = split.objects()
    areas = annotations.areas[annotations.objects]
    count = max(1, len(areas))
    return {
        "split": split.name,
        "images": len(images),
        "broken": split.broken,
        "empty": int((objects == 0).sum()),
        "annotations": int((~annotations.degenerate).sum()),
        "crowds": int((annotations.crowd & ~annotations.degenerate).sum()),
        "masks": annotations.has_masks,
        "dropped": sum(problem.kind == "degenerate" for problem in split.problems),
        "categories": len(split.file.categories),
        "categories_used": int((split.by_category() > 0).sum()),
        "objects_median": float(np.median(objects)) if len(objects) else 0.0,
        "objects_max": int(objects.max(initial=0)),
        "small": float((areas < SMALL).sum() / count),
        "medium": float(((areas >= SMALL) & (areas < MEDIUM)).sum() / count),
        "large": float((areas >= MEDIUM).sum() / count),
        **size_range([(image.height, image.width) for image in images]),
        "bytes": annotations.nbytes,
        "bytes_per_100k": annotations.nbytes * 100_000 / max(1, len(annotations)),
    }


def _categories(splits: dict[str, _Split]) -> list[dict[str, Any]]:
    """Id, name, and number of objects in each split, by descending number in the first."""
    if not splits:
        return []
    first = next(iter(splits.values()))
    counts = {name: split.by_category() for name, split in splits.items()}
    rows = [
        {"id": category.id, "name": category.name, **{name: int(n[k]) for name, n in counts.items()}}
        for k, category in enumerate(first.file.categories)
    ]
    return sorted(rows, key=lambda row: (-row[first.name], row["id"]))


def _few(names: list[str]) -> str:
    return f"{len(names)} categor{'ies' if len(names) > 1 else 'y'} ({some(names)})"
