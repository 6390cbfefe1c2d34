"""Agents that remember what they were given, and waits for what tests expect of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from domain.errors import RecordError
from streams.agent import Handled, Place
from streams.bus import Bus, Incoming, Outgoing
from streams.topics import CLOCK, COMMANDS, SCORES


class Notes:
    """Keeps every record; answers each with one score record holding the same value."""

    def __init__(
        self,
        name: str = "notes",
        topics: tuple[str, ...] = (COMMANDS.name, CLOCK.name),
        *,
        starts: Mapping[Place, int] | None = None,
        answers: bool = False,
    ) -> None:
        self.name = name
        self.topics = topics
        self.records: list[Incoming] = []
        self.owned: frozenset[int] = frozenset()
        self.recoveries = 0
        self._starts = starts or {}
        self._answers = answers

    async def assigned(self, partitions: frozenset[int], bus: Bus) -> Mapping[Place, int]:
        self.recoveries += 1
        self.owned = partitions
        return {place: offset for place, offset in self._starts.items() if place[1] in partitions}

    async def revoked(self, partitions: frozenset[int]) -> None:
        self.owned -= partitions

    async def handle(self, record: Incoming) -> Handled:
        self.records.append(record)
        if not self._answers:
            return []
        return [[Outgoing(topic=SCORES.name, partition=record.partition, value=record.value)]]

    def values(self) -> list[int]:
        return [int(record.value) for record in self.records]


class Picky(Notes):
    """Cannot read ``poison``, and has a defect that ``bug`` brings out."""

    async def handle(self, record: Incoming) -> Handled:
        if record.value == b"poison":
            raise RecordError("not a number: poison")
        if record.value == b"bug":
            raise ZeroDivisionError("a defect")
        return await super().handle(record)


async def until(condition: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


def numbers(count: int, *, topic: str = COMMANDS.name, partition: int = 0, start: int = 0) -> list[Outgoing]:
    """Records holding ``start``, ``start + 1``, …"""
    return [
        Outgoing(topic=topic, partition=partition, value=str(number).encode())
        for number in range(start, start + count)
    ]
