"""Records that a transaction promised to the log, until a relay has published them.

Rule: a promise is stored in the very transaction that makes it true, and kept at least once: a relay that
dies between publishing and `mark_published` publishes again, which every reader of the log bears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection, Engine, insert, select, update

from domain.clock import utc_text
from domain.records import Command
from store.database import reading, writing
from store.models import CommandRow, Meta, OutboxRow

COMMANDS_TOPIC = "sentra.commands.v1"
LOG_FACT = "outbox/broker_epoch"
"""The log that promises were last published to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One record to publish. ``id`` is 0 until it is stored; ids order the promises of one key."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    id: int = 0


def command_promise(command: Command) -> Promise:
    """The promise to publish ``command``: JSON, keyed by its rollout, with CloudEvents attributes.

    The schema version is always said, though records leave out what is as usual: a later release must not
    take an old record for its own.
    """
    said = {"schema": command.schema} | msgspec.to_builtins(command)
    return Promise(
        topic=COMMANDS_TOPIC,
        key=command.rollout_id,
        value=msgspec.json.encode(said),
        headers={
            "ce_specversion": "1.0",
            "ce_id": command.command_id,
            "ce_source": "sentra",
            "ce_type": f"sentra.command.v{command.schema}",
            "ce_time": utc_text(command.at),
            "content-type": "application/json",
        },
        created_at=command.at,
    )


def promise(connection: Connection, promises: Sequence[Promise]) -> None:
    """Store ``promises`` in the caller's transaction."""
    if not promises:
        return
    rows = [
        {
            "topic": each.topic,
            "key": each.key,
            "value": each.value,
            "headers": msgspec.json.encode(each.headers).decode(),
            "created_at": each.created_at,
        }
        for each in promises
    ]
    connection.execute(insert(OutboxRow), rows)


def promise_again(connection: Connection) -> int:
    """Promise once more every command that was published and that nobody has answered; how many.

    For a log that is lost: what was published to it and not folded exists nowhere else.
    """
    unanswered = set(connection.scalars(select(CommandRow.command_id).where(CommandRow.accepted.is_(None))))
    published = select(OutboxRow.id, OutboxRow.headers).where(
        OutboxRow.topic == COMMANDS_TOPIC, OutboxRow.published_at.is_not(None)
    )
    lost = [
        row.id
        for row in connection.execute(published.order_by(OutboxRow.id))
        if msgspec.json.decode(row.headers).get("ce_id") in unanswered
    ]
    if lost:
        connection.execute(update(OutboxRow).where(OutboxRow.id.in_(lost)).values(published_at=None))
    return len(lost)


class Outbox:
    """What the relay sees. All methods raise :class:`StoreUnavailable` when the database cannot be asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def pending(self, limit: int = 500) -> list[Promise]:
        """Unpublished promises, oldest first."""
        query = select(OutboxRow).where(OutboxRow.published_at.is_(None)).order_by(OutboxRow.id).limit(limit)
        with reading(self._engine) as connection:
            return [
                Promise(
                    id=row.id,
                    topic=row.topic,
                    key=row.key,
                    value=row.value,
                    headers=msgspec.json.decode(row.headers, type=dict[str, str]),
                    created_at=row.created_at,
                )
                for row in connection.execute(query)
            ]

    def follow_log(self, broker_epoch: str) -> int:
        """Note which log commands are published to. On another one than before, what only the old one may
        have had is promised again; how many commands that was. Commands have ids: folding one twice is once.
        """
        with writing(self._engine) as connection:
            known = connection.scalar(select(Meta.value).where(Meta.key == LOG_FACT))
            if known == broker_epoch:
                return 0
            if known is None:
                connection.execute(insert(Meta).values(key=LOG_FACT, value=broker_epoch))
                return 0
            connection.execute(update(Meta).where(Meta.key == LOG_FACT).values(value=broker_epoch))
            return promise_again(connection)

    def mark_published(self, ids: Sequence[int], *, at: float) -> None:
        """Note that the log has acknowledged these."""
        if not ids:
            return
        with writing(self._engine) as connection:
            connection.execute(update(OutboxRow).where(OutboxRow.id.in_(ids)).values(published_at=at))
