"""What of a run depends on its task, as one object with the same methods for each."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from botvision.backbones.loading import LoadReport
from botvision.backbones.probe import evaluating
from botvision.config.run import AnyRunConfig
from botvision.config.schema import ConfigError
from botvision.data.cache import Progress
from botvision.data.loaders import BatchedDataset, Loader, build_loader
from botvision.io.errors import text_of

if TYPE_CHECKING:  # seconds that naming an evaluation's files need not wait for
    from lightning.fabric import Fabric

ADVICE = "lower optim.lr, lengthen optim.warmup_epochs or set optim.clip_norm"
# A fit of attention to convolutions reads so many training images of this many pixels, and no fewer than the
# least: more bring little (results/warm_start.md).
FIT_IMAGES, FIT_PIXELS, LEAST_FIT_IMAGES, FIT_BATCH = 256, 224 * 224, 32, 32


class DivergedError(ValueError):
    """Loss, weights or outputs are no longer finite; the message is one line."""


class Splits(Protocol):
    """Images to train on and images to measure on."""

    @property
    def train(self) -> BatchedDataset: ...

    @property
    def val(self) -> BatchedDataset: ...

    @property
    def classes(self) -> list[str]: ...

    @property
    def name(self) -> str: ...

    @property
    def held_back(self) -> bool: ...

    def shared(self, progress: Progress | None = None) -> list[str]:
        """Return lines on images that are both trained and measured on."""
        ...


class Outcome(Protocol):
    """What a network is worth on the images of a split."""

    @property
    def score(self) -> float:
        """The number by which epochs are compared, higher is better."""
        ...

    def numbers(self) -> dict[str, float]:
        """Return what metrics.csv holds of it, by name; NaN where there is no such number."""
        ...

    def headline(self) -> str:
        """Return the numbers that count, in half a line."""
        ...


class Measurement(Protocol):
    """What a network says of the images of a split."""

    def update(self, model: nn.Module, batch: Any) -> None:  # noqa: ANN401
        """Add a batch. Raises DivergedError where the network's outputs cannot be used."""
        ...

    def result(self) -> Outcome:
        """Return what it is worth. Raises DivergedError for outputs that are not finite."""
        ...


C = TypeVar("C", bound=AnyRunConfig)
S = TypeVar("S", bound=Splits)
D = TypeVar("D", bound=BatchedDataset)
M = TypeVar("M", bound=Measurement)


class Task(ABC, Generic[C, S, D, M]):
    """Classification or detection, by a configuration C on splits S of data sets D, measured by M.

    A batch is images, targets, and the indices int64 (B,) of the images.

    Args:
        config: of the run.

    Attributes:
        columns: of metrics.csv between train_loss and lr: the outcome's numbers, each after "val_".
        parts: of the loss, columns of steps.csv.
        picture: name, without suffix, of the picture of an evaluation.
        drop_last: whether training leaves out the images that fill no batch, others in each epoch.
        same_sizes: whether every step has tensors of the same sizes, so that tuning convolutions pays.
    """

    columns: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]] = ()
    picture: ClassVar[str]
    same_sizes: ClassVar[bool] = True
    drop_last: ClassVar[bool] = True

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def open(self) -> S:
        """Open the data. Raises DataError."""

    @abstractmethod
    def build(self, splits: S, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Build the network, with random weights or these.

        Raises:
            ValueError: or what else the network's builder raises for arguments that do not fit.
        """

    @abstractmethod
    def warm_start(
        self, model: nn.Module, source: Path | Mapping[str, Tensor], splits: S, progress: Progress
    ) -> LoadReport:
        """Load the weights that fit; attention begins as `model.warm_start` says."""

    @abstractmethod
    def probe(self, model: nn.Module, splits: S) -> None:
        """Run one black image through. Raises ConfigError unless sizes and outputs are right."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, data: D) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ANN401
        """Return the mean loss () of a batch of training data, and its parts by name."""

    @abstractmethod
    def measurement(self, data: D) -> M:
        """Return what collects a network's outputs on a split."""

    @abstractmethod
    def epoch_text(self, row: Mapping[str, float]) -> str:
        """Say in half a line what a row of metrics.csv holds of the validation."""

    @abstractmethod
    def export(self, model: nn.Module, folder: Path, splits: S) -> None:
        """Write weights and their description, from which `load` and the predictors rebuild the network."""

    @abstractmethod
    def load(self, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network of such a folder and its description."""

    @abstractmethod
    def open_split(self, split: str, description: Mapping[str, Any], progress: Progress | None) -> D:
        """Open one split of data that fit the described network. Raises DataError."""

    @abstractmethod
    def write(self, found: M, files: tuple[Path, Path], split: str) -> Outcome:
        """Write table and picture of a measurement, and beside them what was said of each image."""

    @abstractmethod
    def finish(self, folder: Path, splits: S, model: nn.Module, outcome: Any) -> dict[str, Any]:  # noqa: ANN401
        """Draw what a finished run shows beside its evaluation; return the task's part of summary.json."""

    def loader(self, data: D, train: bool, fabric: "Fabric") -> Loader:
        """Return batches of a split: this process's share to train on, or all to measure on.

        Every process measures all images, so that all decide alike which epoch is the best and the last.
        """
        return build_loader(
            data,
            self.config.train.batch,
            train=train,
            seed=self.config.train.seed,
            num_workers=self.config.data.num_workers,
            drop_last=train and self.drop_last,
            pin_memory=fabric.device.type == "cuda",
            share=(fabric.global_rank, fabric.world_size),
        )

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which the network runs in the run's precision.

        It keeps no casted weights: the gradients of a weight that is used several times add up in float32.
        """
        mixed = self.config.train.precision == "bf16-mixed"
        return torch.autocast(device.type, torch.bfloat16, enabled=mixed, cache_enabled=False)

    def place(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return the network on a device, in the run's memory layout."""
        layout = torch.channels_last if self.config.train.channels_last else torch.contiguous_format
        return model.to(device, memory_format=layout)  # pyrefly: ignore[no-matching-overload]

    @torch.inference_mode()
    def measure(
        self,
        model: nn.Module,
        loader: Loader,
        fabric: "Fabric",
        progress: Progress | None = None,
        label: str = "evaluating",
    ) -> M:
        """Show the network, which is placed, all images of a loader.

        After an epoch as for a finished run: the same order, batches and precision give the same numbers.
        """
        model.eval()
        data: Any = loader.dataset
        found, done = self.measurement(data), 0
        for batch in loader:
            with self.autocast(fabric.device):
                found.update(model, fabric.to_device(batch))
            done += len(batch[2])
            if progress is not None:
                progress(label, done, len(data))
        return found


AnyTask = Task[Any, Any, Any, Any]


def check_batch_of_one(network: nn.Module, hw: Sequence[int], instead: str = "") -> None:
    """Refuse to train on single images where batch norm has nothing to average over in a map of one cell.

    Raises:
        ConfigError: with the sides of the images, and what does as well as a larger batch.
    """
    try:
        copy.deepcopy(network).train()(torch.zeros(1, 3, *hw))
    except ValueError as error:
        raise ConfigError(
            f"train.batch_size: a batch of 1 is too few for batch norm on images of {hw[0]}x{hw[1]} "
            f"({text_of(error)}), expected 2 or more{instead}"
        ) from None


def outputs_of(model: nn.Module, images: Tensor | list[Tensor], name: str) -> Any:  # noqa: ANN401
    """Return what a network says in eval mode. Raises ConfigError, with its name, where it cannot."""
    try:
        with evaluating(model):
            return model(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = images[0].shape[1:]
        reason = text_of(error) if str(error) else "it was made for others"  # as timm's assertions say it
        raise ConfigError(f"{name} cannot run on images of {height}x{width}: {reason}") from None


def fit_indices(images: int, size: tuple[int, int]) -> list[int]:
    """Return which of so many training images of (height, width) pixels a warm start is fitted to."""
    most = min(FIT_IMAGES, max(LEAST_FIT_IMAGES, FIT_IMAGES * FIT_PIXELS // (size[0] * size[1])), images)
    return [number * images // most for number in range(most)]
