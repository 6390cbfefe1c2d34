"""What evaluation records mean for a rollout's own row and for its steps.

Rule: everything here is derived from the records, in their order, and each record counts once (the caller
hands over only those that were not stored before). A row never goes back to an older ``seq``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select, update

from domain.decision import ActionOutcome, Decision, DecisionKind, Order
from domain.records import ActionInput, CommandInput, Evaluation, RolloutRecord
from domain.rollout import Phase, RolloutSpec
from store.catalogue import DONE, adopt_rollout, deployment_id, json_text, policy_id
from store.ledger import add_incidents, answer_commands, audit_decisions
from store.models import Deployment, RolloutStep


def project(connection: Connection, fresh: Sequence[Evaluation]) -> None:
    """Bring every table up to date with ``fresh`` records, which are in fold order within each rollout."""
    by_rollout: dict[str, list[Evaluation]] = {}
    for evaluation in fresh:
        by_rollout.setdefault(evaluation.rollout_id, []).append(evaluation)
    for rollout_id, evaluations in by_rollout.items():
        row_id = deployment_id(connection, rollout_id) or _adopted(connection, evaluations)
        if row_id is not None:
            _update_rollout(connection, row_id, evaluations)
            _update_steps(connection, row_id, evaluations)
        add_incidents(connection, [each for evaluation in evaluations for each in evaluation.incidents])
    answer_commands(connection, fresh)
    audit_decisions(connection, fresh)


def _adopted(connection: Connection, evaluations: Sequence[Evaluation]) -> int | None:
    for evaluation in evaluations:
        spec = _spec_in(evaluation)
        if spec is not None:
            return adopt_rollout(connection, spec, evaluation.input.now)
    return None


def _spec_in(evaluation: Evaluation) -> RolloutSpec | None:
    if evaluation.fold is not None:
        return evaluation.fold.spec
    return evaluation.input.command.spec if isinstance(evaluation.input, CommandInput) else None


# --- the rollout's row


def _update_rollout(connection: Connection, row_id: int, evaluations: Sequence[Evaluation]) -> None:
    known = connection.scalar(select(Deployment.seq).where(Deployment.id == row_id)) or 0
    changes: dict[str, Any] = {}
    for evaluation in evaluations:
        if evaluation.seq > known:
            changes |= _rollout_changes(evaluation)
    if not changes:
        return
    first = evaluations[0].input.now
    changes["started_at"] = func.coalesce(Deployment.started_at, first)
    _renew_policy(connection, row_id, evaluations)
    connection.execute(update(Deployment).where(Deployment.id == row_id).values(changes))


def _rollout_changes(evaluation: Evaluation) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "seq": evaluation.seq,
        "status": evaluation.phase.value,
        "step_index": evaluation.step_index,
        "updated_at": evaluation.input.now,
    }
    if evaluation.verdict is not None:
        changes["verdict"] = evaluation.verdict.value
    if evaluation.decision is not None:
        changes |= _ordered(evaluation.decision)
    if isinstance(evaluation.input, ActionInput):
        acted = evaluation.input.acted
        if acted.outcome is ActionOutcome.VERIFIED and acted.observed_bp is not None:
            changes["verified_bp"] = acted.observed_bp
    return changes | _ending(evaluation.phase, evaluation.input.now)


def _ordered(decision: Decision) -> dict[str, Any]:
    if decision.order is Order.NONE:
        return {"reason": decision.reason}
    return {
        "reason": decision.reason,
        "generation": decision.generation,
        "ordered_bp": decision.weight_bp,
    }


def _ending(phase: Phase, at: float) -> dict[str, Any]:
    """What changes when a rollout is over: it lets go of its service and of its target."""
    if not phase.is_final:
        return {}
    return {
        "outcome": phase.value,
        "completed_at": func.coalesce(Deployment.completed_at, at),
        "active_slot": None,
        "active_target": None,
    }


def _renew_policy(connection: Connection, row_id: int, evaluations: Sequence[Evaluation]) -> None:
    folds = [each.fold for each in evaluations if each.fold is not None and each.fold.context.changes]
    if not folds:
        return
    place = connection.execute(
        select(Deployment.service_id, Deployment.environment_id).where(Deployment.id == row_id)
    ).one()
    at = evaluations[-1].input.now
    renewed = policy_id(connection, place.service_id, place.environment_id, folds[-1].context.policy, at)
    connection.execute(update(Deployment).where(Deployment.id == row_id).values(policy_id=renewed))


def save_rollout(connection: Connection, record: RolloutRecord) -> bool:
    """Store a rollout's public state. ``False`` when a newer one is there."""
    row_id = deployment_id(connection, record.spec.rollout_id)
    if row_id is None:
        row_id = adopt_rollout(connection, record.spec, record.at)
    changes: dict[str, Any] = {
        "public": msgspec.msgpack.encode(record),
        "seq": record.seq,
        "status": record.phase.value,
        "step_index": record.step_index,
        "ordered_bp": record.ordered_bp,
        "verified_bp": record.verified_bp,
        "generation": record.generation,
        "reason": record.reason,
        "updated_at": record.at,
        "started_at": func.coalesce(Deployment.started_at, record.started_at or None),
        "verdict": None if record.verdict is None else record.verdict.value,
    }
    is_newest = (Deployment.id == row_id) & (Deployment.seq <= record.seq)
    values = changes | _ending(record.phase, record.at)
    return bool(connection.execute(update(Deployment).where(is_newest).values(values)).rowcount)


# --- its steps


def _update_steps(connection: Connection, row_id: int, evaluations: Sequence[Evaluation]) -> None:
    by_step: dict[int, dict[str, Any]] = {}
    for evaluation in evaluations:
        by_step.setdefault(evaluation.step_index, {}).update(_step_changes(evaluation))
    of_rollout = RolloutStep.deployment_id == row_id
    for index, changes in by_step.items():
        connection.execute(
            update(RolloutStep).where(of_rollout, RolloutStep.step_index == index).values(changes)
        )
    last = evaluations[-1]
    behind = last.step_index + (last.phase is Phase.PROMOTED)
    connection.execute(
        update(RolloutStep)
        .where(of_rollout, RolloutStep.step_index < behind, RolloutStep.status != DONE)
        .values(status=DONE, ended_at=func.coalesce(RolloutStep.ended_at, last.input.now))
    )


def _step_changes(evaluation: Evaluation) -> dict[str, Any]:
    changes: dict[str, Any] = {"status": evaluation.phase.value}
    if evaluation.phase in (Phase.WARMING, Phase.ANALYSING):
        changes["began_at"] = func.coalesce(RolloutStep.began_at, evaluation.input.now)
    if evaluation.kind is not DecisionKind.HOLD:
        changes["decision"] = evaluation.kind.value
    if evaluation.scores:
        changes["metrics_snapshot"] = json_text(evaluation.scores)
    if evaluation.phase.is_final:
        changes["ended_at"] = func.coalesce(RolloutStep.ended_at, evaluation.input.now)
    return changes
