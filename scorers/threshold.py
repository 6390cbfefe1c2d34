"""The threshold judge: point values of the sliding window against the limits, taken literally.

It makes no promise about error rates (that is the evidence judge's business), but it avoids the two mistakes
that embarrass such rules most: a verdict needs ``min_samples`` in the window, and a bad one needs at least
``min_events`` bad events, because one error of twenty is no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from domain.rollout import GateState
from domain.units import ratio_text
from domain.verdict import Score, Verdict
from scorers.gate_row import GateRow
from scorers.gate_score import score_of, stable_breaks
from scorers.window import Sums, add_up, slide


def judge(rollouts: Sequence[Sequence[GateRow]]) -> list[list[tuple[GateState, Score]]]:
    """New states and scores of every rollout's gates, in order. Gates do not know one another."""
    return [[_judge_gate(row) for row in rows] for rows in rollouts]


def _judge_gate(row: GateRow) -> tuple[GateState, Score]:
    window = slide(row.state.window, row.newest, since=row.since, end=row.end, window_s=row.gate.window_s)
    sums = add_up(window)
    verdict, reason = _no_data(row) if row.newest is None else _verdict(row, sums)
    return replace(row.state, window=window), _score(row, sums, verdict, reason)


def _no_data(row: GateRow) -> tuple[Verdict, str]:
    return Verdict.NO_DATA, f"{row.gate.title}: {row.problem}"


def _verdict(row: GateRow, sums: Sums) -> tuple[Verdict, str]:
    gate = row.gate
    if not sums.span_s:
        return Verdict.INCONCLUSIVE, f"{gate.title}: no whole tick at this weight yet"
    if sums.canary_n == 0:
        return Verdict.INCONCLUSIVE, f"{gate.title}: the canary gets no traffic"
    if sums.canary_n < gate.min_samples:
        return Verdict.INCONCLUSIVE, f"{gate.title}: {sums.canary_n:g} of {gate.min_samples} samples so far"
    if sums.canary_worse >= gate.min_events and sums.canary_worse / sums.canary_n >= gate.severe_share:
        return Verdict.SEVERE, _bad_text(row, sums, sums.canary_worse, severe=True)
    if sums.canary_bad >= gate.min_events and sums.canary_bad / sums.canary_n > gate.limit_share:
        return Verdict.FAIL, _bad_text(row, sums, sums.canary_bad, severe=False)
    if sums.canary_suspect / sums.canary_n > gate.limit_share:
        return Verdict.INCONCLUSIVE, _doubt_text(row, sums)
    return Verdict.PASS, f"{gate.title}: {_share_text(row, sums.canary_bad, sums.canary_n)}"


def _bad_text(row: GateRow, sums: Sums, bad: float, *, severe: bool) -> str:
    stable = f", stable {ratio_text(sums.stable_bad / sums.stable_n)}" if sums.stable_n else ""
    return f"{row.gate.title}: {_share_text(row, bad, sums.canary_n, severe=severe)}{stable}"


def _share_text(row: GateRow, bad: float, n: float, *, severe: bool = False) -> str:
    """ "3.1 % of 4,812 (limit 1 %)", and for a quantile gate what the share is of."""
    gate, share = row.gate, ratio_text(bad / n)
    word = "severe from" if severe else "limit"
    if gate.quantile is None:
        limit = gate.severe_share if severe else gate.limit_share
        return f"{share} of {n:,.0f} ({word} {ratio_text(limit)})"
    limit_ms = gate.severe if severe else gate.slo
    return f"{share} of {n:,.0f} slower than {limit_ms:g} ms ({word} {ratio_text(gate.limit_share)})"


def _doubt_text(row: GateRow, sums: Sums) -> str:
    gate = row.gate
    if sums.canary_bad < gate.min_events:
        share = _share_text(row, sums.canary_suspect, sums.canary_n)
        return f"{gate.title}: {share}, but {sums.canary_bad:g} of {gate.min_events} bad events needed"
    return f"{gate.title}: the limit of {gate.slo:g} ms is no bucket edge; the truth lies on both sides"


def _score(row: GateRow, sums: Sums, verdict: Verdict, reason: str) -> Score:
    needed = max(0.0, row.gate.min_samples - sums.canary_n)
    rate = sums.canary_n / sums.span_s if sums.span_s else 0.0
    return score_of(
        row,
        sums,
        verdict,
        reason,
        shared=verdict is Verdict.FAIL and stable_breaks(row.gate, sums),
        needed=needed,
        eta_s=needed / rate if needed and rate else None,
    )
