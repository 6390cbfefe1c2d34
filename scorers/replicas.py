"""The replicas of an arm, added up to the arm and split in two halves.

The halves of stable are compared with each other: that is how far apart healthy replicas are. A replica's
half is one bit of a digest of its name. It is the first bit that leaves neither half empty, chosen at the
first tick that brings two replicas of the arm, and kept::

    replica        digest     bit 0   bit 1
    checkout-7f    … 0 1 0      0       1
    checkout-b2    … 1 0 0      0       0      bit 0 does not tell them apart, bit 1 does

So nobody changes sides while a rollout is watched, whoever comes, goes or misses a reading. Halves that are
evened out tick by tick would swap replicas: what lastingly differs between them would average out, and they
would look more alike than they are. The parity alone would never swap either, but it leaves one half empty
for every second pair and every fourth trio. The price: halves need not be equally large, which is why each
brings its own exposure; and the next owner of a rollout chooses again, from the names it finds. That is bit 0
for nearly every arm of more than a few replicas.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache, reduce
from hashlib import sha256
from operator import or_

from domain.records import SignalInput
from domain.signal import Quality

_DIGEST_BYTES = 8
_FIRST, _PARTIAL = int(Quality.FIRST), int(Quality.PARTIAL)

Half = tuple[float, float, tuple[float, ...]]
"""Events, exposure and counts of a first half: the last fields of a :class:`SignalInput`."""

UNSPLIT: Half = (-1.0, -1.0, ())


def split_bit(names: Collection[str]) -> int | None:
    """The lowest bit of the digests at which ``names`` differ; ``None`` with fewer than two names.

    >>> split_bit(["checkout-0"]), split_bit(["checkout-0", "checkout-1"])
    (None, 0)
    """
    digests = [_digest(name) for name in names]
    differing = reduce(or_, (digest ^ digests[0] for digest in digests), 0)
    return (differing & -differing).bit_length() - 1 if differing else None


def is_first(replica: str, bit: int) -> bool:
    """Whether a replica belongs to the first half of its arm."""
    return not _digest(replica) >> bit & 1


def arm_of(parts: Sequence[tuple[str, SignalInput]], bit: int | None) -> SignalInput:
    """The arm whose replicas counted ``parts`` (by name, in order of names) up to one end.

    What holds of a sum of endpoints in :func:`streams.pollers.counters.add_up` holds here: a replica read for
    the first time adds nothing and makes the arm partial, unless all were. The arm is split when both halves
    have a replica that counted.
    """
    counted = [part for part in parts if not part[1].quality & _FIRST] or parts
    inputs = [each for _, each in counted]
    edges = _shared_edges(inputs)
    first = [] if bit is None else [each for name, each in counted if is_first(name, bit)]
    events, exposure, counts = _sums(inputs, edges)
    half = _sums(first, edges) if 0 < len(first) < len(inputs) else UNSPLIT
    return SignalInput(
        signal=inputs[0].signal,
        arm=inputs[0].arm,
        start=min(each.start for each in inputs),
        events=events,
        exposure=exposure,
        edges=edges,
        counts=counts,
        age_s=max(each.age_s for each in inputs),
        quality=reduce(or_, (each.quality for each in inputs), _PARTIAL if len(inputs) < len(parts) else 0),
        half_events=half[0],
        half_exposure=half[1],
        half_counts=half[2],
        end=max(each.end for each in inputs),
    )


def add_halves(first: SignalInput, second: SignalInput) -> Half:
    """The half of two increments of one arm with the same edges; unsplit unless both are split."""
    if first.half_exposure < 0 or second.half_exposure < 0:
        return UNSPLIT
    return (
        first.half_events + second.half_events,
        first.half_exposure + second.half_exposure,
        tuple(one + other for one, other in zip(first.half_counts, second.half_counts, strict=True)),
    )


@lru_cache(maxsize=65_536)
def _digest(name: str) -> int:
    """SHA-256, because cheaper sums are linear: names that differ in one digit could all share a bit."""
    return int.from_bytes(sha256(name.encode()).digest()[-_DIGEST_BYTES:])


def _sums(inputs: Sequence[SignalInput], edges: tuple[float, ...]) -> Half:
    """Events, exposure and counts at ``edges``, added in order: ``sum`` rounds by Python's version."""
    events = exposure = 0.0
    counts = [0.0] * len(edges)
    for each in inputs:
        events += each.events
        exposure += each.exposure
        at = dict(zip(each.edges, each.counts, strict=True))
        for index, edge in enumerate(edges):
            counts[index] += at.get(edge, 0.0)
    return events, exposure, tuple(counts)


def _shared_edges(inputs: Sequence[SignalInput]) -> tuple[float, ...]:
    """The edges of every replica. Cumulative counts add up at these; at others somebody's count is unknown.

    A replica that observed nothing has 0 at every edge, whether it shows the edge or not.
    """
    edges = {each.edges for each in inputs if each.exposure > 0} or {each.edges for each in inputs}
    if len(edges) == 1:
        return edges.pop()
    return tuple(sorted(set[float].intersection(*map(set, edges))))
