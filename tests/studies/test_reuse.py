"""Runs of other studies are taken over where nothing that decides about numbers differs, and only there."""

import json

import pytest
import yaml

from botvision.cli import main as cli
from botvision.config.recipes import config_to_dict
from botvision.config.schema import ConfigError
from botvision.studies.outcome import collect
from botvision.studies.schedule import locked, take_over, taken_from
from tests.studies.files import plan_of
from tests.studies.test_collect import run_all
from tests.studies.test_plan import TWO_SEEDS, begin, finish
from tests.terminal import complaint


def test_finished_runs_of_the_same_configuration_are_copied(tmp_path):
    first = run_all(plan_of(tmp_path / "first", TWO_SEEDS), ("r-s4", "bot-s4", "r-s7"))
    (first.folder / "r-s4" / "checkpoints").mkdir()
    (first.folder / "bot-s4" / "summary.json").unlink()  # begun only
    second = plan_of(tmp_path / "second", TWO_SEEDS, data__num_workers="2")
    second.folder.mkdir()
    lines = []
    assert take_over(second, tmp_path / "first", lines.append) == ["r-s4", "r-s7"]
    assert lines == [f"{name}: taken from {first.folder / name}" for name in ("r-s4", "r-s7")]
    assert second.states() == {"r-s4": "finished", "bot-s4": "new", "r-s7": "finished", "bot-s7": "new"}
    assert not (second.folder / "r-s4" / "checkpoints").exists()
    assert taken_from(second.folder / "r-s4") == "out/r-s4"
    assert not list(second.folder.glob(".*"))
    assert take_over(second, tmp_path / "first", lines.append) == []  # what is there stays
    notes = collect(second).notes
    line = (
        "Trained for another study, with the same configuration and data: r-s4 (out/r-s4), r-s7 (out/r-s7)."
    )
    assert line in notes
    third = plan_of(tmp_path / "third", TWO_SEEDS)
    third.folder.mkdir()
    take_over(third, second.folder, lines.append)
    assert taken_from(third.folder / "r-s4") == "out/r-s4"  # who trained it, not who copied it


def test_a_copy_that_was_cut_off_is_no_run(tmp_path):
    first = run_all(plan_of(tmp_path / "first", TWO_SEEDS), ("r-s4",))
    (first.folder / "r-s4").rename(first.folder / ".r-s4.partial")
    assert take_over(plan_of(tmp_path / "second", TWO_SEEDS), first.folder.parent, print) == []


def test_a_dry_run_says_what_would_be_taken_and_takes_nothing(tmp_path, capsys):
    first = run_all(plan_of(tmp_path / "first", TWO_SEEDS), ("r-s4", "bot-s4", "r-s7"))
    second = plan_of(tmp_path / "second", TWO_SEEDS)
    words = ["study", str(tmp_path / "second" / "tiny.yaml"), "--out", str(second.folder), "--dry-run"]
    assert cli.main([*words, "--reuse", str(first.folder)]) == 0
    out = capsys.readouterr().out
    assert f"bot-s4: would be taken from {first.folder / 'bot-s4'}\n" in out
    assert "1 of 4 runs to do" in out
    assert not second.folder.exists()
    assert cli.main([*words, "--reuse", str(tmp_path / "second")]) == 0
    assert "is no finished run, of the same configuration and data" in capsys.readouterr().out
    line = complaint(capsys, *words, "--reuse", str(tmp_path / "nowhere"))
    assert line == f"--reuse: {tmp_path / 'nowhere'}: no such folder"


def test_a_folder_in_which_a_study_is_run_takes_nothing_over(tmp_path, capsys):
    first, second = plan_of(tmp_path / "first", TWO_SEEDS), plan_of(tmp_path / "second", TWO_SEEDS)
    run_all(first)
    words = ["study", str(tmp_path / "second" / "tiny.yaml"), "--out", str(second.folder)]
    with locked(second.folder):
        line = complaint(capsys, *words, "--reuse", str(first.folder))
    assert "a study is being run here already" in line
    assert not (second.folder / "r-s4").exists()


@pytest.mark.parametrize(("key", "value"), [("train__epochs", 3), ("train__seed", 9), ("optim__lr", 0.5)])
def test_another_configuration_is_not_taken(tmp_path, key, value):
    first, second = plan_of(tmp_path / "first"), plan_of(tmp_path / "second")
    finish(first.runs[0], 60, **{key: value})
    assert take_over(second, tmp_path / "first", print) == []


def test_other_data_are_not_taken(tmp_path):
    photos = (("recipe: generated_resnet14_nano", "recipe: photos_resnet50"),
              ("model.name: botnet14_nano", "model.name: botnet50"))  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    first = plan_of(tmp_path / "first", *photos, data__root=str(here))
    finish(first.runs[0], 60)
    assert (
        take_over(plan_of(tmp_path / "a", *photos, data__root=str(there)), first.folder.parent, print) == []
    )
    begin(first.runs[1])  # not finished
    same = plan_of(tmp_path / "b", *photos, data__root=str(there / ".." / "here"))
    assert take_over(same, first.folder.parent, print) == ["r-s0"]


def test_folders_that_are_no_runs_are_passed_over(tmp_path):
    with pytest.raises(ConfigError, match=r"--reuse: .*nowhere: no such folder"):
        take_over(plan_of(tmp_path), tmp_path / "nowhere", print)
    plan = plan_of(tmp_path)
    for name, text in (("odd", "- 1"), ("none", None)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "summary.json").write_text("{}")
        if text is not None:
            (tmp_path / "runs" / name / "config.yaml").write_text(text)
    assert take_over(plan, tmp_path / "runs", print) == []


def test_the_command_takes_them_before_it_runs_the_rest(tmp_path, capsys, monkeypatch):
    first = run_all(plan_of(tmp_path / "first", TWO_SEEDS))
    second = plan_of(tmp_path / "second", TWO_SEEDS)
    seen = []
    monkeypatch.setattr(
        "botvision.studies.schedule.run_study", lambda plan, *_: seen.append(plan.states()) or []
    )
    monkeypatch.setattr("botvision.cli.study.measure_steps", lambda *_: None)
    words = ["study", str(tmp_path / "second" / "tiny.yaml"), "--out", str(second.folder)]
    assert cli.main([*words, "--reuse", str(first.folder), "--no-pictures"]) == 0
    assert seen == [dict.fromkeys(("r-s4", "bot-s4", "r-s7", "bot-s7"), "finished")]
    assert "r-s4: taken from" in capsys.readouterr().out
    copied = yaml.safe_load((second.folder / "r-s4" / "config.yaml").read_text())
    assert copied["train"]["seed"] == config_to_dict(first.runs[0].config)["train"]["seed"]
    assert json.loads((second.folder / "tiny-cpu.json").read_text())["warnings"] == []
