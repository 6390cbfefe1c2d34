"""The record agent: what the log says goes to the database and to the live state.

Records are put into the one batching writer and count as handled at once; how far the database has them is
stored in the database itself, after the rows. A restart reads on from there, and rows that are there already
change nothing, so every record arrives, whatever died when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec

from domain.records import ActionRecord, EvaluationFrame, IncidentRecord, RolloutRecord
from store.writer import BatchWriter
from streams.agent import Handled, Place
from streams.bus import Bus, Incoming
from streams.codec import decode
from streams.topics import ACTIONS, EVALUATIONS, INCIDENTS, ROLLOUTS

FLUSH_S = 0.25
"""How often the writer is flushed and positions are stored."""

Stored = EvaluationFrame | ActionRecord | IncidentRecord | RolloutRecord
_KINDS: dict[str, type[Stored]] = {
    EVALUATIONS.name: EvaluationFrame,
    ACTIONS.name: ActionRecord,
    INCIDENTS.name: IncidentRecord,
    ROLLOUTS.name: RolloutRecord,
}


class Facts(Protocol):
    """Single facts about the installation. Methods may block and raise ``StoreUnavailable``."""

    def fact(self, key: str) -> str | None: ...

    def set_fact(self, key: str, value: str) -> None: ...


class Live(Protocol):
    """The live state: may be lost at any time, so its methods raise nothing."""

    async def put(self, record: RolloutRecord) -> bool: ...


class Learns(Protocol):
    """Whoever learns from finished rollouts."""

    def wake(self) -> None:
        """Something has ended and is stored. Must return at once and raise nothing."""
        ...


class RecordAgent:
    """Remembers the partitions it owns."""

    name = "record"
    topics: tuple[str, ...] = tuple(_KINDS)
    interval_s = FLUSH_S

    def __init__(
        self,
        *,
        writer: BatchWriter,
        facts: Facts,
        live: Live | None,
        broker_epoch: str,
        learner: Learns | None = None,
    ) -> None:
        self._writer = writer
        self._facts = facts
        self._live = live
        self._broker_epoch = broker_epoch
        self._learner = learner
        self._has_ended = False
        self._positions: dict[int, dict[str, int]] = {}
        self._moved: set[int] = set()

    async def assigned(self, partitions: frozenset[int], bus: Bus) -> Mapping[Place, int]:
        """Go on where the database ends; offsets of another broker's log mean nothing."""
        starts: dict[Place, int] = {}
        for number in partitions:
            stored = await asyncio.to_thread(self._facts.fact, self._key(number))
            positions = msgspec.json.decode(stored, type=dict[str, int]) if stored else {}
            self._positions[number] = positions
            # Not the group's commits: those run ahead of the database.
            starts |= {(topic, number): positions.get(topic, 0) for topic in self.topics}
        return starts

    async def revoked(self, partitions: frozenset[int]) -> None:
        try:
            await self.tick(0.0)
        finally:
            for number in partitions:
                self._positions.pop(number, None)
            self._moved.clear()

    async def handle(self, record: Incoming) -> Handled:
        """Queue one record for the database."""
        found = decode(_KINDS[record.topic], record.value)
        if isinstance(found, RolloutRecord) and self._live is not None:
            await self._live.put(found)
        # An incident of no rollout (a dead letter, say) is for whoever reads the topic.
        if not isinstance(found, IncidentRecord) or found.incident.rollout_id:
            await self._writer.put(found)
        if isinstance(found, EvaluationFrame):
            self._has_ended |= any(each.phase.is_final for each in found.evaluations)
        self._positions[record.partition][record.topic] = record.offset + 1
        self._moved.add(record.partition)
        return []

    async def tick(self, now: float) -> Handled:
        """Have everything stored, then store how far that is."""
        moved, self._moved = self._moved, set()
        if not moved:
            return []
        positions = {number: dict(self._positions[number]) for number in moved}
        try:
            await self._writer.flush()
            for number, position in positions.items():
                value = msgspec.json.encode(position).decode()
                await asyncio.to_thread(self._facts.set_fact, self._key(number), value)
        except BaseException:
            self._moved |= moved
            raise
        if self._has_ended and self._learner is not None:
            self._has_ended = False
            self._learner.wake()
        return []

    def _key(self, partition: int) -> str:
        return f"positions/{self._broker_epoch}/{partition}"
