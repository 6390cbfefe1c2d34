"""The wander of healthy versions: found where it is, and not where it is not."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from scorers.evidence import kernel
from scorers.evidence.learn import wander
from scorers.evidence.learn.split import Split, canary_against_stable, half_against_half
from scorers.evidence.learn.wander import (
    LAWS,
    Wander,
    halves_factor_of,
    learnt_wander,
    log_likelihoods,
    of_canary,
)
from scorers.evidence.null import LARGEST_TAU, null_with
from tests.reference.naive_learning import null_log_likelihood
from tests.scorers.evidence.healthy_histories import (
    INTERVAL_S,
    NAME,
    TICKS,
    Service,
    history_of,
    of_replicas,
    wandering,
    without_anything,
)

PLAIN = (1.0,) * 9


def canaries(service: Service, seed: int, runs: int = 200) -> Split:
    return canary_against_stable(history_of(service, seed, runs).series[NAME])


def wander_of(split: Split, bins: tuple[float, ...] = PLAIN) -> Wander:
    return learnt_wander(split, np.ones(split.n_1.shape), bins, INTERVAL_S)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_versions_that_do_not_differ_are_held_to_differ_hardly(seed: int) -> None:
    assert wander_of(canaries(Service(rps=1000.0), seed))[0] == 0.0
    assert wander_of(canaries(Service(rps=100.0), seed))[0] <= 0.08


def test_replicas_with_effects_of_their_own_wander_for_ever() -> None:
    # Two against ten replicas with sd 0.3 each: 0.3 * sqrt(1/2 + 1/10) = 0.23.
    effect = of_replicas(4, 200, 0.3, 2, 10)
    tau, memory_s = wander_of(canaries(Service(rps=1000.0, canary_effect=effect), seed=4))
    assert 0.2 <= tau <= 0.25
    assert memory_s is None


@pytest.mark.parametrize(("true_memory_s", "seed"), [(100.0, 5), (30.0, 6)])
def test_a_fading_wander_is_given_its_memory(true_memory_s: float, seed: int) -> None:
    effect = wandering(seed, 200, 0.3, true_memory_s)
    tau, memory_s = wander_of(canaries(Service(rps=1000.0, canary_effect=effect), seed))
    assert 0.25 <= tau <= 0.37
    assert memory_s == true_memory_s


def test_scatter_that_dispersion_explains_is_no_wander() -> None:
    split = canaries(Service(rps=1000.0, cluster=4.0), seed=7)
    assert wander_of(split)[0] > 0.15
    assert wander_of(split, (1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 7.0, 7.0, 7.0))[0] <= 0.08


def test_a_margin_takes_out_what_it_explains() -> None:
    split = canaries(Service(rps=1000.0, canary_effect=np.log(2.0)), seed=8, runs=50)
    doubled = np.full(split.n_1.shape, 2.0)
    assert wander_of(split)[0] == 0.6
    assert learnt_wander(split, doubled, PLAIN, INTERVAL_S)[0] <= 0.08


@pytest.mark.parametrize("seed", [5, 6, 7, 8])
def test_of_laws_within_a_nat_of_the_best_the_widest_is_taken(seed: int) -> None:
    split = canaries(Service(rps=30.0), seed, runs=60)
    likelihoods = log_likelihoods(split, np.ones(split.n_1.shape), PLAIN, INTERVAL_S)
    best = float(likelihoods.max())
    taken = wander_of(split)
    assert likelihoods[LAWS.index(taken)] >= best - 1.0
    wider = [k for k in range(len(LAWS)) if LAWS[k][0] > taken[0]]
    assert all(likelihoods[k] < best - 1.0 for k in wider)
    assert taken[0] > LAWS[int(likelihoods.argmax())][0]


def test_without_events_the_widest_common_wander_is_kept() -> None:
    silent = without_anything(history_of(Service(), 9, runs=2))
    assert wander_of(canary_against_stable(silent.series[NAME])) == (0.37, None)
    nothing = np.zeros((0, TICKS))
    assert wander_of(Split(nothing, nothing, nothing, nothing)) == (0.37, None)


def test_little_history_keeps_a_wider_wander_than_much() -> None:
    much = canaries(Service(rps=30.0), seed=10, runs=200)
    little = Split(much.s_1[:3], much.n_1[:3], much.s_2[:3], much.n_2[:3])
    assert wander_of(little)[0] > wander_of(much)[0]


def test_equal_rates_exactly_are_the_yardstick_of_every_likelihood() -> None:
    split = canaries(Service(cluster=3.0), seed=11, runs=20)
    assert LAWS[0] == (0.0, None)
    rho = np.linspace(1.0, 3.0, TICKS) * np.ones(split.n_1.shape)
    assert log_likelihoods(split, rho, (1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0, 3.0, 3.0), INTERVAL_S)[0] == 0.0


def test_the_likelihoods_match_the_naive_ones() -> None:
    rng = np.random.default_rng(12)
    n = rng.integers(0, 3, (2, 2, 30)) * 100.0
    s = rng.poisson(n * rng.choice((0.005, 0.03), n.shape)).astype(np.float64)
    split = Split(s[0], n[0], s[1], n[1])
    rho = rng.choice((1.0, 2.5), split.n_1.shape)
    bins = (1.0, 1.2, 1.7, 2.0, 2.5, 3.0, 3.0, 3.0, 3.0)
    fast = log_likelihoods(split, rho, bins, INTERVAL_S)
    for k, (tau, memory_s) in enumerate(LAWS):
        kept = 1.0 if memory_s is None else exp(-INTERVAL_S / memory_s)
        slow = 0.0
        for i in range(2):
            counts = list(zip(s[0, i], n[0, i], s[1, i], n[1, i], strict=True))
            slow += null_log_likelihood(tau, kept, counts, list(rho[i]), list(bins))
        assert fast[k] == pytest.approx(slow, abs=1e-9), (tau, memory_s)


def test_the_filter_is_the_kernels_null() -> None:
    """The kernel's own belief, fed the same ticks, must end where the learner's does."""
    split = canaries(Service(rps=300.0), seed=13, runs=1)
    null = null_with(0.2, exp(-INTERVAL_S / 30.0))
    row = np.zeros(null.points * kernel.WIDTH)
    scratch, logs = np.empty(len(row)), np.empty(null.points + int(kernel.WORSE[-1]))
    kernel.begin(row, 0, null.start)
    belief, moved = null.start.copy(), np.empty(null.points)
    ones, bins = np.ones((1, TICKS)), np.array(PLAIN)
    points = wander.point_logs(split.s_1, split.n_1, split.s_2, split.n_2, ones, bins, null.half)
    for t in range(TICKS):
        counts = (float(of[0, t]) for of in (split.s_1, split.n_1, split.s_2, split.n_2))
        moves = null.wanders and t > 0
        settings = (1.0, 1.0, 0.0, 0.0, False)  # margin, dispersion, no alternatives, no bound
        kernel.tick(row, 0, null.half, null.first, null.steps, moves, *counts, *settings, scratch, logs)
        if t > 0:
            wander._wander(belief, null.first, null.steps, moved)
            belief[:] = moved
        if split.events[0, t] > 0:
            wander._reweigh(belief, points[0, t])
    np.testing.assert_allclose(belief, row[:: kernel.WIDTH], atol=1e-12)


def test_learning_twice_gives_the_same_bits() -> None:
    split = half_against_half(history_of(Service(rps=300.0), 14, runs=40).series[NAME])
    ones = np.ones(split.n_1.shape)
    once, twice = (log_likelihoods(split, ones, PLAIN, INTERVAL_S) for _ in range(2))
    np.testing.assert_array_equal(once, twice)


def test_a_canary_wanders_wider_than_halves_and_never_beyond_the_lattice() -> None:
    assert halves_factor_of(canary=2, stable=10, first=5, second=5) == pytest.approx(1.5**0.5)
    assert of_canary((0.2, 30.0), 1.5) == (pytest.approx(0.3), 30.0)
    assert of_canary((0.6, None), 2.0) == (LARGEST_TAU, None)
