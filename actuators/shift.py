"""Carries out one order so that a crash at any moment leaves it finished, untouched, or plain to see.

Theory of operation. Around the write the journal goes SENT → APPLIED → VERIFIED, each noted before the next
thing happens, and every attempt *looks before it writes*. So whoever comes after a crash does the same as
whoever goes on without one: look; if what was ordered is in force, note it; else write, on condition that
nobody wrote since the look. What one looks at is the platform, never the memory of a dead process.

Up and down differ. Going up (and preparing, and finalising) gives up: after a conflict too many, or when what
was written does not come into force twice; then the old state rules and somebody decides. Going down never
gives up, needs no journal, and speaks up every minute for as long as it takes. Only a newer controller stops
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from time import monotonic
from typing import Protocol

from actuators.base import Observed, ShiftRequest, TrafficAdapter, is_in_force, is_stored
from domain.decision import ActionOutcome, Order
from domain.errors import (
    ActuationError,
    Conflict,
    Denied,
    Drift,
    Fenced,
    InvalidSplit,
    Outcome,
    StoreError,
    TargetNotFound,
    Unsupported,
    VerifyFailed,
)

CONFLICTS = 3
"""So many lost compare-and-sets in a row are bad luck; one more is somebody who fights us."""

ALARM_EVERY_S = 60.0
FIRST_LOOK_S, LONGEST_LOOK_S = 0.005, 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_FACTOR = 0.2, 2.0, 1.5
"""Between attempts to go down."""

HOPELESS = (Fenced, Denied, TargetNotFound, InvalidSplit, Unsupported)
"""Errors after which an order upwards is refused: trying again cannot help."""


class Stage(Enum):
    """What is noted of an order. The stage INTENT is noted before it gets here."""

    SENT = "SENT"
    APPLIED = "APPLIED"
    VERIFIED = "VERIFIED"
    NOT_APPLIED = "NOT_APPLIED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What the journal holds of an order that got further than INTENT."""

    stage: Stage
    observed_bp: int | None = None
    token: str = ""
    attempts: int = 1
    detail: str = ""


class Journal(Protocol):
    """Where the stages of an order are kept. Both methods may raise :class:`StoreError`."""

    async def load(self, op_id: str) -> Noted | None:
        """What is known of the order; ``None`` when it was never sent."""
        ...

    async def note(self, op_id: str, noted: Noted) -> None:
        """Keep ``noted``; on return it is safe."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionReport:
    """How an order stands."""

    outcome: ActionOutcome
    observed_bp: int | None = None
    token: str = ""
    attempts: int = 0
    seconds: float = 0.0
    detail: str = ""


Notify = Callable[[ActionReport], Awaitable[None]]


async def drive(
    request: ShiftRequest,
    adapter: TrafficAdapter,
    journal: Journal,
    *,
    verify_timeout_s: float = 60.0,
    alarm_every_s: float = ALARM_EVERY_S,
    notify: Notify | None = None,
) -> ActionReport:
    """Carry out ``request`` and say how it ended; raises nothing of the platform's.

    Cancelling leaves the fate of a write open; the next order for the target looks first.

    Parameters
    ----------
    verify_timeout_s
        How long an order upwards may take to be seen in force, the second try included.
    notify
        Called when the order is on the wire (SENT), and every ``alarm_every_s`` while going down fails.

    Raises
    ------
    StoreError
        An order upwards could not be journaled; nothing was sent.
    """
    return await _Drive(request, adapter, journal, verify_timeout_s, alarm_every_s, notify).run()


class _Drive:
    """One order under way."""

    def __init__(
        self,
        request: ShiftRequest,
        adapter: TrafficAdapter,
        journal: Journal,
        verify_timeout_s: float,
        alarm_every_s: float,
        notify: Notify | None,
    ) -> None:
        self._request = request
        self._adapter = adapter
        self._journal = journal
        self._notify = notify
        self._alarm_every_s = alarm_every_s
        self._capabilities = adapter.capabilities()
        self._patience_s = min(verify_timeout_s / 2, 3 * self._capabilities.propagation_max_s)
        self._began = monotonic()
        self._attempts = 0
        self._seen: Observed | None = None

    async def run(self) -> ActionReport:
        known = await self._load()
        if known is not None and known.stage is Stage.VERIFIED:
            return ActionReport(
                outcome=ActionOutcome.VERIFIED,
                observed_bp=known.observed_bp,
                token=known.token,
                attempts=known.attempts,
                detail=known.detail,
            )
        return await (self._down() if self._request.is_down else self._up())

    # -- the two ways --------------------------------------------------------------------------------------

    async def _up(self) -> ActionReport:
        if self._request.kind is Order.PREPARE and (problems := await self._problems()):
            return await self._end(ActionOutcome.REFUSED, problems)
        conflicts, tries = 0, 0
        while True:
            try:
                await self._attempt()
                return await self._end(ActionOutcome.VERIFIED, "")
            except Drift as error:
                return await self._end(ActionOutcome.DRIFT, str(error))
            except HOPELESS as error:
                return await self._end(ActionOutcome.REFUSED, str(error))
            except Conflict as error:
                conflicts += 1
                if conflicts > CONFLICTS:
                    return await self._end(ActionOutcome.NOT_APPLIED, str(error))
            except ActuationError as error:
                tries += 1
                is_settled = error.outcome is Outcome.NOT_APPLIED and not error.retryable
                if tries > 1 or is_settled:
                    return await self._end(ActionOutcome.NOT_APPLIED, str(error))

    async def _down(self) -> ActionReport:
        pause, alarm_at, failures = FIRST_PAUSE_S, self._alarm_every_s, 0
        while True:
            try:
                await self._attempt()
                return await self._end(ActionOutcome.VERIFIED, "")
            except Fenced as error:
                return await self._end(ActionOutcome.REFUSED, str(error))
            except ActuationError as error:
                failures += 1
                if monotonic() - self._began >= alarm_at:
                    alarm_at += self._alarm_every_s
                    await self._tell(
                        ActionOutcome.NOT_APPLIED, f"still trying to bring traffic down: {error}"
                    )
                if isinstance(error, Conflict) and failures <= CONFLICTS:
                    continue
            await asyncio.sleep(pause)
            pause = min(pause * PAUSE_FACTOR, LONGEST_PAUSE_S)

    # -- one attempt ---------------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        """Look, write if need be, and wait until it is seen in force."""
        seen = await self._look_first()
        if seen is not None and self._is_done(seen):
            return
        await self._note(Stage.SENT)
        if self._attempts == 0:
            await self._tell(ActionOutcome.SENT, "")
        self._attempts += 1
        await self._adapter.apply(replace(self._request, expect=seen.token if seen else ""))
        await self._note(Stage.APPLIED)
        await self._until_in_force()

    async def _look_first(self) -> Observed | None:
        """What is in force. Going down does not need to see: a write may work where looking does not."""
        try:
            return await self._look()
        except Fenced:
            raise
        except ActuationError:
            if self._request.is_down:
                return None
            raise

    async def _until_in_force(self) -> None:
        deadline, pause = monotonic() + self._patience_s, FIRST_LOOK_S
        while True:
            seen = await self._look()
            if self._is_done(seen):
                return
            if seen.problem:
                raise VerifyFailed(seen.problem)
            if not is_stored(seen, self._request, self._capabilities):
                raise Conflict("somebody wrote right after us", outcome=Outcome.UNKNOWN)
            if monotonic() + pause >= deadline:
                raise VerifyFailed(f"written, but not in force after {self._patience_s:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK_S)

    async def _look(self) -> Observed:
        self._seen = await self._adapter.observe()
        return self._seen

    def _is_done(self, seen: Observed) -> bool:
        return is_in_force(seen, self._request, self._capabilities)

    async def _problems(self) -> str:
        try:
            return "; ".join(await self._adapter.preflight())
        except ActuationError as error:
            return str(error)

    # -- journal and reports -------------------------------------------------------------------------------

    async def _load(self) -> Noted | None:
        try:
            return await self._journal.load(self._request.op_id)
        except StoreError:
            if self._request.is_down:
                return None
            raise

    async def _note(self, stage: Stage, detail: str = "") -> None:
        """Journal a stage. Only SENT, going up, is worth stopping for: all else can be seen again."""
        report = self._report(ActionOutcome.SENT, detail)
        noted = Noted(
            stage=stage,
            observed_bp=report.observed_bp if stage is Stage.VERIFIED else None,
            token=report.token,
            attempts=max(self._attempts, 1),
            detail=detail,
        )
        try:
            await self._journal.note(self._request.op_id, noted)
        except StoreError:
            if stage is Stage.SENT and not self._request.is_down:
                raise

    async def _end(self, outcome: ActionOutcome, detail: str) -> ActionReport:
        if outcome is not ActionOutcome.VERIFIED:
            await self._look_once_more()
        stage = {
            ActionOutcome.VERIFIED: Stage.VERIFIED,
            ActionOutcome.REFUSED: Stage.REFUSED,
        }.get(outcome, Stage.NOT_APPLIED)
        await self._note(stage, detail)
        return self._report(outcome, detail)

    async def _look_once_more(self) -> None:
        """So that the report says what is in force now, if that can be known."""
        try:
            await self._look()
        except ActuationError:
            self._seen = None

    async def _tell(self, outcome: ActionOutcome, detail: str) -> None:
        if self._notify is not None:
            await self._notify(self._report(outcome, detail))

    def _report(self, outcome: ActionOutcome, detail: str) -> ActionReport:
        seen = self._seen
        return ActionReport(
            outcome=outcome,
            observed_bp=seen.split.canary_bp if seen and seen.split else None,
            token=seen.token if seen else "",
            attempts=self._attempts,
            seconds=monotonic() - self._began,
            detail=detail,
        )
