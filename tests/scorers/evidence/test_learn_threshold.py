"""Thresholds from what healthy rollouts reached."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest

from domain.calibration import Law, Tier
from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.schedule import margins, seconds_at_weight, start_weights
from scorers.evidence.learn.split import canary_against_stable, half_against_half
from scorers.evidence.learn.threshold import largest_evidence, log_evidence, threshold_of
from scorers.evidence.types import Bools, Floats
from tests.scorers.evidence.healthy_histories import (
    NAME,
    STEP_TICKS,
    TICKS,
    Service,
    first_runs,
    history_of,
    of_replicas,
)

WARM = Law(warmup_margin=((1.0,), (1.0,)), has_learnt_warmup=True)


def evidence(history: History, law: Law = WARM, window_s: float = 40.0) -> Floats:
    split = canary_against_stable(history.series[NAME])
    learnt = law.has_learnt_warmup
    return log_evidence(split, law, history, window_s=window_s, has_learnt_warmup=learnt)


@pytest.mark.parametrize(
    ("tier", "alpha", "nats"), [(Tier.R2, 0.01, 250), (Tier.R1, 0.01, 1 / 0.007), (Tier.R2, 0.05, 50)]
)
def test_a_history_that_never_saw_evidence_leaves_the_promise(tier: Tier, alpha: float, nats: float) -> None:
    assert threshold_of(np.zeros(200), tier, alpha) == pytest.approx(log(nats))
    assert threshold_of(np.zeros(0), tier, alpha) == pytest.approx(log(nats))


def test_a_heavy_tail_raises_the_threshold_along_an_exponential() -> None:
    largest = np.concatenate((np.zeros(81), np.full(19, 3.0)))
    start = float(np.quantile(largest, 0.8))
    assert start == 0.0
    assert threshold_of(largest, Tier.R1, 0.01) == pytest.approx(3.0 * log(0.2 / 0.007))


def test_the_tail_is_never_held_to_fall_faster_than_true_evidence() -> None:
    largest = np.concatenate((np.full(81, 5.0), np.full(19, 5.1)))
    assert threshold_of(largest, Tier.R1, 0.01) == pytest.approx(5.0 + log(0.2 / 0.007))


def test_the_exchangeable_floor_needs_ninety_nine_rollouts_and_a_canary() -> None:
    largest = np.concatenate((np.zeros(79), np.full(17, 0.1), np.full(3, 50.0)))
    assert threshold_of(largest, Tier.R2, 0.01) == 50.0
    assert threshold_of(largest[1:], Tier.R2, 0.01) < 35.0
    assert threshold_of(largest, Tier.R1, 0.01) < 35.0


def test_the_exchangeable_floor_leaves_alphas_share_of_the_history_above() -> None:
    largest = np.concatenate((np.zeros(170), np.full(25, 0.1), [40.0, 41.0, 42.0, 43.0, 44.0]))
    # Two of 201 exchangeable rollouts, one in a hundred, may lie at or above the 199th of 200.
    assert threshold_of(largest, Tier.R2, 0.01) == 43.0
    assert threshold_of(largest, Tier.R2, 0.05) < 40.0


def test_healthy_rollouts_under_a_true_law_rarely_pass_their_threshold() -> None:
    learnt = largest_evidence({"errors": (NAME,)}, {NAME: evidence(history_of(Service(), 1))})
    threshold = threshold_of(learnt, Tier.R2, 0.01)
    assert log(250) <= threshold < log(250) + 1.5
    fresh = evidence(history_of(Service(), 2, runs=600)).max(axis=1)
    assert (fresh >= threshold).mean() <= 0.004 + 3 * (0.004 / 600) ** 0.5


def test_replicas_effects_that_no_law_explains_raise_the_threshold() -> None:
    effect = of_replicas(3, 200, 0.3, 2, 10)
    history = history_of(Service(rps=1000.0, canary_effect=effect), 3)
    wrong = threshold_of(evidence(history).max(axis=1), Tier.R2, 0.01)
    right = threshold_of(evidence(history, replace_tau(WARM, 0.25)).max(axis=1), Tier.R2, 0.01)
    assert wrong > 3 * right


def test_gates_are_averaged_after_their_series() -> None:
    high, low, one = np.log([[9.0, 1.0]]), np.log([[1.0, 3.0]]), np.zeros((1, 2))
    latency = {"errors": ("e",), "latency": ("a", "b")}
    found = largest_evidence(latency, {"e": one, "a": high, "b": low})
    assert found == pytest.approx([log((1.0 + (9.0 + 1.0) / 2) / 2)])


def test_rollouts_on_other_timetables_are_judged_as_alone() -> None:
    history = history_of(Service(rps=300.0), 4, runs=4)
    opens, step = history.opens_step.copy(), history.step.copy()
    opens[1, STEP_TICKS], opens[1, STEP_TICKS + 7] = False, True
    step[1, STEP_TICKS : STEP_TICKS + 7] = 0
    mixed = replace(history, opens_step=opens, step=step)
    law = Law(warmup_margin=((3.0, 2.0), (1.5,)), has_learnt_warmup=True)
    together = evidence(mixed, law)
    np.testing.assert_array_equal(together[[0, 2, 3]], evidence(history, law)[[0, 2, 3]])
    assert (together[1] != evidence(history, law)[1]).any()
    np.testing.assert_array_equal(together[:1], evidence(first_runs(mixed, 1), law))


def test_rollouts_that_warmed_up_for_longer_are_judged_as_alone() -> None:
    history = history_of(Service(rps=300.0), 9, runs=3)
    ends = history.ends_warmup.copy()
    ends[1, 8], ends[1, 20] = False, True
    mixed = replace(history, ends_warmup=ends)
    weights = start_weights(mixed, False)
    np.testing.assert_array_equal(weights[[0, 2]], start_weights(history, False)[[0, 2]])
    assert weights[1, 20] > 0.5 > weights[1, 8]


def test_ticks_after_a_rollouts_end_add_nothing() -> None:
    history = history_of(Service(rps=300.0, canary_effect=1.0), 5, runs=3)
    over = np.arange(TICKS) >= 100
    ended = replace(history, step=np.where(over, -1, history.step), series=_silenced(history.series, over))
    log_e = evidence(ended, replace_tau(WARM, 0.2))
    np.testing.assert_allclose(log_e[:, 100:], log_e[:, 99:100] * np.ones((1, TICKS - 100)), atol=1e-9)
    assert (start_weights(ended, True)[:, 100:] == 0.0).all()


def test_ticks_under_an_unlearnt_margin_are_bounds() -> None:
    history = history_of(Service(), 6, runs=2)
    rho, is_bound = margins(history, Law(), 40.0)
    np.testing.assert_array_equal(is_bound[0], seconds_at_weight(history)[0] < 40.0)
    assert set(np.unique(rho[is_bound])) == {5.0} and set(np.unique(rho[~is_bound])) == {1.0}
    assert is_bound[0].sum() == 8 * 5


@pytest.mark.parametrize("has_learnt_warmup", [True, False])
def test_the_prior_of_a_start_is_spent_once(has_learnt_warmup: bool) -> None:
    weights = start_weights(history_of(Service(), 7, runs=1), has_learnt_warmup)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0.0).all()


def test_halves_of_one_version_give_no_evidence() -> None:
    history = history_of(Service(), 8, runs=200)
    split = half_against_half(history.series[NAME])
    log_e = log_evidence(split, WARM, history, window_s=0.0, has_learnt_warmup=False)
    # Ville's inequality at 1 in 20, with three standard errors of 200 runs.
    assert (np.exp(log_e.max(axis=1)) >= 20).mean() <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5
    assert exp(float(log_e[:, -1].mean())) < 1.0


def replace_tau(law: Law, tau: float) -> Law:
    return Law(tau=tau, warmup_margin=law.warmup_margin, has_learnt_warmup=law.has_learnt_warmup)


def _silenced(series: dict[str, Series], over: Bools) -> dict[str, Series]:
    def quiet(one: Series) -> Series:
        return Series(**{key: np.where(over, 0.0, getattr(one, key)) for key in Series.__slots__})

    return {name: quiet(one) for name, one in series.items()}
