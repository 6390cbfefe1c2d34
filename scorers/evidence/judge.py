"""The evidence judge: looks at every tick, may stop at any tick, and keeps its promises all the same.

A healthy rollout is rolled back with a chance of at most ``alpha``, and a canary that breaks a step's claim
passes that step with a chance of at most ``beta`` per gate. What the promises rest on: `docs/adr/0007`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import exp, isnan

from domain.rollout import GateState
from domain.verdict import Evidence, Score, Verdict
from scorers.evidence import layout as at
from scorers.evidence import observe as col
from scorers.evidence.combine import blamed, log_mean
from scorers.evidence.reasons import reason_of, still_needed
from scorers.evidence.verdicts import Case, verdict_of
from scorers.evidence.weigh import DIGITS, Weighed, weigh
from scorers.gate_row import GateRow
from scorers.gate_score import score_of, stable_breaks
from scorers.window import add_up, slide

Answer = tuple[GateState, Score]


def judge(rollouts: Sequence[Sequence[GateRow]]) -> list[list[Answer]]:
    """New states and scores of every rollout's gates, in order."""
    found = iter(weigh([row for rows in rollouts for row in rows]))
    return [_judge_rollout(list(islice(found, len(rows)))) for rows in rollouts]


def _judge_rollout(found: list[Weighed]) -> list[Answer]:
    if not found:
        return []
    log_es = [each.log_e for each in found]
    together = round(log_mean(log_es), DIGITS)
    threshold = round(max(each.regime.threshold for each in found), DIGITS)
    guilty = blamed(log_es, threshold) if together >= threshold else []
    return [_answer(each, together, threshold, position in guilty) for position, each in enumerate(found)]


def _answer(found: Weighed, together: float, threshold: float, is_blamed: bool) -> Answer:
    row = found.row
    window = slide(row.state.window, row.newest, since=row.since, end=row.end, window_s=row.gate.window_s)
    sums = add_up(window)
    case = Case(found, sums, together, is_blamed)
    _note_windows(case)
    verdict, is_shared = verdict_of(case)
    if verdict is Verdict.SEVERE:
        found.memory[at.LATCHED] = 1.0
    return GateState(window=window, memory=found.memory.tobytes()), _score(
        case, verdict, is_shared, threshold
    )


def _note_windows(case: Case) -> None:
    """How long the canary's window has been over the limit, and whether stable's last one kept it."""
    memory = case.found.memory
    if case.found.row.newest is not None:
        memory[at.OVER_RUN] = memory[at.OVER_RUN] + 1.0 if case.is_over else 0.0
    if case.sums.stable_n >= case.found.row.gate.min_samples:
        memory[at.STABLE_KEPT] = 0.0 if stable_breaks(case.found.row.gate, case.sums) else 1.0


def _score(case: Case, verdict: Verdict, is_shared: bool, threshold: float) -> Score:
    needed = still_needed(case)
    eta_s = _eta(case, needed)
    return score_of(
        case.found.row,
        case.sums,
        verdict,
        reason_of(case, verdict, is_shared, needed, eta_s),
        shared=is_shared,
        needed=float(round(needed)) if needed else 0.0,
        eta_s=eta_s,
        evidence=_evidence(case, threshold),
    )


def _eta(case: Case, needed: float | None) -> float | None:
    """Seconds until ``needed`` further samples have come, at the step's own pace."""
    memory = case.found.memory
    if not needed or not memory[at.SECONDS] or not memory[at.N_ALL]:
        return None
    return round(needed * float(memory[at.SECONDS]) / float(memory[at.N_ALL]), 1)


def _evidence(case: Case, threshold: float) -> Evidence:
    found, memory = case.found, case.found.memory
    base_n, n = float(memory[at.STABLE_STEP_N]), float(memory[at.N_ALL])
    base_rate = float(memory[at.STABLE_STEP_BAD]) / base_n if base_n else 0.0
    return Evidence(
        log_e_fail=found.log_e,
        log_e_rollout=case.log_e_rollout,
        log_e_pass=case.log_pass,
        log_e_slo=case.log_slo,
        threshold=threshold,
        margin=round(found.margin, DIGITS),
        claim=float(memory[at.CLAIM]),
        ratio=round(float(memory[at.CANARY_BAD]) / n / base_rate, DIGITS) if base_rate and n else None,
        ratio_low=_bound(found, col.RATIO_LOW),
        ratio_high=_bound(found, col.RATIO_HIGH),
        anytime_p=round(min(1.0, exp(-float(memory[at.PEAK]))), 12),
        damaged=round(case.damaged, DIGITS),
        tier=found.regime.tier.value,
    )


def _bound(found: Weighed, column: int) -> float | None:
    value = float(found.said[column])
    return None if isnan(value) else round(value, DIGITS)
