"""PipeCD's test against scipy, brute force and its own worked facts; and what it makes of a rollout."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from bench.judging.cells import Floats
from bench.judging.pipecd import Deviation, PipeCDRule, deviates, p_value
from tests.bench.peer_cells import cell_of, counts, fire_rate, steady

SCIPYS = {Deviation.HIGH: "greater", Deviation.LOW: "less", Deviation.EITHER: "two-sided"}


def values(*given: float) -> Floats:
    return np.array(given, dtype=np.float64)


def test_the_worked_comparisons_come_out_as_published() -> None:
    level = values(*[0.1] * 5)
    assert deviates(values(0.1, 0.2, 5.3, 0.2, 0.5), level, Deviation.EITHER)
    assert not deviates(values(10.1, 10.2, 10.3, 10.4, 10.5), values(0.1, 0.2, 0.3, 0.4, 0.5), Deviation.LOW)
    assert deviates(values(10.1, 10.2, 10.3, 10.4, 10.5), values(0.1, 0.2, 0.3, 0.4, 0.5), Deviation.HIGH)


def test_two_points_a_side_can_never_fail_and_three_only_on_one_side() -> None:
    two, three = (values(3, 4), values(1, 2)), (values(4, 5, 6), values(1, 2, 3))
    assert p_value(*two, Deviation.HIGH) == pytest.approx(1 / 6)
    assert p_value(*three, Deviation.HIGH) == pytest.approx(0.05)
    assert p_value(*three, Deviation.EITHER) == pytest.approx(0.10)


def test_three_higher_points_miss_the_level_by_a_rounding_and_three_lower_ones_do_not() -> None:
    """1 - 0.95 is 0.050000000000000044, in PipeCD as here."""
    above, below = values(4, 5, 6), values(1, 2, 3)
    assert not deviates(above, below, Deviation.HIGH)
    assert deviates(below, above, Deviation.LOW)


def test_identical_and_absent_data_are_no_deviation_but_a_missing_side_is() -> None:
    nothing, some = values(), values(1, 2, 3)
    assert not deviates(nothing, nothing, Deviation.EITHER)
    assert deviates(nothing, some, Deviation.EITHER)
    assert deviates(some, nothing, Deviation.EITHER)
    assert not deviates(values(1, 1), values(1, 1, 1), Deviation.EITHER)


@pytest.mark.parametrize("deviation", list(Deviation))
@pytest.mark.parametrize(("m", "n"), [(3, 3), (5, 8), (12, 12), (50, 20)])
def test_without_ties_the_p_value_is_exact(m: int, n: int, deviation: Deviation) -> None:
    random = np.random.default_rng(m)
    for _ in range(20):
        x, y = random.normal(0.5, 1, m), random.normal(0, 1, n)
        told = stats.mannwhitneyu(x, y, alternative=SCIPYS[deviation], method="exact").pvalue
        assert min(1.0, p_value(x, y, deviation)) == pytest.approx(told, abs=1e-12)


@pytest.mark.parametrize("deviation", list(Deviation))
def test_large_samples_and_long_ties_are_approximated(deviation: Deviation) -> None:
    random = np.random.default_rng(1)
    for x, y in (
        (random.normal(0.3, 1, 51), random.normal(0, 1, 10)),
        (random.poisson(3, 26).astype(float), random.poisson(3, 26).astype(float)),
    ):
        told = stats.mannwhitneyu(x, y, alternative=SCIPYS[deviation], method="asymptotic").pvalue
        assert p_value(x, y, deviation) == pytest.approx(told, abs=1e-9)


def half_steps(x: Floats, y: Floats) -> int:
    """2U: pairs won count two, pairs tied one."""
    return int((np.sign(x[:, None] - y) + 1).sum())


@pytest.mark.parametrize("seed", range(12))
def test_with_ties_the_p_value_counts_all_divisions(seed: int) -> None:
    """HIGH counts half a step more than "as far out or further", as PipeCD's does."""
    random = np.random.default_rng(seed)
    m, n = random.integers(2, 6, 2).tolist()
    x, y = random.poisson(1.5, m).astype(float), random.poisson(1.0, n).astype(float)
    both = np.concatenate([x, y])
    if len(set(both)) == 1:
        both[0] += 1
        x = both[:m]
    seen, all_of = half_steps(x, y), []
    for chosen in combinations(range(m + n), m):
        mine = np.isin(np.arange(m + n), chosen)
        all_of.append(half_steps(both[mine], both[~mine]))
    every = np.array(all_of)
    assert p_value(x, y, Deviation.LOW) == pytest.approx(np.mean(every <= seen))
    assert p_value(x, y, Deviation.HIGH) == pytest.approx(np.mean(every > seen - 2))
    smaller = min(seen, 2 * m * n - seen)
    two_sided = 1.0 if seen == m * n else 2 * np.mean(every <= smaller)
    assert p_value(x, y, Deviation.EITHER) == pytest.approx(two_sided)


def test_a_clear_regression_goes_down_at_the_end_of_the_first_interval() -> None:
    cell = steady(1000, 0.005, 20, 1, canary_rate=0.05)
    assert (PipeCDRule(name="pipecd").first_rollback(cell) == 59).all()


def test_asking_each_minute_with_its_own_points_never_fails() -> None:
    """One point, then two a side: no difference between two pairs is significant."""
    cell = steady(1000, 0.005, 20, 1, canary_rate=0.5)
    assert (PipeCDRule(name="pipecd", interval_s=60.0).first_rollback(cell) == -1).all()


def test_a_range_has_both_its_ends_so_three_minutes_bring_four_points_but_the_first_time() -> None:
    cell = steady(1000, 0.005, 20, 1, canary_rate=0.5)
    assert (PipeCDRule(name="pipecd", interval_s=180.0).first_rollback(cell) == 71).all()


def test_failures_add_up_to_the_limit() -> None:
    cell = steady(1000, 0.005, 5, 1, canary_rate=0.05)
    assert (PipeCDRule(name="pipecd", failure_limit=2).first_rollback(cell) == 179).all()


def test_a_point_without_requests_fails_unless_skipped() -> None:
    n = np.full((1, 300), 100.0)
    idle = n.copy()
    idle[:, :12] = 0.0
    cell = cell_of(counts(idle, 0 * n, n, 0 * n))
    assert PipeCDRule(name="pipecd").first_rollback(cell) == 59
    assert PipeCDRule(name="pipecd", skip_on_no_data=True).first_rollback(cell) == -1


def test_repeated_questions_cost_far_more_than_the_level_of_one() -> None:
    """Five questions at up to 5 % each, not corrected; the exact test stays a little below its level."""
    fired = fire_rate(PipeCDRule(name="pipecd").first_rollback(steady(1000, 0.005, 400, 2)))
    assert 0.10 < fired < 1 - 0.95**5 + 0.06
