"""Normalisation that suits small batches, in place of a backbone's batch norm."""

from collections.abc import Callable

from timm.layers.norm_act import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from botvision.attention.reference import valid_cells
from botvision.backbones.block import AttentionConv2d
from botvision.config.detector import Norm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class GroupNorm2d(nn.GroupNorm):
    """Group norm of maps, over an image's own cells where a batch is padded.

    Up to 32 groups, of at least two channels each.

    Args:
        channels: of the map.
        eps: added to the variance.
        act: activation that follows, for norms that have one of their own.
    """

    def __init__(self, channels: int, eps: float = 1e-5, act: nn.Module | None = None) -> None:
        groups = max(n for n in (1, 2, 4, 8, 16, 32) if channels % n == 0 and (n == 1 or channels // n >= 2))
        super().__init__(groups, channels, eps)
        self.act = act if act is not None else nn.Identity()

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:  # pyrefly: ignore[bad-override]
        """Normalise (B, C, H, W) over the (B, 2) sizes in cells, or over all cells."""
        if sizes is None:
            return self.act(super().forward(x))
        valid = valid_cells((x.shape[2], x.shape[3]), sizes)[:, None, None]  # B 1 1 H W
        grouped = x.unflatten(1, (self.num_groups, -1)).float()
        count = sizes.prod(1).view(-1, 1, 1, 1, 1) * grouped.shape[2]
        mean = (grouped * valid).sum((2, 3, 4), keepdim=True) / count
        centred = (grouped - mean) * valid
        variance = centred.square().sum((2, 3, 4), keepdim=True) / count
        normed = (centred * (variance + self.eps).rsqrt()).flatten(1, 2).to(x.dtype)
        return self.act(normed * self.weight[:, None, None] + self.bias[:, None, None])


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """Return what makes the norm of a detector's own layers from their number of channels."""
    return {"batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm}.get(norm, GroupNorm2d)


def convert(backbone: nn.Module, norm: Norm) -> nn.Module:
    """Turn a backbone's batch norms into `norm`; scales and shifts stay, and so do their names.

    "frozen" leaves norms behind attention as batch norm that trains: a ResNet's statistics are of the
    convolutions that stood there.
    """
    if norm == "frozen":
        exempt = after_attention(backbone)
        for name, module in list(backbone.named_modules()):
            if isinstance(module, BATCH_NORMS) and name and name not in exempt:
                backbone.set_submodule(name, freeze(module))
        return freeze(backbone) if isinstance(backbone, BATCH_NORMS) else backbone
    if norm == "sync":
        return convert_sync_batchnorm(backbone)
    if norm == "group":
        for name, module in list(backbone.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                backbone.set_submodule(name, _group_norm(module))
    return backbone


def freeze(network: nn.Module) -> nn.Module:
    """Make a network one that never trains: batch norms become constants, parameters get no gradient.

    A fresh ResNet has scales of 0 at the end of its blocks, which are to grow. Frozen they would make the
    blocks constant for ever, so that they become 1 here; norms that have seen data keep what they have.
    """
    network = freeze_batch_norm_2d(network).requires_grad_(False)
    for module in network.modules():
        scale = getattr(module, "weight", None) if is_norm(module) else None
        if not isinstance(scale, Tensor) or scale.is_meta:  # without memory there is nothing to be seen
            continue
        if not scale.any() and not _has_seen_data(module):
            nn.init.ones_(scale)
    return network


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm, frozen or not, or a group norm."""
    return isinstance(module, nn.GroupNorm) or hasattr(module, "running_mean")


def _has_seen_data(norm: nn.Module) -> bool:
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return False
    return bool(mean.any() or (variance != 1).any())


def after_attention(network: nn.Module) -> dict[str, str]:
    """Return the names of the norms of what attention layers give, with the names of these layers."""
    pairs: dict[str, str] = {}
    for prefix, parent in network.named_modules():
        attention = None
        for name, child in parent.named_children():
            full = f"{prefix}.{name}" if prefix else name
            if isinstance(child, AttentionConv2d):
                attention = full
            elif attention is not None and is_norm(child):
                pairs[full], attention = attention, None
            elif isinstance(child, nn.Conv2d):
                attention = None
    return pairs


def _group_norm(batch_norm: nn.BatchNorm2d) -> GroupNorm2d:
    act = getattr(batch_norm, "act", None)
    ours = GroupNorm2d(batch_norm.num_features, batch_norm.eps, act)
    if batch_norm.affine:
        ours.load_state_dict({"weight": batch_norm.weight, "bias": batch_norm.bias})
    return ours.to(batch_norm.weight.device)
