"""Our kernels in image encoders of others that have the same position term: SAM's and ViTDet's.

Their decomposed relative positions (Li et al., 2022, arXiv:2203.16527, section 3) are ours in timm's scale:

    logit_ij = D^-0.5 q_i . k_j + q_i . (Rh[yi - yj] + Rw[xi - xj])

with tables in the order of query - key, stretched linearly where a map is larger or smaller than they are.
"""

import functools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from botvision.attention.kernels import KERNELS, KernelName, attend
from botvision.attention.position import PositionRows
from botvision.attention.reference import Terms

# Attentions over (B, H, W, C) maps that are known, and the name that each has for its number of heads.
KNOWN = {
    "timm.models.vision_transformer_sam.Attention": "num_heads",
    "segment_anything.modeling.image_encoder.Attention": "num_heads",  # cellpose-SAM's, too
    "detectron2.modeling.backbone.vit.Attention": "num_heads",
    "transformers.models.sam.modeling_sam.SamVisionSdpaAttention": "num_attention_heads",
    "transformers.models.sam_hq.modeling_sam_hq.SamHQVisionSdpaAttention": "num_attention_heads",
}


def accelerate(model: nn.Module, kernel: KernelName = "auto") -> int:
    """Compute the relative attention of a SAM or ViTDet image encoder by our kernels, from now on.

    For timm's `samvit_*`, and the encoders of segment-anything, cellpose-SAM, detectron2's ViTDet and Hugging
    Face's SAM. Outputs are the same up to rounding, in training, too; memory grows with the number of cells,
    not with its square. Weights, their names and everything else stay as they are; `restore` undoes it.

    Args:
        model: the encoder, or a model that contains it; changed in place.
        kernel: "auto", or the name of one of `botvision.attention.kernels.KERNELS`.

    Returns:
        How many attentions it has that are now computed so. Attention without relative positions is left.

    Raises:
        ValueError: there is none, or an unknown kernel.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    count = 0
    for module in model.modules():
        if _original(type(module)) in KNOWN and getattr(module, "use_rel_pos", False):
            module.__class__ = _accelerated(_base(type(module)), kernel)
            count += 1
    if count == 0:
        raise ValueError(
            f"{type(model).__name__} has no attention with relative positions that is known; known are "
            "timm's samvit_*, and the image encoders of segment-anything, cellpose-SAM, detectron2's ViTDet "
            "and transformers' SAM (not with attn_implementation='eager', which returns its weights)"
        )
    return count


def restore(model: nn.Module) -> int:
    """Undo `accelerate`, and return how many attentions are computed by their own code again."""
    changed: list[nn.Module] = [each for each in model.modules() if isinstance(each, _Accelerated)]
    for module in changed:
        module.__class__ = _base(type(module))
    return len(changed)


class _Accelerated:
    """Comes before the class of an attention that has another `forward`."""

    kernel: KernelName

    def _attended(self, x: Tensor, heads: int) -> Tensor:
        """Every cell of a (B, H, W, C) map attends to all others, as the class after this one has it."""
        module: Any = self
        batch, height, width, channels = x.shape
        parts = module.qkv(x).reshape(batch, height * width, 3, heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        if hasattr(module, "q_norm"):
            q, k = module.q_norm(q), module.k_norm(k)
        rows = PositionRows(_rows(module.rel_pos_h, height), _rows(module.rel_pos_w, width), relative=True)
        # only timm's drops weights: Hugging Face's has a number for it, which its fused attention ignores
        dropout = module.attn_drop.p if module.training and hasattr(module, "attn_drop") else 0.0
        out = attend(q, k * module.scale, v, Terms((height, width), rows), dropout, self.kernel)
        out = module.proj(out.transpose(1, 2).reshape(batch, height, width, channels))
        return module.proj_drop(out) if hasattr(module, "proj_drop") else out


class _Plain(_Accelerated):
    """timm's, segment-anything's and detectron2's: map in, map out."""

    num_heads: int

    def forward(self, x: Tensor) -> Tensor:
        return self._attended(x, self.num_heads)


class _Transformers(_Accelerated):
    """Hugging Face's: the output and no weights, unless these are asked for."""

    num_attention_heads: int

    def forward(
        self, hidden_states: Tensor, output_attentions: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if output_attentions:
            theirs: Any = super()
            return theirs.forward(hidden_states, output_attentions=True)
        return self._attended(hidden_states, self.num_attention_heads), None


def _rows(table: Tensor, cells: int) -> Tensor:
    """(1, 2*cells-1, D) rows in the order of key - query, of a (R, D) table in the order of query - key."""
    if table.shape[0] != 2 * cells - 1:
        table = F.interpolate(table.mT[None], size=2 * cells - 1, mode="linear")[0].mT
    return table.flip(0)[None]


@functools.cache
def _accelerated(base: type[nn.Module], kernel: KernelName) -> type[nn.Module]:
    before = _Plain if KNOWN[_original(base)] == "num_heads" else _Transformers
    return type(base.__name__, (before, base), {"kernel": kernel, "__module__": base.__module__})


def _base(kind: type) -> type[nn.Module]:
    """The class that `accelerate` found."""
    return kind.__mro__[3] if issubclass(kind, _Accelerated) else kind


def _original(kind: type) -> str:
    base = _base(kind)
    return f"{base.__module__}.{base.__qualname__}"
