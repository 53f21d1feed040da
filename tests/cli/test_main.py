"""The command, run in this process: its help, exit codes, and one line for every mistake."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from botvision.cli import main as cli
from botvision.cli.parser import FIRST_STEPS, MANUAL, parse
from botvision.config.recipes import recipe_names
from tests.terminal import complaint


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_has_examples(capsys, command):
    assert cli.main([*command.split(), "--help"]) == 0
    captured = capsys.readouterr()
    assert f"usage: botvision {command}".strip() in captured.out
    assert re.search(r"examples:\n  botvision \w+", captured.out)
    assert captured.err == ""


EXAMPLES = [
    line
    for text in [FIRST_STEPS, *(command.examples for command in MANUAL.values())]
    for line in text.strip().splitlines()
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_of_the_help_are_commands(line):
    words, overrides = cli.split_overrides(shlex.split(line, comments=True)[1:])
    args, unknown = parse(words)
    assert unknown == []
    assert args.command in cli.COMMANDS
    assert not overrides or MANUAL[args.command].keys
    if args.command == "train":
        assert args.resume or args.recipe in (*recipe_names(), "my-recipe.yaml")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("predict run --topk 3 a.jpg b.jpg", {"run": "run", "paths": ["a.jpg", "b.jpg"], "topk": 3}),
        ("predict run a.jpg --no-pictures b.jpg", {"paths": ["a.jpg", "b.jpg"], "no_pictures": True}),
        ("predict --out o run", {"run": "run", "paths": [], "out": "o"}),
        ("compare a --out t.md b", {"runs": ["a", "b"], "out": "t.md"}),
        ("train --resume --out x", {"recipe": None, "out": "x", "resume": True}),
        ("study --dry-run cifar --jobs 2", {"study": "cifar", "jobs": 2, "dry_run": True}),
    ],
)
def test_options_stand_in_any_order(line, expected):
    args, unknown = parse(line.split())
    assert unknown == []
    assert {name: getattr(args, name) for name in expected} == expected


def test_without_a_command_the_help_appears(capsys):
    assert cli.main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"botvision \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--help"], ""),
        (["models"], ""),
        (["recipes", "photos_botnet50"], ""),
        (["train", "RECIPE", "--train.epoch", "3"], "unknown key train.epoch; did you mean 'train.epochs'?"),
        (["train", "photos_botnet50", "--data.root", "nowhere"], "data.root: nowhere: no such"),
        (["train", "RECIPE", "--out", "FOLDER"], "expected a new or empty folder for the run"),
        (["train", "RECIPE", "--model.name", "botnet51"], "unknown model 'botnet51'; did you mean botnet50"),
        (["cost", "botnet50", "--vs", "resnet51"], "unknown model 'resnet51'; did you mean"),
        (["compare", "nowhere"], "nowhere: no such run folder"),
    ],
)  # fmt: skip
def test_help_and_mistakes_load_nothing_heavy(recipe, argv, words):
    argv = [{"RECIPE": recipe, "FOLDER": str(Path(recipe).parent)}.get(word, word) for word in argv]
    code = f"""
import sys
from botvision.cli.main import main
assert main({argv}) == {2 if words else 0}
heavy = {{"torch", "timm", "torchvision", "lightning", "matplotlib", "PIL", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--out", "x"], "RECIPE is missing; only --resume with --out DIR goes without"),
        (["train", "--resume"], "RECIPE is missing; only --resume with --out DIR goes without"),
        (["train", "--out", "/no/x", "--resume"], "/no/x: no run to resume, there is no config.yaml"),
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["fly"], f"unknown command 'fly'; there are {', '.join(cli.COMMANDS)}"),
        (["check"], "the following arguments are required: DATA; see botvision check --help"),
        (["check", "a", "--deep"], "unknown argument --deep"),
        (["train", "x", "--epochs", "3"], "unknown argument --epochs; did you mean --train.epochs?"),
        (["train", "x", "--train.epochs"], "--train.epochs: expected a value after it"),
        (["train", "x", "--train.epochs", "--resume"], "--train.epochs: expected a value after it"),
        (["train", "x", "--optim.lr=1", "--optim.lr", "2"], "--optim.lr: given twice"),
        (["predict", "r", "p", "--data.root", "x"], "--data.root: predict takes no configuration keys"),
        (["compare"], "the following arguments are required: RUN; see botvision compare --help"),
        (["cost", "x", "--size", *"123"], "--size: expected a side, or height and width, got 3 numbers"),
        (["cost", "botnet50", "--train.epochs", "3"], "--train.epochs: cost takes --model.args.KEY alone"),
        (["compare", "r", "--out", "table.txt"], "--out: expected a name that ends in .md, got table.txt"),
        (["--train.epochs", "3", "trian", "x"], "unknown command 'trian'; did you mean 'train'?"),
        (["--train.epochs", "3", "check", "x"], "--train.epochs: check takes --data.KEY alone"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(capsys, argv, words):
    assert complaint(capsys, *argv) == words


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model.args.c5_blocks", "[0,"], "model.args.c5_blocks: cannot be read: '[0,'"),
        (["--model.args.heads", "four"], "heads must be a whole number above 0, got 'four'"),
        (["--model.args.pretrained", "true"], "there are no pretrained weights for botnet14_tiny, "),
        (["--model.args.layers", "3"], "model botnet14_tiny with {'layers': 3}: "),
        (["--time", "--device", "abacus"], "device 'abacus' is not available here"),
        (
            ["--time", "--size", "32"],
            "1 image of 32x32 leaves batch norm one value a channel: a training step needs a batch of 2",
        ),
    ],
)
def test_what_cost_cannot_do_is_one_line(capsys, argv, words):
    assert complaint(capsys, "cost", "botnet14_tiny", *argv).startswith(words)


@pytest.mark.parametrize("value", ["0", "-3", "two"])
def test_counts_must_be_above_zero(capsys, value):
    assert "--topk: " in complaint(capsys, "predict", "run", "picture", "--topk", value)


def test_overrides_are_found_wherever_they_stand():
    words, overrides = cli.split_overrides(
        ["train", "--a.b", "-1", "recipe", "--c.d_e=x=y", "--out", "o", "./f.g"]
    )
    assert words == ["train", "recipe", "--out", "o", "./f.g"]
    assert overrides == {"a.b": "-1", "c.d_e": "x=y"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--trian.epochs", "3"], "unknown key trian"),
        (["--train.epochs", "many"], "train.epochs: expected int"),
        (["--data.image_size=0"], "image_size"),
    ],
)
def test_broken_configuration_keys_are_one_line(capsys, tmp_path, recipe, overrides, words):
    assert words in complaint(capsys, "train", recipe, "--out", str(tmp_path / "run"), *overrides)
    assert not (tmp_path / "run").exists()


def test_unknown_recipe_and_unknown_model(capsys, tmp_path, recipe):
    assert "nothing.yaml" in complaint(capsys, "train", "nothing.yaml")
    run = ["--out", str(tmp_path / "run")]
    line = complaint(capsys, "train", recipe, *run, "--model.name", "botnet51")
    assert "unknown model 'botnet51'" in line
    assert "botnet50" in line
    assert not (tmp_path / "run").exists()
    assert "did you mean botnet50" in complaint(capsys, "cost", "botnet51")


def test_missing_files_and_folders_are_named(capsys, tmp_path):
    missing = str(tmp_path / "missing")
    assert complaint(capsys, "predict", missing, missing) == f"{missing}: no such run folder"
    assert missing in complaint(capsys, "eval", missing)
    assert complaint(capsys, "compare", missing) == f"{missing}: no such run folder"
    assert cli.main(["check", missing]) == 2
    assert f"botvision: {missing}: no such file or folder" in capsys.readouterr().err


def test_os_errors_name_the_file_without_a_number():
    assert cli.one_line(PermissionError(13, "Permission denied", "/etc/x")) == "/etc/x: permission denied"


def test_missing_extra_says_how_to_install_it(capsys, monkeypatch):
    def run(*_: object) -> int:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch")

    monkeypatch.setitem(cli.COMMANDS, "models", run)
    assert complaint(capsys, "models") == 'lightning is not installed: pip install "botvision[train]"'


def test_every_package_of_the_extra_is_known():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^\w-]", need)[0] for need in project["optional-dependencies"]["train"]}
    assert {{"yaml": "pyyaml"}.get(name, name) for name in cli.EXTRA} == wanted


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines."),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_change(capsys, monkeypatch, error):
    def run(*_: object) -> int:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "models", run)
    assert complaint(capsys, "models").startswith("out of memory; try a smaller batch")


def test_our_own_bugs_keep_their_traceback(monkeypatch):
    def run(*_: object) -> int:
        raise ModuleNotFoundError("No module named 'no_such_thing'", name="no_such_thing")

    monkeypatch.setitem(cli.COMMANDS, "models", run)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["models"])
    with pytest.raises(ValueError, match="no such run folder"):
        cli.main(["compare", "nowhere", "--traceback"])


@pytest.mark.parametrize(
    ("begun", "words"), [(False, "nothing was written yet"), (True, "to go on: botvision train --out")]
)
def test_an_interrupted_training_says_how_to_go_on(capsys, monkeypatch, tmp_path, begun, words):
    def stop(config, out, resume):
        if begun:
            Path(out).mkdir()
            (Path(out) / "config.yaml").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("botvision.training.run.train", stop)
    line = complaint(capsys, "train", "generated_botnet14_nano", "--out", str(tmp_path / "a b"), code=130)
    assert line.startswith(f"interrupted; {words}")
    assert line.endswith("--resume" if begun else "yet")


def test_all_values_of_a_recipe(capsys):
    assert cli.main(["recipes", "photos_botnet50"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out.split("\n\n")[0])
    assert shown["model"]["name"] == "botnet50"
    assert shown["train"]["batch_size"] == 32


def test_reader_that_went_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "botvision", "recipes"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_file_name_that_is_no_text_is_printed():
    missing = os.fsdecode(b"caf\xe9")
    code = "import sys\nfrom botvision.cli.main import main\nmain(['--version'])\nprint(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, missing], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"caf\\udce9\n")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("weights", "restnet50", "unknown 'restnet50'; did you mean resnet50"),
        ("weights", "maskrcnn_resnet50_fpn_v3", "did you mean maskrcnn_resnet50_fpn_v2"),
        ("weights", "runs/absent", "runs/absent: no such file or folder"),
        ("name", "botnet14_tiny", "there are no pretrained weights for botnet14_tiny, but for botnet50"),
    ],
)
def test_wrong_weights_are_said_before_torch_is_imported(
    key: str, value: str, words: str, tmp_path: Path
) -> None:
    arguments = ["train", "objects_botnet50", "--data.root", str(tmp_path), "--out", "nowhere"]
    code = (
        "import sys; from botvision.cli.main import main; "
        f"done = main({[*arguments, f'--model.{key}', value]}); "
        "assert 'torch' not in sys.modules; sys.exit(done)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("botvision: model.weights: ")
    assert words in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("recipe", "holds"),
    [("photos_botnet50", "a folder or zip"), ("objects_botnet50", "a folder with COCO annotations")],
)
def test_a_missing_root_is_said_before_torch_is_imported(recipe: str, holds: str) -> None:
    code = (
        "import sys; from botvision.cli.main import main; "
        f"done = main(['train', '{recipe}', '--out', 'nowhere']); "
        "assert 'torch' not in sys.modules; sys.exit(done)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = f"data.root is not set, expected {holds} (or data.source generated, which needs none)"
    assert found.stderr == f"botvision: {line}\n"
    assert found.returncode == 2
