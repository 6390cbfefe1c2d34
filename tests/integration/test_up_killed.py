"""kill -9 of ``sentra up`` itself in mid-rollout: broker, Redis and worker die with it, Envoy lives on."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from domain.records import RestartInput
from domain.rollout import Phase
from sentra.embedded.demo.behaviour import Fault
from sentra.embedded.processes import birth_mark
from store.journal import ActionState
from tests.integration.loop import CLOCK, Loop, Measured, traffic, until
from tests.integration.upping import Up

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[tuple[Loop, Up]]:
    """``sentra up`` as a person runs it, beside a proxy that is none of its children."""
    async with traffic(tmp_path) as (plane, routes):
        running = Up(tmp_path, sources=plane.sources)
        try:
            found = await running.start()
            loop = Loop(Path(found.config), plane, routes)
            async with loop.log:
                yield loop, running
            await loop.aclose()
        finally:
            await running.stop()


async def test_a_healthy_rollout_survives_a_kill_of_everything(
    up: tuple[Loop, Up], measured: Measured
) -> None:
    made, running = up
    rollout = made.start()
    await made.until_in_force(rollout, step=1)

    await made.log.aclose()
    await _kill_with_all_children(running)
    split = list(made.routes.splits)
    killed = CLOCK.now()
    await asyncio.sleep(2.0)  # nobody is there who could end this wait: it is the time without Sentra
    assert made.routes.splits == split, "traffic stays where it was"

    await running.start()
    await made.read_new_log()
    measured(
        "sentra up killed -> next evaluation (down 2 s on purpose)", await made.until_judged_after(killed)
    )
    await made.until_phase(rollout, Phase.PROMOTED)
    stored = await made.assert_replays(rollout, log_was_lost=True)
    assert sum(isinstance(each.input, RestartInput) for each in stored) == 1, "one restart, folded once"
    # What the broker took with it is decided again, and only from what was recorded.
    back = made.routes.splits[len(split) :]
    assert back in ([10_000], [2000, 5000, 10_000]), made.routes.splits


async def test_a_bad_rollout_killed_with_an_order_in_flight_is_rolled_back_afterwards(
    up: tuple[Loop, Up], measured: Measured
) -> None:
    made, running = up
    rollout = made.start()
    await made.until_in_force(rollout, step=0)
    held = os.open(made.plane.envoy.routes_path.parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        await until(
            lambda: any(state is ActionState.SENT for _, state, *_ in made.journal(rollout)),
            "an order is in flight",
        )
        split = list(made.routes.splits)
        await made.log.aclose()
        await _kill_with_all_children(running)
    finally:
        os.close(held)
    await made.plane.canary.inject(Fault(error_ratio=0.5))
    assert made.routes.splits == split, "traffic stays where it was"

    killed = CLOCK.now()
    await running.start()
    await made.read_new_log()
    measured(
        "sentra up killed with an order in flight -> next evaluation", await made.until_judged_after(killed)
    )
    await made.until_phase(rollout, Phase.ROLLED_BACK)
    await made.assert_replays(rollout, log_was_lost=True)
    assert made.routes.splits[-1] == 0
    for decision_id, state, *_ in made.journal(rollout):
        assert state in (ActionState.VERIFIED, ActionState.SUPERSEDED), decision_id


async def _kill_with_all_children(running: Up) -> None:
    """kill -9 of the supervisor alone; its children must follow by themselves."""
    children = psutil.Process(running.pid).children(recursive=True)
    assert len(children) >= 3, "broker, Redis and worker"
    born = {child.pid: birth_mark(child.pid) for child in children}
    running.kill()
    await until(lambda: all(birth_mark(pid) != mark for pid, mark in born.items()), "no orphan is left", 10.0)
