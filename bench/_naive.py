"""The same gates in plain Faust style: one record per sample, a dictionary for state, no batches.

What many first versions look like, and what the frames are measured against. It is a charitable version:
nothing is written to tables, and a verdict leaves as one record per rollout and tick.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

import faust

from bench._fleet import INTERVAL_S, SAMPLES_PER_TICK, WINDOW_TICKS
from bench._run import Run
from domain.records import SampleFrame
from streams.codec import unpack_samples

TOPIC = "bench.samples"
RESULTS = "bench.verdicts"

_LIMITS = {"error_rate": 0.01, "latency_ms": 0.05, "log_error_ratio": 0.005, "trace_error_ratio": 0.005}
_MIN_SAMPLES = 100


class SampleRecord(faust.Record, serializer="json"):
    """One signal of one arm in one tick."""

    rollout: str
    signal: str
    arm: str
    end: float
    bad: float
    total: float


def records_of(frame: SampleFrame) -> Iterator[bytes]:
    """A frame's samples as JSON, one by one."""
    for sample in unpack_samples(frame):
        bad = sample.exposure - sample.counts[0] if sample.counts else sample.events
        record = {
            "rollout": sample.rollout_id,
            "signal": sample.signal,
            "arm": sample.arm.value,
            "end": sample.end,
            "bad": bad,
            "total": sample.exposure,
        }
        yield json.dumps(record).encode()


def make_app(run: Run) -> faust.App:
    """The application; Faust's defaults except for what makes it start quickly on the embedded broker."""
    app = faust.App(
        "naive",
        broker=f"kafka://{run.bootstrap}",
        datadir=run.folder / "faust",
        store="memory://",
        web_enabled=False,
        topic_partitions=run.partitions,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
    )
    samples = app.topic(TOPIC, value_type=SampleRecord)
    results = app.topic(RESULTS)
    windows: dict[tuple[str, str, str], deque[SampleRecord]] = defaultdict(deque)
    seen: dict[tuple[str, float], int] = defaultdict(int)

    @app.agent(samples)
    async def judge(stream: Any) -> None:
        async for sample in stream:
            window = windows[sample.rollout, sample.signal, sample.arm]
            window.append(sample)
            while window[0].end <= sample.end - WINDOW_TICKS * INTERVAL_S:
                window.popleft()
            tick = (sample.rollout, sample.end)
            seen[tick] += 1
            if seen[tick] == SAMPLES_PER_TICK:
                del seen[tick]
                verdicts = {signal: _verdict(windows[sample.rollout, signal, "canary"]) for signal in _LIMITS}
                await results.send(
                    key=sample.rollout,
                    value={"rollout": sample.rollout, "end": sample.end, "verdicts": verdicts},
                )

    return app


def _verdict(window: deque[SampleRecord]) -> str:
    total = sum(sample.total for sample in window)
    if total < _MIN_SAMPLES:
        return "INCONCLUSIVE"
    bad = sum(sample.bad for sample in window)
    return "PASS" if bad / total <= _LIMITS[window[-1].signal] else "FAIL"
