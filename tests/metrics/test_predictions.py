"""Accuracy of samples of the images, against hand-worked numbers."""

from dataclasses import replace

import numpy as np
import pytest

from botvision.metrics.predictions import Predictions, load_predictions, save_predictions

FOUR = Predictions(
    np.array([0, 1, 2, 2], np.int32), np.array([0, 1, 1, 0], np.int32)
)  # right, right, wrong, wrong


def test_accuracy_of_samples():
    weights = np.array([[1, 1, 1, 1], [3, 0, 1, 0], [0, 0, 2, 2], [0, 0, 0, 0]])
    np.testing.assert_array_equal(FOUR.accuracy(weights), [0.5, 0.75, 0.0, np.nan])


def test_written_and_read_again(tmp_path):
    save_predictions(FOUR, tmp_path / "predictions.npz")
    again = load_predictions(tmp_path / "predictions.npz")
    assert again.predicted.tolist() == [0, 1, 2, 2]
    assert again.target.tolist() == [0, 1, 1, 0]


def test_images_of_one_interval(tmp_path):
    with pytest.raises(ValueError, match="not told apart"):
        FOUR.of_group(0)
    save_predictions(replace(FOUR, group=np.array([1, 0, 1, 1], np.int32)), tmp_path / "predictions.npz")
    again = load_predictions(tmp_path / "predictions.npz").of_group(1)
    assert (again.predicted.tolist(), again.target.tolist()) == ([0, 2, 2], [0, 1, 0])


def test_another_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "predictions.npz"
    for content in (b"", b"something else", b"PK\x03\x04cut off"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"predictions\.npz: not a file of predictions"):
            load_predictions(path)
