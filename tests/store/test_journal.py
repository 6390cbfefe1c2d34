"""The actuation journal: forwards only, once per decision, and readable after any crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import Engine

from store.journal import ActionState, Journal
from tests.store.examples import T0, order

STATES = list(ActionState)


@pytest.fixture
def journal(engine: Engine) -> Journal:
    return Journal(engine)


def the_id(seq: int = 7) -> str:
    return order(seq).decision.decision_id


def test_an_order_is_noted_once_and_comes_back_whole(journal: Journal) -> None:
    assert journal.load(the_id()) is None
    assert journal.intend(order(), at=T0, owner="w1")
    assert not journal.intend(order(), at=T0 + 9, owner="w2")
    entry = journal.load(the_id())
    assert entry is not None
    assert (entry.record, entry.state, entry.owner) == (order(), ActionState.INTENT, "w1")
    assert (entry.intent_at, entry.sent_at, entry.attempts, entry.generation) == (T0, None, 0, 2)
    assert entry.decision_id == the_id()


def test_each_stage_keeps_its_moment_and_what_was_learned(journal: Journal) -> None:
    journal.intend(order(), at=T0)
    assert journal.record(the_id(), ActionState.SENT, at=T0 + 1, epoch=3, owner="w", token_before="a")
    assert journal.record(the_id(), ActionState.APPLIED, at=T0 + 2, epoch=3, owner="w", token_after="b")
    assert journal.record(the_id(), ActionState.VERIFIED, at=T0 + 3, epoch=3, owner="w", observed_bp=500)
    entry = journal.load(the_id())
    assert entry is not None
    assert (entry.sent_at, entry.applied_at, entry.verified_at) == (T0 + 1, T0 + 2, T0 + 3)
    assert (entry.token_before, entry.token_after, entry.observed_bp) == ("a", "b", 500)
    assert (entry.state, entry.attempts, entry.epoch, entry.owner) == (ActionState.VERIFIED, 1, 3, "w")


def standing(journal: Journal, decision_id: str) -> tuple[int, int]:
    entry = journal.load(decision_id)
    assert entry is not None
    return entry.attempts, STATES.index(entry.state)


def test_whatever_is_recorded_in_whatever_order_it_never_goes_backwards(journal: Journal) -> None:
    for seq, path in enumerate(product(STATES[1:], repeat=3), start=1):
        journal.intend(order(seq, generation=seq), at=T0)
        before = standing(journal, the_id(seq))
        for state in path:
            was_final = STATES[before[1]].is_final
            moved = journal.record(the_id(seq), state, at=T0)
            after = standing(journal, the_id(seq))
            assert after > before if moved else after == before
            assert not (moved and was_final)
            before = after


def test_sending_again_is_a_new_attempt(journal: Journal) -> None:
    journal.intend(order(), at=T0)
    for state in (ActionState.SENT, ActionState.APPLIED, ActionState.NOT_APPLIED, ActionState.SENT):
        assert journal.record(the_id(), state, at=T0)
    assert not journal.record(the_id(), ActionState.INTENT, at=T0)
    assert standing(journal, the_id()) == (2, STATES.index(ActionState.SENT))


def test_an_older_epoch_changes_nothing(journal: Journal) -> None:
    journal.intend(order(), at=T0)
    assert journal.record(the_id(), ActionState.SENT, at=T0, epoch=5, owner="new")
    assert not journal.record(the_id(), ActionState.VERIFIED, at=T0, epoch=4, owner="old")
    assert journal.record(the_id(), ActionState.APPLIED, at=T0, epoch=5, owner="new")
    assert journal.record(the_id(), ActionState.VERIFIED, at=T0, epoch=6, owner="newer")


def test_an_order_nobody_noted_cannot_move(journal: Journal) -> None:
    assert not journal.record("nobody", ActionState.SENT, at=T0)


def test_the_pristine_state_is_remembered_once(journal: Journal) -> None:
    assert journal.snapshot_of("r1") is None
    journal.intend(order(), at=T0)
    journal.record(the_id(), ActionState.SENT, at=T0, snapshot=b"pristine")
    journal.record(the_id(), ActionState.APPLIED, at=T0, snapshot=b"touched")
    assert journal.snapshot_of("r1") == b"pristine"


def test_the_highest_generation_of_the_last_rollout_rules_a_target(journal: Journal) -> None:
    assert journal.latest("t1") is None
    for seq, generation, rollout_id in ((5, 2, "r1"), (9, 4, "r1"), (7, 3, "r1")):
        journal.intend(order(seq, generation, rollout_id), at=T0)
    latest = journal.latest("t1")
    assert latest is not None
    assert latest.generation == 4
    journal.intend(order(1, 1, "r2"), at=T0)
    latest = journal.latest("t1")
    assert latest is not None
    assert latest.record.decision.rollout_id == "r2"


def test_floors_for_a_restart_come_from_the_journal(journal: Journal) -> None:
    assert (journal.highest_generation("r1"), journal.highest_seq("r1")) == (0, 0)
    assert journal.last_verified("r1") is None
    for seq, generation in ((5, 2), (9, 3)):
        journal.intend(order(seq, generation), at=T0)
    journal.record(the_id(5), ActionState.VERIFIED, at=T0, observed_bp=500)
    assert (journal.highest_generation("r1"), journal.highest_seq("r1")) == (3, 9)
    verified = journal.last_verified("r1")
    assert verified is not None
    assert verified.observed_bp == 500


def test_unfinished_orders_are_those_that_may_still_move(journal: Journal) -> None:
    for seq, state in enumerate(STATES, start=1):
        journal.intend(order(seq, generation=seq), at=T0, owner="mine" if seq % 2 else "yours")
        if state is not ActionState.INTENT:
            journal.record(the_id(seq), state, at=T0, owner="mine" if seq % 2 else "yours")
    unfinished = [ActionState.INTENT, ActionState.SENT, ActionState.APPLIED, ActionState.NOT_APPLIED]
    assert [entry.state for entry in journal.unfinished()] == unfinished
    assert [entry.state for entry in journal.unfinished("mine")] == unfinished[::2]


def test_of_many_who_note_one_order_one_is_first(engine: Engine) -> None:
    with ThreadPoolExecutor(6) as pool:
        firsts = list(pool.map(lambda _: Journal(engine).intend(order(), at=T0), range(6)))
    assert sorted(firsts) == [False] * 5 + [True]


WRITER = textwrap.dedent("""
    import sys
    sys.path.insert(0, sys.argv[2])
    from store.database import open_engine
    from store.journal import ActionState, Journal
    from tests.store.examples import order
    journal = Journal(open_engine(sys.argv[1]))
    for seq in range(1, 100_000):
        journal.intend(order(seq, generation=seq), at=float(seq))
        for state in (ActionState.SENT, ActionState.APPLIED, ActionState.VERIFIED):
            journal.record(order(seq).decision.decision_id, state, at=float(seq), observed_bp=seq)
            print(seq, state.value, flush=True)
""")


@pytest.mark.parametrize("after_lines", [1, 5, 24])
def test_killing_the_writer_between_two_writes_leaves_a_consistent_journal(
    url: str, after_lines: int
) -> None:
    from store.database import open_engine

    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", WRITER, url, str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(after_lines)]
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    told = [line.split() for line in said if line.endswith(b"\n")]
    engine = open_engine(url)
    journal = Journal(engine)
    for seq, state in told:
        entry = journal.load(the_id(int(seq)))
        assert entry is not None, "what was reported as stored is stored"
        assert STATES.index(entry.state) >= STATES.index(ActionState(state.decode()))
    deadline = time.monotonic() + 10
    while len(open_orders := journal.unfinished()) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)  # a server may still be busy with the dead client's last statement
    assert len(open_orders) <= 1
    assert journal.highest_generation("r1") - int(told[-1][0]) in (0, 1)
    engine.dispose()
