"""Workers on a real broker: joining, sharing, leaving, surviving bad records."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domain.errors import ConfigError, StoreUnavailable
from streams import deadletter
from streams.agent import Agent, Handled
from streams.app import Worker
from streams.bus import Incoming, Outgoing
from streams.consume import KafkaBus, committed_offsets, read_to_barrier
from streams.settings import StreamSettings
from streams.topics import CLOCK, COMMANDS, DEADLETTER, SCORES, create_topics
from tests.servers import running_broker
from tests.streams.simple_agents import Notes, Picky, numbers, until

pytestmark = pytest.mark.server


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
    return [record async for record in read_to_barrier(settings, topic)]


async def test_records_of_all_topics_reach_the_agent_in_order(broker: StreamSettings, tmp_path: Path) -> None:
    await create_topics(broker)
    notes = Notes()
    async with KafkaBus(broker) as bus, working(broker, [notes], tmp_path):
        await bus.send([r for p in range(4) for r in numbers(25, partition=p, start=100 * p)])
        await bus.send(numbers(5, topic=CLOCK.name, partition=1, start=1000))
        await until(lambda: len(notes.records) == 105)
    for partition in range(4):
        of_one = [int(r.value) for r in notes.records if (r.topic, r.partition) == (COMMANDS.name, partition)]
        assert of_one == list(range(100 * partition, 100 * partition + 25))


async def test_results_are_written_before_the_offset_is_committed(
    broker: StreamSettings, tmp_path: Path
) -> None:
    await create_topics(broker)
    notes = Notes(answers=True)
    async with KafkaBus(broker) as bus, working(broker, [notes], tmp_path) as worker:
        await bus.send(numbers(10))
        await until(lambda: worker.health()["notes"].handled == 10)
    assert [int(r.value) for r in await everything_in(broker, SCORES.name)] == list(range(10))
    assert await committed_offsets(broker, worker.group, [(COMMANDS.name, 0)]) == {(COMMANDS.name, 0): 10}


async def test_a_restarted_worker_continues_where_the_group_stands(
    broker: StreamSettings, tmp_path: Path
) -> None:
    await create_topics(broker)
    first, second = Notes(), Notes()
    async with KafkaBus(broker) as bus:
        async with working(broker, [first], tmp_path):
            await bus.send(numbers(5))
            await until(lambda: len(first.records) == 5)
        await bus.send(numbers(5, start=5))
        async with working(broker, [second], tmp_path):
            await until(lambda: len(second.records) == 5)
    assert second.values() == [5, 6, 7, 8, 9]


async def test_a_clean_stop_leaves_the_group_at_once(broker: StreamSettings, tmp_path: Path) -> None:
    """A member that does not leave costs its successor a session of waiting, and then half a one to join."""
    settings = StreamSettings.embedded(broker.bootstrap, session_timeout_s=8.0, heartbeat_interval_s=0.5)
    await create_topics(settings)
    async with working(settings, [Notes()], tmp_path):
        pass
    before = time.monotonic()
    async with working(settings, [Notes()], tmp_path):
        took = time.monotonic() - before
    assert took < 8.0, f"joined after {took:.1f} s: the former member was still waited for"


async def test_three_workers_own_the_same_partitions_of_every_topic(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as server:
        settings = StreamSettings.embedded(server.bootstrap, partitions=8)
        await create_topics(settings)
        agents = [Notes() for _ in range(3)]
        workers = [Worker(settings, [a], datadir=tmp_path, web_port=6066 + n) for n, a in enumerate(agents)]
        try:
            await asyncio.gather(*(worker.start() for worker in workers))
            await until(lambda: sorted(len(agent.owned) for agent in agents) == [2, 3, 3])
            assert frozenset().union(*(agent.owned for agent in agents)) == frozenset(range(8))
            assert not any(worker.health()["notes"].fault for worker in workers)
            async with KafkaBus(settings) as bus:
                for topic in (COMMANDS.name, CLOCK.name):
                    await bus.send([r for p in range(8) for r in numbers(1, topic=topic, partition=p)])
            await until(lambda: sum(len(agent.records) for agent in agents) == 16)
            for agent in agents:
                of_each = [{r.partition for r in agent.records if r.topic == t} for t in agent.topics]
                assert of_each == [set(agent.owned), set(agent.owned)]
        finally:
            await asyncio.gather(*(worker.stop() for worker in workers))


async def test_an_unreadable_record_becomes_a_dead_letter_and_the_next_is_handled(
    broker: StreamSettings, tmp_path: Path
) -> None:
    await create_topics(broker)
    picky = Picky()
    poison = Outgoing(topic=COMMANDS.name, partition=0, key=b"r-1", value=b"poison", headers={"sv": b"1"})
    async with KafkaBus(broker) as bus, working(broker, [picky], tmp_path) as worker:
        await bus.send([*numbers(1), poison, *numbers(1, start=1)])
        await until(lambda: len(picky.records) == 2)
        assert worker.health()["notes"].dead_lettered == 1
    [letter] = await everything_in(broker, DEADLETTER.name)
    assert (letter.value, letter.key) == (b"poison", COMMANDS.name.encode())
    assert letter.headers == {
        "sv": b"1",
        deadletter.TOPIC: COMMANDS.name.encode(),
        deadletter.PARTITION: b"0",
        deadletter.OFFSET: b"1",
        deadletter.AGENT: b"notes",
        deadletter.ERROR: b"RecordError: not a number: poison",
    }


class Blocked(Notes):
    """Its store goes away at the third record and stays away."""

    async def handle(self, record: Incoming) -> Handled:
        if record.offset >= 2:
            raise StoreUnavailable("the database is away")
        return await super().handle(record)


async def test_a_record_that_is_not_handled_is_never_committed(
    broker: StreamSettings, tmp_path: Path
) -> None:
    settings = StreamSettings.embedded(broker.bootstrap, commit_interval_s=0.1, revoke_grace_s=0.2)
    await create_topics(settings)
    blocked, after = Blocked(), Notes()
    async with KafkaBus(settings) as bus:
        async with working(settings, [blocked], tmp_path) as worker:
            await bus.send(numbers(10))
            await until(lambda: worker.health()["notes"].retries >= 2)
        assert await committed_offsets(settings, worker.group, [(COMMANDS.name, 0)]) == {
            (COMMANDS.name, 0): 2
        }
        async with working(settings, [after], tmp_path):
            await until(lambda: len(after.records) == 8)
    assert after.values() == [2, 3, 4, 5, 6, 7, 8, 9]


async def test_several_agents_share_one_worker_and_one_group(broker: StreamSettings, tmp_path: Path) -> None:
    await create_topics(broker)
    judge, actuate = Notes("judge", (COMMANDS.name,)), Notes("actuate", (COMMANDS.name, CLOCK.name))
    async with KafkaBus(broker) as bus, working(broker, [judge, actuate], tmp_path) as worker:
        assert worker.group == "sentra-actuate-judge"
        await bus.send(numbers(3))
        await until(lambda: judge.values() == actuate.values() == [0, 1, 2])


async def test_start_offsets_named_by_the_agent_skip_what_came_before(
    broker: StreamSettings, tmp_path: Path
) -> None:
    await create_topics(broker)
    notes = Notes(starts={(COMMANDS.name, 0): 7})
    async with KafkaBus(broker) as bus:
        await bus.send(numbers(10))
        async with working(broker, [notes], tmp_path):
            await until(lambda: len(notes.records) == 3)
    assert notes.values() == [7, 8, 9]


async def test_start_offsets_below_the_committed_ones_are_read_again(
    broker: StreamSettings, tmp_path: Path
) -> None:
    await create_topics(broker)
    async with KafkaBus(broker) as bus:
        await bus.send(numbers(10))
        first = Notes()
        async with working(broker, [first], tmp_path):
            await until(lambda: len(first.records) == 10)
        second = Notes(starts={(COMMANDS.name, 0): 4})
        async with working(broker, [second], tmp_path):
            await bus.send(numbers(1, start=10))
            await until(lambda: len(second.records) == 7)
    assert second.values() == [4, 5, 6, 7, 8, 9, 10]


@asynccontextmanager
async def worker_process(settings: StreamSettings, folder: Path, web_port: int) -> AsyncIterator[int]:
    """A worker in a process of its own that answers every command; yields its process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.streams.worker_process"),
        *(settings.bootstrap, str(folder), str(web_port)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def answers_of(settings: StreamSettings) -> set[int]:
    return {int(record.value) for record in await everything_in(settings, SCORES.name)}


async def everything_answered(settings: StreamSettings, count: int, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while await answers_of(settings) != set(range(count)):
            await asyncio.sleep(0.5)


@pytest.mark.slow
async def test_killing_one_of_two_workers_loses_no_input(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as server:
        settings = StreamSettings.embedded(server.bootstrap, partitions=8)
        await create_topics(settings)
        async with (
            KafkaBus(settings) as bus,
            worker_process(settings, tmp_path, 6066) as doomed,
            worker_process(settings, tmp_path, 6067),
        ):
            for number in range(400):
                await bus.send(numbers(1, partition=number % 8, start=number))
            await everything_answered(settings, 400, within_s=60)
            for number in range(400, 1600):
                await bus.send(numbers(1, partition=number % 8, start=number))
                await asyncio.sleep(0.005)
                if number == 800:
                    os.kill(doomed, signal.SIGKILL)
            await everything_answered(settings, 1600, within_s=60)


@pytest.mark.slow
async def test_sigterm_ends_a_worker_process_within_seconds(broker: StreamSettings, tmp_path: Path) -> None:
    await create_topics(broker)
    async with KafkaBus(broker) as bus, worker_process(broker, tmp_path, 6066) as pid:
        await bus.send(numbers(1))
        await everything_answered(broker, 1, within_s=60)
        before = time.monotonic()
        os.kill(pid, signal.SIGTERM)
    assert time.monotonic() - before < 10


async def test_a_worker_without_agents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one agent"):
        Worker(StreamSettings.embedded("127.0.0.1:9"), [], datadir=tmp_path)
