"""Mask R-CNN and Faster R-CNN: torchvision's, put together from a finished backbone."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from botvision.backbones.probe import image_hw
from botvision.config.detector import DetectorOptions
from botvision.detection.norms import norm_layer
from botvision.detection.pyramid import Pyramid, adopt_body, create_body, prepare_body
from botvision.detection.roi_align import RoIAlign
from botvision.detection.roi_heads import FloatPredictor, RegionHeads
from botvision.detection.rpn import LOWEST_SCORE, FloatRPNHead, RegionProposals, StridedAnchors
from botvision.detection.transform import FitTransform

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
BOX_CELLS, MASK_CELLS = 7, 14  # sides of what is cropped from a map for one RoI


class FasterRCNN(detection.FasterRCNN):
    """torchvision's detector of finished parts, which tells its backbone the sizes of a batch's images."""

    def __init__(
        self, backbone: Pyramid, rpn: RegionProposals, heads: RegionHeads, transform: FitTransform
    ) -> None:
        GeneralizedRCNN.__init__(self, backbone, rpn, heads, transform)  # not that which makes parts

    def forward(  # pyrefly: ignore[bad-override]
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return the losses in training, else the detections of each image in its own pixels."""
        if self.training and targets is None:
            raise ValueError("training needs targets, got none")
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, targets = self.transform(images, targets)
        features = self.backbone(batch.tensors, batch.image_sizes)
        proposals, of_proposals = self.rpn(batch, features, targets)
        results, of_regions = self.roi_heads(features, proposals, batch.image_sizes, targets)
        if self.training:
            return of_regions | of_proposals
        return cast(FitTransform, self.transform).postprocess(results, batch.image_sizes, sizes)


class MaskRCNN(FasterRCNN, detection.MaskRCNN):
    """`FasterRCNN` with masks."""


def mask_rcnn(
    backbone: str | nn.Module,
    num_classes: int,
    options: DetectorOptions | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
    backbone_args: Mapping[str, Any] | None = None,
    **changes: Any,  # noqa: ANN401
) -> FasterRCNN:
    """Return torchvision's MaskRCNN on a backbone of ours or timm's, exact for batches of several sizes.

    It takes a list of images (3, H, W), float 0..1 or uint8, of any sizes. In training also a list of targets
    (boxes (N, 4) float x1, y1, x2, y2 in pixels, labels (N,) int64 in 1..K, masks (N, H, W) uint8; N may be
    0), and it returns a dict of losses. In evaluation it returns for each image a dict of boxes (M, 4) in the
    image's own pixels, labels (M,), scores (M,) and masks (M, 1, H, W) of probabilities.

    Detections are the same alone and in a batch for networks of the layers that `padding` knows; layers of
    other networks that look further (blur pools, other channel gates, window attention) see the padding. Who
    calls the backbone alone hands it the sizes, too: `backbone(batch.tensors, batch.image_sizes)`.

    Args:
        backbone: name for `create_model`, or a finished network: timm's `features_only` form, a timm
            classifier, or torchvision's ResNet. A network given is used itself, not a copy.
        num_classes: number of classes K without background.
        options: of the detector.
        image_size: (height, width) or side in pixels of the frame that evaluation scales images to fit into,
            up or down; it also sizes the position tables of a BoTNet made here. None leaves images as they
            are. Training never scales: its images come as the data room made them.
        mean: of the training images by channel, for values 0..1.
        std: by channel.
        backbone_args: arguments of `create_model`, where the backbone is a name.
        **changes: fields of `DetectorOptions`, instead of or in addition to `options`.

    Returns:
        A MaskRCNN, or a plain FasterRCNN without masks, with the attribute `recipe`: what rebuilds it.

    Raises:
        ValueError: one line on an unknown name, an unknown option or a value that does not fit.
    """
    options = _changed(options or DetectorOptions(), changes)
    frame = None if image_size is None else image_hw(image_size)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(
            f"num_classes must be a whole number above 0 (without background), got {num_classes!r}"
        )
    if isinstance(backbone, str):
        body, kwargs = create_body(backbone, options, frame, backbone_args or {})
    elif backbone_args:
        raise ValueError("backbone_args are for a backbone given by name, this one is a finished network")
    else:
        body, kwargs = adopt_body(backbone, options), {}
    pyramid = Pyramid(prepare_body(body, options), options)
    model = (MaskRCNN if options.masks else FasterRCNN)(
        pyramid,
        _region_proposals(pyramid, options),
        _region_heads(pyramid, options, num_classes),
        FitTransform(frame, mean, std, num_classes),
    )
    model.recipe = {  # pyrefly: ignore[bad-argument-type]
        "name": backbone if isinstance(backbone, str) else None,
        "kwargs": kwargs,
        "num_classes": num_classes,
        "detector": dataclasses.asdict(options),
        "image_size": frame,
        "mean": mean,
        "std": std,
    }
    return model


def faster_rcnn(
    backbone: str | nn.Module,
    num_classes: int,
    options: DetectorOptions | None = None,
    **arguments: Any,  # noqa: ANN401
) -> FasterRCNN:
    """Return a `mask_rcnn` without masks: boxes only."""
    return mask_rcnn(backbone, num_classes, options, **(arguments | {"masks": False}))


def _changed(options: DetectorOptions, changes: Mapping[str, Any]) -> DetectorOptions:
    known = [field.name for field in dataclasses.fields(DetectorOptions)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r} of the detector; there are {', '.join(known)}")
    return dataclasses.replace(options, **changes)


def _region_proposals(pyramid: Pyramid, options: DetectorOptions) -> RegionProposals:
    anchors = _anchors(pyramid, options)
    depth = 2 if options.heads == "v2" else 1
    return RegionProposals(
        anchors,
        FloatRPNHead(pyramid.out_channels, anchors.num_anchors_per_location()[0], depth),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=options.rpn_batch,
        positive_fraction=0.5,
        pre_nms_top_n={"training": options.rpn_pre_nms_train, "testing": options.rpn_pre_nms_test},
        post_nms_top_n={"training": options.rpn_post_nms_train, "testing": options.rpn_post_nms_test},
        nms_thresh=0.7,
        score_thresh=LOWEST_SCORE,
    )


def _region_heads(pyramid: Pyramid, options: DetectorOptions, num_classes: int) -> RegionHeads:
    norm = norm_layer(options.norm) if options.heads == "v2" else None
    box_head = _box_head(pyramid.out_channels, options)
    box_predictor = FloatPredictor(options.box_channels, num_classes + 1)
    masks: dict[str, nn.Module] = {}
    if options.masks:
        width = options.channels if options.mask_convs else pyramid.out_channels
        masks = {
            "mask_roi_pool": RoIAlign(pyramid.pooled, pyramid.strides, MASK_CELLS),
            "mask_head": MaskRCNNHeads(
                pyramid.out_channels, [options.channels] * options.mask_convs, 1, norm
            ),
            "mask_predictor": MaskRCNNPredictor(width, options.channels, num_classes + 1),
        }
    return RegionHeads(
        RoIAlign(pyramid.pooled, pyramid.strides, BOX_CELLS),
        box_head,
        box_predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=options.roi_batch,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=options.score_threshold,
        nms_thresh=options.nms,
        detections_per_img=options.detections,
        **masks,
    )


def _anchors(pyramid: Pyramid, options: DetectorOptions) -> StridedAnchors:
    sizes = tuple(float(size) for size in options.anchor_sizes or ANCHOR_SIZES)
    levels = len(pyramid.strides)
    if options.neck == "c5":
        return StridedAnchors((sizes,), (options.aspect_ratios,), pyramid.strides)
    if options.anchor_sizes is None:
        sizes = sizes[-levels:]
    if len(sizes) != levels:
        raise ValueError(
            f"model.detector.anchor_sizes: {len(sizes)} for a pyramid of {levels} levels, expected one each"
        )
    return StridedAnchors(
        tuple((size,) for size in sizes), (options.aspect_ratios,) * levels, pyramid.strides
    )


def _box_head(channels: int, options: DetectorOptions) -> nn.Module:
    if options.heads == "light":
        return TwoMLPHead(channels * BOX_CELLS**2, options.box_channels)
    return FastRCNNConvFCHead(
        (channels, BOX_CELLS, BOX_CELLS),
        [options.channels] * 4,
        [options.box_channels],
        norm_layer(options.norm),
    )
