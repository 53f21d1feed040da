"""Runs that label places in a picture: accuracy by distance, resuming, refusals, fair arms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from botvision.backbones.cost import count
from botvision.backbones.dense import logits_at
from botvision.backbones.models import create_model
from botvision.backbones.weights import load_model
from botvision.cli import main as cli
from botvision.config.data import DataConfig
from botvision.config.recipes import build_config, load_config, load_recipe
from botvision.config.run import RunConfig
from botvision.data.classification import open_splits
from botvision.data.synthetic.pointing import PointingSource
from botvision.metrics.predictions import load_predictions
from botvision.studies.plan import make_plan
from botvision.studies.spec import load_study
from botvision.training import log
from botvision.training.run import task_of, train
from tests.terminal import table
from tests.training.runs import assert_same_run

RECIPE = "pointing_botnet_s1_14_nano"
SMALL = {
    "data.image_size": 64, "data.num_images": 24, "data.num_val_images": 12, "train.batch_size": 6,
    "train.epochs": 2, "train.device": "cpu", "train.log_every": 1, "train.checkpoint_every": 1,
    "train.ema_decay": 0.9, "model.args.drop_path_rate": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = build_config(load_recipe(RECIPE), SMALL)
    return train(config, tmp_path_factory.mktemp("run") / "run", progress=False)


def test_every_arrow_counts_by_its_own_distance(folder: Path):
    """The numbers of eval.json, worked out again from the exported weights, an arrow at a time."""
    found = json.loads((folder / "eval.json").read_text())
    assert found["count"] == 36
    assert found["top1_by_distance"]["count"] == [6] * 6
    model, description = load_model(folder / "model")
    assert description["at_places"] is True
    data = open_splits(load_config(folder / "config.yaml").data).val  # pyrefly: ignore[bad-argument-type]
    assert data.points is not None
    assert data.grouping is not None
    images, targets, indices = data.__getitems__(list(range(12)))
    right = np.zeros(6, dtype=int)
    for image in range(12):
        for arrow in range(3):
            point = data.points[image : image + 1, arrow : arrow + 1]
            said = int(logits_at(model, images[image : image + 1], point).argmax())
            steps = round(float(data.grouping.values[image, arrow]) / 8)
            right[steps - 1] += said == int(targets[image, arrow])
    assert found["top1_by_distance"]["right"] == right.tolist()
    predictions = load_predictions(folder / "predictions.npz")
    assert predictions.target.tolist() == targets.flatten().tolist()
    assert torch.equal(indices, torch.arange(12))


def test_a_look_beforehand_changes_nothing():
    task = task_of(build_config(load_recipe(RECIPE), SMALL))
    splits = task.open()
    model = task.build(splits).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task.probe(model, splits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


class StoppedError(BaseException):
    """In place of a kill."""


def test_a_run_that_goes_on_ends_in_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = log.History.log_step

    def log_step(self: log.History, step: int, *rest: Any) -> None:
        written(self, step, *rest)
        if step == 6:
            raise StoppedError

    config = build_config(load_recipe(RECIPE), SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(log.History, "log_step", log_step)
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run", progress=False)
    train(config, tmp_path / "run", resume=True, progress=False)
    assert_same_run(folder, tmp_path / "run")


def test_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["eval", str(folder), "--data.distances", "[0.1, 0.3, 0.8]"]) == 0
    printed = capsys.readouterr().out
    assert [row[:2] for row in table(printed, "distance (px)")] == [
        ["distance (px)", "places"], ["6.4 to 19.2", "18"], ["19.2 to 51.2", "18"]
    ]  # fmt: skip
    assert (folder / "by_distance-distances-0.1-0.3-0.8.png").is_file()
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(picture)
    for paths in ([str(picture)], []):
        assert cli.main(["predict", str(folder), *paths, "--out", str(tmp_path / "seen")]) == 2
        said = capsys.readouterr().err
        assert f"{folder}: the model labels places in a picture and has no label for the whole" in said
        assert "Traceback" not in said
    assert cli.main(["attend", str(folder), str(picture), "--out", str(tmp_path / "maps")]) == 0
    assert (tmp_path / "maps" / "attention.json").is_file()


def test_accuracy_by_distance_is_shown(folder: Path):
    by = json.loads((folder / "eval.json").read_text())["top1_by_distance"]
    assert json.loads((folder / "summary.json").read_text())["top1_by_distance"] == by
    assert Image.open(folder / "by_distance.png").size == (768, 504)


@pytest.mark.parametrize("how", ["even", "own"])
def test_what_controls_look_at(how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    changes = {**SMALL, "model.args.position": how, "train.max_steps": 1, "data.source": "generated"}
    run = train(build_config(load_recipe(RECIPE), changes), tmp_path / "run", progress=False)
    assert cli.main(["predict", str(run), "--samples", "1", "--out", str(tmp_path / "seen")]) == 0
    picture = next((tmp_path / "seen" / "images").rglob("*.png"))
    assert cli.main(["attend", str(run), str(picture), "--out", str(tmp_path / "maps")]) == 0
    capsys.readouterr()
    (image,) = json.loads((tmp_path / "maps" / "attention.json").read_text())["images"]
    (block,) = image["blocks"]
    assert block["entropy_bits"] == [4.0 if how == "even" else 0.0] * 4  # of 16 cells


def test_a_network_without_cells_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = [
        option for key, value in SMALL.items() if "model" not in key for option in (f"--{key}", str(value))
    ]
    run = ["train", RECIPE, "--model.name", "test_vit", "--model.args.img_size", "64", *options]
    assert cli.main([*run, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "test_vit cannot be asked at places of a picture" in said
    assert not (tmp_path / "run").exists()


def arms() -> dict[str, nn.Module]:
    plan = make_plan(load_study("pointing"), "cpu", Path("out"))
    splits = open_splits(DataConfig(source="pointing", image_size=128, num_images=1, num_val_images=1))
    return {arm: task_of(plan.of_arm(arm)[0].config).build(splits) for arm in plan.study.arms}


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


def test_arms_cost_the_same_and_see_what_the_study_says():
    networks = arms()
    costs = {arm: count(network, 128) for arm, network in networks.items()}
    relative = costs["relative"]
    for arm, cost in costs.items():
        assert abs(cost.macs / relative.macs - 1) < (0.07 if arm in ("own", "even") else 0.02)
        if arm.startswith("resnet"):
            assert cost.params > relative.params
    assert seen_by_a_cell(networks["resnet"], 256) == (79, 79)
    assert seen_by_a_cell(networks["resnet-wide"], 256) == (207, 207)
    assert seen_by_a_cell(networks["own"], 256) == (47, 47)
    assert seen_by_a_cell(networks["relative"], 256) == (256, 256)


def one_pixel_at_a_time() -> nn.Module:
    """1x1 convolutions, the mean over the picture, and a head of two layers on it and on the place itself."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.ReLU())
            self.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4))

        def forward(self, images: Tensor, around: Tensor) -> Tensor:
            mean = self.pixels(images).mean((2, 3))[:, None].expand(-1, around.shape[1], -1)
            own = self.pixels(around.flatten(0, 1)).mean((2, 3)).unflatten(0, around.shape[:2])
            return self.head(torch.cat([mean, own], -1)).flatten(0, 1)

    return Pooled()


def test_pixels_one_by_one_with_pools_and_two_layers_only_guess():
    """Of the whole picture and of the 9x9 pixels of the arrow itself: one in four stays right."""
    torch.manual_seed(0)
    edges = (0.1, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125)
    config = DataConfig(source="pointing", image_size=64, num_images=1200, distances=edges)
    source = PointingSource(config, "train")
    images = source.load_many(torch.arange(1200)).float() / 255 - 0.5
    points, rows = source.points().long(), torch.arange(1200)[:, None]
    near = torch.arange(-4, 5)
    y = points[:, :, 0, None, None] + near[:, None]
    x = points[:, :, 1, None, None] + near
    around = images[rows[..., None, None], :, y.clamp(0, 63), x.clamp(0, 63)].permute(0, 1, 4, 2, 3)
    model = one_pixel_at_a_time()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    small = images[:, :, ::2, ::2]
    for step in range(150):
        chosen = torch.randperm(1000)[:50]
        loss = nn.functional.cross_entropy(
            model(small[chosen], around[chosen]), source.targets[chosen].flatten()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert loss.isfinite(), step
    with torch.no_grad():
        said = model(small[1000:], around[1000:]).argmax(1)
    right = (said == source.targets[1000:].flatten()).float().mean()
    assert abs(float(right) - 0.25) < 4 * (3 / 16 / 600) ** 0.5


def test_recipes_differ_in_the_network_alone():
    base = load_recipe(RECIPE)
    for name in ("resnet14_nano", "resnet14_se_nano", "resnet20_nano"):
        other = load_recipe(f"pointing_{name}")
        assert {key for key in base if base[key] != other[key]} == {"model", "recipe"}
        config = build_config(other)
        assert isinstance(config, RunConfig)
        create_model(config.model.name, num_classes=4, **config.model.args)
