"""The real Tansu: it starts, keeps records, is told from a stranger, and is gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from domain.errors import ConfigError
from sentra.embedded.broker import TansuBroker, cluster_id_at
from sentra.embedded.ports import free_port, is_free

pytestmark = pytest.mark.server


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[TansuBroker]:
    broker = TansuBroker(free_port(), tmp_path / "tansu.log")
    broker.start()
    try:
        await broker.wait_until_ready()
        yield broker
    finally:
        await broker.stop()


async def test_a_record_comes_back_from_a_topic(broker: TansuBroker) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("letters", num_partitions=2, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    await producer.send_and_wait("letters", b"dear all", key=b"k", partition=1, headers=[("h", b"v")])
    await producer.stop()
    consumer = AIOKafkaConsumer("letters", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        record = await consumer.getone()
    finally:
        await consumer.stop()
    assert (record.partition, record.key, record.value, record.headers) == (
        1,
        b"k",
        b"dear all",
        (("h", b"v"),),
    )


async def test_each_start_is_a_cluster_of_its_own(broker: TansuBroker) -> None:
    first = broker.cluster_id
    assert await cluster_id_at(broker.bootstrap) == first
    await broker.stop()
    assert is_free(broker.port)
    broker.start()
    await broker.wait_until_ready()
    assert broker.cluster_id != first
    assert await cluster_id_at(broker.bootstrap) == broker.cluster_id


async def test_a_second_broker_on_the_port_is_refused_before_it_starts(
    broker: TansuBroker, tmp_path: Path
) -> None:
    second = TansuBroker(broker.port, tmp_path / "second.log")
    with pytest.raises(ConfigError, match=rf"port {broker.port} .* the Kafka broker .* is in use"):
        second.start()
    assert second.child is None


async def test_an_older_broker_does_not_answer_for_a_new_one(
    broker: TansuBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the port had been taken between the check and the start."""
    second = TansuBroker(broker.port, tmp_path / "second.log")
    monkeypatch.setattr("sentra.embedded.broker.require_free", lambda port, what: None)
    second.start()
    with pytest.raises(ConfigError, match="the Kafka broker"):
        await second.wait_until_ready(timeout_s=3)
    await second.stop()
    assert "AddrInUse" in second.log_path.read_text()


async def test_nobody_at_the_port_has_no_cluster_id() -> None:
    assert await cluster_id_at(f"127.0.0.1:{free_port()}") is None
