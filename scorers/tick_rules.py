"""What a judged tick leads to, phase by phase. Rules 3 to 7 and 9 of the decision machine."""

from __future__ import annotations

from domain.decision import Cause, IncidentKind
from domain.policy import JudgeName, OnFail, OnInconclusive
from domain.rollout import PauseCause, Phase
from domain.units import duration_text
from domain.verdict import Verdict
from scorers.draft import Draft


def ignore(draft: Draft) -> None:
    """Recorded, nothing more."""


def severe(draft: Draft) -> None:
    draft.go_down(Cause.SEVERE, draft.tick.reason)


def analysing_pass(draft: Draft) -> None:
    draft.count_pass()
    is_due = draft.since(draft.state.step_began) >= draft.policy.min_step_time_s
    if draft.state.promote_asked:
        draft.finish_step(Cause.OPERATOR, "promoted by an operator", override=True)
    elif draft.is_enough and is_due and draft.is_fresh:
        draft.finish_step(Cause.PASSED, f"all required gates passed {_ticks(draft)}")
    else:
        overtime(draft)  # it is passing: no time limit of the step ends that, only ticks that do not pass


def _ticks(draft: Draft) -> str:
    """How often it passed, in words."""
    passes = draft.state.passes
    return "a tick" if passes == 1 else f"{passes} ticks in a row"


def analysing_inconclusive(draft: Draft) -> None:
    draft.set(passes=0)
    if draft.state.promote_asked:
        draft.finish_step(Cause.OPERATOR, "promoted by an operator", override=True)
    else:
        bounded(draft)


def analysing_no_data(draft: Draft) -> None:
    rule = draft.policy.on_no_data
    silent_s = draft.since(draft.state.no_data_since)
    if silent_s >= rule.hold_s:
        reason = f"no data for {duration_text(round(silent_s))}: {draft.tick.reason}"
        if rule.then is OnFail.ROLL_BACK:
            draft.go_down(Cause.NO_DATA, reason)
        else:
            draft.pause(PauseCause.NO_DATA, reason)
    else:
        overtime(draft)


def analysing_fail(draft: Draft) -> None:
    draft.set(passes=0)
    if draft.tick.shared:
        draft.pause(PauseCause.SHARED, draft.tick.reason)
    elif draft.policy.on_fail is OnFail.ROLL_BACK:
        draft.go_down(Cause.FAIL, draft.tick.reason)
    else:
        draft.pause(PauseCause.FAIL, draft.tick.reason)


def bounded(draft: Draft) -> None:
    """Rule 6: a step does not last for ever."""
    lasted = draft.since(draft.state.step_began)
    if lasted < draft.policy.max_step_time_s:
        overtime(draft)
        return
    reason = f"not decided within max_step_time ({duration_text(draft.policy.max_step_time_s)})"
    if draft.tick.verdict is not Verdict.PASS:
        reason += f": {draft.tick.reason}"
    action = draft.policy.on_inconclusive
    if action is OnInconclusive.ROLL_BACK:
        draft.go_down(Cause.INCONCLUSIVE, reason)
    elif action is OnInconclusive.ADVANCE_UNPROVEN and _point_check_holds(draft):
        draft.finish_step(Cause.INCONCLUSIVE, f"{reason}; the point check holds, not proven", unproven=True)
    else:
        draft.pause(PauseCause.INCONCLUSIVE, reason)


def _point_check_holds(draft: Draft) -> bool:
    return draft.is_fresh and draft.tick.point_holds and not draft.state.is_tainted


def overtime(draft: Draft) -> None:
    """A rollout does not last for ever either (``max_rollout_time``); it is noticed once."""
    if draft.state.overtime or draft.since(draft.state.started_at) < draft.policy.max_rollout_time_s:
        return
    draft.set(overtime=True)
    reason = f"older than max_rollout_time ({duration_text(draft.policy.max_rollout_time_s)})"
    draft.incident(IncidentKind.OVERTIME, reason)
    if draft.policy.on_overtime is OnFail.ROLL_BACK:
        draft.go_down(Cause.OVERTIME, reason)
    elif draft.state.phase is not Phase.PAUSED:
        draft.pause(PauseCause.INCONCLUSIVE, reason)


def baking_good(draft: Draft) -> None:
    """PASS and INCONCLUSIVE let the bake go on; only recent ticks count towards it.

    A proof takes its time here as well, so what counts is whether there is one at the end.
    """
    if draft.is_fresh:
        draft.set(baked_s=draft.state.baked_s + draft.policy.interval_s)
    if draft.is_fresh and draft.state.baked_s >= draft.policy.keep_stable_for_s:
        kept = duration_text(draft.policy.keep_stable_for_s)
        if draft.tick.verdict is Verdict.INCONCLUSIVE:
            draft.set(unproven=True)
        draft.finalise(Cause.PASSED, f"every step passed and the canary held for {kept} at 100 %")
    else:
        overtime(draft)


def baking_fail(draft: Draft) -> None:
    cause = PauseCause.SHARED if draft.tick.shared else PauseCause.FAIL
    draft.pause(cause, draft.tick.reason)


def paused_fail_pass(draft: Draft) -> None:
    draft.count_pass()
    if draft.is_enough and draft.is_fresh:
        _passing_again(draft)
    else:
        fail_timer(draft)


def _passing_again(draft: Draft) -> None:
    reason = f"passed {_ticks(draft)} again"
    others = tuple(
        cause
        for cause in draft.state.pause_causes
        if cause not in (PauseCause.FAIL, PauseCause.NO_DATA, PauseCause.SHARED)
    )
    if others:
        draft.set(pause_causes=others)
    elif draft.policy.auto_resume:
        draft.resume(Cause.RECOVERED, reason)
    else:
        # A person has to resume; while it passes, the time-out has nothing to count.
        draft.set(failing_since=draft.now)


def paused_fail_other(draft: Draft) -> None:
    if draft.tick.verdict is not Verdict.NO_DATA:
        draft.set(passes=0)
    fail_timer(draft)


def fail_timer(draft: Draft) -> None:
    """Rule 5: what failed and did not recover goes down; a streak of passes is waited for."""
    lasted = draft.since(draft.state.failing_since)
    if lasted >= draft.policy.pause_timeout_s and draft.state.verdict is not Verdict.PASS:
        reason = f"failing and not recovered for {duration_text(draft.policy.pause_timeout_s)}: "
        draft.go_down(Cause.PAUSE_TIMEOUT, reason + draft.state.reason)
    else:
        pause_alert(draft)


def paused_data_pass(draft: Draft) -> None:
    draft.count_pass()
    recovers = PauseCause.INCONCLUSIVE not in draft.state.pause_causes and draft.policy.auto_resume
    if draft.is_enough and draft.is_fresh and recovers:
        draft.resume(Cause.RECOVERED, f"passed {_ticks(draft)} again")
    else:
        pause_alert(draft)


def paused_data_fail(draft: Draft) -> None:
    """Trouble that was shared stays so, unless evidence says meanwhile that the canary has it worse."""
    draft.set(passes=0)
    is_told = draft.policy.judge is JudgeName.EVIDENCE
    if draft.tick.shared or (PauseCause.SHARED in draft.state.pause_causes and not is_told):
        pause_alert(draft)
    else:
        draft.pause(PauseCause.FAIL, draft.tick.reason)


def paused_person_fail(draft: Draft) -> None:
    draft.set(passes=0)
    if draft.tick.shared:
        pause_alert(draft)
    else:
        draft.pause(PauseCause.FAIL, draft.tick.reason)


def paused_wait(draft: Draft) -> None:
    if draft.happening.tick is not None and draft.tick.verdict is Verdict.INCONCLUSIVE:
        draft.set(passes=0)
    pause_alert(draft)


def paused_person_pass(draft: Draft) -> None:
    draft.count_pass()
    pause_alert(draft)


def pause_alert(draft: Draft) -> None:
    """A pause that nothing ends calls people, once."""
    overtime(draft)
    is_long = draft.since(draft.state.paused_at) >= draft.policy.pause_alert_after_s
    if draft.state.phase is Phase.PAUSED and is_long and not draft.state.paused_alerted:
        draft.set(paused_alerted=True)
        detail = f"paused for {duration_text(draft.policy.pause_alert_after_s)}: {draft.state.reason}"
        draft.incident(IncidentKind.LONG_PAUSE, detail)
