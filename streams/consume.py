"""Reading the log without a consumer group: for the API, the CLI, pollers, recovery and tests.

Readers are assigned their partitions by hand, so they disturb nobody and commit nothing. All of them skip
barrier records. `KafkaBus` puts readers and a producer together behind the `Bus` port of `streams/bus.py`.

A topic's end is not what the broker says it is (the embedded one answers "latest" with the start of the last
batch plus one). Unless the settings vouch for it, the end is found by writing a barrier record: the
acknowledged offset of the barrier is, by construction, past everything acknowledged before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.bus import BrokerUnavailable, Incoming
from streams.publish import Publisher, translated
from streams.settings import StreamSettings

POLL_S = 0.5
"""How long one poll waits for records before the reader looks at its position again."""


async def follow(
    settings: StreamSettings, topics: Sequence[str], *, from_beginning: bool
) -> AsyncGenerator[Incoming, None]:
    """Every record of ``topics``, all partitions, as it arrives; ends only when the caller closes it.

    With ``from_beginning=False`` the first record is the first one acknowledged after the first ``anext``
    has started. Order holds within a partition.
    """
    async with _reader(settings) as consumer:
        places = await _places(settings, consumer, topics)
        consumer.assign(places)
        starts = (
            await _beginnings(consumer, places) if from_beginning else await ends(settings, consumer, places)
        )
        for place, offset in starts.items():
            consumer.seek(place, offset)
        while True:
            for record in await _poll(settings, consumer):
                if not record.is_barrier:
                    yield record


async def read_range(
    settings: StreamSettings, topic: str, partition: int, start: int, stop: int
) -> AsyncGenerator[Incoming, None]:
    """The records with ``start <= offset < stop`` that still exist, in order.

    ``stop`` must not lie beyond the topic's end: the reader waits for records that were promised.
    """
    if start >= stop:
        return
    place = TopicPartition(settings.wire_name(topic), partition)
    async with _reader(settings) as consumer:
        async for record in _read_until(settings, consumer, {place: start}, {place: stop}):
            yield record


async def read_to_barrier(
    settings: StreamSettings, topic: str, from_offsets: Mapping[int, int] | None = None
) -> AsyncGenerator[Incoming, None]:
    """Everything in ``topic`` that was acknowledged before this call, then stop.

    ``from_offsets`` maps the partitions to read to their first offset; without it, all of them are read
    from the beginning. Order holds within a partition.
    """
    async with _reader(settings) as consumer:
        if from_offsets is None:
            places = await _places(settings, consumer, [topic])
            consumer.assign(places)
            starts = await _beginnings(consumer, places)
        else:
            wire = settings.wire_name(topic)
            starts = {TopicPartition(wire, partition): offset for partition, offset in from_offsets.items()}
        stops = await ends(settings, consumer, list(starts))
        async for record in _read_until(settings, consumer, starts, stops):
            yield record


async def read_available(
    settings: StreamSettings, positions: Mapping[tuple[str, int], int], *, wait_s: float
) -> list[Incoming]:
    """What can be had at once from ``{(topic, partition): offset}``, at most one poll's worth.

    The look past one's own position: records here were acknowledged but perhaps never delivered.
    """
    starts = {TopicPartition(settings.wire_name(t), p): offset for (t, p), offset in positions.items()}
    async with _reader(settings) as consumer:
        await _seek(consumer, starts)
        deadline = asyncio.get_running_loop().time() + wait_s
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            if records := await _poll(settings, consumer, left):
                return records
    return []


async def committed_offsets(
    settings: StreamSettings, group: str, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Where a consumer group (by its name on the broker) stands; places without a commit are left out."""
    if not places:
        return {}
    admin = AIOKafkaAdminClient(**settings.client_options())
    wanted = [TopicPartition(settings.wire_name(topic), partition) for topic, partition in places]
    try:
        with translated(settings):
            await admin.start()
            found = await admin.list_consumer_group_offsets(group, partitions=wanted)
    finally:
        await admin.close()
    return {
        (settings.plain_name(place.topic), place.partition): committed.offset
        for place, committed in found.items()
        if committed.offset >= 0  # -1 stands for "never"
    }


async def cluster_id(settings: StreamSettings) -> str:
    """The identity of the broker's cluster: offsets mean nothing under another one."""
    admin = AIOKafkaAdminClient(**settings.client_options())
    try:
        with translated(settings):
            await admin.start()
            answer = await admin.describe_cluster()
    finally:
        await admin.close()
    return str(answer.get("cluster_id") or "")


async def ends(
    settings: StreamSettings,
    consumer: AIOKafkaConsumer,
    places: Sequence[TopicPartition],
) -> dict[TopicPartition, int]:
    """For each partition an offset past everything acknowledged before the call."""
    if settings.reliable_end_offsets:
        with translated(settings):
            found: dict[TopicPartition, int] = await consumer.end_offsets(places)
            return found
    async with Publisher(settings) as publisher:
        offsets = await asyncio.gather(
            *(publisher.barrier(settings.plain_name(place.topic), place.partition) for place in places)
        )
    return {place: offset + 1 for place, offset in zip(places, offsets, strict=True)}


class KafkaBus(Publisher):
    """The `Bus` on a Kafka broker: one producer, and a short-lived reader per read.

    Start it before use, or use it as an async context manager.
    """

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[Incoming, None]:
        """See `Bus.read`."""
        return read_range(self._settings, topic, partition, start, stop)

    def read_to_barrier(self, topic: str, partition: int, from_offset: int) -> AsyncGenerator[Incoming, None]:
        """See `Bus.read_to_barrier`."""
        return read_to_barrier(self._settings, topic, {partition: from_offset})


@asynccontextmanager
async def _reader(settings: StreamSettings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that belongs to no group and is surely closed."""
    consumer = AIOKafkaConsumer(
        group_id=None,
        auto_offset_reset="earliest",
        **settings.client_options(),
        **settings.fetch_options(),
    )
    try:
        with translated(settings):
            await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def _places(
    settings: StreamSettings, consumer: AIOKafkaConsumer, topics: Sequence[str]
) -> list[TopicPartition]:
    """All partitions of ``topics``. How many there are the settings say: workers refuse any other number.

    The client could be asked, but it only knows the partitions of topics it was told to care about.
    """
    wire_names = [settings.wire_name(topic) for topic in topics]
    with translated(settings):
        known = await consumer.topics()
    missing = [name for name in wire_names if name not in known]
    if missing:
        raise BrokerUnavailable(f"no such topic at {settings.bootstrap}: {', '.join(missing)}")
    numbers = range(settings.partitions)
    return [TopicPartition(name, partition) for name in wire_names for partition in numbers]


async def _beginnings(
    consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = await consumer.beginning_offsets(places)
    return found


async def _seek(consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int]) -> None:
    """Go to ``starts``, or to the first record that retention has left."""
    consumer.assign(list(starts))
    beginnings = await _beginnings(consumer, list(starts))
    for place, offset in starts.items():
        consumer.seek(place, max(offset, beginnings[place]))


async def _read_until(
    settings: StreamSettings,
    consumer: AIOKafkaConsumer,
    starts: Mapping[TopicPartition, int],
    stops: Mapping[TopicPartition, int],
) -> AsyncGenerator[Incoming, None]:
    """Records of several partitions until each has reached its stop."""
    with translated(settings):
        await _seek(consumer, starts)
    limits = {(settings.plain_name(place.topic), place.partition): stop for place, stop in stops.items()}
    while open_places := [p for p in stops if await consumer.position(p) < stops[p]]:
        for record in await _poll(settings, consumer, POLL_S, open_places):
            if record.offset < limits[record.topic, record.partition] and not record.is_barrier:
                yield record


async def _poll(
    settings: StreamSettings,
    consumer: AIOKafkaConsumer,
    wait_s: float = POLL_S,
    places: Sequence[TopicPartition] = (),
) -> list[Incoming]:
    with translated(settings):
        batches = await consumer.getmany(*places, timeout_ms=round(wait_s * 1000))
    return [incoming(settings, raw) for records in batches.values() for raw in records]


def incoming(settings: StreamSettings, raw: Any) -> Incoming:
    """A client library's record in our words. A missing value (a tombstone) reads as empty."""
    return Incoming(
        topic=settings.plain_name(raw.topic),
        partition=raw.partition,
        offset=raw.offset,
        key=raw.key,
        value=raw.value or b"",
        headers=dict(raw.headers or ()),
        timestamp=(raw.timestamp or 0) / 1000.0,
    )
