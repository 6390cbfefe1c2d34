"""What the actuator's reports, its silence and a restart lead to. Rules 1, 8 and 12 of the machine."""

from __future__ import annotations

from collections.abc import Callable

from domain.decision import ActionOutcome, Cause, DecisionKind, IncidentKind
from domain.policy import OnDrift
from domain.rollout import PauseCause, Phase
from domain.units import bp_text, duration_text
from scorers.draft import Draft

PAGE_AFTER_S = 60.0
"""A roll-back that is not verified after this long calls people (rule 12)."""
ORDER_PATIENCE = 2.0
"""An order without any report is given up after this many verify time-outs: the actuator itself is gone."""


def prepared(draft: Draft) -> None:
    draft.set(in_flight=None)
    if draft.state.pause_asked:
        draft.set(pause_asked=False)
        draft.pause(PauseCause.OPERATOR, "paused by an operator before the first step")
    elif 1 in draft.policy.approvals:
        draft.pause(PauseCause.APPROVAL, "step 1 needs a person's approval")
    else:
        draft.shift_to(0, Cause.START, "the target is ready")


def cannot_start(draft: Draft) -> None:
    reason = f"could not start: {_detail(draft)}"
    draft.set(phase=Phase.FAILED, in_flight=None, reason=reason, ordered_bp=0)
    draft.incident(IncidentKind.ACTUATION, reason)


def _detail(draft: Draft) -> str:
    acted = draft.happening.acted
    return acted.detail if acted is not None else "no actuator reported in time"


def in_force(draft: Draft) -> None:
    """The step's clock starts here: at the moment the weight was seen in force, not when it was asked for."""
    acted = draft.happening.acted
    assert acted is not None, "only actuators report"
    began = min(acted.at, draft.now)
    draft.set(
        phase=Phase.WARMING,
        in_flight=None,
        redrives=0,
        verified_bp=acted.observed_bp if acted.observed_bp is not None else draft.state.ordered_bp,
        step_began=began,
        warm_at=began + draft.policy.warmup_s,
        passes=0,
        no_data_ticks=0,
        idle_ticks=0,
    )
    if draft.state.pause_asked:
        draft.set(pause_asked=False)
        draft.pause(PauseCause.OPERATOR, "paused by an operator")


def not_in_force(draft: Draft) -> None:
    """Rule 12, going up: once more, unless that is hopeless or something else than the old weight is seen."""
    acted = draft.happening.acted
    is_hopeless = acted is not None and acted.outcome is ActionOutcome.REFUSED
    is_as_before = draft.observed_bp in (None, draft.state.verified_bp)
    may_again = draft.state.redrives == 0 and not is_hopeless and is_as_before
    wanted = bp_text(draft.state.ordered_bp)
    if may_again and draft.may_regain(draft.observed_bp):
        draft.redrive(Cause.ACTUATION, f"{wanted} was not in force: {_detail(draft)}; ordering it again")
        return
    reason = f"{wanted} could not be brought in force: {_detail(draft)}"
    draft.incident(IncidentKind.ACTUATION, reason)
    draft.pause(PauseCause.ACTUATION, reason)


def still_going_down(draft: Draft) -> None:
    draft.redrive(Cause.ACTUATION, f"the roll-back is not in force: {_detail(draft)}; trying again")
    _page(draft)


def is_down(draft: Draft) -> None:
    """Down is 0 and nothing else: no final state may leave traffic that nobody owns."""
    if draft.observed_bp:
        still_going_down(draft)
        return
    outcome = Phase.ABORTED if draft.state.down_cause is Cause.ABORT else Phase.ROLLED_BACK
    draft.set(phase=outcome, in_flight=None, verified_bp=0)


def finalised(draft: Draft) -> None:
    draft.set(phase=Phase.PROMOTED, in_flight=None, verified_bp=draft.state.ordered_bp)


def not_finalised(draft: Draft) -> None:
    reason = f"could not finalise: {_detail(draft)}; trying again"
    draft.incident(IncidentKind.ACTUATION, reason)
    draft.redrive(Cause.ACTUATION, reason)


def drifted(draft: Draft) -> None:
    """Somebody else moved the traffic."""
    reason = _drift_text(draft)
    draft.incident(IncidentKind.DRIFT, reason)
    reasserts = draft.policy.on_drift is OnDrift.REASSERT and draft.state.phase is Phase.ANALYSING
    if reasserts and draft.may_regain(draft.observed_bp):
        draft.set(phase=Phase.SHIFTING)
        draft.redrive(Cause.DRIFT, f"{reason}; bringing {bp_text(draft.state.ordered_bp)} in force again")
    else:
        draft.pause(PauseCause.DRIFT, reason)


def _drift_text(draft: Draft) -> str:
    seen = "something else" if draft.observed_bp is None else bp_text(draft.observed_bp)
    return f"traffic is at {seen} instead of {bp_text(draft.state.ordered_bp)}: {_detail(draft)}"


def drift_noted(draft: Draft) -> None:
    draft.incident(IncidentKind.DRIFT, _drift_text(draft))


def drift_at_start(draft: Draft) -> None:
    drift_noted(draft)
    cannot_start(draft)


def drift_redriven(draft: Draft) -> None:
    drift_noted(draft)
    draft.redrive(Cause.DRIFT, "traffic moved while rolling back; bringing 0 % in force again")


def pause_trouble(draft: Draft) -> None:
    draft.incident(IncidentKind.ACTUATION, f"while paused: {_detail(draft)}")


def back_in_place(draft: Draft) -> None:
    """Traffic is where it should be after all: drift and actuation no longer hold the rollout."""
    misplaced = (PauseCause.DRIFT, PauseCause.ACTUATION)
    others = tuple(cause for cause in draft.state.pause_causes if cause not in misplaced)
    if others == draft.state.pause_causes:
        return
    draft.set(pause_causes=others)
    in_force(draft)
    if others:
        draft.set(phase=Phase.PAUSED)
    elif draft.state.phase is not Phase.PAUSED:
        draft.decide(DecisionKind.RESUME, Cause.RECOVERED, "the ordered weight is in force again")


def unanswered(give_up: Callable[[Draft], None]) -> Callable[[Draft], None]:
    """A timer for an order that nobody reports on: the actuator is gone or cannot speak."""

    def order_timer(draft: Draft) -> None:
        order = draft.state.in_flight
        patience = ORDER_PATIENCE * draft.policy.verify_timeout_s
        if order is not None and draft.since(draft.state.order_since) >= patience:
            give_up(draft)

    return order_timer


def down_timer(draft: Draft) -> None:
    """A roll-back that nobody reports on is ordered again, for ever."""
    _order_down_again(draft)
    _page(draft)


_order_down_again = unanswered(still_going_down)


def _page(draft: Draft) -> None:
    """Call people after a minute, once."""
    if draft.since(draft.state.down_since) >= PAGE_AFTER_S and not draft.state.down_alerted:
        draft.set(down_alerted=True)
        detail = f"the roll-back is not in force after {duration_text(PAGE_AFTER_S)}; Sentra keeps trying"
        draft.incident(IncidentKind.STUCK_ROLL_BACK, detail)


# Sentra comes back.


def restarted(draft: Draft) -> None:
    """Passes count afresh, and a weight other than the ordered one is put right before anything else."""
    draft.set(passes=0)
    seen = _raise_floors(draft)
    if seen is None or seen == draft.state.ordered_bp:
        return
    reason = f"found {bp_text(seen)} in force after a restart, {bp_text(draft.state.ordered_bp)} was ordered"
    if draft.may_regain(seen):
        draft.set(phase=Phase.SHIFTING)
        draft.redrive(Cause.RESTART, reason)
    else:
        draft.incident(IncidentKind.DRIFT, reason)
        draft.pause(PauseCause.DRIFT, reason)


def restarted_in_order(draft: Draft) -> None:
    """The order in flight is published again under its own id, unless newer ones than we knew were given."""
    known = draft.state.generation
    _raise_floors(draft)
    if draft.state.generation > known:
        draft.redrive(Cause.RESTART, "ordering again after a restart")


def restarted_paused(draft: Draft) -> None:
    seen = _raise_floors(draft)
    draft.set(passes=0)
    if seen is not None and seen != draft.state.ordered_bp:
        drift_noted_text = f"found {bp_text(seen)} in force after a restart"
        draft.incident(IncidentKind.DRIFT, drift_noted_text)
        draft.pause(PauseCause.DRIFT, drift_noted_text)


def _raise_floors(draft: Draft) -> int | None:
    """Newer identities than we knew were in use; returns the weight last seen in force, if known."""
    restart = draft.happening.restart
    assert restart is not None, "only a restart has floors"
    draft.stand_still()
    draft.set(generation=max(draft.state.generation, restart.generation_floor))
    return restart.observed_bp
