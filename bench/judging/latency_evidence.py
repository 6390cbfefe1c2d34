"""Sentra's evidence judge on latencies: the mean over five bucket edges, in its three tiers.

Like :mod:`bench.judging.evidence`, for the real traces: what is counted are the requests slower than each
edge.
"""

from __future__ import annotations

from math import log

import numpy as np

from bench.judging.cells import TICK_S, Floats, Ints
from bench.judging.evidence import ALPHA, HALVES_FACTOR, WARMUP_S, WINDOW_S, first_over, series_run
from bench.judging.nezha_cells import LatencyCell, LatencyCounts
from domain.calibration import Calibration, Law
from scorers.evidence.learn.calibrate import from_halves, from_rollouts
from scorers.evidence.learn.dispersion import dispersion_by_row
from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.split import half_against_half
from scorers.evidence.regime import COLD_LAWS


def _names(counts: LatencyCounts) -> tuple[str, ...]:
    return tuple(f"latency>{edge}" for edge in range(counts.canary_over.shape[2]))


def history_of(counts: LatencyCounts, step_ticks: int) -> History:
    """Divisions of real requests, as the product learns from rollouts."""
    rollouts, ticks = counts.canary_n.shape
    step = np.broadcast_to(np.arange(ticks) // step_ticks, (rollouts, ticks)).astype(np.int64)
    since = np.broadcast_to(np.arange(ticks) % step_ticks, (rollouts, ticks))
    series = {
        name: Series(
            s_c=np.ascontiguousarray(counts.canary_over[:, :, edge]),
            n_c=counts.canary_n,
            s_b=np.ascontiguousarray(counts.stable_over[:, :, edge]),
            n_b=counts.stable_n,
            s_h=np.ascontiguousarray(counts.half_over[:, :, edge]),
            n_h=counts.half_n,
        )
        for edge, name in enumerate(_names(counts))
    }
    return History(
        interval_s=TICK_S,
        series=series,
        step=step,
        is_warm=since * TICK_S >= WINDOW_S,
        opens_step=since == 0,
        ends_warmup=since == round(WINDOW_S / TICK_S),
        steps=max(2, -(-ticks // step_ticks)),
        horizon=ticks,
    )


def averaged(
    laws: dict[str, Law], cell: LatencyCell, bins: dict[str, Floats] | None = None
) -> tuple[Floats, Floats]:
    """log of the mean e-value over edges by rollout and tick, and the ratio that the loudest edge believes
    in."""
    live = history_of(cell.live, cell.step_ticks)
    found = [series_run(live, name, law, None if bins is None else bins[name]) for name, law in laws.items()]
    log_es, ratios = [each[0] for each in found], [each[1] for each in found]
    together = np.logaddexp.reduce(np.stack(log_es), axis=0) - log(len(log_es))
    loudest = np.stack(log_es).argmax(axis=0)[None]
    return together, np.take_along_axis(np.stack(ratios), loudest, 0)[0]


class _LearntLatency:
    """A tier that learns; the last history's calibration is kept."""

    name = "evidence"

    def __init__(self) -> None:
        self._known: tuple[LatencyCounts, Calibration] | None = None

    def learn(self, history: History, gates: dict[str, tuple[str, ...]]) -> Calibration:
        return from_rollouts(history, gates=gates, alpha=ALPHA, warmup_s=WARMUP_S)

    def first_rollback(self, cell: LatencyCell) -> Ints:
        if self._known is None or self._known[0] is not cell.history:
            gates = {"latency": _names(cell.history)}
            self._known = cell.history, self.learn(history_of(cell.history, cell.step_ticks), gates)
        known = self._known[1]
        assert known.threshold is not None, "a history of rollouts has one"
        return first_over(*averaged(known.laws, cell), known.threshold)


class LatencyEvidence(_LearntLatency):
    """Tier R2."""


class LatencyEvidenceStableOnly(_LearntLatency):
    """Tier R1."""

    name = "evidence_stable_only"

    def learn(self, history: History, gates: dict[str, tuple[str, ...]]) -> Calibration:
        return from_halves(history, gates=gates, alpha=ALPHA, warmup_s=WARMUP_S, halves_factor=HALVES_FACTOR)


class LatencyEvidenceCold:
    """Tier R0: the least of three nulls, dispersion from stable's halves in the minutes before."""

    name = "evidence_cold"

    def first_rollback(self, cell: LatencyCell) -> Ints:
        before = history_of(cell.before, cell.step_ticks)
        rows = cell.live.rollouts
        bins = {
            name: np.tile(dispersion_by_row(half_against_half(series)), (rows, 1))
            for name, series in before.series.items()
        }
        found = [averaged(dict.fromkeys(bins, law), cell, bins) for law in COLD_LAWS]
        log_es = np.stack([each[0] for each in found])
        least = log_es.argmin(axis=0)[None]
        ratio = np.take_along_axis(np.stack([each[1] for each in found]), least, 0)[0]
        return first_over(log_es.min(axis=0), ratio, log(1.0 / ALPHA))
