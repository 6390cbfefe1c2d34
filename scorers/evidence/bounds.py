"""How much worse the canary is: confidence bounds of the rate ratio that hold however often one looks.

A likelihood is kept for every ratio of a grid. A ratio is below the bounds when the average likelihood of the
larger ones exceeds its own ``1/a`` times, and above them likewise: both are e-processes, so neither bound is
wrong, ever, with a chance of more than ``a``.

References: Robbins (1970), *Statistical methods related to the law of the iterated logarithm*.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from scorers.evidence.compiled import compiled
from scorers.evidence.effects import RATIO_GRID
from scorers.evidence.types import Floats

GRID = len(RATIO_GRID)
_LOG_GRID: Floats = np.log(RATIO_GRID)
SURE = log(1.0 / 0.025)
"""Nats by which a ratio must lose to lie outside: 2.5 % on either side."""


@compiled
def weigh_ratios(
    row: Floats, at: int, s_c: float, n_c: float, s_b: float, n_b: float, dispersion: float
) -> None:
    """Add one tick's log likelihoods in place at ``row[at : at + GRID]``."""
    events = s_c + s_b
    if events <= 0.0 or n_c <= 0.0 or n_b <= 0.0:
        return
    share = n_c / (n_c + n_b)
    for k in range(GRID):
        tilt = 1.0 + share * (RATIO_GRID[k] - 1.0)
        row[at + k] += (s_c * _LOG_GRID[k] - events * log(tilt)) / dispersion


@compiled
def _edge(row: Floats, at: int, direction: int) -> float:
    """Walking the grid in ``direction``, where ratios begin to lose to those already passed; nan if none
    does."""
    start = 0 if direction > 0 else GRID - 1
    best, total, before = row[at + start], 1.0, 0.0
    for passed in range(1, GRID):
        k = start + direction * passed
        own = row[at + k]
        lost = best + log(total / passed) - own
        if lost >= SURE:
            way = (SURE - before) / (lost - before) if lost > before else 1.0
            way = min(1.0, max(0.0, way))
            return exp(_LOG_GRID[k] - (1.0 - way) * (_LOG_GRID[k] - _LOG_GRID[k - direction]))
        before = lost
        if own > best:
            total = total * exp(best - own) + 1.0
            best = own
        else:
            total += exp(own - best)
    return float("nan")


@compiled
def ratio_bounds(row: Floats, at: int) -> tuple[float, float]:
    """Lower and upper bound of the ratio, nan where there is none yet."""
    return _edge(row, at, -1), _edge(row, at, 1)
