"""The models of the table, and their registration in timm.

A BoTNet is timm's ResNet whose constructor performs the surgery, so names of weights, `features_only`,
`reset_classifier`, drop path, gradient checkpointing and weight loading are timm's own.
"""

import dataclasses
import difflib
import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import timm
from timm.layers.squeeze_excite import SEModule
from timm.models import FeatureListNet, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from botvision.attention.layer import MHSA2d
from botvision.backbones.hub import quiet
from botvision.backbones.probe import image_hw
from botvision.backbones.surgery import Surgery, from_resnet
from botvision.backbones.variants import VARIANTS, Variant, no_weights_for, unknown_model, weights_for

M = TypeVar("M", bound=nn.Module)
SURGERY_KEYS = {field.name for field in dataclasses.fields(Surgery)}
TRUNK_KEYS = set(inspect.signature(ResNet.__init__).parameters) - {"self", "block", "layers"}
ARGUMENTS = SURGERY_KEYS | TRUNK_KEYS | {"stem", "pretrained", "features_only", "out_indices"}
SOURCES = {"url", "file", "state_dict", "hf_hub_id"}  # by which timm's configurations name weights
STEMS = ("imagenet", "cifar")
CIFAR_SIZE = 32  # pixels; the default size of a network with the CIFAR stem


class BoTNet(ResNet):
    """timm's ResNet with attention in the chosen blocks.

    Args:
        surgery: which blocks, and which attention.
        stem: "imagenet" as timm has it, or "cifar".
        **trunk: arguments of timm's ResNet (block, layers, num_classes, in_chans, drop_path_rate, ...).
    """

    def __init__(self, surgery: Surgery, stem: str = "imagenet", **trunk: Any) -> None:  # noqa: ANN401
        super().__init__(**trunk)
        set_stem(self, stem)
        from_resnet(self, surgery, inplace=True)

    def init_weights(self, zero_init_last: bool = True) -> None:
        """Draw the trunk's weights as timm does, and the attention's as `MHSA2d` does."""
        super().init_weights(zero_init_last)
        for module in self.modules():
            if isinstance(module, MHSA2d):
                module.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        """Return the names of the position tables: few values, each a meaning of its own, as biases are."""
        return {name for name, _ in self.named_parameters() if ".position." in name}


def create_model(name: str, **kwargs: Any) -> nn.Module:  # noqa: ANN401
    """Return a model by name: every row of `VARIANTS`, and every other model of timm.

    timm's own BoTNets (botnet26t_256, sebotnet33ts_256, ...) get our attention: the same function of the same
    weights, at any size. With `pretrained=True` a BoTNet of ours starts from the ImageNet weights of its
    ResNet, its attention as the convolutions that it replaces; a warning says what is new.

    Args:
        name: e.g. "botnet50", or "resnet50".
        **kwargs: of every BoTNet: the fields of `Surgery` (img_size, heads, position, convention, c5_blocks,
            c4_blocks, c5_stride, attn_drop, key_init, kernel, shortcut_act), se ("none", "conv", "all"; of
            plain ResNets also "c5", in layer4 alone) and stem ("imagenet", "cifar"); of all: timm's own
            (num_classes, in_chans, drop_path_rate, features_only, pretrained, ...). `stem` also works for
            timm's ResNets.

    Raises:
        ValueError: an unknown name (with the closest ones), an argument that does not fit, or pretrained
            weights that there are not, or that cannot be fetched.
    """
    # Not at the top: this module is imported while timm is, and these ask for timm themselves.
    from botvision.backbones.pretrained import check_pretrained, not_fetched
    from botvision.backbones.timm_attention import can_be_ours, from_timm_botnet

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise unknown_model(name, timm.list_models())
    tagged = timm.models.get_arch_pretrained_cfgs(base) if tag else {}
    if tag and name not in tagged:
        raise unknown_model(name, tagged)
    if kwargs.get("pretrained") and name not in VARIANTS and not _names_a_source(kwargs):
        check_pretrained(name)
    build = timm.create_model if name in VARIANTS or "stem" not in kwargs else _timm_model_with_stem
    try:
        with quiet():
            model = build(name, **kwargs)
        return from_timm_botnet(model, inplace=True) if can_be_ours(model) else model
    except OSError as error:
        if not kwargs.get("pretrained"):
            raise
        raise not_fetched(name, error) from None
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        close = difflib.get_close_matches(unknown[1], sorted(ARGUMENTS), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"model {name} takes no argument {unknown[1]!r}{hint}") from None


def list_models() -> list[str]:
    """Return the names of the table's models, BoTNets and baselines."""
    return list(VARIANTS)


def set_stem(model: M, stem: str) -> M:
    """Give a ResNet the CIFAR stem in place: one 3x3 convolution with stride 1 and no pool.

    Its width is what the first norm expects, so everything behind stays; timm's `feature_info` is corrected.
    "imagenet" leaves the model as it is.

    Raises:
        ValueError: another stem, or a model without conv1, bn1 and maxpool.
    """
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    if stem == "imagenet":
        return model
    parts = [getattr(model, part, None) for part in ("conv1", "bn1", "maxpool")]
    if not all(isinstance(part, nn.Module) for part in parts):
        raise ValueError(f"{type(model).__name__} has no conv1, bn1, maxpool to make a CIFAR stem of")
    convs = [m for m in parts[0].modules() if isinstance(m, nn.Conv2d)]  # pyrefly: ignore[missing-attribute]
    first, last = convs[0], convs[-1]
    conv = nn.Conv2d(first.in_channels, last.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as timm's ResNet does
    model.conv1 = conv.to(first.weight.device, first.weight.dtype)  # pyrefly: ignore[bad-argument-type]
    model.maxpool = nn.Identity()  # pyrefly: ignore[bad-argument-type]
    for row in getattr(model, "feature_info", ()):
        row["reduction"] = max(1, row["reduction"] // (2 if row["module"] == "act1" else 4))
    return model


def _timm_model_with_stem(
    name: str,
    stem: str = "imagenet",
    features_only: bool = False,
    out_indices: tuple[int, ...] = (0, 1, 2, 3, 4),
    **kwargs: Any,  # noqa: ANN401
) -> nn.Module:
    """A ResNet of timm's own with another stem; the feature wrapper goes around afterwards."""
    model = set_stem(timm.create_model(name, **kwargs), stem)
    return FeatureListNet(model, out_indices=out_indices) if features_only else model


def _names_a_source(kwargs: Mapping[str, Any]) -> bool:
    """Whether the arguments of a network of timm say where its weights lie."""
    given = [kwargs.get(key) for key in ("pretrained_cfg", "pretrained_cfg_overlay")]
    return any(each and (not isinstance(each, Mapping) or SOURCES & set(each)) for each in given)


def _build(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:  # noqa: ANN401
    """One row of the table, with the caller's changes."""
    if not pretrained or _names_a_source(kwargs):
        return _build_row(name, pretrained, **kwargs)
    from botvision.backbones.loading import load_weights
    from botvision.backbones.pretrained import from_timm

    source = weights_for(name)
    if source is None:
        raise ValueError(no_weights_for(name))
    model = _build_row(name, False, **kwargs)
    report = load_weights(model, from_timm(source, kwargs.get("in_chans", 3)))
    new = report.missing + report.mismatched
    parts = [f"{name} starts from timm's {source}: {len(report.kept)} tensors are kept"]
    count = len(report.started)
    parts += [f"attention of {count} blocks begins as the convolution in its place"] if count else []
    parts += [f"new are {', '.join(new[:4])}{', ...' if len(new) > 4 else ''}"] if new else []
    warnings.warn("; ".join(parts), stacklevel=3)
    return model


def _build_row(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:  # noqa: ANN401
    row = VARIANTS[name]
    stem = kwargs.pop("stem", "imagenet")
    if stem == "cifar":
        overlay = {"first_conv": "conv1", "input_size": (3, CIFAR_SIZE, CIFAR_SIZE), "pool_size": None}
        kwargs["pretrained_cfg_overlay"] = overlay | (kwargs.get("pretrained_cfg_overlay") or {})
    se = kwargs.pop("se", row.se)
    if se not in ("none", "conv", "all", "c5"):
        raise ValueError(f"se must be 'none', 'conv', 'all' or 'c5', got {se!r}")
    if se == "c5" and row.attention:
        raise ValueError(f"se 'c5' is for plain ResNets, {name} has attention there; 'none', 'conv' or 'all'")
    block_args = dict(kwargs.pop("block_args", {}))
    if se != "none":
        block_args.setdefault("attn_layer", SEModule)
    chosen = {key: kwargs.pop(key) for key in SURGERY_KEYS & set(kwargs)}
    trunk: dict[str, Any] = {
        "block": Bottleneck,
        "layers": row.layers,
        "act_layer": row.act,
        **row.trunk,
        "block_args": block_args,
    }
    trunk |= kwargs
    if not row.attention:
        img_size = chosen.pop("img_size", row.img_size)
        image_hw(img_size)
        if chosen:
            raise ValueError(f"{name} has no attention, so it takes no {sorted(chosen)[0]}")
        stages = (4,) if se == "c5" else (1, 2, 3, 4)
        return build_model_with_cfg(_plain_resnet, name, pretrained, stem=stem, se_stages=stages, **trunk)
    chosen.setdefault("img_size", CIFAR_SIZE if stem == "cifar" else row.img_size)
    if row.c5_stride == 1 and trunk.get("output_stride", 32) == 32:
        chosen.setdefault("c5_stride", 1)
    surgery = Surgery(**chosen, se="conv" if se == "conv" else "all")
    return build_model_with_cfg(BoTNet, name, pretrained, surgery=surgery, stem=stem, **trunk)


def _plain_resnet(stem: str, se_stages: tuple[int, ...], **trunk: Any) -> ResNet:  # noqa: ANN401
    """Squeeze-excite, where the blocks have it, stays in the stages given."""
    model = set_stem(ResNet(**trunk), stem)
    for stage in {1, 2, 3, 4} - set(se_stages):
        for block in model.get_submodule(f"layer{stage}").children():
            block.se = None  # pyrefly: ignore[bad-argument-type]
    return model


def _config(row: Variant) -> dict[str, Any]:
    """What timm wants to know of a model beside its architecture."""
    pool = math.ceil(row.img_size / (16 if row.c5_stride == 1 else 32))
    return {
        "input_size": (3, row.img_size, row.img_size),
        "pool_size": (pool, pool),
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "first_conv": "conv1.0" if "deep" in row.trunk.get("stem_type", "") else "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2101.11605",
    }


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401
        return _build(name, pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{name}: {VARIANTS[name]}"
    return entry


default_cfgs = generate_default_cfgs({f"{name}.untrained": _config(row) for name, row in VARIANTS.items()})
for _name in VARIANTS:
    register_model(_entry_point(_name))
