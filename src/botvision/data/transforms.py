"""Pictures to network input: resizing, augmentation, normalisation.

Sizes are (height, width) throughout. There are two ways: torchvision's transforms, one picture at a time, for
whatever they offer; and :func:`flip_crop`, a whole batch at once, for the augmentation of small pictures,
where the per-picture way costs more than a small network's training step.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

if TYPE_CHECKING:
    from botvision.config.data import DataConfig

Size = tuple[int, int]
PadMode = Literal["zeros", "reflect"]
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
    """What `resize_and_crop` does to a picture of `hw`."""
    if tuple(hw) == tuple(size):
        return Cut((0, 0), hw, hw, (0, 0))
    scale = max(size[0] / crop / hw[0], size[1] / crop / hw[1])
    # No more of a strip than needed: scaled whole, one of 1x9000 pixels would take gigabytes.
    most = [math.ceil(STRIP * wanted / crop / scale) for wanted in size]
    kept = (hw[0], hw[1])
    if hw[0] > most[0] or hw[1] > most[1]:
        kept = (min(hw[0], most[0]), min(hw[1], most[1]))
    scaled = (max(size[0], round(kept[0] * scale)), max(size[1], round(kept[1] * scale)))
    return Cut(_corner(hw, kept), kept, scaled, _corner(scaled, size))


def _corner(outer: Size, inner: Size) -> Size:
    """Upper left corner of the middle, rounded as torchvision's centre crop does."""
    return round((outer[0] - inner[0]) / 2.0), round((outer[1] - inner[1]) / 2.0)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (..., 3, H, W) with values 0..255 to float32, (value / 255 - mean) / std by channel."""
    means, stds = scales(mean, std)
    return images.to(torch.float32).sub_(means).div_(stds)


def scales(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation for values 0..1 to float32 (3, 1, 1) each, for values 0..255."""
    means, stds = (
        torch.tensor(values, dtype=torch.float32).mul_(255).view(-1, 1, 1) for values in (mean, std)
    )
    return means, stds


def moves_of(draws: npt.NDArray[np.float64], padding: int) -> npt.NDArray[np.int64]:
    """What is done to pictures that are shifted within a border, and mirrored half of the time.

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
        moves: (B, 3), as :func:`moves_of` gives them for the same padding.
        padding: border in pixels on every side.
        mode: "zeros" (black) or "reflect" (mirrored without repeating the edge pixel).

    Returns:
        uint8 (B, C, H, W), new memory.
    """
    count, _, height, width = images.shape
    padded = pad(images, [padding] * 4, mode="constant" if mode == "zeros" else mode).numpy()
    # A view of all possible windows: numpy copies the chosen ones row by row, torch would go pixel by pixel.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    out = windows[np.arange(count), :, moves[:, 0], moves[:, 1]]
    mirrored = moves[:, 2] > 0
    out[mirrored] = torch.from_numpy(out[mirrored]).flip(-1).numpy()  # numpy: three times slower
    return torch.from_numpy(out)


class ResizeAndCrop(torch.nn.Module):
    """:func:`resize_and_crop` as a step of a torchvision pipeline."""

    def __init__(self, size: Size, crop: float) -> None:
        super().__init__()
        self.size, self.crop = size, crop

    def forward(self, image: Tensor) -> Tensor:
        return resize_and_crop(image, self.size, self.crop)


def eval_transform(size: Size, mean: Sequence[float], std: Sequence[float], crop: float = 1.0) -> v2.Compose:
    """What evaluation and prediction do with a uint8 picture (3, H, W): resize, centre crop, normalise."""
    return v2.Compose([ResizeAndCrop(size, crop), *_to_input(mean, std)])


def build_transforms(config: "DataConfig", train: bool) -> v2.Compose:
    """The pipeline of the configuration for one picture: uint8 (3, H, W) to float32 (3, *config.size)."""
    size = config.size
    if not train:
        return eval_transform(size, config.mean, config.std, config.crop_of_eval)
    steps: list[torch.nn.Module] = []
    if config.augment == "imagenet":
        steps += [
            v2.RandomResizedCrop(size, scale=config.crop_scale, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    else:
        steps.append(ResizeAndCrop(size, 1.0))
    if config.augment == "flip_crop":
        fill = "constant" if config.pad_mode == "zeros" else "reflect"
        steps += [v2.RandomCrop(size, padding=config.padding, padding_mode=fill), v2.RandomHorizontalFlip()]
    if config.randaugment:
        steps.append(v2.RandAugment(num_ops=2, magnitude=config.randaugment))
    steps += _to_input(config.mean, config.std)
    if config.random_erase:
        steps.append(v2.RandomErasing(p=config.random_erase))
    return v2.Compose(steps)


def _to_input(mean: Sequence[float], std: Sequence[float]) -> list[torch.nn.Module]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]


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
