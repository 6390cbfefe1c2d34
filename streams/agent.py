"""What an agent is: a fold over some topics, told when to recover, when to forget and what to handle.

The loop that keeps these promises is `streams/runner.py`; implementations are in `streams/agents/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from streams.bus import Bus, Incoming, Outgoing

Place = tuple[str, int]
"""Topic and partition."""

Handled = Sequence[Sequence[Outgoing]]
"""Batches of results. Each is acknowledged by the broker before the next is sent."""


class Agent(Protocol):
    """A fold over some topics. One record at a time, in order within each partition."""

    name: str
    topics: tuple[str, ...]

    async def assigned(self, partitions: frozenset[int], bus: Bus) -> Mapping[Place, int]:
        """Recover the state of ``partitions``; called before any record of them.

        Returns the next offset to handle for each (topic, partition) the agent knows of; for the others the
        consumer group's committed offset counts. Called again after `revoked` when it raises.
        """
        ...

    async def revoked(self, partitions: frozenset[int]) -> None:
        """Forget ``partitions``. Nothing of them may be written from now on."""
        ...

    async def handle(self, record: Incoming) -> Handled:
        """Fold one record in.

        Raises
        ------
        RecordError
            The record cannot be read; state is unchanged.
        StoreUnavailable
            Try again with the same record; state is unchanged.
        """
        ...


@runtime_checkable
class Ticking(Protocol):
    """An agent that also wants the time."""

    interval_s: float

    async def tick(self, now: float) -> Handled:
        """Called at multiples of ``interval_s`` since the epoch, never while a record is being handled."""
        ...
