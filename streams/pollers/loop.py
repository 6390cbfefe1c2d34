"""The poller: asks every source once per tick for all rollouts that need it, and publishes what it says.

For each pair of source and interval there is one task, so a source that hangs delays nobody else::

    ends            0 ......... 5 ......... 10 ........ 15 ........ 20
    first reading      x                                                taken at once, its samples dropped
    fetches                     |--|        |---------------|       |-- 10 overran: 15 is skipped, not queued
    published                      [0,5)                    [5,10)      and [10,20) spans two ticks

A rollout is polled from its first record until a final phase. Nothing is remembered beyond this process: a
new poller begins with empty increments.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from domain.clock import Clock, tick_floor
from domain.errors import SentraError, SourceError
from domain.records import RolloutRecord, SampleFrame
from domain.rollout import RolloutSpec
from domain.signal import Channel
from streams.pollers.base import Fetched, Source, Target, target_of
from streams.pollers.framing import Framing

log = logging.getLogger(__name__)

Publish = Callable[[Channel, int, SampleFrame], Awaitable[None]]
"""Puts a frame on the channel's topic, into a partition. A ``SentraError`` means: try again later."""

UNSENT = 64
"""Frames kept while the log is away; older ones are of no use by then."""

OVERRUN_TICKS = 3
"""Intervals that a fetch may take at most: as long as a source may be silent before others stop waiting."""


@dataclass(slots=True)
class _Group:
    """One source at one interval, and the rollouts polled with it."""

    source: Source
    framing: Framing
    members: dict[str, Target] = field(default_factory=dict)
    unsent: deque[tuple[int, SampleFrame]] = field(default_factory=lambda: deque(maxlen=UNSENT))
    task: asyncio.Task[None] | None = None

    @property
    def interval_s(self) -> float:
        return self.framing.interval_s


class Poller:
    """Polls ``sources`` (by name) for the rollouts it is told of.

    Parameters
    ----------
    partition_of
        From rollout id and number of partitions to the partition.
    publish
        Awaited frame by frame; while it blocks, only this source and interval wait.
    sleep
        Suspends for some seconds of ``clock``.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        partitions: int,
        partition_of: Callable[[str, int], int],
        publish: Publish,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sources = sources
        self._partition_of = lambda rollout_id: partition_of(rollout_id, partitions)
        self._publish = publish
        self._clock = clock
        self._sleep = sleep
        self._epoch = clock.now()
        self._groups: dict[tuple[str, float], _Group] = {}
        self._specs: dict[str, RolloutSpec] = {}
        self._sequence: dict[tuple[str, int], int] = {}

    async def run(self, rollouts: AsyncIterator[RolloutRecord]) -> None:
        """Follow ``rollouts`` until cancelled; then stop all polling and close the sources.

        If ``rollouts`` ends, polling goes on with the rollouts known by then. What it raises is raised.
        """
        try:
            async for record in rollouts:
                await self.follow(record)
            await asyncio.Event().wait()
        finally:
            await self._stop()

    async def follow(self, record: RolloutRecord) -> None:
        """Begin to poll for a rollout, go on, or cease when its phase is final."""
        spec = record.spec
        if not record.phase.is_final and self._specs.get(spec.rollout_id) == spec:
            return
        await self._leave(spec.rollout_id)
        if not record.phase.is_final:
            self._specs[spec.rollout_id] = spec
            self._join(spec)

    def _join(self, spec: RolloutSpec) -> None:
        for ref in spec.sources:
            source = self._sources.get(ref.name)
            if source is None or source.channel is not ref.channel:
                # Another poller may have it; if none does, the judge says that the source is silent.
                log.warning("rollout %s needs source %s, not polled here", spec.rollout_id, ref.name)
                continue
            group = self._group(source, spec.policy.interval_s)
            group.members[spec.rollout_id] = target_of(spec, source.channel)
            if group.task is None:
                group.task = asyncio.create_task(self._poll(group), name=f"poll {source.name}")

    async def _leave(self, rollout_id: str) -> None:
        self._specs.pop(rollout_id, None)
        for key, group in list(self._groups.items()):
            if group.members.pop(rollout_id, None) is not None and not group.members:
                del self._groups[key]
                await _cancel(group)

    def _group(self, source: Source, interval_s: float) -> _Group:
        key = (source.name, interval_s)
        if key not in self._groups:
            framing = Framing(
                source=source.name,
                channel=source.channel,
                interval_s=interval_s,
                source_epoch=self._epoch,
                partition_of=self._partition_of,
            )
            self._groups[key] = _Group(source, framing)
        return self._groups[key]

    async def _stop(self) -> None:
        groups = list(self._groups.values())
        self._groups.clear()
        self._specs.clear()
        await asyncio.gather(*(_cancel(group) for group in groups))
        for source in self._sources.values():
            await source.close()

    async def _poll(self, group: _Group) -> None:
        interval_s = group.interval_s
        end = tick_floor(self._clock.now(), interval_s)
        await self._fetch(group, tuple(group.members.values()), end)
        while True:
            following = tick_floor(self._clock.now(), interval_s) + interval_s
            skipped = round((following - end) / interval_s) - 1
            if skipped > 0:
                log.warning("%s overran: %d ticks of %g s skipped", group.source.name, skipped, interval_s)
            # A clock that was set back makes this wait until it has caught up: ends never come twice.
            end = max(following, end + interval_s)
            await self._sleep_until(end)
            targets = tuple(group.members.values())
            fetched = await self._fetch(group, targets, end)
            await self._send(group, group.framing.frames([each.rollout_id for each in targets], fetched))

    async def _sleep_until(self, end: float) -> None:
        while (left := end - self._clock.now()) > 0:
            await self._sleep(left)

    async def _fetch(self, group: _Group, targets: tuple[Target, ...], end: float) -> Fetched:
        """The source's answer. One that could not answer at all says so for every rollout."""
        limit_s = OVERRUN_TICKS * group.interval_s
        try:
            async with asyncio.timeout(limit_s):
                return await group.source.fetch(targets, end, group.interval_s)
        except TimeoutError:
            problem = f"did not answer within {limit_s:g} s"
        except SourceError as exc:
            problem = str(exc)
        except Exception as exc:
            # A defect of one source is its own problem, and must be seen: in the log and by the judge.
            log.exception("source %s failed", group.source.name)
            problem = f"the poller failed: {type(exc).__name__}: {exc}"
        return Fetched(end=end, problems={each.rollout_id: problem for each in targets})

    async def _send(self, group: _Group, frames: Iterable[tuple[int, SampleFrame]]) -> None:
        """Publish in order. What the log does not take stays and goes first the next time."""
        group.unsent.extend((partition, self._stamped(partition, frame)) for partition, frame in frames)
        while group.unsent:
            partition, frame = group.unsent[0]
            try:
                await self._publish(frame.channel, partition, frame)
            except SentraError as exc:
                log.warning("%d frames of %s wait: %s", len(group.unsent), group.source.name, exc)
                return
            except Exception:
                # A defect in publishing must not end the polling silently.
                log.exception("%d frames of %s wait", len(group.unsent), group.source.name)
                return
            group.unsent.popleft()

    def _stamped(self, partition: int, frame: SampleFrame) -> SampleFrame:
        """``frame`` with its number among this source's frames in its partition."""
        key = (frame.report.source, partition)
        self._sequence[key] = sequence = self._sequence.get(key, 0) + 1
        return msgspec.structs.replace(frame, frame_seq=sequence, published_at=self._clock.now())


async def _cancel(group: _Group) -> None:
    if group.task is not None:
        group.task.cancel()
        await asyncio.gather(group.task, return_exceptions=True)
