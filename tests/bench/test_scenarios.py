"""The simulated services have the laws that their names promise, and come out the same every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bench.judging.arms import Leak, Pods, RandomColdStart, TelegraphArms, TwoPointPods, WanderingPods
from bench.judging.cells import SLO, STEP_TICKS, TICKS, WEIGHTS, Cell, Counts, Floats
from bench.judging.scenarios import (
    HEALTHY,
    KINDS,
    REGRESSIONS,
    REPORTING_SEEDS,
    STRESS,
    TUNING_SEEDS,
    cell_named,
    first_rollouts,
    healthy_cells,
    history_of,
    regression_cells,
    with_nominal_exposures,
    with_overlapping_windows,
    wrong_history_cells,
)
from bench.judging.services import BEFORE_TICKS, Effect, Pareto, SharedBursts, Span

SEED = 7
COLUMNS = tuple(Counts.__dataclass_fields__)


def columns(cell: Cell) -> Iterator[Floats]:
    for counts in (cell.live, cell.before, cell.history):
        for name in COLUMNS:
            yield getattr(counts, name)


def path(effect: Effect, rollouts: int = 400, before: int = BEFORE_TICKS) -> Floats:
    span = Span(rollouts=rollouts, before=before)
    factors = effect.factors(np.random.default_rng(SEED), span)
    return np.broadcast_to(factors, (rollouts, span.total, 3))


def stable(path: Floats) -> Floats:
    return path[..., 1:].mean(axis=-1)


def split_dispersion(counts: Counts) -> float:
    """Pearson's statistic of first half against both, by tick: 1 for single errors."""
    share = counts.half_n / counts.stable_n
    expected = counts.stable_s * share
    return float(((counts.half_s - expected) ** 2).sum() / (counts.stable_s * share * (1.0 - share)).sum())


@pytest.mark.parametrize("name", KINDS)
def test_a_cell_has_the_promised_shapes_and_only_possible_counts(name: str) -> None:
    cell = cell_named(name, 100, SEED, rollouts=6, history=5)
    for counts, shape in (
        (cell.live, (6, TICKS)),
        (cell.before, (6, BEFORE_TICKS)),
        (cell.history, (5, TICKS)),
    ):
        assert all(getattr(counts, column).shape == shape for column in COLUMNS)
        assert np.all(counts.canary_s <= counts.canary_n)
        assert np.all(counts.half_s <= counts.stable_s)
        assert np.all(counts.half_n <= counts.stable_n)
        assert np.all(counts.stable_s - counts.half_s <= counts.stable_n - counts.half_n)
    assert cell.before.canary_n.sum() == cell.before.canary_s.sum() == 0


@pytest.mark.parametrize("name", KINDS)
def test_a_cell_is_the_same_again_for_the_same_seed_and_another_for_another(name: str) -> None:
    cell, again = cell_named(name, 100, SEED, 4, 3), cell_named(name, 100, SEED, 4, 3)
    assert all(np.array_equal(one, two) for one, two in zip(columns(cell), columns(again), strict=True))
    other = cell_named(name, 100, SEED + 1, 4, 3)
    assert not np.array_equal(cell.live.stable_n, other.live.stable_n)
    assert not np.array_equal(cell.history.stable_n, other.history.stable_n)
    assert not np.array_equal(cell.live.stable_n[:3], cell.history.stable_n)


def test_a_regression_learns_from_the_history_of_its_healthy_counterpart() -> None:
    regressed, healthy = cell_named("x4_pods", 100, SEED, 4, 3), cell_named("pods", 100, SEED, 4, 3)
    assert np.array_equal(regressed.history.canary_s, healthy.history.canary_s)
    assert not np.array_equal(regressed.live.stable_n, healthy.live.stable_n)


def test_seeds_for_tuning_are_never_reported() -> None:
    assert not set(TUNING_SEEDS) & set(REPORTING_SEEDS)
    assert len(set(REPORTING_SEEDS)) == len(REPORTING_SEEDS) >= 3


def test_there_are_ten_healthy_kinds_and_eleven_regressions_at_three_rates() -> None:
    healthy, regressed = list(healthy_cells(SEED, 1, 1)), list(regression_cells(SEED, 1, 1))
    assert (len(healthy), len(regressed)) == (30, 33)
    assert {cell.rps for cell in healthy} == {10, 100, 1000}
    assert all(cell.onset is None for cell in healthy)
    assert {cell.onset for cell in regressed} == {0, 200}
    assert {cell.name for cell in regressed if cell.in_slo} == {"0.1_to_0.4"}


@pytest.mark.parametrize(
    ("name", "canary", "others"),
    [
        ("iid_0.1", 0.001, 0.001),
        ("iid_0.5", 0.005, 0.005),
        ("iid_0.8", 0.008, 0.008),
        ("clusters", 0.005, 0.005),
        ("x2", 0.01, 0.005),
        ("x40", 0.2, 0.005),
        ("0.1_to_2", 0.02, 0.001),
        ("x4_clusters", 0.02, 0.005),
    ],
)
def test_error_rates_are_those_named(name: str, canary: float, others: float) -> None:
    live = cell_named(name, 1000, SEED, 100, 1).live
    assert live.canary_s.sum() / live.canary_n.sum() == pytest.approx(canary, rel=0.02)
    assert live.stable_s.sum() / live.stable_n.sum() == pytest.approx(others, rel=0.02)


@pytest.mark.parametrize("name", ["pods", "two_point_pods", "telegraph_arm", "pareto_clusters"])
def test_effects_of_one_arm_leave_the_mean_rate_alone(name: str) -> None:
    live = cell_named(name, 100, SEED, 600, 1).live
    assert live.canary_s.sum() / live.canary_n.sum() == pytest.approx(0.005, rel=0.05)
    assert live.stable_s.sum() / live.stable_n.sum() == pytest.approx(0.005, rel=0.05)


def test_exposures_are_counted_not_planned() -> None:
    live = cell_named("iid_0.5", 100, SEED, 200, 1).live
    for step, weight in enumerate(WEIGHTS):
        ticks = slice(step * STEP_TICKS, (step + 1) * STEP_TICKS)
        canary, rest = live.canary_n[:, ticks], live.stable_n[:, ticks]
        assert canary.mean() == pytest.approx(500 * weight, rel=0.02)
        assert canary.var() == pytest.approx(500 * weight, rel=0.05), "Poisson arrivals"
        assert abs(np.corrcoef(canary.ravel(), rest.ravel())[0, 1]) < 0.05
        assert live.half_n[:, ticks].mean() == pytest.approx(rest.mean() / 2, rel=0.02)


def test_clusters_are_over_dispersed_seven_times_and_single_errors_not_at_all() -> None:
    assert split_dispersion(cell_named("clusters", 1000, SEED, 200, 1).before) == pytest.approx(7.0, abs=0.4)
    assert split_dispersion(cell_named("iid_0.5", 1000, SEED, 200, 1).before) == pytest.approx(1.0, abs=0.03)


def test_wandering_pods_part_the_arms_by_the_named_sd_and_correlation() -> None:
    arms = path(WanderingPods())
    ratio = np.log(arms[..., 0] / stable(arms))
    halves = np.log(arms[..., 1] / arms[..., 2])
    assert ratio.std() == pytest.approx(0.3, abs=0.015)
    assert ratio.mean() == pytest.approx(0.0, abs=0.015)
    assert ratio.std() / halves.std() == pytest.approx(np.sqrt(0.6 / 0.4), rel=0.05)
    centred = ratio - ratio.mean()
    after_100_s = (centred[:, 20:] * centred[:, :-20]).mean() / (centred**2).mean()
    assert after_100_s == pytest.approx(np.exp(-1), abs=0.04)


def test_pods_part_the_arms_for_good() -> None:
    arms = path(Pods(), rollouts=5000)
    ratio = np.log(arms[..., 0] / stable(arms))
    assert np.all(np.ptp(ratio, axis=1) == 0)
    assert ratio[:, 0].std() == pytest.approx(0.3 * np.sqrt(1 / 2 + 1 / 10), rel=0.05)


def test_only_the_canary_is_cold_and_only_for_half_a_minute() -> None:
    first = path(KINDS["cold_first_step"].service.effects[0], rollouts=1)[0]
    each = path(KINDS["cold_every_step"].service.effects[0], rollouts=1)[0]
    live = np.arange(TICKS)
    assert np.all(first[:, 1:] == 1) and np.all(each[:, 1:] == 1)
    assert np.all(first[:BEFORE_TICKS] == 1) and np.all(each[:BEFORE_TICKS] == 1)
    assert np.array_equal(first[BEFORE_TICKS:, 0], np.where(live < 6, 4.0, 1.0))
    assert np.array_equal(each[BEFORE_TICKS:, 0], np.where(live % STEP_TICKS < 6, 4.0, 1.0))


def test_bursts_hit_all_arms_at_once_and_come_and_go() -> None:
    arms = path(SharedBursts())
    assert np.all(arms[..., 0] == arms[..., 1]) and np.all(arms[..., 0] == arms[..., 2])
    assert set(np.unique(arms)) == {1.0, 10.0}
    assert (arms > 1).mean() == pytest.approx(30 / 330, rel=0.1)


def test_a_late_regression_begins_at_its_onset() -> None:
    live = cell_named("x4_late", 1000, SEED, 50, 1).live
    rate = live.canary_s.sum(axis=0) / live.canary_n.sum(axis=0)
    assert rate[:200].mean() == pytest.approx(0.005, rel=0.05)
    assert rate[200:].mean() == pytest.approx(0.02, rel=0.02)


def test_drift_is_shared_and_ends_at_its_last_rate() -> None:
    live = cell_named("drift", 1000, SEED, 100, 1).live
    for errors, n in ((live.canary_s, live.canary_n), (live.stable_s, live.stable_n)):
        rate = errors.sum(axis=0) / n.sum(axis=0)
        assert rate[:20].mean() == pytest.approx(0.003 + 0.009 * 9.5 / 299, rel=0.06)
        assert rate[-20:].mean() == pytest.approx(0.012 - 0.009 * 9.5 / 299, rel=0.04)


def test_stress_effects_have_the_mean_one_where_they_promise_it() -> None:
    for effect in (TwoPointPods(), TelegraphArms()):
        assert path(effect, rollouts=3000).mean(axis=(0, 1)) == pytest.approx(1.0, abs=0.02)
    leak = path(Leak(), rollouts=3000)[:, BEFORE_TICKS:]
    assert leak[..., 1:].mean() == pytest.approx(1.0, abs=0.01)
    assert np.all(np.diff(leak[..., 0], axis=1) > 0), "a new canary only grows older"


def test_random_cold_starts_come_to_half_of_the_rollouts() -> None:
    canary = path(RandomColdStart(), rollouts=3000)[..., 0]
    assert (canary.max(axis=1) > 1).mean() == pytest.approx(0.5, abs=0.03)
    assert canary.max() <= 8.0 and np.all(canary[:, :BEFORE_TICKS] == 1)
    assert np.all(canary[:, BEFORE_TICKS + 12 :] == 1), "at most a minute"


def test_pareto_sums_have_the_promised_mean() -> None:
    bunches = np.full((500, 20), 10)
    bunches[:, 0] = 0
    totals = Pareto().totals(np.random.default_rng(SEED), bunches)
    assert np.all(totals[:, 0] == 0) and np.all(totals[:, 1:] >= 10)
    assert totals[:, 1:].mean() / 10 == pytest.approx(Pareto().mean, rel=0.03)


def test_a_wrong_history_is_that_of_the_plain_service() -> None:
    plain = history_of(KINDS["iid_0.5"], 100, SEED, 3)
    cells = list(wrong_history_cells(SEED, 2, 3, rates=(100,)))
    assert [cell.name for cell in cells] == [kind.name for kind in HEALTHY]
    assert all(np.array_equal(cell.history.canary_s, plain.canary_s) for cell in cells)
    assert np.array_equal(cells[6].live.canary_s, cell_named("pods", 100, SEED, 2, 3).live.canary_s)


def test_first_rollouts_are_cut_off_and_the_history_kept() -> None:
    cell = cell_named("iid_0.5", 100, SEED, 8, 3)
    some = first_rollouts(cell, 5)
    assert np.array_equal(some.live.canary_s, cell.live.canary_s[:5])
    assert np.array_equal(some.before.half_n, cell.before.half_n[:5])
    assert some.history is cell.history


def test_overlapping_windows_count_every_request_again_for_a_minute() -> None:
    cell = cell_named("iid_0.5", 100, SEED, 3, 1)
    wrong = with_overlapping_windows(cell)
    assert np.array_equal(wrong.live.canary_n[:, 40], cell.live.canary_n[:, 29:41].sum(axis=1))
    assert np.array_equal(wrong.live.canary_n[:, 3], cell.live.canary_n[:, :4].sum(axis=1))


def test_nominal_exposures_hide_that_the_canary_got_a_fifth_more() -> None:
    wrong = with_nominal_exposures("iid_0.5", 1000, SEED, 50, history=1)
    claimed = wrong.live.canary_n[:, :STEP_TICKS]
    assert claimed.mean() == pytest.approx(250, rel=0.01)
    rate = wrong.live.canary_s.sum() / wrong.live.canary_n.sum()
    assert rate == pytest.approx(1.2 * 0.005, rel=0.02)
    assert wrong.live.stable_s.sum() / wrong.live.stable_n.sum() < 0.005


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: iid_0"):
        cell_named("nonsense", 10, SEED, 1)


def test_regressions_and_stress_kinds_are_what_they_say() -> None:
    assert all(kind.regression is None for kind in (*HEALTHY, *STRESS))
    for kind in REGRESSIONS:
        assert kind.regression is not None
        assert kind.service == KINDS[kind.family].service
        assert kind.is_in_slo == (kind.service.base * kind.regression.ratio < SLO)
