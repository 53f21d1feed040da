"""Attention maps against the layer's own output and its definition, in classifiers and padded detectors."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import botvision as bv
from botvision.attention import MHSA2d, reference
from botvision.config.detector import DetectorOptions
from botvision.inference.attention_maps import attention_maps, position_logits
from botvision.inference.detector import DetectionPredictor
from botvision.inference.predictor import Predictor

OPTIONS = DetectorOptions(heads="light", channels=16, box_channels=16, mask_convs=1)
DESCRIPTION = {
    "name": "net", "task": "classify", "classes": ["a", "b"], "image_size": [64, 96],
    "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "crop": 0.875,
}  # fmt: skip


def sharp(network):
    """Weights that attend to something: fresh ones attend to all cells nearly alike."""
    torch.manual_seed(0)
    for layer in attention_of(network):
        with torch.no_grad():
            layer.qkv.weight.mul_(12)
            for table in layer.position.parameters() if layer.position is not None else ():
                table.normal_(std=1.5)
    return network.eval()


def attention_of(network):
    return [module for module in network.modules() if isinstance(module, MHSA2d)]


def classifier(name="botnet26_small", **options):
    torch.manual_seed(1)
    return sharp(bv.create_model(name, num_classes=2, img_size=(64, 96), **options))


def detector(**options):
    torch.manual_seed(1)
    arguments = {"img_size": 64, **options}
    return sharp(bv.mask_rcnn("botnet26_small", 2, OPTIONS, image_size=64, backbone_args=arguments))


def picture(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Spy:
    """What goes into every attention layer, and what comes out."""

    def __init__(self, network: nn.Module) -> None:
        self.seen = []
        for layer in attention_of(network):
            layer.register_forward_hook(self._note)

    def _note(self, layer, args, out):
        self.seen.append((layer, args[0], args[1] if len(args) > 1 else None, out))


CASES = {
    "relative": lambda: (classifier(), torch.rand(3, 64, 96)),
    "odd size": lambda: (classifier(), torch.rand(3, 75, 53)),
    "absolute": lambda: (classifier(position="absolute"), torch.rand(3, 64, 96)),
    "content": lambda: (classifier(position="content", key_init=1.0), torch.rand(3, 64, 96)),
    "timm": lambda: (classifier(convention="timm"), torch.rand(3, 64, 96)),
    "stride 1": lambda: (classifier("botnet_s1_26_small"), torch.rand(3, 64, 96)),
    "padded": lambda: (detector(), torch.rand(3, 50, 90)),
    "padded absolute": lambda: (detector(position="absolute"), torch.rand(3, 90, 50)),
}


@pytest.mark.parametrize("case", CASES)
def test_maps_are_the_definitions_and_give_the_layers_own_output(case):
    """Weights of every query times the values are what the layer gave, whatever kernel it took."""
    torch.manual_seed(2)
    network, image = CASES[case]()
    spy = Spy(network)
    height, width = image.shape[1:]
    at = [(y, x) for y in range(0, height, 8) for x in range(0, width, 8)]
    found = attention_maps(network, image, at)
    assert len(found.blocks) == len(spy.seen) == 2
    for block, (layer, x, sizes, out) in zip(found.blocks, spy.seen, strict=True):
        rows, columns = block.grid
        assert block.weights.shape == (len(at), 4, rows, columns)
        assert torch.allclose(block.weights.sum((-1, -2)), torch.ones(len(at), 4), atol=1e-5)
        q, k, v, terms = layer.project(x, sizes)
        full = reference.attend_reference(q, k, v, terms)[1]
        full = full[0].unflatten(1, terms.grid).unflatten(-1, terms.grid)[:, :, :, :rows, :columns]
        values = v[0].unflatten(1, terms.grid)[:, :rows, :columns]  # N H W D
        for weights, (row, column) in zip(block.weights, block.cells, strict=True):
            assert torch.allclose(weights, full[:, row, column], atol=1e-6)
            mine = torch.einsum("nhw,nhwd->nd", weights, values).flatten()
            assert torch.allclose(mine, out[0, :, row, column], atol=2e-5)
    assert found.blocks[0].weights.max() > 3 / math.prod(found.blocks[0].grid)  # not just all alike


def test_the_strided_block_attends_on_the_larger_map():
    found = attention_maps(classifier(), torch.rand(3, 64, 96), [(40, 70)])
    assert [(block.name, block.stride, block.grid, block.cells) for block in found.blocks] == [
        ("layer4.0", 16, (4, 6), ((3, 4),)),  # row 40 lies between those of 32 and 48
        ("layer4.1", 32, (2, 3), ((1, 2),)),
    ]


def test_distance_and_entropy_as_loops_have_them():
    network, image = classifier(), torch.rand(3, 64, 96)
    at = [(y, x) for y in range(0, 64, 16) for x in range(0, 96, 16)]
    block = attention_maps(network, image, at).blocks[0]
    for weights, (row, column) in zip(block.weights, block.cells, strict=True):
        for n in range(4):
            distance = entropy = 0.0
            for y, x in itertools.product(range(4), range(6)):
                weight = weights[n, y, x].item()
                distance += weight * math.hypot(y - row, x - column)
                entropy -= weight * math.log2(weight)
            assert block.distance[n, row, column].item() == pytest.approx(distance, abs=1e-5)
            assert block.entropy[n, row, column].item() == pytest.approx(entropy, abs=1e-4)
    pairs = list(itertools.product(itertools.product(range(4), range(6)), repeat=2))
    assert block.uniform_distance == pytest.approx(sum(math.dist(*pair) for pair in pairs) / len(pairs))
    assert block.uniform_entropy == pytest.approx(math.log2(24))


def test_padding_is_not_attended_to():
    """What a detector sees of an image does not depend on the canvas it lies on."""
    network = detector()
    image = torch.rand(3, 24, 64)  # alone on a canvas of 32 rows, with another one of 64
    found = attention_maps(network, image)
    assert found.view.canvas == (32, 64)
    assert [block.grid for block in found.blocks] == [(2, 4), (1, 2)]
    for block in found.blocks:
        assert torch.allclose(block.weights.sum((-1, -2)), torch.ones(1, 4), atol=1e-5)
    spy = Spy(network)
    network([image, torch.rand(3, 64, 64)])
    for block, (layer, x, sizes, _) in zip(found.blocks, spy.seen, strict=True):
        rows, columns = block.grid
        full = layer.attention_map(x, sizes)[0].unflatten(1, x.shape[-2:]).unflatten(-1, x.shape[-2:])
        row, column = block.cells[0]
        assert torch.allclose(block.weights[0], full[:, row, column, :rows, :columns], atol=1e-5)
        assert full[:, row, column].sum((-1, -2)).allclose(torch.ones(4), atol=1e-5)
        assert full[:, row, column, rows:].max() == 0


def test_predictors_prepare_the_image_as_for_a_prediction():
    network = classifier()
    spy = Spy(network)
    predictor = Predictor(network, DESCRIPTION, device="cpu")
    image = picture(200, 150)
    predictor.predict([image])
    found = attention_maps(predictor, image, [(100, 75)])
    assert torch.equal(spy.seen[0][1], spy.seen[2][1])
    assert found.view.size == (200, 150)
    assert found.view.seen == (64, 96)
    found = bv.attention_maps(DetectionPredictor(detector(), {"categories": [{"id": 1, "name": "a"}] * 2},
                                                 device="cpu"), np.array(image))  # fmt: skip
    assert found.view.size == (200, 150)
    assert found.at == ((100, 75),)
    assert found.view.seen == (64, 48)


@pytest.mark.parametrize("convention", ["paper", "timm"])
@pytest.mark.parametrize("position", ["relative", "position", "absolute"])
def test_position_logits_are_the_definitions(position, convention):
    torch.manual_seed(0)
    layer = MHSA2d(32, heads=4, grid=(3, 5), position=position, convention=convention)
    query = torch.randn(4, 8)
    logits = position_logits(layer, query)
    assert logits is not None
    _, _, _, terms = layer.project(torch.rand(1, 32, 3, 5), None)
    assert terms.position is not None
    wanted = reference.position_logits(query[None, :, None, None].expand(1, 4, 3, 5, 8), terms.position)[0]
    for y, x, h, w in itertools.product(range(3), range(5), range(3), range(5)):
        row, column = (h, w) if position == "absolute" else (h - y + 2, w - x + 4)
        assert torch.allclose(logits[:, row, column], wanted[:, y, x, h, w], atol=1e-5)
    assert position_logits(MHSA2d(32, position="content"), query) is None


def test_offsets_are_of_the_mean_query():
    network = classifier()
    spy = Spy(network)
    found = attention_maps(network, torch.rand(3, 64, 96))
    layer, x, _, _ = spy.seen[0]
    q = layer.project(x, None)[0]
    wanted = position_logits(layer, q[0].mean(1))
    assert wanted is not None
    assert found.blocks[0].offsets is not None
    assert found.blocks[0].offsets.shape == (4, 7, 11)
    assert torch.allclose(found.blocks[0].offsets, wanted, atol=1e-5)
    assert (
        attention_maps(classifier(position="content", key_init=1.0), torch.rand(3, 64, 96)).blocks[0].offsets
        is None
    )


def test_the_network_is_left_as_it_was():
    network = classifier()
    network.train()
    network.layer1.eval()
    attention_maps(network, torch.rand(3, 64, 96))
    assert network.training
    assert network.layer4.training
    assert not any(module.training for module in network.layer1.modules())
    assert all(not layer._forward_hooks for layer in attention_of(network))


@pytest.mark.parametrize("position", ["relative", "absolute", "content"])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_in_the_maps_inputs_alone(position, autocast):
    """bf16 networks: maps sum to 1, and are those of the same queries and keys in double precision."""
    network, image = classifier(position=position, convention="timm"), torch.rand(3, 64, 96)
    if autocast:
        network, image = detector(position=position, convention="timm"), torch.rand(3, 50, 90)
    else:
        network, image = network.to(torch.bfloat16), image.to(torch.bfloat16)
    spy = Spy(network)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = attention_maps(network, image, [(y, x) for y in range(0, 50, 8) for x in range(0, 90, 8)])
        projected = [layer.project(x, sizes) for layer, x, sizes, _ in spy.seen]
    for block, (q, k, v, terms) in zip(found.blocks, projected, strict=True):
        assert (block.weights.sum((-1, -2)) - 1).abs().max() < 1e-6
        assert q.dtype == torch.bfloat16
        rows = terms.position and terms.position.to(torch.float64)
        full = reference.attend_reference(q.double(), k.double(), v.double(), terms._replace(position=rows))
        full = full[1][0].unflatten(1, terms.grid).unflatten(-1, terms.grid)
        for weights, (row, column) in zip(block.weights, block.cells, strict=True):
            wanted = full[:, row, column, : block.grid[0], : block.grid[1]].float()
            assert torch.allclose(weights, wanted, atol=1e-6)
        assert block.offsets is None or block.offsets.dtype == torch.float32


@pytest.mark.parametrize(
    "at", [(10, 20), [], [(10, 20, 3)], [(10,)], [(1.5, 2.0)], ["ab"], np.ones((2, 2)), 5]
)
def test_queries_that_are_no_pixels(at):
    with pytest.raises(ValueError, match=r"at: expected pixels \(y, x\) in a list, such as") as error:
        attention_maps(classifier(), torch.rand(3, 64, 96), at)
    assert "\n" not in str(error.value)


def test_queries_may_come_as_an_array():
    network, image = classifier(), torch.rand(3, 64, 96)
    found = attention_maps(network, image, np.array([[10, 20], [63, 95]]))  # pyrefly: ignore
    assert found.at == ((10, 20), (63, 95))


def test_detectors_take_bytes_and_classifiers_do_not():
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"takes a normalised float tensor, got torch\.uint8"):
        attention_maps(classifier(), pixels)
    network = detector()
    whole, parts = (attention_maps(network, image) for image in (pixels, pixels / 255))
    assert torch.allclose(whole.blocks[0].weights, parts.blocks[0].weights, atol=1e-5)


def test_what_cannot_be_looked_at():
    with pytest.raises(ValueError, match="the network has no attention"):
        attention_maps(bv.create_model("resnet14_nano"), torch.rand(3, 64, 64))
    with pytest.raises(ValueError, match="at 64,0: outside the image"):
        attention_maps(classifier(), torch.rand(3, 64, 96), [(0, 0), (64, 0)])
    with pytest.raises(ValueError, match=r"takes a \(C, H, W\) tensor"):
        attention_maps(classifier(), picture(64, 96))
    with pytest.raises(ValueError, match="predictor takes files"):
        attention_maps(Predictor(classifier(), DESCRIPTION, device="cpu"), torch.rand(3, 64, 96))
