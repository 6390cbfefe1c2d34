"""Topics: their table, their creation on a real broker, and Kafka's partitioner."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ConfigError
from streams.bus import BrokerUnavailable
from streams.settings import StreamSettings
from streams.topics import DECISIONS, METRICS, ROLLOUTS, TOPICS, Kind, create_topics, murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # from Apache Kafka's UtilsTest.testMurmur2, which writes them as signed numbers
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_kafka_publishes(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected % 2**32


@given(key=st.binary(max_size=64), partitions=st.integers(min_value=1, max_value=100))
def test_partitions_agree_with_the_client_library(key: bytes, partitions: int) -> None:
    every = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, every, every)


def test_a_text_key_is_its_utf8_bytes() -> None:
    assert partition_of("prüf-1", 16) == partition_of("prüf-1".encode(), 16)


def test_there_are_fourteen_topics_and_only_states_are_compacted() -> None:
    assert len(TOPICS) == 14
    assert all(topic.is_compacted == (topic.kind is Kind.STATE) for topic in TOPICS.values())
    assert ROLLOUTS.broker_config() == {"cleanup.policy": "compact"}
    assert METRICS.broker_config() == {"cleanup.policy": "delete", "retention.ms": "86400000"}


@pytest.mark.server
async def test_creating_topics_twice_creates_them_once(broker: StreamSettings) -> None:
    assert set(await create_topics(broker)) == set(TOPICS)
    assert await create_topics(broker) == ()
    assert await partition_counts(broker) == dict.fromkeys(TOPICS, broker.partitions)


@pytest.mark.server
async def test_a_topic_cut_differently_is_named_with_both_numbers(broker: StreamSettings) -> None:
    await create_by_hand(broker, DECISIONS.name, 7)
    with pytest.raises(ConfigError, match=r"sentra\.decisions\.v1 has 7 partitions, 4 wanted"):
        await create_topics(broker)


@pytest.mark.server
async def test_missing_topics_are_named_where_they_may_not_be_created(broker: StreamSettings) -> None:
    strict = StreamSettings.embedded(broker.bootstrap, declare_topics=False)
    with pytest.raises(ConfigError, match=r"missing topics .*sentra\.metrics\.v1"):
        await create_topics(strict)


async def test_an_absent_broker_is_named(unused_tcp_port: int) -> None:
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{unused_tcp_port}"):
        await create_topics(StreamSettings.embedded(f"127.0.0.1:{unused_tcp_port}"))


async def create_by_hand(settings: StreamSettings, name: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()


async def partition_counts(settings: StreamSettings) -> dict[str, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    described = await admin.describe_topics(list(TOPICS))
    await admin.close()
    return {entry["topic"]: len(entry["partitions"]) for entry in described}
