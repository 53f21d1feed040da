"""What a classifier said of each image: from these its accuracy follows for any sample of the images."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from botvision.io.errors import text_of
from botvision.io.files import replacing


@dataclass(frozen=True)
class Predictions:
    """N images in the order of their split.

    Attributes:
        predicted: int32 (N,), class with the highest logit.
        target: int32 (N,), class of the ground truth.
        group: int32 (N,), interval of the quantity that accuracy is broken down by; None without one.
    """

    predicted: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    group: npt.NDArray[np.int32] | None = None

    def of_group(self, group: int) -> "Predictions":
        """Return those of the images in one interval. Raises ValueError: they are not told apart."""
        if self.group is None:
            raise ValueError("the images are not told apart by intervals of a quantity")
        chosen = self.group == group
        return Predictions(self.predicted[chosen], self.target[chosen], self.group[chosen])

    def accuracy(self, weights: npt.NDArray[np.integer]) -> np.ndarray:
        """Return top-1 of samples of the images.

        Args:
            weights: whole numbers (S, N): how often each sample has each image; all ones is the data set.

        Returns:
            float64 (S,), fractions; not-a-number for a sample without images.
        """
        right = weights[:, self.predicted == self.target].sum(axis=1, dtype=np.int64)
        with np.errstate(invalid="ignore"):
            return right / weights.sum(axis=1, dtype=np.int64)


def save_predictions(predictions: Predictions, path: str | Path) -> None:
    """Write a compressed `.npz`, all of it or nothing."""
    arrays = {name: values for name, values in vars(predictions).items() if values is not None}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_predictions(path: str | Path) -> Predictions:
    """Read what `save_predictions` wrote.

    Raises:
        ValueError: the file is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Predictions(arrays["predicted"], arrays["target"], arrays.get("group", None))
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"{path}: not a file of predictions ({text_of(error)})") from None
