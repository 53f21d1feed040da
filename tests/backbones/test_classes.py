"""Layers of classes, taken over by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from botvision.backbones.loading import load_weights
from botvision.backbones.models import create_model
from botvision.backbones.weights import class_names, save_model

THEIRS = ["car", "bus", "van"]


def model(seed: int) -> Any:
    torch.manual_seed(seed)
    return create_model("resnet14_nano", num_classes=3)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_model(model(0), tmp_path, "resnet14_nano", {"num_classes": 3}, classes=THEIRS)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("ours", "rows", "line"),
    [
        (THEIRS, [0, 1, 2], ""),
        (["van", "car", "bus"], [2, 0, 1], "classes: van, car, bus are taken over by name in another order"),
        (["bus", "nut", "car"], [1, None, 0], "classes: bus, car are taken over by name; new are nut"),
        (
            ["a", "b", "c"],
            [None] * 3,
            "classes: the weights know car, bus, van, none of a, b, c; layers of classes begin anew",
        ),
        (["Van", "CAR", "nut"], [2, 0, None], "classes: Van, CAR are taken over by name; new are nut"),
        (["Car", "car", "b-us"], [None, 0, None], "classes: car are taken over by name; new are Car, b-us"),
    ],
)
def test_each_class_goes_on_from_its_own_row(weights: Path, ours: list[str], rows: list[Any], line: str):
    theirs, own = model(0).fc, model(1).fc
    target = model(1)
    report = load_weights(target, weights, classes=class_names(weights, ours, ["fc"]))
    for row, source in enumerate(rows):
        kept = own if source is None else theirs
        place = row if source is None else source
        assert torch.equal(target.fc.weight[row], kept.weight[place])
        assert torch.equal(target.fc.bias[row], kept.bias[place])
    assert torch.equal(target.layer4[0].conv1.weight, model(0).layer4[0].conv1.weight)
    assert report.classes == line
    assert str(report).endswith(line)
    assert report.complete == (not line)
    layers = ["fc.weight", "fc.bias"]
    found = {
        kind: [n for n in getattr(report, kind) if n in layers] for kind in ("kept", "adapted", "mismatched")
    }
    where = "kept" if not line else "mismatched" if rows == [None] * 3 else "adapted"
    assert found == {"kept": [], "adapted": [], "mismatched": []} | {where: layers}
    assert report.missing == report.unexpected == []


@pytest.mark.parametrize(
    ("ours", "line"),
    [
        (["bike", "van", "car", "bus"], "classes: van, car, bus are taken over by name; new are bike"),
        (["van"], "classes: van are taken over by name"),
        (["a", "b"], "classes: the weights know car, bus, van, none of a, b; layers of classes begin anew"),
    ],
)
def test_other_numbers_of_classes(weights: Path, ours: list[str], line: str):
    target = create_model("resnet14_nano", num_classes=len(ours))
    own = target.state_dict()["fc.weight"].clone()
    report = load_weights(target, weights, classes=class_names(weights, ours, ["fc"]))
    assert report.classes == line
    for row, name in enumerate(ours):
        expected = model(0).fc.weight[THEIRS.index(name)] if name in THEIRS else own[row]
        assert torch.equal(target.state_dict()["fc.weight"][row], expected)


def test_weights_without_names_are_as_before(weights: Path):
    assert class_names({}, THEIRS, ["fc"]) is None
    report = load_weights(create_model("resnet14_nano", num_classes=4), weights)
    assert (report.mismatched, report.classes) == (["fc.weight", "fc.bias"], "")
    for content in ("{", "[]", *(json.dumps({"classes": each}) for each in (3, [], "abc", [1, 2, 3]))):
        weights.with_name("model.json").write_text(content)
        assert class_names(weights, THEIRS, ["fc"]) is None
