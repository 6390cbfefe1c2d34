"""How much worse the canary is: equal to its naive twin, and right as often as it says."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.evidence.bounds import GRID, ratio_bounds, weigh_ratios
from scorers.evidence.compiled import compiled
from scorers.evidence.effects import RATIO_GRID
from scorers.evidence.types import Bools, Floats
from tests.reference import naive_evidence as naive
from tests.reference.naive_evidence import Tick


def found_bounds(ticks: list[Tick]) -> tuple[float | None, float | None]:
    row = np.zeros(GRID)
    for each in ticks:
        weigh_ratios(row, 0, each.s_c, each.n_c, each.s_b, each.n_b, each.phi)
    low, high = ratio_bounds(row, 0)
    return (None if isnan(low) else low), (None if isnan(high) else high)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.8, 1.0, 4.0, 200.0]), st.sampled_from([30, 2000]))
@settings(max_examples=150, deadline=None)
def test_bounds_equal_those_of_their_naive_twin(seed: int, ratio: float, traffic: int) -> None:
    rng = np.random.default_rng(seed)
    ticks = []
    for _ in range(rng.integers(1, 25)):
        n_c, n_b = rng.integers(0, traffic), rng.integers(0, 9 * traffic)
        s_c, s_b = rng.binomial(n_c, min(1.0, 0.01 * ratio)), rng.binomial(n_b, 0.01)
        ticks.append(Tick(float(s_c), float(n_c), float(s_b), float(n_b), phi=float(rng.choice([1.0, 3.0]))))
    wanted = naive.bounds(naive.ratio_logs(ticks, RATIO_GRID), RATIO_GRID, 0.025)
    for found, naively in zip(found_bounds(ticks), wanted, strict=True):
        assert (found is None) == (naively is None)
        if found is not None:
            assert found == pytest.approx(naively, rel=1e-9)


@compiled
def excluded(s_c: Floats, n_c: Floats, s_b: Floats, n_b: Floats, ratio: float, ever: Bools) -> None:
    """Whether the truth was ever outside the bounds, by rollout."""
    for i in range(s_c.shape[0]):
        row = np.zeros(GRID)
        for t in range(s_c.shape[1]):
            weigh_ratios(row, 0, s_c[i, t], n_c[i, t], s_b[i, t], n_b[i, t], 1.0)
            low, high = ratio_bounds(row, 0)
            if low > ratio or high < ratio:
                ever[i] = True


@pytest.mark.parametrize("ratio", [float(RATIO_GRID[18]), float(RATIO_GRID[24]), 1.07, 3.3])
def test_the_truth_is_ever_outside_in_at_most_one_rollout_of_twenty(ratio: float) -> None:
    """On the grid by the theorem; between its points, thanks to the interpolation, in practice as well."""
    rng = np.random.default_rng(5)
    shape = (2000, 100)
    n_c, n_b = np.full(shape, 500.0), np.full(shape, 4500.0)
    level = 0.01 * np.exp(0.5 * np.sin(np.arange(100) / 7))
    s_c = rng.binomial(500, np.minimum(1.0, ratio * level) * np.ones(shape)).astype(np.float64)
    s_b = rng.binomial(4500, level * np.ones(shape)).astype(np.float64)
    ever = np.zeros(shape[0], dtype=np.bool_)
    excluded(s_c, n_c, s_b, n_b, ratio, ever)
    assert ever.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / shape[0])


def test_bounds_close_in_on_the_truth() -> None:
    few = found_bounds([Tick(3, 100, 9, 900)])
    assert few[0] is None or few[0] < 1.0
    low, high = found_bounds([Tick(3000, 100_000, 9000, 900_000)])
    assert low is not None
    assert high is not None
    assert 2.4 < low < 3.0 < high < 3.7


def test_one_sided_and_impossible_evidence() -> None:
    low, high = found_bounds([Tick(500, 1000, 0, 9000)])
    assert low is not None
    assert (low > 10, high) == (True, None)
    low, high = found_bounds([Tick(0, 1000, 500, 9000)])
    assert low is None
    assert high is not None
    assert high < 0.3
    assert found_bounds([]) == (None, None)
    assert found_bounds([Tick(5, 100, 0, 0), Tick(0, 0, 5, 100), Tick(0, 100, 0, 100)]) == (None, None)


def test_huge_counts_stay_finite() -> None:
    for s_c, s_b in ((1e9, 0.0), (0.0, 1e9), (1e9, 1e9)):
        for bound in found_bounds([Tick(s_c, 1e9, s_b, 1e9)] * 5):
            assert bound is None or (np.isfinite(bound) and bound > 0)
