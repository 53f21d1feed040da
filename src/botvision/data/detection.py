"""Images with instances: a configuration to data sets for training and validation of detectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from botvision.coco.annotations import Category
from botvision.coco.instances import Instances
from botvision.coco.problems import Problem
from botvision.config.data import DetectionDataConfig
from botvision.data.cache import Progress, fill_cache, reported
from botvision.data.coco_folder import (
    SplitFiles,
    find_split_files,
    find_test_files,
    read_split,
    unnamed_images,
)
from botvision.data.counter_rng import keys, uniform
from botvision.data.detection_notes import crowd_notes, mirror_note, nothing_usable
from botvision.data.detection_sources import CocoSource, ShapesInstances, Target
from botvision.data.detection_transforms import DRAWS, choose_window, jitter_colors
from botvision.data.duplicates import SMALLER, Groups, grouped, same_pictures, shared_with_train, sides_of
from botvision.data.loaders import VERIFIED, BatchedDataset
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError

Key = int | tuple[int, int]
DetectionBatch = tuple[list[Tensor], list[Target], Tensor]
"""Images uint8 (3, H, W) of any sizes, their targets, indices int64 (B,)."""


class DetectionDataset(BatchedDataset):
    """Images and their instances, as a detector takes them.

    A target is {"boxes": float32 (n, 4) xyxy in pixels of the image tensor, "labels": int64 (n,) in 1..K,
    "masks": uint8 (n, H, W), "image_id": int64 ()}; n may be 0, crowds and what has no area are not in it. In
    training images are windows (at most `config.size`, not padded) that depend on (seed, epoch, index) alone.
    Otherwise they are as annotated, and targets in batches hold "image_id" alone: evaluation compares with
    `ground_truth`, and `instances` has the masks of the images that are looked at.

    With `config.skip_broken` images that cannot be read are left out by `cache_images` and `verify`,
    the same ones whichever comes first; lengths and indices are final after that.

    Attributes:
        categories: ascending by id; category k is label k + 1.
    """

    def __init__(
        self, source: CocoSource, indices: Sequence[int], config: DetectionDataConfig, *,
        train: bool, seed: int = 0, name: str = "images",
    ) -> None:  # fmt: skip
        """Take the parts; `open_detection` has them.

        Args:
            source: of images and instances.
            indices: which of its images, N.
            config: canvas, augmentation, cache.
            train: augment.
            seed: of the augmentation.
            name: for messages.
        """
        self.source, self.indices, self.config = source, list(indices), config
        self.train, self.seed, self.name = train, seed, name
        self.categories: list[Category] = list(source.file.categories)
        self.notes, self.skipped = [], []
        self._cached = self._verified = False

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def classes(self) -> list[str]:
        """Names of the categories (K), in the order of the labels 1..K."""
        return [category.name for category in self.categories]

    @property
    def has_masks(self) -> bool:
        """Whether instances have masks; without, those of the targets are full boxes."""
        return self.source.file.annotations.has_masks

    def name_of(self, index: int) -> str:
        """Return the file and the image id."""
        return self.source.name_of(self.indices[index])

    def image_id(self, index: int) -> int:
        """Return the id that the annotations give the image."""
        return self.source.file.images[self.indices[index]].id

    def size_of(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image as annotated."""
        image = self.source.file.images[self.indices[index]]
        return image.height, image.width

    def load(self, index: int) -> Tensor:
        """Return the picture the way up in which it is annotated, uint8 (3, H, W)."""
        return self.source.load(self.indices[index]) if self.cache is None else self.cache[index]

    def instances(self, index: int) -> Target:
        """Return the target of the picture as `load` gives it."""
        return self.source.instances(self.indices[index])

    def truth(self, index: int) -> Instances:
        """Return the same objects to be drawn: boxes alone where the data have no masks."""
        target = self.instances(index)
        return Instances.of(target if self.has_masks else target | {"masks": None}, self.size_of(index))

    def point_of(self, index: int) -> tuple[int, int] | None:
        """Return (y, x) of the pixel in the middle of the largest box of `load`; None without a box."""
        boxes = self.instances(index)["boxes"]
        if not len(boxes):
            return None
        left, top, right, bottom = boxes[((boxes[:, 2:] - boxes[:, :2]).prod(1)).argmax()].tolist()
        return int((top + bottom) / 2), int((left + right) / 2)

    def ground_truth(self) -> dict[str, Any]:
        """Return the COCO file of exactly these images, with the ids of the file, to evaluate with.

        Crowds, and objects without area, are in it. Where `skip_broken` left annotations out or clipped
        boxes, it is the repaired file, and numbers may differ from those of the file itself.
        """
        return self.source.file.to_dict(self.indices)

    def cache_images(self, progress: Progress | None = None) -> None:
        """As its base has it; what is broken is left out if the configuration asks for it."""
        if self._cached:
            return
        if self.config.skip_broken:
            self.verify(progress)
        needed = sum(3 * height * width for height, width in map(self.size_of, range(len(self))))
        fits = self.config.cache == "auto" and needed <= self.config.cache_bytes
        if fits or self.config.cache == "memory":
            self.cache = fill_cache(self.load, len(self), None, f"reading {self.name}", progress)
            self.notes += self.source.choices.told()
        self._cached = True

    def verify(self, progress: Progress | None = None, at_most: int = VERIFIED) -> bool:
        """As its base has it; with `skip_broken` broken images are left out, and counted in `skipped`.

        So they are however many files there are: what is evaluated must not depend on when they were read.
        """
        if self._verified or self.cache is not None or isinstance(self.source, ShapesInstances):
            return True
        if len(self) > at_most and not self.config.skip_broken:
            return False
        kept = []
        for index in reported(self.indices, f"reading {self.name}", progress):
            try:
                self.source.load(index)
                kept.append(index)
            except DataError as error:
                if not self.config.skip_broken:
                    raise
                self.skipped.append(Problem("file", str(error), self.source.file.images[index].id))
        if not kept:
            raise DataError(f"{self.name}: none of the {len(self)} images can be read")
        if self.train and not self.source.annotated[kept].any():
            raise DataError(f"{self.name}: no image has annotations that can be used")
        self.indices, self._verified = kept, True
        self.notes += self.source.choices.told()
        return True

    def __getitem__(self, index: Key) -> tuple[Tensor, Target, int]:
        images, targets, indices = self.__getitems__([index])
        return images[0], targets[0], int(indices[0])

    def __getitems__(self, wanted: Sequence[Key]) -> DetectionBatch:
        """Return a whole batch.

        Args:
            wanted: B indices, or pairs (epoch, index).

        Returns:
            images uint8 (3, H, W) of sizes of their own, targets, indices int64 (B,).
        """
        pairs = [(0, key) if isinstance(key, int) else key for key in wanted]
        found = [self._example(*pair) for pair in pairs]
        images, targets = [image for image, _ in found], [target for _, target in found]
        return images, targets, torch.tensor([index for _, index in pairs])

    def _example(self, epoch: int, index: int) -> tuple[Tensor, Target]:
        if not self.train:
            return self.load(index), {"image_id": torch.tensor(self.image_id(index))}
        draws = uniform(DRAWS, self.seed, epoch, index)[0].tolist()
        window = choose_window(self.size_of(index), self.config, draws[:4])
        cached, place = self.cache, self.indices[index]
        picture = self.source.picture(place, window.reduction) if cached is None else cached[index]
        image = jitter_colors(window.image(picture), self.config.color_jitter, draws[4:])
        return image, self.source.instances(place, window)


@dataclass(frozen=True)
class DetectionSplits:
    """A detection data set opened for training.

    Attributes:
        train: augmented.
        val: from a file of its own, or held back from training, or (`val_is_train`) the training images.
        categories: ascending by id; category k is label k + 1.
        classes: their names.
        name: of the data set, for tables.
        held_back: whether `val` was split off from the training images.
    """

    train: DetectionDataset
    val: DetectionDataset
    categories: list[Category]
    classes: list[str]
    name: str
    held_back: bool = False

    def shared(self, progress: Progress | None = None) -> list[str]:
        """Return lines on images of a val file that train has, too, or nearly.

        Files are read for that; of more than `verify` reads only the paths are compared.
        """
        if self.held_back or self.val.config.val_is_train or isinstance(self.train.source, ShapesInstances):
            return []
        pictures = [(split.source, index) for split in (self.train, self.val) for index in split.indices]
        names = [source.name_of(index) for source, index in pictures]
        if len(pictures) > VERIFIED:
            paths = grouped([source.folder / source.file.images[index].file for source, index in pictures])
            return shared_with_train(names, len(self.train), (paths, paths))
        groups = _groups(pictures, f"comparing {self.name}", progress)
        return shared_with_train(names, len(self.train), groups)


def open_detection(
    config: DetectionDataConfig, seed: int = 0, categories: Sequence[Category] | None = None
) -> DetectionSplits:
    """Open the configured data; reads the annotations, decodes no image yet.

    Args:
        config: source and treatment.
        seed: of the augmentation; the same images are in the same split whatever it is.
        categories: of a network that is there already; by default those of the training data.

    Raises:
        DataError: one line naming what is missing or wrong: the first problem and how many there are (unless
            `skip_broken`), no annotated images, no validation images.
    """
    opened = open_generated(config) if config.source == "generated" else _coco(config, categories)
    (train_source, chosen, skipped), name = opened["train"], _name_of(config)
    notes: list[str] = []
    held_back = "val" not in opened and not config.val_is_train
    if held_back:
        chosen, held, notes = _hold_back(train_source, chosen, config.val_fraction, name)
        opened["val"] = (train_source, held, [])
    if not config.keep_empty:
        chosen = [index for index in chosen if train_source.annotated[index]]
    chosen = _limited(train_source, chosen, config.limit)
    if not train_source.annotated[chosen].any():
        raise DataError(f"{name} train: {nothing_usable(train_source.file)}")
    val = _val(*((train_source, chosen, []) if config.val_is_train else opened["val"]), config)
    train = DetectionDataset(train_source, chosen, config, train=True, seed=seed, name=f"{name} train")
    _tell(train, skipped)
    notes += crowd_notes(train_source.file)
    if config.source != "generated":
        parts = {id(source): (source.file, source.folder) for source, *_ in opened.values()}
        notes += unnamed_images([*parts.values()]).notes()
    train.notes += [*notes, *filter(None, [mirror_note(train.classes, config)])]
    return DetectionSplits(train, val, train.categories, train.classes, name, held_back)


def open_detection_split(
    config: DetectionDataConfig,
    split: str,
    seed: int = 0,
    categories: Sequence[Category] | None = None,
    progress: Progress | None = None,
) -> DetectionDataset:
    """Open one split to evaluate on, not augmented; with `skip_broken` every image is read at once.

    Args:
        config: source and treatment.
        split: "train", "val", or "test", the annotations of that name.
        seed: as for `open_detection`.
        categories: of the network, where they are known: they decide about labels, and validation data with
            annotations of their own are read without the training data.
        progress: called with what is being read, how many images are done and how many there are.

    Raises:
        DataError: as for `open_detection`; no such split, categories other than the network's.
    """
    if split not in ("train", "val", "test"):
        raise DataError(f"detection data have no split {split!r}, expected train, val or test")
    if split == "test":
        return _without_broken(_test(config, categories), progress)
    if categories is not None and split == "val" and not config.val_is_train and config.source != "generated":
        found = find_split_files(config, need_train=False)
        if "val" in found:
            source, chosen, problems = _opened(config, split, found["val"], categories)
            return _without_broken(_val(source, chosen, problems, config), progress)
    splits = open_detection(config, seed, categories)
    if categories is not None and list(categories) != splits.categories:  # of drawn images
        raise DataError(f"{splits.name}: other categories than the network's {len(categories)}")
    if split == "val":
        if splits.held_back:  # of the same file
            mirrored = mirror_note(splits.classes, config)
            splits.val.notes = [note for note in splits.train.notes if note != mirrored]
            splits.val.skipped = splits.train.skipped
        return _without_broken(splits.val, progress)
    train = splits.train
    dataset = DetectionDataset(train.source, train.indices, config, train=False, name=train.name)
    dataset.skipped, dataset.notes = train.skipped, train.notes
    return _without_broken(dataset, progress)


def _test(config: DetectionDataConfig, categories: Sequence[Category] | None) -> DetectionDataset:
    found = None if config.source == "generated" else find_test_files(config)
    if found is None:
        other = "data.val_annotations names another file to measure on"
        raise DataError(f"{_name_of(config)}: no test annotations such as instances_test.json; {other}")
    if categories is None:
        categories = _coco(config)["train"][0].file.categories
    return _val(*_opened(config, "test", found, categories), config, "test")


def _without_broken(data: DetectionDataset, progress: Progress | None) -> DetectionDataset:
    """Make its length and ground truth final before anybody asks for them."""
    if data.config.skip_broken:
        data.verify(progress)
    return data


Opened = tuple[CocoSource, list[int], list[Problem]]


def _name_of(config: DetectionDataConfig) -> str:
    if config.source == "generated":
        return f"generated shapes ({config.num_classes} classes)"
    return Path(str(config.root)).resolve().name or str(config.root)


def _coco(config: DetectionDataConfig, known: Sequence[Category] | None = None) -> dict[str, Opened]:
    opened: dict[str, Opened] = {}
    for split, files in find_split_files(config).items():
        if split == "train" or not config.val_is_train:
            opened[split] = _opened(config, split, files, known)
            known = known or opened[split][0].file.categories
    return opened


def _opened(
    config: DetectionDataConfig, split: str, files: SplitFiles, categories: Sequence[Category] | None
) -> Opened:
    file, folder, problems = read_split(files, Path(str(config.root)), categories)
    others = [problem for problem in problems if problem.kind == "categories"]
    if others and not config.skip_broken:  # nothing is broken, and leaving out would hardly help
        raise DataError(others[0].line)
    refuse(problems, config)
    gone = {problem.image_id for problem in problems if problem.kind == "file"}
    chosen = [index for index, image in enumerate(file.images) if image.id not in gone]
    source = CocoSource(file, folder, config.max_pixels)
    if split != "train" and chosen and not source.annotated[chosen].any():
        other = "data.val_is_train true measures on the training images"
        raise DataError(f"{file.name}: none of the {len(chosen)} images has objects to measure on; {other}")
    return source, chosen, problems


def _val(
    source: CocoSource, chosen: list[int], problems: list[Problem], config: DetectionDataConfig,
    split: str = "val",
) -> DetectionDataset:  # fmt: skip
    name = f"{_name_of(config)} {split}"
    chosen = _limited(source, chosen, config.limit_val)
    if not chosen:
        raise DataError(f"{name}: no images")
    dataset = DetectionDataset(source, chosen, config, train=False, name=name)
    _tell(dataset, problems)
    return dataset


def _tell(dataset: DetectionDataset, problems: Sequence[Problem]) -> None:
    """Keep with a data set what was wrong with its file; boxes that are clipped leave nothing out."""
    dataset.skipped = [problem for problem in problems if problem.kind not in ("clipped", "note")]
    dataset.notes = [problem.line for problem in problems if problem.kind in ("clipped", "note")]


def refuse(problems: Sequence[Problem], config: DetectionDataConfig) -> None:
    """Raise the first fatal problem, with the number of them, unless the configuration skips what is broken.

    Raises:
        DataError: one line.
    """
    fatal = [problem for problem in problems if problem.fatal]
    if fatal and not config.skip_broken:
        more = f" (and {len(fatal) - 1} more: see botvision check)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0].line}{more}; data.skip_broken true leaves out what is broken")


def open_generated(config: DetectionDataConfig) -> dict[str, Opened]:
    """Return sources of drawn shapes for "train" and "val", all of their images, and no problems."""
    opened: dict[str, Opened] = {}
    for split, count in (("train", config.num_images), ("val", config.num_val_images)):
        shapes = ShapesSource(
            config.generated_seed, split, count, config.num_classes, config.size, config.max_objects
        )
        opened[split] = (ShapesInstances(shapes), list(range(count)), [])
    return opened


def _hold_back(
    source: CocoSource, chosen: list[int], fraction: float, name: str
) -> tuple[list[int], list[int], list[str]]:
    """Split by a hash of the image ids: the same images whatever their order and the run's seed.

    Pictures that are the same, or nearly, stay together; among those held back is one with objects.
    """
    if not fraction:
        raise DataError(
            f"{name}: no validation annotations, expected some or data.val_fraction above 0 "
            "(or data.val_is_train true, which evaluates on the training images)"
        )
    if len(chosen) < 2:
        raise DataError(f"{name}: {len(chosen)} images, expected 2 or more to hold some back for validation")
    ids: npt.NDArray[np.int64] = np.array([source.file.images[index].id for index in chosen])
    count = min(len(chosen) - 1, max(1, round(fraction * len(chosen))))
    labels, notes = sides_of(name, _groups([(source, index) for index in chosen], f"comparing {name}"))
    order = np.argsort(keys(ids), kind="stable")
    groups = [np.flatnonzero(labels == label).tolist() for label in dict.fromkeys(labels[order].tolist())]
    if len(groups) == 1:
        raise DataError(f"{name}: all {len(chosen)} images are the same picture: none can be held back")
    held: set[int] = set()
    for group in groups:
        if len(held) + len(group) <= count:
            held.update(group)
    annotated = source.annotated[chosen]
    if not annotated[[*held]].any():  # nothing could be measured
        usable = [group for group in groups if 0 < annotated[group].sum() < annotated.sum()]
        if usable:
            held.update(min(usable, key=len))
        elif held:
            notes.append(f"{name}: none of the images held back has objects: AP is not measured")
        else:
            held.update(min(groups, key=lambda group: (annotated[group].any(), len(group))))
    rest = [index for place, index in enumerate(chosen) if place not in held]
    return rest, [index for place, index in enumerate(chosen) if place in held], notes


def _groups(
    pictures: Sequence[tuple[CocoSource, int]], label: str, progress: Progress | None = None
) -> Groups:
    """Pictures, those that are the same or nearly together."""
    paths = [source.folder / source.file.images[index].file for source, index in pictures]

    def read(place: int) -> Tensor | Image.Image:
        source, index = pictures[place]
        if progress is not None:
            progress(label, place + 1, len(pictures))
        return source.picture(index, SMALLER)

    return same_pictures(paths, read)


def _limited(source: CocoSource, chosen: list[int], limit: int | None) -> list[int]:
    """At most `limit` images: annotated ones, spread evenly over the file; then the others."""
    if limit is None or limit >= len(chosen):
        return chosen
    annotated = [index for index in chosen if source.annotated[index]]
    if len(annotated) < limit:
        empty = [index for index in chosen if not source.annotated[index]]
        return sorted(annotated + empty[: limit - len(annotated)])
    return [annotated[place * len(annotated) // limit] for place in range(limit)]
