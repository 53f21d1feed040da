"""What sources of drawn images have in common: pictures that are asked for in order are drawn together."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

CHUNK = 16  # images drawn at once: their planes stay in the processor's cache


class DrawnSource(ABC):
    """N images that are drawn when they are asked for.

    Attributes:
        targets: int64 (N,).
    """

    targets: Tensor

    def __init__(self) -> None:
        self._previous, self._ahead_from, self._ahead = -1, 0, torch.empty(0)

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def name_of(self, index: int) -> str:
        """What stands for a file's name."""

    def load(self, index: int) -> Tensor:
        """uint8 (3, H, W); asked for in ascending order, sixteen are drawn at once, several times faster."""
        ascending, self._previous = index == self._previous + 1, index
        start = index - self._ahead_from
        if not 0 <= start < len(self._ahead):
            if not ascending:
                return self.load_many(torch.tensor([index]))[0]
            stop = min(index + CHUNK, len(self))
            self._ahead, self._ahead_from, start = self.load_many(torch.arange(index, stop)), index, 0
        return self._ahead[start]

    def load_many(self, indices: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) for int64 (B,)."""
        return torch.cat([self._draw(chunk) for chunk in indices.split(CHUNK)])

    @abstractmethod
    def _draw(self, indices: Tensor) -> Tensor:
        """The same for at most `CHUNK` of them."""
