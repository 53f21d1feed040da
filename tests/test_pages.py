"""What README and pages tell people to type works, the models cost what the table says, the site builds."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from inspect import getmro
from pathlib import Path

import pytest

from botvision.backbones.cost import count
from botvision.backbones.models import create_model
from botvision.backbones.variants import VARIANTS
from botvision.cli.parser import parse, split_overrides
from botvision.config.detector import DetectorOptions
from botvision.config.recipes import build_config, load_recipe, recipe_names
from botvision.config.run import CONFIGS, EVALUATION_KEYS

ROOT = Path(__file__).parent.parent
PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
}
PYTHON = [
    pytest.param(code, id=f"{name}-{number}")
    for name, text in PAGES.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]
SHELL = "\n".join(code for text in PAGES.values() for code in re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
COMMANDS = sorted(set(re.findall(r"^botvision .*$", SHELL, re.MULTILINE)))
NOT_THE_SITE = (".git", ".venv", "build", "runs", "demo", "data", "tests", "benchmarks")
MODEL_ROWS = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \|", PAGES["models.md"], re.MULTILINE)


@pytest.mark.parametrize("code", PYTHON)
def test_python(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {})


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
    named = set(re.findall(rf"\b(?:{families})_[a-z0-9_]+\b", "\n".join(PAGES.values())))
    files = {path.stem for path in (*ROOT.glob("results/*.md"), *ROOT.glob("docs/*.py"))}
    assert named <= {*recipe_names(), *files}


@pytest.mark.parametrize(("name", "size", "params", "macs"), MODEL_ROWS)
def test_model_table(name: str, size: str, params: str, macs: str) -> None:
    options = {"img_size": int(size)} if name in VARIANTS and VARIANTS[name].attention else {}
    cost = count(create_model(name, **options), int(size))
    for counted, printed in ((cost.params / 1e6, params), (cost.macs / 1e9, macs)):
        assert f"{counted:.{len(printed.split('.')[1])}f}" == printed


def test_there_is_something_to_test() -> None:
    assert len(PYTHON) >= 6
    assert len(COMMANDS) >= 30
    assert len(MODEL_ROWS) >= 8


def test_the_readme_is_for_reading() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 12_000


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """It checks links among pages, to their headings and to results, and names of functions."""
    shutil.copytree(
        ROOT, tmp_path / "copy", ignore=lambda folder, _: set(NOT_THE_SITE) if Path(folder) == ROOT else ()
    )
    build = [str(tmp_path / "copy" / "docs" / "build.sh"), str(Path(sys.executable).parent)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "copy" / "build" / "site"
    assert "Global self-attention over an H x W map" in (site / "docs" / "api.html").read_text(
        encoding="utf-8"
    )
    assert "start page" in (site / "404.html").read_text(encoding="utf-8")
    assert "warm_start" in (site / "docs" / "configuration.html").read_text(encoding="utf-8")
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)[^>]*(?:src|href)=.?(https?://[^ >]+)", page.read_text("utf-8")
        )
        assert loaded == [], page


def test_every_key_has_a_line_on_its_page() -> None:
    sections = {
        field.type for config in CONFIGS.values() for field in fields(config) if is_dataclass(field.type)
    }
    sections |= {DetectorOptions}
    assert len(sections) > 5
    for section in sections:
        assert isinstance(section, type)
        text = "\n".join(base.__doc__ or "" for base in getmro(section) if is_dataclass(base))
        documented = set(re.findall(r"^ {8}(\w+)(?: \(.*?\))?: ", text, re.MULTILINE))
        assert {field.name for field in fields(section)} - documented == set()
