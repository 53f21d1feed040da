"""Pictures with four bytes a pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.data.packed import pack, unpack


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (33, 64)])
def test_pixels_come_back_from_pictures_and_tensors(height: int, width: int) -> None:
    pixels = picture(height, width)
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    for form in (Image.fromarray(pixels), planes):
        packed = pack(form)
        assert (packed.shape, packed.dtype) == ((height, width, 4), torch.uint8)
        assert (packed[..., :3].numpy() == pixels).all()
        found = unpack(packed)
        assert found.is_contiguous()
        assert torch.equal(found, planes)
        assert torch.equal(unpack(packed, mirrored=True), planes.flip(2))


def test_a_window_of_a_larger_picture_is_unpacked() -> None:
    packed = pack(Image.fromarray(picture(20, 30)))
    window = packed[3:11, 5:26]
    planes = window[..., :3].permute(2, 0, 1)
    assert torch.equal(unpack(window), planes)
    assert torch.equal(unpack(window, mirrored=True), planes.flip(2))


def test_results_have_memory_of_their_own() -> None:
    planes = torch.zeros(3, 4, 4, dtype=torch.uint8)
    packed = pack(planes)
    found = unpack(packed)
    packed.fill_(9)
    assert not found.any()
    assert not planes.any()
