"""How rollouts are put into words: ids, events, waits."""

from __future__ import annotations

import doctest

import pytest

from domain.decision import ActionOutcome, Answer, CommandKind
from domain.records import ActionInput, ClockInput, CommandInput, RestartInput
from domain.rollout import Acted
from sentra.cli import exits, rollout_ask, rollout_events, rollout_view
from sentra.cli.rollout_events import EventKind, events_of
from tests.store.examples import command, decided, evaluation, incident


@pytest.mark.parametrize("module", [exits, rollout_ask, rollout_events, rollout_view])
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]  # a module, as parametrize hands it over
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("service", ["checkout", "a b/c", "ü", "x" * 100, "--"])
def test_a_new_id_is_one_that_may_be_typed(service: str) -> None:
    assert rollout_ask.ID.fullmatch(rollout_ask.new_id(service, 1.7e9))


def test_ids_of_one_service_sort_by_time() -> None:
    ids = [rollout_ask.new_id("shop", at) for at in (1.0, 2.0, 90_000.0, 1.7e9)]
    assert ids == sorted(ids)


def test_a_tick_that_changed_nothing_is_no_event() -> None:
    assert events_of([evaluation(1), evaluation(2, given=ClockInput(now=3.0))]) == []


def test_an_order_that_was_merely_sent_is_no_event() -> None:
    sent = Acted(generation=1, outcome=ActionOutcome.SENT, observed_bp=None, at=1.0)
    assert events_of([evaluation(1, given=ActionInput(now=1.0, acted=sent))]) == []


def test_cause_comes_before_conclusion() -> None:
    asked = CommandInput(now=7.0, command=command(CommandKind.CHANGE_POLICY))
    answer = Answer(command_id="c1", accepted=False, reason="only gates")
    found = events_of(
        [evaluation(3, given=asked, answer=answer, decision=decided(3), incidents=(incident(),))]
    )
    assert [(event.at, event.kind) for event in found] == [
        (7.0, EventKind.COMMAND),
        (7.0, EventKind.DECISION),
        (7.0, EventKind.INCIDENT),
    ]
    assert found[0].text == "change-policy by ann: refused, only gates"
    assert found[1].text == "ADVANCE to 20 %: 3 passes"
    assert found[2].text == "fail: 2 % errors"


def test_what_an_actuator_saw_is_told_with_its_words() -> None:
    seen = Acted(generation=1, outcome=ActionOutcome.NOT_APPLIED, observed_bp=500, at=1.0, detail="denied")
    (found,) = events_of([evaluation(1, given=ActionInput(now=1.0, acted=seen))])
    assert found.text == "not applied with 5 % on the canary: denied"


def test_a_restart_is_told() -> None:
    (found,) = events_of([evaluation(1, given=RestartInput(now=5.0))])
    assert (found.kind, found.at) == (EventKind.RESTART, 5.0)
