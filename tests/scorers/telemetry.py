"""Ticks and samples with made-up but whole counts, for tests of the fold."""

from __future__ import annotations

import random
from bisect import bisect_right
from typing import Any

from domain.decision import ActionOutcome, CommandKind
from domain.policy import Policy
from domain.records import ActionInput, Command, CommandInput, Input, Report, SignalInput, TickInput
from domain.rollout import Acted, RolloutFold, RolloutSpec
from domain.signal import Arm, Sample
from scorers.fold import Folded, begin, fold
from tests.scorers.situations import T0, policy, spec, start_command

EDGES = (50.0, 100.0, 200.0, 400.0, 800.0, 2000.0)


def tick(
    end: float, signals: tuple[SignalInput, ...] = (), *, now: float | None = None, **more: Any
) -> TickInput:
    return TickInput(start=end - 5.0, end=end, now=end + 1.0 if now is None else now, signals=signals, **more)


def errors(end: float, bad: float, n: float = 100.0, *, stable_bad: float = 0.0) -> tuple[SignalInput, ...]:
    """Both arms of ``error_rate`` in the tick that ends then."""
    return (
        SignalInput("error_rate", Arm.CANARY, end - 5.0, bad, n),
        SignalInput("error_rate", Arm.STABLE, end - 5.0, stable_bad, 9 * n),
    )


def everything(end: float, drawn: random.Random, *, bad_share: float = 0.002) -> tuple[SignalInput, ...]:
    """All four standard signals of both arms."""
    signals: list[SignalInput] = []
    for arm, n in ((Arm.CANARY, drawn.randrange(0, 400)), (Arm.STABLE, drawn.randrange(500, 4000))):
        bad = sum(drawn.random() < bad_share for _ in range(min(n, 400)))
        latencies = sorted(drawn.lognormvariate(4.5, 0.6) for _ in range(min(n, 100)))
        counts = tuple(float(bisect_right(latencies, edge)) for edge in EDGES)
        start = end - 5.0
        signals += [
            SignalInput("error_rate", arm, start, float(bad), float(n)),
            SignalInput("latency_ms", arm, start, 0.0, float(len(latencies)), EDGES, counts),
            SignalInput("log_error_ratio", arm, start, float(bad // 2), float(5 * n)),
            SignalInput("trace_error_ratio", arm, start, float(bad), float(n)),
        ]
    return tuple(signals)


def command(kind: CommandKind, now: float, **more: Any) -> CommandInput:
    asked = Command(command_id=f"c-{kind.value}-{now}", rollout_id="r-1", kind=kind, actor="ann", **more)
    return CommandInput(now=now, command=asked)


def verified(before: RolloutFold, now: float) -> ActionInput:
    """The actuator did what was ordered last."""
    state = before.state
    acted = Acted(
        generation=state.generation, outcome=ActionOutcome.VERIFIED, observed_bp=state.ordered_bp, at=now
    )
    return ActionInput(now=now, acted=acted)


def begun(wanted: RolloutSpec | None = None) -> Folded:
    return begin(start_command(wanted or spec()), T0)


def warm(wanted: RolloutSpec | None = None, *, at: float = T0) -> RolloutFold:
    """The first weight is in force since ``at``."""
    first = begun(wanted).fold
    prepared = fold(first, verified(first, at)).fold
    return fold(prepared, verified(prepared, at)).fold


def quick(**changes: Any) -> Policy:
    """No warm-up and no minimum time: the first tick counts."""
    return policy(**({"warmup_s": 0.0, "min_step_time_s": 0.0} | changes))


def run(before: RolloutFold, inputs: list[Input]) -> list[Folded]:
    """Fold ``inputs`` one after the other."""
    folded = []
    for given in inputs:
        folded.append(fold(before, given))
        before = folded[-1].fold
    return folded


def sample(end: float, *, arm: Arm = Arm.CANARY, signal: str = "error_rate", **more: Any) -> Sample:
    plain: dict[str, Any] = {"start": end - 5.0, "events": 1.0, "exposure": 100.0} | more
    return Sample(rollout_id="r-1", signal=signal, arm=arm, end=end, **plain)


def report(source: str, end: float, *, problem: str = "", rollouts: tuple[str, ...] = ("r-1",)) -> Report:
    return Report(source=source, end=end, rollouts=rollouts, problem=problem)
