"""What the target driver keeps in the database: the journal of orders and the reigns over targets.

The driver needs little of the store, so it names what it needs; ``store.journal.Journal`` and
``store.leases.Leases`` are that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from actuators.base import Fence
from actuators.shift import Noted, Stage
from domain.clock import Clock
from domain.errors import StoreError, StoreUnavailable
from domain.records import DecisionRecord
from store.journal import ActionState, JournalEntry
from store.leases import Lease


class JournalStore(Protocol):
    """The table of actions, as :class:`store.journal.Journal` keeps it."""

    def intend(self, record: DecisionRecord, *, at: float, epoch: int = 0, owner: str = "") -> bool: ...

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
    ) -> bool: ...

    def load(self, decision_id: str) -> JournalEntry | None: ...

    def latest(self, target_key: str) -> JournalEntry | None: ...

    def unfinished(self, owner: str | None = None) -> Sequence[JournalEntry]: ...


class EpochStore(Protocol):
    """Reigns over targets, as :class:`store.leases.Leases` keeps them."""

    def acquire(self, key: str, owner: str, *, ttl_s: float, now: float, floor: int = 0) -> Lease | None: ...


class StagesOf:
    """The journal of ``shift.drive`` on top of the table of actions.

    Once the database has not answered it is not asked again about this order: each question costs time.
    """

    def __init__(
        self,
        store: JournalStore,
        in_thread: Callable[[Callable[[], object]], Awaitable[object]],
        clock: Clock,
        fence: Fence,
    ) -> None:
        self._store, self._in_thread, self._clock, self._fence = store, in_thread, clock, fence
        self._is_away = False

    async def load(self, op_id: str) -> Noted | None:
        entry = await self._ask(lambda: self._store.load(op_id))
        if not isinstance(entry, JournalEntry) or entry.state.value not in Stage.__members__:
            return None
        return Noted(
            stage=Stage(entry.state.value),
            observed_bp=entry.observed_bp,
            token=entry.token_after,
            attempts=entry.attempts,
            detail=entry.detail,
        )

    async def note(self, op_id: str, noted: Noted) -> None:
        is_sent = noted.stage is Stage.SENT
        await self._ask(
            lambda: self._store.record(
                op_id,
                ActionState(noted.stage.value),
                at=self._clock.now(),
                epoch=self._fence.epoch,
                owner=self._fence.owner,
                token_before=noted.token if is_sent else None,
                token_after=None if is_sent else noted.token,
                observed_bp=noted.observed_bp,
                detail=noted.detail or None,
            )
        )

    async def _ask(self, work: Callable[[], object]) -> object:
        if self._is_away:
            raise StoreUnavailable("the database did not answer before")
        try:
            return await self._in_thread(work)
        except StoreError:
            self._is_away = True
            raise
