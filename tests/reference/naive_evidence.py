"""Naive twins of the evidence judge's numbers, from the formulas alone: dense matrices, logs, no shortcuts.

They keep every tick for ever and know nothing of how the judge stores or orders its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SPACING = 0.1
WORSE = (2, 3, 5, 7, 9, 12, 16, 21, 25, 30, 37, 46)
HELD_LIKELY = (1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2)
OVER = (1.2, 1.4, 1.7, 2.0, 2.5, 3.5, 5.0, 8.0, 12.0, 20.0, 40.0, 100.0)
UNDER = (0.85, 0.7, 0.5, 0.35, 0.2, 0.1, 0.03, 0.003)
HOPE_SPREAD = 0.35
"""Nats."""
CONVINCED = log(1e40)
"""Evidence is not counted beyond this."""


@dataclass(frozen=True)
class Tick:
    """Canary's events and exposure, stable's, and by which rules they are compared."""

    s_c: float
    n_c: float
    s_b: float
    n_b: float
    rho: float = 1.0
    phi: float = 1.0
    weight: float = 0.0
    """Prior that a regression begins with this tick."""
    is_bound: bool = False
    """The margin only bounds a healthy version."""

    @property
    def compares(self) -> bool:
        return self.n_c > 0 and self.n_b > 0 and self.s_c + self.s_b > 0


def log_f(tick: Tick, x: float) -> float:
    """log likelihood of the tick's split at log ratio x, relative to x = 0."""
    a, k = tick.rho * tick.n_c, tick.s_c + tick.s_b
    return (tick.s_c * x + k * log((a + tick.n_b) / (a * exp(x) + tick.n_b))) / tick.phi


def log_sum(values: Floats | Sequence[float]) -> float:
    """log of the sum of exponentials; minus infinity for nothing."""
    best = max(values, default=-inf)
    return best if best == -inf else best + log(sum(exp(each - best) for each in values))


def unspent(spent: float) -> float:
    """log of the prior that nothing has begun yet."""
    return log(1 - spent) if spent < 1 else -inf


def lattice(tau: float) -> Floats:
    """Log ratios that a healthy version may have."""
    half = ceil(round(32 * tau, 9))
    return SPACING * np.arange(-half, half + 1)


def stationary(tau: float) -> Floats:
    """log chance of each of them."""
    logs = -(lattice(tau) ** 2) / (2 * tau**2) if tau else np.zeros(1)
    return np.asarray(logs - log_sum(logs))


def transitions(tau: float, kept: float) -> Floats:
    """Chance of going from row to column in a tick; every row sums to one."""
    points = lattice(tau)
    size, half = len(points), len(points) // 2
    if kept == 1.0 or size == 1:
        return np.eye(size)
    spread = tau * sqrt(1 - kept**2)
    reach = ceil(round(32 * spread, 9)) + 1
    width = max(spread, 0.03)
    out = np.zeros((size, size))
    for i in range(size):
        # At the lattice's ends the band keeps its size and is pushed inwards.
        band = min(2 * reach + 1, size)
        first = min(max(round(kept * (i - half)) + half - reach, 0), size - band)
        for j in range(first, first + band):
            out[i, j] = exp(-((points[j] - kept * points[i]) ** 2) / (2 * width**2))
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def filtered(tau: float, kept: float, ticks: Sequence[Tick]) -> list[tuple[float, float]]:
    """After every tick ``(log E, log ratio that the alternatives believe in)``."""
    points, steps = lattice(tau), transitions(tau, kept)
    with np.errstate(divide="ignore"):
        log_steps = np.log(steps)
    held = [log(each / sum(HELD_LIKELY)) for each in HELD_LIKELY]
    null = stationary(tau)
    alternatives = [np.full(len(points), -inf) for _ in WORSE]
    spent, out = 0.0, []
    for position, tick in enumerate(ticks):
        if position:
            null = _moved(null, log_steps)
            alternatives = [_moved(each, log_steps) for each in alternatives]
        if tick.weight:
            alternatives = [
                np.logaddexp(each, null + log(tick.weight) + chance)
                for each, chance in zip(alternatives, held, strict=True)
            ]
        spent += tick.weight
        if tick.compares:
            null, alternatives = _weighed(tick, points, null, alternatives)
        total = log_sum([log_sum(each) for each in alternatives])
        if total > CONVINCED:
            alternatives = [each - (total - CONVINCED) for each in alternatives]
            total = CONVINCED
        log_e = total if total == CONVINCED else log_sum([total, unspent(spent)])
        out.append((log_e, _believed(points, alternatives)))
    return out


def _moved(logs: Floats, log_steps: Floats) -> Floats:
    return np.array([log_sum(logs + log_steps[:, j]) for j in range(len(logs))])


def _weighed(
    tick: Tick, points: Floats, null: Floats, alternatives: list[Floats]
) -> tuple[Floats, list[Floats]]:
    if tick.is_bound:
        return null, [
            each + log_f(tick, SPACING * worse) for each, worse in zip(alternatives, WORSE, strict=True)
        ]
    null = null + np.array([log_f(tick, x) for x in points])
    alternatives = [
        each + np.array([log_f(tick, x + SPACING * worse) for x in points])
        for each, worse in zip(alternatives, WORSE, strict=True)
    ]
    scale = log_sum(null)
    return null - scale, [each - scale for each in alternatives]


def _believed(points: Floats, alternatives: list[Floats]) -> float:
    total = log_sum([log_sum(each) for each in alternatives])
    if total == -inf:
        return 0.0
    return sum(
        exp(value - total) * (x + SPACING * worse)
        for each, worse in zip(alternatives, WORSE, strict=True)
        for value, x in zip(each, points, strict=True)
    )


def plain_relative(ticks: Sequence[Tick]) -> list[float]:
    """log E of the plain kernel as the change-point recursion has it, effect by effect."""
    held = [each / sum(HELD_LIKELY) for each in HELD_LIKELY]
    logs, spent, out = [-inf] * len(WORSE), 0.0, []
    for tick in ticks:
        spent += tick.weight
        for k, worse in enumerate(WORSE):
            r, a = exp(SPACING * worse), tick.rho * tick.n_c
            begun = log(tick.weight * held[k]) if tick.weight else -inf
            gain = 0.0
            if tick.compares:
                gain = tick.s_c * log(r) + (tick.s_c + tick.s_b) * log((a + tick.n_b) / (a * r + tick.n_b))
            logs[k] = log_sum([logs[k], begun]) + gain
        out.append(log_sum([*logs, unspent(spent)]))
    return out


# The limit.


def limit_gain(bad: float, n: float, limit: float, r: float, *, is_count: bool) -> float:
    """Nats by which ``bad`` of ``n`` speak for a rate of r times the limit, against the limit."""
    if is_count:
        return bad * log(r) - (r - 1) * limit * n
    return bad * log(r) + (n - bad) * log((1 - r * limit) / (1 - limit))


def breach(
    ticks: Sequence[tuple[float, float, float]], limit: float, phi: float, *, is_count: bool
) -> list[float]:
    """log E that the limit is broken, after every tick of ``(bad, n, weight)``."""
    out = []
    for now in range(len(ticks)):
        terms = []
        for start in range(now + 1):
            weight = ticks[start][2]
            for r in OVER:
                most = r if is_count else min(r, (1 + limit) / (2 * limit))
                gains = [
                    limit_gain(bad, n, limit, most, is_count=is_count) for bad, n, _ in ticks[start : now + 1]
                ]
                if weight:
                    terms.append(log(weight / len(OVER)) + sum(gains) / phi)
        spent = sum(weight for _, _, weight in ticks[: now + 1])
        out.append(log_sum([*terms, unspent(spent)]))
    return out


def kept(bad: float, n: float, limit: float, phi: float, *, is_count: bool, hope: float) -> float:
    """log E against a rate of at least ``limit``; half of the prior is even, half lies around ``hope``."""
    gains = [limit_gain(bad, n, limit, r, is_count=is_count) / phi for r in UNDER]
    nearby = [-0.5 * ((log(r) - log(hope)) / HOPE_SPREAD) ** 2 for r in UNDER]
    around = [each - log_sum(nearby) for each in nearby]
    return log_sum(
        [gain + log(0.5 / len(UNDER) + 0.5 * exp(share)) for gain, share in zip(gains, around, strict=True)]
    )


# Bounds of the ratio.


def ratio_logs(ticks: Sequence[Tick], grid: Sequence[float]) -> list[float]:
    """log likelihood of every ratio of the grid over all ticks."""
    return [sum(log_f(tick, log(ratio)) for tick in ticks if tick.compares) for ratio in grid]


def bounds(logs: Sequence[float], grid: Sequence[float], a: float) -> tuple[float | None, float | None]:
    """The interval outside which every ratio loses 1/a to the average of those on its inner side."""
    up = _bound(list(logs), list(grid), a)
    down = _bound(list(reversed(logs)), list(reversed(grid)), a)
    return down, up


def _bound(logs: list[float], grid: list[float], a: float) -> float | None:
    """Walking along the grid, where a ratio first loses to the average of those before it."""
    lost = [0.0] + [log_sum(logs[:k]) - log(k) - logs[k] for k in range(1, len(logs))]
    for k in range(1, len(logs)):
        if lost[k] >= log(1 / a):
            way = (log(1 / a) - lost[k - 1]) / (lost[k] - lost[k - 1]) if lost[k] > lost[k - 1] else 1.0
            way = min(1.0, max(0.0, way))
            return exp(log(grid[k - 1]) + way * (log(grid[k]) - log(grid[k - 1])))
    return None


# Dispersion told by live data.


def live_dispersion(
    splits: Sequence[tuple[float, float, tuple[float, float] | None]], most: float
) -> list[float]:
    """Before every tick of stable's ``(events, exposure, first half's (events, exposure))``: the bound."""
    out = []
    for now in range(len(splits) + 1):
        counted, squares, spread, events, exposure = 0, 0.0, 0.0, 0.0, 0.0
        for bad, n, half in splits[:now]:
            if half is not None:
                expected, variance = bad * half[1] / n, bad * (half[1] / n) * (1 - half[1] / n)
                off = half[0] - expected
            else:
                rate = min(1.0, events / exposure) if exposure else 0.0
                expected, variance = n * rate, n * rate * (1 - rate)
                off = bad - expected
            if variance > 0:
                counted += bad > 0
                squares, spread = squares + off**2, spread + variance
            events, exposure = events + bad, exposure + n
        seen = max(1.0, squares / spread) if spread else 1.0
        out.append(min(most, seen * (1 + sqrt(2 / counted))) if counted >= 10 and spread else most)
    return out
