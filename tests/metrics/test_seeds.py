"""Spreads and intervals over seeds against numbers worked by hand and tables of Student's t."""

import numpy as np
import pytest

from botvision.metrics.seeds import Interval, detectable, paired, spread, student, t_quantile


@pytest.mark.parametrize(
    ("freedom", "printed"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042),
     (120, 1.980)],
)  # fmt: skip
def test_quantiles_are_those_of_printed_tables(freedom: int, printed: float):
    assert t_quantile(0.975, freedom) == pytest.approx(printed, abs=5e-4)


def test_other_quantiles():
    assert t_quantile(0.95, 2) == pytest.approx(2.920, abs=5e-4)
    assert t_quantile(0.995, 3) == pytest.approx(5.841, abs=5e-4)
    assert t_quantile(0.5, 4) == pytest.approx(0.0, abs=1e-9)
    for wrong in ((0.4, 2), (1.0, 2), (0.9, 0)):
        with pytest.raises(ValueError, match=r"expected 0\.5 to 1"):
            t_quantile(*wrong)


def test_interval_of_three_values():
    # 1, 2, 3: mean 2, standard deviation 1, reach 4.3027 / sqrt(3) = 2.4842
    found = student([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(-0.4842, abs=1e-4), pytest.approx(4.4842, abs=1e-4))
    assert student([1.0]) is None
    assert student([0.5, 0.5]) == Interval(0.5, 0.5)


def test_spread():
    found = spread([0.70, 0.74, 0.72])
    assert found is not None
    assert (found.n, found.mean, found.sd) == (3, pytest.approx(0.72), pytest.approx(0.02))
    assert spread([0.7]) is not None
    assert spread([0.7]).sd is None  # pyrefly: ignore[missing-attribute]
    assert spread([]) is None


def test_only_seeds_that_both_have_are_paired():
    # seeds 3 and 7: +0.02 and +0.04, mean 0.03, standard deviation sqrt(2) / 100
    found = paired({7: 0.64, 1: 0.9, 3: 0.52}, {3: 0.5, 7: 0.6, 2: 0.1})
    assert found is not None
    assert list(found.pairs) == [3, 7]
    assert (found.mean, found.sd) == (pytest.approx(0.03), pytest.approx(0.0141421, abs=1e-6))
    assert found.over_seeds is not None  # 0.03 -+ 12.7062 * 0.01
    assert found.over_seeds.low == pytest.approx(-0.097062, abs=1e-6)
    assert paired({1: 0.5}, {2: 0.5}) is None


def test_what_eight_pairs_can_tell():
    # printed quantiles of t with 7 degrees of freedom: 2.3646 at 0.975, 0.8960 at 0.8
    assert detectable(1.0, 8) == pytest.approx((2.3646 + 0.8960) / 8**0.5, abs=1e-3)
    assert detectable(2.0, 8) == pytest.approx(2 * detectable(1.0, 8))
    draws = np.random.default_rng(0).normal(detectable(1.0, 8), 1.0, (4000, 8))
    reach = t_quantile(0.975, 7) * draws.std(1, ddof=1) / 8**0.5
    assert 0.74 < float((draws.mean(1) > reach).mean()) < 0.86
