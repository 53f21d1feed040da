"""Views of images and instances: scaled, cut, mirrored."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from botvision.data import masks
from botvision.data.detection_config import DetectionDataConfig
from botvision.data.detection_transforms import View, choose_view, jitter_colors

SOURCE = (60, 90)
VIEWS = [
    View(SOURCE, SOURCE, 0, 0, SOURCE, mirrored=False),
    View(SOURCE, SOURCE, 0, 0, SOURCE, mirrored=True),
    View(SOURCE, SOURCE, 7, 11, (40, 50), mirrored=True),
    View(SOURCE, (120, 180), 13, 21, (64, 64), mirrored=False),
    View(SOURCE, (120, 180), 13, 21, (64, 64), mirrored=True),
    View(SOURCE, (33, 50), 0, 0, (33, 50), mirrored=False),
    View(SOURCE, (33, 50), 5, 9, (20, 30), mirrored=True),
]


def whole_then_cut(picture: torch.Tensor, view: View, nearest: bool) -> torch.Tensor:
    """The long way: scale everything, cut, mirror."""
    mode = F.InterpolationMode.NEAREST_EXACT if nearest else F.InterpolationMode.BILINEAR
    scaled = F.resize(picture, list(view.scaled), interpolation=mode, antialias=not nearest)
    (height, width), top, left = view.size, view.top, view.left
    window = scaled[..., top : top + height, left : left + width]
    return window.flip(-1) if view.mirrored else window


@pytest.mark.parametrize("view", VIEWS)
def test_pixels_are_those_of_the_whole_image_scaled_and_cut(view: View) -> None:
    picture = torch.randint(0, 256, (3, *SOURCE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found, expected = view.image(picture), whole_then_cut(picture, view, nearest=False)
    assert (found.shape, found.dtype) == (expected.shape, torch.uint8)
    # Pillow and torch round intermediate rows differently: one grey level.
    assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("view", VIEWS)
def test_masks_are_those_of_the_whole_image_scaled_and_cut(view: View) -> None:
    pixels = torch.zeros(4, *SOURCE, dtype=torch.uint8)
    pixels[0, 5:55, 10:80] = 1
    pixels[1, 20:30, 30:33] = 1
    pixels[2, 0:2, 88:90] = 1
    pixels[3] = torch.rand(SOURCE, generator=torch.Generator().manual_seed(0)) < 0.5
    out = np.zeros((5, *view.size), dtype=np.uint8)
    view.pick(masks.encode(pixels), out, np.array([3, 0, 4, 1]))
    expected = whole_then_cut(pixels, view, nearest=True).numpy()
    assert (out[[3, 0, 4, 1]] == expected).all()
    assert not out[2].any()


@pytest.mark.parametrize("view", VIEWS)
def test_polygons_boxes_and_masks_go_to_the_same_place(view: View) -> None:
    corners = np.array([[20.0, 15.0, 50.0, 45.0]])
    outline = np.array([[20, 15], [50, 15], [50, 45], [20, 45]], dtype=np.float32)
    mask = torch.from_numpy(masks.rasterise([[view.polygon(outline)]], view.size).copy())
    out = np.zeros((1, *view.size), dtype=np.uint8)
    whole = torch.zeros(1, *SOURCE, dtype=torch.uint8)
    whole[0, 15:45, 20:50] = 1
    view.pick(masks.encode(whole), out, np.array([0]))
    box = view.boxes(corners)
    # Edges fall between pixels once they are scaled.
    assert np.abs(masks.boxes_of(mask).numpy() - box).max() <= 1
    assert np.abs(masks.boxes_of(torch.from_numpy(out)).numpy() - box).max() <= 1


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("source", [(1, 1), (1, 900), (37, 53), (640, 427), (3000, 2)])
@pytest.mark.parametrize("jitter", [(0.8, 1.25), (0.1, 2.0)])
def test_windows_fit_the_canvas(draw: float, source: tuple[int, int], jitter: tuple[float, float]) -> None:
    config = DetectionDataConfig(image_size=(96, 128), scale_jitter=jitter)
    view = choose_view(source, config, [draw] * 4)
    assert 1 <= view.size[0] <= 96
    assert 1 <= view.size[1] <= 128
    assert 0 <= view.top <= view.scaled[0] - view.size[0]
    assert 0 <= view.left <= view.scaled[1] - view.size[1]
    factor = jitter[0] + (jitter[1] - jitter[0]) * draw
    fit = factor * min(96 / source[0], 128 / source[1])
    assert view.scaled == tuple(max(1, round(side * fit)) for side in source)
    picture = torch.zeros(3, *source, dtype=torch.uint8)
    assert view.image(picture).shape == (3, *view.size)


def test_without_jitter_the_image_fills_the_canvas_as_far_as_it_goes() -> None:
    config = DetectionDataConfig(image_size=(96, 128), augment="flip")
    view = choose_view((48, 100), config, [0.9, 0.9, 0.9, 0.2])
    assert (view.scaled, view.size, view.mirrored) == ((61, 128), (61, 128), True)
    config = DetectionDataConfig(image_size=(96, 128), augment="none")
    assert not choose_view((48, 100), config, [0.9, 0.9, 0.9, 0.2]).mirrored


def test_colours_change_within_their_range() -> None:
    picture = torch.randint(0, 256, (3, 9, 9), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert jitter_colors(picture, 0.0, [0.9, 0.9, 0.9]) is picture
    assert (jitter_colors(picture, 0.4, [0.5, 0.5, 0.5]).int() - picture.int()).abs().max() <= 1
    darker = jitter_colors(picture, 0.4, [0.0, 0.5, 0.5])
    assert abs(float(darker.float().mean() / picture.float().mean()) - 0.6) < 0.02
