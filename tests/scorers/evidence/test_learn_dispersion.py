"""Scatter of stable's halves: what is learnt of it, and what must not be taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from domain.calibration import DISPERSION_BINS
from scorers.evidence.kernel import dispersion_of
from scorers.evidence.learn import dispersion
from scorers.evidence.learn.dispersion import BINS, UNKNOWN, dispersion_by_bin, dispersion_by_row
from scorers.evidence.learn.split import Split, half_against_half
from tests.reference.naive_learning import dispersion_of_row, dispersions_by_bin, squares_and_variances
from tests.scorers.evidence.healthy_histories import (
    NAME,
    Service,
    first_runs,
    history_of,
    of_replicas,
    without_anything,
)


def halves(service: Service, seed: int, runs: int = 200) -> Split:
    return half_against_half(history_of(service, seed, runs).series[NAME])


def test_independent_requests_have_a_dispersion_of_one() -> None:
    learnt = dispersion_by_bin(halves(Service(rps=1000.0), seed=1))
    events = halves(Service(rps=1000.0), seed=1).events
    seen = [at for at in range(BINS) if (np.searchsorted(DISPERSION_BINS, events) == at).sum() > 1000]
    assert len(seen) >= 4
    assert max(learnt[at] for at in seen) < 1.15
    assert min(learnt) >= 1.0


def test_clusters_of_four_scatter_sevenfold_and_never_more_than_their_events() -> None:
    learnt = dispersion_by_bin(halves(Service(rps=1000.0, cluster=4.0), seed=2))
    # A sum of geometric clusters of mean 4 has 2 * 4 - 1 times the variance of as many lone events.
    assert 6.0 < learnt[5] < 8.5
    assert learnt[0] == 1.0
    for events in (1, 2, 3, 5, 9, 40, 500):
        assert 1.0 <= dispersion_of(float(events), np.array(learnt)) <= events


def test_a_lasting_difference_between_the_halves_is_no_scatter() -> None:
    effect = of_replicas(3, 200, 0.3, 5, 5)
    learnt = dispersion_by_bin(halves(Service(rps=1000.0, first_half_effect=effect), seed=3))
    assert max(learnt[3:7]) < 1.15


def test_without_data_every_dispersion_is_one() -> None:
    empty = without_anything(history_of(Service(), 1, runs=3))
    assert dispersion_by_bin(half_against_half(empty.series[NAME])) == (1.0,) * BINS


def test_a_bin_hardly_seen_scatters_at_least_as_the_one_below() -> None:
    clustered = halves(Service(rps=1000.0, cluster=4.0), seed=4)
    few, enough = (dispersion_by_bin(_with_even_ticks(clustered, ticks)) for ticks in (49, 50))
    assert few[8] == few[7] > 5.0
    assert enough[8] < 2.0  # an exactly even split of a thousand events scatters as little as can be


def test_the_residuals_match_the_naive_ones() -> None:
    rng = np.random.default_rng(5)
    n = rng.integers(0, 4, (2, 3, 40)) * 100.0
    s = rng.poisson(n * 0.02).astype(np.float64)
    squares, variances = dispersion._squares(Split(s[0], n[0], s[1], n[1]))
    for row in range(3):
        naive = squares_and_variances(*(list(of[row]) for of in (s[0], n[0], s[1], n[1])))
        np.testing.assert_allclose(np.stack((squares[row], variances[row]), axis=1), naive, atol=1e-12)


@pytest.mark.parametrize(("rps", "runs"), [(30.0, 2), (300.0, 3), (1000.0, 4), (5000.0, 1)])
def test_dispersions_match_the_naive_ones(rps: float, runs: int) -> None:
    split = halves(Service(rps=rps, cluster=2.0), 9, runs)
    rows = [_ticks(split, row) for row in range(runs)]
    assert dispersion_by_bin(split) == pytest.approx(
        dispersions_by_bin([tick for row in rows for tick in row])
    )
    by_row = dispersion_by_row(split)[:, 0]
    assert list(by_row) == pytest.approx([dispersion_of_row(row) for row in rows])


def test_an_even_split_never_takes_dispersion_below_one() -> None:
    even, exposure = np.full((4, 300), 50.0), np.full((4, 300), 1e4)
    split = Split(even, exposure, even, exposure)
    assert dispersion_by_bin(split) == (1.0,) * BINS
    assert (dispersion_by_row(split) == 1.0).all()


def test_a_row_with_nine_informative_ticks_knows_nothing_and_with_ten_something() -> None:
    s, n = np.zeros((2, 120)), np.full((2, 120), 100.0)
    s[0, :9], s[1, :10] = 1.0, 1.0
    learnt = dispersion_by_row(Split(s, n, s, n))
    assert (learnt[0] == UNKNOWN).all()
    assert (learnt[1] < 10.0).all()


def test_ticks_with_events_in_one_arm_inform_and_those_with_one_arm_do_not() -> None:
    s, n = np.ones((1, 10)), np.full((1, 10), 100.0)
    assert (dispersion_by_row(Split(s, n, np.zeros_like(s), n)) < 10.0).all()
    assert (dispersion_by_row(Split(s, n, np.zeros_like(s), np.zeros_like(n))) == UNKNOWN).all()


def test_a_rows_own_dispersion_lies_above_the_truth_nearly_always() -> None:
    independent = halves(Service(rps=1000.0), seed=6)
    upper = dispersion_by_row(independent)[:, 0]
    assert (upper >= 1.0).mean() > 0.99 and np.median(upper) < 1.4
    clustered = dispersion_by_row(halves(Service(rps=1000.0, cluster=4.0), seed=7))[:, 0]
    assert (clustered > 6.0).mean() > 0.95 and np.median(clustered) < 12.0


def test_a_row_learns_the_same_alone_as_among_others() -> None:
    history = history_of(Service(rps=300.0, cluster=2.0), 8, runs=20)
    together = dispersion_by_row(half_against_half(history.series[NAME]))
    alone = dispersion_by_row(half_against_half(first_runs(history, 1).series[NAME]))
    np.testing.assert_array_equal(together[:1], alone)


def _ticks(split: Split, row: int) -> list[tuple[float, float, float]]:
    """Events, square and variance of a run's ticks that have any, the naive way."""
    arms = (list(of[row]) for of in (split.s_1, split.n_1, split.s_2, split.n_2))
    parts = zip(split.events[row], squares_and_variances(*arms), strict=True)
    return [(float(events), *pair) for events, pair in parts if events > 0]


def _with_even_ticks(split: Split, ticks: int) -> Split:
    """One more run, in whose first ticks either half has five hundred events."""
    events, exposure = np.zeros((2, 1, split.s_1.shape[1]))
    events[:, :ticks], exposure[:, :ticks] = 500.0, 1e4
    s_1, n_1, s_2, n_2 = split.s_1, split.n_1, split.s_2, split.n_2
    pairs = (s_1, events), (n_1, exposure), (s_2, events), (n_2, exposure)
    return Split(*(np.concatenate(pair) for pair in pairs))
