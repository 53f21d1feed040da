"""What a run can be told: frozen dataclasses, one for each section of a recipe.

Nothing here imports torch: a mistyped key costs milliseconds, not minutes.
"""

import dataclasses
from typing import Any, Literal

from botvision.config.data import DataConfig
from botvision.config.detection_data import DetectionDataConfig
from botvision.config.detector import DetectorOptions
from botvision.config.schema import ConfigError, require


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        name: any name of `botvision.list_models()` or of timm.
        args: keyword arguments of that model, e.g. `{position: absolute, c5_stride: 1}`. The number of
            classes comes from the data, and the size of the position tables from `data.image_size` unless
            given here.
        weights: a run folder or a .safetensors file to start from, or the name of a ResNet whose weights timm
            fetches (resnet50); what fits by name and shape is taken.
        warm_start: how attention begins where these weights have a convolution: "fit" (as that convolution,
            by least squares on some of the training images, without labels), "taps" (the same from the
            convolution's weights alone), "zero" (new, the block's last norm at zero, so that the block
            begins as its shortcut) or "new" (the paper's way).
    """

    name: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    warm_start: Literal["fit", "taps", "zero", "new"] = "fit"

    def __post_init__(self) -> None:
        if "num_classes" in self.args:
            raise ConfigError(
                "model.args.num_classes: leave it out, the number of classes comes from the data"
            )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """How the weights move.

    Attributes:
        name: sgd (momentum), adamw or lamb.
        lr: peak learning rate; for a batch of `lr_batch` images where that is given, scaled linearly to the
            real batch (batch_size x accumulate), else taken as it is.
        schedule: cosine (to `min_lr` at the last step), steps (a tenth after each of `milestones`) or
            constant, all after a linear warm-up.
        milestones: steps: parts of the run, ascending, after which the rate falls to a tenth.
        warmup_epochs: length of the warm-up in epochs; fractions are allowed.
        clip_norm: largest norm of the gradient; 0 switches clipping off.
    """

    name: Literal["sgd", "adamw", "lamb"] = "sgd"
    lr: float = 0.1
    lr_batch: int | None = None
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        require(self.lr > 0, "optim.lr", self.lr, "a number above 0")
        require(
            self.lr_batch is None or self.lr_batch > 0, "optim.lr_batch", self.lr_batch, "a number above 0"
        )
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "0 <= momentum < 1")
        require(not self.nesterov or self.momentum > 0 or self.name != "sgd", "optim.nesterov", True,
                 "false where optim.momentum is 0")  # fmt: skip
        require(
            all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "two numbers, 0 <= beta < 1"
        )
        require(self.eps > 0, "optim.eps", self.eps, "a number above 0")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup_epochs >= 0, "optim.warmup_epochs", self.warmup_epochs, "0 or more")
        require(self.min_lr >= 0, "optim.min_lr", self.min_lr, "0 or more")
        require(self.clip_norm >= 0, "optim.clip_norm", self.clip_norm, "0 (off) or more")
        ascending = list(self.milestones) == sorted(self.milestones)
        require(
            ascending and all(0 < part < 1 for part in self.milestones),
            "optim.milestones",
            self.milestones,
            "ascending parts of the run, each above 0 and below 1",
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, in what portions, in what precision.

    Attributes:
        batch_size: images a forward pass; `accumulate` of them make one optimiser step.
        ema_decay: decay a step of the averaged copy of the weights that is then evaluated and kept; 0
            switches it off. In the first steps t the decay is (1 + t) / (10 + t) where that is smaller.
        seed: of weights, order, augmentation and dropout; below 2**32.
        keep: which weights become the run's result: those of the "last" epoch, or of the "best" by the task's
            score on the validation images (top-1; mask AP, box AP without masks). The best of many epochs on
            the images it is then measured on flatters; the last does not.
        early_stop: epochs without a better score after which the run ends; 0 means never.
        eval_every: epochs between two evaluations; the last epoch is evaluated in any case.
        checkpoint_every: optimiser steps between checkpoints inside an epoch; 0 means at the ends of epochs
            only.
        log_every: optimiser steps between two rows of steps.csv.
        max_steps: end after that many optimiser steps (for trials); none means all epochs.
    """

    epochs: int = 10
    batch_size: int = 128
    accumulate: int = 1
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    keep: Literal["best", "last"] = "last"
    early_stop: int = 0
    eval_every: int = 1
    channels_last: bool = False
    checkpoint_every: int = 0
    log_every: int = 10
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulate", "log_every", "eval_every"):
            require(getattr(self, key) > 0, f"train.{key}", getattr(self, key), "a number above 0")
        require(0 <= self.seed < 2**32, "train.seed", self.seed, "0 <= seed < 2**32")
        for key in ("early_stop", "checkpoint_every"):
            require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key in ("label_smoothing", "ema_decay"):
            require(0 <= getattr(self, key) < 1, f"train.{key}", getattr(self, key), f"0 <= {key} < 1")
        require(
            self.max_steps is None or self.max_steps > 0,
            "train.max_steps",
            self.max_steps,
            "a number above 0",
        )


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
EVALUATION_KEYS: dict[str, tuple[str, ...]] = {
    "classify": ("data.", "train.batch_size", "train.device"),
    "detect": (
        *("data.", "train.batch_size", "train.device"),
        *(f"model.detector.{key}" for key in OPTIONS_OF_EVALUATION),
    ),
}

AnyRunConfig = RunConfig | DetectionRunConfig
CONFIGS: dict[str, type[AnyRunConfig]] = {"classify": RunConfig, "detect": DetectionRunConfig}
