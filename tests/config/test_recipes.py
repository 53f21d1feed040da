"""Recipes and overrides to configurations: what is read, and what is refused with which line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from botvision.config.detector import DetectorOptions
from botvision.config.recipes import (
    ConfigError,
    build_config,
    changed_keys,
    config_to_dict,
    load_config,
    load_recipe,
    recipe_names,
)
from botvision.config.run import OptimConfig, TrainConfig

MINIMAL = {"model": {"name": "resnet14_tiny"}, "data": {"source": "generated"}}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_fill_what_is_not_said():
    config = build_config(MINIMAL)
    assert config.task == "classify"
    assert config.train.keep == "last"  # the best epoch, measured on what chose it, flatters
    assert (config.model.name, config.model.args) == ("resnet14_tiny", {})
    assert config.optim.nesterov is True


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"train.epoch": "3"}, "unknown key train.epoch; did you mean 'train.epochs'?"),
        ({"trian.epochs": "3"}, "unknown key trian; did you mean 'train'?"),
        ({"train.epochs": "many"}, "train.epochs: expected int, got 'many'"),
        ({"train.epochs": "1.5"}, "train.epochs: expected int, got 1.5"),
        ({"train.epochs": True}, "train.epochs: expected int, got True"),
        ({"train.epochs": "[1"}, "train.epochs: cannot be read: '[1'"),
        ({"train.epochs": 0}, "train.epochs: expected a number above 0, got 0"),
        ({"train.channels_last": "maybe"}, "train.channels_last: expected bool, got 'maybe'"),
        ({"train.seed": "100000000000000000"}, "train.seed: expected 0 <= seed < 2**32, got 1000000000000"),
        ({"train.seed.x": "1"}, "train.seed: expected int, got {'x': '1'}"),
        ({"train.precision": "16"}, "train.precision: expected one of 32-true, bf16-mixed, got 16"),
        ({"optim.lr": "-0.1"}, "optim.lr: expected a number above 0, got -0.1"),
        ({"optim.lr": ".inf"}, "optim.lr: expected float, got inf"),
        ({"optim.lr": "0.1e"}, "optim.lr: expected float, got '0.1e'"),
        ({"optim.name": "adam"}, "optim.name: expected one of sgd, adamw, lamb, got 'adam'"),
        ({"optim.betas": "[0.9]"}, "optim.betas: expected tuple[float, float], got [0.9]"),
        ({"optim.momentum": "0"}, "optim.nesterov: expected false where optim.momentum is 0, got True"),
        ({"data.image_size": "big"}, "data.image_size: expected int or tuple[int, int], got 'big'"),
        ({"data.val_fraction": "2"}, "data.val_fraction: expected at least 0 and below 1, got 2.0"),
        ({"model": "resnet50"}, "model: expected a mapping of keys to values, got 'resnet50'"),
        (
            {"model.args.num_classes": "7"},
            "model.args.num_classes: leave it out, the number of classes comes",
        ),
    ],
)
def test_wrong_overrides_are_one_line_with_the_key(overrides: dict[str, object], line: str):
    with pytest.raises(ConfigError) as error:
        build_config(MINIMAL, overrides)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_text_of_a_command_line_becomes_what_the_key_asks_for():
    config = build_config(
        MINIMAL,
        {
            "optim.lr": "1e-3",  # YAML 1.1 would read text
            "optim.lr_batch": "null",
            "optim.betas": "[0.9, 0.99]",
            "train.channels_last": "true",
            "train.precision": "bf16-mixed",
            "data.image_size": "[32, 48]",
            "data.source": "folder",
            "data.root": "123",  # stays text
            "model.args.heads": "8",
        },
    )
    assert config.optim.lr == 1e-3
    assert config.optim.lr_batch is None
    assert config.optim.betas == (0.9, 0.99)
    assert config.train.channels_last is True
    assert config.train.precision == "bf16-mixed"
    assert config.data.size == (32, 48)
    assert config.data.root == "123"
    assert config.model.args == {"heads": 8}


def test_missing_keys_are_named():
    with pytest.raises(ConfigError, match=r"^data: missing"):
        build_config({"model": {"name": "x"}})
    with pytest.raises(ConfigError, match=r"^model\.name: missing"):
        build_config({"model": {}, "data": {}})


def test_extends_merges_key_by_key_and_looks_beside_the_file(tmp_path: Path):
    write(tmp_path, "base.yaml", yaml.safe_dump({**MINIMAL, "optim": {"lr": 0.3, "momentum": 0.8}}))
    child = write(tmp_path, "child.yaml", "extends: base\noptim:\n  lr: 0.2\nmodel:\n  args: {stem: cifar}\n")
    config = build_config(load_recipe(child))
    assert config.recipe == "child"
    assert (config.optim.lr, config.optim.momentum) == (0.2, 0.8)
    assert (config.model.name, config.model.args) == ("resnet14_tiny", {"stem": "cifar"})


def test_a_file_can_extend_a_recipe_of_the_package(tmp_path: Path):
    path = write(tmp_path, "mine.yaml", "extends: generated_botnet14_nano\ntrain:\n  epochs: 1\n")
    config = build_config(load_recipe(path))
    assert (config.model.name, config.train.epochs) == ("botnet14_nano", 1)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("extends: b\n", "recipes extend each other: a -> b -> a"),
        ("extends: [b]\n", r"extends: expected one recipe's name, got \['b'\]"),
        ("extends: cifar10_botnet5\n", "did you mean 'cifar10_botnet50'"),
        ("model: 1\nmodel: 2\n", "line 2: key 'model' is given twice"),
        ("model: 1\n{name}: 2\n", "line 2: expected a name as key"),
        ("? [a, b]\n: 2\n", "line 1: expected a name as key"),
        ("- 1\n", "expected a mapping of keys to values, got list"),
        ("model: [\n", "cannot be read as YAML"),
    ],
)
def test_broken_recipe_files_are_named(tmp_path: Path, text: str, line: str):
    write(tmp_path, "b.yaml", "extends: a\n")
    with pytest.raises(ConfigError, match=line) as error:
        load_recipe(write(tmp_path, "a.yaml", text))
    assert "\n" not in str(error.value)


def test_unknown_recipes_get_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"no recipe is called 'cifar10_botnet5'; did you mean 'cifar10_botnet50'"
    ):
        load_recipe("cifar10_botnet5")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such recipe file"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_written_configuration_reads_back_equal(name: str, tmp_path: Path):
    config = build_config(load_recipe(name), {"data.image_size": "[64, 96]"})
    path = write(tmp_path, "config.yaml", yaml.safe_dump(config_to_dict(config)))
    assert load_config(path) == config


def test_changed_keys_are_dotted():
    one = build_config(MINIMAL)
    two = build_config(MINIMAL, {"model.args.heads": 2, "train.epochs": 3})
    assert set(changed_keys(one, two)) == {"model.args.heads", "train.epochs"}
    assert set(changed_keys(two, one)) == {"model.args.heads", "train.epochs"}
    assert changed_keys(one, one) == []


@pytest.mark.parametrize(
    ("cls", "values", "line"),
    [
        (DetectorOptions, {"masks": "yes"}, "model.detector.masks: expected bool, got 'yes'"),
        (DetectorOptions, {"anchor_sizes": []}, r"model.detector.anchor_sizes: expected numbers above 0"),
        (OptimConfig, {"milestones": (0.9, 0.5)}, "optim.milestones: expected ascending parts of the run"),
        (TrainConfig, {"max_steps": 0}, "train.max_steps: expected a number above 0, got 0"),
    ],
)  # fmt: skip
def test_what_is_made_in_python_keeps_the_same_rules(cls: type[Any], values: dict[str, Any], line: str):
    with pytest.raises(ConfigError, match=f"^{line}"):
        cls(**values)


def test_lists_become_tuples_and_whole_numbers_numbers():
    from_json: Any = {"anchor_sizes": [8, 16]}
    assert DetectorOptions(**from_json) == DetectorOptions(anchor_sizes=(8.0, 16.0))


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import botvision.config.detector", ("torch", "yaml", "msgspec")),
        ("from botvision.config.recipes import *; build_config(load_recipe('photos_botnet50'))",
         ("torch", "lightning", "timm", "numpy")),
    ],
)  # fmt: skip
def test_configurations_load_nothing_heavy(code: str, unwanted: tuple[str, ...]):
    code += f"\nimport sys; sys.exit(', '.join(name for name in {unwanted} if name in sys.modules) or None)"
    subprocess.run([sys.executable, "-c", code], check=True)
