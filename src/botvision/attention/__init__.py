"""Tensors only: the attention layer, its definition and its kernels."""

from botvision.attention.kernels import attend
from botvision.attention.layer import MHSA2d
from botvision.attention.reference import Terms, attend_reference

__all__ = ["MHSA2d", "Terms", "attend", "attend_reference"]
