"""Small simulated histories of healthy services: independent, clustered, wandering, cold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scorers.evidence.learn.history import History, Series
from scorers.evidence.types import Floats

INTERVAL_S = 5.0
STEP_TICKS = 60
WEIGHTS = (0.05, 0.10, 0.25, 0.50, 0.75)
TICKS = STEP_TICKS * len(WEIGHTS)
NAME = "error_rate"
GATES = {"errors": (NAME,)}
WARM_TICKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Requests per second and how they fail; effects are log ratios that broadcast to (runs, ticks)."""

    rps: float = 100.0
    share: float = 0.005
    cluster: float = 1.0
    """Mean size of a cluster of errors (geometric)."""
    canary_effect: Floats | float = 0.0
    first_half_effect: Floats | float = 0.0


def history_of(service: Service, seed: int, runs: int = 200) -> History:
    """Rollouts over five steps of five minutes, all with the same timetable."""
    rng = np.random.default_rng(seed)
    shape = (runs, TICKS)
    weights = np.repeat(WEIGHTS, STEP_TICKS) * np.ones(shape)
    canary = np.round(service.rps * INTERVAL_S * weights)
    half = np.round(service.rps * INTERVAL_S * (1 - weights) / 2)
    first = _errors(rng, service, half, service.first_half_effect)
    series = Series(
        s_c=_errors(rng, service, canary, service.canary_effect),
        n_c=canary,
        s_b=first + _errors(rng, service, half, 0.0),
        n_b=2 * half,
        s_h=first,
        n_h=half,
    )
    return timetabled({NAME: series})


def timetabled(series: dict[str, Series]) -> History:
    """The series as rollouts of five steps that all took their steps on time."""
    shape = next(iter(series.values())).n_c.shape
    at = np.arange(shape[1]) % STEP_TICKS * np.ones(shape)
    step = np.arange(shape[1]) // STEP_TICKS * np.ones(shape, dtype=np.int64)
    return History(
        interval_s=INTERVAL_S,
        series=series,
        step=step,
        is_warm=at >= WARM_TICKS,
        opens_step=at == 0,
        ends_warmup=at == WARM_TICKS,
        steps=len(WEIGHTS),
        horizon=TICKS,
    )


def without_canary(history: History) -> History:
    """Only stable was ever seen."""
    return _changed(history, ("s_c", "n_c"))


def without_halves(history: History) -> History:
    """Stable was never split."""
    return _changed(history, ("s_h", "n_h"))


def without_anything(history: History) -> History:
    """Rollouts in which no telemetry arrived."""
    return _changed(history, ("s_c", "n_c", "s_b", "n_b", "s_h", "n_h"))


def first_runs(history: History, runs: int) -> History:
    """The first rollouts alone."""
    cut = {
        name: Series(**{key: getattr(one, key)[:runs] for key in Series.__slots__})
        for name, one in history.series.items()
    }
    marks = {key: getattr(history, key)[:runs] for key in ("step", "is_warm", "opens_step", "ends_warmup")}
    return replace(history, series=cut, **marks)


def wandering(seed: int, runs: int, sd: float, memory_s: float) -> Floats:
    """A stationary AR(1) log ratio per run, shape (runs, TICKS)."""
    rng = np.random.default_rng(seed)
    kept = np.exp(-INTERVAL_S / memory_s)
    out = np.empty((runs, TICKS))
    out[:, 0] = rng.normal(0.0, sd, runs)
    for t in range(1, TICKS):
        out[:, t] = kept * out[:, t - 1] + rng.normal(0.0, sd * np.sqrt(1 - kept**2), runs)
    return out


def of_replicas(seed: int, runs: int, sd: float, ours: int, theirs: int) -> Floats:
    """For good, per run: how replicas with effects of their own make one arm differ, shape (runs, 1)."""
    rng = np.random.default_rng(seed)
    arms = [np.log(np.exp(rng.normal(0.0, sd, (runs, pods))).mean(axis=1)) for pods in (ours, theirs)]
    return np.asarray((arms[0] - arms[1])[:, None], dtype=np.float64)


def cold_start(ratio: float, ticks: int) -> Floats:
    """So many times the errors in the first ticks of the first step."""
    return np.where(np.arange(TICKS) < ticks, np.log(ratio), 0.0)


def _errors(rng: np.random.Generator, service: Service, requests: Floats, effect: Floats | float) -> Floats:
    expected = requests * service.share * np.exp(effect)
    clusters = rng.poisson(expected / service.cluster)
    if service.cluster == 1.0:
        return clusters.astype(np.float64)
    more = rng.negative_binomial(np.maximum(clusters, 1), 1.0 / service.cluster)
    return np.where(clusters > 0, clusters + more, 0).astype(np.float64)


def _changed(history: History, emptied: tuple[str, ...]) -> History:
    def empty(series: Series) -> Series:
        return replace(series, **{key: np.zeros_like(series.n_c) for key in emptied})

    return replace(history, series={name: empty(one) for name, one in history.series.items()})
