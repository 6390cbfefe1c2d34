"""A budget of calls per second for a platform's account, part of which only serves going down.

The rule: a burst of shifts can never use up what a roll-back needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic


class RateBudget:
    """A token bucket that refills at ``per_second`` up to ``burst``.

    The last ``reserved`` tokens are given only to calls that bring traffic down. Fair within one event loop.
    """

    def __init__(
        self,
        per_second: float,
        burst: float,
        reserved: float,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        if not 0 <= reserved <= burst - 1:
            raise ValueError(f"reserved must leave at least one token of the burst {burst}, got {reserved}")
        self._per_second, self._burst, self._reserved = per_second, burst, reserved
        self._now = now
        self._tokens, self._at = burst, now()

    def wait_s(self, *, is_down: bool) -> float:
        """Take a token and return 0, or return how many seconds until the next may be taken."""
        now = self._now()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        missing = 1.0 + (0.0 if is_down else self._reserved) - self._tokens
        if missing > 0:
            return missing / self._per_second
        self._tokens -= 1.0
        return 0.0

    async def take(self, *, is_down: bool) -> None:
        """Wait for a token and take it."""
        while (pause := self.wait_s(is_down=is_down)) > 0:
            await asyncio.sleep(pause)
