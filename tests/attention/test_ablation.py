"""Attention replaced: against slow twins, in padded batches, and where a network needs it."""

import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

import botvision as bv
from botvision.attention import MHSA2d
from botvision.attention.ablation import ABLATIONS, Ablation, ablated, other_cells
from botvision.attention.layer import Convention, Position
from botvision.config.detector import DetectorOptions
from tests.attention.conftest import MODES, TOLERANCE

GRID, SIZES = (5, 7), torch.tensor([[5, 7], [3, 4], [1, 2]])


def slow_twin(layer: MHSA2d, x: Tensor, how: Ablation, sizes: Tensor) -> Tensor:
    """Cell by cell and head by head, from the definition; zeros beyond the images."""
    batch, dim, height, width = x.shape
    heads, depth = layer.heads, dim // layer.heads
    q, k, v = torch.einsum("oc,bchw->bohw", layer.qkv.weight[:, :, 0, 0], x).chunk(3, dim=1)
    out = torch.zeros_like(x)
    for b, n in itertools.product(range(batch), range(heads)):
        part = slice(n * depth, (n + 1) * depth)
        rows, columns = sizes[b].tolist()
        cells = list(itertools.product(range(rows), range(columns)))
        values = torch.stack([v[b, part, y, w] for y, w in cells])
        table = None if layer.position is None else layer.position((height, width), sizes)
        results = []
        for i, (y, w) in enumerate(cells):
            if how == "zero":
                weights = torch.zeros(len(cells), dtype=x.dtype)
            elif how == "even":
                weights = torch.full((len(cells),), 1 / len(cells), dtype=x.dtype)
            elif how == "own":
                weights = torch.zeros(len(cells), dtype=x.dtype)
                weights[i] = 1
            else:
                query = q[b, part, y, w]
                logits = torch.zeros(len(cells), dtype=x.dtype)
                if layer.mode != "position" and how != "position":
                    logits += torch.stack([k[b, part, y2, w2] for y2, w2 in cells]) @ query * layer.scale
                if table is not None and how != "content":
                    down, across = (part[b if len(part) > 1 else 0] for part in (table.height, table.width))
                    at = [(y2 - y, w2 - w) for y2, w2 in cells] if table.relative else cells
                    zero = (height - 1, width - 1) if table.relative else (0, 0)
                    rows_of = torch.stack([down[dy + zero[0]] + across[dx + zero[1]] for dy, dx in at])
                    logits += rows_of @ query * (layer.scale if layer.convention == "paper" else 1.0)
                weights = logits.softmax(0)
            results.append(weights @ values)
        for i, (y, w) in enumerate(cells):
            if how == "shuffled":
                giver = int(other_cells((height, width), (rows, columns))[y * width + w])
                i = cells.index((giver // width, giver % width))
            out[b, part, y, w] = results[i]
    return out


def inside(out: Tensor, sizes: Tensor) -> Tensor:
    """Cells beyond the images, whose values have no meaning, set to zero."""
    kept = torch.zeros_like(out)
    for b, (rows, columns) in enumerate(sizes.tolist()):
        kept[b, :, :rows, :columns] = out[b, :, :rows, :columns]
    return kept


@pytest.mark.parametrize("convention", get_args(Convention))
@pytest.mark.parametrize("mode", MODES)
def test_every_ablation_is_its_slow_twin(mode: Position, convention: Convention):
    layer = MHSA2d(8, heads=2, grid=(4, 9), position=mode, convention=convention).double()
    x = torch.randn(3, 8, *GRID, dtype=torch.float64)
    seen = []
    for how in ABLATIONS:
        if how in ("content", "position") and mode in ("content", "position"):
            continue
        with ablated(layer, how), torch.no_grad():
            out = inside(layer(x, sizes=SIZES), SIZES)
            whole = layer(x[:1])  # the first image fills the grid
            twin = slow_twin(layer, x, how, SIZES)
        assert torch.allclose(out, twin, rtol=0, atol=TOLERANCE[torch.float64]), how
        assert torch.allclose(whole, twin[:1], rtol=0, atol=TOLERANCE[torch.float64]), how
        seen.append(out)
    for one, two in itertools.combinations(seen, 2):
        assert not torch.allclose(one, two, atol=1e-3)  # no two of them are the same thing


def test_as_trained_is_untouched_and_all_is_restored_after_an_error():
    layer = MHSA2d(8, heads=2, grid=GRID)
    x = torch.randn(2, 8, *GRID)
    own = layer(x)
    with ablated(layer, "as-trained"):
        assert torch.equal(layer(x), own)
    with ablated(layer, "zero"):
        assert not layer(x).any()
    with pytest.raises(ValueError, match="expected a"), ablated(layer, "zero"):
        layer(x[:, :1])
    assert torch.equal(layer(x), own)
    assert not layer._forward_hooks


@pytest.mark.parametrize("how", ABLATIONS)
def test_type_and_memory_format_stay(how: Ablation):
    layer = MHSA2d(8, heads=2, grid=GRID)
    x = torch.randn(2, 8, *GRID).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        own = layer(x)
        with ablated(layer, how):
            out = layer(x)
    assert (out.dtype, out.shape, out.stride()) == (own.dtype, own.shape, own.stride())
    exact = slow_twin(layer, x, how, torch.tensor([GRID] * 2))
    assert torch.allclose(out.float(), exact, rtol=0, atol=TOLERANCE[torch.bfloat16])


def test_shuffling_keeps_no_cell_and_looks_at_the_image_alone():
    for size in ((5, 7), (1, 2), (3, 1), (2, 2)):
        givers = other_cells((5, 7), size)
        within = torch.arange(35).view(5, 7)[: size[0], : size[1]].flatten()
        assert not (givers[within] == within).any()
        assert sorted(givers.tolist()) == list(range(35))
    assert other_cells((5, 7), (1, 1)).tolist() == list(range(35))
    alone, padded = other_cells((3, 4), (3, 4)), other_cells((5, 7), (3, 4)).view(5, 7)[:3, :4].flatten()
    assert [(int(c) // 4, int(c) % 4) for c in alone] == [(int(c) // 7, int(c) % 7) for c in padded]


def test_chosen_blocks_alone_in_a_classifier():
    network = bv.create_model("botnet14_tiny", num_classes=3, img_size=64, c4_blocks=[1]).eval()
    layers = [module for module in network.modules() if isinstance(module, MHSA2d)]
    outputs: dict[int, Tensor] = {}
    with ablated(network, "zero", [2]):
        for number, layer in enumerate(layers, 1):
            layer.register_forward_hook(lambda _m, _a, out, number=number: outputs.__setitem__(number, out))
        network(torch.randn(1, 3, 64, 64))
    assert [bool(outputs[number].any()) for number in (1, 2)] == [True, False]


@pytest.mark.parametrize("how", ["zero", "even", "own", "shuffled", "content", "position"])
def test_a_padded_batch_of_a_detector_finds_what_images_alone_find(how: Ablation):
    """The sizes reach the replacement: an image's maps are those that it has alone."""
    options = DetectorOptions(heads="light", channels=16, box_channels=16, mask_convs=1)
    network = bv.mask_rcnn("botnet14_tiny", 1, options, image_size=96, backbone_args={"img_size": 96})
    layer = next(module for module in network.modules() if isinstance(module, MHSA2d))
    images = [torch.rand(3, 96, 64), torch.rand(3, 50, 96)]
    maps: list[Tensor] = []
    with torch.inference_mode(), ablated(network.eval(), how):
        layer.register_forward_hook(lambda _m, _a, out: maps.append(out))
        network(images)
        for image in images:
            network([image])
    together, *alone = maps
    for b, (own, (height, width)) in enumerate(zip(alone, [(6, 4), (4, 6)], strict=True)):
        assert torch.allclose(together[b, :, :height, :width], own[0, :, :height, :width], atol=1e-4)


class FarCell(nn.Module):
    """The class of every cell is what the opposite cell holds: only attention can fetch it.

    Channels: the cell's content c in -1 or 1, the cell's place as a one-hot code. A query asks for the place
    opposite to its own, values are the contents, so the output's sign is the opposite cell's content.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.attention = MHSA2d(1 + cells, heads=1, grid=(1, cells), position="content")
        weight = torch.zeros(3, 1 + cells, 1 + cells)
        weight[0, 1:, 1:] = 100.0 * torch.eye(cells).flip(0)  # queries
        weight[1, 1:, 1:] = torch.eye(cells)  # keys
        weight[2, 0, 0] = 1.0  # values
        self.attention.qkv.weight = nn.Parameter(weight.flatten(0, 1)[:, :, None, None])

    def forward(self, content: Tensor) -> Tensor:
        """(B, cells) of -1 and 1 to the sign that each cell is taken to have opposite."""
        places = torch.eye(content.shape[1]).expand(len(content), -1, -1)
        x = torch.cat([content[:, None], places], dim=1)[:, :, None]
        return self.attention(x)[:, 0, 0]


def test_a_network_that_needs_attention_fails_without_it():
    cells = 6
    network = FarCell(cells)
    content = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=cells)))  # all there are

    def accuracy(how: Ablation) -> float:
        with torch.no_grad(), ablated(network, how):
            return float((network(content).sign() == content.flip(1)).float().mean())

    assert accuracy("as-trained") == 1.0
    assert accuracy("zero") == 0.0  # a sign of zero is none
    assert accuracy("own") == 0.5  # the opposite cell is independent of the own one
    assert accuracy("even") < 0.75
    assert accuracy("shuffled") < 0.7


@pytest.mark.parametrize(
    ("position", "how", "blocks", "line"),
    [
        ("content", "position", None, r"choose from \(position='content'\), so 'position'"),
        ("content", "content", None, r"choose from \(position='content'\), so 'content'"),
        ("even", "position", None, r"choose from \(position='even'\), so 'position'"),
        ("own", "content", None, r"choose from \(position='own'\), so 'content'"),
        ("position", "content", [1], r"choose from \(position='position'\), so 'content'"),
        ("relative", "zero", [1, 2], "block 2: the network has attention in one block, 1"),
        ("relative", "zero", [0], "block 0: the network has attention in one block, 1"),
        ("relative", "none", None, "the ablation must be one of as-trained, zero, even, own"),
    ],
)
def test_mistakes_are_one_line(position: Position, how: Ablation, blocks: list[int] | None, line: str):
    layer = MHSA2d(8, heads=2, grid=GRID, position=position)
    with pytest.raises(ValueError, match=line) as error, ablated(layer, how, blocks):
        pass
    assert "\n" not in str(error.value)
    assert not layer._forward_hooks


def test_a_resnet_has_nothing_to_replace():
    with (
        pytest.raises(ValueError, match="the network has no attention; a BoTNet has"),
        ablated(nn.Conv2d(1, 1, 1), "zero"),
    ):
        pass
