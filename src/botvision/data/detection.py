"""Images with instances: a configuration to data sets for training and validation of detectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from botvision.data.cache import ImageCache, Progress, fill_cache
from botvision.data.coco import Category, Problem
from botvision.data.detection_config import DetectionDataConfig
from botvision.data.detection_files import find_split_files, read_split
from botvision.data.detection_sources import CocoSource, ShapesInstances, Target
from botvision.data.detection_transforms import DRAWS, choose_view, jitter_colors
from botvision.data.draws import keys, uniform
from botvision.data.errors import DataError
from botvision.data.shapes import ShapesSource

__all__ = [
    "DetectionBatch", "DetectionDataConfig", "DetectionDataset", "DetectionSplits", "open_detection",
    "open_detection_split",
]  # fmt: skip

VERIFIED = 20_000  # about two minutes of photographs on one core
VERIFY_REPORTS = 100

Key = int | tuple[int, int]
DetectionBatch = tuple[list[Tensor], list[Target], Tensor]
"""Images uint8 (3, H, W) of any sizes, their targets, indices int64 (B,)."""


class DetectionDataset(Dataset[Any]):
    """Images and their instances, as a detector takes them.

    A target is {"boxes": float32 (n, 4) xyxy in pixels of the image tensor, "labels": int64 (n,) in 1..K,
    "masks": uint8 (n, H, W), "image_id": int64 ()}; n may be 0, crowds are not in it. In training images are
    views (at most `config.size`, not padded) that depend on (seed, epoch, index) alone; otherwise they are as
    annotated.

    Attributes:
        name: data set and split, for messages and tables.
        categories: ascending by id; category k is label k + 1.
        skipped: problems for which images or annotations were left out.
    """

    def __init__(
        self, source: CocoSource, indices: Sequence[int], config: DetectionDataConfig, *,
        train: bool, seed: int = 0, name: str = "images",
    ) -> None:  # fmt: skip
        """Take the parts; :func:`open_detection` has them.

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
        self.categories: list[Category] = list(source.categories)
        self.skipped: list[Problem] = []
        self._cache: ImageCache | None = None
        self._prepared = self._verified = False

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def classes(self) -> list[str]:
        """Names of the categories (K), in the order of the labels 1..K."""
        return [category.name for category in self.categories]

    @property
    def has_masks(self) -> bool:
        """Whether instances have masks; without, those of the targets are full boxes."""
        return self.source.has_masks

    def name_of(self, index: int) -> str:
        """File and image id."""
        return self.source.name_of(self.indices[index])

    def image_id(self, index: int) -> int:
        """The id that the annotations give the image."""
        return self.source.image(self.indices[index]).id

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width) of the image as annotated."""
        image = self.source.image(self.indices[index])
        return image.height, image.width

    def load(self, index: int) -> Tensor:
        """The picture the way up in which it is annotated, uint8 (3, H, W)."""
        return self.source.load(self.indices[index]) if self._cache is None else self._cache[index]

    def instances(self, index: int) -> Target:
        """The target of the picture as :meth:`load` gives it."""
        target = self.source.instances(self.indices[index])
        target["image_id"] = torch.tensor(self.image_id(index))
        return target

    def ground_truth(self) -> dict[str, Any]:
        """The COCO file of exactly these images, crowds included, with the ids of the files."""
        return self.source.ground_truth(self.indices)

    @property
    def cached_bytes(self) -> int:
        """Memory that decoded images take."""
        return 0 if self._cache is None else self._cache.nbytes

    def prepare(self, progress: Progress | None = None) -> None:
        """Decode the images into memory if the configuration allows it; the second call does nothing.

        Raises:
            DataError: one line with the name of the first image that is broken.
        """
        if self._prepared or self.config.cache == "none":
            return
        needed = sum(3 * height * width for height, width in map(self.size_of, range(len(self))))
        if self.config.cache == "memory" or needed <= self.config.cache_bytes:
            if self.config.skip_broken:
                self.verify(progress)
            self._cache = fill_cache(self.load, len(self), None, f"reading {self.name}", progress)
        self._prepared = True

    def verify(self, progress: Progress | None = None, at_most: int = VERIFIED) -> bool:
        """Read every image once, unless it was done: a broken one is found before the first step.

        With `skip_broken` such images are left out of the data set and counted in `skipped`.

        Returns:
            False if that would take too long: files that are not cached and more than `at_most`.

        Raises:
            DataError: one line with the name of the first image that is broken.
        """
        if self._verified or self._cache is not None or isinstance(self.source, ShapesInstances):
            return True
        if len(self) > at_most:
            return False
        kept = []
        for place, index in enumerate(self.indices):
            try:
                self.source.load(index)
                kept.append(index)
            except DataError as error:
                if not self.config.skip_broken:
                    raise
                self.skipped.append(Problem("file", str(error), self.source.image(index).id))
            if progress is not None and ((place + 1) % VERIFY_REPORTS == 0 or place + 1 == len(self)):
                progress(f"reading {self.name}", place + 1, len(self))
        if not kept:
            raise DataError(f"{self.name}: none of the {len(self)} images can be read")
        self.indices, self._verified = kept, True
        return True

    def __getitem__(self, index: Key) -> tuple[Tensor, Target, int]:
        images, targets, indices = self.__getitems__([index])
        return images[0], targets[0], int(indices[0])

    def __getitems__(self, wanted: Sequence[Key]) -> DetectionBatch:
        """A whole batch.

        Args:
            wanted: B indices, or pairs (epoch, index).

        Returns:
            images uint8 (3, H, W) of sizes of their own, targets, indices int64 (B,).
        """
        pairs = [(0, key) if isinstance(key, int) else key for key in wanted]
        found = [self._training(*pair) if self.train else self._as_is(pair[1]) for pair in pairs]
        images, targets = [image for image, _ in found], [target for _, target in found]
        return images, targets, torch.tensor([index for _, index in pairs])

    def _as_is(self, index: int) -> tuple[Tensor, Target]:
        return self.load(index), self.instances(index)

    def _training(self, epoch: int, index: int) -> tuple[Tensor, Target]:
        draws = uniform(DRAWS, self.seed, epoch, index)[0].tolist()
        view = choose_view(self.size_of(index), self.config, draws[:4])
        image = jitter_colors(view.image(self.load(index)), self.config.color_jitter, draws[4:])
        target = self.source.instances(self.indices[index], view)
        target["image_id"] = torch.tensor(self.image_id(index))
        return image, target


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


def open_detection(config: DetectionDataConfig, seed: int = 0) -> DetectionSplits:
    """Open the configured data; reads the annotations, decodes no image yet.

    Args:
        config: source and treatment.
        seed: of the augmentation; the same images are in the same split whatever it is.

    Raises:
        DataError: one line naming what is missing or wrong: the first problem and how many there are (unless
            `skip_broken`), no annotated images, no validation images.
    """
    opened = _generated(config) if resolve_detection(config) == "generated" else _coco(config)
    (train_source, chosen, skipped), name = opened["train"], _name_of(config)
    held_back = "val" not in opened and not config.val_is_train
    if held_back:
        chosen, held = _hold_back(train_source, chosen, config.val_fraction, name)
        opened["val"] = (train_source, held, [])
    if not config.keep_empty:
        chosen = [index for index in chosen if train_source.annotated[index]]
    chosen = _limited(train_source, chosen, config.limit)
    if not train_source.annotated[chosen].any():
        raise DataError(f"{name} train: no image has annotations that can be used")
    val_source, val_chosen, val_skipped = (train_source, chosen, []) if config.val_is_train else opened["val"]
    val_chosen = _limited(val_source, val_chosen, config.limit_val)
    if not val_chosen:
        raise DataError(f"{name} val: no images")
    train = DetectionDataset(train_source, chosen, config, train=True, seed=seed, name=f"{name} train")
    val = DetectionDataset(val_source, val_chosen, config, train=False, name=f"{name} val")
    train.skipped, val.skipped = list(skipped), list(val_skipped)
    return DetectionSplits(train, val, train.categories, train.classes, name, held_back)


def open_detection_split(config: DetectionDataConfig, split: str, seed: int = 0) -> DetectionDataset:
    """Open one split to evaluate on, "train" or "val", not augmented.

    Raises:
        DataError: as for :func:`open_detection`; no such split.
    """
    if split not in ("train", "val"):
        raise DataError(f"detection data have no split {split!r}, expected train or val")
    splits = open_detection(config, seed)
    if split == "val":
        return splits.val
    train = splits.train
    dataset = DetectionDataset(train.source, train.indices, config, train=False, name=train.name)
    dataset.skipped = train.skipped
    return dataset


def resolve_detection(config: DetectionDataConfig) -> str:
    """The source that "auto" stands for."""
    if config.source == "auto" and config.root is None:
        raise DataError(
            "data.root is not set, expected a folder with COCO annotations "
            "(or data.source=generated, which needs none)"
        )
    return "coco" if config.source == "auto" else config.source


Opened = tuple[CocoSource, list[int], list[Problem]]


def _name_of(config: DetectionDataConfig) -> str:
    if config.source == "generated":
        return f"generated shapes ({config.num_classes} classes)"
    return Path(str(config.root)).resolve().name or str(config.root)


def _coco(config: DetectionDataConfig) -> dict[str, Opened]:
    root, opened = Path(str(config.root)), {}
    train = None
    for split, files in find_split_files(config).items():
        if split == "val" and config.val_is_train:
            continue
        file, folder, problems = read_split(files, root, train)
        train = file if train is None else train
        refuse(problems, config)
        gone = {problem.image_id for problem in problems if problem.kind == "file"}
        chosen = [index for index, image in enumerate(file.images) if image.id not in gone]
        opened[split] = (CocoSource(file, folder), chosen, problems)
    return opened


def refuse(problems: Sequence[Problem], config: DetectionDataConfig) -> None:
    """Raise the first fatal problem, with the number of them, unless the configuration skips what is broken.

    Raises:
        DataError: one line.
    """
    fatal = [problem for problem in problems if problem.fatal]
    if fatal and not config.skip_broken:
        more = f" (and {len(fatal) - 1} more: see botvision check)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0].line}{more}; data.skip_broken=true leaves out what is broken")


def _generated(config: DetectionDataConfig) -> dict[str, Opened]:
    opened: dict[str, Opened] = {}
    for split, count in (("train", config.num_images), ("val", config.num_val_images)):
        shapes = ShapesSource(
            config.generated_seed, split, count, config.num_classes, config.size, config.max_objects
        )
        opened[split] = (ShapesInstances(shapes), list(range(count)), [])
    return opened


def _hold_back(
    source: CocoSource, chosen: list[int], fraction: float, name: str
) -> tuple[list[int], list[int]]:
    """Split by a hash of the image ids: the same images whatever their order and the run's seed."""
    if not fraction:
        raise DataError(
            f"{name}: no validation annotations, expected some or data.val_fraction above 0 "
            "(or data.val_is_train=true, which evaluates on the training images)"
        )
    if len(chosen) < 2:
        raise DataError(f"{name}: {len(chosen)} images, expected 2 or more to hold some back for validation")
    ids: npt.NDArray[np.int64] = np.array([source.image(index).id for index in chosen])
    count = min(len(chosen) - 1, max(1, round(fraction * len(chosen))))
    held = set(np.argsort(keys(ids), kind="stable")[:count].tolist())
    rest = [index for place, index in enumerate(chosen) if place not in held]
    return rest, [index for place, index in enumerate(chosen) if place in held]


def _limited(source: CocoSource, chosen: list[int], limit: int | None) -> list[int]:
    """At most `limit` images: annotated ones, spread evenly over the file; then the others."""
    if limit is None or limit >= len(chosen):
        return chosen
    annotated = [index for index in chosen if source.annotated[index]]
    if len(annotated) < limit:
        empty = [index for index in chosen if not source.annotated[index]]
        return sorted(annotated + empty[: limit - len(annotated)])
    return [annotated[place * len(annotated) // limit] for place in range(limit)]
