"""How far, and for how long, a healthy version's rate wanders from stable's: learnt by likelihood.

Each pair of a standard deviation ``tau`` and a correlation time is a law of the log ratio of two arms (see
``null``). The history's likelihood under a law is what the kernel's null normalises by, tick by tick; so the
filter here is the kernel's, with the null alone. Of the laws that explain the history nearly as well as the
best, one with a wide wander is taken: evidence must not rest on the luck of having seen calm runs.
"""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np

from scorers.evidence.compiled import compiled
from scorers.evidence.effects import RATIOS, REACH, SPACING
from scorers.evidence.kernel import dispersion_of
from scorers.evidence.learn.split import Split
from scorers.evidence.null import LARGEST_TAU, Null, null_with
from scorers.evidence.types import Floats, Ints

TAUS = (0.0, 0.08, 0.15, 0.2, 0.25, 0.3, 0.37, 0.45, 0.6)
"""Standard deviations of the log ratio tried, in nats."""
MEMORIES_S = (None, 100.0, 30.0)
"""Correlation times tried, in seconds; ``None`` is for ever."""
_AS_GOOD = 1.0
"""Nats below the best likelihood within which a law explains the history as well."""

Wander = tuple[float, float | None]
"""``tau`` in nats and its correlation time in seconds."""

LAWS: tuple[Wander, ...] = (
    (0.0, None),
    *((tau, memory_s) for tau in TAUS[1:] for memory_s in MEMORIES_S),
)
_COMMON = 0.37
"""A wander beyond this is believed only of a history that speaks against everything narrower."""
_FLOOR = 1e-60
"""As in the kernel: no point is ever ruled out altogether."""
_RUNS_AT_ONCE = 16
"""Runs whose likelihoods are kept at a time: a few megabytes."""


def learnt_wander(split: Split, rho: Floats, bins: tuple[float, ...], interval_s: float) -> Wander:
    """The wander of the first arm's rate about ``rho`` times the second's, with dispersions ``bins``.

    A history too thin to tell the laws apart gives a wide wander, but none wider than services commonly show:
    one without events gives 0.37 for ever.
    """
    likelihoods = log_likelihoods(split, rho, bins, interval_s)
    good = [at for at in range(len(LAWS)) if likelihoods[at] >= likelihoods.max() - _AS_GOOD]
    common = [LAWS[at][0] for at in good if LAWS[at][0] <= _COMMON]
    width = max(common) if common else min(LAWS[at][0] for at in good)
    return LAWS[max((at for at in good if LAWS[at][0] == width), key=lambda at: float(likelihoods[at]))]


def log_likelihoods(split: Split, rho: Floats, bins: tuple[float, ...], interval_s: float) -> Floats:
    """The history's log likelihood under each of :data:`LAWS`, relative to equal rates; in nats."""
    nulls = [_null(tau, memory_s, interval_s) for tau, memory_s in LAWS]
    half = max(null.half for null in nulls)
    totals = np.zeros(len(LAWS))
    for at in range(0, len(rho), _RUNS_AT_ONCE):
        rows = slice(at, at + _RUNS_AT_ONCE)
        arms = split.s_1[rows], split.n_1[rows], split.s_2[rows], split.n_2[rows]
        logs = point_logs(*arms, rho[rows], np.array(bins), half)
        for k, null in enumerate(nulls):
            totals[k] += log_likelihood(null.start, null.first, null.steps, null.wanders, logs)
    return totals


def of_canary(wander: Wander, halves_factor: float) -> Wander:
    """What a wander of half against half means for a canary against stable, at most 0.9.

    ``halves_factor`` says how many times wider the latter is, see :func:`halves_factor_of`.
    """
    return min(LARGEST_TAU, wander[0] * halves_factor), wander[1]


def halves_factor_of(canary: float, stable: float, first: float, second: float) -> float:
    """How much wider a canary of so many replicas wanders about stable than stable's halves do.

    Replicas with effects of their own average out like one over their number.

    >>> round(halves_factor_of(canary=2, stable=10, first=5, second=5), 2)
    1.22
    """
    return sqrt((1 / canary + 1 / stable) / (1 / first + 1 / second))


def _null(tau: float, memory_s: float | None, interval_s: float) -> Null:
    return null_with(tau, 1.0 if memory_s is None else exp(-interval_s / memory_s))


@compiled
def point_logs(
    s_1: Floats, n_1: Floats, s_2: Floats, n_2: Floats, rho: Floats, bins: Floats, half: int
) -> Floats:
    """The kernel's log f at the lattice's points, shape (runs, ticks, 2 * half + 1); 0 where nothing was
    seen."""
    runs, ticks = s_1.shape
    logs = np.zeros((runs, ticks, 2 * half + 1))
    for i in range(runs):
        for t in range(ticks):
            events = s_1[i, t] + s_2[i, t]
            if events > 0.0 and n_1[i, t] > 0.0 and n_2[i, t] > 0.0:
                phi = dispersion_of(events, bins)
                share = rho[i, t] * n_1[i, t] / (rho[i, t] * n_1[i, t] + n_2[i, t])
                for x in range(-half, half + 1):
                    tilt = 1.0 + share * (RATIOS[x + REACH] - 1.0)
                    logs[i, t, x + half] = (s_1[i, t] * SPACING * x - events * log(tilt)) / phi
    return logs


@compiled
def log_likelihood(start: Floats, first: Ints, steps: Floats, wanders: bool, logs: Floats) -> float:
    """The log likelihood of all runs under one null, from the likelihoods of each tick at each point.

    A tick in which every point is as likely (``logs`` all 0) has seen nothing and only lets the belief
    wander.
    """
    points = len(start)
    skip = logs.shape[2] // 2 - points // 2
    belief, moved = np.empty(points), np.empty(points)
    total = 0.0
    for i in range(logs.shape[0]):
        belief[:] = start
        for t in range(logs.shape[1]):
            if wanders and t > 0:
                _wander(belief, first, steps, moved)
                belief[:] = moved
            if logs[i, t, 0] != 0.0 or logs[i, t, -1] != 0.0:
                total += _reweigh(belief, logs[i, t, skip : skip + points])
    return total


@compiled
def _wander(belief: Floats, first: Ints, steps: Floats, moved: Floats) -> None:
    moved[:] = 0.0
    width = steps.shape[1]
    for i in range(len(belief)):
        reached = moved[first[i] : first[i] + width]  # a view lets the compiler add several points at once
        for b in range(width):
            reached[b] += steps[i, b] * belief[i]


@compiled
def _reweigh(belief: Floats, logs: Floats) -> float:
    """Condition the belief on one tick; the log of the tick's likelihood."""
    best = logs.max()
    total = 0.0
    for j in range(len(belief)):
        belief[j] = max(belief[j] * exp(logs[j] - best), _FLOOR)
        total += belief[j]
    for j in range(len(belief)):
        belief[j] /= total
    return float(best + log(total))
