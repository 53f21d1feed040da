"""What a detector is made of."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from botvision.config.schema import Fraction, Positive, Rule, Section, Share

Neck = Literal["fpn", "c5"]
Heads = Literal["v2", "light"]
Norm = Literal["batch", "frozen", "sync", "group"]
Numbers = Annotated[tuple[float, ...], Rule("numbers above 0", lambda values: min(values, default=0) > 0)]


@dataclass(frozen=True)
class DetectorOptions(Section):
    """The options of Mask R-CNN; defaults are torchvision's.

    Attributes:
        masks: false leaves out the mask branch: a Faster R-CNN.
        neck: "fpn" is a feature pyramid on c2..c5 with one more subsampled level; "c5" is the last map alone,
            with all anchor sizes on it, as in the slides' code.
        heads: "v2" are the heads of torchvision's v2 builder (RPN of two convolutions, box head of four
            convolutions and one linear layer, norms in both heads and in the pyramid); "light" has an RPN of
            one convolution, a box head of two linear layers, and no norm outside the backbone.
        norm: "batch" keeps the backbone's batch norm (padded cells count in its training statistics).
            "frozen" uses the backbone's running statistics and scales as constants and needs loaded weights;
            norms after attention still train, since a ResNet's belong to its convolutions. "sync" is batch
            norm over all processes; "group" is group norm over an image's own cells. Heads and pyramid use
            the same kind, except that "frozen" gives them group norm.
        frozen_stages (int): how many of stem, c2, c3, c4, c5 are never trained, batch norms included, 0 to 5;
            needs loaded weights.
        channels: of the pyramid and of the convolutions in the heads.
        box_channels: width of the box head's linear layers.
        mask_convs (int): convolutions of the mask head, 0 to 100.
        anchor_sizes: side of the anchors in pixels of the network's input, with "fpn" one for each level
            (c2, c3, c4, c5 and the extra one); null for 32, 64, 128, 256, 512.
        aspect_ratios: height / width of the anchors, on every level.
        rpn_pre_nms_train: proposals per level that enter non-maximum suppression in training.
        rpn_pre_nms_test: the same in evaluation.
        rpn_post_nms_train: proposals per image that remain after it in training.
        rpn_post_nms_test: the same in evaluation.
        rpn_batch: anchors per image that the RPN's loss is computed on.
        roi_batch: proposals per image that the heads' losses are computed on.
        score_threshold: detections with lower scores are left out.
        nms: overlap (IoU) above which the weaker of two detections of a class is left out.
        detections: most detections per image.
        checkpointing: recompute the backbone's stages in the backward pass, to save memory. Batch norm then
            sees each batch twice, so running statistics move faster.
    """

    dotted: ClassVar[str] = "model.detector"
    masks: bool = True
    neck: Neck = "fpn"
    heads: Heads = "v2"
    norm: Norm = "batch"
    frozen_stages: Annotated[int, Rule("0..5", lambda n: 0 <= n <= 5)] = 0
    channels: Positive = 256
    box_channels: Positive = 1024
    mask_convs: Annotated[int, Rule("0..100", lambda n: 0 <= n <= 100)] = 4
    anchor_sizes: Numbers | None = None
    aspect_ratios: Numbers = (0.5, 1.0, 2.0)
    rpn_pre_nms_train: Positive = 2000
    rpn_pre_nms_test: Positive = 1000
    rpn_post_nms_train: Positive = 2000
    rpn_post_nms_test: Positive = 1000
    rpn_batch: Positive = 256
    roi_batch: Positive = 512
    score_threshold: Fraction = 0.05
    nms: Share = 0.5
    detections: Positive = 100
    checkpointing: bool = False


def needs_weights(options: DetectorOptions) -> str | None:
    """Return why a detector of these options makes sense with loaded weights alone, in one line, or None.

    What is frozen stays as it is: random without weights.
    """
    if options.frozen_stages:
        stages = options.frozen_stages
        return f"model.detector.frozen_stages {stages} never trains these stages of the backbone"
    if options.norm == "frozen":
        return "model.detector.norm frozen never updates the statistics and scales of the backbone's norms"
    return None
