"""What operators' commands lead to, phase by phase. Rules 10 and 11 of the decision machine."""

from __future__ import annotations

from collections.abc import Callable

from domain.decision import Cause, DecisionKind, Order
from domain.rollout import PauseCause, Phase
from domain.verdict import Verdict
from scorers.draft import WARMUP_SLACK_S, Draft


def begin(draft: Draft) -> None:
    draft.set(phase=Phase.STARTING, started_at=draft.now)
    spec_text = f"start: {len(draft.policy.weights_bp)} steps to 100 %"
    draft.decide(DecisionKind.ADVANCE, Cause.START, spec_text, order=Order.PREPARE, weight_bp=0)
    draft.accept("starting")


def flag_pause(draft: Draft) -> None:
    draft.set(pause_asked=True)
    draft.accept("will pause as soon as the order in flight is done")


def clear_pause(draft: Draft) -> None:
    draft.set(pause_asked=False)
    draft.accept("will not pause")


def pause_now(draft: Draft) -> None:
    draft.pause(PauseCause.OPERATOR, _by_person(draft, "paused"))
    draft.accept("paused; traffic stays where it is")


def pause_too(draft: Draft) -> None:
    causes = tuple(dict.fromkeys((*draft.state.pause_causes, PauseCause.OPERATOR)))
    draft.set(pause_causes=causes)
    draft.accept("stays paused until somebody resumes it")


def resume_now(draft: Draft) -> None:
    if draft.state.verdict is Verdict.FAIL and not draft.is_forced:
        draft.refuse("the gates fail right now; resume with force if you know better")
        return
    draft.set(pause_asked=False)
    draft.resume(Cause.OPERATOR, _by_person(draft, "resumed"))
    draft.accept("resumed")


def advance_now(draft: Draft) -> None:
    if _is_unsafe(draft):
        return
    draft.finish_step(Cause.OPERATOR, _by_person(draft, "advanced"), override=True)
    draft.accept("advanced one step")


def approve(draft: Draft) -> None:
    if PauseCause.APPROVAL not in draft.state.pause_causes:
        draft.refuse("nothing waits for approval; resume it first")
    elif draft.state.resume_to is Phase.SHIFTING:
        # The first step: no traffic has moved, so there is no evidence that could speak against it.
        draft.shift_to(draft.state.step_index, Cause.OPERATOR, _by_person(draft, "approved"))
        draft.accept("approved")
    else:
        advance_now(draft)


def advance_past_pause(draft: Draft) -> None:
    if PauseCause.NO_DATA in draft.state.pause_causes:
        draft.refuse("there is no data to judge the next step by; resume it, or promote with force")
        return
    if draft.state.resume_to is Phase.BAKING:
        draft.refuse("there is no further step; resume the bake, or promote")
        return
    advance_now(draft)


def promote_now(draft: Draft) -> None:
    """To 100 % at once, then through warm-up to the bake; at 100 % already: to the bake or the end."""
    if _is_unsafe(draft):
        return
    reason = _by_person(draft, "promoted")
    if not _is_full(draft):
        draft.set(promote_asked=True)
        draft.shift_to(draft.policy.last_step, Cause.OPERATOR, reason, override=True)
    elif draft.state.phase is Phase.PAUSED and draft.state.resume_to is Phase.BAKING:
        draft.finalise(Cause.OPERATOR, reason, override=True)
    else:
        draft.bake_or_finalise(Cause.OPERATOR, reason, override=True)
    draft.accept("promoting to 100 %")


def _is_full(draft: Draft) -> bool:
    """Whether 100 % is ordered, in force and warm."""
    state = draft.state
    misplaced = {PauseCause.DRIFT, PauseCause.ACTUATION} & set(state.pause_causes)
    is_warm = state.phase is not Phase.WARMING and state.now >= state.warm_at - WARMUP_SLACK_S
    return state.step_index == draft.policy.last_step and is_warm and not misplaced


def promote_forced(draft: Draft) -> None:
    if not draft.is_forced:
        draft.refuse("it is paused; promote with force, or resume it first")
        return
    promote_now(draft)


def finalise_now(draft: Draft) -> None:
    if _is_unsafe(draft):
        return
    draft.finalise(Cause.OPERATOR, _by_person(draft, "ended the bake"), override=True)
    draft.accept("finalising")


def _is_unsafe(draft: Draft) -> bool:
    """Rule 10; refuses on the spot."""
    if draft.state.verdict in (Verdict.FAIL, Verdict.SEVERE, Verdict.NO_DATA) and not draft.is_forced:
        draft.refuse(f"the last tick was {draft.state.verdict.value}; use force to override the evidence")
        return True
    return False


def _by_person(draft: Draft, deed: str) -> str:
    command = draft.happening.command
    assert command is not None, "only commands have an actor"
    why = f": {command.reason}" if command.reason else ""
    return f"{deed} by {command.actor or 'an operator'}{why}"


def abort_unstarted(draft: Draft) -> None:
    draft.set(phase=Phase.ABORTED, reason=_by_person(draft, "aborted"), down_cause=Cause.ABORT)
    draft.accept("aborted; traffic never moved")


def abort(draft: Draft) -> None:
    draft.go_down(Cause.ABORT, _by_person(draft, "aborted"))
    draft.accept("rolling back to stable")


def change_gates(draft: Draft) -> None:
    """The pass counter restarts; what the new gates are is the fold's business."""
    draft.set(passes=0)
    draft.accept("gates changed; passes are counted afresh")


def already_so(draft: Draft) -> None:
    draft.accept("it is so already")


def _refusal(reason: str) -> Callable[[Draft], None]:
    def refuse(draft: Draft) -> None:
        draft.refuse(reason)

    return refuse


not_yet = _refusal("no step is being judged yet")
is_running = _refusal("it is not paused")
has_order = _refusal("an order is in flight; wait until it is verified, or abort")
is_failing = _refusal("the gates failed; resume it first, or abort")
is_leaving = _refusal("it is being finalised; to go back, start a rollout of the old version")
is_going_down = _refusal("it is rolling back; retry it afterwards as a new rollout")
is_over = _refusal("it has ended; retry starts a new rollout")
no_policy_now = _refusal("gates can be changed only while analysing or paused")
REFUSALS: frozenset[Callable[[Draft], None]] = frozenset(
    (not_yet, is_running, has_order, is_failing, is_leaving, is_going_down, is_over)
)
"""Handlers that only refuse: their commands are not possible in that row."""
