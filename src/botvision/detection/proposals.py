"""torchvision's region proposals, for known strides and images that do not fill the canvas."""

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from botvision.detection.padding import Padding

LOWEST_SCORE = 1e-37  # of a proposal; those beyond an image have none


class StridedAnchors(AnchorGenerator):
    """Anchors by the maps' strides, in float32.

    torchvision divides the canvas by the cells, which is not the stride where a map was rounded up, and takes
    the maps' dtype, in which half precision cannot tell neighbouring pixels apart.

    Args:
        sizes: sides in pixels, a tuple for each map.
        aspect_ratios: height / width, a tuple for each map.
        strides: pixels per cell of each map.
    """

    def __init__(
        self,
        sizes: tuple[tuple[float, ...], ...],
        aspect_ratios: tuple[tuple[float, ...], ...],
        strides: list[int],
    ) -> None:
        super().__init__(sizes, aspect_ratios)  # pyrefly: ignore[bad-argument-type]
        self.strides = strides

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """(anchors, 4) boxes in pixels, the same for every image."""
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        grids = [list(x.shape[-2:]) for x in feature_maps]
        strides = [[stride, stride] for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(grids, strides))  # pyrefly: ignore[bad-argument-type]
        return [anchors] * len(image_list.image_sizes)


class FloatRPNHead(RPNHead):
    """torchvision's head; what becomes coordinates is float32 under autocast too."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness (B, A, H, W) and deltas (B, 4A, H, W) of every map."""
        logits, deltas = super().forward(x)
        return [part.float() for part in logits], [part.float() for part in deltas]


class FloatPredictor(FastRCNNPredictor):
    """torchvision's box predictor; what becomes coordinates is float32 under autocast too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, K+1) and deltas (R, 4(K+1)) of R boxes."""
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float()


class RegionProposals(RegionProposalNetwork):
    """torchvision's region proposal network in which anchors beyond an image take no part.

    Args:
        rpn: the network whose parts and values are taken over.
        padding: knows which cells belong to which image.
    """

    def __init__(self, rpn: RegionProposalNetwork, padding: Padding) -> None:
        sampler, matcher = rpn.fg_bg_sampler, rpn.proposal_matcher
        super().__init__(
            rpn.anchor_generator,
            rpn.head,
            matcher.high_threshold,
            matcher.low_threshold,
            sampler.batch_size_per_image,
            sampler.positive_fraction,
            rpn._pre_nms_top_n,
            rpn._post_nms_top_n,
            rpn.nms_thresh,
            LOWEST_SCORE,
        )
        self.padding = padding
        self._inside: Tensor | None = None

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals of each image, and in training the losses."""
        self._inside = None
        if self.padding.applies(images.tensors):
            anchors = self.anchor_generator.num_anchors_per_location()
            self._inside = torch.cat(
                [
                    ~self.padding.beyond(x).flatten(1).repeat_interleave(count, 1)
                    for x, count in zip(features.values(), anchors, strict=True)
                ],
                1,
            )
        return super().forward(images, features, targets)

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Best boxes of each image, by anchors inside it."""
        if self._inside is not None:
            objectness = objectness.view_as(self._inside).masked_fill(~self._inside, float("-inf"))
        return super().filter_proposals(proposals, objectness, image_shapes, num_anchors_per_level)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label and box of every anchor; those beyond the image are neither positive nor negative."""
        if self._inside is None:
            return super().assign_targets_to_anchors(anchors, targets)
        kept = [boxes[inside] for boxes, inside in zip(anchors, self._inside, strict=True)]
        labels, boxes = super().assign_targets_to_anchors(kept, targets)
        all_labels, all_boxes = [], []
        for index, inside in enumerate(self._inside):
            label = labels[index].new_full(inside.shape, -1.0)
            box = anchors[index].clone()
            label[inside], box[inside] = labels[index], boxes[index].to(box.dtype)
            all_labels.append(label)
            all_boxes.append(box)
        return all_labels, all_boxes
