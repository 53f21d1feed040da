"""Every recipe: its promise is stated, and what it is made of trains for one step, drawn and scaled down."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from botvision.backbones.variants import weights_for
from botvision.config.recipes import build_config, config_to_dict, load_recipe, recipe_names
from botvision.training.log import read_rows
from botvision.training.run import train

# Keeps what a recipe is about (model, stem, optimiser, augmentation, precision) and shrinks what costs time.
SMALL = {
    "model.weights": "null", "data.source": "generated", "data.root": "null", "data.num_images": 2,
    "data.num_val_images": 2, "data.num_workers": 0, "train.batch_size": 2, "train.accumulate": 1,
    "train.max_steps": 1, "train.log_every": 1, "train.device": "cpu",
}  # fmt: skip
SMALL_DETECTOR = {
    "model.detector.channels": 32, "model.detector.box_channels": 32, "model.detector.roi_batch": 16,
    "model.detector.rpn_post_nms_train": 50, "model.detector.rpn_post_nms_test": 20,
    "data.val_is_train": "false",
}  # fmt: skip
PAIRS = [
    ("generated_botnet14_nano", "generated_resnet14_nano"),
    ("cifar10_botnet14_tiny", "cifar10_resnet14_tiny"),
    ("cifar10_botnet14_nano", "cifar10_resnet14_nano"),
    ("cifar10_resnet14_nano", "cifar10_botnet_s1_14_nano"),
    ("cifar10_resnet50", "cifar10_botnet50"),
    ("cifar10_resnet50", "cifar10_botnet_s1_50"),
    ("photos_resnet50", "photos_botnet50"),
    ("objects_resnet50", "objects_botnet50"),
    ("objects_resnet50_cpu", "objects_botnet50_cpu"),
    ("shapes_resnet14_nano", "shapes_botnet14_nano"),
    ("dsb2018_resnet14_tiny", "dsb2018_botnet14_tiny"),
    ("dsb2018_resnet50", "dsb2018_botnet50"),
    ("coco_resnet50_512", "coco_botnet50_512"),
    *((f"coco_resnet{n}_{size}", f"coco_botnet{n}_{size}") for n in (50, 101, 152) for size in (1024, 1280)),
    *((f"coco_resnet50_1024_{n}ep", f"coco_botnet50_1024_{n}ep") for n in (12, 24, 72)),
    ("imagenet_resnet50", "imagenet_botnet50"),
    ("imagenet_resnet50", "imagenet_botnet_s1_50"),
]


@pytest.fixture(scope="session")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a ResNet-50, in place of those that timm would fetch."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(timm.create_model("resnet50").state_dict(), path)
    return path


def scaled_down(name: str) -> dict[str, Any]:
    values = load_recipe(name)
    size = 32 if values["data"]["image_size"] < 224 else 64
    small = SMALL | (SMALL_DETECTOR if values.get("task") == "detect" else {})
    if values["data"].get("source") == "pointing":
        small["data.source"] = "pointing"
    if name.startswith(("objects_", "photos_")):  # the former freeze what they start from
        small["model.weights"] = values["model"]["weights"]
    return config_to_dict(build_config(values, {**small, "data.image_size": size}))


def enough_of_them() -> list[str]:
    """Recipes in which each network and each treatment occurs; a network and a treatment need not meet twice.

    Depths of one network count as one: test_models.py builds all. From the end of the alphabet, where the
    smaller networks are, so that those meet the treatments.
    """
    seen: set[str] = set()
    names = []
    for name in reversed(recipe_names()):
        values = scaled_down(name) | {"recipe": ""}
        values["train"]["epochs"] = 1
        model = json.dumps(values.pop("model")).replace("101", "50").replace("152", "50")
        parts = {model, json.dumps(values)}
        names += [name] if parts - seen else []
        seen |= parts
    return names


@pytest.mark.parametrize("name", enough_of_them())
def test_one_step(name: str, tmp_path: Path, resnet50: Path):
    values = scaled_down(name)
    if values["model"]["weights"] is not None:
        assert values["model"]["weights"] in ("auto", "resnet50")
        values["model"]["weights"] = str(resnet50)
    folder = train(build_config(values), tmp_path / name, progress=False)
    summary, size = json.loads((folder / "summary.json").read_text()), values["data"]["image_size"]
    assert (summary["steps"], summary["recipe"], summary["image_size"]) == (1, name, [size, size])
    assert len(read_rows(folder / "steps.csv")) == 1


@pytest.mark.parametrize("name", recipe_names())
def test_the_promise_is_stated(name: str):
    """A recipe that extends no other names its claim and command; what was not measured is not mentioned."""
    text = (resources.files("botvision") / "recipes" / f"{name}.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert len(comments[0]) > 20
    assert "not yet" not in text
    commands = [line.removeprefix("# Command:").split()[:3] for line in comments if "Command:" in line]
    assert all(command == ["botvision", "train", name] for command in commands)
    if "\nextends:" not in text:
        assert len(commands) == 1
        assert any(line.startswith("# Claim") for line in comments)


@pytest.mark.parametrize(
    "name", [name for name in recipe_names() if name.startswith(("objects_", "photos_"))]
)
def test_own_images_start_from_pretrained_weights(name: str):
    model = load_recipe(name)["model"]
    assert model["weights"] == "auto"
    assert weights_for(model["name"]) == "resnet50"


@pytest.mark.parametrize(("base", "other"), PAIRS)
def test_compared_recipes_differ_in_the_model_alone(base: str, other: str):
    one, two = load_recipe(base), load_recipe(other)
    assert one["model"].pop("name") != two["model"].pop("name")
    assert (one.pop("recipe"), two.pop("recipe")) == (base, other)
    assert one == two
