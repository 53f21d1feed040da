"""What pictures share: sizes; and no global state of matplotlib."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from botvision.plots.style import fit


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def colour_count(image: Image.Image, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels(image) - wanted).max(axis=-1) <= 2).sum())


def test_tiny_images_are_enlarged_without_smoothing():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20)
    shown = fit(image)
    assert shown.size == (256, 256)
    assert np.array_equal(pixels(shown)[::128, ::128], pixels(image))


def test_drawing_never_imports_pyplot(tmp_path):
    code = (
        "import sys; from botvision.plots import curves; assert 'matplotlib' not in sys.modules\n"
        f"curves.confusion_matrix([[1]], ['a'], {str(tmp_path / 'c.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(tmp_path / "c.png").is_file()
