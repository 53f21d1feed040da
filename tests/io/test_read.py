"""Small files as untrusted input: one line each, in bounded time."""

import os
import pickle
from pathlib import Path

import pytest

from botvision.io.files import remove_leftovers, replacing
from botvision.io.read import read_object
from botvision.io.yaml import parse_yaml, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expected a mapping of keys to values, got nothing"),
        (b"- 1\n", "got list"),
        (b"a: " + b"[" * 20_000, "nested too deeply"),
        (b"a: &a [*a]\n", "line 1: an alias that refers to itself"),
        (b"&a {b: *a}\n", "an alias that refers to itself"),
        (BOMB.encode(), "more than 100,000 values, aliases written out"),
        (b"a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        (pickle.dumps({"a": 1}), "not a text file in UTF-8"),
        (b"\x00\x01", "cannot be read as YAML: unacceptable character"),
        (b"a: 2024-13-45\n", "month must be in 1..12"),
        (b"a: " + b"9" * 5000, "Exceeds the limit"),
        (b"? {a: 1}\n: 2\n", "expected a name as key"),
        (b"a: 1\n" * 300_000, "bytes, expected at most 1,048,576"),
    ],
)
def test_yaml_that_cannot_be_used_is_one_line(tmp_path: Path, text: bytes, words: str):
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=words) as error:
        read_yaml(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_aliases_of_usual_size_are_values():
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: {<<: &y {d: 3}, e: 4}\n") == {
        "a": [1, 2], "b": [1, 2], "c": {"d": 3, "e": 4},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the file is empty"),
        (b"[1]", "expected an object, found list"),
        (b'{"a": ' * 200_000, "nested too deeply"),
        (b'{"a": ', "not valid JSON"),
        (b"\xff\xfe{", "not a text file in UTF-8"),
    ],
)
def test_json_that_cannot_be_used_is_one_line(tmp_path: Path, text: bytes, words: str):
    path = tmp_path / "model.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=words):
        read_object(path)


@pytest.mark.parametrize("read", [read_yaml, read_object])
def test_pipes_devices_and_folders_are_not_waited_for(tmp_path: Path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path}: no regular file"):
            read(path)
    with pytest.raises(ValueError, match="is a folder, expected a file"):
        read(tmp_path)


def test_only_temporary_files_of_dead_processes_go(tmp_path: Path):
    dead = next(number for number in range(2**22 - 1, 1, -1) if not Path(f"/proc/{number}").exists())
    names = [
        f".eval.json.{dead}.tmp",
        f".mine.json.{os.getpid()}.tmp",
        f".other.{os.getppid()}.tmp",
        "my.tmp",
    ]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(OSError, match="No space left") as error, replacing(tmp_path / "a.json"):
        raise OSError(28, "No space left on device")  # as `write` does, without a name
    assert error.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
