"""Inputs and tolerances shared by the attention tests."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from botvision.attention.layer import Position
from botvision.attention.position import PositionTables
from botvision.attention.reference import Terms

# Largest difference allowed, as a fraction of the largest exact value (at least 1). A row a reason:
TOLERANCE = {
    torch.float64: 1e-11,  # sums of a few thousand terms in another order
    torch.float32: 1e-5,  # the same, at 24 bits
    torch.float16: 4e-3,  # 11 bits; position logits are rounded once before the softmax
    torch.bfloat16: 3e-2,  # 8 bits; logits near 4 are rounded to 1/64, weights and values to 1/256
}

MODES: tuple[Position, ...] = ("content", "position", "relative", "absolute")
GRIDS = ((5, 7), (1, 9), (14, 14), (33, 65))


@dataclass
class Case:
    """One attention problem in fp64: leaves that need gradients, and the table's own grid."""

    q: Tensor
    k: Tensor
    v: Tensor
    tables: PositionTables | None
    content: bool
    grid: tuple[int, int]
    sizes: Tensor | None

    def leaves(self) -> dict[str, Tensor]:
        tables = {} if self.tables is None else dict(self.tables.named_parameters())
        return {"q": self.q, "k": self.k, "v": self.v, **tables}

    def terms(self) -> Terms:
        """What the logits consist of, with the tables looked up."""
        position = None if self.tables is None else self.tables(self.grid, self.sizes)
        return Terms(self.grid, position, self.content, self.sizes)

    def to(self, dtype: torch.dtype) -> "Case":
        """The same values rounded to `dtype`, as new leaves."""
        q, k, v = (leaf.detach().to(dtype).requires_grad_() for leaf in (self.q, self.k, self.v))
        tables = None
        if self.tables is not None:
            tables = PositionTables(self.tables.grid, self.q.shape[-1], self.tables.kind).to(dtype)
            tables.load_state_dict(self.tables.state_dict())
        return Case(q, k, v, tables, self.content, self.grid, self.sizes)


def make_case(
    mode: Position,
    grid: tuple[int, int],
    *,
    batch: int = 2,
    heads: int = 2,
    width: int = 8,
    padded: bool = False,
) -> Case:
    """Random queries of the scale that a trained layer has; the tables are made for 9x12 cells, so that the
    grids of the tests both cut and stretch them."""
    generator = torch.Generator().manual_seed(grid[0] * 100 + grid[1])
    shape = (batch, heads, grid[0] * grid[1], width)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    tables = None
    if mode != "content":
        tables = PositionTables((9, 12), width, "absolute" if mode == "absolute" else "relative").double()
        for table in tables.parameters():
            torch.nn.init.normal_(table, std=0.5, generator=generator)
    sizes = None
    if padded:
        sizes = torch.tensor(
            [[max(1, grid[0] - image), max(1, grid[1] - 2 * image)] for image in range(batch)]
        )
    leaves = (q.mul_(width**-0.5).requires_grad_(), k.requires_grad_(), v.requires_grad_())
    return Case(*leaves, tables, mode != "position", grid, sizes)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
