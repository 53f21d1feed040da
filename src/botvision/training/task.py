"""What of a run depends on its task, as one object with the same methods for each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from botvision.attention.ablation import Replaced
from botvision.backbones.weights import LoadReport
from botvision.config.run import AnyRunConfig, DetectionRunConfig
from botvision.config.schema import ConfigError
from botvision.data.cache import Progress
from botvision.data.loaders import BatchedDataset, build_loader
from botvision.training.learner import Learner
from botvision.training.optim import Schedule


class Dataset(BatchedDataset, Protocol):
    """Images of one split."""

    def name_of(self, index: int) -> str:
        """Name of an image, for errors."""
        ...

    def verify(self, progress: Progress | None = None) -> bool:
        """Reads every image once, or says False where that would take too long."""
        ...


class Splits(Protocol):
    """Images to train on and images to measure on."""

    @property
    def train(self) -> Dataset: ...

    @property
    def val(self) -> Dataset: ...

    @property
    def classes(self) -> list[str]: ...

    @property
    def name(self) -> str: ...


class Outcome(Protocol):
    """The measured result of a finished run."""

    def headline(self) -> str:
        """The numbers that count, in half a line."""
        ...


# A fit of attention to convolutions reads so many training images of this many pixels, and no fewer than the
# least: more bring little (results/warm_start.md).
FIT_IMAGES, FIT_PIXELS, LEAST_FIT_IMAGES, FIT_BATCH = 256, 224 * 224, 32, 32

C = TypeVar("C", bound=AnyRunConfig)
S = TypeVar("S", bound=Splits)
D = TypeVar("D", bound=Dataset)


class Task(ABC, Generic[C, S, D]):
    """Classification or detection, by a configuration C on splits S that hold data sets D.

    Args:
        config: of the run.

    Attributes:
        columns: of metrics.csv between train_loss and lr: what a validation finds.
        parts: of the loss, columns of steps.csv.
        evaluation_keys: beginnings of the keys that an evaluation may set otherwise than the run did.
        picture: name, without suffix, of the picture of an evaluation.
        whole_batches: whether training leaves out the images that fill no batch, others in each epoch.
        same_sizes: whether every step has tensors of the same sizes, so that tuning convolutions pays.
    """

    columns: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]] = ()
    evaluation_keys: ClassVar[tuple[str, ...]]
    picture: ClassVar[str]
    same_sizes: ClassVar[bool] = True
    whole_batches: ClassVar[bool] = True

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def open(self) -> S:
        """Opens the data. Raises DataError."""

    @abstractmethod
    def build(self, splits: S) -> nn.Module:
        """Builds the network, with random weights. Raises ValueError or what the network's builder raises."""

    @abstractmethod
    def warm_start(
        self, model: nn.Module, source: Path | Mapping[str, Tensor], splits: S, progress: Progress | None
    ) -> LoadReport:
        """Loads the weights that fit; attention begins as `model.warm_start` says."""

    @abstractmethod
    def probe(self, model: nn.Module, splits: S) -> None:
        """Runs one black image through: sizes and outputs are right or ConfigError is raised."""

    @abstractmethod
    def learner(self, model: nn.Module, schedule: Schedule, splits: S) -> Learner:
        """Returns what trains the network."""

    def loader(self, data: D, train: bool) -> Any:  # noqa: ANN401  a StatefulDataLoader of the task's batches
        """Returns batches of a split."""
        return build_loader(
            data,
            self.config.train.batch_size,
            train=train,
            seed=self.config.train.seed,
            num_workers=self.config.data.num_workers,
            drop_last=train and self.whole_batches,
        )

    @abstractmethod
    def epoch_text(self, row: Mapping[str, float]) -> str:
        """Says in half a line what a row of metrics.csv holds of the validation."""

    @abstractmethod
    def finish(self, folder: Path, splits: S, weights: dict[str, Tensor], facts: dict[str, Any]) -> Outcome:
        """Exports the weights, measures them, draws, and writes summary.json last: the folder is complete.

        Args:
            folder: of the run.
            splits: of the run.
            weights: to keep.
            facts: of the run, for summary.json.
        """

    @abstractmethod
    def evaluate(
        self,
        folder: Path,
        split: str,
        files: tuple[Path, Path],
        progress: Progress | None,
        replaced: Replaced | None = None,
    ) -> Outcome:
        """Measures the weights of a run folder, maybe with attention replaced; writes table and picture."""


def fit_indices(images: int, size: tuple[int, int]) -> list[int]:
    """Returns which of so many training images of (height, width) pixels a warm start is fitted to."""
    most = min(FIT_IMAGES, max(LEAST_FIT_IMAGES, FIT_IMAGES * FIT_PIXELS // (size[0] * size[1])), images)
    return [number * images // most for number in range(most)]


def task_of(config: AnyRunConfig) -> Task[Any, Any, Any]:
    """Returns the task of a configuration."""
    if isinstance(config, DetectionRunConfig):
        from botvision.training.detect import Detection

        return Detection(config)
    from botvision.training.classify import Classification

    return Classification(config)


def resolve_device(name: str) -> torch.device:
    """Returns the device of a run. Raises ConfigError if there is none of that kind."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("train.device: cuda was asked for, but torch sees no GPU; use auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
