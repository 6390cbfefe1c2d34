"""What Sentra remembers: the one door to rollouts, their records, commands, incidents and answers.

Synchronous, and safe to use from many threads. Writing is idempotent: a record stored twice is stored once,
so whoever is not sure that a write arrived writes again. Every method raises :class:`StoreUnavailable` when
the database cannot be asked now and :class:`StoreError` when the same call will never work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from sqlalchemy import Connection, Engine, insert, select, update

from domain.decision import Answer, Incident
from domain.records import ActionRecord, Command, Evaluation, EvaluationFrame, IncidentRecord, RolloutRecord
from domain.rollout import Phase, RolloutFold, RolloutSpec
from store import queries
from store.batch import Batch, Written, write_batch
from store.catalogue import add_rollout, deployment_id
from store.database import reading, write_past_races
from store.errors import UnknownRollout
from store.ledger import add_command
from store.models import Meta
from store.outbox import Promise, command_promise, promise
from store.queries import AuditLine, StoredRollout, StoredStep
from store.retention import Pruned, prune

T = TypeVar("T")


class Repository:
    """Rollouts in the database behind ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- what people ask for

    def start_rollout(self, spec: RolloutSpec, command: Command, promises: Sequence[Promise] = ()) -> bool:
        """Store a new rollout, its start command, and the promise to publish that (and ``promises``).

        ``False`` when this command was stored before: then nothing changes. Raises :class:`AlreadyActive`
        while another rollout holds the service in the environment, or the target.
        """

        def store(connection: Connection) -> bool:
            if not add_command(connection, command):
                return False
            add_rollout(connection, spec, command.at)
            promise(connection, [command_promise(command), *promises])
            return True

        return self._write(store)

    def add_command(self, command: Command) -> bool:
        """Store a command for a known rollout and the promise to publish it. ``False`` when it is known.

        Raises :class:`UnknownRollout`.
        """

        def store(connection: Connection) -> bool:
            if deployment_id(connection, command.rollout_id) is None:
                raise UnknownRollout(f"there is no rollout {command.rollout_id}")
            if not add_command(connection, command):
                return False
            promise(connection, [command_promise(command)])
            return True

        return self._write(store)

    # --- what the log tells

    def write(self, batch: Batch) -> Written:
        """Store everything in ``batch`` in one transaction."""
        return self._write(lambda connection: write_batch(connection, batch))

    def append(self, evaluations: Sequence[Evaluation]) -> int:
        """Store those not there yet; how many these were."""
        return self.write(Batch(evaluations=tuple(evaluations))).evaluations

    def append_frames(self, frames: Sequence[EvaluationFrame]) -> Written:
        """Store the evaluations of ``frames``, in the log's order. Those of deposed owners are dropped."""
        return self.write(Batch(frames=tuple(frames)))

    def save_rollout(self, record: RolloutRecord) -> None:
        """Store a rollout's public state unless a newer one is there."""
        self.write(Batch(rollouts=(record,)))

    def append_incidents(self, incidents: Sequence[Incident | IncidentRecord]) -> None:
        """Store those not there yet."""
        bare = tuple(each.incident if isinstance(each, IncidentRecord) else each for each in incidents)
        self.write(Batch(incidents=bare))

    def append_actions(self, actions: Sequence[ActionRecord]) -> None:
        """Store what actuators reported, unless it is there."""
        self.write(Batch(actions=tuple(actions)))

    # --- what can be asked

    def get_rollout(self, rollout_id: str) -> StoredRollout | None:
        """One rollout."""
        found = self._read(lambda connection: queries.find_rollouts(connection, rollout_id=rollout_id))
        return found[0] if found else None

    def active_rollouts(self) -> list[StoredRollout]:
        """Those that have not ended, newest first."""
        return self._read(lambda connection: queries.find_rollouts(connection, is_active=True))

    def list_rollouts(
        self,
        *,
        service: str | None = None,
        environment: str | None = None,
        phases: Collection[Phase] | None = None,
        is_active: bool | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[StoredRollout]:
        """Rollouts that fit everything given, newest first. For the next page: ``before=last.cursor``."""
        return self._read(
            lambda connection: queries.find_rollouts(
                connection,
                service=service,
                environment=environment,
                phases=phases,
                is_active=is_active,
                before=before,
                limit=limit,
            )
        )

    def steps_of(self, rollout_id: str) -> list[StoredStep]:
        """A rollout's steps, in order."""
        return self._read(lambda connection: queries.steps_of(connection, rollout_id))

    def incidents_of(
        self, rollout_id: str | None = None, *, since: float = 0.0, limit: int | None = None
    ) -> list[Incident]:
        """Incidents of one rollout or of all, newest first."""
        return self._read(lambda connection: queries.incidents(connection, rollout_id, since, limit))

    def actions_of(self, rollout_id: str) -> list[ActionRecord]:
        """What actuators reported about a rollout."""
        return self._read(lambda connection: queries.action_reports(connection, rollout_id))

    def audit_of(self, rollout_id: str) -> list[AuditLine]:
        """Who did what about a rollout, and Sentra's own decisions, in the order they were stored."""
        return self._read(lambda connection: queries.audit(connection, rollout_id))

    def answer_of(self, command_id: str) -> Answer | None:
        """How a command was taken; ``None`` while nobody has folded it."""
        return self._read(lambda connection: queries.answer_of(connection, command_id))

    def evaluations_of(
        self, rollout_id: str, after_seq: int = 0, limit: int | None = None
    ) -> list[Evaluation]:
        """A rollout's records after ``after_seq``, in fold order, bit for bit as folded."""
        return self._read(lambda connection: queries.evaluations(connection, rollout_id, after_seq, limit))

    def last_fold(self, rollout_id: str) -> RolloutFold | None:
        """The newest stored state; ``None`` before the first fold."""
        return self._read(lambda connection: queries.last_fold(connection, rollout_id))

    def restore(self, rollout_id: str) -> tuple[RolloutFold, list[Evaluation]] | None:
        """The newest stored state and the records to fold into it again; ``None`` before the first fold."""

        def load(connection: Connection) -> tuple[RolloutFold, list[Evaluation]] | None:
            fold = queries.last_fold(connection, rollout_id)
            if fold is None:
                return None
            return fold, queries.evaluations(connection, rollout_id, fold.state.seq)

        return self._read(load)

    # --- housekeeping

    def prune(self, older_than: float, *, now: float) -> Pruned:
        """Delete the evaluations of rollouts that ended before ``older_than``. What people decided stays."""
        return prune(self._engine, older_than=older_than, now=now)

    def fact(self, key: str) -> str | None:
        """A single fact about the installation, such as ``broker_epoch``."""
        return self._read(lambda connection: connection.scalar(select(Meta.value).where(Meta.key == key)))

    def set_fact(self, key: str, value: str) -> None:
        """Remember a fact."""

        def store(connection: Connection) -> None:
            changed = connection.execute(update(Meta).where(Meta.key == key).values(value=value))
            if not changed.rowcount:
                connection.execute(insert(Meta).values(key=key, value=value))

        self._write(store)

    def _read(self, ask: Callable[[Connection], T]) -> T:
        with reading(self._engine) as connection:
            return ask(connection)

    def _write(self, store: Callable[[Connection], T]) -> T:
        return write_past_races(self._engine, store)
