"""A quantity of every image by which accuracy can be broken down, such as a distance."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grouping:
    """Intervals of a quantity, and its value for every image, or label.

    Attributes:
        name: of the quantity, one word, e.g. "distance".
        unit: of the quantity, e.g. "px".
        edges: ascending (G+1); group g holds values from edge g up to, without, edge g+1.
        values: float64 (N,), or (N, G) for G labels in an image.
    """

    name: str
    unit: str
    edges: tuple[float, ...]
    values: Tensor

    def intervals(self) -> list[tuple[float, float]]:
        """Lower and upper edge of each (G)."""
        return list(zip(self.edges[:-1], self.edges[1:], strict=True))

    def groups(self) -> Tensor:
        """int64, the interval of every value, from 0."""
        return torch.bucketize(self.values, torch.tensor(self.edges, dtype=torch.float64), right=True) - 1

    def take(self, indices: Tensor) -> "Grouping":
        """The same of some images, int64 (M,)."""
        return Grouping(self.name, self.unit, self.edges, self.values[indices])
