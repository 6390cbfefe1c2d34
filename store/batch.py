"""One transaction's worth of what the log tells, and how it is stored.

Rule: a batch may hold what is stored already, and records of owners that were deposed. The first changes
nothing; the second is dropped, by the owner epochs in the order of the log: whoever writes with a lower epoch
than one seen before in its partition was frozen while another one took over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, tuple_, update

from domain.decision import Incident
from domain.records import ActionRecord, Evaluation, EvaluationFrame, RolloutRecord, TickInput
from store.ledger import add_incidents, digest_of
from store.models import ActionReport, EvaluationRow, Meta
from store.projection import project, save_rollout

CHUNK = 500
"""Rows per statement: where MariaDB's speed levels off, and far below anybody's limit of parameters."""

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What to store together. Evaluations of frames come in the order of the log."""

    frames: tuple[EvaluationFrame, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    actions: tuple[ActionRecord, ...] = ()
    incidents: tuple[Incident, ...] = ()
    rollouts: tuple[RolloutRecord, ...] = ()

    def __len__(self) -> int:
        framed = sum(len(frame.evaluations) for frame in self.frames)
        return framed + sum(map(len, (self.evaluations, self.actions, self.incidents, self.rollouts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a batch."""

    evaluations: int
    """How many were new."""
    fenced: int
    """How many came from deposed owners and were dropped."""


def write_batch(connection: Connection, batch: Batch) -> Written:
    """Store ``batch`` in the caller's transaction."""
    valid, fenced = _valid(connection, batch.frames)
    fresh = _fresh(connection, [*valid, *batch.evaluations])
    for chunk in _chunks(fresh):
        connection.execute(insert(EvaluationRow), [_row(evaluation) for evaluation in chunk])
    project(connection, fresh)
    add_incidents(connection, batch.incidents)
    _add_actions(connection, batch.actions)
    for record in batch.rollouts:
        save_rollout(connection, record)
    return Written(evaluations=len(fresh), fenced=fenced)


def _chunks(rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


# --- deposed owners


def _valid(connection: Connection, frames: Sequence[EvaluationFrame]) -> tuple[list[Evaluation], int]:
    """The evaluations of owners that were in office, and the number of the others."""
    valid: list[Evaluation] = []
    fenced = 0
    for partition in {frame.partition for frame in frames}:
        key = f"owner_epoch/{partition}"
        # Locked, so that two recorders of one partition look one after the other.
        stored = connection.scalar(select(Meta.value).where(Meta.key == key).with_for_update())
        highest = known = int(stored or 0)
        for frame in frames:
            if frame.partition != partition:
                continue
            if frame.owner_epoch < highest:
                fenced += len(frame.evaluations)
                continue
            highest = frame.owner_epoch
            valid.extend(frame.evaluations)
        if stored is None:
            connection.execute(insert(Meta).values(key=key, value=str(highest)))
        elif highest > known:
            connection.execute(update(Meta).where(Meta.key == key).values(value=str(highest)))
    return valid, fenced


# --- evaluations


def _fresh(connection: Connection, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Those that are not stored, once each, in fold order within each rollout."""
    by_key: dict[tuple[str, int], Evaluation] = {}
    for evaluation in evaluations:
        by_key.setdefault((evaluation.rollout_id, evaluation.seq), evaluation)
    keys = sorted(by_key)
    identity = tuple_(EvaluationRow.rollout_id, EvaluationRow.seq)
    for chunk in _chunks(keys):
        query = select(EvaluationRow.rollout_id, EvaluationRow.seq).where(identity.in_(chunk))
        for rollout_id, seq in connection.execute(query):
            del by_key[rollout_id, seq]
    return [by_key[key] for key in keys if key in by_key]


def _row(evaluation: Evaluation) -> dict[str, Any]:
    given = evaluation.input
    return {
        "rollout_id": evaluation.rollout_id,
        "seq": evaluation.seq,
        "at": given.now,
        "tick_end": given.end if isinstance(given, TickInput) else None,
        "input_kind": str(given.__struct_config__.tag),
        "phase": evaluation.phase.value,
        "step_index": evaluation.step_index,
        "verdict": None if evaluation.verdict is None else evaluation.verdict.value,
        "decision": evaluation.kind.value,
        "has_fold": evaluation.fold is not None,
        "record": _encode(evaluation),
    }


# --- actuators' reports


def _add_actions(connection: Connection, actions: Sequence[ActionRecord]) -> None:
    if not actions:
        return
    by_digest = {digest_of(action): action for action in actions}
    known = connection.scalars(select(ActionReport.digest).where(ActionReport.digest.in_(by_digest))).all()
    rows = [
        {
            "rollout_id": action.rollout_id,
            "decision_id": action.decision_id,
            "generation": action.generation,
            "outcome": action.outcome.value,
            "observed_bp": action.observed_bp,
            "at": action.at,
            "record": _encode(action),
            "digest": digest,
        }
        for digest, action in by_digest.items()
        if digest not in known
    ]
    if rows:
        connection.execute(insert(ActionReport), rows)
