"""The rollouts that the stream benchmark judges, and the frames that pollers would publish for them.

Frames are cut by the pollers' own code once and then only stamped with the tick, so that publishing costs the
benchmark little. Every rollout has four gates on three channels, which is eight samples a tick.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from msgspec.structs import replace

from domain.decision import CommandKind
from domain.policy import Gate, JudgeName, Policy, Telemetry, Traffic
from domain.records import Command, SampleFrame
from domain.rollout import RolloutSpec, SourceRef
from domain.signal import REQUESTS, Arm, Channel, Sample
from streams.bus import Outgoing
from streams.codec import encode, event_headers
from streams.pollers.base import Fetched
from streams.pollers.framing import Framing
from streams.topics import COMMANDS, LOGS, METRICS, TRACES, partition_of

INTERVAL_S = 5.0
WINDOW_TICKS = 12
SAMPLES_PER_TICK = 8
"""Four gates, two arms."""
TOPIC_OF = {Channel.METRICS: METRICS.name, Channel.LOGS: LOGS.name, Channel.TRACES: TRACES.name}
SIGNALS = {
    Channel.METRICS: (REQUESTS, "latency_ms"),
    Channel.LOGS: ("log_error_ratio",),
    Channel.TRACES: ("trace_error_ratio",),
}

_LIMIT_MS, _SEVERE_MS = 400.0, 1000.0
_A_DAY_S = 86_400.0
_TEMPLATE_END = 1_000 * INTERVAL_S


def rollout_id(number: int) -> str:
    return f"bench-{number:06d}"


def policy() -> Policy:
    """Judged every tick and never decided by passing: the step has to last a day."""
    return Policy(
        service="bench",
        environment="bench",
        judge=JudgeName.THRESHOLD,
        weights_bp=(500, 10_000),
        gates=(
            _gate(REQUESTS, 0.01, 0.05),
            _gate("latency_ms", _LIMIT_MS, _SEVERE_MS, quantile=0.95),
            _gate("log_error_ratio", 0.005, 0.05),
            _gate("trace_error_ratio", 0.005, 0.05, required=False),
        ),
        traffic=Traffic(adapter="memory", target={"name": "bench"}),
        telemetry=Telemetry(metrics="metrics", logs="logs", traces="traces"),
        interval_s=INTERVAL_S,
        window_s=WINDOW_TICKS * INTERVAL_S,
        warmup_s=0.0,
        min_step_time_s=_A_DAY_S,
        max_step_time_s=2 * _A_DAY_S,
        # Roll-backs that the benchmark provokes are never carried out, and nobody should ask for them again.
        verify_timeout_s=_A_DAY_S,
    )


def _gate(
    signal: str, slo: float, severe: float, *, quantile: float | None = None, required: bool = True
) -> Gate:
    return Gate(
        signal=signal,
        slo=slo,
        severe=severe,
        quantile=quantile,
        required=required,
        window_s=WINDOW_TICKS * INTERVAL_S,
        min_samples=100,
        min_events=5,
    )


def start_command(number: int, now: float) -> Outgoing:
    """What the outbox relay would publish for ``sentra start``."""
    spec = RolloutSpec(
        rollout_id=rollout_id(number),
        service="bench",
        environment="bench",
        stable="v1",
        canary="v2",
        policy=policy(),
        sources=tuple(SourceRef(name=channel.value, channel=channel) for channel in Channel),
        created_at=now,
    )
    command = Command(
        command_id=f"start-{spec.rollout_id}",
        rollout_id=spec.rollout_id,
        kind=CommandKind.START,
        actor="bench",
        at=now,
        spec=spec,
    )
    key = spec.rollout_id.encode()
    return Outgoing(topic=COMMANDS.name, key=key, value=encode(command), headers=event_headers(command))


class Block:
    """Some rollouts that are polled together: their frames for any tick.

    Exposure varies from rollout to rollout, a few requests fail, all gates pass.
    """

    def __init__(self, numbers: range, partitions: int) -> None:
        names = [rollout_id(number) for number in numbers]
        self._frames = [
            (partition, frame)
            for channel in Channel
            for partition, frame in _framing(channel, partitions).frames(
                names, Fetched(end=_TEMPLATE_END, samples=list(_samples(channel, names)))
            )
        ]

    def at(self, end: float, failing: Collection[str] = ()) -> Iterator[tuple[int, SampleFrame]]:
        """Partition and frame of the tick that ends at ``end``; all requests of ``failing`` canaries fail."""
        for partition, frame in self._frames:
            rows = len(frame.arm)
            yield (
                partition,
                replace(
                    frame,
                    report=replace(frame.report, end=end),
                    start=np.full(rows, end - INTERVAL_S).tobytes(),
                    end=np.full(rows, end).tobytes(),
                    events=_spoilt(frame, failing),
                ),
            )


def _spoilt(frame: SampleFrame, failing: Collection[str]) -> bytes:
    """The events column with every canary request of ``failing`` failed."""
    bad = [index for index, name in enumerate(frame.report.rollouts) if name in failing] if failing else []
    if not bad or REQUESTS not in frame.signals:
        return frame.events
    events = np.frombuffer(frame.events).copy()
    rows = (
        np.isin(np.frombuffer(frame.rollout, "<u4"), bad)
        & (np.frombuffer(frame.signal, "<u2") == frame.signals.index(REQUESTS))
        & (np.frombuffer(frame.arm, "u1") == 1)
    )
    events[rows] = np.frombuffer(frame.exposure)[rows]
    return events.tobytes()


def _framing(channel: Channel, partitions: int) -> Framing:
    return Framing(
        source=channel.value,
        channel=channel,
        interval_s=INTERVAL_S,
        source_epoch=0.0,
        partition_of=lambda name: partition_of(name, partitions),
    )


def _samples(channel: Channel, names: Sequence[str]) -> Iterator[Sample]:
    chance = random.Random(f"{channel.value} {names[0]}")
    for name in names:
        for signal in SIGNALS[channel]:
            for arm in Arm:
                yield _sample(name, signal, arm, chance.randint(90, 400))


def _sample(name: str, signal: str, arm: Arm, exposure: int) -> Sample:
    is_latency = signal == "latency_ms"
    return Sample(
        rollout_id=name,
        signal=signal,
        arm=arm,
        start=_TEMPLATE_END - INTERVAL_S,
        end=_TEMPLATE_END,
        events=0.0 if is_latency else exposure // 300,
        exposure=exposure,
        edges=(_LIMIT_MS, _SEVERE_MS) if is_latency else (),
        counts=(exposure - exposure // 100, exposure - exposure // 300) if is_latency else (),
    )
