"""Flagger's worked runs, and the judge by columns against the judge tick by tick."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from bench.judging.cells import SLO, Cell
from bench.judging.flagger import Flagger, FlaggerRule, Phase
from tests.bench.peer_cells import agrees, cell_of, counts, fire_rate, restless, steady


def ticks_to_end(canary: Flagger, *, fails_every: int | None) -> int:
    """Ticks until the canary is decided; of the checks asked for, each ``fails_every``-th fails."""
    asked = 0
    for ticks in count(1):
        asked += canary.asks
        canary.tick(check_holds=fails_every is None or asked % fails_every != 0)
        if canary.phase in (Phase.SUCCEEDED, Phase.FAILED):
            return ticks
    raise AssertionError("unreachable")


def canary(threshold: int = 5) -> Flagger:
    return Flagger(step_weight=10, max_weight=50, threshold=threshold)


def test_a_good_canary_takes_eight_ticks() -> None:
    flagger = canary()
    assert ticks_to_end(flagger, fails_every=None) == 8
    assert flagger.phase is Phase.SUCCEEDED


def test_an_always_bad_canary_keeps_its_traffic_for_seven_ticks() -> None:
    flagger = canary()
    weights = []
    while flagger.phase is Phase.PROGRESSING:
        flagger.tick(check_holds=False)
        weights.append(flagger.weight)
    assert weights == [10, 10, 10, 10, 10, 10, 0]
    assert flagger.phase is Phase.FAILED


def test_a_canary_bad_in_one_check_of_three_promotes() -> None:
    flagger = canary()
    ticks_to_end(flagger, fails_every=3)
    assert (flagger.phase, flagger.failed_checks) == (Phase.SUCCEEDED, 2)


def test_a_pass_forgives_nothing() -> None:
    flagger = Flagger(step_weight=1, max_weight=50, threshold=3)
    ticks_to_end(flagger, fails_every=10)
    assert flagger.phase is Phase.FAILED


def first_rollback(cell: Cell, rollout: int, threshold: int) -> int:
    """The rule played tick by tick; the weight never reaches its end, as the cell's steps are fixed."""
    flagger = Flagger(step_weight=1, max_weight=100, threshold=threshold)
    flagger.tick(check_holds=True)
    n, bad = cell.live.canary_n[rollout], cell.live.canary_s[rollout]
    for end in range(12, len(n) + 1, 12):
        asked = n[end - 12 : end].sum()
        flagger.tick(check_holds=bool(asked and bad[end - 12 : end].sum() / asked <= SLO))
        if flagger.phase is Phase.FAILED:
            return end - 1
    return -1


@pytest.mark.parametrize("threshold", [1, 3, 5, 10])
def test_the_judge_by_columns_is_the_judge_by_ticks(threshold: int) -> None:
    cell = restless(60, seed=threshold)
    played = [first_rollback(cell, each, threshold) for each in range(60)]
    assert len(set(played)) > 3
    np.testing.assert_array_equal(
        FlaggerRule(name="flagger", threshold=threshold).first_rollback(cell), played
    )


def test_five_bad_minutes_are_rolled_back_after_the_sixth() -> None:
    n = np.full((1, 300), 100.0)
    first = FlaggerRule(name="flagger", threshold=5).first_rollback(cell_of(counts(n, n, n, 0 * n)))
    assert (first + 1) * 5 == 360


def test_a_ratio_exactly_at_the_limit_keeps_it() -> None:
    n = np.full((1, 300), 100.0)
    rule = FlaggerRule(name="flagger", threshold=1)
    assert rule.first_rollback(cell_of(counts(n, n / 100, n, 0 * n))) == -1
    assert rule.first_rollback(cell_of(counts(n, n / 50, n, 0 * n))) > 0


def test_the_last_check_is_too_late_for_a_roll_back() -> None:
    n = np.full((1, 300), 100.0)
    bad = 0 * n
    bad[:, -60:] = 100.0
    cell = cell_of(counts(n, bad, n, 0 * n))
    assert FlaggerRule(name="flagger", threshold=5).first_rollback(cell) == -1
    assert FlaggerRule(name="flagger", threshold=4).first_rollback(cell) == 299


@pytest.mark.parametrize(
    ("rps", "rate", "published"),
    [(10, 0.005, 0.308), (10, 0.008, 0.928), (100, 0.005, 0.001), (100, 0.008, 0.513), (1000, 0.008, 0.001)],
)
def test_healthy_rollouts_are_rolled_back_as_often_as_published(
    rps: int, rate: float, published: float
) -> None:
    fired = fire_rate(FlaggerRule(name="flagger", threshold=5).first_rollback(steady(rps, rate, 2000, 7)))
    assert agrees(fired, 2000, published)
