"""From images to a detector's maps: a backbone, then a feature pyramid or the last map alone."""

import functools
import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import FeatureInfo, FeatureListNet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import ResNet as TorchvisionResNet
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from botvision.backbones.models import create_model
from botvision.backbones.variants import VARIANTS
from botvision.config.detector import DetectorOptions
from botvision.detection.norms import convert, freeze, norm_layer
from botvision.detection.padding import padded, recomputed, watch

LEVELS = 4  # c2..c5


class Pyramid(nn.Module):
    """Backbone and neck, with torchvision's interface of a detection backbone.

    Args:
        body: network that returns a list of maps, timm's `features_only` form.
        options: of the detector.

    Attributes:
        out_channels: of every map.
        strides: pixels per cell of every map.
        pooled: names of the maps that RoIs are cropped from: all but the level beyond c5.
    """

    def __init__(self, body: nn.Module, options: DetectorOptions) -> None:
        super().__init__()
        self.body = body
        info: Any = body.feature_info
        wanted = 1 if options.neck == "c5" else LEVELS
        channels, self.strides = info.channels()[-wanted:], info.reduction()[-wanted:]
        self.levels = len(channels)
        self.pooled = [str(level) for level in range(self.levels)]
        self.fpn = None
        self.out_channels = channels[-1]
        if options.neck == "fpn":
            norm = norm_layer(options.norm) if options.heads == "v2" else None
            self.fpn = FeaturePyramidNetwork(channels, options.channels, LastLevelMaxPool(), norm)
            self.out_channels = options.channels
            self.strides = [*self.strides, 2 * self.strides[-1]]

        watch(self)

    def forward(self, x: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Tensor]:
        """Return the maps (B, out_channels, H/stride, W/stride) of a batch by name, the largest first.

        Args:
            x: (B, 3, H, W) normalised.
            sizes: (height, width) in pixels of each image, where some do not fill the batch: each gets the
                maps that it has alone; None if all fill it.
        """
        with padded(sizes, (x.shape[-2], x.shape[-1])):
            maps = OrderedDict(zip(self.pooled, self.body(x)[-self.levels :], strict=True))
            return maps if self.fpn is None else self.fpn(maps)


def create_body(
    name: str, options: DetectorOptions, image_size: tuple[int, int] | None, args: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a backbone by name, and all arguments that `create_model` got.

    Args:
        name: of ours or of timm.
        options: of the detector.
        image_size: (height, width) that a BoTNet's position tables are made for, unless `args` say.
        args: of `create_model`.

    Raises:
        ValueError: an unknown name or argument, or a network without feature maps.
    """
    kwargs = dict(args)
    if name in VARIANTS and image_size is not None:
        kwargs.setdefault("img_size", image_size)
    count = 1 if options.neck == "c5" else LEVELS
    try:
        body = create_model(name, features_only=True, out_indices=tuple(range(-count, 0)), **kwargs)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{name} gives no feature maps: {str(error).splitlines()[0]}") from None
    return body, kwargs


def adopt_body(backbone: nn.Module, options: DetectorOptions) -> nn.Module:
    """Return a finished network as one that returns a list of maps; its modules stay the same objects.

    Args:
        backbone: in timm's `features_only` form, or a classifier of timm or torchvision's ResNet.
        options: of the detector.

    Raises:
        ValueError: a network whose feature maps are unknown.
    """
    info = getattr(backbone, "feature_info", None)
    if isinstance(info, FeatureInfo):
        return backbone
    if info is None and isinstance(backbone, TorchvisionResNet):
        backbone.feature_info = _torchvision_info(backbone)  # pyrefly: ignore[bad-argument-type]
    elif not isinstance(info, list | tuple) or not info:
        raise ValueError(
            f"{type(backbone).__name__} does not say where its feature maps are; "
            "expected a network of timm or torchvision's ResNet"
        )
    rows: Any = backbone.feature_info
    count = 1 if options.neck == "c5" else min(LEVELS, len(rows))
    nested = any("." in row["module"] for row in rows)
    try:
        return FeatureListNet(backbone, tuple(range(-count, 0)), flatten_sequential=nested)
    except AssertionError as error:
        raise ValueError(f"{type(backbone).__name__} gives no feature maps: {error}") from None


def _torchvision_info(model: TorchvisionResNet) -> list[dict[str, Any]]:
    """The rows that timm's networks have of themselves."""
    rows: list[dict[str, Any]] = []
    stride = 4
    for name in ("layer1", "layer2", "layer3", "layer4"):
        stage = model.get_submodule(name)
        convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
        shortcut: Any = getattr(stage[0], "downsample", None)  # pyrefly: ignore[bad-index]
        if shortcut is not None:
            stride *= next(m.stride[0] for m in shortcut.modules() if isinstance(m, nn.Conv2d))
        out = convs[-1] if shortcut is None else next(m for m in shortcut if isinstance(m, nn.Conv2d))
        rows.append({"num_chs": out.out_channels, "reduction": stride, "module": name})
    return rows


def prepare_body(body: nn.Module, options: DetectorOptions) -> nn.Module:
    """Set norms, frozen stages and checkpointing as chosen; in place.

    Raises:
        ValueError: checkpointing of a network that cannot do it.
    """
    convert(body, options.norm)
    for stage in _stages(body)[: options.frozen_stages]:
        for name in stage:
            module = body.get_submodule(name)
            frozen = freeze(module)
            if frozen is not module:
                body.set_submodule(name, frozen)
    if options.checkpointing:
        if "enable" not in inspect.signature(getattr(body, "set_grad_checkpointing", print)).parameters:
            raise ValueError(
                f"model.detector.checkpointing: {type(body).__name__} cannot recompute its stages"
            )
        _recompute(body)
    return body


def _recompute(body: nn.Module) -> None:
    """Make all but the first and the last part again in the backward pass, with the sizes of their batch.

    timm's own recomputation runs where the sizes are no longer known. The parts are the same: the first one's
    input has no gradient, and what changes its input in place cannot be made again.
    """
    parts: list[nn.Module] = []
    for child in body.children():
        stages = isinstance(child, nn.Sequential) and all(isinstance(c, nn.Sequential) for c in child)
        parts += child.children() if stages else [child]
    for part in parts[1:-1]:
        if getattr(part, "inplace", False) is not True:
            part.forward = functools.partial(  # pyrefly: ignore[bad-assignment]
                checkpoint, part.forward, use_reentrant=False, context_fn=recomputed
            )


def _stages(body: nn.Module) -> list[list[str]]:
    """Names of the children of stem, c2, c3, c4 and c5."""
    info: Any = body.feature_info
    ends = [row["module"].replace(".", "_") for row in info.info[-LEVELS:]]
    stages: list[list[str]] = [[]]
    for name, _ in body.named_children():
        if len(stages) == 1 and name == ends[0]:
            stages.append([])
        stages[-1].append(name)
        if name in ends and len(stages) <= LEVELS:
            stages.append([])
    return stages
