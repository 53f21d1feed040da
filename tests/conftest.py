"""A recipe that trains in a second; Triton's kernels on a machine without a GPU."""

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # Triton decides when it is imported, before any test
    os.environ["TRITON_INTERPRET"] = "1"

RECIPE = """
model: {name: botnet14_tiny, args: {stem: cifar}}
data: {source: generated, image_size: 16, num_images: 64, num_val_images: 32, num_classes: 2}
train: {epochs: 1, batch_size: 16}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return str(path)
