"""botvision study: its list, its plan, its report, and one line for what goes wrong."""

import dataclasses
import json
import re

import pytest

from botvision.cli import main as cli
from botvision.studies.schedule import Failure
from botvision.studies.spec import load_study, study_names
from botvision.studies.timing import FILE, StepTimes
from tests.studies.files import plan_of, write
from tests.studies.test_collect import PLACES, run_all
from tests.studies.test_plan import TWO_SEEDS, begin, finish
from tests.terminal import complaint, table


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("botvision.studies.schedule.gpus", list)


def test_the_list_names_every_study_and_scale(capsys):
    assert cli.main(["study"]) == 0
    out = capsys.readouterr().out
    rows = table(out, "study")[1:]
    assert {(row[0], row[1]) for row in rows} >= {
        (name, scale) for name in study_names() for scale in load_study(name).scales
    }
    assert re.search(r"^position: What attention looks at", out, re.M)


def test_the_plan_says_what_would_be_run_and_how_long(capsys, tmp_path):
    plan = plan_of(tmp_path, TWO_SEEDS, PLACES)
    finish(plan.runs[0], 60)
    begin(plan.runs[1])
    words = ["study", str(tmp_path / "tiny.yaml"), "--out", str(plan.folder), "--jobs", "1", "--dry-run"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert table(out, "run")[1:] == [
        ["r-s4", "finished", "ResNet", "1 min", "image-size 24"],
        ["bot-s4", "begun", "BoTNet", "2 min", "image-size 24"],
        ["r-s7", "new", "ResNet", "1 min", "image-size 24"],
        ["bot-s7", "new", "BoTNet", "2 min", "image-size 24"],
    ]
    assert out.rstrip().endswith(
        "study tiny: 3 of 4 runs to do, 1 of them begun, 1 at a time on CPU: about 5 min by finished runs "
        "and the study file"
    )
    assert not (plan.folder / "study.lock").exists()


def test_report_only_runs_nothing(capsys, tmp_path, monkeypatch):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS, PLACES))
    monkeypatch.setattr("botvision.studies.schedule.run_study", None)
    assert cli.main(["study", str(tmp_path / "tiny.yaml"), "--out", str(plan.folder), "--report-only"]) == 0
    out = capsys.readouterr().out
    assert "BoTNet |   2 | 62.50" in out
    files = [plan.folder / f"tiny-cpu.{kind}" for kind in ("html", "md", "json")]
    assert out.endswith(f"written: {', '.join(map(str, files))}\n")
    assert all(path.stat().st_size > 500 for path in files)


def test_runs_that_failed_are_named_at_the_end(capsys, tmp_path, monkeypatch):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS), ("r-s4", "bot-s4"))
    failure = Failure("r-s7", "the loss is not finite", plan.folder / "r-s7.log")
    monkeypatch.setattr("botvision.studies.schedule.run_study", lambda *_: [failure])
    assert cli.main(["study", str(tmp_path / "tiny.yaml"), "--out", str(plan.folder)]) == 2
    captured = capsys.readouterr()
    line = f"botvision: r-s7: failed: the loss is not finite (its output: {plan.folder}/r-s7.log)"
    assert captured.err.splitlines()[-1] == line
    assert "Warning: 2 of 4 runs are missing: r-s7, bot-s7" in captured.out


def test_an_interruption_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    plan = plan_of(tmp_path, TWO_SEEDS)
    finish(plan.runs[0], 60, train__epochs=3)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("botvision.studies.schedule.run_study", interrupt)
    study, out = str(tmp_path / "tiny.yaml"), str(plan.folder)
    assert cli.main(["study", study, "--out", out, "--train.epochs", "3"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "botvision: interrupted; 1 of 4 runs are finished, the others go on where they were with: "
        f"botvision study {study} --scale cpu --out {out} --train.epochs 3"
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["cifer"], "no study is called 'cifer'; did you mean 'cifar'?"),
        (["cifar", "--scale", "huge"], "--scale: study cifar has no scale 'huge'; known: cpu, paper"),
        (["cifar"], "data.root: missing; expected --data.root with CIFAR-10 as JPEG (cifar10_jpeg.zip)"),
        (["cifar", "--data.root", "/no/x"], "data.root: /no/x: no such file or folder"),
        (["cifar", "--train.seed", "1"], "train.seed: the study has seeds of its own: 0, 1, 2"),
        (
            ["position", "--model.args.position", "content"],
            "model.args.position: the arms of position differ",
        ),
        (["cifar", "--report-only"], "no run of the study cifar is finished"),
        (["cifar", "--jobs", "0"], "argument --jobs: expected a whole number above 0"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, argv, words):
    out = [] if "--jobs" in argv else ["--out", str(tmp_path / "out")]
    assert words in complaint(capsys, "study", *argv, *out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "x"],
        ["--train.epochs", "3"],
        ["--scale", "paper"],
        ["--jobs", "2"],
        ["--dry-run"],
        ["--report-only"],
        ["--no-photos"],
        ["--no-pictures"],
    ],
)
def test_what_goes_with_a_study_without_one_is_refused(capsys, words):
    line = f"STUDY is missing, {words[0]} goes with one; botvision study lists them"
    assert complaint(capsys, "study", *words) == line


def test_the_help_tells_how_many_runs_go_at_a_time(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(12))
    path = write(tmp_path / "tiny.yaml", ("seeds: [0]", "threads: 4\n    seeds: [0]"))
    assert cli.main(["study", path, "--dry-run"]) == 0
    assert ", 3 at a time on CPU: " in capsys.readouterr().out  # 12 processors, 4 threads
    assert cli.main(["study", "--help"]) == 0
    assert "processors divided by the threads" in " ".join(capsys.readouterr().out.split())


def test_the_default_folder_is_named_after_study_and_scale(capsys, tmp_path):
    assert cli.main(["study", "cifar", "--scale", "paper", "--dry-run", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "folder: runs/study-cifar-paper\n" in out
    assert "no estimate yet" in out
    path = write(tmp_path / "tiny.yaml")
    assert cli.main(["study", path, "--dry-run", "--jobs", "2"]) == 0
    assert "folder: runs/study-tiny-cpu\n" in capsys.readouterr().out


def test_a_folder_belongs_to_one_study_at_one_scale(capsys, tmp_path, monkeypatch):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS))
    monkeypatch.setattr("botvision.studies.schedule.run_study", lambda *_: [])
    monkeypatch.setattr("botvision.cli.study.measure_steps", lambda *_: None)
    words = [str(tmp_path / "tiny.yaml"), "--out", str(plan.folder)]
    assert cli.main(["study", *words]) == 0
    assert (plan.folder / "study.txt").read_text() == "study tiny.yaml at scale cpu\n"
    assert cli.main(["study", *words]) == 0  # its own
    capsys.readouterr()
    other = write(tmp_path / "other.yaml")
    for flag in ("--dry-run", "--report-only", "--jobs=1"):
        line = complaint(capsys, "study", other, "--out", str(plan.folder), flag)
        assert line == f"{plan.folder}: holds study tiny.yaml at scale cpu already; choose another --out"
    line = complaint(capsys, "study", other, "--out", str(plan.runs[0].folder), "--dry-run")
    assert line == f"{plan.runs[0].folder}: is the folder of a run; choose another --out"
    line = complaint(capsys, "study", other, "--out", other, "--dry-run")
    assert line == f"--out: {other} is a file, expected a folder"


def test_a_study_called_like_one_that_comes_along_is_another(capsys, tmp_path, monkeypatch):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS))
    own = tmp_path / "cifar.yaml"
    (tmp_path / "tiny.yaml").rename(own)
    assert cli.main(["study", str(own), "--out", str(plan.folder), "--report-only", "--no-pictures"]) == 0
    assert "botvision study cifar.yaml --scale cpu" in (plan.folder / "cifar-cpu.md").read_text()
    monkeypatch.setattr("botvision.studies.schedule.run_study", lambda *_: [])
    monkeypatch.setattr("botvision.cli.study.measure_steps", lambda *_: None)
    assert cli.main(["study", str(own), "--out", str(plan.folder)]) == 0
    capsys.readouterr()
    line = complaint(capsys, "study", "cifar", "--out", str(plan.folder), "--dry-run")
    assert line == f"{plan.folder}: holds study cifar.yaml at scale cpu already; choose another --out"


def test_a_report_is_written_whatever_becomes_of_step_times_and_pictures(capsys, tmp_path, monkeypatch):
    look = ("scales:\n", "attention: {arm: bot}\nscales:\n")
    plan = run_all(plan_of(tmp_path, TWO_SEEDS, look))
    monkeypatch.setattr("botvision.studies.schedule.run_study", lambda *_: [])
    calls = []

    def fails(*_, **__):
        calls.append(1)
        raise RuntimeError("out of\nmemory")  # torch.OutOfMemoryError is one

    monkeypatch.setattr("botvision.cli.study.measure_steps", fails)
    monkeypatch.setattr("botvision.studies.attention.attention_pictures", fails)
    monkeypatch.setattr("botvision.studies.attention.attention_use", fails)
    words = ["study", str(tmp_path / "tiny.yaml"), "--out", str(plan.folder)]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    assert "step times are not measured: out of memory" in captured.out + captured.err
    assert "no pictures of attention: out of memory" in (plan.folder / "tiny-cpu.md").read_text()
    assert (
        "what attention contributes is not measured: out of memory"
        in (plan.folder / "tiny-cpu.md").read_text()
    )
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "model.args.attn_drop: 0.1",
            "model.args.head: 2",
            "model.args.head: no argument .*; did you mean 'heads'",
        ),
        (
            "model.args.attn_drop: 0.1",
            "model.args.heads: 5",
            "channels, which 5 heads do not divide",
        ),
        ("scales:\n", "attention: {arm: r}\nscales:\n", "attention.arm: r: the network has no attention"),
        ("recipe: generated_resnet14_nano", "recipe: photos_resnet50", "r-s4: .*no train/ folder"),
    ],
)
@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_what_would_end_a_run_is_said_before(capsys, tmp_path, monkeypatch, flags, old, new, line):
    monkeypatch.setattr("botvision.studies.schedule.run_study", None)
    path = write(tmp_path / "tiny.yaml", TWO_SEEDS, (old, new))
    words = ["study", path, "--out", str(tmp_path / "out"), *flags]
    if "photos" in new:
        (tmp_path / "empty").mkdir()
        words += ["--data.root", str(tmp_path / "empty")]
    assert re.search(line, complaint(capsys, *words))
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_is_run_first(capsys, tmp_path):
    plan = plan_of(tmp_path, TWO_SEEDS)
    finish(plan.runs[0], 60)
    begin(plan.runs[1])
    words = ["study", str(tmp_path / "tiny.yaml"), "--out", str(plan.folder), "--dry-run"]
    assert cli.main(words) == 0
    first = re.search(r"^first: (.*)", capsys.readouterr().out, re.M)
    assert first is not None
    assert first[1].startswith(f"botvision train --out {plan.runs[1].folder} --resume ")
    (plan.runs[1].folder / "summary.json").write_text("{}")
    for run in plan.runs[2:]:
        finish(run, 60)
    assert cli.main(words) == 0
    assert "first:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--report-only", "--dry-run"], "--report-only runs nothing, --dry-run does not go with it"),
        (["--report-only", "--reuse", "x"], "--report-only runs nothing, --reuse does not go with it"),
        (["--no-photos", "--no-pictures"], "--no-photos does not go with --no-pictures"),
    ],
)
def test_flags_that_do_not_go_together(capsys, tmp_path, flags, line):
    assert line in complaint(capsys, "study", write(tmp_path / "tiny.yaml"), *flags)


def test_a_step_is_timed_again_when_an_arm_came_later(capsys, tmp_path, monkeypatch):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS))
    monkeypatch.setattr("botvision.studies.schedule.run_study", lambda *_: [])
    measured = []
    monkeypatch.setattr("botvision.cli.study.measure_steps", lambda plan, _: measured.append(plan))
    words = ["study", str(tmp_path / "tiny.yaml"), "--out", str(plan.folder)]
    for arms, times in ((("r",), 1), (("r", "bot"), 1)):
        steps = StepTimes(dict.fromkeys(arms, 1.0), dict.fromkeys(arms, 0.1), 10, "a CPU", None)
        (plan.folder / FILE).write_text(json.dumps(dataclasses.asdict(steps)))
        assert cli.main(words) == 0
        assert len(measured) == times


def test_a_dry_run_says_that_data_are_not_there(capsys):
    assert cli.main(["study", "cifar", "--dry-run"]) == 0  # what it takes may be asked for without data
    assert "; say where with --data.root\n" in capsys.readouterr().out
    line = complaint(capsys, "study", "cifar", "--dry-run", "--data.root", "nowhere")
    assert line == "data.root: nowhere: no such file or folder"
