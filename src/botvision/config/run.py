"""What a run can be told: frozen dataclasses, one for each section of a recipe."""

import dataclasses
import re
from typing import Annotated, Any, ClassVar, Literal

from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.config.detector import DetectorOptions
from botvision.config.schema import (
    ConfigError,
    Count,
    Fraction,
    Positive,
    Rate,
    Rule,
    Section,
    Weight,
    require,
)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The network.

    Attributes:
        name: any name of `botvision.list_models()` or of timm.
        args: keyword arguments of that model, e.g. `{position: absolute, c5_stride: 1}`. The number of
            classes comes from the data, and the size of the position tables from `data.image_size` unless
            given here.
        weights: what to start from; what fits by name and shape is taken. "auto": timm's ImageNet weights, of
            the network itself or of a BoTNet's ResNet; a name of timm's (resnet50, botnet26t_256.c1_in1k), or
            of a detector that torchvision trained on COCO (maskrcnn_resnet50_fpn_v2, maskrcnn_resnet50_fpn,
            fasterrcnn_resnet50_fpn_v2, fasterrcnn_resnet50_fpn); "hf-hub:OWNER/NAME"; a run folder; a
            .safetensors or .pth file; "none": random numbers.
        warm_start: how attention begins where these weights have a convolution: "fit" (as that convolution,
            by least squares on some of the training images, without labels), "taps" (the same, from the
            convolution's weights alone), "zero" (new, the block's last norm at zero, so that the block
            begins as its shortcut) or "new" (as in a network without trained weights).
    """

    dotted: ClassVar[str] = "model"
    name: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    warm_start: Literal["fit", "taps", "zero", "new"] = "fit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights == "none":  # of a YAML file, where it is no null
            object.__setattr__(self, "weights", None)
        if "num_classes" in self.args:
            raise ConfigError(
                "model.args.num_classes: leave it out, the number of classes comes from the data"
            )


def _are_parts(milestones: tuple[float, ...]) -> bool:
    return list(milestones) == sorted(milestones) and all(0 < part < 1 for part in milestones)


@dataclasses.dataclass(frozen=True)
class OptimConfig(Section):
    """The optimiser and the schedule of its learning rate.

    Attributes:
        name: sgd (with momentum), adamw or lamb.
        lr: peak learning rate, used as it is; with `lr_batch`, the rate for a batch of that size.
        lr_batch: images; if given, `lr` is scaled linearly to the real batch (batch_size x accumulate).
        momentum: of sgd.
        nesterov: use Nesterov's form of momentum (sgd).
        betas (tuple[float, float]): of adamw and lamb, each from 0 to below 1.
        eps: of adamw and lamb: added to the denominator.
        weight_decay: strength of the weight decay.
        schedule: after a linear warm-up: cosine (down to `min_lr` at the last step), steps (divided by ten
            at each of `milestones`) or constant.
        milestones (tuple[float, ...]): for schedule steps: fractions of the run, ascending, after which the
            rate is divided by ten.
        warmup_epochs: length of the warm-up in epochs, also a fraction of one.
        min_lr: for schedule cosine: learning rate at the last step.
        clip_norm: largest norm of the gradient; 0 turns clipping off.
    """

    dotted: ClassVar[str] = "optim"
    name: Literal["sgd", "adamw", "lamb"] = "sgd"
    lr: Rate = 0.1
    lr_batch: Positive | None = None
    momentum: Fraction = 0.9
    nesterov: bool = True
    betas: Annotated[
        tuple[float, float],
        Rule("two numbers, 0 <= beta < 1", lambda betas: all(0 <= beta < 1 for beta in betas)),
    ] = (0.9, 0.999)
    eps: Rate = 1e-8
    weight_decay: Weight = 5e-4
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    milestones: Annotated[
        tuple[float, ...], Rule("ascending parts of the run, each above 0 and below 1", _are_parts)
    ] = (2 / 3, 8 / 9)
    warmup_epochs: Weight = 0.0
    min_lr: Weight = 0.0
    clip_norm: Weight = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        possible = not self.nesterov or self.momentum > 0 or self.name != "sgd"
        require(possible, "optim.nesterov", True, "false where optim.momentum is 0")


@dataclasses.dataclass(frozen=True)
class TrainConfig(Section):
    """Length, batches, precision and what is kept.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per forward pass; "auto" on a GPU: as many as fit, found by trial steps, with at
            least 16 batches an epoch. config.yaml then has the number.
        accumulate: forward passes per optimiser step.
        seed (int): of weights, order, augmentation and dropout; below 2**32.
        precision: "32-true", or "bf16-mixed" (bfloat16 where autocast allows it).
        device: "auto" (a CUDA GPU if there is one, else the CPU), "cpu", "cuda", "cuda:1" and so on, or "mps"
            (Apple's GPUs; never tried).
        label_smoothing: classifier: share of each label that is spread over all classes.
        ema_decay: decay per step of an averaged copy of the weights, which is then evaluated and kept; 0
            turns it off. In early steps t the decay is (1 + t) / (10 + t) if that is smaller.
        keep: which weights become the run's result: those of the "last" epoch, or of the "best" by the score
            on the validation images (top-1; mask AP, or box AP without masks). The best of many epochs is
            flattered by being chosen on the images it is measured on; the last is not.
        early_stop: end the run after this many epochs without a better score; 0 means never.
        eval_every: epochs between evaluations; the last epoch is always evaluated.
        channels_last: keep images and weights in the channels-last memory format.
        checkpoint_every: optimiser steps between checkpoints within an epoch; 0: at the end of epochs only.
        log_every: optimiser steps between rows of steps.csv.
        max_steps: end after this many optimiser steps (for trials); null means all epochs.
    """

    dotted: ClassVar[str] = "train"
    epochs: Positive = 10
    batch_size: Positive | Literal["auto"] = 128
    accumulate: Positive = 1
    seed: Annotated[int, Rule("0 <= seed < 2**32", lambda seed: 0 <= seed < 2**32)] = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    device: Annotated[
        str, Rule("auto, cpu, cuda, cuda:1, ... or mps", re.compile(r"auto|cpu|mps|cuda(:\d+)?").fullmatch)
    ] = "auto"
    label_smoothing: Fraction = 0.0
    ema_decay: Fraction = 0.0
    keep: Literal["best", "last"] = "last"
    early_stop: Count = 0
    eval_every: Positive = 1
    channels_last: bool = False
    checkpoint_every: Count = 0
    log_every: Positive = 10
    max_steps: Positive | None = None

    @property
    def batch(self) -> int:
        """Images a forward pass. Raises ConfigError for "auto", which a run has replaced by a number."""
        if self.batch_size == "auto":
            raise ConfigError("train.batch_size: auto is for training on a GPU, expected a number")
        return self.batch_size


@dataclasses.dataclass(frozen=True)
class DetectorConfig(ModelConfig):
    """Which detector: a backbone by `name` and `args`, and what is put on it.

    Attributes:
        detector: neck, heads, norms, anchors and thresholds.
    """

    detector: DetectorOptions = dataclasses.field(default_factory=DetectorOptions)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The effective configuration of a run that trains a classifier, as written to its config.yaml."""

    model: ModelConfig
    data: DataConfig
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    task: Literal["classify"] = "classify"
    recipe: str = ""


@dataclasses.dataclass(frozen=True)
class DetectionRunConfig:
    """The effective configuration of a run that trains a detector."""

    model: DetectorConfig
    data: DetectionDataConfig
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    task: Literal["detect"] = "detect"
    recipe: str = ""

    def __post_init__(self) -> None:
        smoothing = self.train.label_smoothing
        require(smoothing == 0, "train.label_smoothing", smoothing, "0, a detector has none")


# Of a detector, what its evaluation may set otherwise than the run did.
OPTIONS_OF_EVALUATION = ("detections", "score_threshold", "nms")

# Beginnings of all keys that an evaluation may set otherwise, by task.
_OF_BOTH = ("data.", "train.batch_size", "train.device")
EVALUATION_KEYS: dict[str, tuple[str, ...]] = {
    "classify": _OF_BOTH,
    "detect": (*_OF_BOTH, *(f"model.detector.{key}" for key in OPTIONS_OF_EVALUATION)),
}

AnyRunConfig = RunConfig | DetectionRunConfig
CONFIGS: dict[str, type[AnyRunConfig]] = {"classify": RunConfig, "detect": DetectionRunConfig}
