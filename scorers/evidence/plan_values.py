"""What a plan says: of a policy, its steps, and their gates. Making one is ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from domain.calibration import Calibration, Tier
from domain.errors import PolicyError
from domain.policy import Gate, Policy

MOST_TICKS = 10_000
"""Ticks of a step in which regressions are looked for."""


class Origin(Enum):
    """Where a healthy rate comes from."""

    HISTORY = "history"
    GIVEN = "given"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Known:
    """What a plan is made from, besides the policy."""

    rps: float
    """Requests per second of both arms together."""
    calibration: Calibration | None = None
    healthy: Mapping[str, float] | None = None
    """Shares of bad events that the user expects, by signal; under ``""`` for all others."""

    def __post_init__(self) -> None:
        if not 0.0 < self.rps < 1e9:
            raise PolicyError(f"requests per second must lie above 0 and below 1e9, got {self.rps:g}")
        for rate in (self.healthy or {}).values():
            if not 0.0 <= rate < 1.0:
                raise PolicyError(f"a healthy rate must lie in 0 %..100 %, got {rate * 100:g} %")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the weight in force until half, and nine tenths, are through; ``None`` is never."""

    typical_s: float | None
    slow_s: float | None
    is_rough: bool = False
    """Beyond what was computed: by rule of thumb."""


@dataclass(frozen=True, slots=True)
class GatePlan:
    """One gate in one step."""

    gate: Gate
    rate: float
    """Share of bad events that a healthy canary is expected to show."""
    origin: Origin
    claim: float
    """What passing proves, as a multiple of the limit."""
    ceiling: float
    """The same as a rate."""
    passes: Times
    finds: Mapping[float, Times]
    """By ratio, until the evidence is severe; ``None`` in them: not within :func:`sought_s`."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step."""

    step: int
    """1-based."""
    weight_bp: int
    canary_rps: float
    gates: tuple[GatePlan, ...]
    """As in the policy; none at a weight of 0, whose traffic no weight tells."""
    passes: Times
    """All required gates together."""
    is_decidable: bool

    @property
    def slowest(self) -> GatePlan:
        """The required gate that takes longest."""
        required = [each for each in self.gates if each.gate.required]
        return max(required, key=lambda each: _or_ever(each.passes.slow_s))


@dataclass(frozen=True, slots=True)
class Plan:
    """A policy against its traffic."""

    policy: Policy
    known: Known
    tier: Tier
    steps: tuple[StepPlan, ...]

    @property
    def undecidable(self) -> tuple[StepPlan, ...]:
        """Steps that will probably hold."""
        return tuple(step for step in self.steps if not step.is_decidable)


def sought_s(policy: Policy) -> float:
    """For how many seconds a step's plan looks for regressions: all of it, or as many as it can."""
    return min(policy.max_step_time_s, MOST_TICKS * policy.interval_s)


def _or_ever(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds
