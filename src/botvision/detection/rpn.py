"""torchvision's region proposals, for known strides and images that do not fill the canvas."""

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from botvision.detection.padding import current, padded, watch

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
        """Return (anchors, 4) boxes in pixels for each image, the same for all."""
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        grids = [list(x.shape[-2:]) for x in feature_maps]
        strides = [[stride, stride] for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(grids, strides))  # pyrefly: ignore[bad-argument-type]
        return [anchors] * len(image_list.image_sizes)


class FloatRPNHead(RPNHead):
    """torchvision's head, which proposes nothing beyond an image.

    What becomes coordinates is float32 under autocast too.
    """

    def __init__(self, in_channels: int, num_anchors: int, conv_depth: int) -> None:
        super().__init__(in_channels, num_anchors, conv_depth)
        watch(self)

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness (B, A, H, W) and deltas (B, 4A, H, W) of every map."""
        logits, deltas = super().forward(x)
        logits, padding = [part.float() for part in logits], current()
        if padding is not None:
            logits = [part.masked_fill(padding.beyond(part), float("-inf")) for part in logits]
        return logits, [part.float() for part in deltas]


class RegionProposals(RegionProposalNetwork):
    """torchvision's region proposal network in which anchors beyond an image match no object."""

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the proposals of each image, and in training the losses."""
        with padded(images.image_sizes, (images.tensors.shape[-2], images.tensors.shape[-1])):
            return super().forward(images, features, targets)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return label and box of every anchor; those beyond the image are neither positive nor negative."""
        if (padding := current()) is None:
            return super().assign_targets_to_anchors(anchors, targets)
        within = [  # whether the middle of an anchor, which is its cell's, lies in the image
            ((boxes[:, :2] + boxes[:, 2:]) / 2 < boxes.new_tensor([width, height])).all(1)
            for boxes, (height, width) in zip(anchors, padding.sizes, strict=True)
        ]
        kept = [boxes[inside] for boxes, inside in zip(anchors, within, strict=True)]
        labels, matched = super().assign_targets_to_anchors(kept, targets)
        all_labels = [labels[0].new_full((len(boxes),), -1.0) for boxes in anchors]
        all_matched = [boxes.clone() for boxes in anchors]
        for index, inside in enumerate(within):
            all_labels[index][inside] = labels[index]
            all_matched[index][inside] = matched[index].to(all_matched[index].dtype)
        return all_labels, all_matched
