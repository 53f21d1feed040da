"""What a run predicts is what its network says, though the network that predicts is another one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from botvision.backbones.models import create_model
from botvision.backbones.weights import load_model, save_model
from botvision.detection.mask_rcnn import mask_rcnn
from botvision.detection.weights import load_detector, save_detector
from botvision.inference.detector import DetectionPredictor
from botvision.inference.predictor import Predictor, fuse_norms

DESCRIPTION: dict[str, Any] = {
    "classes": ["a", "b", "c"], "image_size": [48, 40], "mean": [0.5] * 3, "std": [0.25] * 3,
}  # fmt: skip
KWARGS = {"num_classes": 3, "img_size": [48, 40]}
CATEGORIES = [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}]
SMALL: dict[str, Any] = {
    "channels": 16,
    "box_channels": 16,
    "mask_convs": 1,
    "score_threshold": 0.0,
    "detections": 8,
}


def norms(network: nn.Module) -> list[Any]:
    return [m for m in network.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]


def trained(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for norm in norms(network):
        for values in (norm.weight.data, norm.running_var):
            values.uniform_(0.5, 1.5, generator=generator)
        for values in (norm.bias.data, norm.running_mean):
            values.uniform_(-0.2, 0.2, generator=generator)
    return network.eval()


def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        for size in ((50, 90), (64, 64), (120, 40))
    ]


@pytest.mark.parametrize("name", ["botnet14_tiny", "resnet14_nano", "resnet18"])
def test_a_classifiers_scores(tmp_path: Path, name: str):
    torch.manual_seed(0)
    kwargs = {key: value for key, value in KWARGS.items() if name != "resnet18" or key != "img_size"}
    save_model(trained(create_model(name, **kwargs)), tmp_path, name, kwargs, **DESCRIPTION)
    found = Predictor.from_run(tmp_path, device="cpu")
    plain = Predictor(load_model(tmp_path)[0], DESCRIPTION, device="cpu")
    assert len(norms(found.model)) == (1 if name.startswith("botnet") else 0) < len(norms(plain.model))
    for one, other in zip(found.predict(photos()), plain.predict(photos()), strict=True):
        assert [top["label"] for top in one["top"]] == [top["label"] for top in other["top"]]
        assert [t["score"] for t in one["top"]] == pytest.approx([t["score"] for t in other["top"]], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"heads": "light"}, {"masks": False}, {"neck": "c5"}])
def test_a_detectors_objects(tmp_path: Path, options: dict[str, Any]):
    torch.manual_seed(0)
    arguments = {"img_size": 64}
    detector = mask_rcnn("botnet14_tiny", 2, image_size=64, backbone_args=arguments, **(SMALL | options))
    save_detector(trained(detector), tmp_path, classes=["disc", "ring"], categories=CATEGORIES)
    model, description = load_detector(tmp_path)
    found, plain = DetectionPredictor.from_run(tmp_path, device="cpu"), DetectionPredictor(model, description)
    assert len(norms(found.model)) == 1 < len(norms(plain.model))
    for one, other in zip(found.predict(photos()), plain.predict(photos()), strict=True):
        assert len(one["detections"]) == len(other["detections"]) == 8
        for mine, theirs in zip(one["detections"], other["detections"], strict=True):
            assert mine["label"] == theirs["label"]
            assert mine["score"] == pytest.approx(theirs["score"], abs=1e-4)
            assert mine["box"] == pytest.approx(theirs["box"], abs=0.05)


def test_on_a_cpu_convolutions_have_their_channels_last():
    model = Predictor(create_model("resnet14_nano", num_classes=3), DESCRIPTION, device="cpu").model
    maps: list[Tensor] = []
    model.get_submodule("layer4").register_forward_hook(lambda _m, _args, out: maps.append(out))
    model(torch.zeros(1, 3, 64, 64))
    assert maps[0].is_contiguous(memory_format=torch.channels_last)
    assert not maps[0].is_contiguous()


class LooksAtValues(nn.Module):
    """Cannot run on shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_fused_stays_as_it_is():
    for model in (LooksAtValues(), nn.Linear(3, 3)):
        before = str(model)
        fuse_norms(model, (8, 8))
        assert str(model) == before
