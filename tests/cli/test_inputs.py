"""What predict and attend say of the images they were pointed at."""

from pathlib import Path

import pytest
from PIL import Image

from botvision.cli.inputs import Inputs
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
