"""Attention in a study's report: of the arm that the study names, from the places that matter."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.cli import main as cli
from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.config.schema import ConfigError
from botvision.data.classification import open_splits
from botvision.data.detection import open_detection
from botvision.studies.attention import attention_pictures
from botvision.studies.plan import Plan, make_plan
from botvision.studies.spec import load_study, study_names
from botvision.training.run import train
from tests.studies.files import plan_of, write

LOOK = ("scales:\n", "attention: {arm: bot, images: 2}\nscales:\n")


def test_a_report_shows_the_first_finished_run_of_the_arm(tmp_path, capsys):
    plan = plan_of(tmp_path, LOOK, train__epochs="1")
    assert attention_pictures(plan) == ()  # nothing is trained yet
    for run in plan.runs:
        train(run.config, run.folder, progress=False)
    words = ["study", str(tmp_path / "tiny.yaml"), "--out", str(plan.folder), "--report-only",
             "--train.epochs", "1"]  # fmt: skip
    assert cli.main(words) == 0
    page = (plan.folder / "tiny-cpu.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert sum("Attention of BoTNet, seed 0" in text for text in captions) == 2
    assert page.count("data:image/png;base64,") == 4  # two images, distances, positions
    looked = json.loads((plan.folder / "attention" / "attention.json").read_text())
    names = [entry["file"] for entry in looked["images"]]
    assert len(set(names)) == 2
    assert looked["images"][0]["queries"] == [[8, 8]]
    _check_words(re.findall(r'<img src="data:image/png[^>]*alt="(.*?)"', page), looked)
    drawn = plan.folder / "attention" / "pictures" / f"{names[0]}.png"
    assert len(_ground(drawn)) > 10
    assert cli.main([*words, "--no-photos"]) == 0
    assert len(_ground(drawn)) == 1  # of the photo nothing is left
    page = (plan.folder / "tiny-cpu.html").read_text()
    assert page.count("The image itself is left out.</figcaption>") == 2
    assert page.count("data:image/png;base64,") == 4
    _check_use(plan)
    capsys.readouterr()
    assert cli.main([*words, "--no-pictures"]) == 0
    assert "image/png" not in (plan.folder / "tiny-cpu.html").read_text()


def _check_use(plan: Plan) -> None:
    """What attention contributes is the difference of the run's own evaluation to one without attention."""
    (run,) = plan.of_arm("bot")
    trained = json.loads((run.folder / "eval.json").read_text())["top1"]
    assert cli.main(["eval", str(run.folder), "--attention", "zero"]) == 0
    without = json.loads((run.folder / "eval-attention-zero.json").read_text())["top1"]
    (found,) = json.loads((plan.folder / "tiny-cpu.json").read_text())["attention_use"]
    assert (found["arm"], found["seed"], found["as_trained"]["top1"]) == ("bot", 0, trained)
    (zero,) = [each for each in found["effects"] if each["attention"] == "zero"]
    assert zero["contribution"]["top1"]["mean"] == pytest.approx(trained - without)
    text = (plan.folder / "tiny-cpu.md").read_text()
    assert "## What attention contributes to BoTNet" in text
    row = next(line for line in text.splitlines() if line.startswith("| top-1, zero "))
    assert [cell.strip() for cell in row.split("|")[2:4]] == [f"{100 * v:.2f}" for v in (trained, without)]


def _check_words(alts: list[str], looked: dict[str, Any]) -> None:
    """What pictures show is said in their `alt`, in the same numbers as in attention.json."""
    blocks = looked["blocks"]
    for alt in alts[:2]:
        assert re.match(r"Attention of BoTNet, seed 0, in [^:]+: query at y 8, x 8; ", alt)
        assert len(re.findall(r"head \d up to \d+\.\dx even", alt)) == sum(b["heads"] for b in blocks)
    for block in blocks:
        heads = [f"head {n} {pixels:.0f} px" for n, pixels in enumerate(block["distance_pixels"], 1)]
        assert f"{block['name']}: {', '.join(heads)}, even attention " in alts[2]
        assert re.search(rf"{block['name']}: head 1 most towards dy -?\d+, dx -?\d+ \([+]", alts[3])


def _ground(path: Path) -> set[tuple[int, ...]]:
    """Colours of the tile that shows the photo, without the query's mark."""
    left = np.asarray(Image.open(path).convert("RGB"))[80:-20, 20:60]
    return {tuple(colour) for colour in left.reshape(-1, 3).tolist()}


def test_every_study_shows_a_network_with_attention(tmp_path):
    for name in study_names():
        study = load_study(name)
        assert study.attention is not None
        for scale in study.scales:
            for run in make_plan(study, scale, tmp_path).of_arm(study.attention.arm):
                assert "botnet" in run.config.model.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{arm: x}", "attention.arm: 'x' is not known"),
        ("{arm: r, images: 0}", "attention.images: expected a number above 0, got 0"),
    ],
)
def test_a_wrong_wish_is_named(tmp_path, text, message):
    path = write(tmp_path / "tiny.yaml", ("scales:\n", f"attention: {text}\nscales:\n"))
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_study(path)


def test_the_point_of_a_picture_of_arrows_is_the_first_of_them():
    config = DataConfig(source="pointing", image_size=64, num_images=24, num_val_images=48, limit=24)
    for data in (open_splits(config).train, open_splits(config).val):
        for index in (0, 5, 23):
            y, x = data.point_of(index)  # pyrefly: ignore[not-iterable]
            colour = data.load(index)[:, y, x].int()
            assert colour.max() - colour.min() > 100  # the ground is grey


def test_the_point_of_a_photo_is_the_middle_of_its_largest_box():
    data = open_detection(DetectionDataConfig(source="generated", image_size=64)).val
    for index in range(len(data)):
        boxes = data.instances(index)["boxes"]
        if not len(boxes):
            assert data.point_of(index) is None
            continue
        sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        left, top, right, bottom = boxes[int(torch.argmax(sizes))].tolist()
        assert data.point_of(index) == (int((top + bottom) / 2), int((left + right) / 2))


def test_without_places_the_point_is_not_known():
    config = DataConfig(source="generated", image_size=32, num_classes=2, num_images=8, num_val_images=8)
    assert open_splits(config).val.point_of(0) is None
