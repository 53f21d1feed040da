"""What the README tells people to type works, and its table of models is what the code counts."""

import re
import shlex
from pathlib import Path

import pytest

from botvision.backbones.cost import count
from botvision.backbones.models import create_model
from botvision.backbones.variants import VARIANTS
from botvision.cli.parser import parse, split_overrides
from botvision.config.recipes import build_config, load_recipe, recipe_names
from botvision.config.run import EVALUATION_KEYS

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(
    r"^botvision .*$", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)), re.MULTILINE
)
MODEL_ROWS = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \|", README, re.MULTILINE)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str) -> None:
    """The command line is understood, and the keys belong to the recipe."""
    words, overrides = split_overrides(shlex.split(command, comments=True)[1:])
    parsed, unknown = parse(words)
    assert unknown == []
    if parsed.command == "train" and parsed.recipe is None:
        assert parsed.resume
        assert parsed.out
        assert not overrides
    elif parsed.command == "train":
        build_config(load_recipe(parsed.recipe), overrides)
    else:
        allowed = ("data.", "model.args.", *EVALUATION_KEYS["detect"])
        assert not overrides or all(key.startswith(allowed) for key in overrides)


def test_recipes_that_are_named_exist() -> None:
    families = "|".join(sorted({name.split("_")[0] for name in recipe_names()}))
    named = set(re.findall(rf"\b(?:{families})_[a-z0-9_]+\b", README))
    root = Path(__file__).parent.parent
    files = {path.stem for path in (*root.glob("results/*.md"), *root.glob("docs/*.py"))}
    assert named <= {*recipe_names(), *files}


@pytest.mark.parametrize(("name", "size", "params", "macs"), MODEL_ROWS)
def test_model_table(name: str, size: str, params: str, macs: str) -> None:
    options = {"img_size": int(size)} if name in VARIANTS and VARIANTS[name].attention else {}
    cost = count(create_model(name, **options), int(size))
    for counted, printed in ((cost.params / 1e6, params), (cost.macs / 1e9, macs)):
        assert f"{counted:.{len(printed.split('.')[1])}f}" == printed


def test_there_is_something_to_test() -> None:
    assert len(PYTHON) >= 2
    assert len(COMMANDS) >= 8
    assert len(MODEL_ROWS) >= 8
