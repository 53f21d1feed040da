"""Training and measuring a detector: boxes, or boxes and masks."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from botvision.attention.ablation import Replaced
from botvision.backbones.cost import count
from botvision.backbones.variants import VARIANTS
from botvision.backbones.weights import LoadReport
from botvision.coco.annotations import Category
from botvision.coco.masks import encode
from botvision.coco.matches import save_matches
from botvision.coco.truth import read_truth
from botvision.config.detector import needs_weights
from botvision.config.run import EVALUATION_KEYS, OPTIONS_OF_EVALUATION, DetectionRunConfig
from botvision.config.schema import ConfigError
from botvision.data.cache import Progress
from botvision.data.detection import (
    DetectionBatch,
    DetectionDataset,
    DetectionSplits,
    open_detection,
    open_detection_split,
)
from botvision.detection.mask_rcnn import mask_rcnn
from botvision.detection.masks import detect
from botvision.detection.transform import CANVAS_STEP
from botvision.detection.weights import load_detector, save_detector, warm_start
from botvision.io.files import replacing
from botvision.plots.curves import detection_curves, precision_recall
from botvision.training.detections import DetectionMetrics, Results
from botvision.training.history import write_json
from botvision.training.learner import EpochResult, Learner
from botvision.training.optim import Schedule
from botvision.training.task import Task, fit_indices, resolve_device

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")


class Detector(Learner):
    """The sum of a detector's losses: objectness and boxes of the proposals, classes, boxes and masks.

    Args:
        model: as `mask_rcnn` makes it.
        config: of the run.
        schedule: learning rate as a function of the optimiser step.
        splits: images to learn from and to measure on.
    """

    def __init__(
        self, model: nn.Module, config: DetectionRunConfig, schedule: Schedule, splits: DetectionSplits
    ) -> None:
        super().__init__(model, config, schedule, splits.train.name_of)
        self._val, self._options = splits.val, config.model.detector
        self._truth = read_truth(splits.val.ground_truth())
        self._results: Results | None = None
        self._found: DetectionMetrics | None = None

    def loss(self, batch: DetectionBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        images, targets, indices = batch
        parts: dict[str, Tensor] = self.model(images, targets)
        return torch.stack(list(parts.values())).sum(), indices, parts

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._found = None

    def on_validation_epoch_start(self) -> None:
        """Forgets the validation before."""
        self._results = Results(self._val, self._options.detections, self._options.masks, self._truth)

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        """Collects detections."""
        images, _, indices = batch
        assert self._results is not None
        self._results.update(detect(self.evaluated, images, encode), indices)

    def on_validation_epoch_end(self) -> None:
        """Measures."""
        assert self._results is not None
        self._found, self._results = self._results.evaluate(), None

    def result(self) -> EpochResult | None:
        if self._found is None:
            return None
        return EpochResult(self._found.score, {f"val_{k}": v for k, v in self._found.aps().items()})


class Detection(Task[DetectionRunConfig, DetectionSplits, DetectionDataset]):
    """Boxes and masks of objects.

    Args:
        config: of the run.
    """

    columns: ClassVar[tuple[str, ...]] = ("val_box_ap", "val_box_ap50", "val_mask_ap", "val_mask_ap50")
    parts: ClassVar[tuple[str, ...]] = LOSSES
    evaluation_keys: ClassVar[tuple[str, ...]] = EVALUATION_KEYS["detect"]
    picture: ClassVar[str] = "precision_recall"
    same_sizes: ClassVar[bool] = False
    whole_batches: ClassVar[bool] = False  # few images, and no layer that minds a smaller batch but for one

    def open(self) -> DetectionSplits:
        reason = needs_weights(self.config.model.detector)
        if reason is not None and self.config.model.weights is None:
            raise ConfigError(f"{reason}: set model.weights, or norm group and frozen_stages 0")
        splits = open_detection(self.config.data, self.config.train.seed)
        for data in (splits.train, splits.val):
            if self.config.model.detector.masks and not data.has_masks:
                raise ConfigError(
                    f"{data.name}: boxes without masks; model.detector.masks false trains a detector of boxes"
                )
        return splits

    def build(self, splits: DetectionSplits) -> nn.Module:
        data, model = self.config.data, self.config.model
        return mask_rcnn(
            model.name,
            len(splits.classes),
            model.detector,
            image_size=data.size,
            mean=data.mean,
            std=data.std,
            backbone_args=self._backbone_args(),
        )

    def warm_start(
        self,
        model: nn.Module,
        source: Path | Mapping[str, Tensor],
        splits: DetectionSplits,
        progress: Progress | None,
    ) -> LoadReport:
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.config.data.mean, self.config.data.std))

        def images() -> Iterator[Tensor]:
            if self.config.data.skip_broken:
                splits.train.verify(progress)  # what cannot be read is left out before it is asked for
            chosen = fit_indices(len(splits.train), self.config.data.size)
            for done, index in enumerate(chosen, 1):
                image, _, _ = splits.train[0, index]
                # whole steps of the canvas, so that no map has padding
                size = [max(CANVAS_STEP, side // CANVAS_STEP * CANVAS_STEP) for side in image.shape[1:]]
                yield ((center_crop(image, size) / 255 - mean) / std)[None]
                if progress is not None:
                    progress("images for the warm start", done, len(chosen))

        how = self.config.model.warm_start
        return warm_start(model, source, how, images() if how == "fit" else None)

    @torch.no_grad()
    def probe(self, model: nn.Module, splits: DetectionSplits) -> None:
        height, width = self.config.data.size
        left = len(splits.train) % self.config.train.batch_size
        if 1 in (self.config.train.batch_size, left):
            # batch norm has nothing to average over in a map of one cell
            low = self.config.data.scale_jitter[0] if self.config.data.augment == "jitter" else 1.0
            sides = [32 * math.ceil(low * side / 32) for side in (height, width)]
            try:
                copy.deepcopy(model).train().get_submodule("backbone")(torch.zeros(1, 3, *sides))
            except ValueError as error:
                raise ConfigError(
                    "train.batch_size: a batch of 1 is too few for batch norm on images of "
                    f"{sides[0]}x{sides[1]} ({' '.join(str(error).split())}), expected 2 or more, "
                    "or model.detector.norm group"
                ) from None
        try:
            model.eval()([torch.zeros(3, height, width)])
        except (RuntimeError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(
                f"{self.config.model.name} cannot run on images of {height}x{width}: {text}"
            ) from None
        finally:
            model.train()

    def learner(self, model: nn.Module, schedule: Schedule, splits: DetectionSplits) -> Detector:
        return Detector(model, self.config, schedule, splits)

    def epoch_text(self, row: Mapping[str, float]) -> str:
        words = [
            f"{name} AP {100 * row[f'val_{name}_ap']:5.1f} (AP50 {100 * row[f'val_{name}_ap50']:5.1f})"
            for name in ("box", "mask")
            if math.isfinite(row[f"val_{name}_ap"])
        ]
        return "  ".join(words) or "not evaluated"

    def finish(
        self, folder: Path, splits: DetectionSplits, weights: dict[str, Tensor], facts: dict[str, Any]
    ) -> DetectionMetrics:
        config, model = self.config, self.build(splits)
        model.load_state_dict(weights)
        rows = [{"id": category.id, "name": category.name} for category in splits.categories]
        save_detector(model, folder / "model", classes=splits.classes, categories=rows)
        files = folder / "eval.json", folder / "precision_recall.png"
        metrics = self._measure(model, splits.val, files, "val", None)
        detection_curves(folder / "metrics.csv", folder / "curves.png")
        summary = {
            **facts, "box_ar": _known(metrics.bbox.ar_max),
            **{key: _known(value) for key, value in metrics.aps().items()}, **metrics.side_numbers(),
            "params": sum(p.numel() for p in model.parameters()),
            "macs": count(model.backbone, config.data.size).macs,  # pyrefly: ignore[bad-argument-type]
            "val_held_back": splits.held_back, "max_detections": config.model.detector.detections,
        }  # fmt: skip
        write_json(folder / "summary.json", summary)
        return metrics

    def evaluate(
        self,
        folder: Path,
        split: str,
        files: tuple[Path, Path],
        progress: Progress | None,
        replaced: Replaced | None = None,
    ) -> DetectionMetrics:
        options = {key: getattr(self.config.model.detector, key) for key in OPTIONS_OF_EVALUATION}
        model, description = load_detector(folder / "model", **options, image_size=self.config.data.size)
        categories = [Category(row["id"], row["name"]) for row in description["categories"]]
        seed = self.config.train.seed
        with nullcontext() if replaced is None else replaced.within(model):
            chosen = open_detection_split(self.config.data, split, seed, categories, progress)
            return self._measure(model, chosen, files, split, progress)

    def _backbone_args(self) -> dict[str, Any]:
        args = dict(self.config.model.args)
        if self.config.model.name in VARIANTS:
            args.setdefault("img_size", list(self.config.data.size))
        return args

    @torch.inference_mode()
    def _measure(
        self,
        model: nn.Module,
        data: DetectionDataset,
        files: tuple[Path, Path],
        split: str,
        progress: Progress | None,
    ) -> DetectionMetrics:
        """Same order, batch and precision as the validation after each epoch: the same numbers."""
        config, options = self.config, self.config.model.detector
        device = resolve_device(config.train.device)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = model.to(device, memory_format=layout).eval()  # pyrefly: ignore[no-matching-overload]
        results = Results(data, options.detections, options.masks)
        loader: Iterable[DetectionBatch] = self.loader(data, train=False)
        done = 0
        for images, _, indices in loader:
            with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16-mixed"):
                found = detect(model, [image.to(device) for image in images], encode)
            results.update(found, indices)
            done += len(indices)
            if progress is not None:
                progress("evaluating", done, len(data))
        metrics = results.evaluate()
        table, picture = files
        label = table.stem.removeprefix("eval")
        write_json(table.with_name(f"results{label}.json"), results.records)
        save_matches(results.matches(), table.with_name(f"matches{label}.npz"), metrics.sides)
        parts = {part.kind: part.to_dict() for part in (metrics.bbox, metrics.segm) if part is not None}
        write_json(table, {"split": split, "data": data.name, **metrics.side_numbers(), **parts})
        precision_recall([part for part in (metrics.bbox, metrics.segm) if part is not None], picture)
        with replacing(table.with_name(f"sheet{label}.png")) as temporary:
            results.sheet().save(temporary, "PNG")
        return metrics


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
