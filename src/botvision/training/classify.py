"""Training and measuring a classifier."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.backbones.cost import count
from botvision.backbones.dense import logits_at
from botvision.backbones.loading import LoadReport, load_weights
from botvision.backbones.models import create_model
from botvision.backbones.probe import evaluating
from botvision.backbones.variants import VARIANTS
from botvision.backbones.weights import class_names, load_model, save_model
from botvision.config.run import RunConfig
from botvision.config.schema import ConfigError
from botvision.data.cache import Progress
from botvision.data.classification import ClassificationDataset, Splits, open_split, open_splits
from botvision.data.loaders import Loader
from botvision.io.files import write_json
from botvision.metrics.classification import ClassificationEvaluator, ClassificationMetrics
from botvision.metrics.predictions import save_predictions
from botvision.plots.curves import accuracy_by_group, confusion_matrix, learning_curves
from botvision.training.task import (
    ADVICE,
    FIT_BATCH,
    DivergedError,
    Task,
    check_batch_of_one,
    fit_indices,
    outputs_of,
)

if TYPE_CHECKING:
    from lightning.fabric import Fabric


# images (B, 3, H, W) float32, targets (B,) int64, or (B, G) for labels at places, indices (B,) int64
Batch = tuple[Tensor, Tensor, Tensor]


class Answers:
    """What a classifier says of images, or of places in them, as the data have labels.

    Args:
        data: that it is asked about.
        logits: of all images or places of a batch, (N, K).

    Attributes:
        counts: of right and wrong answers, by the quantity of the images if they have one.
    """

    def __init__(self, data: ClassificationDataset, logits: Callable[[nn.Module, Batch], Tensor]) -> None:
        self.data, self._logits = data, logits
        known = data.grouping
        quantity = None if known is None else (known.name, known.unit, known.edges)
        asked = "images" if data.points is None else "places"
        self.counts = ClassificationEvaluator(data.classes, quantity, asked)

    def update(self, model: nn.Module, batch: Batch) -> None:
        """Add the answers to a batch."""
        _, targets, indices = batch
        known = self.data.grouping
        values = None if known is None else known.values[indices.cpu()].flatten()
        self.counts.update(self._logits(model, batch), targets.flatten(), values)

    def result(self) -> ClassificationMetrics:
        """Return what they are worth. Raises DivergedError for logits that are not finite."""
        bad = self.counts.not_finite
        if bad:
            raise DivergedError(f"the logits of {bad} validation images are not finite: {ADVICE}")
        return self.counts.compute()


class Classification(Task[RunConfig, Splits, ClassificationDataset, Answers]):
    """Labels of whole images, or of places in them: cross entropy with label smoothing.

    Args:
        config: of the run.
    """

    columns: ClassVar[tuple[str, ...]] = ("val_loss", "val_top1", "val_top5")
    picture: ClassVar[str] = "confusion"

    def open(self) -> Splits:
        return open_splits(self.config.data, self.config.train.seed)

    def build(self, splits: Splits, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        kwargs = self._kwargs(splits)
        if weights is None:
            return create_model(self.config.model.name, **kwargs)
        model = create_model(self.config.model.name, **kwargs | {"pretrained": False})
        model.load_state_dict(weights)
        return model

    def warm_start(
        self, model: nn.Module, source: Path | Mapping[str, Tensor], splits: Splits, progress: Progress
    ) -> LoadReport:
        def images() -> Iterator[Tensor]:
            chosen = fit_indices(len(splits.train), self.config.data.size)
            for start in range(0, len(chosen), FIT_BATCH):
                batch = [(0, index) for index in chosen[start : start + FIT_BATCH]]
                yield splits.train.__getitems__(batch)[0]
                progress("images for the warm start", min(start + FIT_BATCH, len(chosen)), len(chosen))

        how = self.config.model.warm_start
        network: Any = model
        head = network.get_classifier()
        layers = [name for name, module in model.named_modules() if module is head]
        names, fitted_to = class_names(source, splits.classes, layers), images() if how == "fit" else None
        return load_weights(model, source, warm_start=how, images=fitted_to, classes=names)

    @torch.no_grad()
    def probe(self, model: nn.Module, splits: Splits) -> None:
        name, black = self.config.model.name, torch.zeros(1, 3, *self.config.data.size)
        if self.config.train.batch == 1:
            check_batch_of_one(model, self.config.data.size)
        logits: Tensor = outputs_of(model, black, name)
        if logits.shape != (1, len(splits.classes)):
            raise ConfigError(
                f"{name}: expected logits (1, {len(splits.classes)}), got {tuple(logits.shape)}"
            )
        if splits.train.points is not None:
            try:
                with evaluating(model):
                    logits_at(model, black, splits.train.points[:1])
            except ValueError as error:
                raise ConfigError(f"{name} cannot be asked at places of a picture: {error}") from None

    def loader(self, data: ClassificationDataset, train: bool, fabric: "Fabric") -> Loader:
        if fabric.device.type == "cuda":  # a CPU makes batches faster in the other way
            data.place(fabric.device)
        return super().loader(data, train, fabric)

    def loss(
        self, model: nn.Module, batch: Batch, data: ClassificationDataset
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self._logits(data, model, batch).float()
        smoothing = self.config.train.label_smoothing
        return F.cross_entropy(logits, batch[1].flatten(), label_smoothing=smoothing), {}

    def measurement(self, data: ClassificationDataset) -> Answers:
        return Answers(data, partial(self._logits, data))

    def epoch_text(self, row: Mapping[str, float]) -> str:
        if not math.isfinite(row["val_top1"]):
            return "not evaluated"
        top5 = f"  top-5 {100 * row['val_top5']:6.2f} %" if math.isfinite(row["val_top5"]) else ""
        return f"val loss {row['val_loss']:.4f}  top-1 {100 * row['val_top1']:6.2f} %{top5}"

    def export(self, model: nn.Module, folder: Path, splits: Splits) -> None:
        data = self.config.data
        save_model(
            model, folder, self.config.model.name, self._kwargs(splits) | {"pretrained": False},
            classes=splits.classes, image_size=list(data.size), mean=list(data.mean),
            std=list(data.std), crop=data.crop_of_eval, task=self.config.task,
            **({} if splits.val.points is None else {"at_places": True}),
        )  # fmt: skip

    def load(self, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
        return load_model(folder)

    def open_split(
        self, split: str, description: Mapping[str, Any], progress: Progress | None
    ) -> ClassificationDataset:
        return open_split(self.config.data, split, description["classes"], self.config.train.seed)

    def write(self, found: Answers, files: tuple[Path, Path], split: str) -> ClassificationMetrics:
        table, picture = files
        metrics = found.counts.compute()
        label = table.stem.removeprefix("eval")
        save_predictions(found.counts.predictions(), table.with_name(f"predictions{label}.npz"))
        write_json(table, {"split": split, "data": found.data.name, **metrics.to_dict()})
        confusion_matrix(metrics.confusion, list(metrics.classes), picture)
        if metrics.breakdown is not None:
            out = breakdown_file(picture, metrics.breakdown.name)
            accuracy_by_group({split: metrics.breakdown}, out, 1 / len(metrics.classes))
        return metrics

    def finish(
        self, folder: Path, splits: Splits, model: nn.Module, outcome: ClassificationMetrics
    ) -> dict[str, Any]:
        smoothing = self.config.train.label_smoothing
        learning_curves(folder / "metrics.csv", folder / "curves.png", smoothing)
        cost = count(model, self.config.data.size)
        measured = {
            key: value
            for key, value in outcome.to_dict().items()
            if key in ("top1", "top5", "loss") or key.startswith("top1_by_")
        }
        return {**measured, "params": cost.params, "macs": cost.macs}

    def _logits(self, data: ClassificationDataset, model: nn.Module, batch: Batch) -> Tensor:
        """Logits of images (B, K), or of all their places one after the other (B * G, K)."""
        images, _, indices = batch
        if self.config.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if data.points is None:
            return model(images)
        points = data.points[indices.cpu()].to(images.device, torch.float32)
        return logits_at(model, images, points).flatten(0, 1)

    def _kwargs(self, splits: Splits) -> dict[str, Any]:
        """Arguments of `create_model`: the recipe's, the number of classes, the image size."""
        kwargs = {**self.config.model.args, "num_classes": len(splits.classes)}
        if self.config.model.name in VARIANTS:
            kwargs.setdefault("img_size", list(self.config.data.size))
        return kwargs


def breakdown_file(picture: Path, name: str) -> Path:
    """Return the picture of accuracy by a quantity, beside the confusion of the same evaluation."""
    return picture.with_name(picture.name.replace("confusion", f"by_{name}", 1))
