"""The outbox relay: what a transaction promised to the log is published, in order, at least once.

Several relays may run; a promise published twice is one command folded once, because commands have ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from store.outbox import Promise
from streams.bus import Outgoing

IDLE_S = 0.05
"""How soon a new promise is seen. One indexed look-up on an empty table costs about 0.1 ms."""
TROUBLE_S = 1.0
"""Pause after the database or the broker was away."""


class Promises(Protocol):
    """The outbox table. Methods may block and raise :class:`StoreError`."""

    def pending(self, limit: int = 500) -> list[Promise]: ...

    def mark_published(self, ids: Sequence[int], *, at: float) -> None: ...


class Sender(Protocol):
    """The log, as far as a relay needs it."""

    async def send(self, records: Sequence[Outgoing]) -> None: ...


async def relay_once(outbox: Promises, bus: Sender, now: float) -> int:
    """Publish what is pending; how much that was."""
    pending = await asyncio.to_thread(outbox.pending)
    if not pending:
        return 0
    await bus.send([_outgoing(promise) for promise in pending])
    await asyncio.to_thread(lambda: outbox.mark_published([each.id for each in pending], at=now))
    return len(pending)


def _outgoing(promise: Promise) -> Outgoing:
    headers = {name: text.encode() for name, text in promise.headers.items()}
    return Outgoing(topic=promise.topic, key=promise.key.encode(), value=promise.value, headers=headers)
