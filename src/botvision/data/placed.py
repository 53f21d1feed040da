"""Batches of small pictures made where the network is, from a copy of all pictures that lies there.

A GPU then waits neither for this process to cut pictures out nor for their way to it: what is sent for a
batch is its indices and shifts, four whole numbers a picture. The batches are those of `transforms`, bit for
bit.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from botvision.config.data import DataConfig
from botvision.data.transforms import PadMode, scales

SHARE = 8  # pictures take at most one part in so many of a GPU's free memory


class PlacedImages:
    """All pictures of a data set on one device.

    Attributes:
        images: uint8 (N, 3, H, W), on the device.
        targets: int64 (N,), there, too.
    """

    def __init__(self, images: Tensor, targets: Tensor, config: DataConfig, device: torch.device) -> None:
        """Copy pictures uint8 (N, 3, H, W) and targets int64 (N,) to the device."""
        self.images, self.targets = images.to(device), targets.to(device)
        self.padding, self.mode = config.padding, config.pad_mode
        self.mean, self.std = (values.to(device) for values in scales(config.mean, config.std))

    def batch(self, indices: Tensor, moves: npt.NDArray[np.int64] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Cut out, mirror, normalise.

        Args:
            indices: int64 (B,), on the CPU.
            moves: (B, 3), as `moves_of` gives them; None for pictures as they are.

        Returns:
            images float32 (B, 3, H, W), targets int64 (B,), indices int64 (B,), all on the device.
        """
        numbers = (
            indices[:, None] if moves is None else torch.cat([indices[:, None], torch.from_numpy(moves)], 1)
        )
        numbers = numbers.to(self.images.device, non_blocking=True)  # at once: every transfer has its price
        chosen = numbers[:, 0]
        if moves is None:
            images = self.images[chosen]
        else:
            images = windows(self.images, chosen, numbers[:, 1:], self.padding, self.mode)
        return images.to(torch.float32).sub_(self.mean).div_(self.std), self.targets[chosen], chosen


def windows(images: Tensor, chosen: Tensor, moves: Tensor, padding: int, mode: PadMode) -> Tensor:
    """What `flip_crop` makes of some of many pictures, on any device, without padding a copy of them.

    Args:
        images: uint8 (N, C, H, W).
        chosen: int64 (B,), which of them.
        moves: int64 (B, 3), as `moves_of` gives them for the same padding.
        padding: border in pixels on every side.
        mode: the border's content.

    Returns:
        uint8 (B, C, H, W).
    """
    channels, height, width = (torch.arange(side, device=images.device) for side in images.shape[1:])
    mirrored = moves[:, 2:] > 0
    rows = height + moves[:, :1] - padding  # (B, H), of the picture; beyond its edges in the border
    columns = torch.where(mirrored, width.flip(0), width) + moves[:, 1:2] - padding  # (B, W)
    inner_rows, inner_columns = _inside(rows, mode), _inside(columns, mode)
    found = images[
        chosen[:, None, None, None],
        channels[:, None, None],
        inner_rows[:, None, :, None],
        inner_columns[:, None, None, :],
    ]
    if mode == "reflect":
        return found
    seen = (rows == inner_rows)[:, :, None] & (columns == inner_columns)[:, None, :]
    return found * seen[:, None]


def _inside(places: Tensor, mode: PadMode) -> Tensor:
    """Places (B, side) on an axis of `side` pixels: those beyond it mirrored back, or moved to its edge."""
    last = places.shape[1] - 1
    return places.clamp(0, last) if mode == "zeros" else last - (last - places.abs()).abs()


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether a device has memory to spare for a copy of the pictures."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * SHARE <= free
