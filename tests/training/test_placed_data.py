"""A run whose batches are made on a device ends in the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from botvision.data.classification import ClassificationDataset
from botvision.training import run
from botvision.training.classify import Classification
from tests.training.runs import assert_same_run, tiny


def test_a_run_on_placed_images_is_the_same_run(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The CPU in place of a GPU: the same code makes the batches."""
    original, seen = Classification.loader, []

    def loader(self: Classification, data: ClassificationDataset, train: bool, fabric: Any):
        data.place(torch.device("cpu"))
        seen.append((data.placed, train))
        return original(self, data, train, fabric)

    monkeypatch.setattr(Classification, "loader", loader)
    run.train(tiny(), tmp_path / "run", progress=False)
    assert seen == [(True, True), (True, False)]
    assert_same_run(whole_run, tmp_path / "run")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gets_its_images_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    placed = []
    original = ClassificationDataset.place

    def place(self: ClassificationDataset, device: torch.device) -> None:
        original(self, device)
        placed.append(self.placed)

    monkeypatch.setattr(ClassificationDataset, "place", place)
    run.train(tiny(train__device="cuda", train__epochs=1), tmp_path / "run", progress=False)
    assert placed == [True, True]
    assert (tmp_path / "run" / "summary.json").is_file()
