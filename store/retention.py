"""What is deleted, and when: only what the archive and the audit log keep in other forms.

Rule: nothing of a rollout that has not ended is ever deleted, however old. Of one that has, the row itself,
its steps, incidents, commands, orders and audited decisions stay for good; its evaluations go.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, delete, select, update

from store.database import reading, writing
from store.models import ActionReport, Deployment, EvaluationRow, OutboxRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went."""

    rollouts: int
    evaluations: int
    promises: int


def prune(engine: Engine, *, older_than: float, now: float) -> Pruned:
    """Delete evaluations of rollouts that ended before ``older_than``, and promises kept before it.

    One transaction per rollout, so that writers wait for one rollout at most.
    """
    has_ended = Deployment.completed_at < older_than
    with reading(engine) as connection:
        ended = connection.scalars(
            select(Deployment.rollout_id).where(has_ended, Deployment.pruned_at.is_(None))
        ).all()
    evaluations = sum(_prune_rollout(engine, rollout_id, now) for rollout_id in ended)
    return Pruned(rollouts=len(ended), evaluations=evaluations, promises=_prune_promises(engine, older_than))


def _prune_rollout(engine: Engine, rollout_id: str, now: float) -> int:
    with writing(engine) as connection:
        gone = connection.execute(delete(EvaluationRow).where(EvaluationRow.rollout_id == rollout_id))
        connection.execute(delete(ActionReport).where(ActionReport.rollout_id == rollout_id))
        connection.execute(
            update(Deployment).where(Deployment.rollout_id == rollout_id).values(pruned_at=now)
        )
        return gone.rowcount


def _prune_promises(engine: Engine, older_than: float) -> int:
    running = select(Deployment.rollout_id).where(Deployment.completed_at.is_(None))
    with writing(engine) as connection:
        gone = connection.execute(
            delete(OutboxRow).where(OutboxRow.published_at < older_than, OutboxRow.key.not_in(running))
        )
        return gone.rowcount
