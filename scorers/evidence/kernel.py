"""The canary against stable: an e-process whose null is a healthy version as it has been seen to behave.

Per disjoint tick, with canary events ``s_c`` of ``n_c``, stable's ``s_b`` of ``n_b``, their sum ``K`` and the
margin ``rho`` (``a = rho * n_c``), the likelihood of the split at log ratio x, relative to x = 0, is ::

    f(x) = exp( (s_c * x + K * log((a + n_b) / (a * e^x + n_b))) / phi )

The null is a belief ``N`` over lattice points x_j, filtered tick by tick; the alternatives are beliefs
``A_k`` over the same points shifted by each regression of the grid, entered from ``N`` at every tick with
the weight that the start-time prior gives it. With both divided by the null's own likelihood, ``E = sum(A)
+ 1 - W`` is an e-process: a ratio of the likelihoods of two laws for the same data. One point (tau 0) and
phi 1 give the plain relative kernel, which is exact for any level of events that both arms share.

Compiled, and a row at a time in a fixed order, so that a gate's numbers are the same to the last bit whether
it is judged alone or among thousands.

References: Grünwald, de Heide, Koolen (2024), *Safe Testing*; Shin, Ramdas, Rinaldo (2023), *E-detectors*.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from scorers.evidence.compiled import compiled
from scorers.evidence.effects import RATIOS, REACH, SPACING, WORSE, WORSE_PRIOR
from scorers.evidence.types import Bools, Floats, Ints

EFFECTS = len(WORSE)
WIDTH = EFFECTS + 1
"""Floats per lattice point: the null's belief, then each alternative's."""
_FURTHEST = int(WORSE[-1])

CEILING = 1e40
"""Evidence is not counted beyond this; 92 nats convince anybody, and products stay finite."""
_FLOOR = 1e-60
"""The null never rules a point out altogether."""
_DUST = 1e-200
"""Smaller beliefs are zero: numbers near the end of the range are slow and mean nothing."""
_STEEPEST = 300.0
"""Nats that one tick may add to an alternative over the best healthy point."""
_UNUSED = 1e300
"""Marks lattice points between those that null and alternatives use."""


@compiled
def dispersion_of(events: float, bins: Floats) -> float:
    """Dispersion of a tick with that many events: by bin, never more than the events and never below 1."""
    edge, at = 1.0, 0
    while at < len(bins) - 1 and events > edge:
        edge *= 2.0
        at += 1
    return float(max(1.0, min(bins[at], events)))


@compiled
def _wander(row: Floats, at: int, points: int, first: Ints, steps: Floats, scratch: Floats) -> None:
    """Let every belief take one step of the healthy wander."""
    width = steps.shape[1]
    for at_c in range(points * WIDTH):
        scratch[at_c] = 0.0
    for i in range(points):
        source = at + i * WIDTH
        for b in range(width):
            chance = steps[i, b]
            target = (first[i] + b) * WIDTH
            for c in range(WIDTH):
                scratch[target + c] += chance * row[source + c]
    for at_c in range(points * WIDTH):
        row[at + at_c] = scratch[at_c]


@compiled
def _likelihoods(
    half: int, s_c: float, n_c: float, s_b: float, n_b: float, rho: float, phi: float, out: Floats
) -> None:
    """log f at every lattice point that null or alternatives use; ``out[half]`` is x = 0."""
    share = rho * n_c / (rho * n_c + n_b)
    events = s_c + s_b
    last = -half - 1
    for shift in range(-1, EFFECTS):
        centre = 0 if shift < 0 else WORSE[shift]
        for x in range(max(centre - half, last + 1), centre + half + 1):
            tilt = 1.0 + share * (RATIOS[x + REACH] - 1.0)
            out[x + half] = (s_c * SPACING * x - events * log(tilt)) / phi
            last = x


@compiled
def _steep(half: int, logs: Floats, best: float, is_upper_bound: bool) -> float:
    """How far the likeliest alternative is beyond what one tick may add: all of them give up as much."""
    top = best
    for k in range(EFFECTS):
        for j in range(1 if is_upper_bound else 2 * half + 1):
            top = max(top, logs[WORSE[k] + (half if is_upper_bound else j)])
    return max(0.0, top - best - _STEEPEST)


@compiled
def _reweigh(row: Floats, at: int, half: int, logs: Floats, is_upper_bound: bool) -> None:
    """Multiply every belief by its likelihood and divide by the null's."""
    points = 2 * half + 1
    if is_upper_bound:  # the margin only bounds a healthy version: the null learns nothing from this tick
        excess = _steep(half, logs, 0.0, True)
        for k in range(EFFECTS):
            factor = exp(logs[half + WORSE[k]] - excess)
            for j in range(points):
                row[at + j * WIDTH + 1 + k] *= factor
        return
    best = logs[0]
    for j in range(1, points):
        best = max(best, logs[j])
    excess = _steep(half, logs, best, False)
    total = 0.0
    for j in range(points):
        belief = max(row[at + j * WIDTH] * exp(logs[j] - best), _FLOOR)
        row[at + j * WIDTH] = belief
        total += belief
    for x in range(points + _FURTHEST):
        if logs[x] != _UNUSED:
            logs[x] = exp(logs[x] - best - excess)
    scale = 1.0 / total
    for j in range(points):
        start = at + j * WIDTH
        row[start] *= scale
        for k in range(EFFECTS):
            belief = row[start + 1 + k] * (logs[j + WORSE[k]] * scale)
            row[start + 1 + k] = belief if belief > _DUST else 0.0


@compiled
def _sum_up(row: Floats, at: int, points: int) -> tuple[float, float]:
    """All alternatives' evidence, and the log ratio they believe in (0 without any)."""
    total, tilt = 0.0, 0.0
    half = points // 2
    for j in range(points):
        start = at + j * WIDTH + 1
        for k in range(EFFECTS):
            total += row[start + k]
            tilt += row[start + k] * (WORSE[k] + (j - half))
    if total > CEILING:
        for j in range(points):
            for k in range(EFFECTS):
                row[at + j * WIDTH + 1 + k] *= CEILING / total
        return CEILING, SPACING * tilt / total
    return total, SPACING * tilt / total if total > 0.0 else 0.0


@compiled
def log_evidence(total: float, spent: float) -> float:
    """log E of alternatives worth ``total``, while ``1 - spent`` of the prior has not been used."""
    e_value = total + max(0.0, 1.0 - spent)
    return log(e_value) if e_value > 1e-300 else -690.0


@compiled
def tick(
    row: Floats,
    at: int,
    half: int,
    first: Ints,
    steps: Floats,
    wanders: bool,
    s_c: float,
    n_c: float,
    s_b: float,
    n_b: float,
    rho: float,
    phi: float,
    weight: float,
    spent: float,
    is_upper_bound: bool,
    scratch: Floats,
    logs: Floats,
) -> tuple[float, float]:
    """One tick of one filter, in place: ``(log E, log ratio the alternatives believe in)``.

    The filter's beliefs are ``row[at : at + points * WIDTH]``. ``weight`` is the prior that a regression
    begins with this tick and ``spent`` that of all ticks so far, this one included. Ticks in which an arm
    has no exposure, or without events, change no evidence.
    """
    points = 2 * half + 1
    if wanders:
        _wander(row, at, points, first, steps, scratch)
    for j in range(points):
        start = at + j * WIDTH
        for k in range(EFFECTS):
            row[start + 1 + k] += weight * WORSE_PRIOR[k] * row[start]
    if s_c + s_b > 0.0 and n_c > 0.0 and n_b > 0.0:
        _likelihoods(half, s_c, n_c, s_b, n_b, rho, phi, logs)
        _reweigh(row, at, half, logs, is_upper_bound)
    total, tilt = _sum_up(row, at, points)
    return log_evidence(total, spent), tilt


@compiled
def begin(row: Floats, at: int, start: Floats) -> None:
    """Set a filter to its beliefs before the first tick."""
    for j in range(len(start)):
        row[at + j * WIDTH] = start[j]
        for k in range(EFFECTS):
            row[at + j * WIDTH + 1 + k] = 0.0


@compiled
def advance(
    memory: Floats,
    at: int,
    half: int,
    first: Ints,
    steps: Floats,
    wanders: Bools,
    counts: Floats,
    rho: Floats,
    phi: Floats,
    weight: Floats,
    spent: Floats,
    is_upper_bound: Bools,
    is_live: Bools,
    log_e: Floats,
    tilt: Floats,
) -> None:
    """The same for many gates: row i of ``memory`` with ``counts[i] = s_c, n_c, s_b, n_b``.

    Rows that are not live are left as they are; what they say is what they said before.
    """
    scratch = np.empty((2 * half + 1) * WIDTH)
    logs = np.full(2 * half + 1 + _FURTHEST, _UNUSED)
    for i in range(memory.shape[0]):
        if is_live[i]:
            log_e[i], tilt[i] = tick(
                memory[i],
                at,
                half,
                first,
                steps,
                wanders[i],
                counts[i, 0],
                counts[i, 1],
                counts[i, 2],
                counts[i, 3],
                rho[i],
                phi[i],
                weight[i],
                spent[i],
                is_upper_bound[i],
                scratch,
                logs,
            )
        else:
            total, tilt[i] = _sum_up(memory[i], at, 2 * half + 1)
            log_e[i] = log_evidence(total, spent[i])


@compiled
def trajectories(
    start: Floats,
    first: Ints,
    steps: Floats,
    wanders: bool,
    s_c: Floats,
    n_c: Floats,
    s_b: Floats,
    n_b: Floats,
    rho: Floats,
    bins: Floats,
    weight: Floats,
    is_upper_bound: Bools,
    log_e: Floats,
    tilt: Floats,
) -> None:
    """Whole rollouts at once, for learning and for back-tests: arrays of shape (rollouts, ticks).

    ``rho``, ``weight`` and ``is_upper_bound`` are per tick; ``bins`` has one row of dispersions per rollout.
    """
    half = len(start) // 2
    scratch = np.empty(len(start) * WIDTH)
    logs = np.full(len(start) + _FURTHEST, _UNUSED)
    row = np.empty(len(start) * WIDTH)
    for i in range(s_c.shape[0]):
        begin(row, 0, start)
        spent = 0.0
        for t in range(s_c.shape[1]):
            spent += weight[t]
            log_e[i, t], tilt[i, t] = tick(
                row,
                0,
                half,
                first,
                steps,
                wanders and t > 0,
                s_c[i, t],
                n_c[i, t],
                s_b[i, t],
                n_b[i, t],
                rho[t],
                dispersion_of(s_c[i, t] + s_b[i, t], bins[i]),
                weight[t],
                spent,
                is_upper_bound[t],
                scratch,
                logs,
            )
