"""The rule that chooses a kernel, against the measurements it was made from."""

import csv
from pathlib import Path

import pytest
import torch

from botvision.attention.kernels import KERNELS, choose

RESULTS = Path(__file__).parents[2] / "results"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROWS = [
    row
    for path in sorted(RESULTS.glob("attention_c*.csv"))
    for row in csv.DictReader(path.read_text().splitlines())
]
SLACK = 1.25  # medians of one case differ by as much between two runs on a shared machine


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row['device']}-{row['dtype']}-{row['grid']}-{row['batch']}-{row['pass']}"
)
def test_no_other_kernel_was_much_faster(row: dict[str, str]) -> None:
    height, width = (int(side) for side in row["grid"].split("x"))
    chosen = choose(row["device"], DTYPES[row["dtype"]], (height, width), 128, int(row["batch"]))
    fastest = min(float(row[kernel]) for kernel in KERNELS if kernel != "auto")
    assert float(row[chosen]) <= SLACK * fastest


def test_there_are_measurements() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_large_maps_get_a_kernel_without_quadratic_memory(device: str) -> None:
    assert choose(device, torch.float32, (64, 64), 128) in ("folded", "chunked", "tiled")
    assert choose(device, torch.bfloat16, (50, 84), 32) in ("folded", "chunked", "tiled")


def test_tiny_maps_of_a_cpu() -> None:
    """In bf16 the cells of the batch count, in fp32 those of a map."""
    half = [choose("cpu", torch.bfloat16, (8, 8), 128, batch) for batch in (1, 2, 3)]
    assert half == ["mask", "mask", "tiled"]
    assert choose("cpu", torch.float32, (16, 16), 128, batch=100) == "mask"
    assert choose("cpu", torch.float32, (16, 17), 128) == "tiled"
