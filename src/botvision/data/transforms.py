"""Pictures to network input: resizing, augmentation, normalisation.

Sizes are (height, width) throughout. There are two ways: torchvision's transforms, one picture at a time, for
whatever they offer; and `flip_crop`, a whole batch at once, for the augmentation of small pictures,
where the per-picture way costs more than a small network's training step.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from botvision.config.data import DataConfig

Size = tuple[int, int]
PadMode = Literal["zeros", "reflect"]
SHARE = 8  # pictures take at most one part in so many of a GPU's free memory
STRIP = 16  # what a picture would have beyond so many times the wanted side is cut off before it is scaled


def resize_and_crop(image: Tensor, size: Size, crop: float = 1.0) -> Tensor:
    """Scale until the picture covers size / crop, keeping its proportions, and cut `size` out of the middle.

    A picture that already has `size` is returned as it is, whatever `crop` says.

    Args:
        image: uint8 (3, H, W).
        size: (height, width) wanted.
        crop: part of each side that remains, 0 < crop <= 1; 0.875 is customary for ImageNet.

    Returns:
        uint8 (3, *size).
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    cut = cut_of((image.shape[-2], image.shape[-1]), size, crop)
    image = F.crop(image, *cut.first, *cut.kept)
    return F.crop(F.resize(image, list(cut.scaled), antialias=True), *cut.second, *size)


class Cut(NamedTuple):
    """What `resize_and_crop` takes of a picture, all (y, x) or (height, width) in pixels.

    Attributes:
        first: upper left corner of the part that is scaled; (0, 0) but for extreme strips.
        kept: size of that part.
        scaled: size that it is scaled to.
        second: upper left corner, in the scaled part, of what the network is shown.
    """

    first: Size
    kept: Size
    scaled: Size
    second: Size


def cut_of(hw: Size, size: Size, crop: float = 1.0) -> Cut:
    """Return what `resize_and_crop` does to a picture of `hw`."""
    if tuple(hw) == tuple(size):
        return Cut((0, 0), hw, hw, (0, 0))
    scale = max(size[0] / crop / hw[0], size[1] / crop / hw[1])
    # No more of a strip than needed: scaled whole, one of 1x9000 pixels would take gigabytes.
    most = [math.ceil(STRIP * wanted / crop / scale) for wanted in size]
    kept = (min(hw[0], most[0]), min(hw[1], most[1]))
    scaled = (max(size[0], round(kept[0] * scale)), max(size[1], round(kept[1] * scale)))
    return Cut(_corner(hw, kept), kept, scaled, _corner(scaled, size))


def _corner(outer: Size, inner: Size) -> Size:
    """Upper left corner of the middle, rounded as torchvision's centre crop does."""
    return round((outer[0] - inner[0]) / 2.0), round((outer[1] - inner[1]) / 2.0)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return uint8 (..., 3, H, W) as float32, (value / 255 - mean) / std by channel."""
    means, stds = scales(mean, std)
    return images.to(torch.float32).sub_(means).div_(stds)


def scales(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation for values 0..255, float32 (3, 1, 1), from those for values 0..1."""
    means, stds = (
        torch.tensor(values, dtype=torch.float32).mul_(255).view(-1, 1, 1) for values in (mean, std)
    )
    return means, stds


def moves_of(draws: npt.NDArray[np.float64], padding: int) -> npt.NDArray[np.int64]:
    """Return what is done to pictures that are shifted within a border, and mirrored half of the time.

    Args:
        draws: (B, 3) uniform in [0, 1): shift down, shift right, mirror.
        padding: border in pixels on every side.

    Returns:
        (B, 3): first row and column of the padded picture that remain, 0..2 * padding, and 1 for mirrored.
    """
    return np.concatenate([draws[:, :2] * (2 * padding + 1), draws[:, 2:] < 0.5], axis=1).astype(np.int64)


def flip_crop(
    images: Tensor, moves: npt.NDArray[np.int64], padding: int = 4, mode: PadMode = "zeros"
) -> Tensor:
    """Shift each picture within a padded border, and mirror some; one batch at once, on the CPU.

    Args:
        images: uint8 (B, C, H, W).
        moves: (B, 3), as `moves_of` gives them for the same padding.
        padding: border in pixels on every side.
        mode: "zeros" (black) or "reflect" (mirrored without repeating the edge pixel).

    Returns:
        uint8 (B, C, H, W), new memory.
    """
    count, _, height, width = images.shape
    padded = pad(images, [padding] * 4, mode="constant" if mode == "zeros" else mode).numpy()
    # A view of all possible windows: numpy copies the chosen ones row by row, torch would go pixel by pixel.
    views = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    out = views[np.arange(count), :, moves[:, 0], moves[:, 1]]
    mirrored = moves[:, 2] > 0
    out[mirrored] = torch.from_numpy(out[mirrored]).flip(-1).numpy()  # numpy: three times slower
    return torch.from_numpy(out)


def windows(images: Tensor, chosen: Tensor, moves: Tensor, padding: int, mode: PadMode) -> Tensor:
    """Return what `flip_crop` makes of some of many pictures, on any device, without padding a copy of them.

    Args:
        images: uint8 (N, C, H, W).
        chosen: int64 (B,), which of them.
        moves: int64 (B, 3), as for `flip_crop`.
        padding: border in pixels on every side.
        mode: the border's content.

    Returns:
        uint8 (B, C, H, W).
    """
    channels, height, width = (torch.arange(side, device=images.device) for side in images.shape[1:])
    mirrored = moves[:, 2:] > 0
    rows = height + moves[:, :1] - padding  # (B, H), of the picture; beyond its edges in the border
    columns = torch.where(mirrored, width.flip(0), width) + moves[:, 1:2] - padding  # (B, W)
    inner_rows, inner_columns = _within_edges(rows, mode), _within_edges(columns, mode)
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


def _within_edges(places: Tensor, mode: PadMode) -> Tensor:
    """Places (B, side) on an axis of `side` pixels: those beyond it mirrored back, or moved to its edge."""
    last = places.shape[1] - 1
    return places.clamp(0, last) if mode == "zeros" else last - (last - places.abs()).abs()


class PlacedImages:
    """All pictures of a data set on one device, where batches are made bit for bit as on the CPU.

    A GPU then waits neither for this process to cut pictures out nor for their way to it: what is sent for a
    batch is its indices and shifts, four whole numbers a picture.

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
        """Return a batch: cut out, mirrored, normalised.

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


def fits(images: Tensor, device: torch.device) -> bool:
    """Return whether a device has memory to spare for a copy of the pictures."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * SHARE <= free


def build_transforms(config: DataConfig, train: bool) -> v2.Compose:
    """Return the steps for one picture, uint8 (3, H, W), to float32 (3, *config.size)."""
    size, steps = config.size, []
    if train and config.augment == "imagenet":
        crop = v2.RandomResizedCrop(size, scale=config.crop_scale, antialias=True)
        steps += [crop, v2.RandomHorizontalFlip()]
    else:
        steps.append(partial(resize_and_crop, size=size, crop=1.0 if train else config.crop_of_eval))
    if train and config.augment == "flip_crop":
        fill = "constant" if config.pad_mode == "zeros" else "reflect"
        steps += [v2.RandomCrop(size, padding=config.padding, padding_mode=fill), v2.RandomHorizontalFlip()]
    if train and config.randaugment:
        steps.append(v2.RandAugment(num_ops=2, magnitude=config.randaugment))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(config.mean), list(config.std))]
    if train and config.random_erase:
        steps.append(v2.RandomErasing(p=config.random_erase))
    return v2.Compose(steps)


@contextmanager
def borrowed_generator() -> Iterator[torch.Generator]:
    """torch's default CPU generator, to be reseeded at will, given back in the state in which it was.

    torchvision draws from it without offering another. Not `torch.manual_seed`: that reseeds every device.
    """
    generator = torch.default_generator
    state = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(state)
