"""The log in memory: the `Bus` port kept to the letter, for agents without a broker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

from streams.bus import BARRIER_HEADER, BARRIER_KEY, Incoming, Outgoing
from streams.topics import partition_of


class MemoryBus:
    """Topics as lists. Offsets are contiguous; barriers take an offset and are skipped by readers."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self._logs: dict[tuple[str, int], list[Incoming]] = defaultdict(list)

    async def send(self, records: Sequence[Outgoing]) -> None:
        for record in records:
            self.append(record)

    def append(self, record: Outgoing) -> Incoming:
        """Write one record; how it will be read."""
        partition = record.partition
        if partition is None:
            assert record.key is not None, "checked by Outgoing"
            partition = partition_of(record.key, self.partitions)
        log = self._logs[record.topic, partition]
        written = Incoming(
            topic=record.topic,
            partition=partition,
            offset=len(log),
            key=record.key,
            value=record.value or b"",
            headers=dict(record.headers),
            timestamp=0.0,
        )
        log.append(written)
        return written

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[Incoming, None]:
        for record in list(self._logs[topic, partition][start:stop]):
            if not record.is_barrier:
                yield record

    async def read_to_barrier(
        self, topic: str, partition: int, from_offset: int
    ) -> AsyncGenerator[Incoming, None]:
        stop = await self.barrier(topic, partition)
        async for record in self.read(topic, partition, from_offset, stop):
            yield record

    async def barrier(self, topic: str, partition: int) -> int:
        mark = Outgoing(
            topic=topic, partition=partition, key=BARRIER_KEY, value=b"", headers={BARRIER_HEADER: b"1"}
        )
        return self.append(mark).offset

    def records(self, topic: str, partition: int = 0, start: int = 0) -> list[Incoming]:
        """What a reader of one partition sees from ``start`` on."""
        return [each for each in self._logs[topic, partition][start:] if not each.is_barrier]
