"""Files are whole or not there."""

import json

import pytest

from botvision.io.files import replacing, write_text


def test_a_file_appears_whole_and_its_folders_with_it(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_after_an_error_the_old_file_is_what_it_was(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    write_text(path, "text")
    assert path.read_text() == "text"


def test_json_with_a_name_that_is_not_utf8_names_the_same_file(tmp_path):
    name = b"caf\xe9 \xc3\xa9.png".decode("utf-8", "surrogateescape")
    write_text(tmp_path / "names.json", json.dumps([name], ensure_ascii=False))
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == [name]
