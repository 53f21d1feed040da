"""What pictures of attention show, in words: for those who cannot see them."""

from typing import Any

import numpy as np

from botvision.inference.attention_writer import distance_text, maps_text, position_text
from botvision.plots.attention import DistanceRow, MapRow, PositionRow


def test_maps_in_words():
    uneven = np.full((2, 2, 4), 0.0625)
    uneven[1, 0, 0] = 0.5625  # of eight cells
    places: dict[str, Any] = {"extent": (0, 0, 60, 100), "query": (0, 0, 30, 50), "at": (25, 33)}
    first = MapRow("layer4.0", uneven, ["head 1", "mean"], **places)
    even = MapRow("layer4.1", np.full((1, 2, 2), 0.25), ["head 1"], **places)
    assert maps_text([first, even]) == (
        "query at y 25, x 33; layer4.0: head 1 up to 0.5x even, mean up to 4.5x even; "
        "layer4.1: head 1 up to 1.0x even"
    )


def test_distances_in_words():
    rows = [
        DistanceRow("layer4.0", np.array([2.0, 3.0]), np.array([1.0, 2.0]), np.array([3.0, 4.0]), 2.5, 16),
        DistanceRow("layer4.1", np.array([1.0]), np.array([0.5]), np.array([1.5]), 1.2, 32),
    ]
    assert distance_text(rows) == (
        "layer4.0: head 1 32 px, head 2 48 px, even attention 40 px; "
        "layer4.1: head 1 32 px, even attention 38 px"
    )


def test_positions_in_words():
    """Of each head the offset that the picture shows in the deepest red."""
    logits = np.zeros((2, 3, 5))
    logits[0, 0, 2] = 15.0
    logits[1, 1, 4] = 3.0
    rows = [PositionRow(f"layer4.{n}", logits, relative=not n) for n in range(2)]
    assert position_text(rows) == (
        "layer4.0: head 1 most towards dy -1, dx 0 (+14), head 2 most towards dy 0, dx 2 (+2.8); "
        "layer4.1: head 1 most at y 0, x 2 (+14), head 2 most at y 1, x 4 (+2.8)"
    )
