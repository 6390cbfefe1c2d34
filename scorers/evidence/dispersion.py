"""How much more events cluster than independent requests would: what was learnt, or what this rollout shows.

Where nothing was learnt, every tick's events count as one until enough of them were seen: first the split of
stable between its halves, which shared bursts leave alone, or else stable's own ups and downs, which they do
not (and so err on the safe side).
"""

from __future__ import annotations

from math import sqrt

from scorers.evidence.compiled import compiled
from scorers.evidence.kernel import dispersion_of
from scorers.evidence.layout import SERIES_BAD, SERIES_N, SPLIT_SPREAD, SPLIT_SQUARES, SPLITS
from scorers.evidence.types import Bools, Floats

ENOUGH_TICKS = 10
"""Ticks with events before the live dispersion means anything."""
CAUTION = 1.0
"""Standard errors that are added to it. Two cost a tenth of the delay and prevented no false alarm tried."""


@compiled
def _live_dispersion(row: Floats, at: int, most: float) -> float:
    """An upper bound of the dispersion seen so far, at most ``most``."""
    ticks, spread = row[at + SPLITS], row[at + SPLIT_SPREAD]
    if ticks < ENOUGH_TICKS or spread <= 0.0:
        return most
    seen = max(1.0, row[at + SPLIT_SQUARES] / spread)
    return float(min(most, seen * (1.0 + CAUTION * sqrt(2.0 / ticks))))


@compiled
def clusterings(memory: Floats, at: int, is_told: Bools, out: Floats) -> None:
    """How many events come together, for rows told by live data: as far as that is beyond chance, else 1.

    A lower bound, unlike the dispersion of the split: doubt about it would make every proof wait.
    """
    for i in range(memory.shape[0]):
        ticks, spread = memory[i, at + SPLITS], memory[i, at + SPLIT_SPREAD]
        if is_told[i] and ticks >= ENOUGH_TICKS and spread > 0.0:
            seen = memory[i, at + SPLIT_SQUARES] / spread
            out[i] = max(out[i], seen / (1.0 + 2.0 * sqrt(2.0 / ticks)))


@compiled
def _watch(row: Floats, at: int, half: Floats, base_bad: float, base_n: float) -> None:
    """Note how this tick's stable events were split, or how far they were from stable's mean so far."""
    if half[1] >= 0.0:
        rate, tried, seen = base_bad / base_n, half[1], half[0]
        spread = base_bad * tried / base_n * (1.0 - tried / base_n)
    else:
        rate, tried, seen = 0.0, base_n, base_bad
        if row[at + SERIES_N] > 0.0:
            rate = min(1.0, row[at + SERIES_BAD] / row[at + SERIES_N])
        spread = tried * rate * (1.0 - rate)
    if spread > 0.0:
        row[at + SPLITS] += 1.0 if base_bad > 0.0 else 0.0
        row[at + SPLIT_SQUARES] += (seen - rate * tried) ** 2
        row[at + SPLIT_SPREAD] += spread
    row[at + SERIES_BAD] += base_bad
    row[at + SERIES_N] += base_n


@compiled
def dispersions(
    memory: Floats,
    at: int,
    counts: Floats,
    halves: Floats,
    bins: Floats,
    is_told: Bools,
    most: float,
    out: Floats,
) -> None:
    """Of every row's events in this tick; rows told by live data also note what they see of stable."""
    for i in range(memory.shape[0]):
        events = counts[i, 0] + counts[i, 2]
        if is_told[i]:
            bound = _live_dispersion(memory[i], at, most)
            out[i] = max(1.0, min(bound, events))
            if counts[i, 3] > 0.0:
                _watch(memory[i], at, halves[i], counts[i, 2], counts[i, 3])
        else:
            out[i] = dispersion_of(events, bins[i])
