"""How much more than independent requests a split of events scatters: dispersion, by events per tick.

Errors come in clusters: one bad user retries, one slow query fails a page of requests. A tick with K events
split between two arms of one version, the first with the share theta of the exposure, then scatters
``phi * K * theta * (1 - theta)`` instead of the binomial variance. phi grows with K towards the clusters'
size and is never above K (all events in one cluster), so it is learnt by bins of K.

The mean of the split is not known to be theta (a half may be a little worse than the other for minutes), so a
tick's residual is taken from the mean of the minute around it; taking it there costs variance, which is
divided out. The estimate is a ratio of sums, raised by its standard error: too small a phi takes scatter for
evidence.
"""

from __future__ import annotations

import numpy as np

from domain.calibration import DISPERSION_BINS
from scorers.evidence.learn.split import Split
from scorers.evidence.types import Floats

BINS = len(DISPERSION_BINS) + 1
NEIGHBOURS = 6
"""Ticks on either side that estimate a tick's mean."""
_PULL = 8.0
"""Events without any difference added to the neighbours' mean: a few neighbours prove little."""
_FEW_TICKS = 50
"""Ticks below which a bin is held to scatter at least as much as the one below it."""

MIN_INFORMATIVE = 10
"""Ticks with events that one row's own dispersion takes."""
UNKNOWN = 1e9
"""A dispersion beyond any count, which the kernel cuts down to the tick's events: as if all were one
cluster."""


def dispersion_by_bin(split: Split) -> tuple[float, ...]:
    """phi for every bin of events per tick, at least 1, learnt from all runs together.

    A bin starts from the dispersion of the one below, worth one unit of variance, so that without any data
    every phi is 1.
    """
    events = split.events
    squares, variances = _squares(split)
    bin_of = np.searchsorted(DISPERSION_BINS, events)
    learnt = [1.0]  # one event falls on one side or the other: there is no more to its scatter
    for at in range(1, BINS):
        inside = (bin_of == at) & (events > 0.0)
        learnt.append(_dispersion_of_bin(squares[inside], variances[inside], learnt[-1]))
    return tuple(learnt)


def clustering(split: Split) -> float:
    """The dispersion of all ticks together, at least 1: each counts by its events. 1 without any."""
    squares, variances = _squares(split)
    total = float(variances.sum())
    return max(1.0, float(squares.sum()) / total) if total > 0.0 else 1.0


def dispersion_by_row(split: Split) -> Floats:
    """phi of every row from its own ticks alone, the same for every bin: shape (rows, bins).

    It is the ratio estimate plus two standard errors (at least those of a chi-square with as many degrees of
    freedom as ticks), and :data:`UNKNOWN` with fewer than ten ticks with events.
    """
    informative = split.events > 0.0
    squares, variances = (np.where(informative, of, 0.0) for of in _squares(split))
    ticks = informative.sum(axis=1)
    total = np.where(ticks > 0, variances.sum(axis=1), 1.0)
    phi = squares.sum(axis=1) / total
    error = np.sqrt(((squares - phi[:, None] * variances) ** 2).sum(axis=1)) / total
    upper = phi + 2.0 * np.maximum(error, phi * np.sqrt(2.0 / np.maximum(ticks, 1)))
    upper = np.where(ticks < MIN_INFORMATIVE, UNKNOWN, np.maximum(1.0, upper))
    return np.repeat(upper[:, None], BINS, axis=1)


def _dispersion_of_bin(squares: Floats, variances: Floats, below: float) -> float:
    weight = float(variances.sum()) + 1.0
    phi = (float(squares.sum()) + below) / weight
    error = float(np.sqrt(((squares - phi * variances) ** 2).sum())) / weight
    phi = max(1.0, phi + error)
    return max(phi, below) if len(squares) < _FEW_TICKS else phi


def _squares(split: Split) -> tuple[Floats, Floats]:
    """Per tick, the squared residual and the variance that independent requests would give it."""
    events, share = split.events, split.share
    residual = np.where(events > 0.0, split.s_1 - events * share, 0.0)
    near = _sum_of_neighbours(events) + _PULL
    local = residual - events * _sum_of_neighbours(residual) / near
    inflation = 1.0 + events * (near - _PULL) / near**2
    return local**2 / inflation, events * share * (1.0 - share)


def _sum_of_neighbours(values: Floats) -> Floats:
    """By tick, the sum over the ticks at most :data:`NEIGHBOURS` away, itself excepted."""
    ticks = values.shape[1]
    sums = np.concatenate((np.zeros((len(values), 1)), np.cumsum(values, axis=1)), axis=1)
    at = np.arange(ticks)
    last = np.minimum(at + NEIGHBOURS + 1, ticks)
    first = np.maximum(at - NEIGHBOURS, 0)
    return np.asarray(sums[:, last] - sums[:, first] - values, dtype=np.float64)
