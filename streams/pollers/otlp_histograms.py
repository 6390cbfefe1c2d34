"""Histograms as OTLP carries them, and what they say at bucket edges. Pure.

Both kinds add up, and an earlier reading can be taken from a later one. An explicit histogram counts between
written edges. An exponential one counts between powers of ``2 ** 2 ** -scale``; a coarser scale has a subset
of the finer one's edges, so all are brought to :data:`GRID_SCALE`, and counts at its edges stay exact::

    scale 3    |   |   |   |   |   |   |   |      edges 9 % apart
    scale 2    |       |       |       |          edges 19 % apart: coarse, and flagged as such

References
----------
OpenTelemetry metrics data model: Histogram, ExponentialHistogram ("Producer/consumer expectations").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

GRID_SCALE = 3
"""Fine enough for a limit (edges 9 % apart), and nearly every producer keeps more than that: 160 buckets of
scale 3 span twenty powers of two."""


@dataclass(frozen=True, slots=True)
class Explicit:
    """``counts[i]`` observations in ``(edges[i-1], edges[i]]``; the last cell is beyond every edge. In ms."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]

    is_coarse = False

    @property
    def count(self) -> float:
        return sum(self.counts)

    def plus(self, other: Explicit) -> Explicit:
        """Both together; of different edges only the common ones can be known."""
        if self.edges != other.edges:
            mine, theirs = self._cumulative(), other._cumulative()
            common = {edge: mine[edge] + theirs[edge] for edge in self.edges if edge in theirs}
            return _explicit(common, self.count + other.count)
        added = tuple(one + two for one, two in zip(self.counts, other.counts, strict=True))
        return Explicit(self.edges, added)

    def minus(self, earlier: Explicit) -> Explicit | None:
        """What was observed since ``earlier``; ``None`` if that is no earlier state of this one."""
        if self.edges != earlier.edges:
            return None
        left = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return None if min(left) < 0 else Explicit(self.edges, left)

    def at_edges(self, limits: Iterable[float]) -> Mapping[float, float]:
        """Observations at or below every edge."""
        return self._cumulative()

    def _cumulative(self) -> dict[float, float]:
        return dict(zip(self.edges, accumulate(self.counts), strict=False))


def _explicit(cumulative: Mapping[float, float], count: float) -> Explicit:
    below = [0.0, *cumulative.values(), count]
    counts = tuple(after - before for before, after in pairwise(below))
    return Explicit(tuple(cumulative), counts)


@dataclass(frozen=True, slots=True)
class Exponential:
    """``buckets[i]`` observations in ``(base**i, base**(i+1)]`` of a unit of ``unit_ms``, ``zero`` at 0."""

    scale: int
    zero: float
    buckets: Mapping[int, float]
    unit_ms: float

    @property
    def count(self) -> float:
        return self.zero + sum(self.buckets.values())

    @property
    def is_coarse(self) -> bool:
        """Whether its edges are further apart than the grid's."""
        return self.scale < GRID_SCALE

    def plus(self, other: Exponential) -> Exponential:
        """Both together, at the coarser scale."""
        scale = min(self.scale, other.scale)
        added = dict(self.at_scale(scale).buckets)
        for index, count in other.at_scale(scale).buckets.items():
            added[index] = added.get(index, 0.0) + count
        return Exponential(scale, self.zero + other.zero, added, self.unit_ms)

    def minus(self, earlier: Exponential) -> Exponential | None:
        """What was observed since ``earlier``; ``None`` if that was no earlier state of this one."""
        left = self.plus(replace(earlier, zero=-earlier.zero, buckets=_negated(earlier.buckets)))
        kept = {index: count for index, count in left.buckets.items() if count}
        return None if left.zero < 0 or min(kept.values(), default=0) < 0 else replace(left, buckets=kept)

    def at_scale(self, scale: int) -> Exponential:
        """The same observations with edges further apart.

        >>> Exponential(1, 0, {-3: 1.0, -2: 2.0, 0: 4.0, 1: 8.0}, 1.0).at_scale(0).buckets
        {-2: 1.0, -1: 2.0, 0: 12.0}
        """
        if scale >= self.scale:
            return self
        merged: dict[int, float] = {}
        for index, count in self.buckets.items():
            coarse = index >> (self.scale - scale)  # rounds down, below 0 as well
            merged[coarse] = merged.get(coarse, 0.0) + count
        return Exponential(scale, self.zero, merged, self.unit_ms)

    def at_edges(self, limits: Iterable[float]) -> Mapping[float, float]:
        """Observations at or below the two edges around each of ``limits`` and every edge between buckets."""
        steps = 2.0**self.scale
        powers = set(self.buckets) | {index + 1 for index in self.buckets}
        for limit in limits:
            exact = math.log2(limit / self.unit_ms) * steps if limit > 0 else 0.0
            powers |= {math.floor(exact), math.ceil(exact)}
        counts: dict[float, float] = {}
        below, indices = self.zero, sorted(self.buckets)
        for power in sorted(powers):
            while indices and indices[0] < power:
                below += self.buckets[indices.pop(0)]
            counts[self.edge_ms(power)] = below
        return counts

    def edge_ms(self, power: int) -> float:
        """The upper edge of the bucket before ``power``; the same number at every scale that has it."""
        return float(2.0 ** (power / 2.0**self.scale)) * self.unit_ms


def _negated(buckets: Mapping[int, float]) -> dict[int, float]:
    return {index: -count for index, count in buckets.items()}


Histogram = Explicit | Exponential


def sum_of(one: Histogram, two: Histogram) -> Histogram | None:
    """Two histograms of one thing; ``None`` when they have no edges in common."""
    match one, two:
        case Explicit(), Explicit():
            return one.plus(two)
        case Exponential(), Exponential() if one.unit_ms == two.unit_ms:
            return one.plus(two)
        case _:
            return None


def since(now: Histogram, earlier: Histogram) -> Histogram | None:
    """What was observed between two readings; ``None`` when the second does not continue the first."""
    match now, earlier:
        case Explicit(), Explicit():
            return now.minus(earlier)
        case Exponential(), Exponential() if now.unit_ms == earlier.unit_ms:
            return now.minus(earlier)
        case _:
            return None
