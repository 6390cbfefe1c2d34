"""Compiling before it matters: every compiled function of the judge runs once, on made-up rows.

The first call of a compiled function takes seconds on a machine that never ran it, and still a tenth of one
where the result is kept. A judge that met its first tick unprepared would be late for all of them.
"""

from __future__ import annotations

from domain.policy import Gate, Policy, Traffic
from domain.records import SignalInput
from domain.rollout import GateState, JudgingContext, WindowTick
from domain.signal import Arm
from scorers.evidence.judge import judge
from scorers.gate_row import GateRow, Moment

_EDGES = (10.0, 20.0, 50.0, 100.0, 200.0, 400.0, 800.0)
_POLICY = Policy(
    service="warm-up",
    environment="none",
    weights_bp=(5_000, 10_000),
    gates=(
        Gate(signal="error_rate", slo=0.01, severe=0.05, window_s=10.0, min_samples=1, min_events=1),
        Gate(
            signal="latency_ms",
            quantile=0.95,
            slo=400.0,
            severe=800.0,
            window_s=10.0,
            min_samples=1,
            min_events=1,
        ),
    ),
    traffic=Traffic(adapter="none", target={}),
    interval_s=1.0,
    warmup_s=0.0,
)
_SECONDS = 3
"""A histogram's edges are chosen by the first of them and counted from the second."""


def warm_up() -> None:
    """Judge a few seconds of one rollout and of two: arrays of one row and of many compile apart."""
    for rollouts in (1, 2):
        states = [GateState() for _ in _POLICY.gates]
        for second in range(_SECONDS):
            rows = [_row(index, states[index], float(second)) for index in range(len(states))]
            states = [state for state, _ in judge([rows] * rollouts)[0]]


def _row(index: int, state: GateState, start: float) -> GateRow:
    gate = _POLICY.gates[index]
    return GateRow(
        index=index,
        gate=gate,
        state=state,
        context=JudgingContext(policy=_POLICY, sources=()),
        newest=WindowTick(start, start + 1.0, 100.0, 1.0, 1.0, 0.0, 100.0, 1.0),
        problem="",
        quantile_ms=None,
        since=0.0,
        moment=Moment(start=start, end=start + 1.0, step=0, is_settled=True, step_began=0.0, warm_at=0.0),
        canary=_seen(gate.signal, Arm.CANARY, start),
        stable=_seen(gate.signal, Arm.STABLE, start),
    )


def _seen(signal: str, arm: Arm, start: float) -> SignalInput:
    counts = (20.0, 50.0, 75.0, 90.0, 95.0, 99.0, 100.0)
    return SignalInput(signal, arm, start, 1.0, 100.0, _EDGES, counts)
