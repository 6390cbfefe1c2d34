"""The judge agent: samples, commands and actuators' reports in; evaluations, decisions and states out.

Rules
-----
* The evaluation frame of an input is written and acknowledged before anything else that follows from it.
* Only the owner of a partition judges it, and says in every record since which epoch it owns it.
* An owner that slept (a suspended machine, a broker that was away) treats waking as a restart: passes count
  afresh and timers did not run meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from domain.clock import Clock
from domain.errors import RecordError
from domain.records import ActionRecord, Command, RestartInput, SampleFrame
from domain.rollout import RolloutFold
from scorers.fold import Folded
from streams.agent import Handled, Place
from streams.agents import publish
from streams.agents.partition import Batch, Partition
from streams.agents.publish import Ownership
from streams.agents.recovery import Memory, Recovered, from_database, from_log
from streams.agents.silence import CLOCK_S
from streams.bus import Bus, Incoming, Outgoing
from streams.codec import decode, unpack_samples
from streams.deadletter import dead_letters
from streams.topics import ACTIONS, COMMANDS, EVALUATIONS, LOGS, METRICS, STATE, TRACES, partition_of

log = logging.getLogger(__name__)

SLEPT_S = 5.0
"""Without a clock record for this long, the owner was asleep."""
FLOOR_EVERY_S = 60.0
"""How often the owner marks the end of the evaluations topic: checkpoints say where to go on from."""

SAY_AGAIN_S = 30.0
"""How old the public state may get without news: what it waits for, and its scores, go on changing. Saying it
at every tick would cost as much as judging."""

_TELEMETRY = frozenset({METRICS.name, LOGS.name, TRACES.name})


def judge_key(partition: int) -> str:
    """The key under which the epochs of a partition's owners are kept."""
    return f"judge/{partition}"


class Epochs(Protocol):
    """Who may write for a partition."""

    def take(self, key: str, owner: str, now: float) -> int:
        """A new epoch for ``key``, above every earlier one, whoever held it. May block."""
        ...


class JudgeAgent:
    """Judges the rollouts of the partitions it owns."""

    name = "judge"
    topics: tuple[str, ...] = (METRICS.name, LOGS.name, TRACES.name, COMMANDS.name, ACTIONS.name)
    interval_s = CLOCK_S

    def __init__(
        self,
        *,
        owner: str,
        clock: Clock,
        epochs: Epochs,
        memory: Memory,
        partitions: int,
        broker_epoch: str,
    ) -> None:
        self._owner = owner
        self._clock = clock
        self._epochs = epochs
        self._memory = memory
        self._count = partitions
        self._broker_epoch = broker_epoch
        self._owned: dict[int, _Owned] = {}
        self._bus: Bus | None = None

    # --- ownership

    async def assigned(self, partitions: frozenset[int], bus: Bus) -> Mapping[Place, int]:
        """Recover every partition: first what the log holds, then what only the database knows."""
        self._bus = bus
        starts: dict[Place, int] = {}
        unfinished = await asyncio.to_thread(self._memory.unfinished)
        for number in sorted(partitions):
            mine = [each for each in unfinished if partition_of(each, self._count) == number]
            owned, recovered = await self._recover(bus, number, mine)
            self._owned[number] = owned
            starts |= {(topic, number): offset for topic, offset in recovered.resume.items()}
            for topic, offset in recovered.resume.items():
                owned.folds.note_input(topic, offset - 1)
        return {place: offset for place, offset in starts.items() if place[0] in self.topics}

    async def revoked(self, partitions: frozenset[int]) -> None:
        for number in partitions:
            self._owned.pop(number, None)

    async def _recover(self, bus: Bus, number: int, unfinished: Sequence[str]) -> tuple[_Owned, Recovered]:
        now = self._clock.now()
        epoch = await asyncio.to_thread(self._epochs.take, judge_key(number), self._owner, now)
        own = Ownership(partition=number, owner=self._owner, epoch=epoch, broker_epoch=self._broker_epoch)
        owned = _Owned(own)
        await bus.send(publish.write_ahead(own, [], {}, now))
        recovered = await from_log(bus, number)
        for fold in recovered.folds.values():
            owned.folds.adopt(fold)
        for rollout_id in unfinished:
            if rollout_id not in recovered.folds:
                fold_ = await asyncio.to_thread(from_database, self._memory, rollout_id)
                if fold_ is not None:
                    owned.folds.adopt(fold_)
        await self._come_back(bus, owned, recovered)
        return owned, recovered

    async def _come_back(self, bus: Bus, owned: _Owned, recovered: Recovered) -> None:
        """Fold the restart, and say again what may have been said only to ourselves."""
        again = [
            publish.decision(owned.own, recovered.folds[rollout_id], evaluation.decision)
            for rollout_id, evaluations in recovered.evaluations.items()
            for evaluation in evaluations
            if evaluation.decision is not None
        ]
        await bus.send(again)
        batch = owned.folds.restart(await self._floors(owned))
        for results in owned.outputs(batch, self._clock.now()):
            await bus.send(results)
        await bus.send(
            [
                publish.decision(owned.own, fold, fold.state.in_flight)
                for fold in owned.folds.folds.values()
                if fold.state.in_flight is not None
            ]
        )

    async def _floors(self, owned: _Owned) -> dict[str, RestartInput]:
        now = self._clock.now()
        return {
            rollout_id: await asyncio.to_thread(self._memory.floors, rollout_id, now)
            for rollout_id in owned.folds.folds
        }

    # --- records

    async def handle(self, record: Incoming) -> Handled:
        """Fold one record and say what follows, the write-ahead frame first."""
        owned = self._owned[record.partition]
        before = await self._wake(owned)
        now = self._clock.now()
        batch, end = self._fold(owned.folds, record, now)
        owned.folds.note_input(record.topic, record.offset, end)
        results = owned.outputs(batch, now)
        for stranger in batch.strangers:
            unknown = RecordError(f"samples for the rollout {stranger}, which is not known here")
            results.append(dead_letters(record, unknown, agent=self.name, now=now))
        return [*before, *results]

    def _fold(self, partition: Partition, record: Incoming, now: float) -> tuple[Batch, float | None]:
        if record.topic in _TELEMETRY:
            frame = decode(SampleFrame, record.value)
            return partition.frame(frame, unpack_samples(frame), now), frame.report.end
        if record.topic == COMMANDS.name:
            return partition.command(decode(Command, record.value), now), None
        return partition.action(decode(ActionRecord, record.value), now), None

    async def tick(self, now: float) -> Handled:
        """Write the clock record of every partition that has rollouts, and fold it."""
        results: list[list[Outgoing]] = []
        for owned in self._owned.values():
            if owned.folds.is_busy:
                results += await self._wake(owned)
                batch = owned.folds.clock(now)
                results += owned.outputs(batch, now)
                results.append([publish.clock(owned.own, now, sorted(owned.folds.silent))])
            else:
                owned.folds.clock(now)
            results += await self._tidy(owned, now)
        return results

    async def _wake(self, owned: _Owned) -> list[list[Outgoing]]:
        """After a sleep, fold a restart before anything else."""
        gap = self._clock.now() - owned.folds.now
        if not owned.folds.is_busy or gap < SLEPT_S:
            return []
        log.warning("partition %d: slept for %.1f s; passes count afresh", owned.own.partition, gap)
        batch = owned.folds.restart(await self._floors(owned))
        return owned.outputs(batch, self._clock.now())

    async def _tidy(self, owned: _Owned, now: float) -> list[list[Outgoing]]:
        """Move the floor that checkpoints name, and let go of checkpoints that nobody needs."""
        if now - owned.floor_at >= FLOOR_EVERY_S and self._bus is not None:
            owned.floor_at = now
            owned.floor = await self._bus.barrier(EVALUATIONS.name, owned.own.partition)
        gone = owned.folds.gone()
        tombstones = [
            Outgoing(topic=STATE.name, key=each.encode(), partition=owned.own.partition, value=None)
            for each in gone
        ]
        return [tombstones] if tombstones else []


class _Owned:
    """A partition we own: its folds, our epoch, and what was last said in public."""

    def __init__(self, own: Ownership) -> None:
        self.own = own
        self.folds = Partition()
        self.floor = 0
        """An offset of the evaluations topic: everything we write lies behind it."""
        self.floor_at = 0.0
        self._said: dict[str, tuple[object, float]] = {}

    def outputs(self, batch: Batch, now: float) -> list[list[Outgoing]]:
        """Everything that follows from a batch: first the write-ahead frames, then the rest."""
        for rollout_id, exc in batch.broken:
            log.error("rollout %s cannot be folded", rollout_id, exc_info=exc)
        if not batch.folded and not batch.incidents:
            return []
        ahead = publish.write_ahead(self.own, batch.folded, self.folds.resume(), now)
        after = [result for folded in batch.folded for result in self._follows(folded)]
        after += [publish.incident(self.own, fold, noticed) for fold, noticed in batch.incidents]
        return [ahead, after] if batch.folded else [after]

    def _follows(self, folded: Folded) -> list[Outgoing]:
        evaluation, fold = folded.evaluation, folded.fold
        results = []
        if evaluation.decision is not None:
            results.append(publish.decision(self.own, fold, evaluation.decision))
        if self._is_news(fold):
            scores = self.folds.scores.get(evaluation.rollout_id, ())
            results.append(publish.rollout_state(self.own, fold, scores))
        results += [publish.incident(self.own, fold, noticed) for noticed in evaluation.incidents]
        if evaluation.fold is not None:
            results.append(publish.checkpoint(self.own, evaluation.fold, self.floor))
        return results

    def _is_news(self, fold: RolloutFold) -> bool:
        """Whether the public state changed, apart from the time, or was not said for a while."""
        state = fold.state
        enough = fold.context.policy.pass_count
        public = (
            state.phase,
            state.step_index,
            state.ordered_bp,
            state.verified_bp,
            state.verdict,
            min(state.passes, enough),
            state.pause_causes,
            state.reason,
        )
        said, at = self._said.get(state.rollout_id, (None, 0.0))
        if said == public and state.now - at < SAY_AGAIN_S:
            return False
        self._said[state.rollout_id] = (public, state.now)
        return True
