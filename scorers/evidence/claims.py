"""What a step has to prove before the next one may begin.

A canary that carries little traffic cannot be shown to keep a 1 % limit within minutes, but it can be
shown to stay below 4 %. So an early step may claim a multiple of the limit, never more than its place in
the ladder allows, and only as much as its traffic needs; the last step before all traffic proves the limit
itself, on evidence of that step alone. Each step's chance of a wrong pass is then exactly what the policy
says.

The claim is chosen from traffic and from stable's own rate before any of the step's evidence counts, so it
favours no outcome.
"""

from __future__ import annotations

from math import log

from domain.policy import Policy
from domain.units import FULL_BP
from scorers.evidence.compiled import compiled

LADDERS: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (2.0, 1.0),
    (3.0, 2.0, 1.0),
    (3.0, 2.0, 1.5, 1.0),
    (4.0, 3.0, 2.0, 1.5, 1.0),
)
"""The largest multiples that steps may claim, by how many steps there are before all traffic."""

SLOW_REQUESTS = 2.5
"""Requests that nine of ten healthy steps need, in units of log(1/beta) / divergence; measured 2.3 to 2.7."""
PROVABLE = 0.9
"""Share of a claim above which nobody should wait for its proof: the finest alternative is 0.85 of it."""


def ladder(policy: Policy) -> tuple[float, ...]:
    """The largest claim of every step. At all traffic there is nothing left to gain: the limit itself."""
    partial = sum(weight < FULL_BP for weight in policy.weights_bp)
    if partial == 0:
        return (1.0,) * len(policy.weights_bp)
    extra = max(0, partial - len(LADDERS))
    rungs = (LADDERS[-1][0],) * extra + LADDERS[partial - extra - 1]
    return rungs + (1.0,) * (len(policy.weights_bp) - partial)


@compiled
def divergence(rate: float, limit: float, is_count: bool) -> float:
    """Nats per unit of exposure by which events at ``rate`` speak against a rate of ``limit``."""
    if is_count:
        return (rate * log(rate / limit) if rate > 0.0 else 0.0) + limit - rate
    kept = (1.0 - rate) * log((1.0 - rate) / (1.0 - limit)) if rate < 1.0 else 0.0
    return (rate * log(rate / limit) if rate > 0.0 else 0.0) + kept


@compiled
def claimed_limit(limit: float, claim: float, is_count: bool) -> float:
    """The rate that a claim rules out; shares stay below one half."""
    return limit * claim if is_count else min(limit * claim, max(0.5, limit))


@compiled
def choose_claim(
    limit: float, is_count: bool, rate: float, per_second: float, seconds: float, most: float, beta: float
) -> float:
    """The smallest claim of 1, 1.5, 2, 3 and 4 (up to ``most``) that a healthy step should prove in time.

    ``rate`` is what a healthy canary is expected to show, ``per_second`` its exposure (by how many events
    come together), ``seconds`` the time the step takes anyway. Where none fits, ``most``.
    """
    for claim in (1.0, 1.5, 2.0, 3.0, 4.0):
        if claim >= most:
            break
        ceiling = claimed_limit(limit, claim, is_count)
        if rate < PROVABLE * ceiling:
            needed = SLOW_REQUESTS * log(1.0 / beta) / divergence(rate, ceiling, is_count)
            if needed <= per_second * seconds:
                return claim
    return most
