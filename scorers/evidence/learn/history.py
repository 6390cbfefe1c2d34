"""Finished healthy rollouts as arrays: what learning reads."""

from __future__ import annotations

from dataclasses import dataclass

from scorers.evidence.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One kind of event, counted per rollout and disjoint tick; arrays of shape (rollouts, ticks).

    ``s_`` are events and ``n_`` exposures: canary, stable, and the first half of stable's replicas (all zero
    where stable is not split). Ticks without data, and those after a rollout's end, are zero throughout.
    """

    s_c: Floats
    n_c: Floats
    s_b: Floats
    n_b: Floats
    s_h: Floats
    n_h: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Rollouts of one service with the same tick length, one row each, padded to the longest.

    Tick 0 is the first tick in which the canary had traffic.
    """

    interval_s: float
    series: dict[str, Series]
    """By name, see :func:`domain.calibration.series_name`."""
    step: Ints
    """Step index by rollout and tick; -1 where there is no tick."""
    is_warm: Bools
    """Whether the tick lies after its step's warm-up."""
    opens_step: Bools
    """Whether it is the first tick at its step's weight."""
    ends_warmup: Bools
    """Whether it is the first tick after its step's warm-up."""
    steps: int
    """Steps of the rollouts."""
    horizon: int
    """Ticks over which a regression may begin."""

    @property
    def rollouts(self) -> int:
        return int(self.step.shape[0])
