"""The Kafka source on real brokers: the embedded one, and Apache Kafka where it can come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from domain.clock import SystemClock
from domain.errors import SourceRejected, SourceUnavailable
from domain.signal import Arm, Channel, Quality, Sample
from sentra.embedded.ports import free_ports
from streams.pollers.base import target_of
from streams.pollers.registry import open_sources, read_sources
from streams.settings import StreamSettings
from tests.kafka_server import running_kafka
from tests.streams.pollers.otlp_requests import json_of, logs, metrics, point, spans
from tests.streams.pollers.rollouts import gate, spec

pytestmark = pytest.mark.server
GATES = (gate("error_rate"), gate("log_error_ratio"), gate("trace_error_ratio"))
TOPICS = {Channel.METRICS: "otlp_metrics", Channel.LOGS: "otlp_logs", Channel.TRACES: "otlp_spans"}


class Scene:
    """A source on a broker, and a collector that writes there."""

    def __init__(self, bootstrap: str, channel: Channel, **options: Any) -> None:
        given = {"kind": "otlp_kafka", "carries": channel.value, "bootstrap": bootstrap, **options}
        self.source = open_sources(read_sources({"bus": given}), SystemClock())["bus"]
        self.target = target_of(spec(gates=GATES, logs="bus"), channel)
        self.producer: AIOKafkaProducer | None = None
        self.topic = options.get("topic", TOPICS[channel])
        self.end = float(int(SystemClock().now()))

    async def tick(self) -> list[Sample]:
        self.end = max(self.end + 1.0, float(int(SystemClock().now()) + 1))
        return list((await self.source.fetch([self.target], self.end, 1.0)).samples)

    async def write(self, *bodies: bytes) -> None:
        assert self.producer is not None
        for number, body in enumerate(bodies):
            await self.producer.send_and_wait(self.topic, body, partition=number % 2)

    async def counted(self, exposure: float) -> tuple[float, Quality]:
        """Bad events, once ``exposure`` of the canary was counted; and what was said of them.

        Ticks end faster than the clock goes here, so that they span several says nothing.
        """
        bad, seen, quality = 0.0, 0.0, Quality.WHOLE
        for _ in range(200):
            for each in await self.tick():
                if each.arm is Arm.CANARY:
                    bad, seen, quality = (
                        bad + each.events,
                        seen + each.exposure,
                        quality | Quality(each.quality),
                    )
            if seen >= exposure:
                break
            await asyncio.sleep(0.05)
        assert seen == exposure
        return bad, quality & ~Quality.SPANS


@asynccontextmanager
async def consuming(settings: StreamSettings, channel: Channel, **options: Any) -> AsyncIterator[Scene]:
    scene = Scene(settings.bootstrap, channel, **options)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(scene.topic, num_partitions=2, replication_factor=1)])
    finally:
        await admin.close()
    scene.producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await scene.producer.start()
    try:
        yield scene
    finally:
        await scene.producer.stop()
        await scene.source.close()


def of_metrics(count: int, code: int = 200) -> Any:
    now = SystemClock().now()
    return metrics(point(now - 0.1, now, (count, 0, 0, 0), code=code))


def of_logs(count: int, severity: int = 9) -> Any:
    return logs(*[(SystemClock().now(), severity)] * count)


def of_traces(count: int, status: int = 0) -> Any:
    return spans(*[(SystemClock().now(), 2, status)] * count)


MADE: dict[Channel, tuple[Callable[[int], Any], Any]] = {
    Channel.METRICS: (of_metrics, lambda: of_metrics(3, 500)),
    Channel.LOGS: (of_logs, lambda: of_logs(3, 17)),
    Channel.TRACES: (of_traces, lambda: of_traces(3, 2)),
}


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
async def test_every_topic_and_encoding_of_a_collector_is_counted(
    broker: StreamSettings, channel: Channel, encoding: str
) -> None:
    good, bad = MADE[channel]
    write = json_of if encoding == "otlp_json" else type(good(1)).SerializeToString
    async with consuming(broker, channel, encoding=encoding) as scene:
        await scene.write(write(good(999)))  # before the source was asked: nobody's evidence
        await scene.tick()
        await scene.write(write(good(7)), write(bad()))
        assert await scene.counted(10.0) == (3.0, Quality.WHOLE)


async def test_a_record_that_cannot_be_read_leaves_its_tick_partial_and_others_go_on(
    broker: StreamSettings,
) -> None:
    async with consuming(broker, Channel.METRICS) as scene:
        await scene.tick()
        await scene.write(b"\xff\xff")
        for _ in range(100):
            try:
                await scene.tick()
            except SourceRejected as exc:
                assert str(exc) == "none of 1 records of otlp_metrics is otlp_proto metrics"
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("nobody said that the record could not be read")
        await scene.write(of_metrics(4).SerializeToString())
        while not scene.source.intake.seen["taken"]:
            await asyncio.sleep(0.02)
        assert await scene.counted(4.0) == (0.0, Quality.PARTIAL)
        await scene.write(of_metrics(5).SerializeToString())
        assert await scene.counted(5.0) == (0.0, Quality.WHOLE)


async def test_a_broker_that_is_not_there_is_named() -> None:
    [port] = free_ports(1)
    scene = Scene(f"127.0.0.1:{port}", Channel.METRICS)
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port}"):
        await scene.tick()
    await scene.source.close()


@pytest.mark.slow
async def test_apache_kafka_is_read_and_a_topic_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with running_kafka(tmp_path / "kafka") as kafka, consuming(kafka, Channel.METRICS) as scene:
        lost = Scene(kafka.bootstrap, Channel.METRICS, topic="nowhere")
        with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:\d+ has no topic nowhere"):
            await lost.tick()
        await lost.source.close()
        await scene.write(of_metrics(999).SerializeToString())
        await scene.tick()
        for count in range(1, 11):
            await scene.write(of_metrics(count).SerializeToString())
        await scene.write(of_metrics(3, 500).SerializeToString())
        assert await scene.counted(58.0) == (3.0, Quality.WHOLE)
