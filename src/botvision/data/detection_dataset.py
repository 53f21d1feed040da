"""Images with instances, as a detector takes them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from botvision.coco.annotations import Category
from botvision.coco.problems import Problem
from botvision.config.data import DetectionDataConfig
from botvision.data.cache import ImageCache, Progress, fill_cache
from botvision.data.counter_rng import uniform
from botvision.data.detection_sources import CocoSource, ShapesInstances, Target
from botvision.data.detection_transforms import DRAWS, choose_view, jitter_colors
from botvision.io.errors import DataError

VERIFIED = 20_000  # about two minutes of photographs on one core
VERIFY_REPORTS = 100

Key = int | tuple[int, int]
DetectionBatch = tuple[list[Tensor], list[Target], Tensor]
"""Images uint8 (3, H, W) of any sizes, their targets, indices int64 (B,)."""


class DetectionDataset(Dataset[Any]):
    """Images and their instances, as a detector takes them.

    A target is {"boxes": float32 (n, 4) xyxy in pixels of the image tensor, "labels": int64 (n,) in 1..K,
    "masks": uint8 (n, H, W), "image_id": int64 ()}; n may be 0, crowds and what has no area are not in it. In
    training images are views (at most `config.size`, not padded) that depend on (seed, epoch, index) alone.
    Otherwise they are as annotated, and targets in batches hold "image_id" alone: evaluation compares with
    `ground_truth`, and `instances` has the masks of the images that are looked at.

    With `config.skip_broken` images that cannot be read are left out by `prepare` and `verify`,
    the same ones whichever comes first; lengths and indices are final after that.

    Attributes:
        name: data set and split, for messages and tables.
        categories: ascending by id; category k is label k + 1.
        skipped: problems for which images or annotations were left out.
        notes: lines on what training does, or had better do, with these data.
        placed: batches are made in this process's memory, on no device.
    """

    placed = False

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
        self.categories: list[Category] = list(source.categories)
        self.skipped: list[Problem] = []
        self.notes: list[str] = []
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
        """Return the file and the image id."""
        return self.source.name_of(self.indices[index])

    def image_id(self, index: int) -> int:
        """Return the id that the annotations give the image."""
        return self.source.image(self.indices[index]).id

    def size_of(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image as annotated."""
        image = self.source.image(self.indices[index])
        return image.height, image.width

    def load(self, index: int) -> Tensor:
        """Return the picture the way up in which it is annotated, uint8 (3, H, W)."""
        return self.source.load(self.indices[index]) if self._cache is None else self._cache[index]

    def instances(self, index: int) -> Target:
        """Return the target of the picture as `load` gives it."""
        target = self.source.instances(self.indices[index])
        target["image_id"] = torch.tensor(self.image_id(index))
        return target

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
        return self.source.ground_truth(self.indices)

    @property
    def cached_bytes(self) -> int:
        """Memory that decoded images take."""
        return 0 if self._cache is None else self._cache.nbytes

    def prepare(self, progress: Progress | None = None) -> None:
        """Leave out what is broken, if the configuration asks for it, and decode into memory what it allows.

        The second call does nothing.

        Raises:
            DataError: one line with the name of the first image that is broken.
        """
        if self._prepared:
            return
        if self.config.skip_broken:
            self.verify(progress)
        needed = sum(3 * height * width for height, width in map(self.size_of, range(len(self))))
        fits = self.config.cache == "auto" and needed <= self.config.cache_bytes
        if fits or self.config.cache == "memory":
            self._cache = fill_cache(self.load, len(self), None, f"reading {self.name}", progress)
        self._prepared = True

    def verify(self, progress: Progress | None = None, at_most: int = VERIFIED) -> bool:
        """Read every image once, unless it was done: a broken one is found before the first step.

        With `skip_broken` such images are left out of the data set and counted in `skipped`, however many
        files there are: what is evaluated must not depend on when they were read.

        Returns:
            False if that would take too long: files that are not cached and more than `at_most`.

        Raises:
            DataError: one line with the name of the first image that is broken.
        """
        if self._verified or self._cache is not None or isinstance(self.source, ShapesInstances):
            return True
        if len(self) > at_most and not self.config.skip_broken:
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
        if self.train and not self.source.annotated[kept].any():
            raise DataError(f"{self.name}: no image has annotations that can be used")
        self.indices, self._verified = kept, True
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
        found = [self._training(*pair) if self.train else self._as_is(pair[1]) for pair in pairs]
        images, targets = [image for image, _ in found], [target for _, target in found]
        return images, targets, torch.tensor([index for _, index in pairs])

    def _as_is(self, index: int) -> tuple[Tensor, Target]:
        return self.load(index), {"image_id": torch.tensor(self.image_id(index))}

    def _training(self, epoch: int, index: int) -> tuple[Tensor, Target]:
        draws = uniform(DRAWS, self.seed, epoch, index)[0].tolist()
        view = choose_view(self.size_of(index), self.config, draws[:4])
        cached, place = self._cache, self.indices[index]
        picture = self.source.picture(place, view.reduction) if cached is None else cached[index]
        image = jitter_colors(view.image(picture), self.config.color_jitter, draws[4:])
        target = self.source.instances(place, view)
        target["image_id"] = torch.tensor(self.image_id(index))
        return image, target
