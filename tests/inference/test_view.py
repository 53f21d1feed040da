"""Where cells lie in an image, held against pictures whose values are their own coordinates."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from botvision.backbones.models import create_model
from botvision.data.transforms import resize_and_crop
from botvision.detection.transform import FitTransform
from botvision.inference.view import View

SIDES = st.integers(1, 400)


def ramps(height, width):
    """(3, H, W) uint8: the first channel grows downwards, the second to the right."""
    down, across = torch.meshgrid(
        torch.linspace(0, 255, height), torch.linspace(0, 255, width), indexing="ij"
    )
    return torch.stack([down, across, torch.zeros_like(down)]).round().to(torch.uint8)


def places(view, rows, columns):
    """Continuous (y, x) in the image of the middles of the input's pixels."""
    return (
        (torch.arange(rows) + 0.5 + view.offset[0]) / view.scale[0] - 0.5,
        (torch.arange(columns) + 0.5 + view.offset[1]) / view.scale[1] - 0.5,
    )


def assert_input_shows(view, shown, size):
    """Values of the input are those that the ramps have where the view says that its pixels lie."""
    y, x = places(view, view.seen[0], view.seen[1])
    for values, place, side in (
        (shown[0, : view.seen[0], 0].float(), y, size[0]),
        (shown[1, 0, : view.seen[1]].float(), x, size[1]),
    ):
        wanted = 255 * place / (side - 1)
        middle = (place >= 1) & (place <= side - 2)  # the border is resampled with itself
        assert (values - wanted)[middle].abs().max() < 1.6


@pytest.mark.parametrize("size", [(480, 640), (333, 250), (64, 64), (100, 3000), (97, 65)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_what_a_classifier_sees(size, crop):
    view = View.cropped(size, (64, 64), crop)
    assert_input_shows(view, resize_and_crop(ramps(*size), (64, 64), crop), size)


@pytest.mark.parametrize("size", [(480, 640), (333, 250), (64, 64), (50, 77)])
def test_what_a_detector_sees(size):
    transform = FitTransform((160, 128), (0.0,) * 3, (1.0,) * 3, 2).eval()
    batch, _ = transform([ramps(*size)])
    view = View.fitted(size, batch.image_sizes[0], tuple(batch.tensors.shape[-2:]))
    assert_input_shows(view, 255 * batch.tensors[0], size)


@given(height=SIDES, width=SIDES, power=st.integers(0, 5))
def test_the_stride_is_found(height, width, power):
    grid = (math.ceil(height / 2**power), math.ceil(width / 2**power))
    view = View.whole((height, width))
    stride = view.stride(grid)
    assert view.cells(stride) == grid
    if max(grid) > 1:
        assert stride == 2**power


def test_a_map_of_no_stride_is_refused():
    with pytest.raises(ValueError, match="map of 5x5 cells of an input of 64x64"):
        View.whole((64, 64)).stride((5, 5))


@given(height=st.integers(8, 90), width=st.integers(8, 90), stride=st.sampled_from([4, 16, 32]))
def test_every_pixel_lies_in_the_box_of_its_cell(height, width, stride):
    seen = (max(1, round(1.37 * height)), max(1, round(1.37 * width)))
    view = View.fitted((height, width), seen, (128, 128))
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 3), view.middle):
        top, left, bottom, right = view.box(view.cell((y, x), stride), stride)
        assert top - 1e-9 <= y + 0.5 < bottom + 1e-9
        assert left - 1e-9 <= x + 0.5 < right + 1e-9
    rows, columns = view.cells(stride)
    edges = [view.box((row, 0), stride) for row in range(rows)]
    assert edges[0][0] == 0
    assert edges[-1][2] == pytest.approx(height)  # the last one ends with the image
    assert all(upper[2] == pytest.approx(lower[0]) for upper, lower in itertools.pairwise(edges))
    assert [len(places) for places in view.edges(stride)] == [rows + 1, columns + 1]


def test_by_hand():
    """A detector's 100x200 image, halved: 50x100 of a 64x128 canvas; cells of 16 are 32 pixels of it.

    The middle of the second row of cells is that of the input's pixel 16: 32 to 34 in the image.
    """
    view = View.fitted((100, 200), (50, 100), (64, 128))
    assert view.stride((4, 8)) == 16
    assert view.cells(16) == (4, 7)
    assert view.cell((0, 0), 16) == (0, 0)
    assert view.cell((16, 17), 16) == (0, 1)
    assert view.cell((99, 199), 16) == (3, 6)
    assert view.box((0, 0), 16) == (0, 0, 17, 17)
    assert view.box((1, 2), 16) == (17, 49, 49, 81)
    assert view.box((3, 6), 16) == (81, 177, 100, 200)
    assert view.edges(16)[0] == [0, 17, 49, 81, 100]
    assert view.middle == (50, 100)


@pytest.mark.parametrize("name", ["resnet14_nano", "botnet_s1_14_nano", "botnet14_nano"])
def test_a_cell_lies_in_the_middle_of_what_it_has_seen(name):
    """Of the map that reaches the first attention: what its inputs are, by their gradients."""
    torch.manual_seed(0)
    network: Any = create_model(name).eval()
    images = torch.rand(8, 3, 256, 256).requires_grad_()
    x = network.act1(network.bn1(network.conv1(images)))
    x = network.layer3(network.layer2(network.layer1(network.maxpool(x))))
    (gradient,) = torch.autograd.grad(x[:, :, 7, 9].sum(), images)
    seen = gradient.abs().sum((0, 1)) > 0
    view = View.whole((256, 256))
    assert view.stride((x.shape[2], x.shape[3])) == 16
    top, left, bottom, right = view.box((7, 9), 16)
    for inputs, low, high in ((seen.any(1), top, bottom), (seen.any(0), left, right)):
        first, last = inputs.nonzero().flatten()[[0, -1]].tolist()
        assert (first + last + 1) / 2 == pytest.approx((low + high) / 2, abs=1.5)  # maxima: not quite even


@pytest.mark.parametrize("at", [(-1, 0), (100, 0), (0, 200)])
def test_pixels_outside_the_image(at):
    with pytest.raises(ValueError, match=f"at {at[0]},{at[1]}: outside the image, whose y is 0 to 99"):
        View.whole((100, 200)).cell(at, 16)


def test_pixels_that_are_cut_off():
    view = View.cropped((100, 200), (64, 64))
    assert np.allclose(view.visible, (0, 50, 100, 150), atol=1)
    assert view.cell((0, 100), 16)[0] == 0
    with pytest.raises(ValueError, match=r"at 50,10: not in the middle part .* x 50 to 149"):
        view.cell((50, 10), 16)
