"""From what a gate saw of a tick to the numbers that are counted; here the input contract is enforced.

Evidence comes from measured exposures over disjoint ticks that lie at one weight as a whole, with both arms
present. A tick that breaks any of this adds nothing; where data should have been whole, it counts as damaged.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from domain.calibration import series_name
from domain.records import SignalInput
from domain.rollout import GateState
from domain.signal import Quality, Shape
from domain.units import FULL_BP
from scorers.evidence import layout as at
from scorers.evidence import observe as col
from scorers.evidence.claims import ladder
from scorers.evidence.margins import margin_at, margin_window
from scorers.evidence.prior import horizon_of
from scorers.evidence.regime import Regime
from scorers.evidence.types import Floats
from scorers.gate_row import GateRow

UNWHOLE = int(Quality.FIRST | Quality.RESET | Quality.PARTIAL)
"""Increments with something lost."""
REFUSED = int(Quality.FIRST | Quality.ASSUMED)
"""Increments that are no evidence: nothing to subtract from, or an exposure that nobody measured."""
EDGE_SAMPLES = 50.0
"""Stable's observations in a tick before bucket edges are chosen from it."""
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)

_NOBODY = (0.0, 0.0, 0.0, 0.0)
_UNSPLIT = (0.0, -1.0, 0.0, 0.0)


def expects_stable(row: GateRow) -> bool:
    """Whether stable should have traffic at this step's weight."""
    return row.context.policy.weights_bp[row.moment.step] < FULL_BP


def is_comparable(row: GateRow) -> bool:
    """Whether every arm that should have traffic brought measured numbers."""
    arms = (row.canary, row.stable) if expects_stable(row) else (row.canary,)
    return row.newest is not None and all(arm is not None and not arm.quality & REFUSED for arm in arms)


def is_damaged(row: GateRow) -> bool:
    """Whether the tick is missing something that it should have."""
    arms = (row.canary, row.stable) if expects_stable(row) else (row.canary,)
    return row.newest is None or any(arm is None or arm.quality & (UNWHOLE | REFUSED) for arm in arms)


def given_of(row: GateRow, regime: Regime) -> tuple[list[float], float, bool]:
    """The tick in columns (see ``observe``), with its margin and whether that is only a bound."""
    moment, gate, policy = row.moment, row.gate, row.context.policy
    # An increment that makes up for missed readings reaches back beyond the tick, perhaps to another weight.
    start = moment.start if row.newest is None else min(moment.start, row.newest.start)
    since = start - moment.step_began
    margin, is_bound = margin_at(regime.law, moment.step, since, margin_window(policy.warmup_s))
    in_margin = since < margin_window(policy.warmup_s)
    newest = row.newest if row.newest is not None and is_comparable(row) else None
    given = [0.0] * col.GIVEN
    given[col.STEP_INDEX] = moment.step
    given[col.STEPS] = len(policy.weights_bp)
    given[col.HORIZON] = horizon_of(policy)
    given[col.IS_SETTLED] = moment.is_settled and start >= moment.step_began
    given[col.IS_WARM] = start >= moment.warm_at
    given[col.IN_MARGIN] = in_margin
    given[col.HAS_LEARNT] = regime.law.has_learnt_warmup
    given[col.IS_DAMAGED] = is_damaged(row)
    given[col.LIMIT] = gate.limit_share
    given[col.IS_COUNT] = gate.kind.shape is Shape.COUNT
    given[col.MOST_CLAIM] = ladder(policy)[moment.step]
    given[col.TIME_LEFT] = max(0.0, policy.min_step_time_s - policy.warmup_s)
    given[col.SHARE] = policy.weights_bp[moment.step] / FULL_BP
    given[col.EXPECTED] = _expected(row)
    given[col.BETA] = policy.beta
    given[col.DISPERSION] = regime.law.clustering
    given[col.SPLIT_DISPERSION] = 1.0
    if newest is not None:
        given[col.START], given[col.END] = newest.start, newest.end
        given[col.MADE_UP] = max(0, round((newest.end - newest.start) / policy.interval_s) - 1)
        given[col.CANARY_N] = newest.canary_n
        given[col.BAD], given[col.SUSPECT] = newest.canary_bad, newest.canary_suspect
        given[col.BASE_N], given[col.BASE_BAD] = newest.stable_n, newest.stable_bad
    return given, margin, is_bound


def _expected(row: GateRow) -> float:
    """The rate of bad events that history expects of a healthy canary, or -1."""
    known, gate = row.context.calibration, row.gate
    edge = gate.slo if gate.quantile is not None else None
    return known.rates.get(series_name(gate.signal, edge), -1.0) if known else -1.0


def counts_of(
    row: GateRow, remembered: Floats, regime: Regime
) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    """Per series ``(s_c, n_c, s_b, n_b)``, and ``(s_h, n_h, s_rest, n_rest)`` of stable's halves.

    A histogram's edges are those of its history. Without one they are fixed in ``remembered`` by the first
    tick that can tell them, and count from the next one on: they must not depend on what they are to judge.
    """
    newest, layout = row.newest, regime.layout
    if newest is None or not is_comparable(row):
        return [_NOBODY] * layout.series, [_UNSPLIT] * layout.series
    if row.gate.kind.shape is not Shape.HISTOGRAM:
        counts = (newest.canary_bad, newest.canary_n, newest.stable_bad, newest.stable_n)
        return [counts], [_halves(row.stable, newest.stable_bad, newest.stable_n)]
    edges = [float(remembered[layout.start_of(series) + at.EDGE]) for series in range(layout.series)]
    if not edges[0]:
        _choose_edges(row, remembered, regime)
        if not regime.edges:
            return [_NOBODY] * layout.series, [_UNSPLIT] * layout.series
        edges = list(regime.edges)
    return [_beyond(row, edge) for edge in edges], [_halves_beyond(row.stable, edge) for edge in edges]


def _choose_edges(row: GateRow, remembered: Floats, regime: Regime) -> None:
    edges = regime.edges
    if not edges and row.stable is not None and row.stable.exposure >= EDGE_SAMPLES:
        edges = edges_near(row.stable)
    for series, edge in enumerate(edges):
        remembered[regime.layout.start_of(series) + at.EDGE] = edge


def edges_near(seen: SignalInput) -> tuple[float, ...]:
    """The bucket edges nearest to the quantiles at which latencies are compared; may repeat."""
    shares = np.asarray(seen.counts) / seen.exposure
    return (
        tuple(seen.edges[int(np.argmin(np.abs(shares - quantile)))] for quantile in QUANTILES)
        if seen.edges
        else ()
    )


def _slower(seen: SignalInput | None, edge: float) -> tuple[float, float]:
    """Observations beyond an edge, of how many; none where the source has no such bucket."""
    if seen is None:
        return 0.0, 0.0
    index = bisect_left(seen.edges, edge)
    if index >= len(seen.edges) or seen.edges[index] != edge:
        return 0.0, 0.0
    return seen.exposure - seen.counts[index], seen.exposure


def _beyond(row: GateRow, edge: float) -> tuple[float, ...]:
    return *_slower(row.canary, edge), *_slower(row.stable, edge)


def _halves(stable: SignalInput | None, bad: float, n: float) -> tuple[float, ...]:
    if stable is None or stable.half_exposure < 0.0:
        return _UNSPLIT
    # Where events are judged per request of another signal, the halves of the two need not agree.
    half_n, half_bad = min(stable.half_exposure, n), min(stable.half_events, bad)
    return half_bad, half_n, bad - half_bad, n - half_n


def _halves_beyond(stable: SignalInput | None, edge: float) -> tuple[float, ...]:
    if stable is None or stable.half_exposure < 0.0 or not stable.half_counts:
        return _UNSPLIT
    bad, n = _slower(stable, edge)
    if n <= 0.0:
        return _UNSPLIT
    half_bad = stable.half_exposure - stable.half_counts[bisect_left(stable.edges, edge)]
    return half_bad, stable.half_exposure, bad - half_bad, n - stable.half_exposure


def remembered_by(state: GateState, regime: Regime) -> Floats:
    """A gate's floats, for writing; fresh ones before its first tick."""
    raw = state.memory or at.fresh(regime.layout)
    if len(raw) != 8 * regime.layout.floats:
        raise ValueError(
            f"a gate remembers {len(raw) // 8} numbers where {regime.layout.floats} are expected"
        )
    return np.frombuffer(raw, dtype="<f8").copy()
