"""What happened in a rollout, line by line, told from its evaluation records. Pure.

Ticks that changed nothing are left out: there is one per interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from domain.decision import ActionOutcome, Decision, Order
from domain.records import ActionInput, CommandInput, Evaluation, RestartInput
from domain.rollout import Acted
from domain.units import bp_text


class EventKind(StrEnum):
    """What a line tells of."""

    DECISION = "decision"
    COMMAND = "command"
    TRAFFIC = "traffic"
    INCIDENT = "incident"
    RESTART = "restart"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line. ``at`` is the folded time, seconds since the epoch."""

    at: float
    kind: EventKind
    text: str


def events_of(evaluations: Sequence[Evaluation]) -> list[Event]:
    """The lines that ``evaluations`` are worth, in their order."""
    return [event for evaluation in evaluations for event in _lines(evaluation)]


def last_decision(events: Sequence[Event]) -> Event | None:
    """The newest decision among ``events``."""
    return next((event for event in reversed(events) if event.kind is EventKind.DECISION), None)


def _lines(evaluation: Evaluation) -> Iterator[Event]:
    """Cause first: what came in, then what was concluded from it."""
    at = evaluation.input.now
    match evaluation.input:
        case CommandInput(command=command):
            yield Event(at=at, kind=EventKind.COMMAND, text=_command_text(evaluation, command.actor))
        case ActionInput(acted=acted) if acted.outcome is not ActionOutcome.SENT:
            yield Event(at=at, kind=EventKind.TRAFFIC, text=_traffic_text(acted))
        case RestartInput():
            yield Event(at=at, kind=EventKind.RESTART, text="Sentra came back and went on")
        case _:
            pass  # ticks and time are too many to be told; what they led to follows
    if evaluation.decision is not None:
        yield Event(at=at, kind=EventKind.DECISION, text=decision_text(evaluation.decision))
    for incident in evaluation.incidents:
        text = f"{incident.kind.value}: {incident.detail}"
        yield Event(at=at, kind=EventKind.INCIDENT, text=text)


def decision_text(decision: Decision) -> str:
    """What was decided and why, in one sentence.

    >>> from domain.decision import Cause, DecisionKind
    >>> decision_text(Decision(decision_id="d", rollout_id="r", seq=1, kind=DecisionKind.ADVANCE,
    ...     cause=Cause.PASSED, reason="all gates passed", order=Order.SHIFT, weight_bp=1500))
    'ADVANCE to 15 %: all gates passed'
    """
    where = f" to {bp_text(decision.weight_bp)}" if decision.order is Order.SHIFT else ""
    by_hand = " (override)" if decision.override else ""
    return f"{decision.kind.value}{where}{by_hand}: {decision.reason}"


def _command_text(evaluation: Evaluation, actor: str) -> str:
    assert isinstance(evaluation.input, CommandInput)
    asked = evaluation.input.command.kind.value.replace("_", "-")
    if evaluation.answer is None:
        return f"{asked} by {actor}"
    taken = "accepted" if evaluation.answer.accepted else "refused"
    return f"{asked} by {actor}: {taken}, {evaluation.answer.reason}"


def _traffic_text(acted: Acted) -> str:
    seen = "" if acted.observed_bp is None else f" with {bp_text(acted.observed_bp)} on the canary"
    return f"{acted.outcome.value.replace('_', ' ')}{seen}" + (f": {acted.detail}" if acted.detail else "")
