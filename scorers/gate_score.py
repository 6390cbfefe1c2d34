"""A score as every judge writes it: the window in numbers, and what the judge made of them."""

from __future__ import annotations

from domain.policy import Gate
from domain.verdict import Evidence, Score, Verdict
from scorers.gate_row import GateRow
from scorers.window import Sums


def score_of(
    row: GateRow,
    sums: Sums,
    verdict: Verdict,
    reason: str,
    *,
    shared: bool,
    needed: float,
    eta_s: float | None,
    evidence: Evidence | None = None,
) -> Score:
    """The score of a gate whose window adds up to ``sums``; ``needed`` are samples still missing."""
    gate = row.gate
    has_enough = sums.canary_n >= gate.min_samples
    return Score(
        gate=row.index,
        signal=gate.signal,
        verdict=verdict,
        reason=reason,
        required=gate.required,
        shared=shared,
        limit=gate.limit_share,
        severe=gate.severe_share,
        canary_point=sums.canary_bad / sums.canary_n if sums.canary_n else None,
        stable_point=sums.stable_bad / sums.stable_n if sums.stable_n else None,
        canary_events=sums.canary_bad,
        canary_exposure=sums.canary_n,
        stable_events=sums.stable_bad,
        stable_exposure=sums.stable_n,
        window_s=sums.span_s,
        point_holds=has_enough and sums.canary_suspect / sums.canary_n <= gate.limit_share,
        samples_needed=needed,
        eta_s=eta_s,
        quantile_ms=row.quantile_ms,
        evidence=evidence,
    )


def stable_breaks(gate: Gate, sums: Sums) -> bool:
    """Whether stable's window breaks the limit as well, on enough samples and events."""
    has_enough = sums.stable_n >= gate.min_samples and sums.stable_bad >= gate.min_events
    return has_enough and sums.stable_bad / sums.stable_n > gate.limit_share
