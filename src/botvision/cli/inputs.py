"""The images that a command is pointed at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from botvision.config.data import MAX_PIXELS
from botvision.data.images import read_image
from botvision.data.left_out import Choices, LeftOut
from botvision.inference.predictor import find_images


class Inputs:
    """Finds images, reads them, and tells at the end what was left out and what was chosen.

    Args:
        max_pixels: larger images are refused; None for the usual limit.
    """

    def __init__(self, max_pixels: int | None) -> None:
        self._left_out, self._choices = LeftOut(), Choices()
        self.options: dict[str, Any] = {"max_pixels": max_pixels or MAX_PIXELS, "choices": self._choices}

    def find(self, paths: Sequence[str], skip: str) -> list[Path]:
        """Return the images that paths name, without those below the folder `skip`.

        Raises:
            ValueError: there is none, or a path is a folder of `skip`.
        """
        for path in map(Path, paths):
            if path.is_dir() and path.resolve().is_relative_to(Path(skip).resolve()):
                raise ValueError(
                    f"{path}: is --out {skip} or lies in it, where results are, not images; "
                    "--out names another folder"
                )
        files = find_images(paths, skip, self._left_out)
        if not files:
            raise ValueError("; ".join([f"{paths[0]}: no image found in it", *self._left_out.notes()]))
        return files

    def read(self, path: str | Path) -> Image.Image:
        """Return an RGB image. Raises DataError for a bad file."""
        return read_image(path, **self.options)

    def tell(self) -> None:
        """Print a line for each reason and each choice."""
        for note in [*self._left_out.notes(), *self._choices.notes()]:
            print(f"note: {note}")
