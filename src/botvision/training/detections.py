"""Detections of a split as COCO results, and what they are worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from botvision.coco.evaluate import CocoMetrics, evaluate_coco
from botvision.coco.instances import Instances
from botvision.coco.matches import Matches, match_coco
from botvision.coco.results import to_results
from botvision.coco.sides import SideAccuracy, side_accuracy
from botvision.coco.truth import CocoTruth, Kind, read_truth
from botvision.data.detection import DetectionDataset
from botvision.plots.overlay import Pair, truth_and_prediction_sheet
from botvision.training.learner import ADVICE, DivergedError

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

    def aps(self) -> dict[str, float]:
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

    def update(self, detections: Sequence[Mapping[str, Any]], indices: Tensor) -> None:
        """Adds detections of a batch, masks as run lengths. Raises DivergedError if they are not finite."""
        for found, index in zip(detections, indices.tolist(), strict=True):
            if not bool(found["scores"].isfinite().all() and found["boxes"].isfinite().all()):
                raise DivergedError(f"the detections of {self.data.name_of(index)} are not finite: {ADVICE}")
            self.records += to_results(
                self.data.image_id(index), found["boxes"], found["labels"], found["scores"],
                found.get("masks") if self._masks else None,
                category_ids=self._ids,
            )  # fmt: skip

    def sheet(self) -> Image.Image:
        """Returns ground truth beside detections of a dozen images spread over the data."""
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
            pairs.append(Pair(picture, Instances.of(self.data.instances(index)), detections, caption))
        return truth_and_prediction_sheet(pairs, self.data.classes)

    def evaluate(self) -> DetectionMetrics:
        """Returns COCO's numbers of all that was collected."""
        boxes = evaluate_coco(self._truth, self.records, "bbox", self._most)
        masks = evaluate_coco(self._truth, self.records, "segm", self._most) if self._masks else None
        return DetectionMetrics(boxes, masks, side_accuracy(self._truth, self.records))

    def matches(self) -> dict[Kind, Matches]:
        """Returns which detections match which objects, image by image."""
        kinds: tuple[Kind, ...] = ("bbox", "segm") if self._masks else ("bbox",)
        return {kind: match_coco(self._truth, self.records, kind, self._most) for kind in kinds}
