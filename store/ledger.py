"""What happened, for people: incidents, commands with their answers, and the audit log.

Rule: rows are added and answered, never changed otherwise, and told twice they are stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update

from domain.decision import Answer, Incident
from domain.records import Command, CommandInput, Evaluation
from store.catalogue import deployment_id, json_text
from store.models import AuditEntry, CommandRow, IncidentRow

ENGINE_ACTOR = "sentra"
"""Who decides when nobody told us to."""


def audited(rollout_id: str) -> str:
    """What the audit log calls a rollout."""
    return f"rollout/{rollout_id}"


def digest_of(record: msgspec.Struct) -> str:
    """The content's identity: the same record twice, by whatever way, has one digest."""
    return sha256(msgspec.msgpack.encode(record, order="sorted")).hexdigest()


def add_incidents(connection: Connection, incidents: Sequence[Incident]) -> None:
    """Store those that are not there yet."""
    if not incidents:
        return
    by_digest = {digest_of(incident): incident for incident in incidents}
    known = connection.scalars(select(IncidentRow.digest).where(IncidentRow.digest.in_(by_digest))).all()
    rows = [
        {
            "deployment_id": deployment_id(connection, incident.rollout_id),
            "rollout_id": incident.rollout_id,
            "step_index": incident.step_index,
            "type": incident.kind.value,
            "details": incident.detail,
            "seq": incident.seq,
            "at": incident.at,
            "digest": digest,
        }
        for digest, incident in by_digest.items()
        if digest not in known
    ]
    if rows:
        connection.execute(insert(IncidentRow), rows)


def add_command(connection: Connection, command: Command) -> bool:
    """Store what was asked and by whom. ``False`` when this command is known."""
    known = connection.scalar(select(CommandRow.kind).where(CommandRow.command_id == command.command_id))
    if known is not None:
        return False
    connection.execute(
        insert(CommandRow).values(
            command_id=command.command_id,
            rollout_id=command.rollout_id,
            kind=command.kind.value,
            actor=command.actor,
            reason=command.reason,
            at=command.at,
        )
    )
    _audit(
        connection,
        [
            {
                "at": command.at,
                "actor": command.actor,
                "action": command.kind.value,
                "resource": audited(command.rollout_id),
                "reference": command.command_id,
                "reason": command.reason,
                "evidence": None,
            }
        ],
    )
    return True


def answer_commands(connection: Connection, evaluations: Sequence[Evaluation]) -> None:
    """Store how commands were taken; also of those that came by the log and not through this database."""
    for evaluation in evaluations:
        if isinstance(evaluation.input, CommandInput):
            add_command(connection, evaluation.input.command)
        if evaluation.answer is not None:
            _answer(connection, evaluation.answer, evaluation.input.now)


def _answer(connection: Connection, answer: Answer, at: float) -> None:
    connection.execute(
        update(CommandRow)
        .where(CommandRow.command_id == answer.command_id)
        .values(
            accepted=answer.accepted,
            answer=answer.reason,
            possible=json_text(answer.possible),
            answered_at=at,
        )
    )


def audit_decisions(connection: Connection, evaluations: Sequence[Evaluation]) -> None:
    """Store each decision with the scores it stands on, for good: the evaluations are pruned one day."""
    rows = [
        {
            "at": decision.at or evaluation.input.now,
            "actor": _actor(evaluation),
            "action": decision.kind.value,
            "resource": audited(evaluation.rollout_id),
            "reference": decision.decision_id,
            "reason": decision.reason,
            "evidence": json_text(evaluation.scores),
        }
        for evaluation in evaluations
        if (decision := evaluation.decision) is not None
    ]
    _audit(connection, rows)


def _actor(evaluation: Evaluation) -> str:
    if isinstance(evaluation.input, CommandInput):
        return evaluation.input.command.actor
    return ENGINE_ACTOR


def _audit(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(AuditEntry), rows)
