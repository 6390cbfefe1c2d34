"""Two arms' counts side by side: the canary against stable, or one half of stable against the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scorers.evidence.learn.history import Series
from scorers.evidence.types import Bools, Floats


@dataclass(frozen=True, slots=True)
class Split:
    """Events ``s`` and exposures ``n`` of a first and a second arm; arrays of shape (runs, ticks)."""

    s_1: Floats
    n_1: Floats
    s_2: Floats
    n_2: Floats

    @property
    def events(self) -> Floats:
        """Events of both arms in ticks where both had exposure, else 0: such ticks say nothing."""
        return np.where(self.has_both_arms, self.s_1 + self.s_2, 0.0)

    @property
    def has_both_arms(self) -> Bools:
        """Whether both arms had exposure in the tick."""
        return (self.n_1 > 0.0) & (self.n_2 > 0.0)

    @property
    def share(self) -> Floats:
        """The first arm's share of the exposure; one half where there is none."""
        both = self.n_1 + self.n_2
        return np.where(both > 0.0, self.n_1 / np.where(both > 0.0, both, 1.0), 0.5)

    @property
    def runs(self) -> int:
        """Rows in which both arms ever had exposure together."""
        return int(self.has_both_arms.any(axis=1).sum())


def canary_against_stable(series: Series) -> Split:
    """What a rollout is judged by."""
    return _split(series.s_c, series.n_c, series.s_b, series.n_b)


def half_against_half(series: Series) -> Split:
    """The same version twice: whatever differs here is not a regression.

    Sources that extrapolate may report a half larger than the whole; the other half is then empty.
    """
    rest_s = np.maximum(series.s_b - series.s_h, 0.0)
    rest_n = np.maximum(series.n_b - series.n_h, 0.0)
    return _split(series.s_h, series.n_h, rest_s, rest_n)


def _split(s_1: Floats, n_1: Floats, s_2: Floats, n_2: Floats) -> Split:
    # One layout and type for the compiled loops, whatever the history was read from.
    return Split(*(np.ascontiguousarray(counts, dtype=np.float64) for counts in (s_1, n_1, s_2, n_2)))
