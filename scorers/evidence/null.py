"""What healthy is: the law by which a good version's log ratio to stable wanders, on the lattice.

``delta_t`` is a stationary AR(1) process with standard deviation ``tau`` and correlation time
``memory_s``; for ever correlated it is one unknown effect of the version. ``tau`` 0 is the plain null: the
same rate exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, sqrt

import numpy as np

from domain.calibration import Law
from scorers.evidence.effects import REACH, SPACING
from scorers.evidence.types import Floats, Ints

WIDE = 3.2
"""Standard deviations of the wander that the lattice covers."""
NARROWEST = 0.03
"""Standard deviation below which a step of the wander is narrower than the lattice can show."""
LARGEST_TAU = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Null:
    """A law on the lattice. ``points`` are ``2 * half + 1``; arrays are read-only by agreement."""

    half: int
    start: Floats
    """Belief before the first tick, by point."""
    first: Ints
    """By point, the first point that a step from it can reach."""
    steps: Floats
    """``steps[i, b]``: chance of going from point i to point ``first[i] + b``."""
    wanders: bool

    @property
    def points(self) -> int:
        return 2 * self.half + 1


def null_of(law: Law, tick_s: float) -> Null:
    """The lattice of ``law`` for ticks of this length."""
    kept = 1.0 if law.memory_s is None else exp(-tick_s / law.memory_s)
    return null_with(law.tau, kept)


@lru_cache(maxsize=256)
def null_with(tau: float, kept: float) -> Null:
    """The lattice for a standard deviation ``tau`` (nats) and a correlation ``kept`` from tick to tick
    (0..1)."""
    if not 0.0 <= tau <= LARGEST_TAU or not 0.0 <= kept <= 1.0:
        raise ValueError(f"tau must lie in 0..{LARGEST_TAU} and kept in 0..1, got {tau} and {kept}")
    half = min(REACH, ceil(round(WIDE * tau / SPACING, 9)))
    points = np.arange(-half, half + 1)
    wanders = half > 0 and kept < 1.0
    start = np.exp(-((points * SPACING) ** 2) / (2 * tau**2)) if half else np.ones(1)
    first, steps = (
        _transitions(points, tau, kept) if wanders else (np.zeros(len(points), np.int64), np.zeros((1, 1)))
    )
    return Null(half, start / start.sum(), first, steps, wanders)


def _transitions(points: Ints, tau: float, kept: float) -> tuple[Ints, Floats]:
    """A band of Gaussian steps around where each point is drawn to, each row summing to one."""
    true_s = tau * sqrt(1.0 - kept**2)
    s = max(true_s, NARROWEST)
    reach = ceil(round(WIDE * true_s / SPACING, 9)) + 1
    width = min(2 * reach + 1, len(points))
    half = int(points[-1])
    centres = np.rint(kept * points).astype(np.int64)
    first = np.clip(centres - reach + half, 0, len(points) - width)
    targets = (first[:, None] + np.arange(width)[None, :] - half) * SPACING
    steps = np.exp(-((targets - kept * points[:, None] * SPACING) ** 2) / (2 * s**2))
    return first, steps / steps.sum(axis=1, keepdims=True)
