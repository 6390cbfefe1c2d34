"""Warm-up margins from what fresh canaries did."""

from __future__ import annotations

import numpy as np
import pytest

from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.split import canary_against_stable
from scorers.evidence.learn.warmup import Margins, learnt_margins
from tests.scorers.evidence.healthy_histories import (
    NAME,
    TICKS,
    Service,
    cold_start,
    history_of,
    timetabled,
    without_canary,
)


def margins_of(history: History, window_s: float = 40.0) -> Margins:
    return learnt_margins(canary_against_stable(history.series[NAME]), history, window_s)


def test_versions_that_start_warm_get_margins_near_one() -> None:
    first, later = margins_of(history_of(Service(rps=1000.0), seed=1))
    assert len(first) == len(later) == 4
    assert all(1.0 <= margin < 1.25 for margin in (*first, *later))


def test_a_cold_first_step_is_learnt_block_by_block() -> None:
    cold = Service(rps=1000.0, canary_effect=cold_start(ratio=4.0, ticks=6))
    first, later = margins_of(history_of(cold, seed=2))
    assert all(3.7 < margin < 4.8 for margin in first[:3])
    assert first[3] < 1.3
    assert max(later) < 1.25


def test_rollouts_that_never_left_the_first_step_teach_nothing_of_later_ones() -> None:
    first, later = margins_of(_history([[10.0] * 8] * 20))
    assert max(first) < 1.5
    assert later == (5.0,) * 4


def test_margins_cover_the_healthy_ratio_nearly_always() -> None:
    service = Service(rps=100.0, canary_effect=cold_start(ratio=3.0, ticks=2))
    learnt = [margins_of(history_of(service, seed, runs=40))[0][0] for seed in range(40)]
    assert np.mean(np.array(learnt) >= 3.0) > 0.9


def test_without_a_canary_the_prior_margin_of_five_stays() -> None:
    assert margins_of(without_canary(history_of(Service(), 3, runs=4))) == ((5.0,) * 4, (5.0,) * 4)


@pytest.mark.parametrize(("window_s", "blocks"), [(40.0, 4), (20.0, 2), (15.0, 2), (5.0, 1), (0.0, 1)])
def test_the_window_is_covered_by_blocks(window_s: float, blocks: int) -> None:
    first, later = margins_of(history_of(Service(), 4, runs=4), window_s)
    assert len(first) == len(later) == blocks


def test_the_formula_holds_on_two_rollouts_counted_by_hand() -> None:
    # Stable fails 1 in 100; the canary's 1000 requests a tick lead one to expect 10 events each.
    seen = [[20.0, 30.0, *[10.0] * 6], [40.0, 10.0, *[10.0] * 6]]
    first = margins_of(_history(seen))[0]
    ratio = (100 + 2.5) / (40 + 0.5)
    error = np.sqrt((50 - 20 * ratio) ** 2 * 2 + ratio**2 / 4) / 40.5
    assert error < 0.3 * ratio
    assert first[0] == pytest.approx(ratio + 2 * error)


def test_a_thin_block_is_held_to_be_no_better_than_the_whole_warm_up() -> None:
    seen = [[15.0, 15.0, 0.0, 0.0, 20.0, 20.0, 25.0, 25.0]]
    n_c = np.array([[1000.0] * 2 + [10.0] * 2 + [1000.0] * 4])
    first = margins_of(_history(seen, n_c))[0]
    window = (120 + 2.5) / (60.2 + 0.5)
    alone = (0 + 2.5) / (0.2 + 0.5)
    alone_error = np.sqrt((0.2 * alone) ** 2 + alone**2 / 4) / 0.7
    assert alone_error > 0.3 * alone
    window_error = np.sqrt((120 - window * 60.2) ** 2 + window**2 / 4) / 60.7
    ratio = max(alone, window)
    assert first[1] == pytest.approx(min(5.0, ratio + 2 * min(alone_error, max(window_error, 0.3 * ratio))))


def test_ticks_without_stable_do_not_count() -> None:
    n_b = np.full((1, 8), 1e5)
    n_b[0, 1] = 0.0
    first = margins_of(_history([[20.0, 9000.0, *[10.0] * 6]], n_b=n_b))[0]
    ratio = (20 + 2.5) / (10 + 0.5)
    error = np.sqrt((20 - 10 * ratio) ** 2 + ratio**2 / 4) / 10.5
    assert error < 0.3 * ratio
    assert first[0] == pytest.approx(ratio + 2 * error)


def _history(
    seen: list[list[float]], n_c: np.ndarray | float = 1000.0, n_b: np.ndarray | float = 1e5
) -> History:
    """Eight ticks of the first step, then nothing; stable fails 1 in 100."""
    shape = (len(seen), 8)
    counts = {
        "s_c": np.array(seen),
        "n_c": n_c * np.ones(shape),
        "s_b": np.full(shape, 1000.0) * (np.asarray(n_b) > 0),
        "n_b": n_b * np.ones(shape),
        "s_h": np.zeros(shape),
        "n_h": np.zeros(shape),
    }
    padding = np.zeros((len(seen), TICKS - 8))
    return timetabled({NAME: Series(**{k: np.concatenate((v, padding), axis=1) for k, v in counts.items()})})
