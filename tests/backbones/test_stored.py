"""Weights and descriptions as untrusted input."""

import json
import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from botvision.backbones.models import create_model
from botvision.backbones.stored import read_torch, read_weights
from botvision.backbones.variants import check_arguments
from botvision.backbones.weights import load_model, save_model

KWARGS: dict[str, Any] = {"num_classes": 2, "stem": "cifar", "img_size": [32, 32]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(
        create_model("botnet14_nano", **KWARGS), tmp_path / "model", "botnet14_nano", KWARGS,
        classes=["a", "b"], image_size=[32, 32], mean=[0.5] * 3, std=[0.2] * 3, crop=1.0, task="classify",
    )  # fmt: skip
    return tmp_path / "model"


CHANGES: list[tuple[str, object, str]] = [
    ("name", 5, "name: expected a model's name, got 5"),
    ("name", "hf-hub:someone/model", "unknown model 'hf-hub:someone/model'"),
    ("kwargs", [], "kwargs: expected an object"),
    ("classes", None, "classes: expected a list of names, got null"),
    ("classes", [], "classes: expected a list of names"),
    ("classes", ["a", 1], "classes: expected a list of names"),
    ("classes", ["a", "b", "c"], "classes: 3 names, but kwargs.num_classes is 2"),
    ("image_size", [0, 0], "image_size: expected"),
    ("image_size", [-1, 32], "image_size: expected"),
    ("image_size", [10**6, 10**6], "image_size: expected .* of 1 to 8192 pixels"),
    ("image_size", [32.5, 32], "image_size: expected"),
    ("image_size", True, "image_size: expected"),
    ("mean", [math.nan] * 3, "mean: expected a list of numbers"),
    ("std", [0.0] * 3, "std: expected a list of numbers above 0"),
    ("std", [10**400] * 3, "std: expected a list of numbers above 0"),
    ("crop", -1, "crop: expected"),
    ("task", "segment", "task: expected classify or detect"),
    ("at_places", "yes", "at_places: expected true or false"),
    ("categories", [{"id": "1"}], "categories: expected"),
    ("kwargs.heads", 10**9, "kwargs.heads: expected numbers up to 1,048,576"),
    ("kwargs.heads", math.inf, "kwargs.heads: expected numbers"),
    ("kwargs.heads", "four", "heads must be a whole number"),
    ("kwargs.layers", [10**5] * 4, "kwargs.layers: expected numbers up to 1,000"),
    ("kwargs.channels", [2**14] * 4, "describes a network of .* bytes, and model.safetensors has"),
    ("kwargs.stem", 3, "stem must be one of"),
    *(
        (f"kwargs.{name}", "x.pth", f"kwargs.{name}: no argument that describes a network's architecture")
        for name in (
            "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained_strict",
            "pretrained_filter_fn", "feature_cls", "kwargs_filter", "model_cfg", "scriptable", "device",
            "pretrained",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "words"), CHANGES)
def test_a_description_that_cannot_be_used_is_one_line(folder: Path, key: str, value: object, words: str):
    path = folder / "model.json"
    found = json.loads(path.read_text())
    place = found["kwargs"] if "." in key else found
    place[key.removeprefix("kwargs.")] = value
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=words) as error:
        load_model(folder)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_arguments_of_all_models_of_ours_and_known_ones_of_timms_pass():
    check_arguments(
        {**KWARGS, "block_args": {"attn_layer": "se"}, "c5_blocks": [0, 1, True], "pretrained": True}
    )
    with pytest.raises(ValueError, match=r"model.args.hedas: no argument .*; did you mean 'heads'"):
        check_arguments({"hedas": 4}, "model.args.")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_with_the_first_name(folder: Path, value: float):
    path = folder / "model.safetensors"
    state = load_file(path)
    state["bn1.running_mean"][3] = value
    save_file(state, path)
    words = r"weights that are not finite: NaN or infinity in 1 tensor of \d+, first bn1.running_mean"
    with pytest.raises(ValueError, match=words) as error:
        load_model(folder)
    assert str(error.value).startswith(f"{path}: ")


def test_weights_that_are_no_regular_file(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="no regular file"):
            read_weights(path)
        with pytest.raises(ValueError, match="no regular file"):
            read_torch(path, "weights")


class Payload:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/botvision-code-was-run",)


@pytest.mark.filterwarnings("error")
def test_files_of_torch_that_cannot_be_used_are_one_line_without_advice(tmp_path: Path):
    path, good = tmp_path / "w.pth", tmp_path / "good.pth"
    torch.save({"a": torch.zeros(100)}, good)
    torch.save({"a": Payload()}, path)
    contents = {
        "things": path.read_bytes(),
        "old": pickle.dumps({"a": Payload()}),
        "empty": b"",
        "text": b"x" * 50,
    }
    contents["cut"] = good.read_bytes()[:700]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data/0", bytes(10**6))
    contents["packed"] = path.read_bytes()
    for name, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"w.pth: cannot be read as weights") as error:
            read_torch(path, "weights")
        assert "weights_only" not in str(error.value), name
        assert "\n" not in str(error.value)
    assert not Path("/tmp/botvision-code-was-run").exists()


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path: Path):
    path = tmp_path / "w.ckpt"
    torch.save({"a": torch.arange(40.0), "state": {"step": 3}}, path)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = read_torch(path, "a checkpoint")
        except ValueError:
            refused += 1
            continue
        assert found["state"] == {"step": 3}
        assert torch.equal(found["a"], torch.arange(40.0))
    assert refused > 50
