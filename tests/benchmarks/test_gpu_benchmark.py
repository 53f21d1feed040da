"""The stages for a GPU at toy size on a CPU, and what becomes of one that fails or takes too long."""

import importlib
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

import gpu
import harness
import pack
from botvision.cli.parser import parse, split_overrides
from botvision.config.recipes import build_config, load_recipe

SLEEP = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
WRITE = [sys.executable, "-c", "import pathlib; pathlib.Path(r'{out}', 'rows.json').write_text('[1]')"]
FAIL = [sys.executable, "-c", "raise SystemExit('no such kernel')"]


def stages(out: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, list[dict]]:
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(out), "--toy", *words])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    return int(stop.value.code or 0), json.loads((out / "gpu.json").read_text())


def test_one_that_fails_or_takes_too_long_costs_no_other(tmp_path: Path, monkeypatch) -> None:
    made = (
        gpu.Stage("slow", 2, [], [SLEEP, WRITE]),
        gpu.Stage("wrong", 9, [], [FAIL, WRITE]),
        gpu.Stage("good", 9, [], [WRITE]),
    )
    monkeypatch.setattr(gpu, "STAGES", made)
    code, found = stages(tmp_path, monkeypatch, "--stages", "slow", "wrong", "good")
    assert code == 1
    assert [each["how"] for each in found] == ["out of time", "failed: exit code 1", "passed"]
    assert found[0]["said"] == ["begun"]
    assert found[1]["said"] == ["no such kernel"]
    with tarfile.open(tmp_path / "gpu.tar.gz") as archive:
        assert {"gpu.json", "slow/output.txt", "good/rows.json"} <= set(archive.getnames())
        assert "slow/rows.json" not in archive.getnames()
    (tmp_path / "good" / "rows.json").unlink()
    monkeypatch.setattr(gpu, "STAGES", (*made[2:], gpu.Stage("late", 9, [], [WRITE])))
    code, found = stages(tmp_path, monkeypatch, "--stages", "good", "late", "--budget", "1")
    assert not (tmp_path / "good" / "rows.json").exists()  # it had passed
    assert found[-1]["how"] == "left out: 1 s were left"


def test_the_tests_for_a_gpu_run_on_a_cpu(tmp_path: Path, monkeypatch) -> None:
    code, found = stages(tmp_path, monkeypatch, "--stages", "tests")
    assert (code, [each["how"] for each in found]) == (0, ["passed"]), found[0]["said"]
    assert "passed" in found[0]["said"][-1]
    assert "skipped" not in found[0]["said"][-1]


COMMANDS = [command for stage in gpu.STAGES for command in (*stage.commands, *stage.toy)]
SCRIPTS = [command[1:] for command in COMMANDS if "{out}" in command]


def test_training_without_photos_is_left_out(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path), "--stages", "training"])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    (found,) = json.loads((tmp_path / "gpu.json").read_text())
    assert (stop.value.code, found["how"]) == (1, "left out: needs --data and --weights, or --packed")


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_benchmarks_take_the_words_of_the_stages(words: list[str], monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("sys.argv", [word.format(out="somewhere") for word in words])
    script = importlib.import_module(Path(words[0]).stem)
    script._asked(harness.arguments(""))


@pytest.mark.parametrize("words", [each[3:] for each in COMMANDS if "botvision" in each], ids=" ".join)
def test_the_command_takes_the_words_of_the_stages(words: list[str]) -> None:
    rest, overrides = split_overrides([word.format(out="o", data="d", weights="w") for word in words])
    parsed, unknown = parse(rest)
    assert unknown == []
    if parsed.command == "train":
        build_config(load_recipe(parsed.recipe), overrides)
    else:
        assert not overrides


def test_what_is_packed_comes_out_again(tmp_path: Path, monkeypatch) -> None:
    photos, weights = tmp_path / "photos", tmp_path / "w.safetensors"
    (photos / "train" / "cat").mkdir(parents=True)
    (photos / "train" / "cat" / "a.jpg").write_bytes(os.urandom(5000))
    weights.write_bytes(b"weights" * 999)
    monkeypatch.setattr(pack, "PART", 4096)
    monkeypatch.setenv("PYTHONPATH", "before")
    parts = pack.pack(tmp_path / "packed", photos, weights, ("iniconfig",))
    assert len(parts) > 2
    assert all(part.stat().st_size <= 4096 for part in parts)
    found = pack.unpack(tmp_path / "packed")
    assert (Path(found["data"]) / "train/cat/a.jpg").read_bytes() == (photos / "train/cat/a.jpg").read_bytes()
    assert Path(found["weights"]).read_bytes() == weights.read_bytes()
    *_, site, before = os.environ["PYTHONPATH"].split(os.pathsep)
    assert before == "before"
    assert (Path(site) / "iniconfig" / "__init__.py").is_file()
    assert pack.unpack(tmp_path / "packed") == found
    with pytest.raises(SystemExit, match="no_such_thing is not installed"):
        pack.pack(tmp_path / "packed", None, None, ("no_such_thing",))
