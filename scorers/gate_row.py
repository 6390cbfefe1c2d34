"""What a judge is asked about: one gate of one rollout at one tick."""

from __future__ import annotations

from dataclasses import dataclass

from domain.policy import Gate
from domain.records import SignalInput
from domain.rollout import GateState, JudgingContext, WindowTick


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a rollout stands during a tick; the same for all of its gates."""

    start: float
    end: float
    step: int
    """Index of the step whose weight is in force."""
    is_settled: bool
    """The whole tick lies at that step's weight: no change, and none ordered, within it."""
    step_began: float
    """When the weight was verified in force."""
    warm_at: float
    """Ticks that start earlier belong to the step's warm-up."""


@dataclass(frozen=True, slots=True)
class GateRow:
    """A judge's whole knowledge of a gate. Nothing else may enter a verdict."""

    index: int
    gate: Gate
    state: GateState
    context: JudgingContext
    newest: WindowTick | None
    """What the gate saw of this tick; ``None`` is no data."""
    problem: str
    """Why there is no data, in the source's words."""
    quantile_ms: float | None
    """The canary's quantile in this tick, for people."""
    since: float
    """Where the window may begin: earlier ticks belong to another weight or to the warm-up."""
    moment: Moment
    canary: SignalInput | None = None
    """The gate's own signal of this tick, with its buckets; ``None`` when missing or too old."""
    stable: SignalInput | None = None

    @property
    def end(self) -> float:
        return self.moment.end
