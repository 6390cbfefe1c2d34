"""Simulated services for the reference judges, and rates compared with published ones."""

from __future__ import annotations

import numpy as np

from bench.judging.cells import STEP_TICKS, TICK_S, TICKS, WEIGHTS, Cell, Counts, Floats, Ints


def counts(canary_n: Floats, canary_s: Floats, stable_n: Floats, stable_s: Floats) -> Counts:
    """Counts whose halves nobody reads."""
    return Counts(
        canary_n=canary_n,
        canary_s=canary_s,
        stable_n=stable_n,
        stable_s=stable_s,
        half_n=stable_n / 2,
        half_s=stable_s / 2,
    )


def cell_of(live: Counts, rps: int = 100) -> Cell:
    return Cell(name="test", rps=rps, live=live, before=live, history=live)


def steady(rps: int, rate: float, rollouts: int, seed: int, *, canary_rate: float | None = None) -> Cell:
    """Poisson traffic at the leaderboard's weights, independent errors at ``rate``."""
    random = np.random.default_rng(seed)
    weight = np.repeat(WEIGHTS, STEP_TICKS)
    canary_n = random.poisson(rps * TICK_S * weight, (rollouts, TICKS))
    stable_n = random.poisson(rps * TICK_S * (1 - weight), (rollouts, TICKS))
    canary_s = random.binomial(canary_n, rate if canary_rate is None else canary_rate)
    stable_s = random.binomial(stable_n, rate)
    return cell_of(counts(*(each.astype(float) for each in (canary_n, canary_s, stable_n, stable_s))), rps)


def restless(rollouts: int, seed: int, ticks: int = TICKS) -> Cell:
    """Both arms change their error rate and their traffic every few ticks; at times there is none."""
    random = np.random.default_rng(seed)
    spells = (rollouts, -(-ticks // 12))

    def arm(traffic: tuple[int, ...]) -> tuple[Floats, Floats]:
        rate = np.repeat(random.choice([0, 0.002, 0.01, 0.02, 0.04, 0.08], spells), 12, axis=1)[:, :ticks]
        n = random.poisson(np.repeat(random.choice(traffic, spells), 12, axis=1)[:, :ticks])
        return n.astype(float), random.binomial(n, rate).astype(float)

    return cell_of(counts(*arm((0, 1, 20, 100)), *arm((0, 10, 200))))


def fire_rate(first: Ints) -> float:
    """Share of rollouts that were rolled back."""
    return float(np.mean(first >= 0))


def agrees(measured: float, rollouts: int, published: float, published_rollouts: int = 1000) -> bool:
    """Whether two measured rates are one, within four standard errors and a rounding to 0.1 %."""
    pooled = (measured * rollouts + published * published_rollouts) / (rollouts + published_rollouts)
    error = (pooled * (1 - pooled) * (1 / rollouts + 1 / published_rollouts)) ** 0.5
    return abs(measured - published) <= 4 * error + 0.0005
