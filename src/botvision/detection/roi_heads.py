"""torchvision's heads of regions, with a mask loss and cropping that take less memory and time."""

from typing import cast

import torch
from torch import Tensor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss

from botvision.detection.masks import mask_loss
from botvision.detection.roi_align import RoIAlign


class FloatPredictor(FastRCNNPredictor):
    """torchvision's box predictor; what becomes coordinates is float32 under autocast too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (R, K+1) and deltas (R, 4(K+1)) of R boxes."""
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float()


class RegionHeads(RoIHeads):
    """torchvision's: equal values, names and draws; its crops are made by our `RoIAlign`.

    Maps are made ready for cropping once, not for boxes and masks each, and the masks of the ground truth
    are not all turned into float32 at once.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return the detections of each image, or in training the losses."""
        ready = cast(RoIAlign, self.box_roi_pool).prepare(features, image_shapes)
        if not self.training or targets is None or not self.has_mask():
            return super().forward(ready, proposals, image_shapes, targets)
        for target in targets:
            if not target["boxes"].is_floating_point() or target["labels"].dtype != torch.int64:
                raise TypeError(
                    f"boxes are {target['boxes'].dtype} and labels {target['labels'].dtype}, "
                    "expected a floating type and torch.int64"
                )
        boxes, matched, labels, deltas = self.select_training_samples(proposals, targets)
        crops = self.box_head(self.box_roi_pool(ready, boxes, image_shapes))
        class_logits, box_deltas = self.box_predictor(crops)
        of_classes, of_boxes = fastrcnn_loss(class_logits, box_deltas, labels, deltas)
        objects = [torch.where(label > 0)[0] for label in labels]
        boxes = [part[chosen] for part, chosen in zip(boxes, objects, strict=True)]
        matched = [part[chosen] for part, chosen in zip(matched, objects, strict=True)]
        assert self.mask_roi_pool is not None
        assert self.mask_head is not None
        assert self.mask_predictor is not None
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(ready, boxes, image_shapes)))
        of_masks = mask_loss(logits, boxes, matched, targets)
        return [], {"loss_classifier": of_classes, "loss_box_reg": of_boxes, "loss_mask": of_masks}
