"""The same promises on Apache Kafka that other tests hold on the embedded broker.

One node serves the module; each test has topics and groups of its own by namespace. The first test of a
machine downloads the server. What differs from the embedded broker is what these tests are for: ends that can
be believed, a fetch that wakes when data arrives, compaction, and a group coordinator with its own timings.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from bench import _fleet as fleet
from domain.clock import SystemClock, tick_floor
from domain.decision import ActionOutcome, DecisionKind, Order
from domain.records import ActionRecord, DecisionRecord
from sentra.roles import Epochs, Memory
from store.database import open_engine, upgrade
from store.journal import Journal
from store.leases import Leases
from store.repository import Repository
from streams.agent import Agent
from streams.agents.judge import JudgeAgent
from streams.app import Worker
from streams.bus import Incoming, Outgoing
from streams.codec import decode, encode
from streams.consume import KafkaBus, committed_offsets, ends, follow, read_to_barrier
from streams.settings import StreamSettings
from streams.topics import (
    ACTIONS,
    CLOCK,
    COMMANDS,
    DECISIONS,
    EVALUATIONS,
    SCORES,
    STATE,
    TOPICS,
    create_topics,
)
from tests.kafka_server import running_kafka
from tests.streams.simple_agents import Notes, numbers, until

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StreamSettings]:
    """One node for the whole module."""
    async with running_kafka(tmp_path_factory.mktemp("kafka")) as settings:
        yield settings


@pytest.fixture
async def kafka(node: StreamSettings, request: pytest.FixtureRequest) -> StreamSettings:
    """Topics of one test alone."""
    settings = replace(node, namespace=re.sub(r"\W+", "-", request.node.name))
    await create_topics(settings)
    return settings


@asynccontextmanager
async def working(
    settings: StreamSettings, agents: Sequence[Agent], folder: Path, web_port: int = 6066
) -> AsyncIterator[Worker]:
    worker = Worker(settings, agents, datadir=folder, web_port=web_port)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


async def everything_in(settings: StreamSettings, topic: str) -> list[Incoming]:
    starts = dict.fromkeys(range(settings.partitions), 0)
    return [record async for record in read_to_barrier(settings, topic, starts)]


# The log.


async def test_every_topic_is_created_with_its_partitions_and_clean_up(kafka: StreamSettings) -> None:
    assert await create_topics(kafka) == ()
    names = {kafka.wire_name(name): topic for name, topic in TOPICS.items()}
    admin = AIOKafkaAdminClient(**kafka.client_options())
    await admin.start()
    try:
        described = await admin.describe_topics(list(names))
        assert {each["topic"]: len(each["partitions"]) for each in described} == dict.fromkeys(names, 4)
        answers = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        )
    finally:
        await admin.close()
    for answer in answers:
        for _, _, _, name, entries in answer.resources:
            found = {key: value for key, value, *_ in entries}
            assert found | names[name].broker_config() == found


async def test_the_end_of_a_topic_is_what_the_broker_says(kafka: StreamSettings) -> None:
    place = TopicPartition(kafka.wire_name(CLOCK.name), 0)
    consumer = AIOKafkaConsumer(**kafka.client_options())
    async with KafkaBus(kafka) as bus, consumer:
        await bus.send(numbers(10, topic=CLOCK.name))
        assert await ends(kafka, consumer, [place]) == {place: 10}
        # Asking again finds nothing new: no barrier was written to find the end.
        assert await consumer.end_offsets([place]) == {place: 10}


@pytest.mark.parametrize("believes", [True, False], ids=["by end offsets", "by barriers"])
async def test_reading_to_the_end_finds_every_record(kafka: StreamSettings, believes: bool) -> None:
    settings = replace(kafka, reliable_end_offsets=believes)
    async with KafkaBus(settings) as bus:
        await bus.send([record for p in range(4) for record in numbers(10, topic=CLOCK.name, partition=p)])
    for _ in range(2):  # the second reader meets the first one's barriers
        found = await everything_in(settings, CLOCK.name)
        assert sorted((r.partition, int(r.value)) for r in found) == [
            (partition, number) for partition in range(4) for number in range(10)
        ]


async def test_a_compacted_topic_is_read_with_its_tombstones(kafka: StreamSettings) -> None:
    states = [Outgoing(topic=STATE.name, partition=1, key=b"a", value=value) for value in (b"1", b"2", None)]
    async with KafkaBus(kafka) as bus:
        await bus.send(states)
        await bus.barrier(STATE.name, 1)
        found = [record async for record in bus.read_to_barrier(STATE.name, 1, 0)]
    assert [record.value for record in found] == [b"1", b"2", b""]


async def test_a_follower_finds_the_partitions_of_its_topics(kafka: StreamSettings) -> None:
    async with (
        KafkaBus(kafka) as bus,
        aclosing(follow(kafka, [CLOCK.name], from_beginning=True)) as records,
    ):
        await bus.send(numbers(1, topic=CLOCK.name))
        assert (await anext(records)).value == b"0"


async def test_a_waiting_fetch_is_answered_when_data_arrives(kafka: StreamSettings) -> None:
    """The embedded broker would answer after half of the wait."""
    options = kafka.client_options() | kafka.fetch_options() | {"fetch_max_wait_ms": 10_000}
    place = TopicPartition(kafka.wire_name(CLOCK.name), 0)
    async with KafkaBus(kafka) as bus, AIOKafkaConsumer(**options) as consumer:
        consumer.assign([place])
        consumer.seek(place, 0)
        await bus.send(numbers(1, topic=CLOCK.name))
        await consumer.getone()
        waiting = asyncio.ensure_future(consumer.getone())
        await asyncio.sleep(0.5)  # the fetch is with the broker by now
        before = time.monotonic()
        await bus.send(numbers(1, topic=CLOCK.name, start=1))
        await waiting
        assert time.monotonic() - before < 3.0


# Workers.


async def test_answers_are_written_and_then_committed(kafka: StreamSettings, tmp_path: Path) -> None:
    notes = Notes(answers=True)
    async with KafkaBus(kafka) as bus, working(kafka, [notes], tmp_path) as worker:
        await bus.send([record for p in range(4) for record in numbers(25, partition=p, start=100 * p)])
        await until(lambda: len(notes.records) == 100)
    for partition in range(4):
        of_one = [int(record.value) for record in notes.records if record.partition == partition]
        assert of_one == list(range(100 * partition, 100 * partition + 25))
    assert len(await everything_in(kafka, SCORES.name)) == 100
    places = [(COMMANDS.name, partition) for partition in range(4)]
    assert await committed_offsets(kafka, worker.group, places) == dict.fromkeys(places, 25)


async def test_three_workers_own_the_same_partitions_of_every_topic(
    node: StreamSettings, tmp_path: Path
) -> None:
    settings = replace(node, namespace="three", partitions=8)
    await create_topics(settings)
    agents = [Notes() for _ in range(3)]
    workers = [Worker(settings, [a], datadir=tmp_path, web_port=6066 + n) for n, a in enumerate(agents)]
    try:
        await asyncio.gather(*(worker.start() for worker in workers))
        await until(lambda: sorted(len(agent.owned) for agent in agents) == [2, 3, 3], within_s=60)
        assert frozenset().union(*(agent.owned for agent in agents)) == frozenset(range(8))
        assert not any(worker.health()["notes"].fault for worker in workers)
        async with KafkaBus(settings) as bus:
            for topic in (COMMANDS.name, CLOCK.name):
                await bus.send([r for p in range(8) for r in numbers(1, topic=topic, partition=p)])
        await until(lambda: sum(len(agent.records) for agent in agents) == 16)
        for agent in agents:
            of_each = [{r.partition for r in agent.records if r.topic == topic} for topic in agent.topics]
            assert of_each == [set(agent.owned), set(agent.owned)]
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))


async def test_a_clean_stop_leaves_the_group_at_once(kafka: StreamSettings, tmp_path: Path) -> None:
    settings = replace(kafka, session_timeout_s=20.0)
    first, second = Notes(), Notes()
    async with KafkaBus(settings) as bus:
        async with working(settings, [first], tmp_path):
            await bus.send(numbers(5))
            await until(lambda: len(first.records) == 5)
        before = time.monotonic()
        await bus.send(numbers(5, start=5))
        async with working(settings, [second], tmp_path):
            await until(lambda: len(second.records) == 5)
            took = time.monotonic() - before
    assert second.values() == [5, 6, 7, 8, 9]
    assert took < 15.0, f"took over after {took:.1f} s: the former member was still waited for"


@asynccontextmanager
async def worker_process(settings: StreamSettings, folder: Path, web_port: int) -> AsyncIterator[int]:
    """A worker in a process of its own that answers every command; yields its process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.streams.kafka_worker"),
        *(settings.bootstrap, settings.namespace, str(settings.partitions), str(folder), str(web_port)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def everything_answered(settings: StreamSettings, count: int, within_s: float) -> None:
    wanted = set(range(count))
    async with asyncio.timeout(within_s):
        while {int(record.value) for record in await everything_in(settings, SCORES.name)} != wanted:
            await asyncio.sleep(0.5)


async def test_killing_one_of_two_workers_loses_no_input(node: StreamSettings, tmp_path: Path) -> None:
    settings = replace(node, namespace="killed", partitions=8)
    await create_topics(settings)
    async with (
        KafkaBus(settings) as bus,
        worker_process(settings, tmp_path / "1", 6066) as doomed,
        worker_process(settings, tmp_path / "2", 6067),
    ):
        for number in range(400):
            await bus.send(numbers(1, partition=number % 8, start=number))
        await everything_answered(settings, 400, within_s=90)
        for number in range(400, 1600):
            await bus.send(numbers(1, partition=number % 8, start=number))
            await asyncio.sleep(0.005)
            if number == 800:
                os.kill(doomed, signal.SIGKILL)
        await everything_answered(settings, 1600, within_s=90)


# Judging.


@asynccontextmanager
async def judging(settings: StreamSettings, folder: Path) -> AsyncIterator[Worker]:
    """The judge with its real database, as a worker of this process."""
    url = f"sqlite:///{folder / 'sentra.db'}"
    upgrade(url)
    engine = open_engine(url)
    agent = JudgeAgent(
        owner="test",
        clock=SystemClock(),
        epochs=Epochs(Leases(engine)),
        memory=Memory(Repository(engine), Journal(engine)),
        partitions=settings.partitions,
        broker_epoch="kafka",
    )
    try:
        async with working(settings, [agent], folder / "faust") as worker:
            yield worker
    finally:
        engine.dispose()


def verified(record: DecisionRecord) -> Outgoing:
    decision = record.decision
    action = ActionRecord(
        rollout_id=decision.rollout_id,
        decision_id=decision.decision_id,
        generation=decision.generation,
        outcome=ActionOutcome.VERIFIED,
        at=decision.at,
        observed_bp=decision.weight_bp,
    )
    return Outgoing(topic=ACTIONS.name, key=decision.rollout_id.encode(), value=encode(action))


async def publish_failing_ticks(bus: KafkaBus, settings: StreamSettings) -> None:
    """Rollout 0 with a canary that fails every request, tick after tick."""
    clock = SystemClock()
    block = fleet.Block(range(1), settings.partitions)
    while True:
        end = tick_floor(clock.now(), fleet.INTERVAL_S) + fleet.INTERVAL_S
        await asyncio.sleep(end - clock.now())
        for partition, frame in block.at(end, {fleet.rollout_id(0)}):
            topic = fleet.TOPIC_OF[frame.channel]
            await bus.send([Outgoing(topic=topic, partition=partition, value=encode(frame))])


async def decided(settings: StreamSettings, order: Order) -> DecisionRecord:
    """Wait for the decision that gives an order."""
    while True:
        for record in await everything_in(settings, DECISIONS.name):
            found = decode(DecisionRecord, record.value)
            if found.decision.order is order:
                return found
        await asyncio.sleep(0.2)


async def test_a_failing_canary_is_rolled_back_even_when_the_judge_restarts(
    kafka: StreamSettings, tmp_path: Path
) -> None:
    """Start, prepare, shift, restart of the judge (recovery from Kafka alone), a severe tick, roll-back."""
    async with KafkaBus(kafka) as bus, asyncio.timeout(120):
        async with judging(kafka, tmp_path):
            await bus.send([fleet.start_command(0, SystemClock().now())])
            for order in (Order.PREPARE, Order.SHIFT):
                record = await decided(kafka, order)
                await bus.send([verified(record)])
        async with judging(kafka, tmp_path):
            load = asyncio.create_task(publish_failing_ticks(bus, kafka))
            try:
                record = await decided(kafka, Order.RESTORE)
            finally:
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)
    assert (record.decision.kind, record.decision.weight_bp) == (DecisionKind.ROLL_BACK, 0)
    assert record.decision.reason.startswith("error_rate:")
    assert await everything_in(kafka, EVALUATIONS.name)
