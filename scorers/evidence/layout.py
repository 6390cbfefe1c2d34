"""What a gate remembers: a fixed number of floats, in this order ::

    marks | broken limit | rate ratios | series 0 | series 1 | ...
    series: what is counted, its dispersion so far, and one filter per null

The order is part of the kernel version: floats written by one version mean nothing to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from scorers.evidence import bounds, limits
from scorers.evidence.kernel import WIDTH, begin
from scorers.evidence.null import Null
from scorers.evidence.types import Floats

# Marks: single numbers about the rollout, the step, and the gate.
TICKS = 0
"""Ticks that counted as evidence."""
LAST_END = 1
"""End of the last tick seen: a later one must not begin before it."""
STEP = 2
"""Step of the last tick that counted, -1 before the first."""
STEP_TICKS = 3
DAMAGED = 4
"""Ticks of the step, and those among them without whole numbers for both arms."""
SECONDS = 5
"""Length of the step's ticks that counted."""
BAD_ALL = 6
N_ALL = 7
"""The canary in this step: events that may break the limit, and exposure."""
BAD_WARM = 8
N_WARM = 9
"""The same since the step's warm-up ended."""
CLAIM = 10
"""What passing proves in this step, as a multiple of the limit; 0 before it is chosen."""
OVER_RUN = 11
"""Ticks in a row whose window was over the limit."""
PEAK = 12
"""Largest evidence against the canary so far."""
SPENT = 13
"""Prior weight of the regressions that may have begun so far."""
LATCHED = 14
"""1 once the gate was severe."""
STABLE_KEPT = 15
"""1 while stable's last window with traffic was inside the limit (or it never had any), else 0."""
TRAFFIC_N = 16
TRAFFIC_S = 17
"""Exposure of both arms, and the seconds it took, before any claim is made."""
STABLE_BAD = 18
STABLE_N = 19
"""Stable's events and exposure so far."""
GUARD = 20
"""1 once stable's halves differed more than was learnt."""
WAS_MARGIN = 21
"""1 while the last tick that counted lay in its step's warm-up margin."""
CANARY_BAD = 22
"""The canary's events in this step that break the limit for certain."""
STABLE_STEP_BAD = 23
STABLE_STEP_N = 24
"""Stable's events and exposure in this step."""
HOPE = 25
"""Fraction of the claim at which a healthy canary's rate is expected."""
MARKS = 26

# Per series.
EDGE = 0
"""The bucket edge (ms) beyond which events are counted; 0 before it is chosen, or for plain counts."""
SPLITS = 1
SPLIT_SQUARES = 2
SPLIT_SPREAD = 3
"""Ticks with events, their squared deviations, and what these would be for independent requests."""
SERIES_BAD = 4
SERIES_N = 5
"""Stable's events and exposure so far."""
SERIES_MARKS = 6

SERIES_OF_HISTOGRAM = 5
"""Edges at which a histogram is compared: nearest to stable's p50, p75, p90, p95 and p99."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are, for gates with this many series and these nulls."""

    series: int
    nulls: tuple[Null, ...]
    guards: bool = False
    """Nulls 1 and 2 hold stable's halves against each other, both ways; 3 and on are the fall-back."""

    @property
    def limit_at(self) -> int:
        return MARKS

    @property
    def ratios_at(self) -> int:
        return MARKS + limits.OVER

    @property
    def series_at(self) -> int:
        return MARKS + limits.OVER + bounds.GRID

    @property
    def series_floats(self) -> int:
        return SERIES_MARKS + WIDTH * sum(null.points for null in self.nulls)

    @property
    def floats(self) -> int:
        """Doubles in all."""
        return self.series_at + self.series * self.series_floats

    def start_of(self, series: int) -> int:
        """Where a series begins."""
        return self.series_at + series * self.series_floats

    def filter_at(self, series: int, null: int) -> int:
        """Where a filter's beliefs begin."""
        before = sum(each.points for each in self.nulls[:null])
        return self.start_of(series) + SERIES_MARKS + WIDTH * before


@lru_cache(maxsize=256)
def layout_of(series: int, nulls: tuple[Null, ...], guards: bool = False) -> Layout:
    """One layout object per kind, so that rows can be grouped by it."""
    return Layout(series, nulls, guards)


@lru_cache(maxsize=256)
def fresh(layout: Layout) -> bytes:
    """What a gate remembers before its first tick."""
    row: Floats = np.zeros(layout.floats)
    row[STEP] = -1.0
    row[STABLE_KEPT] = 1.0
    row[WAS_MARGIN] = 1.0
    for series in range(layout.series):
        for index, null in enumerate(layout.nulls):
            begin(row, layout.filter_at(series, index), null.start)
    return row.tobytes()
