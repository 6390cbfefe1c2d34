"""What can be asked of stored rollouts. Every function reads in the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from domain.decision import Answer, Incident, IncidentKind
from domain.records import ActionRecord, Evaluation, RolloutRecord
from domain.rollout import Phase, RolloutFold, RolloutSpec
from domain.verdict import Score, Verdict
from store.ledger import audited
from store.models import (
    ActionReport,
    AuditEntry,
    CommandRow,
    Deployment,
    Environment,
    EvaluationRow,
    IncidentRow,
    RolloutStep,
    Service,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRollout:
    """A rollout as the database knows it. Times are seconds since the epoch, UTC."""

    cursor: int
    """Where it stands in a list; newer ones are higher."""
    spec: RolloutSpec
    phase: Phase
    outcome: Phase | None
    reason: str
    seq: int
    generation: int
    step_index: int
    ordered_bp: int
    verified_bp: int
    verdict: Verdict | None
    created_at: float
    started_at: float | None
    completed_at: float | None
    updated_at: float
    pruned_at: float | None
    public: RolloutRecord | None
    """Its last public record; ``None`` before the first."""

    @property
    def is_active(self) -> bool:
        return self.completed_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """A step: ``pending``, one of the rollout's phases, or ``done``."""

    step_index: int
    weight_bp: int
    status: str
    decision: str | None
    scores: tuple[Score, ...]
    began_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """Who did what, when, why. ``reference`` is the id of the command or decision behind it."""

    at: float
    actor: str
    action: str
    reference: str
    reason: str
    scores: tuple[Score, ...]
    """What a decision stood on; empty for commands."""


_spec = msgspec.json.Decoder(RolloutSpec).decode
_scores = msgspec.json.Decoder(tuple[Score, ...]).decode
_possible = msgspec.json.Decoder(tuple[str, ...]).decode
_public = msgspec.msgpack.Decoder(RolloutRecord).decode
_evaluation = msgspec.msgpack.Decoder(Evaluation).decode
_report = msgspec.msgpack.Decoder(ActionRecord).decode


def find_rollouts(
    connection: Connection,
    *,
    rollout_id: str | None = None,
    service: str | None = None,
    environment: str | None = None,
    phases: Collection[Phase] | None = None,
    is_active: bool | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> list[StoredRollout]:
    """Rollouts that fit everything given, newest first. ``before`` is the cursor of the last one seen."""
    query = select(Deployment).order_by(Deployment.id.desc())
    if rollout_id is not None:
        query = query.where(Deployment.rollout_id == rollout_id)
    if service is not None:
        query = query.join(Service, Service.id == Deployment.service_id).where(Service.name == service)
    if environment is not None:
        query = query.join(Environment, Environment.id == Deployment.environment_id)
        query = query.where(Environment.name == environment)
    if phases is not None:
        query = query.where(Deployment.status.in_([phase.value for phase in phases]))
    if is_active is not None:
        ended = Deployment.completed_at
        query = query.where(ended.is_(None) if is_active else ended.is_not(None))
    if before is not None:
        query = query.where(Deployment.id < before)
    return [_rollout(row) for row in connection.execute(query.limit(limit))]


def _rollout(row: Row[Any]) -> StoredRollout:
    return StoredRollout(
        cursor=row.id,
        spec=_spec(row.spec),
        phase=Phase(row.status),
        outcome=None if row.outcome is None else Phase(row.outcome),
        reason=row.reason,
        seq=row.seq,
        generation=row.generation,
        step_index=row.step_index,
        ordered_bp=row.ordered_bp,
        verified_bp=row.verified_bp,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        updated_at=row.updated_at,
        pruned_at=row.pruned_at,
        public=None if row.public is None else _public(row.public),
    )


def steps_of(connection: Connection, rollout_id: str) -> list[StoredStep]:
    """Its steps, in order."""
    query = (
        select(RolloutStep)
        .join(Deployment, Deployment.id == RolloutStep.deployment_id)
        .where(Deployment.rollout_id == rollout_id)
        .order_by(RolloutStep.step_index)
    )
    return [
        StoredStep(
            step_index=row.step_index,
            weight_bp=row.weight_bp,
            status=row.status,
            decision=row.decision,
            scores=() if row.metrics_snapshot is None else _scores(row.metrics_snapshot),
            began_at=row.began_at,
            ended_at=row.ended_at,
        )
        for row in connection.execute(query)
    ]


def incidents(
    connection: Connection, rollout_id: str | None, since: float, limit: int | None
) -> list[Incident]:
    """Incidents at or after ``since``, newest first."""
    query = select(IncidentRow).where(IncidentRow.at >= since)
    if rollout_id is not None:
        query = query.where(IncidentRow.rollout_id == rollout_id)
    query = query.order_by(IncidentRow.at.desc(), IncidentRow.id.desc()).limit(limit)
    return [
        Incident(
            rollout_id=row.rollout_id,
            kind=IncidentKind(row.type),
            at=row.at,
            step_index=row.step_index,
            detail=row.details,
            seq=row.seq,
        )
        for row in connection.execute(query)
    ]


def answer_of(connection: Connection, command_id: str) -> Answer | None:
    """How a command was taken; ``None`` while nobody has folded it."""
    query = select(CommandRow).where(CommandRow.command_id == command_id, CommandRow.accepted.is_not(None))
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Answer(
        command_id=row.command_id,
        accepted=bool(row.accepted),
        reason=row.answer or "",
        possible=_possible(row.possible or "[]"),
    )


def evaluations(
    connection: Connection, rollout_id: str, after_seq: int, limit: int | None = None
) -> list[Evaluation]:
    """Its records after ``after_seq``, in fold order, exactly as they were folded."""
    query = (
        select(EvaluationRow.record)
        .where(EvaluationRow.rollout_id == rollout_id, EvaluationRow.seq > after_seq)
        .order_by(EvaluationRow.seq)
        .limit(limit)
    )
    return [_evaluation(record) for record in connection.scalars(query)]


def last_fold(connection: Connection, rollout_id: str) -> RolloutFold | None:
    """The newest state that a stored record carries."""
    query = (
        select(EvaluationRow.record)
        .where(EvaluationRow.rollout_id == rollout_id, EvaluationRow.has_fold)
        .order_by(EvaluationRow.seq.desc())
        .limit(1)
    )
    record = connection.scalar(query)
    return None if record is None else _evaluation(record).fold


def audit(connection: Connection, rollout_id: str) -> list[AuditLine]:
    """Its audit lines, oldest first."""
    query = select(AuditEntry).where(AuditEntry.resource == audited(rollout_id)).order_by(AuditEntry.id)
    return [
        AuditLine(
            at=row.at,
            actor=row.actor,
            action=row.action,
            reference=row.reference,
            reason=row.reason,
            scores=() if row.evidence is None else _scores(row.evidence),
        )
        for row in connection.execute(query)
    ]


def action_reports(connection: Connection, rollout_id: str) -> list[ActionRecord]:
    """What actuators said about it, in the order it was stored."""
    query = select(ActionReport.record).where(ActionReport.rollout_id == rollout_id).order_by(ActionReport.id)
    return [_report(record) for record in connection.scalars(query)]
