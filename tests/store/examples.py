"""Rollouts and records to store: small, complete, and different in every field that a test looks at."""

from __future__ import annotations

import struct
from typing import Any

from domain.decision import (
    ActionOutcome,
    Answer,
    Cause,
    CommandKind,
    Decision,
    DecisionKind,
    Incident,
    IncidentKind,
    Order,
    decision_id,
)
from domain.labels import Labels
from domain.policy import Gate, JudgeName, MatchRule, Policy, Telemetry, Traffic
from domain.records import (
    ActionInput,
    ActionRecord,
    Command,
    CommandInput,
    DecisionRecord,
    Evaluation,
    EvaluationFrame,
    Input,
    RolloutRecord,
    SignalInput,
    TickInput,
)
from domain.rollout import (
    KERNEL_VERSION,
    Acted,
    GateState,
    Phase,
    RolloutFold,
    RolloutSpec,
    RolloutState,
    SourceRef,
    context_of,
)
from domain.signal import Arm, Channel
from domain.verdict import Score, Verdict

T0 = 1_700_000_000.1
"""Not a whole number: what is stored must come back bit for bit."""


def policy(service: str = "checkout", target: str = "checkout", **changes: Any) -> Policy:
    gate = Gate(signal="error_rate", slo=0.01, severe=0.05, window_s=60.0, min_samples=100, min_events=3)
    fields: dict[str, Any] = {
        "service": service,
        "environment": "prod-eu",
        "judge": JudgeName.THRESHOLD,
        "weights_bp": (500, 2000, 10_000),
        "gates": (gate,),
        "traffic": Traffic(adapter="memory", target={"namespace": "shop", "name": target}),
        "telemetry": Telemetry(metrics="prom-eu"),
    }
    return Policy(**(fields | changes))


def spec(
    rollout_id: str = "r1", service: str = "checkout", target: str = "", environment: str = "prod-eu"
) -> RolloutSpec:
    return RolloutSpec(
        rollout_id=rollout_id,
        service=service,
        environment=environment,
        stable="v1",
        canary="v2",
        policy=policy(service, target or service, environment=environment),
        sources=(SourceRef(name="prom-eu", channel=Channel.METRICS),),
        labels=Labels(project="shop", service=service, env=environment),
        created_at=T0,
        created_by="ann",
    )


def start(of: RolloutSpec, command_id: str = "") -> Command:
    return command(CommandKind.START, of.rollout_id, command_id or f"start-{of.rollout_id}", spec=of)


def command(kind: CommandKind, rollout_id: str = "r1", command_id: str = "c1", **others: Any) -> Command:
    fields: dict[str, Any] = {"actor": "ann", "reason": "ship it — “now”", "at": T0}
    return Command(command_id=command_id, rollout_id=rollout_id, kind=kind, **(fields | others))


def score(verdict: Verdict = Verdict.PASS) -> Score:
    return Score(
        gate=0, signal="error_rate", verdict=verdict, reason="0.1 % ≤ 1 %", canary_point=0.1 + 0.2, limit=0.01
    )


def tick(at: float) -> TickInput:
    seen = SignalInput("error_rate", Arm.CANARY, at - 5.0, 1.0, 1 / 3, (5.0, float("inf")), (1.0, 2.0))
    return TickInput(start=at - 5.0, end=at, now=at + 0.3, signals=(seen,), problems={"loki": "503"})


def evaluation(
    seq: int,
    rollout_id: str = "r1",
    *,
    given: Input | None = None,
    phase: Phase = Phase.ANALYSING,
    step_index: int = 0,
    fold: RolloutFold | None = None,
    **others: Any,
) -> Evaluation:
    fields: dict[str, Any] = {"scores": (score(),), "verdict": Verdict.PASS} if given is None else {}
    return Evaluation(
        rollout_id=rollout_id,
        seq=seq,
        input=given or tick(T0 + 5.0 * seq),
        context="c0ffee",
        kernel_version=KERNEL_VERSION,
        phase=phase,
        step_index=step_index,
        fold=fold,
        **(fields | others),
    )


def fold(of: RolloutSpec, seq: int) -> RolloutFold:
    state = RolloutState(rollout_id=of.rollout_id, seq=seq, phase=Phase.ANALYSING, now=T0 + seq)
    return RolloutFold(
        spec=of, context=context_of(of), state=state, gates=(GateState(memory=struct.pack("<d", 0.1 + 0.2)),)
    )


def started(of: RolloutSpec, seq: int = 1) -> Evaluation:
    """The fold of a start command, with state."""
    asked = start(of)
    return evaluation(
        seq,
        of.rollout_id,
        given=CommandInput(now=T0 + 1, command=asked),
        phase=Phase.STARTING,
        fold=fold(of, seq),
        answer=Answer(command_id=asked.command_id, accepted=True, reason="started", possible=("abort",)),
    )


def decided(
    seq: int, kind: DecisionKind = DecisionKind.ADVANCE, rollout_id: str = "r1", **others: Any
) -> Decision:
    fields: dict[str, Any] = {
        "cause": Cause.PASSED,
        "reason": "3 passes",
        "order": Order.SHIFT,
        "weight_bp": 2000,
        "generation": 2,
        "at": T0 + seq,
    }
    return Decision(
        decision_id=decision_id(rollout_id, seq),
        rollout_id=rollout_id,
        seq=seq,
        kind=kind,
        **(fields | others),
    )


def verified(seq: int, observed_bp: int, rollout_id: str = "r1", **others: Any) -> Evaluation:
    acted = Acted(generation=2, outcome=ActionOutcome.VERIFIED, observed_bp=observed_bp, at=T0)
    return evaluation(seq, rollout_id, given=ActionInput(now=T0 + seq, acted=acted), **others)


def frame(*evaluations: Evaluation, epoch: int = 1, partition: int = 0) -> EvaluationFrame:
    return EvaluationFrame(
        partition=partition,
        owner=f"worker-{epoch}",
        owner_epoch=epoch,
        broker_epoch="b1",
        published_at=T0,
        evaluations=evaluations,
        resume={},
    )


def order(
    seq: int = 7, generation: int = 2, rollout_id: str = "r1", target_key: str = "t1"
) -> DecisionRecord:
    return DecisionRecord(
        decision=decided(seq, rollout_id=rollout_id, generation=generation),
        service="checkout",
        environment="prod-eu",
        stable="v1",
        canary="v2",
        traffic=Traffic(adapter="memory", target={"name": "checkout"}),
        match=MatchRule(),
        target_key=target_key,
        owner="worker-1",
        owner_epoch=1,
        verify_timeout_s=60.0,
    )


def public(of: RolloutSpec, seq: int = 5, phase: Phase = Phase.ANALYSING, **others: Any) -> RolloutRecord:
    fields: dict[str, Any] = {
        "at": T0 + seq,
        "step_index": 1,
        "ordered_bp": 2000,
        "verified_bp": 500,
        "generation": 2,
        "verdict": Verdict.PASS,
        "passes": 1,
        "pause_causes": (),
        "reason": "3 passes",
        "waits_for": "2 more passes",
        "eta_s": 10.0,
        "started_at": T0,
        "scores": (score(),),
    }
    return RolloutRecord(spec=of, phase=phase, seq=seq, **(fields | others))


def report(decision: str = "d1", rollout_id: str = "r1", **others: Any) -> ActionRecord:
    fields: dict[str, Any] = {
        "generation": 2,
        "outcome": ActionOutcome.VERIFIED,
        "at": T0,
        "observed_bp": 500,
    }
    return ActionRecord(rollout_id=rollout_id, decision_id=decision, **(fields | others))


def incident(seq: int = 3, detail: str = "2 % errors", rollout_id: str = "r1") -> Incident:
    return Incident(
        rollout_id=rollout_id, kind=IncidentKind.FAIL, at=T0 + seq, step_index=0, detail=detail, seq=seq
    )
