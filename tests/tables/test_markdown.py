"""Numbers as tables print them."""

import pytest

from botvision.tables.markdown import points


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0123, "+1.23"), (-0.0123, "-1.23"), (-4e-5, "+0.00"), (-0.0, "+0.00")]
)
def test_points_have_a_sign_and_no_minus_before_nothing(fraction: float, text: str) -> None:
    assert points(fraction) == text
