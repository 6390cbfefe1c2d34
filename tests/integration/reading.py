"""Everything on the log, read as any outsider reads it, and what may be asserted of it."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import aclosing
from types import TracebackType
from typing import Self

import msgspec

from domain.decision import Decision, Order
from domain.errors import RecordError
from domain.records import (
    ActionRecord,
    ClockRecord,
    DecisionRecord,
    Evaluation,
    EvaluationFrame,
    IncidentRecord,
    RolloutRecord,
)
from streams.bus import Incoming
from streams.codec import decode
from streams.consume import follow
from streams.settings import StreamSettings
from streams.topics import ACTIONS, CLOCK, DEADLETTER, DECISIONS, EVALUATIONS, INCIDENTS, ROLLOUTS

_KINDS: dict[str, type[msgspec.Struct]] = {
    EVALUATIONS.name: EvaluationFrame,
    DECISIONS.name: DecisionRecord,
    ACTIONS.name: ActionRecord,
    ROLLOUTS.name: RolloutRecord,
    INCIDENTS.name: IncidentRecord,
    CLOCK.name: ClockRecord,
}


class LogReader:
    """Follows the output topics from their beginning while it is open."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self.frames: list[EvaluationFrame] = []
        self.decisions: list[DecisionRecord] = []
        self.actions: list[ActionRecord] = []
        self.incidents: list[IncidentRecord] = []
        self.clocks: list[ClockRecord] = []
        self.dead: list[Incoming] = []
        self.public: dict[str, RolloutRecord] = {}
        self.unreadable: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._read(), name="log reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading; what was read stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        topics = [*_KINDS, DEADLETTER.name]
        async with aclosing(follow(self._settings, topics, from_beginning=True)) as records:
            async for record in records:
                self._take(record)

    def _take(self, record: Incoming) -> None:
        if record.topic == DEADLETTER.name:
            self.dead.append(record)
            return
        try:
            found = decode(_KINDS[record.topic], record.value)
        except RecordError:
            self.unreadable[record.topic] += 1
            return
        match found:
            case EvaluationFrame():
                self.frames.append(found)
            case DecisionRecord():
                self.decisions.append(found)
            case ActionRecord():
                self.actions.append(found)
            case RolloutRecord():
                known = self.public.get(found.spec.rollout_id)
                if known is None or found.seq >= known.seq:
                    self.public[found.spec.rollout_id] = found
            case IncidentRecord():
                self.incidents.append(found)
            case ClockRecord():
                self.clocks.append(found)

    # --- what holds

    def ruling_frames(self) -> list[EvaluationFrame]:
        """Frames in log order, without those of owners that were deposed before writing them."""
        highest: dict[int, int] = defaultdict(int)
        ruling = []
        for frame in self.frames:
            if frame.owner_epoch >= highest[frame.partition]:
                highest[frame.partition] = frame.owner_epoch
                ruling.append(frame)
        return ruling

    def evaluations(self, rollout_id: str) -> list[Evaluation]:
        """A rollout's evaluations by ruling owners, in log order."""
        frames = self.ruling_frames()
        return [each for frame in frames for each in frame.evaluations if each.rollout_id == rollout_id]

    def evaluations_after(self, moment: float) -> list[Evaluation]:
        """What was published after ``moment`` by ruling owners."""
        return [e for frame in self.ruling_frames() if frame.published_at > moment for e in frame.evaluations]

    def first_evaluation_after(self, moment: float) -> float | None:
        """When the first evaluation after ``moment`` was published."""
        found = [f.published_at for f in self.ruling_frames() if f.evaluations and f.published_at > moment]
        return min(found, default=None)

    def orders(self, rollout_id: str) -> dict[str, Decision]:
        """By id, the decisions of ruling evaluations that ask something of the actuator."""
        decided = [each.decision for each in self.evaluations(rollout_id) if each.decision is not None]
        return {each.decision_id: each for each in decided if each.order is not Order.NONE}

    def published_orders(self, rollout_id: str) -> set[str]:
        """Ids on the decisions topic that ask something of the actuator."""
        return {
            each.decision.decision_id
            for each in self.decisions
            if each.decision.rollout_id == rollout_id and each.decision.order is not Order.NONE
        }
