"""kill -9 of one role while the others live on, each role in a process of its own."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domain.rollout import Phase
from domain.verdict import Verdict
from store.journal import ActionState
from tests.integration.loop import CLOCK, Loop, Measured, Processes, until

pytestmark = [pytest.mark.server, pytest.mark.slow]


async def test_a_judge_killed_alone_goes_on_where_its_own_records_end(
    apart: tuple[Loop, Processes], measured: Measured
) -> None:
    made, parts = apart
    rollout = made.start()
    await made.until_in_force(rollout, step=1)

    killed = parts.kill("judge")
    await parts.start("judge")
    measured("judge killed alone -> next evaluation", await made.until_judged_after(killed))

    await made.until_phase(rollout, Phase.PROMOTED)
    await made.assert_replays(rollout)
    made.assert_seq_without_holes(rollout)
    made.assert_nothing_lost_or_twice(rollout)
    assert any(each.input.__struct_config__.tag == "restart" for each in made.log.evaluations(rollout))


async def test_the_database_catches_up_after_the_record_agent_was_killed(
    apart: tuple[Loop, Processes], measured: Measured
) -> None:
    made, parts = apart
    rollout = made.start()
    await made.until_in_force(rollout, step=0)

    killed = parts.kill("record")
    stored = len(made.stored_seqs(rollout))
    # Judging does not wait for the database.
    await made.until_in_force(rollout, step=1)
    assert len(made.stored_seqs(rollout)) == stored
    await parts.start("record")
    await until(lambda: len(made.stored_seqs(rollout)) > stored, "the database catches up")
    measured("record agent killed -> stored again (down on purpose meanwhile)", CLOCK.now() - killed)

    await made.until_phase(rollout, Phase.PROMOTED)
    await made.assert_replays(rollout)
    on_topic = [each.seq for each in made.log.evaluations(rollout)]
    await until(lambda: made.stored_seqs(rollout) == on_topic, "every evaluation is stored once")
    made.assert_nothing_lost_or_twice(rollout)


async def test_silence_of_a_killed_poller_holds_the_rollout_until_it_is_back(
    apart: tuple[Loop, Processes], measured: Measured
) -> None:
    made, parts = apart
    rollout = made.start()
    await made.until_in_force(rollout, step=1)

    killed = parts.kill("poll")
    await until(
        lambda: any(each.verdict is Verdict.NO_DATA for each in made.log.evaluations_after(killed)),
        "silence is judged as no data",
    )
    measured("poller killed -> NO_DATA", CLOCK.now() - killed)
    step = made.log.public[rollout].step_index
    decided = len(made.log.orders(rollout))
    await until(
        lambda: sum(each.verdict is Verdict.NO_DATA for each in made.log.evaluations_after(killed)) >= 3,
        "it stays silent",
    )
    assert made.log.public[rollout].step_index == step
    assert len(made.log.orders(rollout)) == decided, "silence gives no traffic and takes none"

    await parts.start("poll")
    await made.until_phase(rollout, Phase.PROMOTED)
    await made.assert_replays(rollout)
    made.assert_seq_without_holes(rollout)
    made.assert_nothing_lost_or_twice(rollout)


async def test_an_actuator_killed_between_sent_and_applied_moves_traffic_once(
    apart: tuple[Loop, Processes], measured: Measured
) -> None:
    made, parts = apart
    rollout = made.start()
    await made.until_in_force(rollout, step=0)

    # Killed before the write: it waits for the folder's lock, which we hold.
    with _folder_held(made):
        sent = await _until_it_waits(made, parts, rollout)
        killed = parts.kill("actuate")
    assert not made.routes.writes_of(sent), "nothing was written"
    assert _state(made, rollout, sent) is ActionState.SENT
    await parts.start("actuate")
    await until(lambda: _state(made, rollout, sent) is ActionState.VERIFIED, "the order is taken up again")
    measured("actuator killed before its write -> VERIFIED", CLOCK.now() - killed)

    # Killed after the write: Envoy is frozen, so what was written cannot be seen in force.
    await made.until_in_force(rollout, step=1)
    envoy = made.plane.envoy.child
    assert envoy is not None and envoy.pid is not None
    try:
        with _folder_held(made):
            sent = await _until_it_waits(made, parts, rollout)
            os.kill(envoy.pid, signal.SIGSTOP)
        await until(lambda: bool(made.routes.writes_of(sent)), "the routes are written", 5.0)
        killed = parts.kill("actuate")
    finally:
        os.kill(envoy.pid, signal.SIGCONT)
    assert _state(made, rollout, sent) is ActionState.SENT
    await parts.start("actuate")
    await until(lambda: _state(made, rollout, sent) is ActionState.VERIFIED, "the order is taken up again")
    measured("actuator killed after its write -> VERIFIED", CLOCK.now() - killed)

    await made.until_phase(rollout, Phase.PROMOTED)
    await made.assert_replays(rollout)
    made.assert_seq_without_holes(rollout)
    made.assert_nothing_lost_or_twice(rollout)
    assert made.routes.splits[:4] == [0, 2000, 5000, 10_000], "each change became effective once"


@contextmanager
def _folder_held(made: Loop) -> Iterator[None]:
    """Hold the lock that every writer of the routes takes."""
    held = os.open(made.plane.envoy.routes_path.parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(held)


async def _until_it_waits(made: Loop, parts: Processes, rollout: str) -> str:
    """Until an order is on the wire and its writer waits for the folder's lock; the order."""
    folder = str(made.plane.envoy.routes_path.parent)
    pid = parts.children["actuate"].pid

    def is_waiting() -> bool:
        opened = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
        return folder in opened and bool(_in(made, rollout, ActionState.SENT))

    await until(is_waiting, "a writer waits for the lock")
    return _in(made, rollout, ActionState.SENT)[-1]


def _in(made: Loop, rollout: str, state: ActionState) -> list[str]:
    return [decision_id for decision_id, now, *_ in made.journal(rollout) if now is state]


def _state(made: Loop, rollout: str, wanted: str) -> ActionState | None:
    return next((state for decision_id, state, *_ in made.journal(rollout) if decision_id == wanted), None)
