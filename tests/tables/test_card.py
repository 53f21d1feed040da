"""A model card says what the numbers are worth, and nothing of the machine."""

import json
from dataclasses import replace

import pytest
import yaml

from botvision.metrics.runs import Run
from botvision.tables.card import UNKNOWN, model_card

RUN = Run(
    folder="/home/ada/runs/mine", model="botnet50", data="birds", seed=3, epochs=9, task="detect",
    scores={"box_ap": 0.41239, "box_ap50": 0.7}, params=41_000_000, macs=9_000_000_000, image_size=(480, 640),
    precision="32-true", kept="best", train_images=1200, val_images=1, configured=True,
    settings={"model.weights": '"/home/ada/secret/resnet50.pth"', "data.val_is_train": "false"},
)  # fmt: skip
DESCRIPTION = {"classes": ["great `tit`\n", *map(str, range(120))], "detector": {"masks": False}}


def card(run: Run = RUN, licence: str = UNKNOWN, use: str | None = None) -> str:
    return model_card(run, DESCRIPTION, repo="ada/birds", licence=licence, use=use)


def test_what_the_card_says():
    text = card()
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["pipeline_tag"], header["license"]) == ("object-detection", "unknown")
    assert "# birds\n\nFaster R-CNN on `botnet50`: finds objects with their boxes, 121 classes." in text
    assert "| box AP (%)   | 41.24 |" in text
    assert "Measured on 1 validation image; one run with one seed (3)." in text
    assert "The best epoch was chosen on the same images" in text
    assert "`great 'tit'`" in text
    assert "and 21 more, see model.json" in text
    assert "Unknown: the author has not named one." in text
    assert "resnet50.pth" in text
    assert "/home" not in text
    assert "secret" not in text
    assert "`mit`, for these weights" in card(licence="mit")
    assert "Attention contributes nothing measurable." in card(use="attention contributes nothing measurable")


def test_numbers_of_training_images_are_said_to_be_that():
    text = card(replace(RUN, settings={"data.val_is_train": "true"}))
    assert "the numbers say nothing about new images" in text
    assert "random weights" in text


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("auto", "timm's resnet50"),
        ("hf-hub:ada/birds", "hf-hub:ada/birds"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("/home/secret/runs/first/model/model.safetensors", "first/model.safetensors"),
        ("/home/secret/best.safetensors", "best.safetensors"),
    ],
)
def test_what_a_run_started_from(weights: str, said: str):
    text = card(replace(RUN, model="botnet50", settings={"model.weights": json.dumps(weights)}))
    assert f"| started from | {said} |" in " ".join(text.split())
    assert "secret" not in text
