"""Training and measuring a classifier."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from botvision.attention.ablation import Replaced
from botvision.backbones.cost import count
from botvision.backbones.dense import logits_at
from botvision.backbones.models import create_model
from botvision.backbones.variants import VARIANTS
from botvision.backbones.weights import LoadReport, load_model, load_weights, save_model
from botvision.config.run import EVALUATION_KEYS, RunConfig
from botvision.config.schema import ConfigError
from botvision.data.cache import Progress
from botvision.data.classification import ClassificationDataset, Splits, open_split, open_splits
from botvision.io.files import replacing
from botvision.metrics.classification import ClassificationEvaluator, ClassificationMetrics
from botvision.metrics.predictions import save_predictions
from botvision.plots.curves import accuracy_by_group, confusion_matrix, learning_curves
from botvision.plots.overlay import contact_sheet
from botvision.training.history import write_json
from botvision.training.learner import ADVICE, DivergedError, EpochResult, Learner
from botvision.training.optim import Schedule
from botvision.training.results import breakdown_file
from botvision.training.task import FIT_BATCH, Task, fit_indices, resolve_device

EXAMPLES = 2  # images of each class and interval in the picture of them

# images (B, 3, H, W) float32, targets (B,) int64, or (B, G) for labels at places, indices (B,) int64
Batch = tuple[Tensor, Tensor, Tensor]


class Classifier(Learner):
    """Cross entropy with label smoothing, of images or of places in them, as the data have labels.

    Args:
        model: logits (B, K) from images (B, 3, H, W); for labels at places see `logits_at`.
        config: of the run.
        schedule: learning rate as a function of the optimiser step.
        splits: training images, which give errors their names, and those to measure on.
    """

    def __init__(self, model: nn.Module, config: RunConfig, schedule: Schedule, splits: Splits) -> None:
        super().__init__(model, config, schedule, splits.train.name_of)
        self.evaluator, self.data = evaluator_of(splits.val), (splits.train, splits.val)
        self._validated = False

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        images, targets, indices = batch
        smoothing = self.config.train.label_smoothing
        logits = predict(self.model, self._arrange(images), indices, self.data[0]).float()
        return F.cross_entropy(logits, targets.flatten(), label_smoothing=smoothing), indices, {}

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._validated = False

    def on_validation_epoch_start(self) -> None:
        """Forgets the validation before."""
        self.evaluator.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Hands logits and targets to the evaluator, which has the result at the end of the epoch."""
        images, targets, indices = batch
        logits = predict(self.evaluated, self._arrange(images), indices, self.data[1])
        self.evaluator.update(logits, targets.flatten(), values_of(self.data[1], indices))

    def on_validation_epoch_end(self) -> None:
        """Raises DivergedError for logits that are not finite, before the epoch counts as one."""
        bad = self.evaluator.not_finite
        if bad:
            raise DivergedError(
                f"epoch {self.current_epoch + 1}: the logits of {bad} validation images "
                f"are not finite: {ADVICE}"
            )
        self._validated = True

    def result(self) -> EpochResult | None:
        if not self._validated:
            return None
        found = self.evaluator.compute()
        return EpochResult(
            found.top1, {"val_loss": found.loss, "val_top1": found.top1, "val_top5": found.top5}
        )

    def _arrange(self, images: Tensor) -> Tensor:
        return (
            images.contiguous(memory_format=torch.channels_last)
            if self.config.train.channels_last
            else images
        )


class Classification(Task[RunConfig, Splits, ClassificationDataset]):
    """Labels of whole images.

    Args:
        config: of the run.
    """

    columns: ClassVar[tuple[str, ...]] = ("val_loss", "val_top1", "val_top5")
    evaluation_keys: ClassVar[tuple[str, ...]] = EVALUATION_KEYS["classify"]
    picture: ClassVar[str] = "confusion"

    def open(self) -> Splits:
        return open_splits(self.config.data, self.config.train.seed)

    def build(self, splits: Splits) -> nn.Module:
        return create_model(self.config.model.name, **self._kwargs(len(splits.classes)))

    def warm_start(
        self, model: nn.Module, source: Path | Mapping[str, Tensor], splits: Splits, progress: Progress | None
    ) -> LoadReport:
        def images() -> Iterator[Tensor]:
            chosen = fit_indices(len(splits.train), self.config.data.size)
            for start in range(0, len(chosen), FIT_BATCH):
                batch = [(0, index) for index in chosen[start : start + FIT_BATCH]]
                yield splits.train.__getitems__(batch)[0]
                if progress is not None:
                    progress("images for the warm start", min(start + FIT_BATCH, len(chosen)), len(chosen))

        how = self.config.model.warm_start
        return load_weights(model, source, warm_start=how, images=images() if how == "fit" else None)

    @torch.no_grad()
    def probe(self, model: nn.Module, splits: Splits) -> None:
        name, (height, width) = self.config.model.name, self.config.data.size
        if self.config.train.batch_size == 1:  # batch norm has nothing to average over in a map of one cell
            try:
                copy.deepcopy(model).train()(torch.zeros(1, 3, height, width))
            except ValueError as error:
                raise ConfigError(
                    f"train.batch_size: 1 is too few for batch norm on images of {height}x{width} "
                    f"({' '.join(str(error).split())}), expected 2 or more"
                ) from None
        try:
            logits: Tensor = model.eval()(torch.zeros(1, 3, height, width))
        except (RuntimeError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"{name} cannot run on images of {height}x{width}: {text}") from None
        finally:
            model.train()
        if logits.shape != (1, len(splits.classes)):
            raise ConfigError(
                f"{name}: expected logits (1, {len(splits.classes)}), got {tuple(logits.shape)}"
            )
        if splits.train.points is not None:
            try:
                logits_at(model, torch.zeros(1, 3, height, width), splits.train.points[:1])
            except ValueError as error:
                raise ConfigError(f"{name} cannot be asked at places of a picture: {error}") from None

    def loader(self, data: ClassificationDataset, train: bool) -> Any:  # noqa: ANN401  as of the base class
        device = resolve_device(self.config.train.device)
        if device.type == "cuda":  # a CPU makes batches faster in the other way
            data.place(device)
        return super().loader(data, train)

    def learner(self, model: nn.Module, schedule: Schedule, splits: Splits) -> Classifier:
        return Classifier(model, self.config, schedule, splits)

    def epoch_text(self, row: Mapping[str, float]) -> str:
        if not math.isfinite(row["val_top1"]):
            return "not evaluated"
        top5 = f"  top-5 {100 * row['val_top5']:6.2f} %" if math.isfinite(row["val_top5"]) else ""
        return f"val loss {row['val_loss']:.4f}  top-1 {100 * row['val_top1']:6.2f} %{top5}"

    def finish(
        self, folder: Path, splits: Splits, weights: dict[str, Tensor], facts: dict[str, Any]
    ) -> ClassificationMetrics:
        config = self.config
        kwargs = self._kwargs(len(splits.classes)) | {"pretrained": False}
        model = create_model(config.model.name, **kwargs)
        model.load_state_dict(weights)
        save_model(
            model, folder / "model", config.model.name, kwargs,
            classes=splits.classes, image_size=list(config.data.size), mean=list(config.data.mean),
            std=list(config.data.std), crop=config.data.crop_of_eval, task=config.task,
            **({} if splits.val.points is None else {"at_places": True}),
        )  # fmt: skip
        found = self._measure(model, splits.val)
        metrics = _write((folder / "eval.json", folder / "confusion.png"), found, "val", splits.val.name)
        _draw_examples(folder, splits.val)
        learning_curves(folder / "metrics.csv", folder / "curves.png", config.train.label_smoothing)
        cost = count(model, config.data.size)
        measured = {
            key: value
            for key, value in metrics.to_dict().items()
            if key in ("top1", "top5", "loss") or key.startswith("top1_by_")
        }
        summary = {**facts, **measured, "params": cost.params, "macs": cost.macs,
                   "val_held_back": splits.held_back}  # fmt: skip
        write_json(folder / "summary.json", summary)
        return metrics

    def evaluate(
        self,
        folder: Path,
        split: str,
        files: tuple[Path, Path],
        progress: Progress | None,
        replaced: Replaced | None = None,
    ) -> ClassificationMetrics:
        model, description = load_model(folder / "model")
        with nullcontext() if replaced is None else replaced.within(model):
            chosen = open_split(self.config.data, split, description["classes"], self.config.train.seed)
            return _write(files, self._measure(model, chosen, progress), split, chosen.name)

    def _kwargs(self, num_classes: int) -> dict[str, Any]:
        """Arguments of `create_model`: the recipe's, the number of classes, the image size."""
        kwargs = {**self.config.model.args, "num_classes": num_classes}
        if self.config.model.name in VARIANTS:
            kwargs.setdefault("img_size", list(self.config.data.size))
        return kwargs

    @torch.inference_mode()
    def _measure(
        self, model: nn.Module, data: ClassificationDataset, progress: Progress | None = None
    ) -> ClassificationEvaluator:
        """Same order, batch and precision as the validation after each epoch: the same numbers."""
        config = self.config
        device = resolve_device(config.train.device)
        loader: Iterable[Batch] = self.loader(data, train=False)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = model.to(device, memory_format=layout).eval()  # pyrefly: ignore[no-matching-overload]
        evaluator = evaluator_of(data)
        done = 0
        for images, targets, indices in loader:
            with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16-mixed"):
                logits = predict(model, images.to(device, memory_format=layout), indices, data)
            evaluator.update(logits, targets.flatten(), values_of(data, indices))
            done += len(targets)
            if progress is not None:
                progress("evaluating", done, len(data))
        return evaluator


def predict(model: nn.Module, images: Tensor, indices: Tensor, data: ClassificationDataset) -> Tensor:
    """Returns the logits of images (B, K), or of all their places one after the other (B * G, K)."""
    if data.points is None:
        return model(images)
    points = data.points[indices.cpu()].to(images.device, torch.float32)
    return logits_at(model, images, points).flatten(0, 1)


def values_of(data: ClassificationDataset, indices: Tensor) -> Tensor | None:
    """Returns the quantity of images or places, in the order of the logits, if the data have one."""
    return None if data.grouping is None else data.grouping.values[indices.cpu()].flatten()


def evaluator_of(data: ClassificationDataset) -> ClassificationEvaluator:
    """Returns what counts the right answers on a split, by the quantity of its images if they have one."""
    known = data.grouping
    quantity = None if known is None else (known.name, known.unit, known.edges)
    return ClassificationEvaluator(data.classes, quantity, "images" if data.points is None else "places")


def _write(
    files: tuple[Path, Path], found: ClassificationEvaluator, split: str, data: str
) -> ClassificationMetrics:
    """Writes JSON, picture, and beside them what was said of each image."""
    table, picture = files
    metrics = found.compute()
    label = table.stem.removeprefix("eval")
    save_predictions(found.predictions(), table.with_name(f"predictions{label}.npz"))
    write_json(table, {"split": split, "data": data, **metrics.to_dict()})
    confusion_matrix(metrics.confusion, list(metrics.classes), picture)
    if metrics.breakdown is not None:
        out = breakdown_file(picture, metrics.breakdown.name)
        accuracy_by_group({split: metrics.breakdown}, out, 1 / len(metrics.classes))
    return metrics


def _draw_examples(folder: Path, data: ClassificationDataset) -> None:
    """Writes a picture of images of each class in each interval of the quantity, if the data have one."""
    known = data.grouping
    if known is None or data.points is not None:  # one picture has labels in several intervals
        return
    headings, pictures = [f"{low:g} to {high:g} {known.unit}" for low, high in known.intervals()], []
    for k, name in enumerate(data.classes):
        mine = [(known.groups() == g) & (data.targets == k) for g in range(len(headings))]
        found = [chosen.nonzero()[:, 0].tolist() for chosen in mine]
        for i in range(EXAMPLES):  # the first ones of all intervals could be of the same kind
            chosen = [images[(g + i) % len(images)] if images else None for g, images in enumerate(found)]
            pictures += [(name, None if j is None else _picture(data, j)) for j in chosen]
    with replacing(folder / f"examples_by_{known.name}.png") as temporary:
        names, images = zip(*pictures, strict=True)
        contact_sheet(images, names, columns=len(headings), headings=headings).save(temporary, "PNG")


def _picture(data: ClassificationDataset, index: int) -> Image.Image:
    return Image.fromarray(data.picture(index).permute(1, 2, 0).numpy())
