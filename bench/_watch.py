"""Watches the log during a run: when was each frame published, and when was what followed from it there?

It reads the frames, evaluations and decisions as any consumer would, so its times include the broker and one
fetch. It also stands in for the actuator: orders to prepare and to shift are reported as verified at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import aclosing, suppress
from typing import Any, Self

import msgspec

from domain.clock import SystemClock
from domain.decision import ActionOutcome, DecisionKind, Order
from domain.records import ActionRecord, DecisionRecord
from streams.bus import Incoming, Outgoing
from streams.codec import decode, encode, event_headers
from streams.consume import KafkaBus, follow
from streams.settings import StreamSettings
from streams.topics import ACTIONS, DECISIONS, EVALUATIONS, LOGS, METRICS, TRACES

_FRAMES = frozenset({METRICS.name, LOGS.name, TRACES.name})


class _Report(msgspec.Struct):
    end: float
    rollouts: list[str]


class _Frame(msgspec.Struct):
    report: _Report
    published_at: float


class _Input(msgspec.Struct):
    end: float = 0.0
    """Only ticks have an end."""


class _Evaluation(msgspec.Struct):
    rollout_id: str
    seq: int
    input: _Input
    decision: dict[str, Any] | None = None


class _Evaluations(msgspec.Struct):
    evaluations: list[_Evaluation]


_read_frame = msgspec.msgpack.Decoder(_Frame).decode
_read_evaluations = msgspec.msgpack.Decoder(_Evaluations).decode

_ByTick = defaultdict[float, dict[str, float]]
"""Tick end → rollout → moment."""


class Watch:
    """Follows one run; use as an async context manager."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._bus = KafkaBus(settings)
        self._orders: asyncio.Queue[DecisionRecord] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._published: _ByTick = defaultdict(dict)
        self._evaluated: _ByTick = defaultdict(dict)
        self._decided_in: dict[tuple[str, int], float] = {}
        self._rolled_back: dict[tuple[str, int], float] = {}
        self.shifted: set[str] = set()
        """Rollouts whose first weight was reported as verified."""

    async def __aenter__(self) -> Self:
        await self._bus.start()
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._actuate())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self._bus.stop()

    def check(self) -> None:
        """Raise what a background task died of."""
        for task in self._tasks:
            if task.done():
                task.result()

    def judged(self, end: float) -> int:
        """How many rollouts' ticks ending at ``end`` have been judged."""
        return len(self._evaluated[end])

    def tick_ms(self, ends: Iterable[float]) -> list[float]:
        """Sorted: from a rollout's last frame of a tick to its evaluation, for ticks that end at ``ends``."""
        return sorted(
            (moment - self._published[end][rollout_id]) * 1000
            for end in ends
            for rollout_id, moment in self._evaluated[end].items()
            if rollout_id in self._published[end]
        )

    def roll_back_ms(self) -> list[float]:
        """Sorted: from the last frame of the tick that was severe to the decision to roll back."""
        return sorted(
            (moment - self._published[end][key[0]]) * 1000
            for key, moment in self._rolled_back.items()
            if (end := self._decided_in.get(key)) is not None
        )

    def forget_before(self, end: float) -> None:
        """Let go of older ticks, so that a long run does not grow."""
        for known in (self._published, self._evaluated):
            for old in [each for each in known if each < end]:
                del known[old]

    async def _follow(self) -> None:
        topics = [*_FRAMES, EVALUATIONS.name, DECISIONS.name]
        async with aclosing(follow(self._settings, topics, from_beginning=True)) as records:
            async for record in records:
                self._note(record, self._clock.now())

    def _note(self, record: Incoming, arrived: float) -> None:
        if record.topic in _FRAMES:
            frame = _read_frame(record.value)
            # All channels have to report before a tick closes, so the last one counts.
            self._published[frame.report.end] |= dict.fromkeys(frame.report.rollouts, frame.published_at)
        elif record.topic == EVALUATIONS.name:
            for evaluation in _read_evaluations(record.value).evaluations:
                self._note_evaluation(evaluation, arrived)
        else:
            self._note_decision(decode(DecisionRecord, record.value), arrived)

    def _note_evaluation(self, evaluation: _Evaluation, arrived: float) -> None:
        end = evaluation.input.end
        if end:
            self._evaluated[end][evaluation.rollout_id] = arrived
        if end and evaluation.decision is not None:
            self._decided_in[evaluation.rollout_id, evaluation.seq] = end

    def _note_decision(self, record: DecisionRecord, arrived: float) -> None:
        decision = record.decision
        if decision.kind is DecisionKind.ROLL_BACK:
            self._rolled_back[decision.rollout_id, decision.seq] = arrived
        elif decision.order is not Order.NONE:
            self._orders.put_nowait(record)

    async def _actuate(self) -> None:
        while True:
            orders = [await self._orders.get()]
            while not self._orders.empty():
                orders.append(self._orders.get_nowait())
            await self._bus.send([_verified(order, self._clock.now()) for order in orders])
            self.shifted |= {
                order.decision.rollout_id for order in orders if order.decision.order is Order.SHIFT
            }


def _verified(order: DecisionRecord, now: float) -> Outgoing:
    decision = order.decision
    record = ActionRecord(
        rollout_id=decision.rollout_id,
        decision_id=decision.decision_id,
        generation=decision.generation,
        outcome=ActionOutcome.VERIFIED,
        at=now,
        observed_bp=decision.weight_bp,
        wanted_bp=decision.weight_bp,
        adapter="bench",
    )
    key = decision.rollout_id.encode()
    return Outgoing(topic=ACTIONS.name, key=key, value=encode(record), headers=event_headers(record))
