"""What the Makefile runs and tells people to type are commands that exist."""

import re
import shlex
from pathlib import Path

import pytest

from botvision import manual
from botvision.arguments import build_parser, split_overrides
from botvision.training.config import build_config, load_recipe

MAKEFILE = (Path(__file__).parent.parent / "Makefile").read_text()
MODELS = re.findall(r"for model in ([\w ]+);", MAKEFILE)[0].split()
LINES = re.findall(r"\$\(BIN\)/botvision ([^\\\n\"&|;]+)", MAKEFILE)
COMMANDS = [
    line.replace("$$model", model)
    for line in LINES
    for model in (MODELS if "$$model" in line else MODELS[:1])
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str) -> None:
    words, overrides = split_overrides(shlex.split(command.removesuffix("|| exit")))
    parsed, unknown = build_parser().parse_known_args(words)
    assert unknown == []
    if parsed.command == "train":
        build_config(load_recipe(parsed.recipe), overrides)
    else:
        assert not overrides or parsed.command in manual.KEYS


def test_demo_uses_each_verb_and_each_model_it_trained() -> None:
    assert {line.split()[0] for line in LINES} >= {"train", "eval", "predict", "compare", "check"}
    trained = {words[words.index("--out") + 1] for c in COMMANDS if (words := c.split())[0] == "train"}
    used = {word for c in COMMANDS if c.split()[0] in ("predict", "compare") for word in c.split()[1:]}
    assert {f"demo/{model}" for model in MODELS} <= trained
    assert {word for word in used if re.fullmatch(r"demo/\w*net\w*", word)} <= trained


def test_every_target_is_listed_and_described() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert targets == phony == set(re.findall(r"^([a-z]+):.*## \S", MAKEFILE, re.MULTILINE))
