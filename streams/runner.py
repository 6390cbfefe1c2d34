"""The loop around an agent: every record once, in order, without holes, and no exception gets out.

Rules
-----
* Before the first record of an assignment the agent recovers and says where its inputs start. Records below
  that are skipped; a hole, also one before the first record, is read again from the log and handled first.
* An agent that does not own the same partitions of all its topics handles nothing, and says so.
* All state is dropped when partitions are revoked, even those that come back: another worker may have had
  them in between.
* Results are acknowledged by the broker before the record counts as handled.
* Bytes that cannot be read go to the dead-letter topic. A store or broker that is away blocks the loop, and
  the record is not acknowledged. Anything else is our fault: three tries, then the dead-letter topic.
* Records that were acknowledged to their producer but never delivered to us are found by a sweep: a look past
  our own position.

Knows nothing of Faust, so it runs in tests and replays alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from domain.clock import Clock
from domain.errors import RecordError, SourceUnavailable, StoreUnavailable
from streams.agent import Agent, Handled, Place, Ticking
from streams.bus import BrokerUnavailable, Bus, Incoming, Outgoing
from streams.consume import read_available
from streams.deadletter import dead_letters
from streams.settings import StreamSettings
from streams.topics import has_contiguous_offsets

log = logging.getLogger(__name__)

CommittedOffsets = Callable[[Sequence[Place]], Awaitable[Mapping[Place, int]]]
"""Where the consumer group stands; places without a commit are left out."""

UNAVAILABLE = (StoreUnavailable, SourceUnavailable, BrokerUnavailable, ConnectionError, TimeoutError)
"""Something we need is away; waiting helps."""

TRIES = 3
"""How often a record is handed to an agent that fails with an unexpected exception."""

SWEEP_WAIT_S = 0.5
"""How long a sweep waits for records."""

DELIVERY_S = 1.0
"""How long the ordinary way has to move a partition at all, before a sweep handles what it found there."""


@dataclass(slots=True, kw_only=True)
class Health:
    """Counters of one agent since the worker's start, and what it is doing."""

    phase: str = "waiting for partitions"
    handled: int = 0
    skipped: int = 0
    """Delivered again below our position: normal after a rebalance."""
    refetched: int = 0
    """Read again to fill holes: the transport lost them, the repair found them."""
    swept: int = 0
    """Found by a sweep: never delivered to us. Not zero for long means that the transport is stuck."""
    dead_lettered: int = 0
    retries: int = 0
    failures: int = 0
    """Unexpected exceptions: defects of ours."""
    fault: str | None = None
    """Why nothing is handled although it should be."""


class Runner:
    """Drives one agent. The transport calls `assign`, `feed`, `revoke`; `Worker` starts and stops it."""

    def __init__(
        self,
        agent: Agent,
        bus: Bus,
        *,
        settings: StreamSettings,
        clock: Clock,
        committed: CommittedOffsets,
    ) -> None:
        self.agent = agent
        self.health = Health()
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._committed = committed
        self._next: dict[Place, int] = {}
        self._partitions: frozenset[int] = frozenset()
        self._is_open = asyncio.Event()
        self._turn = asyncio.Lock()
        self._working: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []

    def progress(self) -> Mapping[Place, int]:
        """For each partition owned and recovered, the offset after the last record handled."""
        return dict(self._next)

    # --- assignment

    async def assign(self, owned: Mapping[str, frozenset[int]]) -> None:
        """Take over the partitions of each topic; returns at once, recovery goes on by itself."""
        await self.revoke()
        of_each = {topic: owned.get(topic, frozenset()) for topic in self.agent.topics}
        if len(set(of_each.values())) != 1:
            self._refuse(f"owns different partitions of its topics: {_described(of_each)}")
            return
        partitions = next(iter(of_each.values()))
        if partitions:
            self._spawn(self._serve(partitions))

    async def revoke(self) -> None:
        """Let go of everything: finish or abandon the record in hand, then forget."""
        await self.pause()
        self._next.clear()
        partitions, self._partitions = self._partitions, frozenset()
        if partitions:
            await self._forget(partitions)
        self.health.phase, self.health.fault = "waiting for partitions", None

    async def pause(self) -> None:
        """Handle nothing more, but keep state and position (for the last commit before a stop)."""
        self._is_open.clear()
        if (working := self._working) is not None:
            await asyncio.wait({working}, timeout=self._settings.revoke_grace_s)
            await _cancelled([working])
        background, self._background = self._background, []
        await _cancelled(background)

    def _refuse(self, reason: str) -> None:
        self.health.phase, self.health.fault = "refusing", reason
        log.error("agent %s handles nothing: %s", self.agent.name, reason)

    async def _serve(self, partitions: frozenset[int]) -> None:
        """Recover, open the gate, then keep time and look for what was not delivered."""
        self._partitions = partitions
        self._next = await self._recovered(partitions)
        self.health.phase, self.health.fault = "running", None
        self._is_open.set()
        if isinstance(self.agent, Ticking):
            self._spawn(self._tick_forever(self.agent))
        self._spawn(self._sweep_forever())

    async def _recovered(self, partitions: frozenset[int]) -> dict[Place, int]:
        self.health.phase = "recovering"
        for delay in self._delays():
            try:
                known = await self.agent.assigned(partitions, self._bus)
                places = [(topic, p) for topic in self.agent.topics for p in sorted(partitions)]
                committed = await self._committed([place for place in places if place not in known])
                return {place: known.get(place, committed.get(place, 0)) for place in places}
            except Exception as exc:  # whatever it is, we own the partitions and must go on
                self._note_trouble("recovery", exc)
                await self._forget(partitions)
            await asyncio.sleep(delay)
        raise AssertionError("delays never end")

    async def _forget(self, partitions: frozenset[int]) -> None:
        try:
            await self.agent.revoked(partitions)
        except Exception:
            self.health.failures += 1
            log.exception("agent %s could not forget partitions %s", self.agent.name, sorted(partitions))

    # --- records

    async def feed(self, record: Incoming) -> None:
        """Handle a record when it is its turn; returns without handling it when partitions are revoked."""
        await self._is_open.wait()
        await self._exclusively(lambda: self._advance(record))

    async def _exclusively(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` alone, in a task of its own that `pause` can abandon."""
        async with self._turn:
            if not self._is_open.is_set():
                return
            self._working = asyncio.create_task(work())
            try:
                await asyncio.wait({self._working})
                self._report(self._working)
            finally:
                await _cancelled([self._working])
                self._working = None

    def _report(self, done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (exc := done.exception()) is not None:
            # The position has not moved, so the next record finds a hole and this one is tried again.
            self.health.failures += 1
            log.error("agent %s: the loop itself failed", self.agent.name, exc_info=exc)

    async def _advance(self, record: Incoming) -> None:
        """Handle ``record`` and, before it, everything between our position and it."""
        place = (record.topic, record.partition)
        expected = self._next.get(place)
        if expected is None or record.offset < expected:
            self.health.skipped += 1
            return
        if record.offset > expected and has_contiguous_offsets(record.topic):
            await self._repair(place, expected, record.offset)
        await self._settle(record)

    async def _repair(self, place: Place, start: int, stop: int) -> None:
        log.warning("agent %s: %s[%d] jumped from %d to %d", self.agent.name, *place, start, stop)
        for delay in self._delays():
            try:
                async with aclosing(self._bus.read(*place, self._next[place], stop)) as missed:
                    async for record in missed:
                        await self._settle(record)
                        self.health.refetched += 1
                return
            except UNAVAILABLE as exc:
                self._note_trouble("refetch", exc)
            await asyncio.sleep(delay)

    async def _settle(self, record: Incoming) -> None:
        """Handle one record to its end, whatever that is, and move our position past it."""
        if not record.is_barrier:
            await self._write_results(record, await self._outcome(record))
            self.health.handled += 1
        self._next[record.topic, record.partition] = record.offset + 1

    async def _outcome(self, record: Incoming) -> Handled:
        tries = 0
        for delay in self._delays():
            try:
                return await self.agent.handle(record)
            except RecordError as exc:
                return [self._dead_letters(record, exc)]
            except UNAVAILABLE as exc:
                self._note_trouble("handle", exc)
            except Exception as exc:  # a defect of ours must not stop the other rollouts
                self.health.failures += 1
                tries += 1
                log.exception("agent %s failed on %s, try %d", self.agent.name, record.address, tries)
                if tries == TRIES:
                    return [self._dead_letters(record, exc)]
            await asyncio.sleep(delay)
        raise AssertionError("delays never end")

    def _dead_letters(self, record: Incoming, error: Exception) -> list[Outgoing]:
        self.health.dead_lettered += 1
        log.error("agent %s: dead letter %s: %s", self.agent.name, record.address, error)
        return dead_letters(record, error, agent=self.agent.name, now=self._clock.now())

    async def _write_results(self, record: Incoming, results: Handled) -> None:
        try:
            await self._publish(results)
        except Exception as exc:  # the broker refuses a result for good, say because it is too large
            self.health.failures += 1
            await self._publish([self._dead_letters(record, exc)])

    async def _publish(self, batches: Handled) -> None:
        for batch in batches:
            await self._sent(batch)

    async def _sent(self, batch: Sequence[Outgoing]) -> None:
        for delay in self._delays():
            try:
                await self._bus.send(batch)
                return
            except UNAVAILABLE as exc:
                self._note_trouble("publish", exc)
            await asyncio.sleep(delay)

    # --- in the background

    async def _tick_forever(self, agent: Ticking) -> None:
        async def tick() -> None:
            try:
                await self._publish(await agent.tick(self._clock.now()))
            except UNAVAILABLE as exc:
                self._note_trouble("tick", exc)

        while True:
            await asyncio.sleep(agent.interval_s - self._clock.now() % agent.interval_s)
            await self._exclusively(tick)

    async def _sweep_forever(self) -> None:
        await asyncio.sleep(self._settings.sweep_first_s)
        while True:
            try:
                found = await self._sweep()
            except Exception as exc:  # a sweep is a second look; the next one looks again
                self._note_trouble("sweep", exc)
                found = 0
            if not found:
                await asyncio.sleep(self._settings.sweep_interval_s)

    async def _sweep(self) -> int:
        """Handle what lies past our position and is not being delivered; returns how much that was."""
        positions = self.progress()
        found = await read_available(self._settings, positions, wait_s=SWEEP_WAIT_S)
        if not found:
            return 0
        await asyncio.sleep(DELIVERY_S)
        stuck = [record for record in found if self._is_still_at(positions, record)]
        await self._exclusively(lambda: self._catch_up(stuck))
        return len(stuck)

    def _is_still_at(self, positions: Mapping[Place, int], record: Incoming) -> bool:
        """Whether nothing of the record's partition was handled since ``positions`` were taken."""
        place = (record.topic, record.partition)
        return self._next.get(place) == positions[place]

    async def _catch_up(self, missed: Sequence[Incoming]) -> None:
        for record in missed:
            self.health.swept += 1
            await self._advance(record)

    # --- small parts

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(asyncio.create_task(work))

    def _note_trouble(self, what: str, exc: Exception) -> None:
        self.health.retries += 1
        log.warning("agent %s: %s waits: %s: %s", self.agent.name, what, type(exc).__name__, exc)

    def _delays(self) -> Iterator[float]:
        delay = self._settings.retry_first_s
        while True:
            yield delay
            delay = min(delay * 2, self._settings.retry_longest_s)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel ``tasks`` and wait until they have ended; the caller's own task is left alone."""
    others = [task for task in tasks if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)


def _described(of_each: Mapping[str, frozenset[int]]) -> str:
    return ", ".join(f"{topic} {sorted(partitions)}" for topic, partitions in sorted(of_each.items()))
