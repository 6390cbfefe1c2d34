"""The record agent on a log in memory and a real database: nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.decision import CommandKind
from domain.errors import RecordError, StoreUnavailable
from store.writer import BatchWriter
from streams.agents.record import RecordAgent
from streams.bus import Outgoing
from streams.topics import EVALUATIONS
from tests.streams.judging import T0, World, command, frame, spec


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A log on which a rollout has been judged for a while."""
    world = World(tmp_path)
    judge = await world.judge()
    await world.begin(judge, spec())
    for second in range(1, 4):
        world.clock.advance(1.0)
        world.report(frame(["r-1"], T0 + second))
        await world.catch_up(judge)
    return world


def agent_of(world: World, writer: BatchWriter, broker_epoch: str = "log-1") -> RecordAgent:
    return RecordAgent(writer=writer, facts=world.repository, live=None, broker_epoch=broker_epoch)


async def read(world: World, agent: RecordAgent, *, limit: int | None = None) -> None:
    starts = await agent.assigned(frozenset({0}), world.bus)
    for topic in agent.topics:
        for record in world.bus.records(topic, start=starts[topic, 0])[:limit]:
            await agent.handle(record)


def stored(world: World) -> list[int]:
    return [each.seq for each in world.repository.evaluations_of("r-1")]


async def test_what_is_on_the_topic_is_stored_once_although_it_is_read_twice(world: World) -> None:
    async with BatchWriter(world.repository) as writer:
        first = agent_of(world, writer)
        await read(world, first)
        await read(world, first)
        await first.tick(0.0)
    assert stored(world) == [each.seq for each in world.evaluations()]


async def test_an_agent_that_died_before_its_flush_begins_again_where_the_database_ends(world: World) -> None:
    async with BatchWriter(world.repository) as writer:
        agent = agent_of(world, writer)
        await read(world, agent, limit=2)
        await agent.tick(0.0)
    # This one takes everything in and dies with it in its queue: the writer never stores it.
    dead = agent_of(world, BatchWriter(world.repository))
    await read(world, dead)

    async with BatchWriter(world.repository) as writer:
        heir = agent_of(world, writer)
        starts = await heir.assigned(frozenset({0}), world.bus)
        assert starts[EVALUATIONS.name, 0] == world.bus.records(EVALUATIONS.name)[1].offset + 1
        await read(world, heir)
        await heir.tick(0.0)
    assert stored(world) == [each.seq for each in world.evaluations()]


async def test_positions_in_another_brokers_log_count_for_nothing(world: World) -> None:
    async with BatchWriter(world.repository) as writer:
        agent = agent_of(world, writer)
        await read(world, agent)
        await agent.tick(0.0)
        other = agent_of(world, writer, "log-2")
        starts = await other.assigned(frozenset({0}), world.bus)
    assert set(starts.values()) == {0}


async def test_letting_go_of_a_partition_stores_what_was_read(world: World) -> None:
    async with BatchWriter(world.repository) as writer:
        agent = agent_of(world, writer)
        await read(world, agent)
        await agent.revoked(frozenset({0}))
        assert stored(world) == [each.seq for each in world.evaluations()]


async def test_a_database_that_is_away_keeps_the_positions_where_they_were(
    world: World, tmp_path: Path
) -> None:
    async with BatchWriter(world.repository) as writer:
        agent = agent_of(world, writer)
        await read(world, agent)
        database = tmp_path / "sentra.db"
        world.engine.dispose()
        hidden = database.rename(tmp_path / "hidden.db")
        database.mkdir()
        with pytest.raises(StoreUnavailable):
            await agent.tick(0.0)
        database.rmdir()
        hidden.rename(database)
        await agent.tick(0.0)
    assert stored(world) == [each.seq for each in world.evaluations()]


async def test_evaluations_of_a_deposed_owner_are_not_stored(world: World) -> None:
    old = await world.judge()
    heir = await world.judge()
    world.clock.advance(1.0)
    sent = world.report(frame(["r-1"], world.clock.now(), bad=200.0))
    await world.publish(await old.handle(sent))
    world.ask(command("r-1", CommandKind.PAUSE))
    await world.catch_up(heir)
    async with BatchWriter(world.repository) as writer:
        agent = agent_of(world, writer)
        await read(world, agent)
        await agent.tick(0.0)
    assert world.repository.evaluations_of("r-1") == world.evaluations()


async def test_bytes_that_are_no_frame_raise_and_move_nothing(world: World) -> None:
    async with BatchWriter(world.repository) as writer:
        agent = agent_of(world, writer)
        await read(world, agent)
        poison = world.bus.append(Outgoing(topic=EVALUATIONS.name, partition=0, value=b"\x00poison"))
        with pytest.raises(RecordError, match="not a EvaluationFrame"):
            await agent.handle(poison)
        await agent.tick(0.0)
        starts = await agent.assigned(frozenset({0}), world.bus)
    assert starts[EVALUATIONS.name, 0] == poison.offset
