"""The actuation journal: what was ordered, what was tried, what came of it. One row per decision.

Written around each write to a platform, so that a crash at any moment leaves a row that says where to look::

    INTENT ──► SENT ──► APPLIED ──► NOT_APPLIED        VERIFIED · REFUSED · SUPERSEDED
       known     on the    accepted    tried, and the      the end: nothing moves
       to us     wire                  old state rules     a row out of these

Rule: within one attempt the state moves to the right only, and `SENT` begins the next attempt; so the pair
(attempts, state) never goes backwards, whoever writes and however late. A writer with an epoch older than the
row's changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec
from sqlalchemy import Engine, Row, func, insert, select, update

from domain.records import DecisionRecord
from store.database import reading, writing
from store.errors import Duplicate
from store.models import Action


class ActionState(Enum):
    """How far an order got, in the order of the drawing above."""

    INTENT = "INTENT"
    SENT = "SENT"
    APPLIED = "APPLIED"
    NOT_APPLIED = "NOT_APPLIED"
    VERIFIED = "VERIFIED"
    REFUSED = "REFUSED"
    SUPERSEDED = "SUPERSEDED"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({ActionState.VERIFIED, ActionState.REFUSED, ActionState.SUPERSEDED})
_OPEN = tuple(state for state in ActionState if state not in _FINAL)
_MOMENTS = {
    ActionState.SENT: "sent_at",
    ActionState.APPLIED: "applied_at",
    ActionState.VERIFIED: "verified_at",
}


def _before(state: ActionState) -> tuple[ActionState, ...]:
    """The states a row may leave for ``state``."""
    if state is ActionState.SENT or state.is_final:
        return _OPEN
    return _OPEN[: _OPEN.index(state)]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One order and its fate. Times are seconds since the epoch, UTC; ``None`` where it never came so far."""

    record: DecisionRecord
    state: ActionState
    epoch: int
    owner: str
    attempts: int
    """How often it was sent."""
    token_before: str
    token_after: str
    snapshot: bytes | None
    observed_bp: int | None
    detail: str
    intent_at: float
    sent_at: float | None
    applied_at: float | None
    verified_at: float | None
    updated_at: float

    @property
    def decision_id(self) -> str:
        return self.record.decision.decision_id

    @property
    def generation(self) -> int:
        return self.record.decision.generation


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DecisionRecord).decode


class Journal:
    """The table of actions. All methods raise :class:`StoreUnavailable` when the database cannot be asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def intend(self, record: DecisionRecord, *, at: float, epoch: int = 0, owner: str = "") -> bool:
        """Note that ``record`` is to be carried out. ``False`` when it is known: then nothing changes."""
        decision = record.decision
        row = {
            "decision_id": decision.decision_id,
            "rollout_id": decision.rollout_id,
            "target_key": record.target_key,
            "seq": decision.seq,
            "generation": decision.generation,
            "kind": decision.kind.value,
            "order": decision.order.value,
            "weight_bp": decision.weight_bp,
            "state": ActionState.INTENT.value,
            "epoch": epoch,
            "owner": owner,
            "attempts": 0,
            "token_before": "",
            "token_after": "",
            "detail": "",
            "record": _encode(record),
            "intent_at": at,
            "updated_at": at,
        }
        try:
            with writing(self._engine) as connection:
                connection.execute(insert(Action).values(row))
        except Duplicate:
            return False
        return True

    def record(
        self,
        decision_id: str,
        state: ActionState,
        *,
        at: float,
        epoch: int = 0,
        owner: str = "",
        token_before: str | None = None,
        token_after: str | None = None,
        snapshot: bytes | None = None,
        observed_bp: int | None = None,
        detail: str | None = None,
    ) -> bool:
        """Move the order to ``state``. ``False`` when the rules forbid it, and then nothing changes.

        What is ``None`` stays as it was. A snapshot of the pristine target is taken once: a second one is
        ignored.
        """
        values: dict[str, Any] = {"state": state.value, "epoch": epoch, "owner": owner, "updated_at": at}
        facts: dict[str, Any] = {"token_before": token_before, "token_after": token_after}
        facts |= {"observed_bp": observed_bp, "detail": detail}
        values |= {name: value for name, value in facts.items() if value is not None}
        values[_MOMENTS.get(state, "ended_at")] = at
        if state is ActionState.SENT:
            values |= {"attempts": Action.attempts + 1, "ended_at": None}
        if snapshot is not None:
            values["snapshot"] = func.coalesce(Action.snapshot, snapshot)
        allowed = [before.value for before in _before(state)]
        with writing(self._engine) as connection:
            moved = connection.execute(
                update(Action)
                .where(Action.decision_id == decision_id, Action.state.in_(allowed), Action.epoch <= epoch)
                .values(values)
            )
            return bool(moved.rowcount)

    def load(self, decision_id: str) -> JournalEntry | None:
        """What is known of one decision."""
        return self._one(select(Action).where(Action.decision_id == decision_id))

    def latest(self, target_key: str) -> JournalEntry | None:
        """The order that rules a target: the highest generation of the last rollout that ordered anything."""
        last = (
            select(Action.rollout_id)
            .where(Action.target_key == target_key)
            .order_by(Action.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        return self._one(
            select(Action)
            .where(Action.target_key == target_key, Action.rollout_id == last)
            .order_by(Action.generation.desc())
            .limit(1)
        )

    def unfinished(self, owner: str | None = None) -> list[JournalEntry]:
        """Orders that may still move, oldest first; only those of ``owner`` when given."""
        query = select(Action).where(Action.state.in_([state.value for state in _OPEN])).order_by(Action.id)
        if owner is not None:
            query = query.where(Action.owner == owner)
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query)]

    def highest_generation(self, rollout_id: str) -> int:
        """0 when nothing was ever ordered."""
        return self._highest(rollout_id, Action.generation)

    def highest_seq(self, rollout_id: str) -> int:
        """The last fold that ordered something; 0 when none did."""
        return self._highest(rollout_id, Action.seq)

    def last_verified(self, rollout_id: str) -> JournalEntry | None:
        """The newest order of a rollout that was seen in force."""
        return self._one(
            select(Action)
            .where(Action.rollout_id == rollout_id, Action.state == ActionState.VERIFIED.value)
            .order_by(Action.generation.desc())
            .limit(1)
        )

    def snapshot_of(self, rollout_id: str) -> bytes | None:
        """The target as it was before the first order that remembered it."""
        taken = select(Action.snapshot).where(Action.rollout_id == rollout_id, Action.snapshot.is_not(None))
        with reading(self._engine) as connection:
            return connection.scalar(taken.order_by(Action.generation).limit(1))

    def _highest(self, rollout_id: str, column: Any) -> int:
        with reading(self._engine) as connection:
            return connection.scalar(select(func.max(column)).where(Action.rollout_id == rollout_id)) or 0

    def _one(self, query: Any) -> JournalEntry | None:
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _entry(row)


def _entry(row: Row[Any]) -> JournalEntry:
    return JournalEntry(
        record=_decode(row.record),
        state=ActionState(row.state),
        epoch=row.epoch,
        owner=row.owner,
        attempts=row.attempts,
        token_before=row.token_before,
        token_after=row.token_after,
        snapshot=row.snapshot,
        observed_bp=row.observed_bp,
        detail=row.detail,
        intent_at=row.intent_at,
        sent_at=row.sent_at,
        applied_at=row.applied_at,
        verified_at=row.verified_at,
        updated_at=row.updated_at,
    )
