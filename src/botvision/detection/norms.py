"""Normalisation that suits small batches, in place of a backbone's batch norm."""

from collections.abc import Callable

import torch
from timm.layers.norm_act import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from botvision.detection.options import Norm


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
        rows = torch.arange(x.shape[2], device=x.device) < sizes[:, :1]
        columns = torch.arange(x.shape[3], device=x.device) < sizes[:, 1:]
        valid = (rows.unsqueeze(2) & columns.unsqueeze(1))[:, None, None]  # B 1 1 H W
        grouped = x.unflatten(1, (self.num_groups, -1)).float()
        count = sizes.prod(1).view(-1, 1, 1, 1, 1) * grouped.shape[2]
        mean = (grouped * valid).sum((2, 3, 4), keepdim=True) / count
        centred = (grouped - mean) * valid
        variance = centred.square().sum((2, 3, 4), keepdim=True) / count
        normed = (centred * (variance + self.eps).rsqrt()).flatten(1, 2).to(x.dtype)
        return self.act(normed * self.weight[:, None, None] + self.bias[:, None, None])


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """Norm of a detector's own layers, by number of channels."""
    return {"batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm}.get(norm, GroupNorm2d)


def convert(backbone: nn.Module, norm: Norm) -> nn.Module:
    """A backbone with its batch norms turned into `norm`; scales and shifts stay, and so do their names."""
    if norm == "frozen":
        return freeze_batch_norm_2d(backbone)
    if norm == "sync":
        return convert_sync_batchnorm(backbone)
    if norm == "group":
        for name, module in list(backbone.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                backbone.set_submodule(name, _group_norm(module))
    return backbone


def _group_norm(batch_norm: nn.BatchNorm2d) -> GroupNorm2d:
    act = getattr(batch_norm, "act", None)
    ours = GroupNorm2d(batch_norm.num_features, batch_norm.eps, act)
    if batch_norm.affine:
        ours.load_state_dict({"weight": batch_norm.weight, "bias": batch_norm.bias})
    return ours.to(batch_norm.weight.device)
