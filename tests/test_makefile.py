"""What the Makefile runs and tells people to type are commands that exist."""

import re
import shlex
from pathlib import Path

import pytest

from botvision.cli.parser import MANUAL, parse, split_overrides
from botvision.config.recipes import build_config, load_recipe

MAKEFILE = (Path(__file__).parent.parent / "Makefile").read_text()
LINES = re.findall(r"\$\(BIN\)/botvision ([^\\\n\"&|;]+)", MAKEFILE)


@pytest.mark.parametrize("command", LINES)
def test_commands(command: str) -> None:
    words, overrides = split_overrides(shlex.split(command.removesuffix("|| exit")))
    parsed, unknown = parse(words)
    assert unknown == []
    if parsed.command == "train":
        build_config(load_recipe(parsed.recipe), overrides)
    else:
        assert not overrides or MANUAL[parsed.command].keys


def test_demo_goes_the_whole_way_with_the_model_it_trained() -> None:
    assert {line.split()[0] for line in LINES} == {"train", "eval", "predict", "check"}
    trained = {words[words.index("--out") + 1] for line in LINES if (words := line.split())[0] == "train"}
    used = {line.split()[1] for line in LINES if line.split()[0] in ("eval", "predict")}
    assert used
    assert used <= trained


def test_every_target_is_listed_and_described() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert targets == phony == set(re.findall(r"^([a-z]+):.*## \S", MAKEFILE, re.MULTILINE))
