"""timm's attention layers and BoTNets as ours: the same function of the same weights, at any size."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from timm.layers.bottleneck_attn import BottleneckAttn
from torch import Tensor, nn

from botvision.attention.layer import Convention
from botvision.backbones.block import AttentionConv2d

M = TypeVar("M", bound=nn.Module)


def from_timm_attention(layer: BottleneckAttn, convention: Convention = "timm") -> AttentionConv2d:
    """Return timm's attention layer as ours: the same function of the same weights, at any size.

    timm does not scale the position logits by D^-0.5, the paper does. With convention "timm" the tables are
    copied; with "paper" they are multiplied by D^0.5, which gives equal outputs too.

    Raises:
        ValueError: query and value widths that differ, or a bias on the projection: no MHSA2d has these.
    """
    misfit = _misfit(layer)
    if misfit:
        raise ValueError(misfit)
    tables = layer.pos_embed
    theirs = "paper" if layer.scale_pos_embed else "timm"
    factor = {("timm", "paper"): layer.scale**-1, ("paper", "timm"): layer.scale}.get(
        (theirs, convention), 1.0
    )
    ours = AttentionConv2d(
        layer.dim_out_v,
        stride=2 if isinstance(layer.pool, nn.AvgPool2d) else 1,
        heads=layer.num_heads,
        grid=(tables.height, tables.width),
        convention=convention,
    )
    state = {
        "attention.qkv.weight": layer.qkv.weight.detach(),
        "attention.position.height": tables.height_rel.detach() * factor,
        "attention.position.width": tables.width_rel.detach() * factor,
    }
    ours.load_state_dict(state)
    return ours.to(layer.qkv.weight.device, layer.qkv.weight.dtype).train(layer.training)


def _misfit(layer: BottleneckAttn) -> str:
    """Why no attention of ours is that layer; empty if one is."""
    if layer.dim_out_qk != layer.dim_out_v or layer.qkv.in_channels != layer.dim_out_v:
        return (
            f"timm attention of {layer.qkv.in_channels} to {layer.dim_out_v} channels with queries of width "
            f"{layer.dim_out_qk}: the three must be equal"
        )
    if layer.qkv.bias is not None:
        return "timm attention with a bias on its projection (qkv_bias=True) cannot be imported"
    return ""


def can_be_ours(model: nn.Module) -> bool:
    """Return whether a network has attention layers of timm's BoTNets, and each is such that ours can be."""
    layers = [module for module in model.modules() if isinstance(module, BottleneckAttn)]
    return bool(layers) and not any(map(_misfit, layers))


def from_timm_botnet(model: M, convention: Convention = "timm", *, inplace: bool = False) -> M:
    """Return a timm model (botnet26t_256, botnet50ts_256, ...) whose attention layers are ours.

    The outputs are the same at the size it was made for, and it then runs at any other.

    Args:
        model: of timm, also in its `features_only` form.
        convention: of the attention, see `from_timm_attention`.
        inplace: change `model` itself; by default a copy.

    Raises:
        ValueError: the model has no BottleneckAttn layer, or one that cannot be imported.
    """
    model = model if inplace else copy.deepcopy(model)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, BottleneckAttn)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BottleneckAttn layer of timm")
    for name, layer in layers.items():
        model.set_submodule(name, from_timm_attention(layer, convention))
    config: Any = getattr(model, "pretrained_cfg", None)
    if isinstance(config, dict):
        model.pretrained_cfg = config | {"fixed_input_size": False}  # pyrefly: ignore[bad-argument-type]
    return model


_NAMES = {
    "qkv.weight": "attention.qkv.weight",
    "pos_embed.height_rel": "attention.position.height",
    "pos_embed.width_rel": "attention.position.width",
}
_BODY = "backbone.body."  # before the names of a detector's backbone


def our_name(name: str) -> str:
    """Return the name that a tensor of timm's attention has in ours; any other as it is."""
    ending = next((each for each in _NAMES if name.endswith(f".{each}")), "")
    return name.removesuffix(ending) + _NAMES[ending] if ending else name


def in_our_names(model: nn.Module, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return weights as a network of ours has them.

    timm's attention layers have other names than ours, and may have tables of the other convention; a
    detector's backbone stands behind a prefix that a classifier does not have.
    """
    own = model.state_dict()
    if not any(name.startswith(_BODY) for name in own):
        stored = {name.removeprefix(_BODY): value for name, value in stored.items()}
    found: dict[str, Tensor] = {}
    for name, value in stored.items():
        ours = our_name(name)
        if ours == name or name in own or ours not in own:
            found[name] = value
            continue
        layer: Any = model.get_submodule(ours.removesuffix(".weight").rpartition(".attention.")[0])
        scaled = "position" in ours and layer.attention.convention == "paper"
        found[ours] = value / layer.attention.scale if scaled else value
    return found
