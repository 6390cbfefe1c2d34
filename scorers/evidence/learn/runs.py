"""From the runs of a service to its calibration: which rollouts, which series, which bucket edges.

Healthy rollouts show how a canary may differ from stable (tier R2). Where too few of them were seen with a
signal, stable's halves are compared, and those of any finished rollout serve: what its canary did is left
out (R1).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from domain.calibration import Calibration, Tier, series_name
from domain.records import SignalInput
from domain.signal import Arm, Shape, signal_kind
from scorers.evidence.gather import edges_near
from scorers.evidence.learn.calibrate import MIN_ROLLOUTS, calibrate
from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.run import COUNTS, Run
from scorers.evidence.learn.split import canary_against_stable, half_against_half
from scorers.evidence.learn.wander import halves_factor_of
from scorers.evidence.types import Floats

HALVES_FACTOR = halves_factor_of(canary=1.0, stable=5.0, first=2.5, second=2.5)
"""How much wider a canary wanders than stable's halves: for one with a fifth of stable's replicas, as
telemetry does not say how many an arm has."""

_CANARY, _STABLE = slice(0, 2), slice(2, 4)
"""Rows of a series."""
_OFTEN = 0.5
"""Share of a histogram's exposure at which an edge must have been reported to be compared at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A rollout that has ended, as learning sees it."""

    rollout_id: str
    is_healthy: bool
    run: Run


def learn(finished: Sequence[Finished], *, max_runs: int) -> Calibration | None:
    """What the newest ``max_runs`` rollouts teach; all have one tick length, and the newest comes first.

    Everything is filled in but ``learnt_at``. ``None`` when they teach nothing: fewer than twenty healthy
    ones, and no halves of stable.
    """
    healthy = [each for each in finished if each.is_healthy][:max_runs]
    found = _learn(healthy, Tier.R2) if len(healthy) >= MIN_ROLLOUTS else None
    return found or _learn(finished[:max_runs], Tier.R1)


def _learn(finished: Sequence[Finished], tier: Tier) -> Calibration | None:
    """The calibration of this tier for all signals that support it, or ``None`` when none does."""
    if not finished:
        return None
    newest = finished[0].run
    edges = {signal: of for signal in newest.limits if (of := _edges(signal, finished))}
    every = {signal: _names(signal, edges) for signal in newest.signals}
    history = history_of(finished, {name for names in every.values() for name in names})
    gates = {signal: names for signal, names in every.items() if names and _supports(history, names, tier)}
    found = calibrate(
        history, gates=gates, alpha=newest.alpha, warmup_s=newest.warmup_s, halves_factor=HALVES_FACTOR
    )
    if found is None:
        return None
    kept = {signal: of for signal, of in edges.items() if signal in gates}
    return replace(
        found,
        edges=kept,
        rates=found.rates | _rates_at_limits(newest, kept, finished),
        first_rollout=finished[-1].rollout_id,
        last_rollout=finished[0].rollout_id,
    )


def _names(signal: str, edges: dict[str, tuple[float, ...]]) -> tuple[str, ...]:
    if signal_kind(signal).shape is not Shape.HISTOGRAM:
        return (signal,)
    return tuple(series_name(signal, edge) for edge in edges.get(signal, ()))


def _supports(history: History, names: tuple[str, ...], tier: Tier) -> bool:
    """Whether every series was seen often enough for the tier."""
    series = [history.series.get(name) for name in names]
    if tier is Tier.R2:
        return all(one is not None and canary_against_stable(one).runs >= MIN_ROLLOUTS for one in series)
    return all(one is not None and half_against_half(one).runs > 0 for one in series)


def history_of(finished: Sequence[Finished], names: Collection[str]) -> History:
    """The rollouts side by side, with the named series. Of unhealthy rollouts only stable is shown."""
    newest = finished[0].run
    shape = (len(finished), max(each.run.ticks for each in finished))
    counts = {name: np.zeros((COUNTS, *shape)) for name in names if _is_known(name, finished)}
    step = np.full(shape, -1, dtype=np.int64)
    marks = np.zeros((3, *shape), dtype=np.bool_)
    for row, each in enumerate(finished):
        ticks = slice(0, each.run.ticks)
        step[row, ticks] = each.run.steps_by_tick()
        marks[:, row, ticks] = each.run.marks_by_tick()
        for name in counts.keys() & each.run.series.keys():
            counts[name][:, row, ticks] = each.run.counts(name)
            if not each.is_healthy:
                counts[name][_CANARY, row] = 0.0
    return History(
        interval_s=newest.interval_s,
        series={name: Series(**dict(zip(Series.__slots__, of, strict=True))) for name, of in counts.items()},
        step=step,
        is_warm=marks[0],
        opens_step=marks[1],
        ends_warmup=marks[2],
        steps=newest.steps,
        horizon=newest.horizon,
    )


def _is_known(name: str, finished: Sequence[Finished]) -> bool:
    return any(name in each.run.series for each in finished)


# Histograms.


def _edges(signal: str, finished: Sequence[Finished]) -> tuple[float, ...]:
    """The edges nearest to the quantiles of all of stable's observations; empty when there are none.

    The newest run says which edges the source has; runs from before its buckets changed count no more.
    """
    distribution = _distribution(signal, finished)
    if not distribution:
        return ()
    edges = tuple(distribution)
    shares = tuple(1.0 - slower for slower in distribution.values())
    return edges_near(SignalInput(signal, Arm.STABLE, 0.0, 0.0, 1.0, edges, shares))


def _distribution(signal: str, finished: Sequence[Finished]) -> dict[float, float]:
    """By edge, the share of stable's observations that were slower."""
    known = finished[0].run.edges[signal]
    totals = {edge: _stable(series_name(signal, edge), finished) for edge in known}
    most = max((float(total[1]) for total in totals.values()), default=0.0)
    return {
        edge: float(total[0] / total[1])
        for edge, total in sorted(totals.items())
        if total[1] > 0.0 and total[1] >= _OFTEN * most
    }


def _stable(name: str, finished: Sequence[Finished]) -> Floats:
    """Stable's events and exposure in all runs that know the series."""
    of_runs = [each.run.counts(name)[_STABLE].sum(axis=1) for each in finished if name in each.run.series]
    return np.asarray(np.sum(of_runs, axis=0))


def _rates_at_limits(
    newest: Run, edges: dict[str, tuple[float, ...]], finished: Sequence[Finished]
) -> dict[str, float]:
    """Stable's share of requests that may be slower than each gate's limit: at the next edge below it."""
    rates: dict[str, float] = {}
    for signal in edges:
        distribution = _distribution(signal, finished)
        for limit in newest.limits[signal]:
            below = [edge for edge in distribution if edge <= limit]
            if below:
                rates[series_name(signal, limit)] = distribution[max(below)]
    return rates
