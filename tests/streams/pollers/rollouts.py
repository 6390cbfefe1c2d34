"""Rollouts for the tests of codec and pollers."""

from __future__ import annotations

from domain.policy import Gate, Policy, Telemetry, Traffic
from domain.records import RolloutRecord
from domain.rollout import Phase, RolloutSpec, SourceRef
from domain.signal import Channel


def gate(signal: str, slo: float = 0.01, severe: float = 0.05, quantile: float | None = None) -> Gate:
    return Gate(
        signal=signal,
        slo=slo,
        severe=severe,
        quantile=quantile,
        window_s=60.0,
        min_samples=100,
        min_events=3,
    )


GATES = (gate("error_rate"), gate("latency_ms", 400.0, 800.0, quantile=0.95))


def spec(
    rollout_id: str = "r-1",
    *,
    service: str = "checkout",
    metrics: str = "mesh",
    logs: str = "",
    gates: tuple[Gate, ...] = GATES,
    interval_s: float = 1.0,
) -> RolloutSpec:
    refs = [SourceRef(name=metrics, channel=Channel.METRICS)] if metrics else []
    if logs:
        refs.append(SourceRef(name=logs, channel=Channel.LOGS))
    return RolloutSpec(
        rollout_id=rollout_id,
        service=service,
        environment="prod",
        stable="v1",
        canary="v2",
        policy=Policy(
            service=service,
            environment="prod",
            weights_bp=(500, 10_000),
            gates=gates,
            traffic=Traffic(adapter="memory", target={"name": service}),
            telemetry=Telemetry(metrics=metrics, logs=logs),
            interval_s=interval_s,
        ),
        sources=tuple(refs),
    )


def record(of: RolloutSpec, phase: Phase = Phase.ANALYSING, seq: int = 1) -> RolloutRecord:
    return RolloutRecord(
        spec=of,
        phase=phase,
        seq=seq,
        at=1_700_000_000.0,
        step_index=0,
        ordered_bp=500,
        verified_bp=500,
        generation=1,
        verdict=None,
        passes=0,
        pause_causes=(),
        reason="",
        waits_for="",
        eta_s=None,
        started_at=1_700_000_000.0,
    )
