"""Reading the log by hand, on a real broker."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.bus import BrokerUnavailable, Incoming, Outgoing
from streams.consume import KafkaBus, follow, read_range, read_to_barrier
from streams.settings import StreamSettings
from streams.topics import CLOCK, COMMANDS, create_topics

pytestmark = pytest.mark.server


def numbered(count: int, *, partition: int = 0, start: int = 0) -> list[Outgoing]:
    return [
        Outgoing(topic=CLOCK.name, partition=partition, value=str(number).encode())
        for number in range(start, start + count)
    ]


def values(records: list[Incoming]) -> list[int]:
    return [int(record.value) for record in records]


async def test_a_barrier_finds_the_end_that_the_broker_denies(broker: StreamSettings) -> None:
    await create_topics(broker)
    async with KafkaBus(broker) as bus:
        await bus.send(numbered(10))
        async with aclosing(read_to_barrier(broker, CLOCK.name)) as records:
            assert values([record async for record in records]) == list(range(10))


async def test_the_embedded_broker_still_misstates_its_end_offsets(broker: StreamSettings) -> None:
    """When this fails, barriers can go: the broker has been mended."""
    await create_topics(broker)
    place = TopicPartition(CLOCK.name, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap)
    async with KafkaBus(broker) as bus, consumer:
        await bus.send(numbered(10))
        assert (await consumer.end_offsets([place]))[place] < 10


async def test_records_carry_key_headers_time_and_place(broker: StreamSettings) -> None:
    await create_topics(broker)
    sent = Outgoing(topic=COMMANDS.name, key=b"r-1", value=b"{}", headers={"sv": b"1"}, partition=2)
    async with KafkaBus(broker) as bus:
        await bus.send([sent])
        [record] = [record async for record in bus.read_to_barrier(COMMANDS.name, 2, 0)]
    assert (record.topic, record.partition, record.offset) == (COMMANDS.name, 2, 0)
    assert (record.key, record.value, record.headers) == (b"r-1", b"{}", {"sv": b"1"})
    assert record.timestamp > 1_600_000_000


async def test_a_range_is_half_open_and_may_start_inside_a_batch(broker: StreamSettings) -> None:
    await create_topics(broker)
    async with KafkaBus(broker) as bus:
        await bus.send(numbered(10))
    assert values([r async for r in read_range(broker, CLOCK.name, 0, 3, 7)]) == [3, 4, 5, 6]
    assert values([r async for r in read_range(broker, CLOCK.name, 0, 7, 7)]) == []


async def test_a_follower_from_now_sees_only_what_comes_later(broker: StreamSettings) -> None:
    await create_topics(broker)
    async with (
        KafkaBus(broker) as bus,
        aclosing(follow(broker, [CLOCK.name], from_beginning=False)) as records,
    ):
        await bus.send(numbered(10))
        first = asyncio.ensure_future(anext(records))
        sent = 10
        while not first.done():  # the follower finds its place while we keep writing
            await bus.send(numbered(1, start=sent))
            sent += 1
        assert values([await first])[0] >= 10


async def test_a_follower_from_the_beginning_sees_every_partition(broker: StreamSettings) -> None:
    await create_topics(broker)
    async with KafkaBus(broker) as bus:
        await bus.send([record for p in range(4) for record in numbered(5, partition=p, start=100 * p)])
    async with aclosing(follow(broker, [CLOCK.name], from_beginning=True)) as records:
        seen = values([await anext(records) for _ in range(20)])
    assert sorted(seen) == [100 * p + n for p in range(4) for n in range(5)]


async def test_namespaces_keep_two_installations_apart(broker: StreamSettings) -> None:
    blue = StreamSettings.embedded(broker.bootstrap, namespace="blue")
    await create_topics(broker)
    await create_topics(blue)
    async with KafkaBus(broker) as bus, KafkaBus(blue) as blue_bus:
        await bus.send(numbered(3))
        await blue_bus.send(numbered(2, start=50))
    seen = [record async for record in read_to_barrier(blue, CLOCK.name)]
    assert values(seen) == [50, 51]
    assert {record.topic for record in seen} == {CLOCK.name}


async def test_an_absent_broker_is_named_as_such(unused_tcp_port: int) -> None:
    bus = KafkaBus(StreamSettings.embedded(f"127.0.0.1:{unused_tcp_port}"))
    with pytest.raises(BrokerUnavailable, match=str(unused_tcp_port)):
        await bus.start()


async def test_a_record_without_key_and_partition_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a key or a partition"):
        Outgoing(topic=CLOCK.name, value=b"")
