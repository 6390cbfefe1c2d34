"""What the users of the demo saw: one row per request, written by ``load.py``.

A row is a JSON array, ``[due, sent, ended, status, version, preview]``, times in seconds since the epoch. A
reader may come while the writer is still at work or after it was killed, so a last line without its end is
left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

RESET = 0
"""Status of a request whose connection was refused or broke."""

TIMED_OUT = -1
"""Status of a request that had no answer in time."""


class Request(NamedTuple):
    """One request as its user saw it."""

    due: float
    """When the schedule wanted it sent."""
    sent: float
    ended: float
    status: int
    """HTTP status, :data:`RESET` or :data:`TIMED_OUT`."""
    version: str
    """Who answered, or whom the proxy had chosen; empty when nobody did."""
    preview: bool
    """Sent with the preview header."""

    @property
    def latency_ms(self) -> float:
        return (self.ended - self.sent) * 1000

    @property
    def lag_ms(self) -> float:
        """How late the generator was. Large values mean that it, not the service, was the bottleneck."""
        return (self.sent - self.due) * 1000

    @property
    def failed(self) -> bool:
        return self.status <= 0 or self.status >= 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Totals of some requests; latencies of those that were answered."""

    requests: int
    failed: int
    resets: int
    timeouts: int
    by_version: dict[str, int]
    failed_by_version: dict[str, int]
    seconds: float
    """From the first to the last moment a request was due."""
    rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    lag_p99_ms: float


def line_of(request: Request) -> str:
    """The row as text, to a tenth of a millisecond."""
    due, sent, ended, status, version, preview = request
    return f'[{due:.4f},{sent:.4f},{ended:.4f},{status},"{version}",{"true" if preview else "false"}]'


def read_requests(path: Path) -> Iterator[Request]:
    """The rows so far, in the order in which the requests ended."""
    decoder = msgspec.json.Decoder(Request)
    with path.open("rb") as rows:
        for row in rows:
            if row.endswith(b"\n"):
                yield decoder.decode(row)


def summarise(requests: Iterable[Request]) -> Summary:
    """Add up. No requests give zeros."""
    rows = list(requests)
    due = sorted(row.due for row in rows)
    seconds = due[-1] - due[0] if rows else 0.0
    latencies = sorted(row.latency_ms for row in rows if row.status > 0)
    return Summary(
        requests=len(rows),
        failed=sum(row.failed for row in rows),
        resets=sum(row.status == RESET for row in rows),
        timeouts=sum(row.status == TIMED_OUT for row in rows),
        by_version=dict(Counter(row.version for row in rows)),
        failed_by_version=dict(Counter(row.version for row in rows if row.failed)),
        seconds=round(seconds, 4),
        rps=round((len(rows) - 1) / seconds, 3) if seconds else 0.0,
        p50_ms=percentile(latencies, 0.50),
        p95_ms=percentile(latencies, 0.95),
        p99_ms=percentile(latencies, 0.99),
        lag_p99_ms=percentile(sorted(row.lag_ms for row in rows), 0.99),
    )


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value with at least ``share`` of ``ordered`` at or below it; 0 when there is none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    if not ordered:
        return 0.0
    at_or_below = -(-len(ordered) * share // 1)
    return round(ordered[max(int(at_or_below) - 1, 0)], 3)
