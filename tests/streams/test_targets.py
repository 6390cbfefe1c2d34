"""One task per target: what wins, what is reported, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from actuators.base import Binding, Fence, TrafficAdapter
from actuators.memory import MemoryAdapter, Platform
from domain.clock import SystemClock
from domain.decision import ActionOutcome, Cause, Decision, DecisionKind, Order, decision_id
from domain.errors import Denied, Outcome, StoreUnavailable, Transient
from domain.policy import MatchRule, Traffic
from domain.records import ActionRecord, DecisionRecord
from store.database import open_engine, upgrade
from store.journal import ActionState, Journal, JournalEntry
from store.leases import Leases
from streams.agents.targets import TargetDriver

WITHIN_S = 20.0


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    url = f"sqlite:///{tmp_path / 'sentra.db'}"
    upgrade(url)
    return open_engine(url)


@pytest.fixture
async def world(engine: Engine) -> AsyncIterator[World]:
    world = World(engine)
    yield world
    engine.dispose()


@dataclass
class World:
    """Platforms by target name, one database, and everything that was published."""

    engine: Engine
    platforms: dict[str, Platform] = field(default_factory=dict)
    published: list[ActionRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal = FlakyJournal(self.engine)

    def platform(self, name: str = "shop") -> Platform:
        return self.platforms.setdefault(name, Platform({"v1": 10_000}, versions={"v1", "v2"}))

    def adapter(self, name: str, binding: Binding) -> TrafficAdapter:
        assert name == "memory"
        return MemoryAdapter(binding, self.platform(str(binding.target["name"])))

    async def publish(self, record: ActionRecord) -> None:
        self.published.append(record)

    @asynccontextmanager
    async def driver(
        self, *, owner: str = "worker-1", watch_every_s: float = 60.0
    ) -> AsyncIterator[TargetDriver]:
        driver = TargetDriver(
            journal=self.journal,
            epochs=Leases(self.engine),
            publish=self.publish,
            owner=owner,
            clock=SystemClock(),
            open_adapter=self.adapter,
            watch_every_s=watch_every_s,
        )
        try:
            yield driver
        finally:
            await driver.aclose()

    def outcomes(self, generation: int | None = None) -> list[ActionOutcome]:
        return [
            record.outcome
            for record in self.published
            if record.outcome is not ActionOutcome.SENT and generation in (None, record.generation)
        ]

    def state(self, generation: int) -> ActionState | None:
        """What the journal says of an order of the first rollout."""
        entry = self.journal.load(order(generation).decision.decision_id)
        return entry.state if entry else None

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                await asyncio.sleep(0.005)

    async def until_verified(self, generation: int) -> None:
        await self.until(lambda: ActionOutcome.VERIFIED in self.outcomes(generation))


def order(
    generation: int,
    bp: int = 0,
    *,
    kind: Order = Order.SHIFT,
    target: str = "shop",
    rollout: str = "r1",
    cause: Cause = Cause.PASSED,
    owner_epoch: int = 1,
) -> DecisionRecord:
    decision = Decision(
        decision_id=decision_id(rollout, generation),
        rollout_id=rollout,
        seq=generation,
        kind=DecisionKind.ROLL_BACK if kind is Order.RESTORE else DecisionKind.ADVANCE,
        cause=cause,
        reason="because",
        order=kind,
        weight_bp=bp,
        generation=generation,
    )
    return DecisionRecord(
        decision=decision,
        service="shop",
        environment="test",
        stable="v1",
        canary="v2",
        traffic=Traffic(adapter="memory", target={"name": target}),
        match=MatchRule(),
        target_key=f"memory:name={target}",
        owner="judge-1",
        owner_epoch=owner_epoch,
        verify_timeout_s=10.0,
    )


async def test_an_order_is_applied_verified_and_reported(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
    sent, verified = world.published
    assert (sent.outcome, verified.outcome) == (ActionOutcome.SENT, ActionOutcome.VERIFIED)
    assert (verified.observed_bp, verified.wanted_bp, verified.token) == (500, 500, "1")
    assert (verified.epoch, verified.owner) == (1, "worker-1")
    assert world.platform().stored.weights == {"v1": 9_500, "v2": 500}


async def test_a_refused_order_says_why(world: World) -> None:
    world.platform().faults.before_apply.append(Denied("no permission"))
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until(lambda: bool(world.outcomes()))
    assert world.published[-1].outcome is ActionOutcome.REFUSED
    assert "no permission" in world.published[-1].detail
    assert world.published[-1].observed_bp == 0


async def test_preparing_refuses_a_target_whose_canary_has_traffic(world: World) -> None:
    world.platform().edit({"v1": 8_000, "v2": 2_000})
    async with world.driver() as driver:
        await driver.accept(order(1, kind=Order.PREPARE))
        await world.until(lambda: bool(world.outcomes()))
    assert world.published[-1].outcome is ActionOutcome.REFUSED
    assert "not all on v1" in world.published[-1].detail
    assert world.platform().writes == 1


async def test_a_restore_cancels_a_running_shift(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        world.platform().faults.apply_takes_s = 3_600.0
        await driver.accept(order(2, 1_500))
        await world.until(lambda: any(record.generation == 2 for record in world.published))
        world.platform().faults.apply_takes_s = 0.0
        await driver.accept(order(3, kind=Order.RESTORE))
        await world.until_verified(3)
        assert world.platform().stored.weights == {"v1": 10_000}
        assert world.outcomes(2) == []
        await world.until(lambda: world.state(2) is ActionState.SUPERSEDED)


async def test_the_newest_generation_wins_whatever_the_order_of_arrival(world: World) -> None:
    async with world.driver() as driver:
        for generation, bp in ((1, 500), (4, 6_500), (3, 3_500), (2, 1_500)):
            driver.submit(order(generation, bp))
        await world.until_verified(4)
    assert world.platform().stored.weights == {"v1": 3_500, "v2": 6_500}
    assert {record.generation for record in world.published} == {4}


async def test_nothing_of_a_rollout_goes_up_after_its_restore(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(2, kind=Order.RESTORE))
        await driver.accept(order(3, 5_000))
        await driver.accept(order(1, rollout="r2", target="other"))
        await world.until(lambda: len(world.outcomes()) == 2)
        await world.until(lambda: world.state(3) is ActionState.SUPERSEDED)
    assert world.platform().stored.weights == {"v1": 10_000}
    assert world.outcomes(3) == []
    async with world.driver() as restarted:
        assert await restarted.resume() == 0


async def test_an_order_up_that_was_journaled_later_does_not_displace_a_restore(world: World) -> None:
    world.journal.intend(order(2, kind=Order.RESTORE), at=0.0, owner="worker-1")
    world.journal.intend(order(3, 5_000), at=0.0, owner="worker-1")
    world.platform().edit({"v1": 6_000, "v2": 4_000})
    async with world.driver() as driver:
        assert await driver.resume() == 2
        await world.until_verified(2)
    assert world.platform().stored.weights == {"v1": 10_000}
    assert world.outcomes(3) == []


async def test_a_decision_of_a_deposed_judge_is_dropped(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500, owner_epoch=7))
        await world.until_verified(1)
        await driver.accept(order(2, 9_000, owner_epoch=6))
        await driver.accept(order(3, 1_500, owner_epoch=7))
        await world.until_verified(3)
    assert world.outcomes(2) == []
    assert world.platform().stored.weights == {"v1": 8_500, "v2": 1_500}


async def test_a_blocked_target_never_delays_another_ones_roll_back(world: World) -> None:
    async with world.driver() as driver:
        for number in range(20):
            world.platform(f"stuck-{number}").faults.apply_takes_s = 3_600.0
            await driver.accept(order(1, 500, target=f"stuck-{number}", rollout=f"s{number}"))
        await world.until(lambda: len(world.published) == 20)
        await driver.accept(order(2, kind=Order.RESTORE))
        await world.until_verified(2)
    assert world.outcomes() == [ActionOutcome.VERIFIED]


async def test_a_verified_decision_is_reported_again_and_not_applied_again(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        await driver.accept(order(1, 500))
        await world.until(lambda: len(world.outcomes(1)) == 2)
    writes = world.platform().writes
    async with world.driver() as restarted:
        await restarted.accept(order(1, 500))
        await world.until(lambda: len(world.outcomes(1)) == 3)
    assert world.outcomes(1) == [ActionOutcome.VERIFIED] * 3
    assert world.platform().writes == writes


async def test_a_crash_between_sending_and_the_answer_makes_one_change(world: World) -> None:
    """Killed after the platform stored it and before anybody heard of it."""
    world.platform().faults.lose_answers = 1
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until(lambda: world.platform().writes == 1)
    entry = Journal(world.engine).load(order(1).decision.decision_id)
    assert entry is not None
    assert entry.state is not ActionState.VERIFIED

    async with world.driver() as restarted:
        assert await restarted.resume() == 1
        await world.until_verified(1)
    assert world.platform().weight_changes == [{"v1": 10_000}, {"v1": 9_500, "v2": 500}]
    assert world.platform().stored.fence == Fence(owner="worker-1", epoch=2)


async def test_a_crash_before_sending_loses_nothing(world: World) -> None:
    world.platform().faults.apply_takes_s = 3_600.0
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until(lambda: bool(world.published))
    assert world.platform().writes == 0
    world.platform().faults.apply_takes_s = 0.0
    async with world.driver() as restarted:
        await restarted.resume()
        await world.until_verified(1)
    assert world.platform().weight_changes == [{"v1": 10_000}, {"v1": 9_500, "v2": 500}]


async def test_after_a_restart_an_overtaken_decision_stays_overtaken(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        await driver.accept(order(2, kind=Order.RESTORE))
        await world.until_verified(2)
    async with world.driver() as restarted:
        await restarted.accept(order(1, 500))
        await restarted.accept(order(9, 9_000, rollout="r0", target="other"))
        await world.until_verified(9)
    assert world.platform().stored.weights == {"v1": 10_000}


async def test_a_worker_that_was_replaced_changes_nothing_and_says_so(world: World) -> None:
    async with world.driver(owner="old") as old:
        await old.accept(order(1, 500))
        await world.until_verified(1)
        async with world.driver(owner="new") as new:
            await new.accept(order(2, 1_500))
            await world.until_verified(2)
            await old.accept(order(3, 9_000))
            await world.until(lambda: bool(world.outcomes(3)))
    assert world.outcomes(3) == [ActionOutcome.REFUSED]
    assert "epoch" in world.published[-1].detail
    assert world.platform().stored.weights == {"v1": 8_500, "v2": 1_500}


async def test_a_lost_lease_table_does_not_lock_the_target(world: World, tmp_path: Path) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
    url = f"sqlite:///{tmp_path / 'new.db'}"
    upgrade(url)
    reborn = World(open_engine(url), platforms=world.platforms)
    async with reborn.driver(owner="worker-2") as driver:
        await driver.accept(order(2, 1_500))
        await reborn.until_verified(2)
    reborn.engine.dispose()
    assert world.platform().stored.fence == Fence(owner="worker-2", epoch=2)


async def test_drift_is_reported_once_and_its_end_as_well(world: World) -> None:
    async with world.driver(watch_every_s=0.01) as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        written = world.platform().stored
        world.platform().edit({"v1": 6_000, "v2": 4_000})
        await world.until(lambda: len(world.outcomes()) == 2)
        seen = world.published[-1]
        assert (seen.outcome, seen.observed_bp, seen.wanted_bp) == (ActionOutcome.DRIFT, 4_000, 500)
        observing = world.platform().observations
        await world.until(lambda: world.platform().observations > observing + 5)
        assert len(world.outcomes()) == 2
        world.platform().store(written)
        await world.until(lambda: len(world.outcomes()) == 3)
    assert world.published[-1].outcome is ActionOutcome.VERIFIED


async def test_a_platform_that_lastingly_serves_something_else_is_drift(world: World) -> None:
    async with world.driver(watch_every_s=0.01) as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        world.platform().faults.never_reconciles = True
        await world.until(lambda: len(world.outcomes()) == 2)
        assert world.published[-1].outcome is ActionOutcome.DRIFT
        assert "not what serves" in world.published[-1].detail
        world.platform().faults.never_reconciles = False
        await world.until(lambda: world.outcomes()[2:] == [ActionOutcome.VERIFIED])


async def test_an_order_given_because_of_a_drift_overwrites_it(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        world.platform().edit({"v1": 6_000, "v2": 4_000})
        await driver.accept(order(2, 1_500))
        await world.until(lambda: bool(world.outcomes(2)))
        assert world.outcomes(2) == [ActionOutcome.DRIFT]
        assert world.platform().stored.weights["v2"] == 4_000
        await driver.accept(order(3, 500, cause=Cause.DRIFT))
        await world.until_verified(3)
    assert world.platform().stored.weights == {"v1": 9_500, "v2": 500}


async def test_a_watched_target_that_cannot_be_seen_is_no_drift(world: World) -> None:
    async with world.driver(watch_every_s=0.01) as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        unseen = [Transient("no answer", outcome=Outcome.UNKNOWN, retryable=False) for _ in range(5)]
        world.platform().faults.on_observe.extend(unseen)
        await world.until(lambda: not world.platform().faults.on_observe)
    assert world.outcomes() == [ActionOutcome.VERIFIED]


async def test_going_down_works_while_the_database_does_not(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        world.journal.is_away = True
        with pytest.raises(StoreUnavailable):
            await driver.accept(order(2, kind=Order.RESTORE))
        await world.until_verified(2)
    assert world.platform().stored.weights == {"v1": 10_000}


async def test_going_down_does_not_wait_for_a_database_that_hangs(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        world.journal.hangs_s = 5.0
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await driver.accept(order(2, kind=Order.RESTORE))
        await world.until_verified(2)
        assert time.monotonic() - began < 5.0
    assert world.platform().stored.weights == {"v1": 10_000}


async def test_going_up_stops_while_the_database_does_not_work(world: World) -> None:
    async with world.driver() as driver:
        world.journal.is_away = True
        driver.submit(order(1, 500))
        await world.until(lambda: bool(world.outcomes()))
    assert world.outcomes() == [ActionOutcome.NOT_APPLIED]
    assert world.platform().writes == 0


async def test_the_next_rollout_of_a_target_begins_a_new_reign(world: World) -> None:
    async with world.driver() as driver:
        await driver.accept(order(1, 500))
        await world.until_verified(1)
        await driver.accept(order(2, kind=Order.RESTORE))
        await world.until_verified(2)
        await driver.accept(order(11, kind=Order.PREPARE, rollout="r2"))
        await world.until_verified(11)
        await driver.accept(order(12, 500, rollout="r2"))
        await world.until_verified(12)
    assert world.platform().stored.fence == Fence(owner="worker-1", epoch=2)
    assert world.platform().stored.weights == {"v1": 9_500, "v2": 500}


class FlakyJournal(Journal):
    """The table of actions in a database that can be away."""

    is_away = False
    hangs_s = 0.0

    def intend(self, record: DecisionRecord, *, at: float, epoch: int = 0, owner: str = "") -> bool:
        self._check()
        return super().intend(record, at=at, epoch=epoch, owner=owner)

    def latest(self, target_key: str) -> JournalEntry | None:
        self._check()
        return super().latest(target_key)

    def load(self, decision_id: str) -> JournalEntry | None:
        self._check()
        return super().load(decision_id)

    def record(self, decision_id: str, state: ActionState, **facts: Any) -> bool:
        self._check()
        return super().record(decision_id, state, **facts)

    def _check(self) -> None:
        time.sleep(self.hangs_s)
        if self.is_away:
            raise StoreUnavailable("the database is away")
