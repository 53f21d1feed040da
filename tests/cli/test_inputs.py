"""What predict and attend say of the images they were pointed at."""

from pathlib import Path

import pytest
from PIL import Image

from botvision.cli.inputs import Inputs
from botvision.cli.parser import UsageError, parse
from botvision.io.errors import DataError


def test_what_was_left_out_or_chosen_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pages = [Image.new("L", (4, 4), level) for level in range(5)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "a.heic").write_bytes(b"junk")
    inputs = Inputs(None)
    (file,) = inputs.find([str(tmp_path)], str(tmp_path / "out"))
    inputs.read(file)
    inputs.tell()
    assert capsys.readouterr().out.splitlines() == [
        f"note: left out: 1 file, cannot be read (HEIC, without pillow-heif) ({tmp_path}/a.heic)",
        f"note: 1 file with several pages or frames, of which the first is used ({file}: 5)",
    ]
    with pytest.raises(DataError, match="4 x 4 pixels"):
        Inputs(15).read(file)
    file.unlink()
    with pytest.raises(ValueError, match=r"no image found in it; left out: 1 file, cannot be read \(HEIC"):
        inputs.find([str(tmp_path)], "out")


@pytest.mark.parametrize("below", ["", "pictures"])
def test_images_are_not_sought_among_the_results(tmp_path: Path, below: str):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    Image.new("L", (4, 4)).save(folder / "a.png")
    with pytest.raises(ValueError, match=r"is --out .* or lies in it"):
        Inputs(None).find([str(folder)], str(tmp_path))
    assert Inputs(None).find([str(folder)], str(tmp_path / "out")) == [folder / "a.png"]


@pytest.mark.parametrize(
    ("words", "name", "rest"),
    [
        ("check {}", "data", ""),
        ("convert yolo {}", "folder", ""),
        ("predict {} x", "run", ""),
        ("predict run x --out {}", "out", ""),
        ("eval results.json --truth {}", "truth", ""),
        ("train recipe --out {}", "out", ""),
        ("predict run x --truth {}", "truth", "/a b/"),
    ],
)
def test_paths_of_the_command_line(monkeypatch: pytest.MonkeyPatch, words: str, name: str, rest: str):
    monkeypatch.setenv("HOME", "/home")
    args, _ = parse([word.format("~" + rest) for word in words.split()])
    assert getattr(args, name) == "/home" + rest
    with pytest.raises(UsageError, match="expected a path, got ''"):
        parse([word.format("") for word in words.split()])
