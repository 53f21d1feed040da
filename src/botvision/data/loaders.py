"""Batches in an order that can be resumed in the middle of an epoch, bit for bit.

The order of epoch e is a function of (seed, e), the augmentation of image i one of (seed, e, i). The sampler
hands out pairs (epoch, index), so worker processes need no other news of the epoch, and it makes no
difference how many there are.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from botvision.data.cache import Progress
from botvision.io.errors import DataError


class BatchedDataset(Protocol):
    """A data set that makes whole batches itself."""

    @property
    def name(self) -> str: ...

    @property
    def placed(self) -> bool: ...

    def __len__(self) -> int: ...

    def prepare(self, progress: Progress | None = None) -> None: ...

    def __getitems__(self, wanted: Sequence[int | tuple[int, int]]) -> Any: ...  # noqa: ANN401


class ResumableSampler(Sampler[tuple[int, int]]):
    """Pairs (epoch, index); state {"epoch", "done", "length"}, the same on every rank.

    Every pass starts at its beginning, unless a state was loaded just before. A completed pass moves on to
    the next epoch; `set_epoch` (called by Lightning) says the same explicitly.
    """

    def __init__(
        self, length: int, *, seed: int, shuffle: bool, multiple: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        """Split `length` images over the ranks.

        Args:
            length: images in the data set.
            seed: of the order.
            shuffle: False gives 0, 1, 2, ... in every epoch, and every image exactly once over all ranks.
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
        if shuffle:  # equally many on every rank, or ranks would wait for each other's gradients
            self._mine = length // world_size // multiple * multiple
        else:
            self._mine = (length - rank + world_size - 1) // world_size
        self.epoch = 0
        self.done = 0
        self._resumed = False

    def __len__(self) -> int:
        return self._mine

    def order(self, epoch: int) -> list[int]:
        """This rank's indices in the given epoch."""
        if not self.shuffle:
            return list(range(self.rank, self.length, self.world_size))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        whole = torch.randperm(self.length, generator=generator)
        return whole[self.rank :: self.world_size][: self._mine].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the epoch under way, or resumed, is left as it is."""
        if epoch != self.epoch or self.done >= self._mine:
            self.epoch, self.done, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Where the pass stands."""
        return {"epoch": self.epoch, "done": self.done, "length": self.length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue there with the next pass.

        Raises:
            DataError: one line, if the state belongs to a data set of another length.
        """
        if state["length"] != self.length:
            raise DataError(
                f"cannot resume: the checkpoint's data have {state['length']} images, these {self.length}"
            )
        self.epoch, self.done = state["epoch"], state["done"]
        if self.done >= self._mine:
            self.epoch, self.done = self.epoch + 1, 0
        self._resumed = True

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if not self._resumed:
            self.epoch += self.done >= self._mine
            self.done = 0
        self._resumed = False
        epoch, start = self.epoch, self.done
        for index in self.order(epoch)[start:]:
            self.done += 1
            yield epoch, index


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
    rank: int = 0,
    world_size: int = 1,
) -> StatefulDataLoader[Any]:
    """Batches as the data set makes them: images, targets, indices int64 (B,).

    Images that fit are decoded into memory first (`prepare`; call it before to see its progress).
    `state_dict()` / `load_state_dict()` of the loader continue in the middle of an epoch.

    Args:
        dataset: from `open_splits` or `open_detection`.
        batch_size: images a batch and rank.
        train: shuffle.
        seed: of the order (the augmentation's is the data set's).
        num_workers: processes, at most as many as there are cores; 0 loads in this one.
        drop_last: leave out the last, smaller batch; by default in training only.
        rank: of this process.
        world_size: number of processes.

    Raises:
        DataError: one line, if there are fewer training images than one batch needs, or one is broken.
    """
    drop_last = train if drop_last is None else drop_last
    dataset.prepare()
    if train and drop_last and len(dataset) < batch_size * world_size:
        raise DataError(
            f"{dataset.name}: {len(dataset)} images, expected a batch of {batch_size} x {world_size} or more"
        )
    num_workers = min(num_workers, _cores())  # the batches are the same, and more would slow each other down
    multiple = batch_size if drop_last else 1
    sampler = ResumableSampler(
        len(dataset), seed=seed, shuffle=train, multiple=multiple, rank=rank, world_size=world_size
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata 0.11 on torch 2.15
        return StatefulDataLoader(
            dataset,  # pyrefly: ignore[bad-argument-type]  asks for torch's class, uses the methods above
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=_as_is,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available() and not dataset.placed,
            generator=torch.Generator(),  # or every pass would draw a base seed from the global one
            persistent_workers=num_workers > 0,
        )
