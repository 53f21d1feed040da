"""Learned position tables, one per axis, looked up for any grid.

A table is made for a largest grid. A smaller map takes the rows around its centre, so that a distance
keeps its meaning; a larger map stretches the table linearly over its distances.

Shape legend: B batch, N heads, Y X query row and column, H W key row and column, D head width,
R rows of a table, P 1 or B (one table for all images, or one for each).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

PositionKind = Literal["relative", "absolute"]


class PositionRows(NamedTuple):
    """The table rows for one grid, in the order of their distance or of their place.

    Attributes:
        height: (P, 2H-1, D) for distances -(H-1)..H-1 if relative, else (P, H, D) for rows 0..H-1.
        width: (P, 2W-1, D) or (P, W, D) in the same way.
        relative: whether a row stands for the distance key - query or for the key's place.
    """

    height: Tensor
    width: Tensor
    relative: bool

    def scaled(self, factor: float) -> "PositionRows":
        """Return both tables times `factor`."""
        return PositionRows(self.height * factor, self.width * factor, self.relative)

    def to(self, dtype: torch.dtype) -> "PositionRows":
        """Return both tables in `dtype`."""
        return PositionRows(self.height.to(dtype), self.width.to(dtype), self.relative)


class PositionTables(nn.Module):
    """Two learned tables, rows and columns, shared by all heads (paper section 4, figure 4).

    Args:
        grid: largest (height, width) in cells, each at least 1, that has a table row of its own.
        head_dim: width D of a row.
        kind: "relative" (2H-1 and 2W-1 rows) or "absolute" (H and W rows).

    Loading weights that were saved for another grid takes over that grid, so that the same weights are the
    same function whatever size the module was made for.
    """

    def __init__(self, grid: tuple[int, int], head_dim: int, kind: PositionKind = "relative") -> None:
        super().__init__()
        if min(grid) < 1:
            raise ValueError(f"position tables need a grid of at least 1x1 cells, got {grid[0]}x{grid[1]}")
        self.kind: PositionKind = kind
        rows = [2 * cells - 1 if kind == "relative" else cells for cells in grid]
        self.height = nn.Parameter(torch.empty(rows[0], head_dim))
        self.width = nn.Parameter(torch.empty(rows[1], head_dim))
        self.register_load_state_dict_pre_hook(_adopt_stored_grid)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution with standard deviation D^-0.5, as the authors' code has it."""
        for table in (self.height, self.width):
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    @property
    def grid(self) -> tuple[int, int]:
        """Largest (height, width) in cells with a row of its own; follows the loaded weights."""
        rows = self.height.shape[0], self.width.shape[0]
        return ((rows[0] + 1) // 2, (rows[1] + 1) // 2) if self.kind == "relative" else rows

    def forward(self, grid: tuple[int, int], sizes: Tensor | None = None) -> PositionRows:
        """Return the rows for a map of `grid` cells.

        Args:
            grid: (height, width) of the map in cells.
            sizes: (B, 2) integer (height, width) of each image within the map, where images are padded. An
                image's rows depend on its own size alone, never on the padding.
        """
        heights, widths = (None, None) if sizes is None else (sizes[:, 0], sizes[:, 1])
        lookup = _relative_rows if self.kind == "relative" else _absolute_rows
        return PositionRows(
            lookup(self.height, grid[0], heights),
            lookup(self.width, grid[1], widths),
            self.kind == "relative",
        )

    def extra_repr(self) -> str:
        return f"grid={self.grid}, head_dim={self.height.shape[1]}, kind={self.kind!r}"


def _adopt_stored_grid(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give the tables the stored number of rows; what cannot be a table is left to torch's strict check."""
    assert isinstance(module, PositionTables)
    for name, table in (("height", module.height), ("width", module.width)):
        stored = state_dict.get(prefix + name)
        if stored is None or stored.ndim != 2 or stored.shape[1:] != table.shape[1:]:
            continue
        if stored.shape[0] != table.shape[0] and (module.kind == "absolute" or stored.shape[0] % 2 == 1):
            # .data keeps the Parameter itself, which an optimiser may already hold
            table.data = table.data.new_empty(stored.shape)


def _relative_rows(table: Tensor, cells: int, extents: Tensor | None) -> Tensor:
    """Rows of a (2G-1, D) table for the distances -(cells-1)..cells-1, as (P, 2*cells-1, D)."""
    largest = (table.shape[0] + 1) // 2
    if cells <= largest:  # every image in the map is no larger than the map: distances keep their rows
        return table[largest - cells : largest + cells - 1].unsqueeze(0)
    distances = torch.arange(1 - cells, cells, device=table.device)
    own = torch.full((1,), cells, device=table.device) if extents is None else extents
    return _sample(table, distances * _stretch(own, largest, table) + (largest - 1))


def _absolute_rows(table: Tensor, cells: int, extents: Tensor | None) -> Tensor:
    """Rows of a (G, D) table for the places 0..cells-1, as (P, cells, D)."""
    largest = table.shape[0]
    if extents is None and cells <= largest:
        start = (largest - cells) // 2
        return table[start : start + cells].unsqueeze(0)
    places = torch.arange(cells, device=table.device)
    own = torch.full((1,), cells, device=table.device) if extents is None else extents
    start = (largest - own).clamp(min=0) // 2
    return _sample(table, places * _stretch(own, largest, table) + start.unsqueeze(1))


def _stretch(own: Tensor, largest: int, table: Tensor) -> Tensor:
    """(P, 1) table rows per cell: 1 up to the largest grid, less beyond; never in half precision."""
    ratio = torch.where(own > largest, (largest - 1) / (own - 1).clamp(min=1), 1.0)
    return ratio.to(torch.promote_types(table.dtype, torch.float32)).unsqueeze(1)


def _sample(table: Tensor, index: Tensor) -> Tensor:
    """Linear interpolation of (R, D) rows at fractional (P, K) indexes, held at both ends: (P, K, D)."""
    index = index.clamp(0, table.shape[0] - 1)
    lower = index.floor().long()
    upper = (lower + 1).clamp(max=table.shape[0] - 1)
    weight = (index - lower).to(table.dtype).unsqueeze(-1)
    return torch.lerp(table[lower], table[upper], weight)
