"""What a script waits for comes from the story, and what it does happens on the real data plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.clock import SystemClock
from domain.decision import Order
from domain.verdict import Verdict
from sentra.embedded.demo.behaviour import HEALTHY, Fault
from sentra.embedded.demo.control import read_status
from sentra.embedded.demo.plane import CANARY, DataPlane
from sentra.embedded.demo.scenarios import SCENARIOS
from sentra.embedded.demo.stage import Stage
from sentra.embedded.demo.story import Story
from tests.sentra.embedded.demo.tale import ROLLOUT, Tale, quick_policy
from tests.sentra.embedded.waiting import eventually

pytestmark = pytest.mark.server


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[DataPlane]:
    async with DataPlane(tmp_path, seed=1) as running:
        yield running


@pytest.fixture
def story() -> Story:
    return Story(rollout_id=ROLLOUT)


@pytest.fixture
def stage(plane: DataPlane, story: Story) -> Stage:
    return Stage(plane, story, quick_policy(), SystemClock(), seed=1)


def tell(story: Story, tale: Tale) -> None:
    for record in tale.records():
        story.read(record)


async def test_a_script_goes_on_when_its_step_is_in_force(stage: Stage, story: Story) -> None:
    waiting = asyncio.create_task(stage.until_in_force(1))
    tale = Tale()
    tale.report(tale.order(Order.SHIFT, 1.0, step=0, weight_bp=500), 1.1)
    tell(story, tale)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tale.report(tale.order(Order.SHIFT, 2.0, step=1, weight_bp=2000), 2.1)
    tell(story, tale)
    await asyncio.wait_for(waiting, 5.0)


async def test_a_script_goes_on_after_so_many_passes_in_the_step(stage: Stage, story: Story) -> None:
    waiting = asyncio.create_task(stage.until_passes(step=0, passes=2))
    tale = Tale()
    tale.report(tale.order(Order.SHIFT, 1.0, weight_bp=500, verdict=None), 1.1)
    tale.tick(5.0, Verdict.PASS)
    for record in (*tale.actions, *tale.evaluations):
        story.read(record)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tale.tick(6.0, Verdict.PASS)
    story.read(tale.evaluations[-1])
    await asyncio.wait_for(waiting, 5.0)


async def test_a_fault_reaches_the_canary_alone_and_its_beginning_is_noted(
    stage: Stage, plane: DataPlane, story: Story
) -> None:
    before = stage.clock.now()
    await stage.canary_does(Fault(error_ratio=0.5))
    canary, stable = await read_status(plane.canary.port), await read_status(plane.stable.port)
    assert canary is not None and canary.fault == Fault(error_ratio=0.5)
    assert stable is not None and stable.fault == HEALTHY
    assert stage.fault_at is not None and before <= stage.fault_at <= stage.clock.now()
    began = stage.fault_at
    await stage.canary_does(HEALTHY)
    assert stage.fault_at == began
    assert [what for _, what in story.events] == ["the fault begins", "the fault ends"]


async def test_shared_trouble_reaches_both_and_its_beginning_is_noted(
    stage: Stage, plane: DataPlane, story: Story
) -> None:
    await stage.both_do(Fault(error_ratio=0.5))
    for version in (plane.stable, plane.canary):
        status = await read_status(version.port)
        assert status is not None and status.fault == Fault(error_ratio=0.5)
    assert stage.fault_at is not None
    assert [what for _, what in story.events] == ["the fault begins in both versions"]


async def test_what_is_usual_for_both_is_no_fault(stage: Stage, plane: DataPlane, story: Story) -> None:
    await SCENARIOS["aa"].script(stage)
    stable, canary = await read_status(plane.stable.port), await read_status(plane.canary.port)
    assert stable is not None and canary is not None
    assert stable.fault == canary.fault != HEALTHY
    assert stage.fault_at is None
    assert not story.events


async def test_killing_the_canary_leaves_stable_and_says_when(stage: Stage, plane: DataPlane) -> None:
    before = stage.clock.now()
    stage.kill_canary()
    canary = plane.canary.child
    assert canary is not None
    await eventually(lambda: not canary.is_alive())
    assert await read_status(plane.stable.port) is not None
    assert list(stage.killed) == [CANARY]
    assert before <= stage.killed[CANARY] <= stage.clock.now()


async def test_telemetry_that_stops_is_held_back_and_traffic_is_not(stage: Stage, plane: DataPlane) -> None:
    stage.stop_telemetry()
    assert plane.relay.is_black_hole
    assert await read_status(plane.canary.port) is not None
    assert stage.fault_at is not None


async def test_the_flaky_scenario_is_over_at_the_end_of_a_tick(
    stage: Stage, plane: DataPlane, story: Story
) -> None:
    tale = Tale()
    tale.report(tale.order(Order.SHIFT, 1.0, step=1, weight_bp=2000, verdict=None), 1.1)
    for record in (*tale.evaluations, *tale.actions):
        story.read(record)
    tale.tick(2.0, Verdict.PASS, step=1)
    tale.tick(3.0, Verdict.PASS, step=1)
    for record in tale.evaluations[1:]:
        story.read(record)
    await asyncio.wait_for(SCENARIOS["flaky"].script(stage), 10.0)
    status = await read_status(plane.canary.port)
    assert status is not None and status.fault == HEALTHY
    assert [what for _, what in story.events][-2:] == ["the fault begins", "the fault ends"]
    (began, _), (ended, _) = list(story.events)[-2:]
    assert int(ended) == int(began) + 1
