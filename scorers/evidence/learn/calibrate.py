"""Everything that judging learns of a service, from its finished healthy rollouts.

Twenty rollouts teach how new versions start and differ (tier R2). With fewer, stable's replicas are compared
with one another (R1): that shows scatter and the wander of replicas, nothing about fresh ones. The edges, the
rollouts' names and the time of learning are the caller's to fill in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from domain.calibration import Calibration, Tier
from domain.signal import REQUESTS
from scorers.evidence.learn.history import History, Series
from scorers.evidence.learn.laws import law_from_halves, law_of_halves, law_of_rollouts
from scorers.evidence.learn.split import Split, canary_against_stable, half_against_half
from scorers.evidence.learn.threshold import largest_evidence, log_evidence, threshold_of
from scorers.evidence.margins import margin_window
from scorers.evidence.types import Bools

MIN_ROLLOUTS = 20
"""Finished healthy rollouts from which tier R2 learns."""

Gates = Mapping[str, Sequence[str]]
"""By gate, the names of its series."""
Splitter = Callable[[Series], Split]


def calibrate(
    history: History, *, gates: Gates, alpha: float, warmup_s: float, halves_factor: float
) -> Calibration | None:
    """The calibration of the highest tier that the history supports for every series of the gates.

    ``alpha`` and ``warmup_s`` are the policy's; ``halves_factor`` widens the wander of stable's halves to a
    canary's (see ``wander.halves_factor_of``). ``None`` where there are neither twenty rollouts nor halves.
    """
    if _runs(history, gates, canary_against_stable) >= MIN_ROLLOUTS:
        return from_rollouts(history, gates=gates, alpha=alpha, warmup_s=warmup_s)
    if _runs(history, gates, half_against_half) > 0:
        return from_halves(history, gates=gates, alpha=alpha, warmup_s=warmup_s, halves_factor=halves_factor)
    return None


def from_rollouts(history: History, *, gates: Gates, alpha: float, warmup_s: float) -> Calibration:
    """Tier R2: canaries against stable."""
    window_s = margin_window(warmup_s)
    laws = {name: law_of_rollouts(history, name, window_s) for name in _names(gates)}
    halves = {
        name: law_of_halves(history, name) for name in laws if half_against_half(history.series[name]).runs
    }
    log_e = {
        name: log_evidence(
            canary_against_stable(history.series[name]),
            law,
            history,
            window_s=window_s,
            has_learnt_warmup=True,
        )
        for name, law in laws.items()
    }
    largest = largest_evidence(gates, log_e)[_seen(history, gates, canary_against_stable)]
    calibration = _described(history, Tier.R2, gates, alpha, warmup_s)
    return msgspec.structs.replace(
        calibration,
        laws=laws,
        halves=halves,
        threshold=threshold_of(largest, Tier.R2, alpha),
        runs=len(largest),
    )


def from_halves(
    history: History, *, gates: Gates, alpha: float, warmup_s: float, halves_factor: float
) -> Calibration:
    """Tier R1: stable's halves. The threshold is of their own law: they wander less than a canary may."""
    halves = {name: law_of_halves(history, name) for name in _names(gates)}
    log_e = {
        name: log_evidence(
            half_against_half(history.series[name]),
            law,
            history,
            window_s=0.0,
            has_learnt_warmup=False,
        )
        for name, law in halves.items()
    }
    largest = largest_evidence(gates, log_e)[_seen(history, gates, half_against_half)]
    calibration = _described(history, Tier.R1, gates, alpha, warmup_s)
    return msgspec.structs.replace(
        calibration,
        laws={name: law_from_halves(law, halves_factor) for name, law in halves.items()},
        halves=halves,
        threshold=threshold_of(largest, Tier.R1, alpha),
        runs=len(largest),
    )


def _described(history: History, tier: Tier, gates: Gates, alpha: float, warmup_s: float) -> Calibration:
    """What both tiers say of the service alike."""
    return Calibration(
        tier=tier,
        interval_s=history.interval_s,
        warmup_s=warmup_s,
        alpha=alpha,
        rates={name: _stable_rate(history.series[name]) for name in _names(gates)},
        rps=_requests_per_second(history, gates),
    )


def _names(gates: Gates) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in gates.values() for name in names))


def _runs(history: History, gates: Gates, splitter: Splitter) -> int:
    """Runs in which both arms were seen, of the series that has fewest; 0 where one is missing."""
    names = _names(gates)
    if not names or any(name not in history.series for name in names):
        return 0
    return min(splitter(history.series[name]).runs for name in names)


def _seen(history: History, gates: Gates, splitter: Splitter) -> Bools:
    """Whether both arms were seen in any series, by run."""
    splits = [splitter(history.series[name]) for name in _names(gates)]
    return np.asarray(np.stack([split.has_both_arms.any(axis=1) for split in splits]).any(axis=0))


def _stable_rate(series: Series) -> float:
    """Stable's share of events; 0 without exposure."""
    exposure = float(series.n_b.sum())
    return float(series.s_b.sum()) / exposure if exposure > 0.0 else 0.0


def _requests_per_second(history: History, gates: Gates) -> float | None:
    """The median tick's exposure per second, of requests where they are counted, else of the first series."""
    series = history.series[REQUESTS if REQUESTS in history.series else _names(gates)[0]]
    exposure = series.n_c + series.n_b
    exposed = exposure[exposure > 0.0]
    return float(np.median(exposed)) / history.interval_s if len(exposed) else None
