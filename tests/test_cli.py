"""The command, run in this process: exit codes, one line for every mistake, numbers in the tables."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from botvision import cli, manual
from botvision.training.config import recipe_names

RECIPE = """
model: {name: botnet14_tiny, args: {stem: cifar}}
data: {source: generated, image_size: 16, num_images: 64, num_val_images: 32, num_classes: 2}
train: {epochs: 1, batch_size: 16}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return str(path)


def complaint(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 2) -> str:
    """Run a command that must fail with one line, and return that line."""
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("botvision: ")
    return lines[0].removeprefix("botvision: ")


def table(text: str, first: str) -> list[list[str]]:
    """Cells of the Markdown table whose first title is ``first``, without the rule."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} "))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_has_examples(capsys, command):
    assert cli.main([*command.split(), "--help"]) == 0
    captured = capsys.readouterr()
    assert f"usage: botvision {command}".strip() in captured.out
    assert re.search(r"examples:\n  botvision \w+", captured.out)
    assert captured.err == ""


EXAMPLES = [
    line for text in [manual.FIRST_STEPS, *manual.EXAMPLES.values()] for line in text.strip().splitlines()
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_of_the_help_are_commands(line):
    words, overrides = cli.split_overrides(shlex.split(line, comments=True)[1:])
    args, unknown = cli.build_parser().parse_known_args(words)
    assert unknown == []
    assert args.command in cli.COMMANDS
    assert not overrides or args.command in manual.KEYS
    if args.command == "train":
        assert args.recipe in (*recipe_names(), "my-recipe.yaml")


def test_without_a_command_the_help_appears(capsys):
    assert cli.main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"botvision \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_help_and_wrong_keys_load_nothing_heavy(recipe):
    code = f"""
import sys
from botvision import cli
assert cli.main(["train", "--help"]) == 0
assert cli.main(["train", {recipe!r}, "--train.epoch", "3"]) == 2
assert cli.main(["compare", "nowhere"]) == 2
heavy = {{"torch", "timm", "torchvision", "lightning", "matplotlib", "PIL", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("botvision: unknown key train.epoch; did you mean ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
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
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(capsys, argv, words):
    assert complaint(capsys, *argv) == words


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
    assert cli._one_line(PermissionError(13, "Permission denied", "/root/x")) == "/root/x: permission denied"


def test_missing_extra_says_how_to_install_it(capsys, monkeypatch):
    def run(*_: object) -> int:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch")

    monkeypatch.setitem(cli.COMMANDS, "models", run)
    assert complaint(capsys, "models") == 'lightning is not installed: pip install "botvision[train]"'


def test_out_of_memory_says_what_to_change(capsys, monkeypatch):
    def run(*_: object) -> int:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines.")

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


def test_interrupt_says_how_to_go_on(capsys, monkeypatch):
    def run(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "train", run)
    line = complaint(capsys, "train", "a b.yaml", "--resume", "--train.epochs", "3", code=130)
    assert line == "interrupted; to go on: botvision train 'a b.yaml' --train.epochs 3 --resume"


def test_reader_that_went_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "botvision.cli", "recipes"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_check_of_a_sound_and_a_broken_folder(capsys, tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (20, 10 + k), (k * 20, count * 50, 3 * len(split))).save(
                    tmp_path / split / name / f"{k}.png"
                )
    assert cli.main(["check", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    rows = {row[0]: row for row in table(captured.out, "split")}
    assert rows["train"][:5] == ["train", "6", "0", "2", "3 to 3, median 3"]
    assert rows["val"][1:4] == ["4", "0", "2"]
    assert rows["train"][5] == "10 x 20 to 12 x 20, median 11 x 20"
    assert captured.err == ""
    broken = tmp_path / "train" / "cat" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0")
    assert str(broken) in complaint(capsys, "check", str(tmp_path))


def test_cost_prints_the_numbers_of_the_paper(capsys):
    assert cli.main(["cost", "botnet50", "--vs", "resnet50"]) == 0
    out = capsys.readouterr().out
    rows = table(out, "stage")
    assert rows[0][2::3] == ["botnet50", "resnet50"]
    assert [row[0] for row in rows[1:]] == ["c1", "c2", "c3", "c4", "c5", "head", "total"]
    assert rows[-1][3:5] == ["20.85", "4.02"]  # PAPER: counted at 224
    assert rows[-1][6:8] == ["25.56", "4.09"]
    assert rows[5][1:3] == ["7x7", "[1x1, 512; MHSA, 512; 1x1, 2048] x3"]
    assert "botnet50 / resnet50: parameters 0.82, multiply-adds 0.98" in out


def test_cost_takes_arguments_of_the_model_sizes_and_time(capsys):
    argv = [
        "cost",
        "botnet14_tiny",
        "--size",
        "32",
        "64",
        "--model.args.c5_stride",
        "1",
        "--vs",
        "resnet14_tiny",
    ]
    assert cli.main([*argv, "--time"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("botnet14_tiny beside resnet14_tiny, one image of 32x64\n")
    assert table(out, "stage")[5][1] == "2x4 / 1x2"
    assert (
        len(
            re.findall(
                r"training step \d+\.\d ms \(median of \d+, best \d+\.\d, batch 1, float32, cpu\)", out
            )
        )
        == 2
    )
    assert re.search(r"step time \d+\.\d\d$", out.rstrip())
    line = complaint(capsys, "cost", "botnet14_tiny", "--model.args.wings", "2")
    assert "botnet14_tiny" in line
    assert "wings" in line


def test_models_are_listed(capsys):
    assert cli.main(["models"]) == 0
    rows = table(capsys.readouterr().out, "model")
    assert ["botnet50", "3-4-6-3", "2", "none", "relu", "224", "resnet50"] in rows


def test_recipes_are_listed_with_their_promise(capsys):
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(recipe_names())]] == recipe_names()
    assert all(len(line.split()) > 3 for line in lines[: len(recipe_names())])


def test_train_eval_predict_compare(capsys, tmp_path, recipe):
    run, photos, out = tmp_path / "run", tmp_path / "photos", tmp_path / "out"
    assert cli.main(["train", recipe, "--out", str(run), "--data.num_images", "32"]) == 0
    captured = capsys.readouterr()
    assert table(captured.out, "model")[1][0] == "botnet14_tiny"
    assert f"next: botvision eval {run}" in captured.out
    summary = json.loads((run / "summary.json").read_text())

    assert cli.main(["eval", str(run)]) == 0
    out_of_eval = capsys.readouterr().out
    assert table(out_of_eval, "images")[1][:2] == ["32", f"{100 * summary['top1']:.2f}"]
    assert "resume" in complaint(capsys, "train", recipe, "--out", str(run))

    photos.mkdir()
    Image.new("RGB", (30, 20), "red").save(photos / "red.png")
    (photos / "broken.png").write_bytes(b"\x89PNG")
    assert cli.main(["predict", str(run), str(photos), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert str(photos / "broken.png") in captured.err
    assert "2 files: 1 classified, 1 could not be read" in captured.out
    assert len(json.loads((out / "predictions.json").read_text())["predictions"]) == 1
    assert (out / "pictures" / "red.jpg").is_file()

    assert cli.main(["predict", str(run), str(photos / "broken.png"), "--out", str(out)]) == 2
    capsys.readouterr()

    assert cli.main(["compare", str(run), "--out", str(tmp_path / "t" / "table.md")]) == 0
    text = (tmp_path / "t" / "table.md").read_text()
    assert capsys.readouterr().out.startswith(text)
    assert table(text, "model")[1][6] == f"{100 * summary['top1']:.2f}"
    assert json.loads((tmp_path / "t" / "table.json").read_text())["groups"][0]["n"] == 1
