"""A finished run measured again: on which images, into which files, with its attention or without."""

import re
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from botvision.attention.ablation import Replaced
from botvision.config.recipes import build_config, changed_keys, config_to_dict, load_config, value_at
from botvision.config.run import EVALUATION_KEYS
from botvision.config.schema import ConfigError
from botvision.data.cache import Progress
from botvision.data.loaders import Loader
from botvision.training.checkpoint import newest_checkpoint
from botvision.training.loop import open_fabric
from botvision.training.run import export_unfinished, task_of

if TYPE_CHECKING:
    from lightning.fabric import Fabric

# What an evaluation may set otherwise than the run did, without a table of its own.
WAYS_OF_LOADING = ("num_workers", "cache", "cache_bytes", "download")


class Evaluation:
    """A run and the images that it is measured on; each is opened once, when it is first needed.

    A run that is not finished is measured with its best or last checkpoint, as `train.keep` says.

    Args:
        folder: of the run.
        split: "val", "test", or "train" (without augmentation).
        overrides: dotted keys under `data`, or `train.batch_size`, `train.device`; of a detector
            `model.detector.detections`, `.score_threshold` and `.nms`, too.

    Raises:
        ValueError: no run there or none with a checkpoint, another key or split.

    Attributes:
        finished: whether the run is.
        note: a line on the weights taken of a run that is not, once they are read.
    """

    def __init__(
        self, folder: str | Path, split: str = "val", overrides: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.split, self.overrides = Path(folder), split, overrides
        if not (self.folder / "config.yaml").is_file():
            raise ConfigError(f"{folder}: not a run folder, there is no config.yaml")
        self.finished, self.note = (self.folder / "summary.json").is_file(), ""
        if not self.finished and newest_checkpoint(self.folder) is None:
            raise ConfigError(
                f"{folder}: the run is not finished, and has no checkpoint yet; resume it first"
            )
        own = load_config(self.folder / "config.yaml")
        allowed = EVALUATION_KEYS[own.task]
        for key in overrides or {}:
            if not key.startswith(allowed):
                words = [f"{key}*" if key.endswith(".") else key for key in allowed]
                raise ConfigError(f"{key}: an evaluation takes only {', '.join(words[:-1])} and {words[-1]}")
        if split not in ("train", "val", "test"):
            raise ConfigError(f"split: expected train, val or test, got {split!r}")
        self.task = task_of(build_config(config_to_dict(own), overrides))
        self._loader: Loader | None = None

    def files(self, replaced: Replaced | None = None) -> tuple[Path, Path]:
        """Return where the results are written, see `evaluation_files`."""
        return evaluation_files(self.folder, self.split, self.overrides, replaced)

    @property
    def network(self) -> nn.Module:
        """The run's network, placed."""
        return self._network[0]

    @property
    def notes(self) -> list[str]:
        """Lines on the weights and images, once they are read: what was left out, clipped or guessed."""
        data: Any = None if self._loader is None else self._loader.dataset
        of_data = [] if data is None else [*data.notes, *data.passed_over]
        return [*([self.note] if self.note else []), *of_data]

    def measure(
        self, progress: Progress | None = None, replaced: Replaced | None = None, out: Path | None = None
    ) -> Any:  # noqa: ANN401  the task decides
        """Show the network all images and write the files.

        Args:
            progress: called with what is being done, how many images are done and how many there are.
            replaced: what takes the place of the network's attention meanwhile; nothing unless given.
            out: folder for the files; the run folder unless given.

        Returns:
            The task's metrics: `ClassificationMetrics` or `DetectionMetrics`.

        Raises:
            ValueError: data that cannot be opened or that have other classes, or no such attention.
        """
        table, picture = self.files(replaced)
        if out is not None:
            table, picture = out / table.name, out / picture.name
        with nullcontext() if replaced is None else replaced.within(self.network):
            found = self.task.measure(self.network, self._images(progress), self._fabric, progress)
        return self.task.write(found, (table, picture), self.split)

    @cached_property
    def _fabric(self) -> "Fabric":
        return open_fabric(self.task.config.train.device)

    @cached_property
    def _network(self) -> tuple[nn.Module, dict[str, Any]]:
        device = self._fabric.device  # before the weights are read: it may not be there
        if self.finished:
            network, description = self.task.load(self.folder / "model")
        else:
            with tempfile.TemporaryDirectory() as place:
                self.note = export_unfinished(self.folder, Path(place), self.task)
                network, description = self.task.load(Path(place))
        return self.task.place(network, device), description

    def _images(self, progress: Progress | None) -> Loader:
        if self._loader is None:
            data = self.task.open_split(self.split, self._network[1], progress)
            data.cache_images(progress)
            self._loader = self.task.loader(data, False, self._fabric)
        return self._loader


def evaluation_files(
    folder: Path,
    split: str = "val",
    overrides: Mapping[str, Any] | None = None,
    replaced: Replaced | None = None,
) -> tuple[Path, Path]:
    """Return where an evaluation is written: JSON and picture.

    eval.json and confusion.png (precision_recall.png of a detector) are the run's own validation; every other
    split or data has a name of its own, such as eval-test.json or eval-train-limit-100.json. So has a
    run that is not finished (eval-unfinished.json), and an evaluation with attention replaced:
    eval-attention-zero.json, or eval-attention-zero-block-2.json.
    """
    own = load_config(folder / "config.yaml")
    config = build_config(config_to_dict(own), overrides)
    words = [] if (folder / "summary.json").is_file() else ["unfinished"]
    words += [] if split == "val" else [split]
    for key in changed_keys(own, config):
        value = value_at(config_to_dict(config), key)
        name = key.rpartition(".")[2]
        if key == "data.root":
            root = Path(str(value)).expanduser().absolute()
            words += [] if str(root) == own.data.root else [root.stem]
        elif not key.startswith("train.") and name not in WAYS_OF_LOADING:
            words.append(f"{name}-{value}")
    if replaced is not None:
        words.append(f"attention-{replaced.how}")
        words += [] if replaced.block is None else [f"block-{replaced.block}"]
    label = "".join(f"-{re.sub(r'[^0-9A-Za-z._]+', '-', word).strip('-')}" for word in words)
    return folder / f"eval{label}.json", folder / f"{task_of(config).picture}{label}.png"
