"""Least squares of one linear map from sums over cells, so that no map has to be kept.

Shape legend: C channels in, D channels out, P cells.
"""

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass
class Moments:
    """Sums over cells from which the least squares of one head, and its errors, follow; float64.

    Attributes:
        cells: number of cells.
        inputs: (C,) sum of what the head averages; `squares` (C, C) of their products.
        outputs: (D,) sum of the convolution's outputs, `output_squares` (D,) of their squares.
        products: (C, D) sum of the products of inputs and outputs.
    """

    cells: int
    inputs: Tensor
    squares: Tensor
    outputs: Tensor
    output_squares: Tensor
    products: Tensor

    @classmethod
    def of(cls, inputs: Tensor, outputs: Tensor) -> "Moments":
        """Of (P, C) and (P, D)."""
        inputs, outputs = inputs.float(), outputs.float()
        sums = inputs.sum(0), inputs.mT @ inputs, outputs.sum(0), outputs.square().sum(0), inputs.mT @ outputs
        return cls(len(inputs), *(part.double() for part in sums))

    def __add__(self, other: "Moments") -> "Moments":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Moments(*(a + b for a, b in pairs))

    def solve(self, prior: Tensor, ridge: float) -> Tensor:
        """(C, D) least squares with a ridge towards the prior (C, D)."""
        pull = ridge * self.squares.diagonal().mean().clamp(min=1e-12)
        left = self.squares + pull * torch.eye(len(self.squares), device=prior.device, dtype=prior.dtype)
        return torch.cholesky_solve(self.products + pull * prior, torch.linalg.cholesky(left))

    def spread(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(D,) mean and variance of the head's output, and its covariance with the convolution's."""
        mean = values.mT @ (self.inputs / self.cells)
        square = (values * (self.squares @ values)).sum(0) / self.cells
        product = (values * self.products).sum(0) / self.cells
        return mean, square - mean.square(), product - mean * self.outputs / self.cells

    @property
    def variance(self) -> Tensor:
        """(D,) of the convolution's output."""
        return self.output_squares / self.cells - (self.outputs / self.cells).square()

    def missed(self, values: Tensor) -> Tensor:
        """(D,) mean square of what is missed by the head's output, once means are made equal."""
        _, variance, covariance = self.spread(values)
        return self.variance - 2 * covariance + variance
