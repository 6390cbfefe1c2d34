"""When a row of ticks with few bad events is first completed: chances followed tick by tick.

Bad events come as a Poisson process. What is followed is the chance of every number of bad events so far,
together with how many ticks passed in a row; those that have passed often enough leave. More than 16 bad
events per tick are counted on a grid half their standard deviation wide; all else is exact.
"""

from __future__ import annotations

from math import ceil, erf, exp, floor, lgamma, log, sqrt

import numpy as np

from scorers.evidence.compiled import compiled
from scorers.evidence.types import Floats

DUST = 1e-9
"""Chances that are not followed any further."""
DONE = 1e-3
"""Share of steps yet to pass at which the rest is taken to pass at the next tick."""
FINE = 4.0
"""Bad events per tick over the square of a cell: two cells make their standard deviation."""


def first_passes(mean: float, most: Floats, pass_count: int, earliest: int) -> Floats:
    """The chance that ``pass_count`` ticks in a row have passed, by each tick; shape of ``most``.

    Bad events are Poisson with ``mean`` per tick; a tick passes while there are at most ``most`` in all. The
    row counts from tick ``earliest`` on (0-based), when it must still be unbroken.
    """
    first, chances, unit = _events_of(mean)
    cells = int(16.0 * sqrt(mean * len(most)) / unit) + 2 * len(chances) + 64
    passed = np.zeros(len(most))
    _follow(passed, np.floor(most / unit), first, chances, cells, earliest, pass_count)
    return passed


def _events_of(mean: float) -> tuple[int, Floats, float]:
    """Bad events of one tick: the fewest cells, the chance of each number of cells, events per cell."""
    unit = max(1.0, floor(sqrt(mean / FINE)))
    if unit == 1.0:
        return *poisson(mean), unit
    sd = sqrt(mean)
    first = max(0, floor((mean - 6.5 * sd) / unit))
    edges = (np.arange(first, ceil((mean + 6.5 * sd) / unit) + 2) - 0.5) * unit
    below = np.array([0.5 * (1.0 + erf((edge - mean) / (sd * sqrt(2.0)))) for edge in edges])
    chances = np.diff(below)
    return first, chances / chances.sum(), unit


def poisson(mean: float) -> tuple[int, Floats]:
    """Poisson chances without the dust on either side, and the number that the first one is of."""
    if mean <= 0.0:
        return 0, np.ones(1)
    reach = 8.0 * sqrt(mean) + 12.0
    first = max(0, floor(mean - reach))
    numbers = range(first, ceil(mean + reach) + 1)
    chances = np.array([exp(k * log(mean) - mean - lgamma(k + 1.0)) for k in numbers])
    kept = np.flatnonzero(chances > 0.01 * DUST)
    chances = chances[kept[0] : kept[-1] + 1]
    return first + int(kept[0]), chances / chances.sum()


@compiled
def _spread(here: Floats, there: Floats, low: int, high: int, chances: Floats) -> int:
    """One tick's events on top of those of ``here[:, low : high + 1]``; to ``there`` from 0 up to the result.

    What does not fit is dropped: it is dust.
    """
    top = int(min(there.shape[1] - 1, high - low + len(chances) - 1))
    there[:, : top + 1] = 0.0
    for c in range(here.shape[0]):
        for b in range(low, high + 1):
            if here[c, b] > 0.0:
                for j in range(min(len(chances), top + 1 - (b - low))):
                    there[c, b - low + j] += here[c, b] * chances[j]
    return top


@compiled
def _count(chance: Floats, high: int, most: float) -> None:
    """Count one more tick in a row up to ``most`` cells of bad events, and none beyond."""
    enough = chance.shape[0] - 1
    for b in range(high + 1):
        if b <= most:
            chance[enough, b] += chance[enough - 1, b]
            for c in range(enough - 1, 0, -1):
                chance[c, b] = chance[c - 1, b]
            chance[0, b] = 0.0
        else:
            for c in range(1, enough + 1):
                chance[0, b] += chance[c, b]
                chance[c, b] = 0.0


@compiled
def _follow(
    passed: Floats, most: Floats, first: int, chances: Floats, cells: int, earliest: int, pass_count: int
) -> None:
    """The chance of having passed by each tick, in place.

    ``here[c, b]`` is the chance that the step goes on, that the last c ticks passed (``pass_count`` stands
    for as many or more), and that there were ``base + b`` cells of bad events.
    """
    here, there = np.zeros((pass_count + 1, cells)), np.zeros((pass_count + 1, cells))
    here[0, 0] = 1.0
    base, low, high, gone = 0, 0, 0, 0.0
    for tick in range(len(passed)):
        if gone > 1.0 - DONE:
            passed[tick] = 1.0
            continue
        base += low + first
        high = _spread(here, there, low, high, chances)
        low = 0
        _count(there, high, most[tick] - base)
        if tick >= earliest:
            gone += there[pass_count, : high + 1].sum()
            there[pass_count, : high + 1] = 0.0
        while low < high and there[:, low].sum() < DUST:
            low += 1
        while high > low and there[:, high].sum() < DUST:
            high -= 1
        here, there = there, here
        passed[tick] = gone
