"""How well one version of the demo service does its work: latency, failures, log levels. Pure, seeded draws.

Every request takes the same number of draws whatever the fault, so two runs with one seed stay comparable
after a fault is injected into one of them.
"""

from __future__ import annotations

import math
from random import Random
from typing import Annotated, NamedTuple

import msgspec

LINES_PER_REQUEST = 3
"""With one line per request the log gate is the slowest of all at demo traffic; three end that."""

MEDIAN_MS = 20.0
SIGMA = 0.5
"""Of the lognormal: p95 45 ms, p99 64 ms, one request in a billion above 400 ms."""

SLOW_BY_MS = 500.0
"""What a slow request takes longer: beyond the demo's limit of 400 ms, and short of the severe one of 800."""

_Z95 = 1.6448536269514722
HEALTHY_P95_MS = MEDIAN_MS * math.exp(SIGMA * _Z95)

Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, msgspec.Meta(gt=0.0, le=60_000.0)]


Burst = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wrong with a version; the default is nothing."""

    error_ratio: Ratio = 0.0
    """Share of the requests that end in 500."""

    evenly: bool = False
    """Failures at even distances instead of drawn: exactly that share, however few requests."""

    burst: Burst = 1
    """Failures come in rows of so many; their share stays the same. Not for those at even distances."""

    unlogged_ratio: Ratio = 0.0
    """Share of the failures that write no line at level error."""

    slow_ratio: Ratio = 0.0
    """Share of the requests that take :data:`SLOW_BY_MS` longer."""

    latency_p95_ms: Milliseconds | None = None
    """Stretch all latencies so that their 95th percentile is this."""

    log_error_ratio: Ratio = 0.0
    """Share of log lines at level error, beside the one that a failed request writes."""


HEALTHY = Fault()


class Answer(NamedTuple):
    """What happens to one request."""

    latency_ms: float
    failed: bool
    bad_lines: tuple[bool, ...]
    """Per log line, in order: whether its level is error."""


class Behaviour:
    """A stream of answers; ``fault`` may be replaced at any time."""

    def __init__(self, seed: int, version: str, fault: Fault = HEALTHY) -> None:
        self._random = Random(f"{seed}/{version}")
        self._owed = 0.0
        self._in_row = 0
        self.fault = fault

    def next_answer(self) -> Answer:
        """The answer to the next request."""
        fault, uniform = self.fault, self._random.random
        latency_ms = MEDIAN_MS * math.exp(SIGMA * self._random.gauss(0.0, 1.0)) * _stretch(fault)
        drawn = uniform()  # drawn in any case, so that the following draws stay comparable
        failed = self._is_owed(fault.error_ratio) if fault.evenly else self._fails(drawn, fault)
        bad = [uniform() < fault.log_error_ratio for _ in range(LINES_PER_REQUEST)]
        is_logged = uniform() >= fault.unlogged_ratio
        bad[-1] = bad[-1] or (failed and is_logged)
        is_slow = uniform() < fault.slow_ratio
        return Answer(latency_ms + SLOW_BY_MS * is_slow, failed, tuple(bad))

    def _is_owed(self, ratio: float) -> bool:
        self._owed += ratio
        if self._owed < 1.0:
            return False
        self._owed -= 1.0
        return True

    def _fails(self, drawn: float, fault: Fault) -> bool:
        if self._in_row == 0 and drawn < _row_begins(fault.error_ratio, fault.burst):
            self._in_row = fault.burst
        if self._in_row == 0:
            return False
        self._in_row -= 1
        return True


def _row_begins(ratio: float, burst: int) -> float:
    """The chance that a row of failures begins with a request that follows none, so that ``ratio`` fail."""
    return ratio / (ratio + burst * (1.0 - ratio))


def _stretch(fault: Fault) -> float:
    return 1.0 if fault.latency_p95_ms is None else fault.latency_p95_ms / HEALTHY_P95_MS
