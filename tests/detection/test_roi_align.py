"""The sparse form against torchvision's, values and gradients."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from botvision.detection import roi_align
from botvision.detection.roi_align import RoIAlign, extend


def maps(canvas: tuple[int, int], strides: list[int], batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, 5, -(-canvas[0] // s), -(-canvas[1] // s)) for s in strides]
    return {
        str(i): torch.randn(shape, generator=generator, requires_grad=True) for i, shape in enumerate(shapes)
    }


def boxes_within(height: int, width: int, count: int, seed: int) -> torch.Tensor:
    """Boxes of all sizes, some below a cell and at the border."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.tensor([width, height])
    start = torch.rand(count, 2, generator=generator) * sides
    start[:4] = sides - torch.rand(4, 2, generator=generator)
    length = 2 ** (7 * torch.rand(count, 2, generator=generator)) - 0.9
    return torch.cat([start, torch.minimum(start + length, sides.float())], 1)


@pytest.mark.parametrize("cells", [7, 14])
@pytest.mark.parametrize("strides", [[4, 8, 16, 32], [4, 8, 16, 16], [32]])
def test_equals_torchvision_on_extended_maps(strides, cells):
    sizes, canvas = [(96, 128), (50, 77)], (96, 128)
    features = maps(canvas, strides)
    boxes = [boxes_within(*sizes[0], 30, 1), boxes_within(*sizes[1], 20, 2)]
    ours = RoIAlign(list(features), strides, cells)
    extents = [[(-(-h // stride), -(-w // stride)) for h, w in sizes] for stride in strides]
    theirs = MultiScaleRoIAlign(list(features), cells, 2)
    theirs.scales, theirs.map_levels = ours.scales, ours.map_levels
    out = ours(features, boxes, sizes)
    extended = {k: extend(x, of_images) for (k, x), of_images in zip(features.items(), extents, strict=True)}
    expected = theirs(extended, boxes, sizes)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    wanted = torch.autograd.grad(expected, list(features.values()), upstream, retain_graph=True)
    for ours_, theirs_ in zip(
        torch.autograd.grad(out, list(features.values()), upstream), wanted, strict=True
    ):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-3, atol=1e-3)


def test_equals_torchvision_on_plain_maps_inside():
    """Without padding, boxes of more than a cell: exactly torchvision's layer, scales found by itself."""
    features, size = maps((128, 128), [4, 8, 16, 32]), (128, 128)
    boxes = [boxes_within(*size, 40, seed) for seed in (1, 2)]
    boxes = [part[((part[:, 2:] - part[:, :2]) >= 5).all(1)] for part in boxes]
    out = RoIAlign(list(features), [4, 8, 16, 32], 7)(features, boxes, [size, size])
    expected = MultiScaleRoIAlign(list(features), 7, 2)(features, boxes, [size, size])
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [[(96, 128)] * 2, [(96, 128), (50, 77)]], ids=["full", "padded"])
def test_maps_are_extended_once_and_without_waiting_for_a_gpu(monkeypatch, sizes):
    """The form for GPUs, on the meta device: a value that had to be read from there would be an error."""
    features = {name: x.to("meta") for name, x in maps((96, 128), [4, 8]).items()}
    calls = []
    monkeypatch.setattr(roi_align, "extend", lambda x, extents: calls.append(extents) or extend(x, extents))
    of_boxes, of_masks = (RoIAlign(["0", "1"], [4, 8], cells) for cells in (7, 14))
    ready = of_boxes.prepare(features, sizes)
    assert of_masks.prepare(ready, sizes) is ready
    assert [tuple(x.shape) for x in ready.values()] == [(2, 5, 26, 34), (2, 5, 14, 18)]
    cells = [[(24, 32)] * 2, [(12, 16)] * 2]
    assert calls == (cells if sizes[1] == (96, 128) else [[(24, 32), (13, 20)], [(12, 16), (7, 10)]])


def test_extended_maps():
    x = torch.arange(12.0).view(1, 1, 3, 4).repeat(2, 1, 1, 1)
    whole, parts = extend(x, [(3, 4)] * 2), extend(x, [(3, 4), (2, 3)])
    assert torch.equal(whole[0], parts[0])
    assert whole[0, 0, 3:].tolist() == [[8, 9, 10, 11, 11, 11]] * 2
    assert parts[1, 0].tolist() == [[0, 1, 2, 2, 2, 2]] + [[4, 5, 6, 6, 6, 6]] * 4


def test_no_boxes():
    features = maps((64, 64), [4, 8])
    out = RoIAlign(list(features), [4, 8], 7)(features, [torch.zeros(0, 4)] * 2, [(64, 64)] * 2)
    assert out.shape == (0, 5, 7, 7)
    out.sum().backward()
