"""The canary against its limit: one-sample e-processes for "keeps it" and "breaks it".

With ``bad`` of ``n`` in a tick and a limit p, a multiple r of it gains ::

    bad * log r + (n - bad) * log((1 - r * p) / (1 - p))          shares of requests
    bad * log r - (r - 1) * p * n                                 counts per exposure (Poisson)

r > 1 argues that the limit is broken, r < 1 that it is kept. Clustered events are worth less than independent
ones: all gains are divided by the dispersion that was learnt of the service.
"""

from __future__ import annotations

from math import exp, log

from scorers.evidence.compiled import compiled
from scorers.evidence.effects import OVER_LIMIT, UNDER_LIMIT
from scorers.evidence.kernel import CEILING
from scorers.evidence.types import Floats

OVER = len(OVER_LIMIT)
HOPE_SPREAD = 0.35
"""Width of the prior around the rate that is expected, in nats: about one step of the grid."""
_STEEPEST = 300.0
_NEVER = -690.0
_LOWEST = -1e300


@compiled
def _gain(bad: float, n: float, limit: float, multiple: float, is_count: bool) -> float:
    if is_count:
        return bad * log(multiple) - (multiple - 1.0) * limit * n
    return bad * log(multiple) + (n - bad) * log((1.0 - multiple * limit) / (1.0 - limit))


@compiled
def breaks_limit(
    row: Floats,
    at: int,
    bad: float,
    n: float,
    limit: float,
    is_count: bool,
    dispersion: float,
    weight: float,
    spent: float,
) -> float:
    """One tick of the evidence that the limit is broken, in place at ``row[at : at + OVER]``; log E.

    A breach may begin at any tick: ``weight`` is the prior that it begins with this one, ``spent`` that of
    all so far.
    """
    total = 0.0
    for k in range(OVER):
        multiple = OVER_LIMIT[k]
        if not is_count:
            multiple = min(multiple, (1.0 + limit) / (2.0 * limit))
        gain = _gain(bad, n, limit, multiple, is_count) / dispersion
        row[at + k] = (row[at + k] + weight / OVER) * exp(min(gain, _STEEPEST))
        total += row[at + k]
    if total > CEILING:
        for k in range(OVER):
            row[at + k] *= CEILING / total
    return log_breach(row, at, spent)


@compiled
def log_breach(row: Floats, at: int, spent: float) -> float:
    """log E that the limit is broken, as far as ticks have told."""
    total = 0.0
    for k in range(OVER):
        total += row[at + k]
    left = min(total, CEILING) + max(0.0, 1.0 - spent)
    return log(left) if left > 1e-300 else _NEVER


@compiled
def keeps_limit(bad: float, n: float, limit: float, is_count: bool, dispersion: float, hope: float) -> float:
    """log E against "the rate is at least ``limit``" after ``bad`` of ``n`` in all.

    ``hope`` is the fraction of the limit at which the rate is expected, told before the counts were seen:
    half of the prior lies around it, which needs a quarter fewer requests than an even one when it is
    right, and 0.7 nats more at most when it is wrong.
    """
    nearby = 0.0
    for k in range(len(UNDER_LIMIT)):
        nearby += exp(-0.5 * ((log(UNDER_LIMIT[k]) - log(hope)) / HOPE_SPREAD) ** 2)
    best, total = -1e308, 0.0
    for k in range(len(UNDER_LIMIT)):
        closeness = exp(-0.5 * ((log(UNDER_LIMIT[k]) - log(hope)) / HOPE_SPREAD) ** 2)
        prior = 0.5 / len(UNDER_LIMIT) + 0.5 * closeness / nearby
        gain = _gain(bad, n, limit, UNDER_LIMIT[k], is_count) / dispersion
        if gain > best:
            total = total * exp(best - gain) + prior
            best = gain
        else:
            total += prior * exp(gain - best)
    return best + log(total)
