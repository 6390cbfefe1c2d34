"""Rows for the whole judge: one gate of each of many rollouts in the middle of its first step."""

from __future__ import annotations

import numpy as np

from domain.policy import Gate, Policy, Telemetry, Traffic
from domain.records import SignalInput
from domain.rollout import GateState, RolloutSpec, SourceRef, WindowTick, context_of
from domain.signal import Arm, Channel
from scorers.gate_row import GateRow, Moment

GATE = Gate(signal="error_rate", slo=0.01, severe=0.05, window_s=60.0, min_samples=100, min_events=3)


def _context(number: int) -> RolloutSpec:
    policy = Policy(
        service=f"bench-{number}",
        environment="bench",
        weights_bp=(500, 10_000),
        gates=(GATE,),
        traffic=Traffic(adapter="memory", target={"name": "bench"}),
        telemetry=Telemetry(metrics="metrics"),
    )
    return RolloutSpec(
        rollout_id=f"bench-{number}",
        service=policy.service,
        environment="bench",
        stable="v1",
        canary="v2",
        policy=policy,
        sources=(SourceRef(name="metrics", channel=Channel.METRICS),),
    )


def rows_of(rollouts: int, seed: int = 11) -> list[list[GateRow]]:
    """One row for each rollout: 25 canary and 475 stable requests, 2 % bad."""
    rng = np.random.default_rng(seed)
    context = context_of(_context(0))
    moment = Moment(start=100.0, end=105.0, step=0, is_settled=True, step_began=0.0, warm_at=30.0)
    rows = []
    for _ in range(rollouts):
        n_c, n_b = float(rng.poisson(25)), float(rng.poisson(475))
        s_c, s_b = float(rng.binomial(int(n_c), 0.02)), float(rng.binomial(int(n_b), 0.02))
        newest = WindowTick(100.0, 105.0, n_c, s_c, s_c, s_c, n_b, s_b)
        canary = SignalInput("error_rate", Arm.CANARY, 100.0, s_c, n_c)
        stable = SignalInput("error_rate", Arm.STABLE, 100.0, s_b, n_b)
        row = GateRow(0, GATE, GateState(), context, newest, "", None, 30.0, moment, canary, stable)
        rows.append([row])
    return rows
