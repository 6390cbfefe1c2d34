"""What every judge on the leaderboard is given: the counts of many simulated rollouts, tick by tick.

A cell is one kind of service at one traffic rate, healthy or regressed. Arrays have the shape (rollouts,
ticks) and hold increments of disjoint ticks, as the product's tick inputs do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TICK_S = 5.0
"""Seconds per tick."""
STEP_TICKS = 60
"""Ticks per step: five minutes."""
WEIGHTS = (0.05, 0.10, 0.25, 0.50, 0.75)
"""The canary's share of the traffic, step by step."""
TICKS = STEP_TICKS * len(WEIGHTS)
SLO = 0.01
"""The error gate's limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests ``n`` and errors ``s`` per rollout and tick: canary, stable, and the first half of stable."""

    canary_n: Floats
    canary_s: Floats
    stable_n: Floats
    stable_s: Floats
    half_n: Floats
    half_s: Floats

    @property
    def rollouts(self) -> int:
        return int(self.canary_n.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of service at one rate."""

    name: str
    rps: int
    live: Counts
    """What happens during the rollouts, shape (rollouts, TICKS)."""
    before: Counts
    """Ten minutes of the stable version just before each rollout (canary columns are 0): (rollouts, 120)."""
    history: Counts
    """Finished healthy rollouts of the same service, from other seeds: (history runs, TICKS)."""
    onset: int | None = None
    """First tick of the regression; ``None`` for a healthy cell."""
    in_slo: bool = False
    """A regression that stays inside the SLO."""


class Rule(Protocol):
    """A judge on the leaderboard."""

    name: str

    def first_rollback(self, cell: Cell) -> Ints:
        """Per rollout, the index of the first tick at whose end it rolls back; -1 for never."""
        ...
