"""The whole table, every row against every column, with what is meant to come of it written as data.

How to read a cell::

    -                                   stays, and nothing is said
    - !fail                             stays, with an incident
    - no / - ok                         stays; the command is refused / accepted
    paused(fail) PAUSE !fail !paused    goes there, with that decision and those incidents
    shifting ADVANCE/shift ok           ... and an order to the actuator
    impossible                          the table has no such cell

A column with ``!`` is the same command with force. PASS is the pass that completes ``pass_count``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.decision import CommandKind
from domain.errors import IllegalTransition
from domain.policy import NoDataRule
from domain.verdict import Verdict
from scorers.decision_machine import TABLE, Conclusion
from scorers.events import Event
from tests.scorers.situations import SITUATIONS, Rollout

DOWN = "rolling_back ROLL_BACK/restore"
TICKS_UNHEARD = dict.fromkeys(("PASS", "INCONCLUSIVE", "NO_DATA", "FAIL", "SEVERE"), "-")
FORCED = ("resume!", "advance!", "promote!")

ENDED = {
    **TICKS_UNHEARD,
    **dict.fromkeys(("pause", "resume", "advance", "promote", "change_policy", *FORCED), "- no"),
    "abort": "- ok",
    "verified": "-",
    "not_applied": "-",
    "drift": "- !drift",
    "restart": "-",
    "time": "-",
    "start": "impossible",
}

PAUSED = {
    "SEVERE": f"{DOWN} !severe !rolled_back",
    "resume": "analysing RESUME ok",
    "resume!": "analysing RESUME ok",
    "abort": f"{DOWN} ok !rolled_back",
    "change_policy": "- ok",
    "verified": "-",
    "not_applied": "- !actuation",
    "drift": "- !drift",
    "restart": "-",
    "time": "-",
    "start": "impossible",
}

BY_DATA = {
    **PAUSED,
    "PASS": "analysing RESUME",
    "INCONCLUSIVE": "-",
    "NO_DATA": "- !no_data",
    "advance": "shifting ADVANCE/shift ok",
    "advance!": "shifting ADVANCE/shift ok",
    "promote": "- no",
    "promote!": "shifting ADVANCE/shift ok",
}

BY_PERSON = {
    **PAUSED,
    "PASS": "-",
    "INCONCLUSIVE": "-",
    "NO_DATA": "- !no_data",
    "advance": "- no",
    "advance!": "- no",
    "promote": "- no",
    "promote!": "shifting ADVANCE/shift ok",
}

MEANT: dict[str, dict[str, str]] = {
    "queued": {
        **TICKS_UNHEARD,
        **dict.fromkeys(("pause", "resume", "resume!"), "- ok"),
        **dict.fromkeys(("advance", "advance!", "promote", "promote!", "change_policy"), "- no"),
        "abort": "aborted ok",
        **dict.fromkeys(("verified", "not_applied", "drift"), "impossible"),
        "restart": "-",
        "time": "-",
        "start": "starting ADVANCE/prepare ok",
    },
    "starting": {
        **TICKS_UNHEARD,
        **dict.fromkeys(("pause", "resume", "resume!"), "- ok"),
        **dict.fromkeys(("advance", "advance!", "promote", "promote!", "change_policy"), "- no"),
        "abort": f"{DOWN} ok !rolled_back",
        "verified": "shifting ADVANCE/shift",
        "not_applied": "failed !actuation",
        "drift": "failed !drift !actuation",
        "restart": "-",
        "time": "-",
        "start": "impossible",
    },
    "shifting": {
        **TICKS_UNHEARD,
        "FAIL": "- !fail",
        "SEVERE": f"{DOWN} !severe !rolled_back",
        **dict.fromkeys(("pause", "resume", "resume!"), "- ok"),
        **dict.fromkeys(("advance", "advance!", "promote", "promote!", "change_policy"), "- no"),
        "abort": f"{DOWN} ok !rolled_back",
        "verified": "warming",
        "not_applied": "- ADVANCE/shift",
        "drift": "paused(drift) PAUSE !drift !paused",
        "restart": "-",
        "time": "-",
        "start": "impossible",
    },
    "warming": {
        **TICKS_UNHEARD,
        "FAIL": "- !fail",
        "SEVERE": f"{DOWN} !severe !rolled_back",
        "pause": "paused(operator) PAUSE ok !paused",
        **dict.fromkeys(("resume", "resume!", "advance", "advance!", "change_policy"), "- no"),
        **dict.fromkeys(("promote", "promote!"), "shifting ADVANCE/shift ok"),
        "abort": f"{DOWN} ok !rolled_back",
        "verified": "-",
        "not_applied": "-",
        "drift": "paused(drift) PAUSE !drift !paused",
        "restart": "-",
        "time": "-",
        "start": "impossible",
    },
    "analysing": {
        "PASS": "shifting ADVANCE/shift",
        "INCONCLUSIVE": "-",
        "NO_DATA": "paused(no_data) PAUSE !no_data !paused",
        "FAIL": "paused(fail) PAUSE !fail !paused",
        "SEVERE": f"{DOWN} !severe !rolled_back",
        "pause": "paused(operator) PAUSE ok !paused",
        **dict.fromkeys(("resume", "resume!"), "- no"),
        **dict.fromkeys(("advance", "advance!", "promote", "promote!"), "shifting ADVANCE/shift ok"),
        "abort": f"{DOWN} ok !rolled_back",
        "change_policy": "- ok",
        "verified": "-",
        "not_applied": "-",
        "drift": "paused(drift) PAUSE !drift !paused",
        "restart": "-",
        "time": "-",
        "start": "impossible",
    },
    "paused_fail": {
        **PAUSED,
        "PASS": "analysing RESUME",
        "INCONCLUSIVE": "-",
        "NO_DATA": "- !no_data",
        "FAIL": "-",
        "pause": "paused(fail,operator) ok",
        "resume": "- no",
        **dict.fromkeys(("advance", "advance!", "promote", "promote!"), "- no"),
    },
    "paused_no_data": {
        **BY_DATA,
        "NO_DATA": "-",
        "FAIL": "paused(no_data,fail) PAUSE !fail !paused",
        "pause": "paused(no_data,operator) ok",
        **dict.fromkeys(("advance", "advance!"), "- no"),
    },
    "paused_shared": {**BY_DATA, "FAIL": "- !fail", "pause": "paused(shared,operator) ok"},
    "paused_inconclusive": {
        **BY_DATA,
        "PASS": "-",
        "FAIL": "paused(inconclusive,fail) PAUSE !fail !paused",
        "pause": "paused(inconclusive,operator) ok",
    },
    "paused_operator": {
        **BY_PERSON,
        "FAIL": "paused(operator,fail) PAUSE !fail !paused",
        "pause": "paused(operator) ok",
    },
    "paused_approval": {
        **BY_PERSON,
        "FAIL": "paused(approval,fail) PAUSE !fail !paused",
        "pause": "paused(approval,operator) ok",
        **dict.fromkeys(("advance", "advance!"), "shifting ADVANCE/shift ok"),
    },
    "paused_drift": {
        **BY_PERSON,
        "FAIL": "paused(drift,fail) PAUSE !fail !paused",
        "pause": "paused(drift,operator) ok",
        **dict.fromkeys(("resume", "resume!"), "shifting RESUME/shift ok"),
        "verified": "warming RESUME",
    },
    "paused_actuation": {
        **BY_PERSON,
        "FAIL": "paused(actuation,fail) PAUSE !fail !paused",
        "pause": "paused(actuation,operator) ok",
        **dict.fromkeys(("resume", "resume!"), "shifting ADVANCE/shift ok"),
        "verified": "warming RESUME",
    },
    "baking": {
        "PASS": "finalising PROMOTE/finalise",
        "INCONCLUSIVE": "finalising PROMOTE/finalise",
        "NO_DATA": "- !no_data",
        "FAIL": "paused(fail) PAUSE !fail !paused",
        "SEVERE": f"{DOWN} !severe !rolled_back",
        "pause": "paused(operator) PAUSE ok !paused",
        **dict.fromkeys(("resume", "resume!", "change_policy"), "- no"),
        **dict.fromkeys(("advance", "advance!", "promote", "promote!"), "finalising PROMOTE/finalise ok"),
        "abort": f"{DOWN} ok !rolled_back",
        "verified": "-",
        "not_applied": "-",
        "drift": "paused(drift) PAUSE !drift !paused",
        "restart": "-",
        "time": "-",
        "start": "impossible",
    },
    "finalising": {
        "PASS": "-",
        "INCONCLUSIVE": "-",
        "NO_DATA": "-",
        "FAIL": "- !fail",
        "SEVERE": "- !severe",
        **dict.fromkeys(("pause", "resume", "resume!", "advance", "advance!", "abort"), "- no"),
        "change_policy": "- no",
        **dict.fromkeys(("promote", "promote!"), "- ok"),
        "verified": "promoted",
        "not_applied": "- PROMOTE/finalise !actuation",
        "drift": "- !drift",
        "restart": "-",
        "time": "-",
        "start": "impossible",
    },
    "rolling_back": {
        **TICKS_UNHEARD,
        **dict.fromkeys(("pause", "resume", "advance", "promote", "change_policy", *FORCED), "- no"),
        "abort": "- ok",
        "verified": "rolled_back",
        "not_applied": "- ROLL_BACK/restore",
        "drift": "- ROLL_BACK/restore !drift",
        "restart": "-",
        "time": "-",
        "start": "impossible",
    },
    "promoted": ENDED,
    "rolled_back": ENDED,
    "aborted": ENDED,
    "failed": ENDED,
}


def _command(kind: CommandKind, *, force: bool = False) -> Callable[[Rollout], Conclusion]:
    return lambda rollout: rollout.command(kind, force=force)


COLUMNS: dict[str, tuple[Event, Callable[[Rollout], Conclusion]]] = {
    "PASS": (Event.PASS, lambda rollout: rollout.tick(Verdict.PASS)),
    "INCONCLUSIVE": (Event.INCONCLUSIVE, lambda rollout: rollout.tick(Verdict.INCONCLUSIVE)),
    "NO_DATA": (Event.NO_DATA, lambda rollout: rollout.tick(Verdict.NO_DATA)),
    "FAIL": (Event.FAIL, lambda rollout: rollout.tick(Verdict.FAIL)),
    "SEVERE": (Event.SEVERE, lambda rollout: rollout.tick(Verdict.SEVERE)),
    "pause": (Event.PAUSE, _command(CommandKind.PAUSE)),
    "resume": (Event.RESUME, _command(CommandKind.RESUME)),
    "resume!": (Event.RESUME, _command(CommandKind.RESUME, force=True)),
    "advance": (Event.ADVANCE, _command(CommandKind.ADVANCE)),
    "advance!": (Event.ADVANCE, _command(CommandKind.ADVANCE, force=True)),
    "promote": (Event.PROMOTE, _command(CommandKind.PROMOTE)),
    "promote!": (Event.PROMOTE, _command(CommandKind.PROMOTE, force=True)),
    "abort": (Event.ABORT, _command(CommandKind.ABORT)),
    "change_policy": (Event.CHANGE_POLICY, _command(CommandKind.CHANGE_POLICY)),
    "verified": (Event.VERIFIED, lambda rollout: rollout.verified()),
    "not_applied": (Event.NOT_APPLIED, lambda rollout: rollout.not_applied(observed_bp=0)),
    "drift": (Event.DRIFT, lambda rollout: rollout.drift(700)),
    "restart": (Event.RESTART, lambda rollout: rollout.restart()),
    "time": (Event.CLOCK, lambda rollout: rollout.clock(1.0)),
    "start": (Event.START, _command(CommandKind.START)),
}

QUICK = {
    "pass_count": 1,
    "min_step_time_s": 0.0,
    "on_no_data": NoDataRule(hold_s=0),
}
"""One pass, no minimum time and no patience, so that one event shows what a column leads to."""


def situation(row: str) -> Rollout:
    """A rollout in ``row`` by a quick policy; a bake is one tick short of its end."""
    if row == "baking":
        return SITUATIONS[row](**QUICK, keep_stable_for_s=5.0)
    return SITUATIONS[row](**QUICK)


def seen(before: str, conclusion: Conclusion) -> str:
    """What came of an event, in the words of the table above."""
    words = [where(conclusion.state.phase.value, conclusion)]
    words = ["-"] if words[0] == before else words
    if conclusion.decision is not None:
        order = conclusion.decision.order.value
        words.append(conclusion.decision.kind.value + ("" if order == "none" else f"/{order}"))
    if conclusion.answer is not None:
        words.append("ok" if conclusion.answer.accepted else "no")
    return " ".join([*words, *(f"!{incident.kind.value}" for incident in conclusion.incidents)])


def where(phase: str, conclusion: Conclusion) -> str:
    causes = ",".join(cause.value for cause in conclusion.state.pause_causes)
    return f"{phase}({causes})" if causes else phase


def normal(cell: str, before: str) -> str:
    """A cell that names the place it is in already says the same as a dash."""
    place, _, rest = cell.partition(" ")
    return f"{'-' if place == before else place} {rest}".strip()


CELLS = [(row, column) for row in MEANT for column in COLUMNS]


@pytest.mark.parametrize(("row", "column"), CELLS, ids=[f"{row}:{column}" for row, column in CELLS])
def test_the_table_says_what_each_event_leads_to(row: str, column: str) -> None:
    rollout, meant = situation(row), MEANT[row][column]
    before, (_, act) = rollout.state, COLUMNS[column]
    if meant == "impossible":
        with pytest.raises(IllegalTransition, match=before.row.replace("_", ".")):
            act(rollout)
        assert rollout.state == before
        return
    place = where(before.phase.value, Conclusion(state=before))
    conclusion = act(rollout)
    assert seen(place, conclusion) == normal(meant, place)


def test_the_situations_are_the_rows_they_are_named_after() -> None:
    for name in MEANT:
        row = situation(name).state.row
        by_cause = {
            "paused_no_data": "paused_data",
            "paused_shared": "paused_data",
            "paused_inconclusive": "paused_data",
            "paused_operator": "paused_person",
            "paused_approval": "paused_person",
            "paused_drift": "paused_person",
            "paused_actuation": "paused_person",
        }
        assert row == by_cause.get(name, name), name


def test_every_row_and_every_event_is_in_this_test() -> None:
    assert {situation(name).state.row for name in MEANT} == set(TABLE)
    assert {event for event, _ in COLUMNS.values()} == set(Event)
    assert all(set(cells) == set(COLUMNS) for cells in MEANT.values())


def test_a_refused_command_changes_nothing_but_the_count_and_says_what_is_possible() -> None:
    refused = [(row, column) for row, column in CELLS if MEANT[row][column] == "- no"]
    assert len(refused) > 50
    for row, column in refused:
        rollout = situation(row)
        before = rollout.state
        conclusion = COLUMNS[column][1](rollout)
        assert rollout.state.seq == before.seq + 1
        unchanged = Conclusion(state=before).state.__struct_fields__
        changed = {name for name in unchanged if getattr(before, name) != getattr(rollout.state, name)}
        assert changed <= {"seq", "now", "commands"}, (row, column)
        assert conclusion.answer is not None
        assert conclusion.answer.reason, (row, column)


def test_a_command_that_is_possible_by_its_row_is_not_refused_when_forced() -> None:
    for row in MEANT:
        possible = situation(row).command(CommandKind.CHANGE_POLICY)
        assert possible.answer is not None
        for name in possible.answer.possible:
            forced = situation(row).command(CommandKind(name), force=True)
            assert forced.answer is not None
            excused = {"paused_no_data": {"advance"}, "paused_operator": {"advance"}}
            excused |= {"paused_drift": {"advance"}, "paused_actuation": {"advance"}}
            assert forced.answer.accepted or name in excused.get(row, set()), (row, name)
