"""Counts of ticks gathered into whole intervals, as rules see them that query once a minute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.judging.cells import TICK_S, Floats, Ints

NEVER = -1
"""A rollout that is never rolled back."""


def ticks_in(seconds: float) -> int:
    """Whole ticks of ``seconds``; raises :class:`ValueError` when they are not whole."""
    ticks = round(seconds / TICK_S)
    if ticks < 1 or ticks * TICK_S != seconds:
        raise ValueError(f"an interval must be a positive multiple of {TICK_S:g} s, got {seconds:g}")
    return ticks


def gathered(counts: Floats, ticks: int) -> Floats:
    """Sums of ``ticks`` ticks each: (rollouts, ticks) to (rollouts, intervals); a broken rest is dropped."""
    intervals = counts.shape[1] // ticks
    whole: Floats = counts[:, : intervals * ticks].reshape(counts.shape[0], intervals, ticks).sum(axis=2)
    return whole


def ratios(events: Floats, exposure: Floats) -> Floats:
    """``events / exposure``; NaN where there was no exposure, as a division of rates gives."""
    share: Floats = np.divide(events, exposure, out=np.full(events.shape, np.nan), where=exposure > 0)
    return share


def first_true(flags: NDArray[np.bool_], ticks: int) -> Ints:
    """Index of the tick that ends the first interval that is true; ``NEVER`` without one."""
    first = flags.argmax(axis=1)
    return np.where(flags.any(axis=1), (first + 1) * ticks - 1, NEVER).astype(np.int64)
