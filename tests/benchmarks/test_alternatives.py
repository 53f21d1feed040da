"""What lost against the tiles computes the same, so that its time says something."""

import pytest
import torch

from alternatives import flex, variants
from contenders import Case, draw


@pytest.mark.parametrize("grid", [(3, 4), (7, 5)])
def test_variants_agree(grid: tuple[int, int]) -> None:
    case = Case("tiled", grid, dtype="fp64", width=16)
    runs = variants(case, draw(case), compilers=False)
    with torch.no_grad():
        ours = runs.pop("tiles")()
        assert len(runs) >= 7
        for name, run in runs.items():
            assert (run() - ours).abs().max() < 1e-12, name


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_the_same_function() -> None:
    case = Case("tiled", (3, 4), dtype="fp64", width=16)
    inputs = draw(case)
    q = inputs.q * case.width**-0.5
    with torch.no_grad():
        found = flex(case, q, *inputs[1:])
        exact = variants(case, inputs, compilers=False)["tiles"]()
    assert (found - exact).abs().max() < 1e-6  # its softmax is fp32
