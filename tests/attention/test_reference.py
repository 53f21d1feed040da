"""The reference against the formula itself, written as two loops over the cells."""

import math

import pytest
import torch
from torch import Tensor

from botvision.attention import MHSA2d
from botvision.attention.layer import Convention, Position
from tests.attention.conftest import MODES, TOLERANCE


def by_the_formula(layer: MHSA2d, x: Tensor, valid: tuple[int, int]) -> Tensor:
    """logit_ij = (q_i.k_j + q_i.(Rh[yj - yi] + Rw[xj - xi])) / sqrt(d), out_i = sum_j softmax_ij v_j"""
    channels, height, width = x.shape
    head_dim = channels // layer.heads
    weight = layer.qkv.weight[:, :, 0, 0]
    cells = [(row, column) for row in range(height) for column in range(width)]
    seen = [(row, column) for row, column in cells if row < valid[0] and column < valid[1]]
    out = torch.zeros_like(x)
    root = math.sqrt(head_dim)
    for head in range(layer.heads):
        w_q, w_k, w_v = (weight[part * channels + head * head_dim :][:head_dim] for part in range(3))
        for yi, xi in cells:
            q = w_q @ x[:, yi, xi]
            logits = []
            for yj, xj in seen:
                content = q @ (w_k @ x[:, yj, xj])
                tables = layer.position
                if tables is None:
                    place = q.new_zeros(())
                elif tables.kind == "relative":
                    place = q @ (tables.height[yj - yi + height - 1] + tables.width[xj - xi + width - 1])
                else:
                    place = q @ (tables.height[yj] + tables.width[xj])
                if layer.mode == "position":
                    content = content * 0
                logits.append(content / root + (place if layer.convention == "timm" else place / root))
            weights = torch.stack(logits).softmax(0)
            values = torch.stack([w_v @ x[:, yj, xj] for yj, xj in seen])
            out[head * head_dim : (head + 1) * head_dim, yi, xi] = weights @ values
    return out


@pytest.mark.parametrize("convention", ["paper", "timm"])
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_formula_on_3x4(mode: Position, convention: Convention) -> None:
    layer = MHSA2d(8, heads=2, grid=(3, 4), position=mode, convention=convention, kernel="reference").double()
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], by_the_formula(layer, x[0], (3, 4)), rtol=0, atol=1e-13)


def test_padded_cells_are_outside_the_sum() -> None:
    layer = MHSA2d(8, heads=2, grid=(3, 4), kernel="reference").double()
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        out = layer(x, torch.tensor([[2, 3]]))
        torch.testing.assert_close(out[0], by_the_formula(layer, x[0], (2, 3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", MODES)
def test_attention_map(mode: Position) -> None:
    layer = MHSA2d(8, heads=2, grid=(3, 4), position=mode).double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    weights = layer.attention_map(x, torch.tensor([[5, 6], [2, 3]]))
    assert weights.shape == (2, 2, 30, 30)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 30, dtype=torch.float64))
    beyond = weights[1].unflatten(-1, (5, 6))
    assert beyond[..., 2:, :].abs().max() == 0
    assert beyond[..., 3:].abs().max() == 0
    values = layer.qkv(x).flatten(2)[:, 16:].unflatten(1, (2, 4)).mT
    out = (weights @ values).transpose(1, 2).flatten(2).mT.unflatten(-1, (5, 6))
    torch.testing.assert_close(
        out, layer(x, torch.tensor([[5, 6], [2, 3]])), rtol=0, atol=TOLERANCE[torch.float64]
    )


def test_height_is_not_width() -> None:
    """A table of distances in y moves attention along y only."""
    layer = MHSA2d(4, heads=1, grid=(4, 4), position="position", kernel="reference")
    x = torch.randn(1, 4, 4, 4)
    assert layer.position is not None
    with torch.no_grad():
        layer.position.width.zero_()
        rows = layer.attention_map(x)[0, 0].unflatten(-1, (4, 4))
    torch.testing.assert_close(rows, rows[..., :1].expand_as(rows))
    assert (rows[..., 0].amax(-1) - rows[..., 0].amin(-1)).max() > 1e-3


def test_relative_is_not_absolute() -> None:
    """Content the same everywhere: the weight of a distance does not depend on the place."""
    layer = MHSA2d(4, heads=1, grid=(6, 6), kernel="reference")
    weights = layer.attention_map(torch.randn(4)[None, :, None, None].expand(1, 4, 6, 6))
    logits = weights[0, 0].log().unflatten(0, (6, 6)).unflatten(-1, (6, 6))
    step_down = logits[:-1, :, 1:] - logits[:-1, :, :-1]  # key one row further down, from query rows 0..4
    torch.testing.assert_close(step_down[0, :, :-1], step_down[1, :, 1:], rtol=0, atol=1e-5)
    step_right = logits[..., 1:] - logits[..., :-1]
    torch.testing.assert_close(step_right[:, 0, :, :-1], step_right[:, 1, :, 1:], rtol=0, atol=1e-5)
