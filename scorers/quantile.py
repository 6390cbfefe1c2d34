"""Quantile limits as counts at bucket edges.

"p95 is at most 400 ms" is the claim "at most 5 % of requests are slower than 400 ms", and that is a count.
Where 400 is a bucket edge it is exact. Where it is not, the truth lies between two counts: those slower than
the next edge above (slower than 400 for certain: what may fail a gate) and those slower than the next edge
below (perhaps slower than 400: what a gate must keep in order to pass).

::

    edges      200        300   |      500
               ────┬──────┬─────┼──────┬───────▶ ms
                          │    400     │
    suspect               [─────────────────── slower than 300
    bad                                [────── slower than 500
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def surely_slower(limit: float, edges: Sequence[float], counts: Sequence[float], total: float) -> float:
    """Observations that are slower than ``limit`` for certain; 0 when no edge lies at or above it.

    ``edges`` ascend, ``counts`` are cumulative (at or below each edge), ``total`` is all observations.

    >>> surely_slower(400, (300, 500), (90, 95), 100)
    5
    """
    above = bisect_left(edges, limit)
    return total - counts[above] if above < len(edges) else 0.0


def maybe_slower(limit: float, edges: Sequence[float], counts: Sequence[float], total: float) -> float:
    """Observations that may be slower than ``limit``; all of them when no edge lies at or below it.

    >>> maybe_slower(400, (300, 500), (90, 95), 100)
    10
    """
    below = bisect_right(edges, limit) - 1
    return total - counts[below] if below >= 0 else total


def estimate(quantile: float, edges: Sequence[float], counts: Sequence[float], total: float) -> float | None:
    """The quantile read off the buckets by straight lines, for people; ``None`` without observations.

    Above the last edge nothing is known but that it is above: the last edge is returned.

    >>> estimate(0.5, (100, 200), (25, 75), 100)
    150.0
    """
    if total <= 0 or not edges:
        return None
    wanted, low, seen = quantile * total, 0.0, 0.0
    for edge, count in zip(edges, counts, strict=True):
        if count >= wanted:
            return low + (edge - low) * (wanted - seen) / (count - seen) if count > seen else edge
        low, seen = edge, count
    return edges[-1]
