"""The loop around an agent, fed by hand, on a real topic: holes, duplicates, and bad days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from domain.clock import SystemClock
from domain.errors import StoreUnavailable
from streams.agent import Agent, Handled, Place
from streams.bus import Bus, Incoming, Outgoing
from streams.consume import KafkaBus, read_range, read_to_barrier
from streams.runner import Runner
from streams.settings import StreamSettings
from streams.topics import CLOCK, COMMANDS, DEADLETTER, ROLLOUTS, SCORES, create_topics
from tests.streams.simple_agents import Notes, Picky, numbers, until

pytestmark = pytest.mark.server

ONE_PARTITION = {COMMANDS.name: frozenset({0}), CLOCK.name: frozenset({0})}


class Bench:
    """A broker with topics, a bus, and runners that are stopped at the end."""

    def __init__(self, settings: StreamSettings, bus: KafkaBus) -> None:
        self.settings = settings
        self.bus = bus
        self.runners: list[Runner] = []

    def runner(self, agent: Agent, *, committed: Mapping[Place, int] | None = None) -> Runner:
        async def offsets(places: Sequence[Place]) -> Mapping[Place, int]:
            return {place: offset for place, offset in (committed or {}).items() if place in places}

        runner = Runner(agent, self.bus, settings=self.settings, clock=SystemClock(), committed=offsets)
        self.runners.append(runner)
        return runner

    async def feed(self, runner: Runner, *offsets: int, topic: str = COMMANDS.name) -> None:
        for offset in offsets:
            [record] = [r async for r in read_range(self.settings, topic, 0, offset, offset + 1)]
            await runner.feed(record)

    async def contents(self, topic: str) -> list[Incoming]:
        return [record async for record in read_to_barrier(self.settings, topic)]


@pytest.fixture
async def bench(broker: StreamSettings) -> AsyncIterator[Bench]:
    # Sweeps would mend what these tests look at; the ones about sweeps ask for them.
    settings = StreamSettings.embedded(
        broker.bootstrap, sweep_first_s=600.0, retry_first_s=0.01, revoke_grace_s=0.2
    )
    await create_topics(settings)
    async with KafkaBus(settings) as bus:
        made = Bench(settings, bus)
        yield made
        for runner in made.runners:
            await runner.revoke()


async def test_a_hole_is_read_again_and_handled_first(bench: Bench) -> None:
    await bench.bus.send(numbers(10))
    notes = Notes()
    runner = bench.runner(notes)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0, 1, 7, 9)
    assert notes.values() == list(range(10))
    assert runner.health.refetched == 6


async def test_a_hole_before_the_first_record_is_measured_from_the_committed_offset(bench: Bench) -> None:
    await bench.bus.send(numbers(10))
    notes = Notes()
    runner = bench.runner(notes, committed={(COMMANDS.name, 0): 3})
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 6)
    assert notes.values() == [3, 4, 5, 6]


async def test_records_delivered_twice_are_handled_once(bench: Bench) -> None:
    await bench.bus.send(numbers(3))
    notes = Notes()
    runner = bench.runner(notes)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0, 1, 0, 1, 2, 2)
    assert notes.values() == [0, 1, 2]
    assert runner.health.skipped == 3


async def test_holes_in_a_compacted_topic_are_no_loss(bench: Bench) -> None:
    await bench.bus.send(numbers(5, topic=ROLLOUTS.name))
    notes = Notes(topics=(ROLLOUTS.name,))
    runner = bench.runner(notes)
    await runner.assign({ROLLOUTS.name: frozenset({0})})
    await bench.feed(runner, 0, 4, topic=ROLLOUTS.name)
    assert notes.values() == [0, 4]


async def test_barriers_move_the_position_and_reach_no_agent(bench: Bench) -> None:
    await bench.bus.send(numbers(1))
    await bench.bus.barrier(COMMANDS.name, 0)
    await bench.bus.send(numbers(1, start=1))
    notes = Notes()
    runner = bench.runner(notes)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0, 2)
    assert notes.values() == [0, 1]
    assert runner.progress()[COMMANDS.name, 0] == 3


async def test_an_agent_with_torn_partitions_refuses_and_says_so(bench: Bench) -> None:
    await bench.bus.send(numbers(1))
    notes = Notes()
    runner = bench.runner(notes)
    await runner.assign({COMMANDS.name: frozenset({0}), CLOCK.name: frozenset({1})})
    waiting = asyncio.create_task(bench.feed(runner, 0))
    await asyncio.wait({waiting}, timeout=0.3)
    assert not waiting.done()
    assert runner.health.phase == "refusing"
    assert runner.health.fault is not None
    assert "sentra.clock.v1 [1]" in runner.health.fault
    await runner.assign(ONE_PARTITION)  # the next rebalance mends it
    await asyncio.wait_for(waiting, 10)
    assert notes.values() == [0]


class Forgetful(Notes):
    """Its store is away for the first calls."""

    def __init__(self, *, recovery: int = 0, handling: int = 0) -> None:
        super().__init__()
        self._recovery, self._handling = recovery, handling

    async def assigned(self, partitions: frozenset[int], bus: Bus) -> Mapping[Place, int]:
        starts = await super().assigned(partitions, bus)
        if self.recoveries <= self._recovery:
            raise StoreUnavailable("the database is away")
        return starts

    async def handle(self, record: Incoming) -> Handled:
        if self._handling > 0:
            self._handling -= 1
            raise StoreUnavailable("the database is away")
        return await super().handle(record)


async def test_an_absent_store_blocks_the_record_and_loses_nothing(bench: Bench) -> None:
    await bench.bus.send(numbers(3))
    agent = Forgetful(handling=5)
    runner = bench.runner(agent)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0, 1, 2)
    assert agent.values() == [0, 1, 2]
    assert (runner.health.retries, runner.health.dead_lettered) == (5, 0)


async def test_recovery_is_tried_until_it_succeeds(bench: Bench) -> None:
    await bench.bus.send(numbers(1))
    agent = Forgetful(recovery=3)
    runner = bench.runner(agent)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0)
    assert (agent.recoveries, agent.values()) == (4, [0])


async def test_a_defect_gets_three_tries_and_then_the_others_go_on(bench: Bench) -> None:
    await bench.bus.send([*numbers(1), Outgoing(topic=COMMANDS.name, partition=0, value=b"bug")])
    await bench.bus.send(numbers(1, start=1))
    picky = Picky()
    runner = bench.runner(picky)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0, 1, 2)
    assert picky.values() == [0, 1]
    assert (runner.health.failures, runner.health.dead_lettered) == (3, 1)
    [letter] = await bench.contents(DEADLETTER.name)
    assert letter.headers["x-error"] == b"ZeroDivisionError: a defect"


class Verbose(Notes):
    """Answers with more than a broker takes."""

    async def handle(self, record: Incoming) -> Handled:
        await super().handle(record)
        return [[Outgoing(topic=SCORES.name, partition=0, value=b"x" * (2 * 1024 * 1024))]]


async def test_a_result_too_large_for_the_broker_does_not_stop_the_loop(bench: Bench) -> None:
    await bench.bus.send(numbers(2))
    agent = Verbose()
    runner = bench.runner(agent)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0, 1)
    assert agent.values() == [0, 1]
    assert [letter.value for letter in await bench.contents(DEADLETTER.name)] == [b"0", b"1"]


class Stuck(Notes):
    """Never finishes a record."""

    entered = False

    async def handle(self, record: Incoming) -> Handled:
        self.entered = True
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_a_revoked_partition_does_not_wait_for_a_stuck_record(bench: Bench) -> None:
    await bench.bus.send(numbers(1))
    stuck = Stuck()
    runner = bench.runner(stuck)
    await runner.assign(ONE_PARTITION)
    feeding = asyncio.create_task(bench.feed(runner, 0))
    await until(lambda: stuck.entered)
    await asyncio.wait_for(runner.revoke(), 10)
    await asyncio.wait_for(feeding, 10)
    assert (stuck.owned, runner.progress()) == (frozenset(), {})
    assert runner.health.handled == 0


async def test_partitions_that_come_back_are_recovered_anew(bench: Bench) -> None:
    """Another worker may have had them in between, so nothing remembered of them is true any more."""
    await bench.bus.send(numbers(2))
    notes = Notes()
    runner = bench.runner(notes)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0)
    await runner.assign(ONE_PARTITION)
    await bench.feed(runner, 0, 1)
    assert notes.recoveries == 2
    assert notes.values() == [0, 0, 1]


async def test_records_that_nobody_delivers_are_swept_up(broker: StreamSettings) -> None:
    settings = StreamSettings.embedded(broker.bootstrap, sweep_first_s=0.1, sweep_interval_s=0.1)
    await create_topics(settings)
    async with KafkaBus(settings) as bus:
        bench = Bench(settings, bus)
        await bus.send(numbers(5))
        notes = Notes()
        runner = bench.runner(notes)
        await runner.assign(ONE_PARTITION)
        await until(lambda: len(notes.records) == 5)
        await bench.feed(runner, 3, 4)  # delivered at last, too late
        assert (notes.values(), runner.health.swept) == ([0, 1, 2, 3, 4], 5)
        await runner.revoke()


class Ticker(Notes):
    """Says the time four times a second."""

    interval_s = 0.25

    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[float] = []

    async def tick(self, now: float) -> Handled:
        self.ticks.append(now)
        return [[Outgoing(topic=CLOCK.name, partition=p, value=str(now).encode()) for p in self.owned]]


async def test_ticks_come_at_multiples_of_the_interval_and_are_written(bench: Bench) -> None:
    ticker = Ticker()
    runner = bench.runner(ticker)
    await runner.assign(ONE_PARTITION)
    await until(lambda: len(ticker.ticks) >= 4)
    await runner.revoke()
    told = [float(record.value) for record in await bench.contents(CLOCK.name)]
    assert told[:3] == ticker.ticks[:3]
    numbers_of = [int(now / ticker.interval_s) for now in ticker.ticks]
    assert sorted(set(numbers_of)) == numbers_of, "one tick per interval"
