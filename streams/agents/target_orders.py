"""From a decision to the write it asks for, and from what is seen to a report. Pure."""

from __future__ import annotations

from actuators.base import Binding, Fence, Observed, ShiftRequest, Split, TrafficAdapter, is_stored
from actuators.fence import check_fence
from actuators.shift import ActionReport
from domain.decision import ActionOutcome, Cause, DecisionKind, Order
from domain.errors import Fenced
from domain.records import DecisionRecord


def is_on_its_way(record: DecisionRecord) -> bool:
    return record.decision.order in (Order.PREPARE, Order.SHIFT)


def knows_of_drift(record: DecisionRecord) -> bool:
    """Decisions that somebody took because of a drift, or after having paused for one."""
    return record.decision.cause is Cause.DRIFT or record.decision.kind is DecisionKind.RESUME


def binding_of(record: DecisionRecord) -> Binding:
    return Binding(
        service=record.service,
        stable=record.stable,
        canary=record.canary,
        environment=record.environment,
        target=record.traffic.target,
    )


def request_of(record: DecisionRecord, fence: Fence, *, over_drift: bool) -> ShiftRequest:
    decision = record.decision
    return ShiftRequest(
        op_id=decision.decision_id,
        kind=decision.order,
        split=Split(stable=record.stable, canary=record.canary, canary_bp=decision.weight_bp),
        fence=fence,
        match=record.match,
        over_drift=over_drift,
    )


def drift_in(seen: Observed, request: ShiftRequest, adapter: TrafficAdapter) -> str:
    """What differs from the order, in a sentence; empty when nothing does or it is not settled yet."""
    if seen.foreign:
        return seen.foreign
    if adapter.capabilities().carries_fence:
        if seen.fence is None:
            return "somebody replaced what Sentra had written"
        try:
            check_fence(seen.fence, request.fence)
        except Fenced as error:
            return str(error)
    if not is_stored(seen, request, adapter.capabilities()):
        return f"found {seen.split or 'another split'}, ordered was {request.split}"
    return seen.problem


def report_of(outcome: ActionOutcome, seen: Observed, detail: str) -> ActionReport:
    bp = seen.split.canary_bp if seen.split else None
    return ActionReport(outcome=outcome, observed_bp=bp, token=seen.token, detail=detail)
