"""Training and measuring a detector: boxes, or boxes and masks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from botvision.atomic import replacing
from botvision.backbones.cost import count
from botvision.backbones.variants import VARIANTS
from botvision.backbones.weights import LoadReport
from botvision.data.cache import Progress
from botvision.data.coco_records import Category
from botvision.data.detection import (
    DetectionBatch,
    DetectionDataset,
    DetectionSplits,
    open_detection,
    open_detection_split,
)
from botvision.data.loaders import build_loader
from botvision.detection.mask_rcnn import mask_rcnn
from botvision.detection.weights import load_backbone, load_detector, save_detector
from botvision.draw_curves import detection_curves, precision_recall
from botvision.draw_overlay import Objects, Pair, truth_and_prediction_sheet
from botvision.evaluation.coco import CocoMetrics, evaluate_coco, to_results
from botvision.training.history import write_json
from botvision.training.learner import ADVICE, DivergedError, EpochResult, Learner
from botvision.training.optim import Schedule
from botvision.training.schema import ConfigError
from botvision.training.settings import DetectionRunConfig
from botvision.training.task import Task, resolve_device

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
OPTIONS_OF_EVALUATION = ("detections", "score_threshold", "nms")
SHEET_IMAGES = 12
SHEET_SCORE = 0.5  # detections with lower scores are not drawn


@dataclass(frozen=True)
class DetectionMetrics:
    """COCO's numbers for boxes and, where the detector has masks, for masks."""

    bbox: CocoMetrics
    segm: CocoMetrics | None

    @property
    def score(self) -> float:
        """Mask AP, or box AP where there are no masks; -1 where the ground truth has nothing."""
        ap = (self.segm or self.bbox).ap
        return ap if math.isfinite(ap) else -1.0

    def aps(self) -> dict[str, float]:
        """AP and AP50 by name, e.g. box_ap50; NaN for what there is not."""
        named = {"box": self.bbox, "mask": self.segm}
        return {f"{name}_{key}": getattr(found, key, math.nan) for name, found in named.items()
                for key in ("ap", "ap50")}  # fmt: skip

    def headline(self) -> str:
        """The numbers that count, in half a line."""
        words = [
            f"{name} AP {100 * found.ap:.1f} (AP50 {100 * found.ap50:.1f})"
            for name, found in (("box", self.bbox), ("mask", self.segm))
            if found is not None
        ]
        return f"{', '.join(words)} on {self.bbox.images} images"


class Results:
    """Detections as COCO results, collected image by image.

    Args:
        data: the images that they are of.
        max_detections: of one class in an image, that count in the evaluation.
        masks: evaluate masks too.
    """

    def __init__(self, data: DetectionDataset, max_detections: int, masks: bool) -> None:
        self.data, self.records = data, list[dict[str, Any]]()
        step = max(1, len(data) // SHEET_IMAGES)
        self._shown: dict[int, Objects | None] = dict.fromkeys(range(0, len(data), step)[:SHEET_IMAGES])
        self._most, self._masks = max_detections, masks
        self._ids = [category.id for category in data.categories]

    def update(self, detections: Sequence[Mapping[str, Tensor]], indices: Tensor) -> None:
        """Adds the detections of a batch. Raises DivergedError if they are not finite."""
        for found, index in zip(detections, indices.tolist(), strict=True):
            if not bool(found["scores"].isfinite().all() and found["boxes"].isfinite().all()):
                raise DivergedError(f"the detections of {self.data.name_of(index)} are not finite: {ADVICE}")
            masks = found["masks"].squeeze(1) > 0.5 if self._masks else None
            if index in self._shown:
                on_cpu = {name: value.detach().float().cpu() for name, value in found.items()}
                self._shown[index] = Objects.of(on_cpu, SHEET_SCORE)
            self.records += to_results(
                self.data.image_id(index), found["boxes"], found["labels"], found["scores"], masks,
                category_ids=self._ids,
            )  # fmt: skip

    def sheet(self) -> Image.Image:
        """Returns ground truth beside detections of a dozen images spread over the data."""
        pairs = []
        for index, found in self._shown.items():
            if found is not None:
                picture = Image.fromarray(self.data.load(index).permute(1, 2, 0).numpy())
                truth = Objects.of(self.data.instances(index))
                pairs.append(Pair(picture, truth, found, self.data.name_of(index)))
        return truth_and_prediction_sheet(pairs, self.data.classes)

    def evaluate(self) -> DetectionMetrics:
        """Returns COCO's numbers of all that was collected."""
        truth = self.data.ground_truth()
        boxes = evaluate_coco(truth, self.records, "bbox", self._most)
        masks = evaluate_coco(truth, self.records, "segm", self._most) if self._masks else None
        return DetectionMetrics(boxes, masks)


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
        self._results = Results(self._val, self._options.detections, self._options.masks)

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        """Collects detections."""
        images, _, indices = batch
        assert self._results is not None
        self._results.update(self.evaluated(images), indices)

    def on_validation_epoch_end(self) -> None:
        """Measures."""
        assert self._results is not None
        self._found, self._results = self._results.evaluate(), None

    def result(self) -> EpochResult | None:
        if self._found is None:
            return None
        return EpochResult(self._found.score, {f"val_{k}": v for k, v in self._found.aps().items()})


class Detection(Task[DetectionSplits, DetectionDataset]):
    """Boxes and masks of objects.

    Args:
        config: of the run.
    """

    columns: ClassVar[tuple[str, ...]] = ("val_box_ap", "val_box_ap50", "val_mask_ap", "val_mask_ap50")
    parts: ClassVar[tuple[str, ...]] = LOSSES
    evaluation_keys: ClassVar[tuple[str, ...]] = (
        *("data.", "train.batch_size", "train.device"),
        *(f"model.detector.{key}" for key in OPTIONS_OF_EVALUATION),
    )
    picture: ClassVar[str] = "precision_recall"

    def __init__(self, config: DetectionRunConfig) -> None:
        self.config = config

    def open(self) -> DetectionSplits:
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

    def warm_start(self, model: nn.Module, source: Path | Mapping[str, Tensor]) -> LoadReport:
        return load_backbone(model, source)

    @torch.no_grad()
    def probe(self, model: nn.Module, splits: DetectionSplits) -> None:
        height, width = self.config.data.size
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

    def loader(self, data: DetectionDataset, train: bool) -> Any:  # noqa: ANN401
        config = self.config
        return build_loader(
            data,
            config.train.batch_size,
            train=train,
            seed=config.train.seed,
            num_workers=config.data.num_workers,
        )

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
            **{key: _known(value) for key, value in metrics.aps().items()},
            "params": sum(p.numel() for p in model.parameters()),
            "macs": count(model.backbone, config.data.size).macs,  # pyrefly: ignore[bad-argument-type]
            "val_held_back": splits.held_back, "max_detections": config.model.detector.detections,
        }  # fmt: skip
        write_json(folder / "summary.json", summary)
        return metrics

    def evaluate(
        self, folder: Path, split: str, files: tuple[Path, Path], progress: Progress | None
    ) -> DetectionMetrics:
        options = {key: getattr(self.config.model.detector, key) for key in OPTIONS_OF_EVALUATION}
        model, description = load_detector(folder / "model", **options, image_size=self.config.data.size)
        categories = [Category(row["id"], row["name"]) for row in description["categories"]]
        chosen = open_detection_split(self.config.data, split, self.config.train.seed, categories)
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
                found = model([image.to(device) for image in images])
            results.update(found, indices)
            done += len(indices)
            if progress is not None:
                progress("evaluating", done, len(data))
        metrics = results.evaluate()
        table, picture = files
        label = table.stem.removeprefix("eval")
        write_json(table.with_name(f"results{label}.json"), results.records)
        parts = {part.kind: part.to_dict() for part in (metrics.bbox, metrics.segm) if part is not None}
        write_json(table, {"split": split, "data": data.name, **parts})
        precision_recall([part for part in (metrics.bbox, metrics.segm) if part is not None], picture)
        with replacing(table.with_name(f"sheet{label}.png")) as temporary:
            results.sheet().save(temporary, "PNG")
        return metrics


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
