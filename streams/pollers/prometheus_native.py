"""Native histograms: from sparse exponential buckets to cumulative counts at fixed edges. Pure.

Bucket boundaries lie on a grid of powers of ``2 ** 2 ** -schema``, each schema's within the next one's. Only
populated buckets are sent, so the count at a boundary is the sum of all buckets below it, populated or not.
To be able to subtract samples, all are read at the boundaries of one schema, :data:`SCHEMA`, or of their own
where that is coarser.

References
----------
Prometheus documentation, "Native histograms": schema, bucket boundaries, zero bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from streams.pollers.prometheus_answers import NativeHistogram

SCHEMA = 3
"""Eight buckets per doubling: what client libraries start from. Finer ones are read at these edges too."""
_COARSEST = -4


def counts_at(histogram: NativeHistogram, limits: Iterable[float]) -> tuple[float, dict[float, float]]:
    """All observations, and how many were at or below the boundaries around each of ``limits``.

    Limits and boundaries are in the histogram's own unit. A boundary that cuts through a populated bucket is
    left out: the count there is not known.

    >>> one_to_two = NativeHistogram(count="7", buckets=[(0, "0.5", "1", "4"), (0, "1", "2", "3")])
    >>> counts_at(one_to_two, [1.0, 1.5])
    (7.0, {1.0: 4.0, 2.0: 7.0})
    """
    buckets = [(float(low), float(high), float(count)) for _, low, high, count in histogram.buckets]
    schema = min(SCHEMA, _schema_of(buckets))
    edges = {edge for limit in limits if limit > 0 for edge in _around(limit, schema)}
    counts = {edge: _count_below(edge, buckets) for edge in sorted(edges)}
    known = {edge: count for edge, count in counts.items() if count is not None}
    return float(histogram.count), known


def _schema_of(buckets: Iterable[tuple[float, float, float]]) -> int:
    """The schema whose buckets these are: the ratio of a bucket's boundaries tells. Finest when none does."""
    for low, high, _ in buckets:
        if 0 < low < high < math.inf:
            return max(_COARSEST, round(-math.log2(math.log2(high / low))))
    return SCHEMA


def _around(limit: float, schema: int) -> tuple[float, float]:
    """The boundaries at or next to ``limit`` on both sides."""
    steps = math.log2(limit) * 2.0**schema
    nearest = round(steps)
    if abs(steps - nearest) < 1e-6:
        return limit, limit
    return _boundary(math.floor(steps), schema), _boundary(math.ceil(steps), schema)


def _boundary(index: int, schema: int) -> float:
    return float(2.0 ** (index * 2.0**-schema))


def _count_below(edge: float, buckets: Iterable[tuple[float, float, float]]) -> float | None:
    below = 0.0
    for low, high, count in buckets:
        if high <= edge * (1 + 1e-9):
            below += count
        elif low < edge * (1 - 1e-9):
            return None
    return below
