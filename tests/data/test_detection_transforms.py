"""Views of images and instances: scaled, cut, mirrored."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from botvision.coco import masks
from botvision.config.data import DetectionDataConfig
from botvision.data import detection_transforms
from botvision.data.detection_transforms import Window, choose_window, jitter_colors, pack, unpack
from botvision.data.images import decode

SOURCE = (60, 90)
VIEWS = [
    Window(SOURCE, SOURCE, 0, 0, SOURCE, mirrored=False),
    Window(SOURCE, SOURCE, 0, 0, SOURCE, mirrored=True),
    Window(SOURCE, SOURCE, 7, 11, (40, 50), mirrored=True),
    Window(SOURCE, (120, 180), 13, 21, (64, 64), mirrored=False),
    Window(SOURCE, (120, 180), 13, 21, (64, 64), mirrored=True),
    Window(SOURCE, (33, 50), 0, 0, (33, 50), mirrored=False),
    Window(SOURCE, (33, 50), 5, 9, (20, 30), mirrored=True),
]


def whole_then_cut(picture: torch.Tensor, view: Window, nearest: bool) -> torch.Tensor:
    """The long way: scale everything, cut, mirror."""
    mode = F.InterpolationMode.NEAREST_EXACT if nearest else F.InterpolationMode.BILINEAR
    scaled = F.resize(picture, list(view.scaled), interpolation=mode, antialias=not nearest)
    (height, width), top, left = view.size, view.top, view.left
    window = scaled[..., top : top + height, left : left + width]
    return window.flip(-1) if view.mirrored else window


@pytest.mark.parametrize("view", VIEWS)
def test_pixels_are_those_of_the_whole_image_scaled_and_cut(view: Window) -> None:
    picture = torch.randint(0, 256, (3, *SOURCE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found, expected = view.image(picture), whole_then_cut(picture, view, nearest=False)
    assert (found.shape, found.dtype) == (expected.shape, torch.uint8)
    # Pillow and torch round intermediate rows differently: one grey level.
    assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("view", VIEWS)
def test_a_window_resampled_alone_has_the_same_pixels(view: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (3, *SOURCE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    whole = view.image(picture)
    assert torch.equal(whole, view.image(pixels))
    monkeypatch.setattr(detection_transforms, "LARGEST_SCALED", 0)
    alone = view.image(picture)
    assert torch.equal(alone, view.image(pixels))
    # Pillow and torch round intermediate rows differently: one grey level.
    assert (alone.int() - whole.int()).abs().max() <= 1


def test_an_image_scaled_far_beyond_its_window_is_never_made_whole() -> None:
    view = Window(SOURCE, (60_000, 90_000), 30_000, 45_000, (64, 64), mirrored=False)  # 20 GB of pixels
    assert view.image(torch.full((3, *SOURCE), 7, dtype=torch.uint8)).unique().tolist() == [7]


@pytest.mark.parametrize(
    ("source", "scaled", "reduction"),
    [
        ((480, 640), (768, 1024), 1), ((480, 640), (160, 213), 2), ((480, 640), (161, 215), 1),
        ((480, 640), (80, 106), 4), ((480, 640), (40, 53), 8), ((480, 640), (1, 1), 8),
        ((3024, 4032), (768, 1024), 2), ((3024, 4032), (484, 645), 4), ((480, 640), (480, 40), 1),
        ((427, 640), (10, 20), 1), ((426, 640), (10, 20), 2), ((428, 640), (10, 20), 4),
    ],
)  # fmt: skip
def test_a_file_is_decoded_with_pixels_to_spare_and_none_halved(
    source: tuple[int, int], scaled: tuple[int, int], reduction: int
) -> None:
    assert Window(source, scaled, 0, 0, scaled, mirrored=False).reduction == reduction


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(120, 160), (70, 90)])
def test_a_picture_decoded_smaller_gives_nearly_the_same_window(
    size: tuple[int, int], mirrored: bool
) -> None:
    rows, columns = torch.linspace(0, 9, 480)[:, None], torch.linspace(0, 12, 640)[None]
    waves = torch.stack([torch.sin(rows + k) * torch.cos(columns - k) for k in range(3)])
    pixels = (127 * (1 + waves)).to(torch.uint8)
    view = Window((480, 640), (120, 160), 120 - size[0], 160 - size[1], size, mirrored)
    assert view.reduction == 2
    stored = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stored, "JPEG", quality=95)
    whole, smaller = (decode(stored.getvalue(), reduce=reduce).rgb for reduce in (1, 2))
    assert (whole.size, smaller.size) == ((640, 480), (320, 240))
    difference = (view.image(whole).int() - view.image(smaller).int()).abs().float()
    assert difference.mean() < 1
    assert difference.max() <= 4


@pytest.mark.parametrize("view", VIEWS)
def test_masks_are_those_of_the_whole_image_scaled_and_cut(view: Window) -> None:
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
def test_polygons_boxes_and_masks_go_to_the_same_place(view: Window) -> None:
    corners = np.array([[20.0, 15.0, 50.0, 45.0]])
    outline = np.array([[20, 15], [50, 15], [50, 45], [20, 45]], dtype=np.float32)
    rles = masks.polygons_to_rles([[view.polygon(outline)]], view.size)
    mask = torch.from_numpy(masks.decode(rles, view.size).copy())
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
    view = choose_window(source, config, [draw] * 4)
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
    view = choose_window((48, 100), config, [0.9, 0.9, 0.9, 0.2])
    assert (view.scaled, view.size, view.mirrored) == ((61, 128), (61, 128), True)
    config = DetectionDataConfig(image_size=(96, 128), augment="none")
    assert not choose_window((48, 100), config, [0.9, 0.9, 0.9, 0.2]).mirrored


def test_without_flips_nothing_is_mirrored_and_the_rest_stays() -> None:
    draws = [0.3, 0.6, 0.9, 0.1]
    usual = choose_window((48, 100), DetectionDataConfig(image_size=64), draws)
    without = choose_window((48, 100), DetectionDataConfig(image_size=64, flip=False), draws)
    assert usual.mirrored
    assert without == dataclasses.replace(usual, mirrored=False)
    assert not choose_window((48, 100), DetectionDataConfig(augment="flip", flip=False), draws).mirrored


def test_colours_change_within_their_range() -> None:
    picture = torch.randint(0, 256, (3, 9, 9), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert jitter_colors(picture, 0.0, [0.9, 0.9, 0.9]) is picture
    assert (jitter_colors(picture, 0.4, [0.5, 0.5, 0.5]).int() - picture.int()).abs().max() <= 1
    darker = jitter_colors(picture, 0.4, [0.0, 0.5, 0.5])
    assert abs(float(darker.float().mean() / picture.float().mean()) - 0.6) < 0.02


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
