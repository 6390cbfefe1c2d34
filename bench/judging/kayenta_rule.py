"""Kayenta on the leaderboard: both arms' error percentages, judged again each minute on all points so far.

One metric, so its label decides: High (or no data) is a score of 0, and an interim score at or below the
marginal threshold ends the canary. A point is the error percentage of ``point_s`` seconds; a span without
requests is NaN and removed. In per cent, because the root finder's tolerance is absolute: as plain ratios,
its 1e-4 would be a tenth of the differences to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.judging.cells import Cell, Floats, Ints
from bench.judging.intervals import NEVER, gathered, ratios, ticks_in
from bench.judging.kayenta import Direction, Effect, Label, Missing, Settings, classify
from bench.judging.kayenta_rows import is_high

SETTINGS = Settings(direction=Direction.INCREASE)
"""The product's, looking for increases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KayentaRule:
    """Re-judged each ``interval_s`` on the points since the rollout began (``lookback_s``: only so long)."""

    name: str
    interval_s: float = 60.0
    point_s: float = 5.0
    lookback_s: float | None = None
    settings: Settings = SETTINGS
    scale: float = 100.0
    """Of the error ratio: 100 for per cent."""
    baseline_seed: int | None = None
    """``None``: the control is all of stable. With a seed: a baseline of at most the canary's size, as
    Kayenta's guide asks for, its requests drawn from stable's. 5 s points of unequal size differ in shape as
    well as in rate, and the test sees both."""
    rollouts: int | None = None
    """Judge only so many of the cell's rollouts; the answer is then only so long."""

    def __post_init__(self) -> None:
        asked = self.settings
        plain = asked.direction is Direction.INCREASE and asked.effect is Effect.MEAN_RATIO
        if not plain or asked.missing is not Missing.REMOVE or asked.outlier_factor is not None:
            raise ValueError("by rows only increases of mean ratios are judged, NaN removed, outliers kept")

    def first_rollback(self, cell: Cell) -> Ints:
        control, experiment = self._points(cell)
        ticks, per_point = ticks_in(self.interval_s), ticks_in(self.point_s)
        per_judgement = ticks // per_point
        first = np.full(len(control), NEVER, np.int64)
        for end in range(per_judgement, control.shape[1] + 1, per_judgement):
            going = np.flatnonzero(first == NEVER)
            since = self._since(end)
            bad = ends_canary(control[going, since:end], experiment[going, since:end], self.settings)
            first[going[bad]] = end * per_point - 1
        return first

    def _points(self, cell: Cell) -> tuple[Floats, Floats]:
        """Control and experiment, (rollouts, points)."""
        live, ticks, some = cell.live, ticks_in(self.point_s), slice(self.rollouts)
        n, s = live.stable_n[some], live.stable_s[some]
        if self.baseline_seed is not None:
            n, s = _drawn(n, s, live.canary_n[some], np.random.default_rng(self.baseline_seed))
        control = ratios(gathered(s, ticks), gathered(n, ticks))
        experiment = ratios(gathered(live.canary_s[some], ticks), gathered(live.canary_n[some], ticks))
        return control * self.scale, experiment * self.scale

    def _since(self, end: int) -> int:
        if self.lookback_s is None:
            return 0
        return max(0, end - ticks_in(self.lookback_s) // ticks_in(self.point_s))


def _drawn(n: Floats, s: Floats, size: Floats, random: np.random.Generator) -> tuple[Floats, Floats]:
    """At most ``size`` of each tick's ``n`` requests, drawn without replacement, and their errors."""
    taken = np.minimum(n, size)
    good, bad, wanted = (counts.astype(np.int64) for counts in (n - s, s, taken))
    return taken, random.hypergeometric(bad, good, wanted).astype(np.float64)


def ends_canary(control: Floats, experiment: Floats, settings: Settings) -> NDArray[np.bool_]:
    """Rows that ``kayenta.judge`` would call High or Nodata, with ``direction: increase`` and mean ratios."""
    bad = _is_empty(control) | _is_empty(experiment)
    open_ = np.flatnonzero(~bad)
    open_ = open_[_may_be_high(control[open_], experiment[open_], settings)]
    constant = _is_constant(control[open_]) & _is_constant(experiment[open_])
    for row in open_[constant]:
        bad[row] = _label(control[row], experiment[row], settings) is Label.HIGH
    varied = open_[~constant]
    bad[varied] = is_high(
        experiment[varied],
        control[varied],
        confidence=settings.confidence,
        tolerance=settings.tolerance,
        root_tolerance=settings.root_tolerance,
    )
    return bad


def _label(control: Floats, experiment: Floats, settings: Settings) -> Label:
    return classify(control[~np.isnan(control)], experiment[~np.isnan(experiment)], settings).label


def _may_be_high(control: Floats, experiment: Floats, settings: Settings) -> NDArray[np.bool_]:
    """The effect is large enough (or cannot be computed), and the samples are not the same points."""
    below, above = np.nanmean(control, axis=1), np.nanmean(experiment, axis=1)
    countable = (below != 0) & (above != 0)
    effect = np.divide(above, below, out=np.full(below.shape, np.inf), where=countable)
    ordered = zip(np.sort(control, axis=1), np.sort(experiment, axis=1), strict=True)
    identical = np.array([np.array_equal(x, y, equal_nan=True) for x, y in ordered], bool)
    return np.asarray((effect >= settings.effects[1]) & ~identical)


def _is_empty(values: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.isnan(values).all(axis=1))


def _is_constant(values: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.nanmin(values, axis=1) == np.nanmax(values, axis=1))
