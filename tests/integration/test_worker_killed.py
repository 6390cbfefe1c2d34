"""kill -9 of the worker process that runs every role."""

from __future__ import annotations

import os
import signal

import pytest

from domain.rollout import Phase
from sentra.embedded.stack import Stack
from tests.integration.loop import CLOCK, Loop, Measured, until

pytestmark = [pytest.mark.server, pytest.mark.slow]


async def test_a_rollout_is_promoted_although_the_worker_is_killed_on_the_way(
    loop: tuple[Loop, Stack], measured: Measured
) -> None:
    made, stack = loop
    rollout = made.start()
    await made.until_in_force(rollout, step=1)

    assert stack.worker is not None and stack.worker.pid is not None
    first = stack.worker.pid
    os.kill(first, signal.SIGKILL)
    killed = CLOCK.now()
    measured("worker killed -> next evaluation", await made.until_judged_after(killed))

    await made.until_phase(rollout, Phase.PROMOTED)
    assert stack.worker.pid != first
    await made.assert_replays(rollout)
    made.assert_seq_without_holes(rollout)
    made.assert_nothing_lost_or_twice(rollout)
    assert made.routes.splits[:4] == [0, 2000, 5000, 10_000]


async def test_a_worker_killed_while_an_order_is_in_flight_moves_traffic_once(
    loop: tuple[Loop, Stack], measured: Measured
) -> None:
    made, stack = loop
    rollout = made.start()
    await made.until_in_force(rollout, step=0)
    # The order of the next step: on the log, perhaps in the journal, not yet reported.
    await until(lambda: made.phase(rollout) is Phase.SHIFTING, "the next step is ordered")

    assert stack.worker is not None and stack.worker.pid is not None
    os.kill(stack.worker.pid, signal.SIGKILL)
    killed = CLOCK.now()
    measured("worker killed in SHIFTING -> next evaluation", await made.until_judged_after(killed))

    await made.until_phase(rollout, Phase.PROMOTED)
    await made.assert_replays(rollout)
    made.assert_seq_without_holes(rollout)
    made.assert_nothing_lost_or_twice(rollout)
