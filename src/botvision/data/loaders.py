"""Batches in an order that can be taken up in the middle of an epoch, bit for bit.

The order of epoch e is a function of (seed, e), the augmentation of image i one of (seed, e, i). The sampler
hands out pairs (epoch, index), so worker processes need no other news of the epoch, and it makes no
difference how many there are.
"""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from botvision.coco.problems import Problem
from botvision.data.cache import ImageCache, Progress
from botvision.io.errors import DataError

VERIFIED = 20_000  # about two minutes of photographs on one core


class BatchedDataset(Dataset[Any], ABC):
    """Images that are handed out in whole batches.

    Attributes:
        name: data set and split, for messages and tables.
        placed: whether batches are made on a device, so that there is nothing to send.
        cache: the images, decoded, if `cache_images` has put them into memory.
        notes: lines on what training does, or had better do, with these data.
        skipped: problems for which images or annotations were left out.
    """

    name: str
    placed: bool = False
    cache: ImageCache | None = None
    notes: list[str]
    skipped: list[Problem]

    @property
    def passed_over(self) -> list[str]:
        """A line on the problems for which something was left out, if there are any."""
        if not self.skipped:
            return []
        count = "1 problem" if len(self.skipped) == 1 else f"{len(self.skipped)} problems"
        return [f"{self.name}: {count} passed over, the first: {self.skipped[0].line}"]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, wanted: Sequence[int | tuple[int, int]]) -> Any:  # noqa: ANN401
        """Return the batch of some indices, or pairs (epoch, index)."""

    @abstractmethod
    def name_of(self, index: int) -> str:
        """Return what messages call an image."""

    @abstractmethod
    def cache_images(self, progress: Progress | None = None) -> None:
        """Decode the images into memory if the configuration allows it; the second call does nothing.

        Raises:
            DataError: one line with the name of the first image that is broken.
        """

    @abstractmethod
    def verify(self, progress: Progress | None = None, at_most: int = VERIFIED) -> bool:
        """Read every image once, unless it was done: a broken one is found before the first step.

        Returns:
            False if that would take too long: files that are not cached and more than `at_most`.

        Raises:
            DataError: one line with the name of the first image that is broken.
        """


class EpochSampler(Sampler[tuple[int, int]]):
    """Pairs (epoch, index) of one epoch, from any of them on.

    Attributes:
        epoch: that the next pass is of.
        done: pairs that the next pass leaves out at its beginning.
    """

    def __init__(
        self, length: int, *, seed: int, shuffle: bool, multiple: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        """Take what decides about the order.

        Args:
            length: images in the data set.
            seed: of the order.
            shuffle: split them anew in every epoch; False gives 0, 1, 2, ... to every rank.
            multiple: with `shuffle`, images a rank sees in an epoch are a multiple of this (full batches).
            rank: of this process.
            world_size: number of processes.

        Raises:
            ValueError: if `rank` is not one of 0..world_size - 1.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} does not exist, expected 0..{world_size - 1}")
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world_size = rank, world_size
        # equally many on every rank, or ranks would wait for each other's gradients
        self._mine = length // world_size // multiple * multiple if shuffle else length
        self.epoch = self.done = 0

    def __len__(self) -> int:
        return self._mine  # of a whole epoch

    def order(self, epoch: int) -> list[int]:
        """Return this rank's indices in the given epoch."""
        if not self.shuffle:
            return list(range(self.length))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        whole = torch.randperm(self.length, generator=generator)
        return whole[self.rank :: self.world_size][: self._mine].tolist()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        for index in self.order(epoch)[self.done :]:
            yield epoch, index


class Loader(DataLoader[Any]):
    """Batches as the data set makes them: images, targets, indices int64 (B,).

    A plain pass is one of epoch 0, or of the epoch asked for last, with the same batches left out.
    """

    # as `build_loader` makes it
    sampler: EpochSampler  # pyrefly: ignore[bad-override-mutable-attribute]
    batch_size: int  # pyrefly: ignore[bad-override-mutable-attribute]

    def epoch(self, number: int, done: int = 0) -> Iterator[Any]:
        """Return the batches of an epoch (0 is the first) that come after `done` of them."""
        self.sampler.epoch, self.sampler.done = number, done * self.batch_size
        return iter(self)


def _leave_signals_to_parent(_: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the one that trains ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _as_is(batch: Any) -> Any:  # noqa: ANN401  the data set's batches are finished; there is nothing to collate
    return batch


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build_loader(
    dataset: BatchedDataset,
    batch_size: int,
    *,
    train: bool,
    seed: int,
    num_workers: int = 0,
    drop_last: bool | None = None,
    pin_memory: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Loader:
    """Return a loader of a data set; images that fit are decoded into memory first.

    Args:
        dataset: from `open_splits` or `open_detection`; call its `cache_images` before to see the progress.
        batch_size: images a batch and rank.
        train: shuffle.
        seed: of the order (the augmentation's is the data set's).
        num_workers: processes, at most as many as there are cores; 0 loads in this one.
        drop_last: leave out the last, smaller batch; by default in training only.
        pin_memory: batches lie where a GPU reads them faster; not if the data set has placed them there.
        share: rank of this process, and number of processes.

    Raises:
        DataError: one line, if there are fewer training images than one batch needs, or one is broken.
    """
    drop_last = train if drop_last is None else drop_last
    rank, world_size = share
    dataset.cache_images()
    if train and drop_last and len(dataset) < batch_size * world_size:
        raise DataError(
            f"{dataset.name}: {len(dataset)} images, expected a batch of {batch_size} x {world_size} or more"
        )
    num_workers = min(num_workers, _cores())  # the batches are the same, and more would slow each other down
    multiple = batch_size if drop_last else 1
    sampler = EpochSampler(
        len(dataset), seed=seed, shuffle=train, multiple=multiple, rank=rank, world_size=world_size
    )
    return Loader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_as_is,
        drop_last=drop_last,
        pin_memory=pin_memory and not dataset.placed,
        generator=torch.Generator(),  # or every pass would draw a base seed from the global one
        persistent_workers=num_workers > 0,
        worker_init_fn=_leave_signals_to_parent,
    )
