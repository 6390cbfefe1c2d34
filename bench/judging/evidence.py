"""Sentra's evidence judge on the leaderboard, in its three tiers.

The rules run the product's own kernels, laws and thresholds over whole rollouts at once; only the loop around
them is the benchmark's. ``evidence`` learnt from 200 finished healthy rollouts of the service (R2),
``evidence_stable_only`` from stable's halves in them (R1), ``evidence_cold`` knows nothing but what the
rollout shows (R0).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log
from typing import ClassVar

import numpy as np

from bench.judging.cells import STEP_TICKS, TICK_S, TICKS, WEIGHTS, Cell, Counts, Floats, Ints
from domain.calibration import Calibration, Law
from scorers.evidence import layout as at
from scorers.evidence.dispersion import dispersions
from scorers.evidence.kernel import WIDTH, advance, begin, trajectories
from scorers.evidence.learn.calibrate import from_halves, from_rollouts
from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.schedule import margins, start_weights
from scorers.evidence.null import Null, null_of
from scorers.evidence.regime import COLD_DISPERSION, COLD_LAWS
from scorers.evidence.weigh import GUARD_NATS

ALPHA = 0.01
MIN_RATIO = 1.25
WARMUP_S = 30.0
WINDOW_S = 40.0
"""Of the warm-up margin: what the product takes for that warm-up."""
HALVES_FACTOR = 1.22
"""Two canary replicas against ten, beside five against five."""
SERIES = "error_rate"
GATES = {SERIES: (SERIES,)}


def history_of(counts: Counts) -> History:
    """Rollouts on the leaderboard's fixed schedule, as the product learns from them."""
    series = Series(
        s_c=counts.canary_s,
        n_c=counts.canary_n,
        s_b=counts.stable_s,
        n_b=counts.stable_n,
        s_h=counts.half_s,
        n_h=counts.half_n,
    )
    shape = counts.canary_n.shape
    step = np.broadcast_to(np.arange(TICKS) // STEP_TICKS, shape)
    since = np.broadcast_to(np.arange(TICKS) % STEP_TICKS, shape)
    return History(
        interval_s=TICK_S,
        series={SERIES: series},
        step=step.astype(np.int64),
        is_warm=since * TICK_S >= WINDOW_S,
        opens_step=since == 0,
        ends_warmup=since == round(WINDOW_S / TICK_S),
        steps=len(WEIGHTS),
        horizon=TICKS,
    )


def first_over(log_e: Floats, ratio: Floats, threshold: float) -> Ints:
    """The first tick with enough evidence of a material regression; -1 for none."""
    hit = (log_e >= threshold) & (ratio >= MIN_RATIO)
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1)


def run(law: Law, counts: Counts) -> tuple[Floats, Floats]:
    """log E and the ratio it believes in, by rollout and tick."""
    return series_run(history_of(counts), SERIES, law)


def series_run(live: History, name: str, law: Law, bins: Floats | None = None) -> tuple[Floats, Floats]:
    """The same for one series; ``bins`` are dispersions by rollout where the law's do not hold."""
    null = null_of(law, TICK_S)
    rho, is_bound = margins(live, law, WINDOW_S)
    weights = start_weights(live, law.has_learnt_warmup)
    log_e, tilt = np.zeros(rho.shape), np.zeros(rho.shape)
    phi = np.tile(np.array(law.dispersion), (len(rho), 1)) if bins is None else bins
    counted = live.series[name]
    data = counted.s_c, counted.n_c, counted.s_b, counted.n_b
    settings = rho[0], phi, weights[0], is_bound[0]
    trajectories(null.start, null.first, null.steps, null.wanders, *data, *settings, log_e, tilt)
    return log_e, rho * np.exp(tilt)


class _Learnt(ABC):
    """A tier that learns. A family's cells come one after the other with one history: what was learnt of
    it is kept for all rules of the class."""

    _known: ClassVar[tuple[Counts, Calibration] | None] = None

    def calibration(self, history: Counts) -> Calibration:
        cls = type(self)
        if cls._known is None or cls._known[0] is not history:
            cls._known = history, self.learn(history)
        return cls._known[1]

    @abstractmethod
    def learn(self, history: Counts) -> Calibration:
        """What the tier makes of finished rollouts."""

    def first_rollback(self, cell: Cell) -> Ints:
        known = self.calibration(cell.history)
        assert known.threshold is not None, "a history of rollouts has one"
        log_e, ratio = run(known.laws[SERIES], cell.live)
        return first_over(guarded(log_e, known.halves[SERIES], cell), ratio, known.threshold)


def guarded(log_e: Floats, law: Law, cell: Cell) -> Floats:
    """The live guard: once stable's halves differ beyond ``law``, no more evidence than tier R0 has."""
    live = cell.live
    rest = replace(live, half_n=live.stable_n - live.half_n, half_s=live.stable_s - live.half_s)
    ways = [
        run(
            law,
            replace(
                live, canary_n=one.half_n, canary_s=one.half_s, stable_n=other.half_n, stable_s=other.half_s
            ),
        )
        for one, other in ((live, rest), (rest, live))
    ]
    differ = np.logaddexp(ways[0][0], ways[1][0]) - log(2.0)
    is_off = np.logical_or.accumulate(differ >= GUARD_NATS, axis=1)
    rows = np.flatnonzero(is_off.any(axis=1))
    if len(rows):
        chosen = replace(cell, live=_rows(live, rows), before=_rows(cell.before, rows))
        least = np.minimum(log_e[rows], cold(chosen, sees_before=False)[0])
        log_e[rows] = np.where(is_off[rows], least, log_e[rows])
    return log_e


def _rows(counts: Counts, rows: Ints) -> Counts:
    return Counts(**{name: getattr(counts, name)[rows] for name in Counts.__slots__})


class Evidence(_Learnt):
    """Tier R2."""

    name = "evidence"

    def learn(self, history: Counts) -> Calibration:
        return from_rollouts(history_of(history), gates=GATES, alpha=ALPHA, warmup_s=WARMUP_S)


class EvidenceStableOnly(_Learnt):
    """Tier R1."""

    name = "evidence_stable_only"

    def learn(self, history: Counts) -> Calibration:
        return from_halves(
            history_of(history), gates=GATES, alpha=ALPHA, warmup_s=WARMUP_S, halves_factor=HALVES_FACTOR
        )


@dataclass(frozen=True, slots=True)
class EvidenceCold:
    """Tier R0: the least of three nulls, dispersion as told by stable's halves so far."""

    name: str = "evidence_cold"
    sees_before: bool = True
    """Stable's ten minutes before the rollout are known."""

    def first_rollback(self, cell: Cell) -> Ints:
        return first_over(*cold(cell, sees_before=self.sees_before), log(1.0 / ALPHA))


@lru_cache(maxsize=1)
def _cold_nulls() -> tuple[Null, ...]:
    return tuple(null_of(law, TICK_S) for law in COLD_LAWS)


def cold(cell: Cell, *, sees_before: bool) -> tuple[Floats, Floats]:
    """log E and believed ratio of tier R0, by rollout and tick."""
    live = history_of(cell.live)
    nulls = _cold_nulls()
    offsets = np.cumsum([at.SERIES_MARKS, *(null.points * WIDTH for null in nulls)])
    memory = np.zeros((cell.live.rollouts, int(offsets[-1])))
    for row in memory:
        for null, offset in zip(nulls, offsets, strict=False):
            begin(row, int(offset), null.start)
    phi = np.ones(len(memory))
    if sees_before:
        for tick in range(cell.before.canary_n.shape[1]):
            _dispersion(memory, cell.before, tick, phi)
    rho, is_bound = margins(live, COLD_LAWS[0], WINDOW_S)
    weights = start_weights(live, has_learnt_warmup=False)
    log_e, ratio = np.zeros(rho.shape), np.zeros(rho.shape)
    even = np.ones(len(memory))
    for tick in range(TICKS):
        _dispersion(memory, cell.live, tick, phi)
        results = []
        for null, offset in zip(nulls, offsets, strict=False):
            nats, tilt = np.zeros(len(memory)), np.zeros(len(memory))
            advance(
                memory,
                int(offset),
                null.half,
                null.first,
                null.steps,
                np.full(len(memory), null.wanders and tick > 0),
                _counts(cell.live, tick),
                rho[:, tick].copy(),
                phi,
                weights[0, tick] * even,
                weights[0, : tick + 1].sum() * even,
                is_bound[:, tick].copy(),
                even > 0.0,
                nats,
                tilt,
            )
            results.append((nats, tilt))
        nats = np.stack([each[0] for each in results])
        least = nats.argmin(axis=0)[None]
        log_e[:, tick] = np.take_along_axis(nats, least, 0)[0]
        ratio[:, tick] = rho[:, tick] * np.exp(
            np.take_along_axis(np.stack([each[1] for each in results]), least, 0)[0]
        )
    return log_e, ratio


def _counts(counts: Counts, tick: int) -> Floats:
    columns = (counts.canary_s, counts.canary_n, counts.stable_s, counts.stable_n)
    return np.stack([column[:, tick] for column in columns], axis=1)


def _dispersion(memory: Floats, counts: Counts, tick: int, out: Floats) -> None:
    rest_s, rest_n = counts.stable_s - counts.half_s, counts.stable_n - counts.half_n
    columns = (counts.half_s, counts.half_n, rest_s, rest_n)
    halves = np.stack([column[:, tick] for column in columns], axis=1)
    told = np.ones(len(memory), dtype=np.bool_)
    bins = np.ones((len(memory), 9))
    dispersions(memory, 0, _counts(counts, tick), halves, bins, told, COLD_DISPERSION, out)
