"""Runs on pairs of glyphs: accuracy by distance, and whether the two networks are a fair pair."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from botvision.backbones.cost import count
from botvision.backbones.models import create_model
from botvision.cli import main as cli
from botvision.config.recipes import build_config, load_recipe
from botvision.config.run import RunConfig
from botvision.training.run import evaluate, train
from tests.terminal import table

TWINS = ("longrange_resnet14_nano", "longrange_botnet14_nano")
SMALL = {
    "data.image_size": 32, "data.num_images": 48, "data.num_val_images": 24, "train.batch_size": 12,
    "train.epochs": 1, "train.device": "cpu", "train.precision": "32-true",
}  # fmt: skip
DEEPER = "longrange_resnet20_nano"
RECEPTIVE_FIELD = 79  # pixels: stem 3, 7, 11; pool 15; c2 23; c3 31; c4 47; c5 79


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = build_config(load_recipe(TWINS[1]), SMALL)
    return train(config, tmp_path_factory.mktemp("run") / "run", progress=False)


def model_of(name: str) -> nn.Module:
    config = build_config(load_recipe(name))
    assert isinstance(config, RunConfig)
    args = {"img_size": config.data.image_size, **config.model.args}
    return create_model(config.model.name, num_classes=2, **args)


def test_a_run_says_its_accuracy_by_distance(folder: Path):
    found = json.loads((folder / "eval.json").read_text())
    by = found["top1_by_distance"]
    assert by["edges"] == pytest.approx([3.2, 4.8, 6.4, 9.6, 14.4, 19.2, 28])
    assert by["count"] == [4] * 6
    assert sum(by["right"]) / found["count"] == found["top1"]
    assert json.loads((folder / "summary.json").read_text())["top1_by_distance"] == by
    assert Image.open(folder / "by_distance.png").size == (768, 504)
    sheet = Image.open(folder / "examples_by_distance.png")
    assert sheet.width > 6 * 100
    assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 100


def test_the_command_shows_it_also_at_other_distances(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["eval", str(folder), "--data.distances", "[0.5, 0.75, 0.875]"]) == 0
    printed = capsys.readouterr().out
    rows = table(printed, "distance (px)")
    assert [row[:2] for row in rows[1:]] == [["16 to 24", "12"], ["24 to 28", "12"]]
    picture = folder / "by_distance-distances-0.5-0.75-0.875.png"
    assert str(picture) in printed
    assert picture.is_file()
    written = json.loads((folder / "eval-distances-0.5-0.75-0.875.json").read_text())
    accuracy = [f"{100 * value:.1f}" for value in written["top1_by_distance"]["top1"]]
    assert [row[2] for row in rows[1:]] == accuracy
    again = evaluate(folder)
    assert again.to_dict().items() <= json.loads((folder / "eval.json").read_text()).items()


def test_the_twins_differ_in_the_network_alone_and_cost_the_same():
    one, two = (load_recipe(name) for name in TWINS)
    for recipe in (one, two):
        del recipe["model"], recipe["recipe"]
    assert one == two
    resnet, botnet = (count(model_of(name), one["data"]["image_size"]) for name in TWINS)
    assert abs(resnet.macs / botnet.macs - 1) < 0.02
    assert resnet.params > botnet.params  # nobody can say that the ResNet lacks weights


def test_a_deeper_resnet_costs_the_same_and_sees_more_than_the_picture():
    config = build_config(load_recipe(DEEPER))
    side = config.data.size[0]
    deeper, botnet = (count(model_of(name), side) for name in (DEEPER, TWINS[1]))
    assert abs(deeper.macs / botnet.macs - 1) < 0.02
    assert deeper.params > botnet.params
    assert seen_by_a_cell(model_of(DEEPER), 256) == (175, 175)  # of 128 pixels


def seen_by_a_cell(model: nn.Module, side: int) -> tuple[int, int]:
    """Height and width of the window of pixels that one cell of the last feature map depends on."""
    model = model.eval()
    model.maxpool = nn.AvgPool2d(3, 2, 1)  # pyrefly: ignore[bad-argument-type]
    for module in model.modules():  # all paths open, so that no gradient is zero by chance
        if isinstance(module, nn.ReLU):
            module.forward = lambda x: x  # pyrefly: ignore[bad-assignment]
        elif isinstance(module, nn.BatchNorm2d):  # the last one of a block begins at zero
            nn.init.uniform_(module.weight, 0.5, 1.0)
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, side, side, requires_grad=True)
    cells: torch.Tensor = model.forward_features(pixels)  # pyrefly: ignore[not-callable]
    middle = cells.shape[-1] // 2
    cells[0, :, middle, middle].square().sum().backward()
    assert pixels.grad is not None
    touched = pixels.grad[0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero()[:, 0], touched.any(0).nonzero()[:, 0]
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def test_convolutions_see_less_than_the_largest_distance_and_attention_everything():
    config = build_config(load_recipe(TWINS[0]))
    side = config.data.size[0]
    resnet, botnet = (seen_by_a_cell(model_of(name), side) for name in TWINS)
    assert resnet == (RECEPTIVE_FIELD, RECEPTIVE_FIELD)
    assert botnet == (side, side)
    assert isinstance(config, RunConfig)
    near, far = config.data.distances[3] * side, sum(config.data.distances[-2:]) / 2 * side
    glyph = 2 * 0.047 * side
    assert near + glyph < RECEPTIVE_FIELD  # in three of six intervals cells see all of both
    assert far - glyph > RECEPTIVE_FIELD  # in half of the last one no cell sees a pixel of both
