"""Figures of the leaderboard, on cases small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.judging.cells import TICKS, Cell
from bench.judging.figures import (
    HORIZON_S,
    Judged,
    Promotions,
    Share,
    cell_figures,
    exposed_requests,
    fixed_schedule,
    judge_figures,
    judged,
)
from bench.judging.scenarios import cell_named
from tests.bench.trivial_rules import At


def result(first: list[int], *, onset: int | None = None, kind: str = "kind", seed: int = 1) -> Judged:
    return Judged(
        judge="judge",
        suite="family",
        kind=kind,
        rps=10,
        seed=seed,
        onset=onset,
        in_slo=False,
        first=np.array(first),
        exposed=np.arange(len(first), dtype=float),
    )


def test_wilson_intervals_are_the_published_ones() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for hits, of, low, high in (
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
    ):
        assert Share(hits, of).interval_pct() == pytest.approx((low, high), abs=0.006)
    assert Share(20, 20).interval_pct() == pytest.approx((100 - 16.11, 100.0), abs=0.006)


def test_nothing_seen_says_nothing() -> None:
    assert Share(0, 0).pct == 0.0
    assert Share(0, 0).interval_pct() == (0.0, 100.0)


def test_every_rollback_of_a_healthy_rollout_is_false() -> None:
    cell = cell_figures([result([-1, 0, TICKS - 1, -1]), result([-1, -1, -1, 5], seed=2)])
    assert cell.false_rollback == Share(3, 8)
    assert cell.worst_seed_pct == 50.0


def test_a_rollback_before_the_onset_is_false_and_misses_the_regression() -> None:
    one = result([199, 200, 203, -1], onset=200)
    cell = cell_figures([one])
    assert cell.false_rollback == Share(1, 4)
    assert cell.missed == Share(2, 4)
    assert one.delays_s().tolist() == [HORIZON_S, 5.0, 20.0, HORIZON_S]
    assert cell.median_delay_s == (20.0 + HORIZON_S) / 2


def test_exposed_requests_count_from_the_onset_to_the_rollback() -> None:
    canary = np.array([[1.0, 2.0, 4.0, 8.0]] * 4)
    assert exposed_requests(canary, np.array([0, 2, 3, -1]), onset=0).tolist() == [1, 7, 15, 15]
    assert exposed_requests(canary, np.array([0, 2, 3, -1]), onset=2).tolist() == [12, 4, 12, 12]


def test_typical_figures_are_medians_over_kinds() -> None:
    kinds = [result([tick], onset=0, kind=f"k{tick}") for tick in (0, 3, 299)]
    figures = judge_figures(kinds)["judge"]
    assert figures.typical(10, lambda cell: cell.median_delay_s) == 20.0
    assert figures.missed(10) == Share(0, 3)


def test_the_mean_pools_cells_and_the_worst_is_one_of_them() -> None:
    figures = judge_figures([result([-1] * 9 + [4], kind="calm"), result([3] * 5 + [-1] * 5, kind="wild")])
    judge = figures["judge"]
    worst = judge.worst()
    assert judge.false_rollback() == Share(6, 20)
    assert worst is not None
    assert (worst.kind, worst.false_rollback) == ("wild", Share(5, 10))
    assert judge.worst_false_promotion() is None


def test_a_fixed_schedule_promotes_what_it_lets_live() -> None:
    ends = fixed_schedule(result([-1, 9]))
    assert ends.promoted.tolist() == [1, -1]
    assert ends.seconds.tolist() == [HORIZON_S, 50.0]


def test_promoting_a_regression_is_false_unless_it_began_later_or_stays_inside_the_slo() -> None:
    ends = Promotions(promoted=np.array([1, 1, 0, -1]), seconds=np.array([300.0, 1200.0, 4500.0, 90.0]))
    late = replace(result([-1] * 4, onset=200), promotions=ends)
    assert cell_figures([late]).false_promotion == Share(1, 4)
    assert cell_figures([replace(late, onset=0)]).false_promotion == Share(2, 4)
    assert cell_figures([replace(late, in_slo=True)]).false_promotion is None
    assert cell_figures([replace(late, onset=None)]).false_promotion is None


def test_the_time_to_promote_counts_rollouts_that_were_not_as_never() -> None:
    def median(promoted: list[int], seconds: list[float]) -> float | None:
        ends = Promotions(promoted=np.array(promoted), seconds=np.array(seconds))
        return cell_figures([replace(result([-1] * len(promoted)), promotions=ends)]).median_promote_s

    assert median([1, 1, 1, 0], [300.0, 310.0, 320.0, 10.0]) == 310.0
    assert median([1, 0, -1], [300.0, 10.0, 20.0]) is None
    assert cell_figures([result([-1])]).median_promote_s is None


@pytest.fixture(scope="module")
def cell() -> Cell:
    return cell_named("x4", 100, seed=7, rollouts=3, history=1)


def test_a_rule_is_judged_on_all_rollouts_of_a_cell(cell: Cell) -> None:
    found = judged(At("at", 2), cell, seed=7)
    assert found.first.tolist() == [2, 2, 2]
    assert found.exposed == pytest.approx(cell.live.canary_n[:, :3].sum(axis=1))
    assert (found.onset, found.in_slo, found.is_healthy) == (0, False, False)


@pytest.mark.parametrize("tick", [-2, TICKS])
def test_answers_that_are_no_ticks_are_refused(cell: Cell, tick: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        judged(At("at", tick), cell, seed=7)
