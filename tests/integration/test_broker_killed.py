"""kill -9 of the embedded broker, which keeps nothing: a new log, and rollouts restored from the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.records import RestartInput
from domain.rollout import Phase
from sentra.embedded.stack import Stack
from store.outbox import Outbox
from tests.integration.feeding import Feeder
from tests.integration.loop import CLOCK, Loop, Measured, processes, until

pytestmark = [pytest.mark.server, pytest.mark.slow]


async def test_a_rollout_survives_the_loss_of_the_whole_log(
    loop: tuple[Loop, Stack], measured: Measured
) -> None:
    made, stack = loop
    rollout = made.start()
    await made.until_in_force(rollout, step=1)

    before = stack.broker.cluster_id
    await made.log.aclose()
    assert stack.broker.child is not None
    stack.broker.child.kill()
    killed = CLOCK.now()
    await until(lambda: stack.broker.cluster_id != before, "the broker is started again")
    await stack.broker.wait_until_ready()
    await until(lambda: stack.worker is not None and stack.worker.is_alive(), "and the worker")
    await until(
        lambda: (stack.state_dir / "worker.ready").read_text() == str(stack.worker and stack.worker.pid),
        "ready",
    )
    await made.read_new_log()
    measured("broker killed -> next evaluation", await made.until_judged_after(killed))

    await made.until_phase(rollout, Phase.PROMOTED)
    stored = await made.assert_replays(rollout, log_was_lost=True)
    assert sum(isinstance(each.input, RestartInput) for each in stored) == 1
    assert made.settings.broker_epoch == stack.broker.cluster_id


async def test_a_start_that_only_the_lost_log_had_is_published_again(tmp_path: Path) -> None:
    async with (
        processes(tmp_path, "relay", with_traffic=False) as (made, _),
        Feeder(made) as feeder,
    ):
        feeder.start("roll-1")
        await until(lambda: not _pending(made), "the relay published the start")
        await made.log.aclose()
    # Nobody had folded it when the broker died.
    async with processes(tmp_path, "judge,record,relay", with_traffic=False) as (made, _):
        await made.until_phase("roll-1", Phase.STARTING, within_s=10.0)


def _pending(made: Loop) -> int:
    return len(Outbox(made.engine).pending())
