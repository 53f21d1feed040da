"""Strips: pictures that, scaled whole to cover a network's input, would be thousands of pixels long."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from botvision.data.transforms import STRIP, resize_and_crop


def scaled_whole(image: torch.Tensor, size: tuple[int, int], crop: float) -> torch.Tensor:
    """The definition: scale until size / crop is covered, cut the middle out."""
    height, width = image.shape[-2:]
    scale = max(size[0] / crop / height, size[1] / crop / width)
    return F.center_crop(
        F.resize(image, [round(height * scale), round(width * scale)], antialias=True), list(size)
    )


@pytest.mark.parametrize("crop", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("shape", [(2, 4000), (4000, 2), (40, 4000), (4000, 40)])
def test_strips_look_as_if_they_were_scaled_whole(shape, crop):
    height, width = shape
    rows, columns = torch.linspace(0, 120, height)[:, None], torch.linspace(0, 120, width)[None]
    image = (rows + columns).to(torch.uint8).expand(3, height, width)
    strip = resize_and_crop(image, (8, 12), crop)
    assert strip.shape == (3, 8, 12)
    assert (strip.int() - scaled_whole(image, (8, 12), crop).int()).abs().max() <= 2


@pytest.mark.parametrize("shape", [(1, 200_000), (200_000, 1), (1, 1), (3, 2)])
def test_extreme_shapes_take_little_memory(shape):
    # Scaled whole to cover 224x224 the strips would have 10 billion pixels.
    assert resize_and_crop(torch.full((3, *shape), 7, dtype=torch.uint8), (224, 224)).unique().tolist() == [7]


@pytest.mark.parametrize("crop", [1.0, 0.875, 0.01])
def test_ordinary_pictures_are_not_cut_first(crop):
    image = torch.randint(
        0, 256, (3, 30, 30 * STRIP), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(resize_and_crop(image, (10, 10), crop), scaled_whole(image, (10, 10), crop))
