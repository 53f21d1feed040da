"""What is run, where, how often, and what becomes of it when something ends too early."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml

from botvision.config.recipes import config_to_dict, with_absolute_paths
from botvision.io.lock import FolderInUseError
from botvision.studies import schedule
from botvision.studies.outcome import collect
from botvision.studies.schedule import Slot, locked, run_study, slots_of
from botvision.training.run import train
from tests.studies.files import plan_of
from tests.studies.test_plan import TWO_SEEDS, begin, finish
from tests.training.runs import assert_same_run

PLACES = ("minutes: 2", "minutes: 2\n    at: {image-size: [24, 32]}")
SLOTS = [Slot("CPU", {"OMP_NUM_THREADS": "1"})] * 2

# Stands for botvision: `train` writes what a run has, `eval` its file, and calls.jsonl what it was told.
STAND_IN = """
import json, os, pathlib, shutil, sys, time
from botvision.config.recipes import check_new_folder
verb, *words = sys.argv[1:]
here = pathlib.Path(__file__).parent
folder = pathlib.Path(words[words.index("--out") + 1] if verb == "train" else words[0])
gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
call = [verb, folder.name, "--resume" in words, gpu, os.environ["OMP_NUM_THREADS"]]
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\\n")
if (here / f"{folder.name}.fails").exists():
    sys.exit("first things\\nbotvision: the loss is not finite")
if (here / f"{folder.name}.lasts").exists():
    time.sleep(60)
if verb == "train":
    if "--resume" not in words:
        check_new_folder(folder)
    folder.mkdir(exist_ok=True)
    shutil.copy(here / f"{folder.name}.yaml", folder / "config.yaml")
    (folder / "summary.json").write_text('{"train_seconds": 60, "top1": 0.5}')
else:
    size = words[1].split("=")[1]
    (folder / f"eval-image_size-{size}.json").write_text("{}")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Runs cost nothing; returns the plan and what is called: verb, run, resumed, GPU, threads."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(schedule, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.02)
    plan = plan_of(tmp_path, TWO_SEEDS, PLACES)
    for run in plan.runs:
        values = config_to_dict(with_absolute_paths(run.config))
        (tmp_path / f"{run.name}.yaml").write_text(yaml.safe_dump(values))

    def calls() -> list[list]:
        path = tmp_path / "calls.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    return plan, calls


def silent(*_: object) -> None:
    pass


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def test_runs_and_measurements_happen_once(stand_in):
    plan, calls = stand_in
    lines: list[str] = []
    assert run_study(plan, SLOTS[:1], lines.append, silent) == []
    expected = [[verb, run.name] for run in plan.runs for verb in ("train", "eval", "eval")]
    assert [call[:2] for call in calls()] == expected
    assert lines == [
        line
        for i, run in enumerate(plan.runs, 1)
        for line in (f"{run.name}: begins, output in {run.log}", f"[{i}/4] {run.name}: top-1 50.00 (1 min)")
    ]
    before = stamps(plan.folder)
    assert run_study(plan, SLOTS, lines.append, silent) == []
    assert calls() == []
    assert stamps(plan.folder) | {"study.lock": (0, 0)} == before | {"study.lock": (0, 0)}


def test_only_what_is_missing_is_done(stand_in):
    plan, calls = stand_in
    first, second, third, _ = plan.runs
    finish(first, 60)
    (first.folder / "eval-image_size-24.json").write_text("{}")
    begin(second)
    third.folder.mkdir()
    (third.folder / "versions.json").write_text("[]")  # killed before it was a run
    (third.folder / ".config.yaml.17.tmp").write_text("")
    assert run_study(plan, SLOTS[:1], silent, silent) == []
    found = [call[:3] for call in calls() if call[0] == "train" or call[1] == first.name]
    trained = [["bot-s4", True], ["r-s7", False], ["bot-s7", False]]  # run, resumed
    assert found == [["eval", "r-s4", False], *(["train", *run] for run in trained)]


def test_a_failure_stops_nothing_else_and_is_tried_again(stand_in, tmp_path):
    plan, calls = stand_in
    mark = tmp_path / "bot-s4.fails"
    mark.touch()
    lines: list[str] = []
    (failure,) = run_study(plan, SLOTS, lines.append, silent)
    log = plan.folder / "logs" / "bot-s4.log"
    assert str(failure) == f"bot-s4: failed: the loss is not finite (its output: {log})"
    assert any(line.endswith("] bot-s4: failed: the loss is not finite") for line in lines)
    assert re.search(r"^\[.*, CPU\] botvision train generated_resnet14_nano --out ", log.read_text(), re.M)
    assert list(plan.states().values()).count("finished") == 3
    mark.unlink()
    calls()
    assert run_study(plan, SLOTS, silent, silent) == []
    assert [call[1] for call in calls()] == ["bot-s4"] * 3


def test_other_things_in_the_folder_of_a_run_are_left_alone(stand_in):
    plan, _ = stand_in
    plan.runs[0].folder.mkdir(parents=True)
    (plan.runs[0].folder / "notes.txt").write_text("mine")
    (failure,) = run_study(plan, SLOTS, silent, silent)
    assert failure.run == plan.runs[0].name
    assert (plan.runs[0].folder / "notes.txt").read_text() == "mine"


def test_one_run_on_each_gpu(stand_in):
    plan, calls = stand_in
    slots = slots_of(plan, None, ["0", "3"])
    assert [slot.name for slot in slots] == ["GPU 0", "GPU 3"]
    run_study(plan, slots, silent, silent)
    found = calls()
    by_run = {run.name: {call[3] for call in found if call[1] == run.name} for run in plan.runs}
    assert all(len(gpus) == 1 for gpus in by_run.values())
    assert {gpu for gpus in by_run.values() for gpu in gpus} == {"0", "3"}
    assert [slot.name for slot in slots_of(plan, 3, ["0", "3"])] == ["GPU 0", "GPU 3", "GPU 0"]


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["0", "1"]), ("2,5", ["2", "5"]), ("GPU-aa, GPU-bb,GPU-cc", ["GPU-aa", "GPU-bb"]), ("", [])],
)
def test_gpus_are_called_as_the_environment_calls_them(monkeypatch, visible, names):
    count = 0 if visible == "" else 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert schedule.gpus() == names


def test_threads_are_the_files_whatever_the_number_of_jobs(tmp_path):
    plan = plan_of(tmp_path, ("    minutes: 2", "    threads: 3"))
    for jobs in (1, 4):
        slots = slots_of(plan, jobs, [])
        assert len(slots) == jobs
        assert {slot.environment["OMP_NUM_THREADS"] for slot in slots} == {"3"}
    on_cpu = plan_of(tmp_path, train__device="cpu")
    assert {slot.name for slot in slots_of(on_cpu, None, ["0"])} == {"CPU"}


def test_one_study_in_a_folder(tmp_path):
    folder, words = tmp_path / "out", rf"a study is being run here already \(process {os.getpid()}"
    with locked(folder), pytest.raises(FolderInUseError, match=words), locked(folder):
        pass
    with locked(tmp_path / "out"):
        pass


@pytest.fixture
def interruptible():
    """A process in the background of a shell may have been started with Ctrl-C ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_the_processes(stand_in, tmp_path):
    plan, calls = stand_in
    (tmp_path / "r-s4.lasts").touch()
    started = time.monotonic()

    def interrupt() -> None:
        while not (tmp_path / "calls.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_study(plan, SLOTS[:1], silent, silent)
    thread.join()
    assert time.monotonic() < started + 30
    assert calls() == [["train", "r-s4", False, os.environ.get("CUDA_VISIBLE_DEVICES"), "1"]]
    with locked(plan.folder):  # nobody holds it any more
        pass


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def botvision_study(plan) -> subprocess.Popen[bytes]:
    words = ["study", str(plan.folder.parent / "tiny.yaml"), "--out", str(plan.folder), "--jobs", "1"]
    return subprocess.Popen([*schedule.COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_killed_and_started_again_it_repeats_nothing_and_changes_no_number(tmp_path, one_thread):
    """SIGKILL to the study alone: its process dies too; what was finished stays, the other run goes on."""
    shorter = ("train.epochs: 25", "train.epochs: 8")
    plan = plan_of(tmp_path, shorter)
    finished, interrupted = plan.runs
    train(finished.config, finished.folder, progress=False)
    study = botvision_study(plan)
    rows = interrupted.folder / "metrics.csv"
    until = time.monotonic() + 1800
    while not (rows.exists() and rows.read_text().count("\n") > 2):  # in its third epoch or later
        assert study.poll() is None, study.communicate()[1].decode()
        assert time.monotonic() < until
        time.sleep(0.01)
    study.kill()
    assert study.wait() == -signal.SIGKILL
    with locked(plan.folder):  # the process that it started is gone, or this would be refused
        assert plan.states() == {finished.name: "finished", interrupted.name: "begun"}
        assert not (interrupted.folder / "summary.json").exists()
    before = stamps(finished.folder)

    again = botvision_study(plan)
    said = again.communicate(timeout=1800)[1].decode()
    assert again.returncode == 0, said
    assert "1 of 2 runs to do, 1 of them begun" in said
    assert stamps(finished.folder) == before
    assert "going on after step" in interrupted.log.read_text()
    stretches = json.loads((interrupted.folder / "versions.json").read_text())
    assert len(stretches) == 2
    assert stretches[1]["from_step"] >= 3

    whole = plan_of(tmp_path / "whole", shorter)
    shutil.copytree(finished.folder, whole.runs[0].folder)
    train(whole.runs[1].config, whole.runs[1].folder, progress=False)
    assert_same_run(whole.runs[1].folder, interrupted.folder)
    assert numbers(collect(plan)) == numbers(collect(whole))


def numbers(outcome) -> str:
    """All that a report says of what was learned, as text: not-a-number equals itself there."""
    return repr([
        (arm.name, run.seed, run.scores, run.cost.params, run.cost.macs, run.images,
         [{key: value for key, value in row.items() if key != "seconds"} for row in run.curve])
        for arm in outcome.arms
        for run in arm.runs
    ])  # fmt: skip
