"""Records and the port they travel through: what an agent sees of the log.

Nothing here knows a broker library. `streams/consume.py` implements the port on Kafka.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domain.errors import SentraError

BARRIER_HEADER = "x-barrier"
"""A record with this header marks a place in the log and means nothing else; every reader skips it."""

BARRIER_KEY = b"barrier"
"""One key for all barriers, so that compaction keeps at most one of them."""


class BrokerUnavailable(SentraError):
    """The broker did not answer or lost the connection; another try may work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One record read from the log. ``timestamp`` is seconds since the epoch, as the producer wrote it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes]
    timestamp: float

    @property
    def address(self) -> str:
        """Where it is, for people: ``topic[partition]@offset``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def is_barrier(self) -> bool:
        return BARRIER_HEADER in self.headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One record to write.

    It goes to ``partition``, or where Kafka's default partitioner puts ``key``; one of them must be
    given, for a record in a random partition is of no use to anyone. ``value=None`` deletes the key from a
    compacted topic.
    """

    topic: str
    key: bytes | None = None
    value: bytes | None
    partition: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.key is None and self.partition is None:
            raise ValueError(f"a record for {self.topic} needs a key or a partition, got neither")


class Bus(Protocol):
    """The log, as far as an agent needs it."""

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Write ``records`` and return when the broker has acknowledged all of them.

        Records for one partition keep their order.

        Raises
        ------
        BrokerUnavailable
            Some may have been written; sending all of them again is right.
        """
        ...

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[Incoming, None]:
        """The records with ``start <= offset < stop`` that still exist, in order, without barriers."""
        ...

    def read_to_barrier(self, topic: str, partition: int, from_offset: int) -> AsyncGenerator[Incoming, None]:
        """Everything from ``from_offset`` that was acknowledged before this call, in order, then stop."""
        ...

    async def barrier(self, topic: str, partition: int) -> int:
        """Mark the present end of a partition; returns the offset of the mark."""
        ...
