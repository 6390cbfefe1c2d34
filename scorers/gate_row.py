"""What a judge is asked about: one gate of one rollout at one tick."""

from __future__ import annotations

from dataclasses import dataclass

from domain.policy import Gate
from domain.rollout import GateState, JudgingContext, WindowTick


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
    end: float
