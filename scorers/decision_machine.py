"""The decision machine: a table from (row, event) to what happens. Its handlers are in ``*_rules``.

Rules of the house
------------------
* A row is a phase; ``PAUSED`` has three rows, by cause. A column is an event. A cell is a handler and the
  phases it may lead to. A pair without a cell is impossible, and asking for it is :class:`IllegalTransition`.
* The machine is a function. It reads no clock: time is what the event says. It never acts: it returns at most
  one decision, which an actuator may carry out.
* The README's diagram is drawn from ``TABLE``, and a test holds both against the rules below.

What is true in each phase
--------------------------
``queued``        nothing has been touched.
``starting``      the actuator checks permissions and remembers the pristine state. Traffic has not moved.
``shifting``      a weight was ordered and is not verified yet.
``warming``       the weight is in force; scores are computed and shown, only SEVERE acts.
``analysing``     ticks count: passes lead on, failures pause or roll back.
``paused``        traffic stays where it is and judging goes on.
``baking``        100 % on the canary, stable kept warm.
``finalising``    the canary becomes the new stable. From here on there is no way back but a new rollout.
``rolling_back``  traffic goes to stable, however long it takes.
``promoted``, ``rolled_back``, ``aborted``, ``failed``  final. In none of them may the canary hold traffic
that nobody owns; in ``failed`` and after a queued abort traffic never moved.

The rules
---------
1.  One order in flight. Outcomes of an older generation are recorded and otherwise ignored.
2.  Down beats everything: an abort or SEVERE before ``finalising`` rolls back, whatever is in flight, and the
    first cause names the outcome. Nothing resumes after it.
3.  A tick's verdict is the worst of its gates (``domain.verdict.combine``).
4.  A pass counts only on a tick at most two intervals behind the clock; INCONCLUSIVE and FAIL clear the
    counter; NO_DATA freezes it for two ticks and then clears it; so does a gap of more than two ticks.
    ``pass_count`` passes and ``min_step_time`` lead to the next step.
5.  Only a pause by FAIL times out into a roll-back, at the first tick after its time that does not pass.
    Pauses by FAIL, NO_DATA or shared trouble resume by themselves after ``pass_count`` passes.
6.  At ``max_step_time`` the policy's ``on_inconclusive`` decides, at the next tick that does not pass.
7.  The warm-up ends by time; a tick that starts at most 50 ms before its end is past it.
8.  Timers run on folded time, so they replay, and stand still while Sentra is down.
9.  No traffic on the canary is not missing data: it holds, and is an incident after three ticks.
10. An operator's ``advance`` and ``promote`` are refused while the tick is FAIL or NO_DATA, unless forced.
11. Gates may be changed while ``analysing`` or ``paused``; steps may not.
12. A weight that cannot be verified going up is ordered once more, then the rollout pauses; going down it is
    ordered for ever, and people are called after a minute.

Deviation from the usual table: reaching the bake is an ``ADVANCE`` and the end of the bake the ``PROMOTE``,
so that every promoted rollout has exactly one ``PROMOTE``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from domain.decision import Answer, Decision, Incident
from domain.errors import IllegalTransition
from domain.rollout import JudgingContext, Phase, RolloutState
from scorers.action_rules import (
    back_in_place,
    cannot_start,
    down_timer,
    drift_at_start,
    drift_noted,
    drift_redriven,
    drifted,
    finalised,
    in_force,
    is_down,
    not_finalised,
    not_in_force,
    pause_trouble,
    prepared,
    restarted,
    restarted_in_order,
    restarted_paused,
    still_going_down,
    unanswered,
)
from scorers.command_rules import (
    REFUSALS,
    abort,
    abort_unstarted,
    advance_now,
    advance_past_pause,
    already_so,
    approve,
    begin,
    change_gates,
    clear_pause,
    finalise_now,
    flag_pause,
    has_order,
    is_failing,
    is_going_down,
    is_leaving,
    is_over,
    is_running,
    no_policy_now,
    not_yet,
    pause_now,
    pause_too,
    promote_forced,
    promote_now,
    resume_now,
)
from scorers.draft import WARMUP_SLACK_S, Draft
from scorers.events import Event, Happening
from scorers.tick_rules import (
    analysing_fail,
    analysing_inconclusive,
    analysing_no_data,
    analysing_pass,
    baking_fail,
    baking_good,
    fail_timer,
    ignore,
    overtime,
    pause_alert,
    paused_data_fail,
    paused_data_pass,
    paused_fail_other,
    paused_fail_pass,
    paused_person_fail,
    paused_person_pass,
    paused_wait,
    severe,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What one event led to. ``decision`` is ``None`` for "go on as before"."""

    state: RolloutState
    decision: Decision | None = None
    answer: Answer | None = None
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """A handler and the phases it may lead to, besides staying."""

    handle: Callable[[Draft], None]
    leads_to: tuple[Phase, ...] = ()


def decide(state: RolloutState, context: JudgingContext, happening: Happening) -> Conclusion:
    """Fold one event into the state. Raises :class:`IllegalTransition` for a pair without a cell."""
    draft = Draft(state, context, happening)
    if happening.tick is not None:
        _end_warm_up(draft)
        if not draft.state.phase.is_final:
            draft.note_tick()
    if not _is_outdated(draft):
        cell = _cell(draft.state, happening.event)
        came_from = draft.state.phase
        cell.handle(draft)
        _check_target(cell, came_from, draft.state.phase, happening.event)
    return Conclusion(
        state=draft.state,
        decision=draft.decision,
        answer=_with_possible(draft),
        incidents=tuple(draft.incidents),
    )


def window_since(state: RolloutState, tick_start: float) -> float:
    """Where the window of a tick that starts then may begin: earlier ticks belong to another weight."""
    warm = state.warm_at - WARMUP_SLACK_S
    return warm if tick_start >= warm else state.step_began


def possible_commands(state: RolloutState, context: JudgingContext) -> tuple[str, ...]:
    """The commands this state does not refuse by its row alone."""
    row = TABLE[state.row]
    return tuple(
        event.value
        for event in (Event.PAUSE, Event.RESUME, Event.ADVANCE, Event.PROMOTE, Event.ABORT)
        if event in row and row[event].handle not in REFUSALS
    )


def _cell(state: RolloutState, event: Event) -> Cell:
    try:
        return TABLE[state.row][event]
    except KeyError:
        raise IllegalTransition(f"a rollout that is {state.row} has no answer to {event.value!r}") from None


def _check_target(cell: Cell, came_from: Phase, went_to: Phase, event: Event) -> None:
    if went_to is not came_from and went_to not in cell.leads_to:
        raise IllegalTransition(
            f"{event.value!r} led from {came_from.value} to {went_to.value}, not in table"
        )


def _is_outdated(draft: Draft) -> bool:
    """Whether this is the outcome of an order that a newer one has superseded (rule 1)."""
    acted = draft.happening.acted
    return acted is not None and acted.generation != draft.state.generation


def _with_possible(draft: Draft) -> Answer | None:
    answer, command = draft.answer, draft.happening.command
    if answer is None or command is None:
        return None
    possible = possible_commands(draft.state, draft.context)
    if not answer.accepted:
        possible = tuple(each for each in possible if each != command.kind.value)
    return replace(answer, possible=possible)


def _end_warm_up(draft: Draft) -> None:
    """Rule 7: time ends the warm-up, and the tick that comes then counts."""
    if draft.state.phase is not Phase.WARMING or draft.tick.start < draft.state.warm_at - WARMUP_SLACK_S:
        return
    draft.set(phase=Phase.ANALYSING)


_GO = (Phase.SHIFTING, Phase.BAKING, Phase.FINALISING, Phase.PAUSED)
_STOP = (Phase.PAUSED, Phase.ROLLING_BACK)
_DOWN = (Phase.ROLLING_BACK,)
_IGNORE = Cell(ignore)

_COMMANDS_LATER: dict[Event, Cell] = {
    Event.ADVANCE: Cell(not_yet),
    Event.PROMOTE: Cell(not_yet),
    Event.CHANGE_POLICY: Cell(no_policy_now),
}
_SILENT_TICKS: dict[Event, Cell] = dict.fromkeys(
    (Event.PASS, Event.INCONCLUSIVE, Event.NO_DATA, Event.FAIL, Event.SEVERE), _IGNORE
)
_FINAL: dict[Event, Cell] = {
    **_SILENT_TICKS,
    Event.CLOCK: _IGNORE,
    Event.PAUSE: Cell(is_over),
    Event.RESUME: Cell(is_over),
    Event.ADVANCE: Cell(is_over),
    Event.PROMOTE: Cell(is_over),
    Event.ABORT: Cell(already_so),
    Event.CHANGE_POLICY: Cell(is_over),
    Event.VERIFIED: _IGNORE,
    Event.NOT_APPLIED: _IGNORE,
    Event.DRIFT: Cell(drift_noted),
    Event.RESTART: _IGNORE,
}
_PAUSED: dict[Event, Cell] = {
    Event.SEVERE: Cell(severe, _DOWN),
    Event.PAUSE: Cell(pause_too),
    Event.RESUME: Cell(resume_now, (Phase.ANALYSING, Phase.WARMING, Phase.BAKING, Phase.SHIFTING)),
    Event.ABORT: Cell(abort, _DOWN),
    Event.CHANGE_POLICY: Cell(change_gates),
    Event.VERIFIED: Cell(back_in_place, (Phase.WARMING,)),
    Event.NOT_APPLIED: Cell(pause_trouble),
    Event.DRIFT: Cell(drift_noted),
    Event.RESTART: Cell(restarted_paused),
}
_RECOVERS = (Phase.ANALYSING, Phase.WARMING, Phase.BAKING)

TABLE: dict[str, dict[Event, Cell]] = {
    "queued": {
        **_SILENT_TICKS,
        **_COMMANDS_LATER,
        Event.START: Cell(begin, (Phase.STARTING,)),
        Event.CLOCK: _IGNORE,
        Event.PAUSE: Cell(flag_pause),
        Event.RESUME: Cell(clear_pause),
        Event.ABORT: Cell(abort_unstarted, (Phase.ABORTED,)),
        Event.RESTART: _IGNORE,
    },
    "starting": {
        **_SILENT_TICKS,
        **_COMMANDS_LATER,
        Event.CLOCK: Cell(unanswered(cannot_start), (Phase.FAILED,)),
        Event.PAUSE: Cell(flag_pause),
        Event.RESUME: Cell(clear_pause),
        Event.ABORT: Cell(abort, _DOWN),
        Event.VERIFIED: Cell(prepared, (Phase.SHIFTING, Phase.PAUSED)),
        Event.NOT_APPLIED: Cell(cannot_start, (Phase.FAILED,)),
        Event.DRIFT: Cell(drift_at_start, (Phase.FAILED,)),
        Event.RESTART: Cell(restarted_in_order),
    },
    "shifting": {
        **_SILENT_TICKS,
        Event.SEVERE: Cell(severe, _DOWN),
        Event.CLOCK: Cell(unanswered(not_in_force), (Phase.PAUSED,)),
        Event.PAUSE: Cell(flag_pause),
        Event.RESUME: Cell(clear_pause),
        Event.ADVANCE: Cell(has_order),
        Event.PROMOTE: Cell(has_order),
        Event.ABORT: Cell(abort, _DOWN),
        Event.CHANGE_POLICY: Cell(no_policy_now),
        Event.VERIFIED: Cell(in_force, (Phase.WARMING, Phase.PAUSED)),
        Event.NOT_APPLIED: Cell(not_in_force, (Phase.PAUSED,)),
        Event.DRIFT: Cell(drifted, (Phase.PAUSED,)),
        Event.RESTART: Cell(restarted_in_order),
    },
    "warming": {
        **_SILENT_TICKS,
        Event.SEVERE: Cell(severe, _DOWN),
        Event.CLOCK: _IGNORE,
        Event.PAUSE: Cell(pause_now, (Phase.PAUSED,)),
        Event.RESUME: Cell(is_running),
        Event.ADVANCE: Cell(not_yet),
        Event.PROMOTE: Cell(promote_now, (Phase.SHIFTING,)),
        Event.ABORT: Cell(abort, _DOWN),
        Event.CHANGE_POLICY: Cell(no_policy_now),
        Event.VERIFIED: _IGNORE,
        Event.NOT_APPLIED: _IGNORE,
        Event.DRIFT: Cell(drifted, (Phase.PAUSED,)),
        Event.RESTART: Cell(restarted, (Phase.SHIFTING, Phase.PAUSED)),
    },
    "analysing": {
        Event.PASS: Cell(analysing_pass, (*_GO, Phase.ROLLING_BACK)),
        Event.INCONCLUSIVE: Cell(analysing_inconclusive, (*_GO, Phase.ROLLING_BACK)),
        Event.NO_DATA: Cell(analysing_no_data, _STOP),
        Event.FAIL: Cell(analysing_fail, _STOP),
        Event.SEVERE: Cell(severe, _DOWN),
        Event.CLOCK: _IGNORE,
        Event.PAUSE: Cell(pause_now, (Phase.PAUSED,)),
        Event.RESUME: Cell(is_running),
        Event.ADVANCE: Cell(advance_now, (Phase.SHIFTING, Phase.BAKING, Phase.FINALISING)),
        Event.PROMOTE: Cell(promote_now, (Phase.SHIFTING, Phase.BAKING, Phase.FINALISING)),
        Event.ABORT: Cell(abort, _DOWN),
        Event.CHANGE_POLICY: Cell(change_gates),
        Event.VERIFIED: _IGNORE,
        Event.NOT_APPLIED: _IGNORE,
        Event.DRIFT: Cell(drifted, (Phase.PAUSED, Phase.SHIFTING)),
        Event.RESTART: Cell(restarted, (Phase.SHIFTING, Phase.PAUSED)),
    },
    "paused_fail": {
        **_PAUSED,
        Event.PASS: Cell(paused_fail_pass, (*_RECOVERS, Phase.ROLLING_BACK)),
        Event.INCONCLUSIVE: Cell(paused_fail_other, _DOWN),
        Event.NO_DATA: Cell(paused_fail_other, _DOWN),
        Event.FAIL: Cell(paused_fail_other, _DOWN),
        Event.CLOCK: Cell(fail_timer, _DOWN),
        Event.ADVANCE: Cell(is_failing),
        Event.PROMOTE: Cell(is_failing),
    },
    "paused_data": {
        **_PAUSED,
        Event.PASS: Cell(paused_data_pass, (*_RECOVERS, Phase.ROLLING_BACK)),
        Event.INCONCLUSIVE: Cell(paused_wait, _DOWN),
        Event.NO_DATA: Cell(paused_wait, _DOWN),
        Event.FAIL: Cell(paused_data_fail, _DOWN),
        Event.CLOCK: Cell(pause_alert, _DOWN),
        Event.ADVANCE: Cell(advance_past_pause, (Phase.SHIFTING, Phase.BAKING, Phase.FINALISING)),
        Event.PROMOTE: Cell(promote_forced, (Phase.SHIFTING, Phase.BAKING, Phase.FINALISING)),
    },
    "paused_person": {
        **_PAUSED,
        Event.PASS: Cell(paused_person_pass, _DOWN),
        Event.INCONCLUSIVE: Cell(paused_wait, _DOWN),
        Event.NO_DATA: Cell(paused_wait, _DOWN),
        Event.FAIL: Cell(paused_person_fail, _DOWN),
        Event.CLOCK: Cell(pause_alert, _DOWN),
        Event.ADVANCE: Cell(approve, (Phase.SHIFTING,)),
        Event.PROMOTE: Cell(promote_forced, (Phase.SHIFTING, Phase.BAKING, Phase.FINALISING)),
    },
    "baking": {
        Event.PASS: Cell(baking_good, (Phase.FINALISING, *_STOP)),
        Event.INCONCLUSIVE: Cell(baking_good, (Phase.FINALISING, *_STOP)),
        Event.NO_DATA: Cell(overtime, _STOP),
        Event.FAIL: Cell(baking_fail, (Phase.PAUSED,)),
        Event.SEVERE: Cell(severe, _DOWN),
        Event.CLOCK: _IGNORE,
        Event.PAUSE: Cell(pause_now, (Phase.PAUSED,)),
        Event.RESUME: Cell(is_running),
        Event.ADVANCE: Cell(finalise_now, (Phase.FINALISING,)),
        Event.PROMOTE: Cell(finalise_now, (Phase.FINALISING,)),
        Event.ABORT: Cell(abort, _DOWN),
        Event.CHANGE_POLICY: Cell(no_policy_now),
        Event.VERIFIED: _IGNORE,
        Event.NOT_APPLIED: _IGNORE,
        Event.DRIFT: Cell(drifted, (Phase.PAUSED,)),
        Event.RESTART: Cell(restarted, (Phase.SHIFTING, Phase.PAUSED)),
    },
    "finalising": {
        Event.PASS: _IGNORE,
        Event.INCONCLUSIVE: _IGNORE,
        Event.NO_DATA: _IGNORE,
        Event.FAIL: _IGNORE,
        Event.SEVERE: _IGNORE,
        Event.CLOCK: Cell(unanswered(not_finalised)),
        Event.PAUSE: Cell(is_leaving),
        Event.RESUME: Cell(is_leaving),
        Event.ADVANCE: Cell(is_leaving),
        Event.PROMOTE: Cell(already_so),
        Event.ABORT: Cell(is_leaving),
        Event.CHANGE_POLICY: Cell(is_leaving),
        Event.VERIFIED: Cell(finalised, (Phase.PROMOTED,)),
        Event.NOT_APPLIED: Cell(not_finalised),
        Event.DRIFT: Cell(drift_noted),
        Event.RESTART: Cell(restarted_in_order),
    },
    "rolling_back": {
        **_SILENT_TICKS,
        Event.CLOCK: Cell(down_timer),
        Event.PAUSE: Cell(is_going_down),
        Event.RESUME: Cell(is_going_down),
        Event.ADVANCE: Cell(is_going_down),
        Event.PROMOTE: Cell(is_going_down),
        Event.ABORT: Cell(already_so),
        Event.CHANGE_POLICY: Cell(is_going_down),
        Event.VERIFIED: Cell(is_down, (Phase.ROLLED_BACK, Phase.ABORTED)),
        Event.NOT_APPLIED: Cell(still_going_down),
        Event.DRIFT: Cell(drift_redriven),
        Event.RESTART: Cell(restarted_in_order),
    },
    "promoted": _FINAL,
    "rolled_back": _FINAL,
    "aborted": _FINAL,
    "failed": _FINAL,
}
"""Row → event → cell. Read it beside the rules at the top."""
