"""Training and measuring a detector: boxes, or boxes and masks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from botvision.backbones.cost import count
from botvision.backbones.loading import LoadReport
from botvision.backbones.variants import VARIANTS
from botvision.coco.annotations import Category
from botvision.coco.evaluate import CocoMetrics, evaluate_coco
from botvision.coco.instances import Instances
from botvision.coco.masks import encode
from botvision.coco.matches import Matches, match_coco, save_matches
from botvision.coco.sides import SideAccuracy, side_accuracy
from botvision.coco.truth import CocoTruth, Kind, read_truth
from botvision.config.detector import needs_weights
from botvision.config.run import OPTIONS_OF_EVALUATION, DetectionRunConfig
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
from botvision.io.files import replacing, write_json
from botvision.plots.curves import detection_curves, precision_recall
from botvision.plots.overlay import SideBySide, truth_and_prediction_sheet
from botvision.training.task import (
    ADVICE,
    DivergedError,
    Task,
    check_batch_of_one,
    fit_indices,
    outputs_of,
)

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
SHEET_IMAGES = 12
SHEET_SCORE = 0.5  # detections with lower scores are not drawn


@dataclass(frozen=True)
class DetectionMetrics:
    """COCO's numbers for boxes and, where the detector has masks, for masks.

    Attributes:
        sides: whether left and right are told apart, where they are classes of their own.
    """

    bbox: CocoMetrics
    segm: CocoMetrics | None
    sides: SideAccuracy | None = None

    @property
    def score(self) -> float:
        """Mask AP, or box AP where there are no masks; -1 where the ground truth has nothing."""
        ap = (self.segm or self.bbox).ap
        return ap if math.isfinite(ap) else -1.0

    def numbers(self) -> dict[str, float]:
        """AP and AP50 by name, e.g. box_ap50; NaN for what there is not."""
        named = {"box": self.bbox, "mask": self.segm}
        return {f"{name}_{key}": getattr(found, key, math.nan) for name, found in named.items()
                for key in ("ap", "ap50")}  # fmt: skip

    def side_numbers(self) -> dict[str, float | int | None]:
        """Side accuracy and the number of parts that it rests on, for JSON; empty without sides."""
        if self.sides is None:
            return {}
        accuracy = self.sides.accuracy
        known = accuracy if math.isfinite(accuracy) else None
        return {"side_accuracy": known, "side_parts": int(self.sides.found.sum())}

    def headline(self) -> str:
        """The numbers that count, in half a line."""
        words = [
            f"{name} AP {100 * found.ap:.1f} (AP50 {100 * found.ap50:.1f})"
            for name, found in (("box", self.bbox), ("mask", self.segm))
            if found is not None
        ]
        sides = self.side_numbers()
        if sides.get("side_accuracy") is not None:
            words.append(f"side accuracy {100 * sides['side_accuracy']:.1f} of {sides['side_parts']} parts")
        return f"{', '.join(words)} on {self.bbox.images} images"


class Results:
    """Detections as COCO results, collected image by image.

    Args:
        data: the images that they are of.
        max_detections: of one class in an image, that count in the evaluation.
        masks: evaluate masks too.
        truth: the ground truth of the data, where it has been read before.
    """

    def __init__(
        self, data: DetectionDataset, max_detections: int, masks: bool, truth: CocoTruth | None = None
    ) -> None:
        self.data, self.records = data, list[dict[str, Any]]()
        self._truth = truth or read_truth(data.ground_truth())
        self._most, self._masks = max_detections, masks
        self._ids = [category.id for category in data.categories]

    def update(self, model: nn.Module, batch: DetectionBatch) -> None:
        """Add what a detector finds in a batch. Raises DivergedError if it is not finite."""
        images, _, indices = batch
        self.add(detect(model, images, encode), indices)

    def add(self, detections: Sequence[Mapping[str, Any]], indices: Tensor) -> None:
        """Add detections, masks as run lengths. Raises DivergedError if they are not finite."""
        for found, index in zip(detections, indices.tolist(), strict=True):
            if not bool(found["scores"].isfinite().all() and found["boxes"].isfinite().all()):
                raise DivergedError(f"the detections of {self.data.name_of(index)} are not finite: {ADVICE}")
            objects = Instances.of(found if self._masks else {**found, "masks": None})
            self.records += objects.records(self.data.image_id(index), self._ids)

    def sheet(self) -> Image.Image:
        """Return ground truth beside detections of a dozen images spread over the data."""
        found: dict[int, list[dict[str, Any]]] = {}
        for record in self.records:
            found.setdefault(record["image_id"], []).append(record)
        pairs = []
        for index in range(0, len(self.data), max(1, len(self.data) // SHEET_IMAGES))[:SHEET_IMAGES]:
            picture = Image.fromarray(self.data.load(index).permute(1, 2, 0).numpy())
            mine = found.get(self.data.image_id(index), [])
            detections = Instances.of_records(mine, self._ids).above(SHEET_SCORE)
            caption = self.data.name_of(index).rpartition("/")[2]
            if not len(detections):
                best = max((record["score"] for record in mine), default=0.0)
                caption += f": nothing found with a score of {SHEET_SCORE:.0%} (best {best:.1%})"
            pairs.append(SideBySide(picture, self.data.truth(index), detections, caption))
        return truth_and_prediction_sheet(pairs, self.data.classes)

    def result(self) -> DetectionMetrics:
        """Return COCO's numbers of all that was collected."""
        boxes = evaluate_coco(self._truth, self.records, "bbox", self._most)
        masks = evaluate_coco(self._truth, self.records, "segm", self._most) if self._masks else None
        return DetectionMetrics(boxes, masks, side_accuracy(self._truth, self.records))

    def matches(self) -> dict[Kind, Matches]:
        """Return which detections match which objects, image by image."""
        kinds: tuple[Kind, ...] = ("bbox", "segm") if self._masks else ("bbox",)
        return {kind: match_coco(self._truth, self.records, kind, self._most) for kind in kinds}


class Detection(Task[DetectionRunConfig, DetectionSplits, DetectionDataset, Results]):
    """Boxes and masks of objects: the sum of torchvision's losses of proposals, boxes, classes and masks.

    Args:
        config: of the run.
    """

    columns: ClassVar[tuple[str, ...]] = ("val_box_ap", "val_box_ap50", "val_mask_ap", "val_mask_ap50")
    parts: ClassVar[tuple[str, ...]] = LOSSES
    picture: ClassVar[str] = "precision_recall"
    same_sizes: ClassVar[bool] = False
    drop_last: ClassVar[bool] = False  # few images, and no layer that minds a smaller batch but for one

    def __init__(self, config: DetectionRunConfig) -> None:
        super().__init__(config)
        self._truth: tuple[DetectionDataset, CocoTruth] | None = None

    def open(self) -> DetectionSplits:
        reason = needs_weights(self.config.model.detector)
        if reason is not None and self.config.model.weights is None:
            raise ConfigError(
                f"{reason}: give --model.weights, or "
                "--model.detector.norm group --model.detector.frozen_stages 0"
            )
        splits = open_detection(self.config.data, self.config.train.seed)
        for data in (splits.train, splits.val):
            if self.config.model.detector.masks and not data.has_masks:
                raise ConfigError(
                    f"{data.name}: boxes without masks; model.detector.masks false trains a detector of boxes"
                )
        return splits

    def build(self, splits: DetectionSplits, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        data, model = self.config.data, self.config.model
        args = dict(model.args)
        if model.name in VARIANTS:
            args.setdefault("img_size", list(data.size))
        detector = mask_rcnn(
            model.name,
            len(splits.classes),
            model.detector,
            image_size=data.size,
            mean=data.mean,
            std=data.std,
            backbone_args=args,
        )
        if weights is not None:
            detector.load_state_dict(weights)
        return detector

    def warm_start(
        self,
        model: nn.Module,
        source: Path | Mapping[str, Tensor],
        splits: DetectionSplits,
        progress: Progress,
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
                progress("images for the warm start", done, len(chosen))

        how = self.config.model.warm_start
        return warm_start(model, source, how, images() if how == "fit" else None, splits.classes)

    @torch.no_grad()
    def probe(self, model: nn.Module, splits: DetectionSplits) -> None:
        height, width = self.config.data.size
        left = len(splits.train) % self.config.train.batch
        if 1 in (self.config.train.batch, left):
            low = self.config.data.scale_jitter[0] if self.config.data.augment == "jitter" else 1.0
            sides = [32 * math.ceil(low * side / 32) for side in (height, width)]
            check_batch_of_one(model.get_submodule("backbone"), sides, ", or model.detector.norm group")
        outputs_of(model, [torch.zeros(3, height, width)], self.config.model.name)

    def loss(
        self, model: nn.Module, batch: DetectionBatch, data: DetectionDataset
    ) -> tuple[Tensor, dict[str, Tensor]]:
        images, targets, _ = batch
        parts: dict[str, Tensor] = model(images, targets)
        return torch.stack(list(parts.values())).sum(), parts

    def measurement(self, data: DetectionDataset) -> Results:
        if self._truth is None or self._truth[0] is not data:  # read once, not after every epoch
            self._truth = data, read_truth(data.ground_truth())
        options = self.config.model.detector
        return Results(data, options.detections, options.masks, self._truth[1])

    def epoch_text(self, row: Mapping[str, float]) -> str:
        words = [
            f"{name} AP {100 * row[f'val_{name}_ap']:5.1f} (AP50 {100 * row[f'val_{name}_ap50']:5.1f})"
            for name in ("box", "mask")
            if math.isfinite(row[f"val_{name}_ap"])
        ]
        return "  ".join(words) or "not evaluated"

    def export(self, model: nn.Module, folder: Path, splits: DetectionSplits) -> None:
        rows = [{"id": category.id, "name": category.name} for category in splits.categories]
        save_detector(model, folder, classes=splits.classes, categories=rows)

    def load(self, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
        options = {key: getattr(self.config.model.detector, key) for key in OPTIONS_OF_EVALUATION}
        return load_detector(folder, **options, image_size=self.config.data.size)

    def open_split(
        self, split: str, description: Mapping[str, Any], progress: Progress | None
    ) -> DetectionDataset:
        categories = [Category(row["id"], row["name"]) for row in description["categories"]]
        return open_detection_split(self.config.data, split, self.config.train.seed, categories, progress)

    def write(self, found: Results, files: tuple[Path, Path], split: str) -> DetectionMetrics:
        table, picture = files
        metrics, label = found.result(), table.stem.removeprefix("eval")
        write_json(table.with_name(f"results{label}.json"), found.records)
        save_matches(found.matches(), table.with_name(f"matches{label}.npz"), metrics.sides)
        kinds = [part for part in (metrics.bbox, metrics.segm) if part is not None]
        parts = {part.kind: part.to_dict() for part in kinds}
        write_json(table, {"split": split, "data": found.data.name, **metrics.side_numbers(), **parts})
        precision_recall(kinds, picture)
        with replacing(sheet_file(table)) as temporary:
            found.sheet().save(temporary, "PNG")
        return metrics

    def finish(
        self, folder: Path, splits: DetectionSplits, model: nn.Module, outcome: DetectionMetrics
    ) -> dict[str, Any]:
        detection_curves(folder / "metrics.csv", folder / "curves.png")
        return {
            "box_ar": _known(outcome.bbox.ar_max),
            **{key: _known(value) for key, value in outcome.numbers().items()}, **outcome.side_numbers(),
            "params": sum(p.numel() for p in model.parameters()),
            "macs": count(model.get_submodule("backbone"), self.config.data.size).macs,
            "max_detections": self.config.model.detector.detections,
        }  # fmt: skip


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def sheet_file(table: Path) -> Path:
    """Return the picture of ground truth and predictions, beside the JSON of the same evaluation."""
    return table.with_name(f"sheet{table.stem.removeprefix('eval')}.png")
