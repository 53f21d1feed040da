"""Pictures to network input: moves, normalisation, scaling; strips that would be thousands of pixels long."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from botvision.data.counter_rng import uniform
from botvision.data.transforms import STRIP, flip_crop, moves_of, normalise, resize_and_crop


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


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_flip_crop_equals_torchvision_picture_by_picture(mode):
    images = torch.randint(0, 256, (40, 3, 9, 14), dtype=torch.uint8)
    draws = uniform(3, 1, 0, np.arange(40))
    fast = flip_crop(images, moves_of(draws, 4), padding=4, mode=mode)
    for image, (down, right, mirror), out in zip(images, draws, fast, strict=True):
        slow = F.pad(image, [4], padding_mode="constant" if mode == "zeros" else "reflect")
        slow = F.crop(slow, int(down * 9), int(right * 9), 9, 14)
        assert torch.equal(F.horizontal_flip(slow) if mirror < 0.5 else slow, out)


def test_moves_are_equally_frequent():
    moves = moves_of(uniform(3, 0, 1, np.arange(200 * 5 * 5 * 2)), padding=2)
    counts = np.zeros((5, 5, 2), dtype=int)
    np.add.at(counts, tuple(moves.T), 1)
    assert counts.min() > 200 - 5 * 200**0.5  # the standard deviation of a count is 14
    assert counts.max() < 200 + 5 * 200**0.5


def test_flip_crop_without_border_only_mirrors():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    out = flip_crop(images, np.array([[0, 0, 0], [0, 0, 1]]), padding=0)
    assert torch.equal(out[0], images[0])
    assert torch.equal(out[1], images[1].flip(-1))


def test_normalise_equals_torchvision():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    slow = F.normalize(F.to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(
        normalise(images, mean, std), slow, rtol=0, atol=2e-6
    )  # another order of rounding


@pytest.mark.parametrize(("shape", "size"), [((40, 60), (32, 32)), ((60, 40), (16, 48)), ((7, 5), (32, 20))])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_resize_and_crop_keeps_proportions(shape, size, crop):
    # A picture that is bright on its left half stays so in the middle of any crop.
    image = torch.zeros(3, *shape, dtype=torch.uint8)
    image[:, :, : shape[1] // 2] = 200
    out = resize_and_crop(image, size, crop)
    assert out.shape == (3, *size)
    assert out[:, :, 0].min() > 150
    assert out[:, :, -1].max() < 50


def test_resize_and_crop_leaves_pictures_of_the_right_size_alone():
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert resize_and_crop(image, (8, 8), 0.875) is image
