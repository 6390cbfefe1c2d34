"""The actuate agent: decisions in, journaled intents out of hand, reports back to the judge.

Handling a decision is only writing it down and waking its target's task, so that a slow or blocked target
never delays another one's roll-back. What the tasks find out is published by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from domain.records import ActionRecord, DecisionRecord
from streams.agent import Handled, Place
from streams.agents.judge import judge_key
from streams.agents.targets import Publish, TargetDriver
from streams.bus import Bus, Incoming, Outgoing
from streams.codec import decode, encode, event_headers
from streams.topics import ACTIONS, DECISIONS, partition_of

log = logging.getLogger(__name__)


class ActuateAgent:
    """Carries out the decisions of the partitions it owns."""

    name = "actuate"
    topics: tuple[str, ...] = (DECISIONS.name,)

    def __init__(
        self,
        *,
        make_driver: Callable[[Publish], TargetDriver],
        epoch_of: Callable[[str], int],
        partitions: int,
    ) -> None:
        """``epoch_of`` asks the database for the highest epoch of a key such as ``judge/3``; it may block."""
        self._make_driver = make_driver
        self._epoch_of = epoch_of
        self._count = partitions
        self._driver: TargetDriver | None = None
        self._epochs: dict[int, int] = {}

    async def assigned(self, partitions: frozenset[int], bus: Bus) -> Mapping[Place, int]:
        """Take up what the journal holds unfinished; where to read on, the consumer group knows."""

        async def publish(record: ActionRecord) -> None:
            await bus.send([_outgoing(record)])

        for number in partitions:
            self._epochs[number] = await asyncio.to_thread(self._epoch_of, judge_key(number))
        self._driver = self._make_driver(publish)
        taken_up = await self._driver.resume(
            lambda rollout_id: partition_of(rollout_id, self._count) in partitions
        )
        if taken_up:
            log.info("took up %d unfinished orders", taken_up)
        return {}

    async def revoked(self, partitions: frozenset[int]) -> None:
        driver, self._driver = self._driver, None
        self._epochs.clear()
        if driver is not None:
            await driver.aclose()

    async def handle(self, record: Incoming) -> Handled:
        """Journal the intent and wake the target; decisions of owners that were replaced are dropped."""
        decided = decode(DecisionRecord, record.value)
        known = self._epochs.get(record.partition, 0)
        if decided.owner_epoch < known:
            log.warning("%s: dropped a decision of epoch %d < %d", record.address, decided.owner_epoch, known)
            return []
        self._epochs[record.partition] = decided.owner_epoch
        assert self._driver is not None, "records come only between assigned and revoked"
        await self._driver.accept(decided)
        return []


def _outgoing(record: ActionRecord) -> Outgoing:
    return Outgoing(
        topic=ACTIONS.name,
        key=record.rollout_id.encode(),
        value=encode(record),
        headers=event_headers(record),
    )
