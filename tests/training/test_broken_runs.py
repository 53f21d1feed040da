"""Runs that broke off, checkpoints that broke, disks that are full, signals: one line, and what to type."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from botvision.backbones.stored import read_weights
from botvision.cli import main as cli
from botvision.config.schema import ConfigError
from botvision.io.lock import FolderInUseError, locked
from botvision.training import run
from botvision.training.checkpoint import read_checkpoint, read_state
from tests.training.runs import assert_same_run, tiny


@pytest.fixture
def copy(whole_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def test_a_second_writer_is_refused_and_leaves_all_as_it_is(copy: Path, tmp_path: Path, capsys: Any):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    words = rf"{copy}: a run is being trained here already \(process {os.getpid()}, or one that it started\)"
    with locked(copy / "run.lock", "a run is being trained"):
        with pytest.raises(FolderInUseError, match=words):
            run.train(tiny(train__epochs=4), copy, resume=True, progress=False)
        assert cli.main(["train", "--out", str(copy), "--resume"]) == 2
        assert cli.main(["train", "generated_botnet14_nano", "--out", str(copy)]) == 2
        assert capsys.readouterr().err.count(f"(process {os.getpid()}, or one that it started)\n") == 2
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    with locked(tmp_path / "new" / "run.lock", "x"), pytest.raises(FolderInUseError):
        run.train(tiny(), tmp_path / "new", progress=False)


def test_what_a_start_that_was_killed_left_is_no_hindrance_and_goes(tmp_path: Path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints").rmdir()
    for name in ("run.lock", "versions.json", f".config.yaml.{os.getpid()}.tmp"):
        (folder / name).touch()
    run.train(tiny(train__max_steps=1), folder, progress=False)
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".lock")]


def changed(path: Path, change: Any) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "cut off, damaged, or something else"),
        (flip, "damaged: the checksum of"),
        (lambda path: torch.save({"botvision": [1]}, path), "not a checkpoint of a botvision run"),
        (lambda path: torch.save([1], path), "not a checkpoint of a botvision run"),
        (lambda path: changed(path, lambda c: c.update(state=[1])), "not a checkpoint of a botvision run"),
        (lambda path: changed(path, lambda c: c["state"].update(step="x")), "state.step: expected int"),
        (lambda path: changed(path, lambda c: c["state"].update(step=-1)), "state.step: expected 0 or more"),
        (lambda path: changed(path, lambda c: c["state"].update(more=1)), "of a later version of botvision"),
        (lambda path: changed(path, lambda c: c.update(evaluated=3)), "not a checkpoint of a botvision run"),
        (lambda path: changed(path, lambda c: c["model"]["fc.weight"].fill_(torch.nan)), "first fc.weight"),
        (lambda path: changed(path, lambda c: c.pop("optimizer")), "nothing to go on from"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "no regular file"),
    ],
)
def test_a_broken_checkpoint_is_one_line_with_what_is_whole(copy: Path, harm: Any, words: str):
    last = copy / "checkpoints" / "last.ckpt"
    harm(last)
    with pytest.raises(ConfigError, match=words) as error:
        run.train(tiny(train__epochs=4), copy, resume=True, progress=False)
    line = str(error.value)
    assert line.startswith(f"{last}: ")
    assert line.endswith(
        f"; previous.ckpt beside it is whole (step 16): rm {last}, and --resume goes on from there"
    )
    assert "\n" not in line
    (copy / "checkpoints" / "previous.ckpt").unlink()
    with pytest.raises(ConfigError, match=rf"best.ckpt beside it is whole .*: botvision predict {copy}"):
        read_state(last)
    (copy / "checkpoints" / "best.ckpt").write_text("x")
    with pytest.raises(ConfigError, match="no other checkpoint beside it is whole: train anew"):
        read_state(last)


def test_from_the_checkpoint_before_a_run_ends_in_the_same_bits(whole_run: Path, copy: Path):
    (copy / "checkpoints" / "last.ckpt").unlink()
    run.train(tiny(), copy, resume=True, progress=False)
    assert_same_run(whole_run, copy)


def test_a_checkpoint_of_another_network_is_one_line(copy: Path):
    last = copy / "checkpoints" / "last.ckpt"
    changed(last, lambda c: c["model"].pop("fc.bias"))
    with pytest.raises(ConfigError, match=r"last.ckpt: its model is not this run's: .*fc.bias"):
        run.train(tiny(train__epochs=4), copy, resume=True, progress=False)


def test_a_run_that_is_not_finished_can_be_used(copy: Path, tmp_path: Path, capsys: Any):
    for name in ("summary.json", "eval.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "model")
    images, out = tmp_path / "a.png", tmp_path / "out"
    from PIL import Image

    Image.new("RGB", (16, 16)).save(images)
    best = read_checkpoint(copy / "checkpoints" / "best.ckpt")
    taken = f"weights of best.ckpt, after step {best['state'].step} "
    note = f"botvision: note: {copy}: the run is not finished: {taken}"
    assert cli.main(["predict", str(copy), str(images), "--out", str(out)]) == 0
    assert capsys.readouterr().err.startswith(note)
    assert json.loads((out / "predictions.json").read_text())
    assert cli.main(["eval", str(copy)]) == 0
    assert capsys.readouterr().err.startswith(note)
    found = json.loads((copy / "eval-unfinished.json").read_text())
    assert found["top1"] == best["state"].best_score
    assert not (copy / "model").exists()
    run.export_unfinished(copy, tmp_path / "model")
    assert torch.equal(
        read_weights(tmp_path / "model" / "model.safetensors")["fc.weight"], best["evaluated"]["fc.weight"]
    )
    flip(copy / "checkpoints" / "best.ckpt")
    assert "weights of last.ckpt, after step 18 (3 of 3 epochs done)" in run.export_unfinished(copy, out)


@pytest.fixture
def small_disk():
    """Files of this process can be no larger than 300 kB, a checkpoint is."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, usual[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_takes_no_more_is_named_and_nothing_half_is_left(tmp_path: Path, capsys: Any):
    words = ["--data.num_images", "64", "--data.num_val_images", "64", "--train.epochs", "1"]
    folder = tmp_path / "r"
    assert cli.main(["train", "generated_botnet14_nano", "--out", str(folder), *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"botvision: {folder}/checkpoints/best.ckpt: file too large; "
        f"to go on: botvision train --out {folder} --resume"
    )
    assert list((folder / "checkpoints").iterdir()) == []


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    size = ["--data.num_images", "2000", "--data.num_val_images", "64", "--train.log_every", "1"]
    given = ["train", "generated_botnet14_nano", "--out", str(folder), *size, *words]
    process = subprocess.Popen(
        [sys.executable, "-m", "botvision", *given],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until = time.monotonic() + 300
    steps = folder / "steps.csv"
    while not (steps.is_file() and steps.read_text().count("\n") > 2):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGKILL, 2, "a process that loads images was killed"),
    ],
)
def test_a_signal_to_a_training_or_to_its_loader_is_one_line(
    tmp_path: Path, number: int, code: int, words: str
):
    folder = tmp_path / "r"
    process = start(folder, "--data.num_workers", "1")
    target = process.pid
    if number == signal.SIGKILL:
        target = int(Path(f"/proc/{target}/task/{target}/children").read_text().split()[0])
    os.kill(target, number)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == code
    lines = error.splitlines()
    assert lines[-1].startswith(f"botvision: {words}")
    assert lines[-1].endswith(f"; to go on: botvision train --out {folder} --resume")
    assert len(lines) == 3, error  # the first two say that weights are random, and what is trained
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".lock")]


@pytest.mark.parametrize("seconds", [0.02, 0.1])
def test_an_interruption_while_the_command_starts_is_one_line(seconds: float):
    """From the moment at which Python has started and reads the command's own first line."""
    code = (
        "import os, signal, threading, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        f"threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "from botvision import __main__\n"
        "import builtins; usual = builtins.__import__\n"
        "def slowly(name, *rest):\n"
        "    time.sleep(0.02)\n"
        "    return usual(name, *rest)\n"
        "builtins.__import__ = slowly\n"
        "raise SystemExit(__main__.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (130, "botvision: interrupted\n")


def test_the_reader_of_the_output_may_go_away():
    command = f"{sys.executable} -m botvision models | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")
