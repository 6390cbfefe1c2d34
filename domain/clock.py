"""The only place that reads a wall clock. Everything else is told the time.

Times are seconds since the epoch (UTC) as ``float``; intervals are half-open ``[start, end)``.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Something that can be asked for the time."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. May step backwards when the machine's clock is set."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves when told to. For tests and replays.

    >>> clock = ManualClock(100.0)
    >>> clock.advance(2.5)
    >>> clock.now()
    102.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``."""
        self._now += seconds


def utc_text(epoch_s: float) -> str:
    """ISO 8601 in UTC with milliseconds, as events and tables show it.

    >>> utc_text(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    moment = datetime.fromtimestamp(round(epoch_s, 3), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def tick_floor(epoch_s: float, interval_s: float) -> float:
    """The tick boundary at or before ``epoch_s``: a multiple of ``interval_s`` since the epoch.

    >>> tick_floor(12.9, 5.0)
    10.0
    """
    return math.floor(epoch_s / interval_s + 1e-9) * interval_s
