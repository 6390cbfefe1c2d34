"""The named kinds of services and regressions that judges are scored on, and their cells.

Everything is drawn from (seed, kind, rate): the same arguments give the same cell on every machine with the
same numpy. A kind's history comes from a stream of its own, and a regression's history is its healthy
counterpart's, so that what a judge learnt for a family of cells serves all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.judging.arms import (
    ColdStart,
    Leak,
    Pods,
    RandomColdStart,
    Regression,
    TelegraphArms,
    TwoPointPods,
    WanderingPods,
)
from bench.judging.cells import SLO, TICK_S, TICKS, Cell, Counts, Floats
from bench.judging.services import (
    BEFORE_TICKS,
    Drawn,
    Geometric,
    Pareto,
    Service,
    SharedBursts,
    SharedDrift,
    Span,
    planned_weights,
    rollouts_of,
    simulate,
)

RATES = (10, 100, 1000)
"""Requests per second of the service, all arms together."""
HISTORY = 200
"""Finished healthy rollouts that a judge may learn from."""
TUNING_SEEDS = (101,)
"""Seeds that priors and thresholds may be chosen on; never reported."""
REPORTING_SEEDS = (202, 303, 404)
"""Seeds of published figures; nothing was or may be tuned on them. Fixed in advance, not chosen by result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A healthy service, or one with a regression."""

    name: str
    service: Service
    regression: Regression | None = None
    like: str = ""
    """Of a regression: the healthy kind it would be without it."""

    @property
    def family(self) -> str:
        return self.like or self.name

    @property
    def is_in_slo(self) -> bool:
        """Whether the regressed rate stays below the SLO."""
        return self.regression is not None and self.service.base * self.regression.ratio < SLO


def _worse(name: str, like: str, ratio: float, onset: int = 0) -> Kind:
    return Kind(name=name, service=_BY_NAME[like].service, regression=Regression(ratio, onset), like=like)


HEALTHY = (
    Kind(name="iid_0.1", service=Service(base=0.001)),
    Kind(name="iid_0.5", service=Service()),
    Kind(name="iid_0.8", service=Service(base=0.008)),
    Kind(name="bursts", service=Service(effects=(SharedBursts(),))),
    Kind(name="drift", service=Service(base=0.003, effects=(SharedDrift(),))),
    Kind(name="clusters", service=Service(bunching=Geometric(4.0))),
    Kind(name="pods", service=Service(effects=(Pods(),))),
    Kind(name="ar1", service=Service(effects=(WanderingPods(),))),
    Kind(name="cold_first_step", service=Service(effects=(ColdStart(),))),
    Kind(name="cold_every_step", service=Service(effects=(ColdStart(every_step=True),))),
)
"""Healthy rollouts: every roll-back is false."""

_BY_NAME = {kind.name: kind for kind in HEALTHY}

REGRESSIONS = (
    _worse("x2", "iid_0.5", 2.0),
    _worse("x4", "iid_0.5", 4.0),
    _worse("x10", "iid_0.5", 10.0),
    _worse("x40", "iid_0.5", 40.0),
    _worse("0.1_to_0.4", "iid_0.1", 4.0),
    _worse("0.1_to_2", "iid_0.1", 20.0),
    _worse("x4_bursts", "bursts", 4.0),
    _worse("x4_clusters", "clusters", 4.0),
    _worse("x4_pods", "pods", 4.0),
    _worse("x4_ar1", "ar1", 4.0),
    _worse("x4_late", "iid_0.5", 4.0, onset=round(1000 / TICK_S)),
)
"""Regressed canaries, from the first tick except the late one."""

STRESS = (
    Kind(name="two_point_pods", service=Service(effects=(TwoPointPods(),))),
    Kind(name="telegraph_arm", service=Service(effects=(TelegraphArms(),))),
    Kind(name="pareto_clusters", service=Service(bunching=Pareto())),
    Kind(name="random_cold_start", service=Service(effects=(RandomColdStart(),))),
    Kind(name="leak_ar1", service=Service(effects=(Leak(), WanderingPods(ratio_sd=0.2)))),
)
"""Healthy rollouts whose effects have another form than the models that judges fit."""

KINDS = {kind.name: kind for kind in (*HEALTHY, *REGRESSIONS, *STRESS)}


def stream(role: str, name: str, rps: int, seed: int) -> np.random.Generator:
    """The generator of one part of one cell; parts, kinds, rates and seeds are independent streams."""
    key = zlib.crc32(f"{role}:{name}".encode())
    return np.random.default_rng(np.random.SeedSequence([seed, key, rps]))


def history_of(kind: Kind, rps: int, seed: int, runs: int = HISTORY) -> Counts:
    """Finished healthy rollouts of the kind (of its healthy counterpart), shape (runs, TICKS)."""
    rng = stream("history", kind.family, rps, seed)
    return simulate(kind.service, rng, Span(rollouts=runs), rps).live


def cell_of(
    kind: Kind, rps: int, seed: int, rollouts: int, history: Counts | None = None, runs: int = HISTORY
) -> Cell:
    """One cell; ``history`` is drawn when it is not given."""
    drawn = _live(kind, rps, seed, rollouts)
    return Cell(
        name=kind.name,
        rps=rps,
        live=drawn.live,
        before=drawn.before,
        history=history_of(kind, rps, seed, runs) if history is None else history,
        onset=kind.regression.onset if kind.regression else None,
        in_slo=kind.is_in_slo,
    )


def _live(kind: Kind, rps: int, seed: int, rollouts: int, split_error: float = 1.0) -> Drawn:
    rng = stream("live", kind.name, rps, seed)
    span = Span(rollouts=rollouts, before=BEFORE_TICKS)
    changes = (kind.regression,) if kind.regression else ()
    return simulate(kind.service, rng, span, rps, changes, split_error)


def cell_named(name: str, rps: int, seed: int, rollouts: int, history: int = HISTORY) -> Cell:
    """One cell by its kind's name, healthy, regressed or stress.

    Raises
    ------
    ValueError
        No kind has that name.
    """
    if name not in KINDS:
        raise ValueError(f"no scenario is named {name!r}; known: {', '.join(KINDS)}")
    return cell_of(KINDS[name], rps, seed, rollouts, runs=history)


def cells_of(
    kinds: Sequence[Kind], seed: int, rollouts: int, history: int = HISTORY, rates: Sequence[int] = RATES
) -> Iterator[Cell]:
    """The cells of all kinds at all rates, simulated one at a time as they are asked for."""
    for rps in rates:
        for kind in kinds:
            yield cell_of(kind, rps, seed, rollouts, runs=history)


def healthy_cells(
    seed: int, rollouts: int, history: int = HISTORY, rates: Sequence[int] = RATES
) -> Iterator[Cell]:
    """The ten healthy kinds at each rate."""
    return cells_of(HEALTHY, seed, rollouts, history, rates)


def regression_cells(
    seed: int, rollouts: int, history: int = HISTORY, rates: Sequence[int] = RATES
) -> Iterator[Cell]:
    """The eleven regressions at each rate."""
    return cells_of(REGRESSIONS, seed, rollouts, history, rates)


def stress_cells(
    seed: int, rollouts: int, history: int = HISTORY, rates: Sequence[int] = RATES
) -> Iterator[Cell]:
    """The five out-of-family healthy kinds at each rate, with histories of their own kind."""
    return cells_of(STRESS, seed, rollouts, history, rates)


def wrong_history_cells(
    seed: int, rollouts: int, history: int = HISTORY, rates: Sequence[int] = RATES
) -> Iterator[Cell]:
    """The healthy kinds, but everything learnt was learnt when the service was plain (``iid_0.5``)."""
    for rps in rates:
        plain = history_of(_BY_NAME["iid_0.5"], rps, seed, history)
        for kind in HEALTHY:
            yield cell_of(kind, rps, seed, rollouts, history=plain)


def first_rollouts(cell: Cell, rollouts: int) -> Cell:
    """The cell with its first rollouts only, for judges that are too slow for all."""
    chosen = slice(0, rollouts)
    return replace(cell, live=rollouts_of(cell.live, chosen), before=rollouts_of(cell.before, chosen))


def with_overlapping_windows(cell: Cell, window_ticks: int = 12) -> Cell:
    """The mistake of feeding a sliding window's totals at every tick: each request is counted up to 12 times.

    A negative fixture: a judge of disjoint ticks must break its promise on it.
    """
    live = cell.live
    return replace(
        cell,
        live=Counts(
            canary_n=_windows(live.canary_n, window_ticks),
            canary_s=_windows(live.canary_s, window_ticks),
            stable_n=_windows(live.stable_n, window_ticks),
            stable_s=_windows(live.stable_s, window_ticks),
            half_n=_windows(live.half_n, window_ticks),
            half_s=_windows(live.half_s, window_ticks),
        ),
    )


def _windows(increments: Floats, window_ticks: int) -> Floats:
    sums = np.cumsum(increments, axis=1)
    sums[:, window_ticks:] -= sums[:, :-window_ticks].copy()
    return sums


def with_nominal_exposures(
    name: str, rps: int, seed: int, rollouts: int, split_error: float = 1.2, history: int = HISTORY
) -> Cell:
    """The mistake of taking the planned weight for the exposure while the true split is off.

    A negative fixture: errors come from a canary share of ``split_error`` times the plan, requests are
    reported as the plan's share of the total. The history has measured exposures.
    """
    kind = KINDS[name]
    live = _live(kind, rps, seed, rollouts, split_error).live
    total = live.canary_n + live.stable_n
    weights = planned_weights(TICKS)[None, :]
    claimed = replace(
        live,
        canary_n=total * weights,
        stable_n=total * (1.0 - weights),
        half_n=total * (1.0 - weights) / 2,
    )
    return replace(cell_named(name, rps, seed, rollouts, history), live=claimed)
