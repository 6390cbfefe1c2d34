"""An adapter around an adapter: deadlines, retries, a rate budget, and errors without secrets.

The rule: a write is tried again only when it is known not to have been applied; otherwise the target is
looked at first. Every call ends within its total time, whatever the platform does. Vendor SDKs' own retries
are off, so this is the only place where a call is repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from actuators.base import (
    Capabilities,
    Observed,
    Receipt,
    ShiftRequest,
    TrafficAdapter,
    WriteOutcome,
    is_stored,
)
from actuators.rate import RateBudget
from actuators.redact import redacted
from domain.errors import ActuationError, Outcome, SentraError, Throttled, Transient

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and how often. Seconds."""

    per_try_s: float
    attempts: int
    total_s: float
    first_pause_s: float
    longest_pause_s: float
    factor: float = 2.0


LOOKING = Patience(per_try_s=5.0, attempts=4, total_s=20.0, first_pause_s=0.2, longest_pause_s=5.0)
SHIFTING = Patience(per_try_s=10.0, attempts=3, total_s=45.0, first_pause_s=0.5, longest_pause_s=10.0)
GOING_DOWN = Patience(
    per_try_s=5.0, attempts=3, total_s=15.0, first_pause_s=0.2, longest_pause_s=2.0, factor=1.5
)
"""Short, because ``shift.drive`` comes back for ever."""


class GuardedAdapter:
    """``inner`` with patience. Errors are of the same types, with their text redacted."""

    def __init__(
        self,
        inner: TrafficAdapter,
        *,
        budget: RateBudget | None = None,
        looking: Patience = LOOKING,
        shifting: Patience = SHIFTING,
        going_down: Patience = GOING_DOWN,
    ) -> None:
        self._inner = inner
        self._budget = budget
        self._looking, self._shifting, self._going_down = looking, shifting, going_down

    @property
    def name(self) -> str:
        return self._inner.name

    def capabilities(self) -> Capabilities:
        return self._inner.capabilities()

    async def preflight(self) -> tuple[str, ...]:
        problems = await self._repeat(self._inner.preflight, self._looking, is_down=False)
        return tuple(redacted(problem) for problem in problems)

    async def observe(self) -> Observed:
        return await self._repeat(self._inner.observe, self._looking, is_down=False)

    async def apply(self, request: ShiftRequest) -> Receipt:
        patience = self._going_down if request.is_down else self._shifting

        async def write() -> Receipt:
            return await self._inner.apply(request)

        async def already_there() -> Receipt | None:
            return await self._receipt_of(request)

        return await self._repeat(write, patience, is_down=request.is_down, look_first=already_there)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _receipt_of(self, request: ShiftRequest) -> Receipt | None:
        """After a write of unknown fate: a receipt if it is stored, ``None`` if it has to be repeated."""
        observed = await self._once(self._inner.observe, self._looking.per_try_s)
        is_ours = observed.fence == request.fence or not self.capabilities().carries_fence
        if not (is_ours and is_stored(observed, request, self.capabilities())):
            return None
        assert observed.split is not None  # is_stored says so
        return Receipt(
            op_id=request.op_id,
            outcome=WriteOutcome.APPLIED if observed.reconciled else WriteOutcome.PENDING,
            applied_bp=observed.split.canary_bp,
            token_before=request.expect,
            token_after=observed.token,
        )

    async def _repeat(
        self,
        call: Callable[[], Awaitable[T]],
        patience: Patience,
        *,
        is_down: bool,
        look_first: Callable[[], Awaitable[T | None]] | None = None,
    ) -> T:
        ends, pause = monotonic() + patience.total_s, patience.first_pause_s
        fate_unknown = False
        for left in reversed(range(patience.attempts)):
            try:
                if fate_unknown and look_first is not None:
                    found = await look_first()
                    if found is not None:
                        return found
                    fate_unknown = False
                await self._take(ends, is_down=is_down)
                return await self._once(call, min(patience.per_try_s, ends - monotonic()))
            except (Throttled, Transient) as error:
                fate_unknown = fate_unknown or error.outcome is not Outcome.NOT_APPLIED
                wait = _pause(error, pause)
                if left == 0 or not error.retryable or monotonic() + wait >= ends:
                    raise
                await asyncio.sleep(wait)
                pause = min(pause * patience.factor, patience.longest_pause_s)
        raise AssertionError("the last attempt returns or raises")

    async def _take(self, ends: float, *, is_down: bool) -> None:
        if self._budget is None:
            return
        try:
            async with asyncio.timeout(max(ends - monotonic(), 0.0)):
                await self._budget.take(is_down=is_down)
        except TimeoutError as exc:
            raise Throttled("our own rate budget for this platform is used up") from exc

    async def _once(self, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """One try with a deadline, every error one of ours and without secrets."""
        try:
            async with asyncio.timeout(max(timeout_s, 0.01)):
                return await call()
        except TimeoutError as exc:
            raise Transient(
                f"{self.name} did not answer within {timeout_s:.3g} s", outcome=Outcome.UNKNOWN
            ) from exc
        except ActuationError as error:
            error.args = (redacted(str(error)),)
            raise
        except SentraError:
            raise
        except Exception as exc:
            # A bug in the adapter or an SDK's error it does not translate: the write may have happened.
            text = redacted(f"{type(exc).__name__}: {exc}")
            raise ActuationError(f"{self.name} failed: {text}", outcome=Outcome.UNKNOWN) from None


def _pause(error: ActuationError, backoff: float) -> float:
    """What the platform asked for, or full jitter below the backoff."""
    return error.retry_after if error.retry_after is not None else random.uniform(0.0, backoff)
