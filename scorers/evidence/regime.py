"""By what rules a gate is judged: its nulls, margins and threshold, from what was known at the start.

=====  ==========================================  =======================================
tier   known                                       the null
=====  ==========================================  =======================================
R2     finished healthy rollouts of the service    the learnt law, with its learnt warm-up
R1     stable's replicas against each other        the learnt law, warm-up unknown
R0     nothing                                     the least of three laws
=====  ==========================================  =======================================

While stable's halves can be told apart they are held to what was learnt of them; once they differ by more,
history does not fit any more and the gate falls back to the least of everything (the live guard).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

from msgspec.structs import replace

from domain.calibration import Calibration, Law, Tier, series_name
from domain.policy import Gate
from domain.rollout import JudgingContext
from domain.signal import Shape
from scorers.evidence.layout import SERIES_OF_HISTOGRAM, Layout, layout_of
from scorers.evidence.null import null_of

TIER_SHARE = {Tier.R2: 0.4, Tier.R1: 0.7, Tier.R0: 1.0}
"""Share of the policy's alpha that a threshold is set for: learnt thresholds carry an error of their own, and
this is what keeps the whole promise on every kind of service tried (ADR 7)."""

COLD_LAWS = (Law(), Law(tau=0.25), Law(tau=0.35, memory_s=100.0))
"""What an unknown service may be like: ideal, versions that differ for good, and ones that wander."""
COLD_DISPERSION = 16.0
"""Events of one tick that a single cause is held to explain, where nothing is known."""


@dataclass(frozen=True, slots=True)
class Regime:
    """The rules for one gate of one rollout."""

    tier: Tier
    layout: Layout
    law: Law
    """Margins and dispersion; for R0 the dispersion is told by the live data instead."""
    has_guard: bool
    threshold: float
    """Nats of the rollout's combined evidence that are severe."""
    edges: tuple[float, ...]
    """Of a histogram gate, where history fixed them."""

    @property
    def tells_dispersion_live(self) -> bool:
        return self.tier is Tier.R0


def regime_of(context: JudgingContext, gate: Gate) -> Regime:
    """The rules for ``gate``, from what is frozen in the context."""
    policy, calibration = context.policy, context.calibration
    series = SERIES_OF_HISTOGRAM if gate.kind.shape is Shape.HISTOGRAM else 1
    alpha = policy.alpha / 2.0**context.changes
    law = _law_of(calibration, gate, policy.interval_s)
    if calibration is None or law is None:
        nulls = tuple(null_of(each, policy.interval_s) for each in COLD_LAWS)
        return Regime(Tier.R0, layout_of(series, nulls), COLD_LAWS[0], False, _threshold(None, alpha), ())
    halves = _widest(_laws(calibration.halves, calibration, gate))
    laws = (law, *(halves, halves, *COLD_LAWS)) if halves else (law,)
    nulls = tuple(null_of(each, policy.interval_s) for each in laws)
    return Regime(
        calibration.tier,
        layout_of(series, nulls, halves is not None),
        law,
        halves is not None,
        _threshold(calibration, alpha),
        calibration.edges.get(gate.signal, ()),
    )


def _law_of(calibration: Calibration | None, gate: Gate, interval_s: float) -> Law | None:
    """What was learnt of the gate; ``None`` also when it was learnt at another tick length."""
    if calibration is None or calibration.interval_s != interval_s:
        return None
    return _widest(_laws(calibration.laws, calibration, gate))


def _laws(known: Mapping[str, Law], calibration: Calibration, gate: Gate) -> list[Law]:
    names = [gate.signal]
    if gate.kind.shape is Shape.HISTOGRAM:
        names = [series_name(gate.signal, edge) for edge in calibration.edges.get(gate.signal, ())]
    return [known[name] for name in names if name in known]


def _widest(laws: Sequence[Law]) -> Law | None:
    """One law that none of ``laws`` goes beyond: all edges of a histogram are judged by it."""
    if not laws:
        return None
    wide = max(laws, key=lambda law: law.tau)
    return replace(
        wide,
        dispersion=tuple(map(max, zip(*(law.dispersion for law in laws), strict=True))),
        clustering=max(law.clustering for law in laws),
        warmup_margin=(
            tuple(map(max, zip(*(law.warmup_margin[0] for law in laws), strict=True))),
            tuple(map(max, zip(*(law.warmup_margin[1] for law in laws), strict=True))),
        ),
        has_learnt_warmup=all(law.has_learnt_warmup for law in laws),
    )


def _threshold(calibration: Calibration | None, alpha: float) -> float:
    """Nats that are severe: at least log(1/alpha) of the tier, and what history says beyond it."""
    tier = calibration.tier if calibration else Tier.R0
    plain = log(1.0 / (TIER_SHARE[tier] * alpha))
    if calibration is None or calibration.threshold is None:
        return plain
    # The history's threshold is for the alpha it was learnt with; a smaller one asks for as much more.
    return max(plain, calibration.threshold + log(calibration.alpha / alpha))
