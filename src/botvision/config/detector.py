"""What a detector is made of. Imports no torch: a recipe is checked before anything heavy is loaded."""

from dataclasses import dataclass
from typing import Literal, get_args

Neck = Literal["fpn", "c5"]
Heads = Literal["v2", "light"]
Norm = Literal["batch", "frozen", "sync", "group"]


@dataclass(frozen=True)
class DetectorOptions:
    """Mask R-CNN's choices, with torchvision's values as defaults.

    Attributes:
        masks: False leaves out the mask branch: a Faster R-CNN.
        neck: "fpn" is a feature pyramid on c2..c5 with a further subsampled level; "c5" is the last map
            alone, with all anchor sizes on it, as the slides' code has it.
        heads: "v2" are the heads of torchvision's v2 builder (RPN of two convolutions, box head of four
            convolutions and one linear layer, norms in both heads and in the pyramid); "light" an RPN of one
            convolution, a box head of two linear layers, and no norm outside the backbone.
        norm: "batch" leaves the backbone's batch norm (padded cells count in its training statistics);
            "frozen" uses the backbone's running statistics and scales as constants, for loaded weights alone,
            except that norms behind attention stay batch norm that trains: a ResNet's are of its
            convolutions; "sync" is batch norm over all processes; "group" is group norm over an image's own
            cells. Norms of heads and pyramid are of the same kind, except that "frozen" gives them group
            norm.
        frozen_stages: so many of stem, c2, c3, c4, c5 are never trained, their batch norms frozen too; for
            loaded weights alone, see `needs_weights`.
        channels: of the pyramid and of the convolutions in the heads.
        box_channels: width of the box head's linear layers.
        mask_convs: convolutions of the mask head.
        anchor_sizes: side of the anchors in pixels of the network's input, with "fpn" one for each level
            (c2, c3, c4, c5 and the one beyond); None for 32, 64, 128, 256, 512.
        aspect_ratios: height / width of the anchors, on every level.
        rpn_pre_nms_train: proposals of a level that go into non-maximum suppression in training.
        rpn_pre_nms_test: the same in evaluation.
        rpn_post_nms_train: proposals of an image that come out of it in training.
        rpn_post_nms_test: the same in evaluation.
        rpn_batch: anchors of an image that the RPN's loss is computed on.
        roi_batch: proposals of an image that the heads' losses are computed on.
        score_threshold: detections with lower scores are left out.
        nms: overlap (IoU) above which the weaker of two detections of a class is left out.
        detections: most detections of an image.
        checkpointing: recompute the backbone's stages in the backward pass, for less memory. Batch norm sees
            its batch twice then, so that running statistics move faster.
    """

    masks: bool = True
    neck: Neck = "fpn"
    heads: Heads = "v2"
    norm: Norm = "batch"
    frozen_stages: int = 0
    channels: int = 256
    box_channels: int = 1024
    mask_convs: int = 4
    anchor_sizes: tuple[float, ...] | None = None
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_pre_nms_train: int = 2000
    rpn_pre_nms_test: int = 1000
    rpn_post_nms_train: int = 2000
    rpn_post_nms_test: int = 1000
    rpn_batch: int = 256
    roi_batch: int = 512
    score_threshold: float = 0.05
    nms: float = 0.5
    detections: int = 100
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values; lists, as JSON and YAML have them, become tuples.

        Raises:
            ValueError: one line with the key and the value.
        """
        for key in ("anchor_sizes", "aspect_ratios"):
            if isinstance(getattr(self, key), list):
                object.__setattr__(self, key, tuple(getattr(self, key)))
        for key, kind in (("neck", Neck), ("heads", Heads), ("norm", Norm)):
            _check(getattr(self, key) in get_args(kind), key, self, f"one of {', '.join(get_args(kind))}")
        for key in ("masks", "checkpointing"):
            _check(isinstance(getattr(self, key), bool), key, self, "true or false")
        _check(_whole(self.frozen_stages, 0) and self.frozen_stages <= 5, "frozen_stages", self, "0..5")
        _check(_whole(self.mask_convs, 0), "mask_convs", self, "a whole number of at least 0")
        for key in _POSITIVE:
            _check(_whole(getattr(self, key), 1), key, self, "a whole number above 0")
        for key in ("anchor_sizes", "aspect_ratios"):
            values = getattr(self, key)
            fine = isinstance(values, tuple) and len(values) > 0 and all(_number(v) and v > 0 for v in values)
            none = key == "anchor_sizes" and values is None
            _check(fine or none, key, self, "numbers above 0")
        _check(
            _number(self.score_threshold) and 0 <= self.score_threshold < 1, "score_threshold", self, "0..1"
        )
        _check(_number(self.nms) and 0 < self.nms <= 1, "nms", self, "above 0 and at most 1")


def needs_weights(options: DetectorOptions) -> str | None:
    """Why a detector of these options makes sense with loaded weights alone, in one line, or None.

    What is frozen stays as it is: random without weights.
    """
    if options.frozen_stages:
        return (
            f"model.detector.frozen_stages {options.frozen_stages} never trains these stages of the backbone"
        )
    if options.norm == "frozen":
        return "model.detector.norm frozen never updates the statistics and scales of the backbone's norms"
    return None


_POSITIVE = (
    "channels",
    "box_channels",
    "rpn_pre_nms_train",
    "rpn_pre_nms_test",
    "rpn_post_nms_train",
    "rpn_post_nms_test",
    "rpn_batch",
    "roi_batch",
    "detections",
)


def _check(fine: bool, key: str, options: DetectorOptions, expected: str) -> None:
    if not fine:
        value = getattr(options, key)
        raise ValueError(f"model.detector.{key}: {value!r} is impossible, expected {expected}")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
