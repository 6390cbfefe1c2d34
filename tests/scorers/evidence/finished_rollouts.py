"""Whole rollouts by seeded traffic, folded from their start command to their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from domain.calibration import Calibration
from domain.decision import ActionOutcome, CommandKind
from domain.policy import Gate, JudgeName, Policy
from domain.records import ActionInput, Command, CommandInput, Evaluation, Input, SignalInput, TickInput
from domain.rollout import Acted, RolloutFold, RolloutSpec, SourceRef
from domain.signal import Arm, Channel
from scorers.fold import Folded, begin, fold, is_over
from tests.scorers.situations import T0, policy

EDGES = (50.0, 100.0, 200.0, 400.0, 800.0, 2000.0)
MEDIAN_MS, SPREAD = 110.0, 0.5
LIMITS = {"window_s": 30.0, "min_samples": 50, "min_events": 3}
ERRORS = Gate(signal="error_rate", slo=0.02, severe=0.2, **LIMITS)  # type: ignore[arg-type]  # one table
LATENCY = Gate(signal="latency_ms", slo=500.0, severe=2000.0, quantile=0.95, **LIMITS)  # type: ignore[arg-type]
SOURCE = SourceRef(name="prom", channel=Channel.METRICS)

Signals = tuple[SignalInput, ...]


def evident(**changes: Any) -> Policy:
    """Two steps and all traffic; errors and latency, judged by evidence. A rollout takes two minutes."""
    plain: dict[str, Any] = {
        "judge": JudgeName.EVIDENCE,
        "weights_bp": (2000, 5000, 10_000),
        "gates": (ERRORS, LATENCY),
        "warmup_s": 10.0,
        "min_step_time_s": 40.0,
        "max_step_time_s": 600.0,
    }
    return policy(**(plain | changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests of a tick and how they end. A canary fails ``worse`` times as often as stable."""

    per_tick: float = 2000.0
    bad_share: float = 0.004
    worse: float = 1.0
    has_halves: bool = True
    """Whether stable's replicas are told apart."""

    def signals(self, end: float, weight_bp: int, rng: np.random.Generator) -> tuple[SignalInput, ...]:
        """Both arms of both signals in the tick of five seconds that ends then."""
        canary = rng.poisson(self.per_tick * weight_bp / 10_000)
        stable = rng.poisson(self.per_tick * (1.0 - weight_bp / 10_000))
        first = rng.binomial(stable, 0.5) if self.has_halves else -1
        return (
            *self._arm(Arm.CANARY, end, canary, -1, self.worse, rng),
            *self._arm(Arm.STABLE, end, stable, first, 1.0, rng),
        )

    def _arm(
        self, arm: Arm, end: float, n: int, first: int, worse: float, rng: np.random.Generator
    ) -> tuple[SignalInput, SignalInput]:
        is_bad = rng.random(n) < self.bad_share * worse
        latencies = MEDIAN_MS * np.exp(SPREAD * rng.standard_normal(n))
        counts = tuple(float((latencies <= edge).sum()) for edge in EDGES)
        half = slice(0, max(first, 0))
        half_counts = tuple(float((latencies[half] <= edge).sum()) for edge in EDGES) if first >= 0 else ()
        errors = SignalInput(
            "error_rate",
            arm,
            end - 5.0,
            float(is_bad.sum()),
            float(n),
            half_events=float(is_bad[half].sum()) if first >= 0 else -1.0,
            half_exposure=float(first),
        )
        return errors, SignalInput(
            "latency_ms",
            arm,
            end - 5.0,
            0.0,
            float(n),
            EDGES,
            counts,
            half_events=0.0 if first >= 0 else -1.0,
            half_exposure=float(first),
            half_counts=half_counts,
        )


class Told:
    """A rollout that is told what happens, tick by tick."""

    def __init__(self, wanted: RolloutSpec, traffic: Traffic, seed: int, *, at: float = T0) -> None:
        asked = Command(
            command_id=f"start-{wanted.rollout_id}",
            rollout_id=wanted.rollout_id,
            kind=CommandKind.START,
            actor="ann",
            at=at,
            spec=wanted,
        )
        self.traffic = traffic
        self.spoil: Callable[[Signals], Signals] = lambda signals: signals
        """What the sources make of the traffic."""
        self.now = at
        self.rng = np.random.default_rng(seed)
        self.evaluations: list[Evaluation] = []
        self._keep(begin(asked, at))

    def tell(self, given: Input) -> None:
        self._keep(fold(self.fold, given))

    def command(self, kind: CommandKind, **more: Any) -> None:
        rollout_id = self.fold.spec.rollout_id
        asked = Command(
            command_id=f"{rollout_id}-{len(self.evaluations)}",
            rollout_id=rollout_id,
            kind=kind,
            actor="ann",
            at=self.now,
            **more,
        )
        self.tell(CommandInput(now=self.now, command=asked))

    def tick(self, **more: Any) -> None:
        """Five seconds; an order that is under way is in force at their end."""
        state = self.fold.state
        self.now += 5.0
        signals = self.spoil(self.traffic.signals(self.now, state.verified_bp, self.rng))
        self.tell(TickInput(start=self.now - 5.0, end=self.now, now=self.now + 1.0, signals=signals, **more))
        if self.fold.state.in_flight is not None:
            self.obey()

    def obey(self) -> None:
        """The actuator did what was ordered last."""
        state = self.fold.state
        acted = Acted(
            generation=state.generation,
            outcome=ActionOutcome.VERIFIED,
            observed_bp=state.ordered_bp,
            at=self.now,
        )
        self.tell(ActionInput(now=self.now + 1.0, acted=acted))

    def to_the_end(self, most: int = 600) -> list[Evaluation]:
        for _ in range(most):
            if is_over(self.fold):
                return self.evaluations
            if self.fold.state.in_flight is not None and not self.fold.state.verified_bp:
                self.obey()
            else:
                self.tick()
        raise AssertionError(f"{most} ticks were not its end: {self.evaluations[-1].scores}")

    def _keep(self, folded: Folded) -> None:
        self.fold: RolloutFold = folded.fold
        self.evaluations.append(folded.evaluation)


def spec(
    rollout_id: str = "r-1", rules: Policy | None = None, calibration: Calibration | None = None
) -> RolloutSpec:
    rules = rules or evident()
    return RolloutSpec(
        rollout_id=rollout_id,
        service=rules.service,
        environment=rules.environment,
        stable="v1",
        canary="v2",
        policy=rules,
        sources=(SOURCE,),
        calibration=calibration,
    )


def finished(
    rollout_id: str = "r-1",
    seed: int = 1,
    traffic: Traffic | None = None,
    *,
    rules: Policy | None = None,
    calibration: Calibration | None = None,
    at: float = T0,
) -> list[Evaluation]:
    """The evaluations of a rollout that nobody interfered with."""
    return Told(spec(rollout_id, rules, calibration), traffic or Traffic(), seed, at=at).to_the_end()
