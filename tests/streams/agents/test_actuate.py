"""The actuate agent on a log in memory, a real journal and a platform in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from actuators.base import Binding, TrafficAdapter
from actuators.memory import MemoryAdapter, Platform
from domain.decision import ActionOutcome, CommandKind, Order
from domain.errors import RecordError
from domain.records import ActionRecord, DecisionRecord
from store.journal import ActionState
from store.leases import Leases
from streams.agents.actuate import ActuateAgent
from streams.agents.judge import judge_key
from streams.agents.targets import Publish, TargetDriver
from streams.bus import Incoming, Outgoing
from streams.codec import decode, encode
from streams.topics import ACTIONS, DECISIONS
from tests.streams.judging import World, command, spec


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A log with the first decision of a rollout: prepare."""
    world = World(tmp_path)
    judge = await world.judge()
    world.ask(command("r-1", CommandKind.START, spec()))
    await world.catch_up(judge)
    return world


@pytest.fixture
def platform() -> Platform:
    return Platform({"v1": 10_000}, versions={"v1", "v2"})


@asynccontextmanager
async def acting(world: World, platform: Platform, owner: str = "a-1") -> AsyncIterator[ActuateAgent]:
    def open_adapter(_name: str, binding: Binding) -> TrafficAdapter:
        return MemoryAdapter(binding, platform)

    def make_driver(publish: Publish) -> TargetDriver:
        return TargetDriver(
            journal=world.journal,
            epochs=Leases(world.engine),
            publish=publish,
            owner=owner,
            clock=world.clock,
            open_adapter=open_adapter,
        )

    agent = ActuateAgent(make_driver=make_driver, epoch_of=Leases(world.engine).epoch_of, partitions=1)
    await agent.assigned(frozenset({0}), world.bus)
    try:
        yield agent
    finally:
        await agent.revoked(frozenset({0}))


def decided(world: World, **changes: object) -> Incoming:
    """The first decision, changed, as a new record of the topic."""
    first = world.decisions()[0]
    record = replace(first, owner_epoch=changes.pop("owner_epoch", first.owner_epoch))
    record = replace(record, decision=replace(first.decision, **changes))
    return world.bus.append(Outgoing(topic=DECISIONS.name, partition=0, value=encode(record)))


def outcomes(world: World) -> list[ActionOutcome]:
    return [decode(ActionRecord, each.value).outcome for each in world.bus.records(ACTIONS.name)]


async def until_verified(world: World, count: int = 1) -> None:
    async with asyncio.timeout(10.0):
        while outcomes(world).count(ActionOutcome.VERIFIED) < count:
            await asyncio.sleep(0.01)


async def test_a_decision_is_journaled_before_it_counts_as_handled(world: World, platform: Platform) -> None:
    async with acting(world, platform) as agent:
        first = world.bus.records(DECISIONS.name)[0]
        await agent.handle(first)
        entry = world.journal.load(decode(DecisionRecord, first.value).decision.decision_id)
        assert entry is not None
        await until_verified(world)


async def test_a_decision_read_twice_moves_traffic_once(world: World, platform: Platform) -> None:
    async with acting(world, platform) as agent:
        shift = decided(world, decision_id="d-2", seq=2, generation=2, order=Order.SHIFT, weight_bp=2000)
        await agent.handle(shift)
        await until_verified(world, 1)
        await agent.handle(shift)
        await until_verified(world, 2)
    assert platform.weight_changes == [{"v1": 10_000}, {"v1": 8000, "v2": 2000}]
    assert platform.writes == 1


async def test_a_deposed_judges_decision_is_dropped(world: World, platform: Platform) -> None:
    await world.judge()  # a new owner of the partition, hence a new epoch
    async with acting(world, platform) as agent:
        late = decided(world, decision_id="d-9", seq=9, generation=9, order=Order.SHIFT, weight_bp=10_000)
        assert await agent.handle(late) == []
        assert world.journal.load("d-9") is None
    assert Leases(world.engine).epoch_of(judge_key(0)) == 2
    assert platform.writes == 0


async def test_a_decision_that_orders_nothing_leaves_no_open_row(world: World, platform: Platform) -> None:
    async with acting(world, platform) as agent:
        await agent.handle(decided(world, decision_id="d-3", seq=3, order=Order.NONE))
    assert world.journal.load("d-3") is None
    assert world.journal.unfinished() == []


async def test_an_order_that_a_dead_process_left_open_is_carried_out(
    world: World, platform: Platform
) -> None:
    shift = decided(world, decision_id="d-2", seq=2, generation=2, order=Order.SHIFT, weight_bp=2000)
    world.journal.intend(decode(DecisionRecord, shift.value), at=0.0, owner="long gone")
    world.journal.record("d-2", ActionState.SENT, at=0.0, owner="long gone")
    async with acting(world, platform, owner="a-2"):
        await until_verified(world)
    assert platform.stored.weights == {"v1": 8000, "v2": 2000}
    entry = world.journal.load("d-2")
    assert entry is not None and entry.state is ActionState.VERIFIED


async def test_bytes_that_are_no_decision_raise(world: World, platform: Platform) -> None:
    poison = world.bus.append(Outgoing(topic=DECISIONS.name, partition=0, value=b"{"))
    async with acting(world, platform) as agent:
        with pytest.raises(RecordError, match="not a DecisionRecord"):
            await agent.handle(poison)
