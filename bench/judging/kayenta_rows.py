"""Kayenta's test for many pairs of samples at once: the same arithmetic as ``kayenta_mann_whitney``, by rows.

Samples are rows of (rows, points); NaN is a point that is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bench.judging.cells import Floats, Ints

_EPSILON = float(np.finfo(np.float64).eps)
_MOST_STEPS = 1000
_CHUNK = 256
"""Rows at once: what fits into a core's cache."""
Score = Callable[[Floats, Ints], Floats]
"""Values of a function at ``mu`` of the rows at these positions."""


def standardised(mu: Floats, experiment: Floats, control: Floats) -> Floats:
    """Scores of the shifts ``mu``, one per row. Rows whose observations are all tied give NaN."""
    both = np.concatenate([experiment - mu[:, None], control], axis=1)
    order = np.argsort(both, axis=1)
    ordered = np.take_along_axis(both, order, axis=1)
    first, last = _groups(ordered)
    present = ~np.isnan(ordered)
    of_experiment = (order < experiment.shape[1]) & present
    m = of_experiment.sum(axis=1).astype(float)
    total = present.sum(axis=1).astype(float)
    n = total - m
    rank_sum = np.where(of_experiment, first + last + 2, 0).sum(axis=1) / 2
    excess = rank_sum - m * (m + 1) / 2 - m * n / 2
    size = np.where(present, last - first + 1.0, 1.0)
    ties = (size * size - 1).sum(axis=1)
    variance = m * n / 12 * (total + 1 - ties / (total * (total - 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        scores: Floats = (excess - 0.5 * np.sign(excess)) / np.sqrt(np.where(variance > 0, variance, np.nan))
    return scores


def _groups(ordered: Floats) -> tuple[Ints, Ints]:
    """First and last position of each element's run of equal values."""
    width = ordered.shape[1]
    starts = np.ones(ordered.shape, bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones(ordered.shape, bool)
    ends[:, :-1] = starts[:, 1:]
    position = np.arange(width)
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, position, width)[:, ::-1], axis=1)[:, ::-1]
    return first, last


def is_high(
    experiment: Floats, control: Floats, *, confidence: float, tolerance: float, root_tolerance: float
) -> NDArray[np.bool_]:
    """Rows whose interval lies above ``tolerance`` times the estimate; effects are not looked at.

    No row may be empty or constant in both samples.
    """
    high = np.zeros(len(experiment), bool)
    for start in range(0, len(experiment), _CHUNK):
        rows = slice(start, start + _CHUNK)
        high[rows] = _is_high(experiment[rows], control[rows], confidence, tolerance, root_tolerance)
    return high


def _is_high(
    experiment: Floats, control: Floats, confidence: float, tolerance: float, root_tolerance: float
) -> NDArray[np.bool_]:
    level = NormalDist().inv_cdf((1 + confidence) / 2)
    lowest = np.nanmin(experiment, axis=1) - np.nanmax(control, axis=1)
    # The search ends within its tolerance of the crossing, and the score falls: a row that is not significant
    # a little below zero has its crossing, and so its interval's low end, below zero.
    below = np.full(len(experiment), -2 * root_tolerance)
    chance = (lowest > 0) | (standardised(below, experiment, control) > level)
    high = np.zeros(len(experiment), bool)
    if chance.any():
        high[chance] = _searched(experiment[chance], control[chance], level, tolerance, root_tolerance)
    return high


def _searched(
    experiment: Floats, control: Floats, level: float, tolerance: float, root_tolerance: float
) -> NDArray[np.bool_]:
    low = crossings(experiment, control, level, root_tolerance)
    high = low > 0
    if high.any():
        estimate = crossings(experiment[high], control[high], 0.0, root_tolerance)
        high[high] = low[high] > tolerance * np.abs(estimate)
    return high


def crossings(experiment: Floats, control: Floats, level: float, root_tolerance: float) -> Floats:
    """Where each row's score crosses ``level``; the nearer end of the possible shifts when it does not."""
    low = np.nanmin(experiment, axis=1) - np.nanmax(control, axis=1)
    high = np.nanmax(experiment, axis=1) - np.nanmin(control, axis=1)

    def above(mu: Floats, rows: Ints) -> Floats:
        return standardised(mu, experiment[rows], control[rows]) - level

    everyone = np.arange(len(low))
    at_low, at_high = above(low, everyone), above(high, everyone)
    found: Floats = np.where(at_low <= 0, low, high)
    inside = np.flatnonzero((at_low > 0) & (at_high < 0))
    if inside.size:
        ends = low[inside], high[inside], at_low[inside], at_high[inside]
        found[inside] = brent(above, inside, *ends, root_tolerance)
    return found


@dataclass(slots=True)
class _Search:
    """Brent's points of the rows still searching; names as in ``kayenta_mann_whitney.brent``."""

    rows: Ints
    before: Floats
    near: Floats
    far: Floats
    f_before: Floats
    f_near: Floats
    f_far: Floats

    def kept(self, keep: NDArray[np.bool_]) -> _Search:
        return _Search(
            self.rows[keep],
            self.before[keep],
            self.near[keep],
            self.far[keep],
            self.f_before[keep],
            self.f_near[keep],
            self.f_far[keep],
        )

    def put_best_first(self) -> None:
        turn = np.abs(self.f_far) < np.abs(self.f_near)
        self.before, self.near, self.far = (
            np.where(turn, self.near, self.before),
            np.where(turn, self.far, self.near),
            np.where(turn, self.near, self.far),
        )
        self.f_before, self.f_near, self.f_far = (
            np.where(turn, self.f_near, self.f_before),
            np.where(turn, self.f_far, self.f_near),
            np.where(turn, self.f_near, self.f_far),
        )


def brent(
    function: Score, rows: Ints, low: Floats, high: Floats, at_low: Floats, at_high: Floats, tolerance: float
) -> Floats:
    """Brent's root for each row at its own pace; ``at_low`` and ``at_high`` must have opposite signs."""
    found = np.empty(len(rows))
    place = np.arange(len(rows))
    search = _Search(rows, low, high, low, at_low, at_high, at_low)
    for _ in range(_MOST_STEPS):
        last_step = search.near - search.before
        search.put_best_first()
        least = 2 * _EPSILON * np.abs(search.near) + tolerance / 2
        done = (np.abs(search.far - search.near) / 2 <= least) | (search.f_near == 0)
        found[place[done]] = search.near[done]
        if done.all():
            return found
        place, last_step, least, search = place[~done], last_step[~done], least[~done], search.kept(~done)
        _step(search, function, last_step, least)
    found[place] = search.near
    return found


def _step(search: _Search, function: Score, last_step: Floats, least: Floats) -> None:
    half = (search.far - search.near) / 2
    tries = (np.abs(last_step) >= least) & (np.abs(search.f_before) > np.abs(search.f_near))
    step = np.where(tries, _interpolated(search, last_step, least), half)
    step = np.where(np.abs(step) < least, np.where(step > 0, least, -least), step)
    search.before, search.f_before = search.near, search.f_near
    search.near = search.near + step
    search.f_near = function(search.near, search.rows)
    same_side = search.f_near * search.f_far > 0
    search.far = np.where(same_side, search.before, search.far)
    search.f_far = np.where(same_side, search.f_before, search.f_far)


def _interpolated(search: _Search, last_step: Floats, least: Floats) -> Floats:
    width = search.far - search.near
    with np.errstate(divide="ignore", invalid="ignore"):
        s = search.f_near / search.f_before
        q, r = search.f_before / search.f_far, search.f_near / search.f_far
        secant = search.before == search.far
        upper = np.where(
            secant, width * s, s * (width * q * (q - r) - (search.near - search.before) * (r - 1))
        )
        lower = np.where(secant, 1 - s, (q - 1) * (r - 1) * (s - 1))
        lower = np.where(upper > 0, -lower, lower)
        upper = np.abs(upper)
        inside = upper < 0.75 * width * lower - np.abs(least * lower) / 2
        faster = upper < np.abs(last_step * lower / 2)
        step: Floats = np.where(inside & faster, upper / lower, width / 2)
    return step
