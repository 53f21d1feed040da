"""A folded network is the same function; what must not be folded is left alone."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn

import botvision
from botvision.backbones.fuse import fold_batch_norm
from botvision.backbones.models import create_model
from botvision.backbones.timm_attention import from_timm_botnet
from botvision.detection.mask_rcnn import mask_rcnn

TOLERANCE = {
    torch.float64: 1e-11,  # products of many layers in another order
    torch.float32: 1e-5,  # the same, at 24 bits
    torch.bfloat16: 5e-2,  # scaled weights are rounded instead of scaled maps, layer by layer
}


def norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]


def trained(network: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """As if it had seen data: no statistic, scale or shift is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for norm in norms(network):
        for name, low, high in (("weight", 0.5, 1), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2)):
            values = getattr(norm, name)
            if values is not None:
                values.data.uniform_(low, high, generator=generator)
        norm.running_var.data.uniform_(0.5, 1.5, generator=generator)  # pyrefly: ignore
    return network.eval().to(dtype)


def images(batch: int, side: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Largest difference of outputs as a fraction of the largest value."""
    expected, found = one(x), other(x)
    if isinstance(expected, Tensor):
        expected, found = [expected], [found]
    elif isinstance(expected, dict):
        expected, found = expected.values(), found.values()
    pairs = list(zip(expected, found, strict=True))
    assert all(e.dtype == f.dtype and e.std() > 0 for e, f in pairs)
    return max(float((e - f).abs().max() / e.abs().max()) for e, f in pairs)


# Name, network, norms that stay: those behind attention, a gate's inner product or a sum.
NETWORKS: list[tuple[str, Callable[[], nn.Module], int]] = [
    ("resnet50", lambda: timm.create_model("resnet50", num_classes=10), 0),
    ("resnet50d", lambda: timm.create_model("resnet50d", num_classes=10), 0),
    ("torchvision", lambda: torchvision.models.resnet50(num_classes=10), 0),
    ("botnet50", lambda: create_model("botnet50", num_classes=10), 3),
    ("botnet_s1_14_tiny", lambda: create_model("botnet_s1_14_tiny", num_classes=10), 1),
    ("cifar", lambda: create_model("botnet14_nano", stem="cifar", num_classes=10), 1),
    ("se conv", lambda: create_model("botnet14_tiny", se="conv", act_layer="silu", num_classes=10), 1),
    ("se all", lambda: create_model("botnet14_tiny", se="all", num_classes=10), 1),
    ("shortcut_act", lambda: create_model("botnet14_tiny", shortcut_act=True, num_classes=10), 1),
    ("botnet50ts_256", lambda: from_timm_botnet(timm.create_model("botnet50ts_256", num_classes=10)), 5),
    ("features", lambda: create_model("botnet14_tiny", features_only=True), 1),
]


@pytest.mark.parametrize(("name", "make", "left"), NETWORKS, ids=[name for name, _, _ in NETWORKS])
def test_the_same_function_without_norms(name: str, make: Callable[[], nn.Module], left: int):
    torch.manual_seed(0)
    network = trained(make())
    folded = fold_batch_norm(network)
    assert len(norms(folded)) == left < len(norms(network))
    assert difference(network, folded, images(2, 64)) < TOLERANCE[torch.float64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_other_dtypes_and_memory_formats(dtype: torch.dtype):
    torch.manual_seed(0)
    network = trained(create_model("botnet14_tiny", num_classes=10), dtype)
    network.to(memory_format=torch.channels_last)  # pyrefly: ignore
    folded = fold_batch_norm(network)
    weight = folded.get_submodule("layer1.0.conv2").weight
    assert isinstance(weight, Tensor)
    assert weight.dtype == dtype
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert difference(network, folded, images(2, 64, dtype)) < TOLERANCE[dtype]


@pytest.mark.parametrize("norm", ["batch", "frozen", "sync"])
def test_a_detectors_backbone(norm: str):
    """Pyramid and frozen norms included; the norm behind attention is no frozen one."""
    torch.manual_seed(0)
    detector = mask_rcnn("botnet14_tiny", 2, channels=16, norm=norm, backbone_args={"img_size": 64})
    network = trained(detector.backbone)
    folded = fold_batch_norm(network)
    assert len(norms(folded)) == 1
    assert difference(network, folded, images(2, 64)) < TOLERANCE[torch.float64]


def test_frozen_norms_of_timm_and_torchvision():
    torch.manual_seed(0)
    for name in ("resnet18", "botnet26t_256"):  # torchvision's norm in the one, timm's with activation
        network = trained(freeze_batch_norm_2d(timm.create_model(name, num_classes=10)))
        folded = fold_batch_norm(network, torch.empty(1, 3, 256, 256, device="meta", dtype=torch.float64))
        assert len(norms(folded)) < len(norms(network))
        assert difference(network, folded, images(1, 256)) < TOLERANCE[torch.float64]


def test_a_copy_unless_asked_otherwise():
    network = trained(create_model("botnet14_nano")).train()
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norm(network)
    assert network.training
    assert not folded.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    kept = network.get_submodule("layer1.0.conv1")
    assert fold_batch_norm(network, inplace=True) is network
    assert network.get_submodule("layer1.0.conv1") is kept
    assert not network.training
    again = fold_batch_norm(network)  # nothing left to do
    assert again.state_dict().keys() == network.state_dict().keys()
    assert botvision.fold_batch_norm is fold_batch_norm


class Parts(nn.Module):
    """Two convolutions, a norm, and a way through them."""

    def __init__(self, way: Callable[["Parts", Tensor], object]) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1, bias=False)
        self.tied: nn.Module = nn.Conv2d(3, 3, 1, bias=False)  # to share a weight
        self.norm, self.way = nn.BatchNorm2d(3), way

    def forward(self, x: Tensor) -> object:
        return self.way(self, x)


def both(net: Parts, x: Tensor) -> Tensor:
    """One norm of one convolution, run twice."""
    return net.norm(net.conv(x)) + net.norm(net.conv(x.flip(2)))


def either(net: Parts, x: Tensor) -> Tensor:
    """One norm behind two convolutions."""
    return net.norm(net.conv(x)) + net.norm(net.other(x))


FOLDED = {
    "chain": lambda net, x: net.norm(net.conv(x)),
    "shape asked for": lambda net, x: net.norm(y := net.conv(x)) * y.shape[2],
    "one twice": both,
}
LEFT = {
    "another reader": lambda net, x: net.norm(y := net.conv(x)) + y,
    "returned as well": lambda net, x: [y := net.conv(x), net.norm(y)],
    "an activation between": lambda net, x: net.norm(net.conv(x).relu_()),
    "another convolution between": lambda net, x: net.norm(net.conv(x) + net.other(x)),
    "the norm of another map, too": lambda net, x: net.norm(net.conv(x)) + net.norm(x),
    "the norm first": lambda net, x: net.conv(net.norm(x)),
    "a convolution used elsewhere": lambda net, x: net.norm(net.conv(x)) + net.conv(x.flip(2)),
    "a weight used elsewhere": lambda net, x: net.norm(net.other(x)) + net.tied(x),
}


def parts(way: Callable[[Parts, Tensor], object]) -> Parts:
    torch.manual_seed(0)
    net = Parts(way)
    net.tied.weight = net.other.weight  # pyrefly: ignore
    trained(net)
    return net


@pytest.mark.parametrize("way", ["chain", "shape asked for", "one twice"])
def test_what_is_folded(way: str):
    net = parts(FOLDED[way])
    folded = fold_batch_norm(net)
    assert norms(folded) == []
    assert difference(net, folded, images(2, 9)) < 1e-14


def test_one_norm_behind_two_convolutions():
    net = parts(either)
    net.tied = nn.Identity()
    folded = fold_batch_norm(net)
    assert norms(folded) == []
    assert difference(net, folded, images(2, 9)) < 1e-14


@pytest.mark.parametrize("way", LEFT)
def test_what_is_left_alone(way: str):
    net = parts(LEFT[way])
    folded = fold_batch_norm(net)
    assert len(norms(folded)) == 1
    assert difference(net, folded, images(2, 9)) == 0


def test_norms_without_scales_or_statistics():
    net = parts(FOLDED["chain"])
    net.norm = nn.BatchNorm2d(3, affine=False)
    trained(net)
    folded = fold_batch_norm(net)
    assert norms(folded) == []
    assert difference(net, folded, images(2, 9)) < 1e-14
    net.norm = nn.BatchNorm2d(3, track_running_stats=False).double()  # statistics of the batch, always
    assert isinstance(fold_batch_norm(net).norm, nn.BatchNorm2d)


def test_a_norm_with_two_names():
    net = parts(FOLDED["chain"])
    net.tied = net.norm
    folded = fold_batch_norm(net)
    assert norms(folded) == []
    assert folded.tied is folded.norm


def test_a_model_that_does_not_run_is_named():
    with pytest.raises(ValueError, match="ByobNet does not run on the example"):
        fold_batch_norm(timm.create_model("botnet26t_256"))  # timm's attention knows one size


def test_nothing_to_fold():
    network = nn.Sequential(nn.Linear(2, 2))
    assert fold_batch_norm(network).state_dict().keys() == network.state_dict().keys()
