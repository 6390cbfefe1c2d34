"""The grids: how much worse, or better, a canary may be, and when that may have begun.

Everything relative lives on one lattice of log ratios with a spacing of 0.1 nats, so that a healthy wander
and a regression meet at lattice points and each point's likelihood is computed once.
"""

from __future__ import annotations

import numpy as np

from scorers.evidence.types import Floats, Ints

SPACING = 0.1
"""Distance of the lattice's points, in nats."""

WORSE: Ints = np.array((2, 3, 5, 7, 9, 12, 16, 21, 25, 30, 37, 46), dtype=np.int64)
"""Regressions argued for, in lattice points: ratios from 1.22 to 99."""

_BELIEF = np.array((1, 1, 1.5, 1.5, 2, 2, 1.5, 1, 0.7, 0.5, 0.3, 0.2))
WORSE_PRIOR: Floats = _BELIEF / _BELIEF.sum()
"""How likely each is held to be: doublings to fourfold errors are what one meets."""

REACH = 60
"""Lattice points on either side of zero that a healthy wander may use."""
RATIOS: Floats = np.exp(SPACING * np.arange(-REACH, REACH + int(WORSE[-1]) + 1))
"""e^x for every lattice point; index 0 is x = -REACH * SPACING."""

OVER_LIMIT: Floats = np.array((1.2, 1.4, 1.7, 2, 2.5, 3.5, 5, 8, 12, 20, 40, 100), dtype=np.float64)
"""Multiples of the limit argued for when failing it."""
UNDER_LIMIT: Floats = np.array((0.85, 0.7, 0.5, 0.35, 0.2, 0.1, 0.03, 0.003), dtype=np.float64)
"""Fractions of the claim argued for when passing it."""

RATIO_GRID: Floats = np.exp(np.arange(-18, 31) / 6.0)
"""Rate ratios between which the confidence bounds lie: 0.05 to 148."""

# When a regression begins. A prior over the rollout's ticks; whatever does not begin within the horizon never
# begins, so it need not be exact.

AT_ONCE = 0.7
"""With the first tick, where the margins of the warm-up are learnt."""
AT_STEPS = 0.1
"""With one of the later steps, all together."""
ANY_TIME = 0.2
"""At any tick of the horizon, all together."""

AT_ONCE_UNLEARNT = 0.15
"""With the first tick, where they are not: a margin of five hides all but the worst until the warm-up
ends."""
WHEN_WARM_UNLEARNT = 0.5
"""With the first tick after the first warm-up."""
AT_STEPS_UNLEARNT = 0.12
"""With a later step, and as much again with the end of a later step's warm-up."""
