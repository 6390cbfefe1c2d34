"""Telemetry and an actuator without a data plane: synthetic frames every second, and every order obeyed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import TracebackType
from typing import Self

from domain.clock import tick_floor
from domain.decision import ActionOutcome, Order
from domain.policy import Gate, JudgeName, Policy, Telemetry, Traffic, check
from domain.records import ActionRecord, DecisionRecord, Report
from domain.rollout import SourceRef
from domain.signal import Arm, Channel, Sample
from streams.bus import Outgoing
from streams.codec import encode, pack_samples
from streams.consume import KafkaBus
from streams.topics import ACTIONS, METRICS, partition_of
from tests.integration.loop import CLOCK, Loop

SOURCES = (SourceRef(name="synthetic", channel=Channel.METRICS),)


ENDLESS = 900
"""So many passes in a row that a rollout stays at its first step as long as a test may last."""


def synthetic_policy(service: str, pass_count: int = ENDLESS) -> Policy:
    """One gate, two steps, ticks of a second, no warm-up."""
    return check(
        Policy(
            service=service,
            environment="prod",
            judge=JudgeName.THRESHOLD,
            weights_bp=(2000, 10_000),
            gates=(
                Gate(signal="error_rate", slo=0.01, severe=0.05, window_s=5.0, min_samples=50, min_events=3),
            ),
            traffic=Traffic(adapter="envoy", target={"rds": f"{service}.json"}),
            telemetry=Telemetry(metrics="synthetic"),
            warmup_s=0.0,
            interval_s=1.0,
            window_s=5.0,
            pass_count=pass_count,
            min_step_time_s=0.0,
            max_step_time_s=3600.0,
        )
    )


class Feeder:
    """While open: one frame per partition and second for ``rollouts``, and a report on every order."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._settings = loop.settings.stream()
        self._bus = KafkaBus(self._settings)
        self._tasks: list[asyncio.Task[None]] = []
        self.rollouts: list[str] = []
        self.bad: dict[str, float] = defaultdict(float)
        """By rollout, of the canary's 200 requests a second, in frames to come."""

    async def __aenter__(self) -> Self:
        await self._bus.start()
        self._tasks = [asyncio.create_task(self._feed()), asyncio.create_task(self._obey())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bus.stop()

    def start(self, *rollouts: str, pass_count: int = ENDLESS) -> None:
        """Ask for rollouts of services of their own."""
        for rollout in rollouts:
            self._loop.start_policy(synthetic_policy(f"shop-{rollout}", pass_count), rollout, SOURCES)
            self.rollouts.append(rollout)

    def partition(self, rollout: str) -> int:
        return partition_of(rollout, self._settings.partitions)

    async def _feed(self) -> None:
        end = tick_floor(CLOCK.now(), 1.0)
        while True:
            end += 1.0
            await asyncio.sleep(max(end - CLOCK.now(), 0.0))
            of_each: dict[int, list[str]] = defaultdict(list)
            for rollout in self.rollouts:
                of_each[self.partition(rollout)].append(rollout)
            await self._bus.send([self._frame(number, members, end) for number, members in of_each.items()])

    def _frame(self, partition: int, members: list[str], end: float) -> Outgoing:
        samples = [
            Sample(
                rollout_id=rollout,
                signal="error_rate",
                arm=arm,
                start=end - 1.0,
                end=end,
                events=self.bad[rollout] if arm is Arm.CANARY else 0.0,
                exposure=200.0,
            )
            for rollout in members
            for arm in Arm
        ]
        report = Report(source="synthetic", end=end, rollouts=tuple(members))
        frame = pack_samples(samples, report=report, channel=Channel.METRICS, interval_s=1.0)
        return Outgoing(topic=METRICS.name, partition=partition, value=encode(frame))

    async def _obey(self) -> None:
        obeyed: set[tuple[str, int]] = set()
        while True:
            for decided in list(self._loop.log.decisions):
                key = (decided.decision.decision_id, decided.owner_epoch)
                if key not in obeyed and decided.decision.order is not Order.NONE:
                    obeyed.add(key)
                    await self._bus.send([_report(decided)])
            await asyncio.sleep(0.02)


def _report(decided: DecisionRecord) -> Outgoing:
    decision = decided.decision
    record = ActionRecord(
        rollout_id=decision.rollout_id,
        decision_id=decision.decision_id,
        generation=decision.generation,
        outcome=ActionOutcome.VERIFIED,
        at=CLOCK.now(),
        observed_bp=decision.weight_bp,
    )
    return Outgoing(topic=ACTIONS.name, key=decision.rollout_id.encode(), value=encode(record))
