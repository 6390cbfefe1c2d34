"""Why a gate says what it says, in one sentence that a person on call understands."""

from __future__ import annotations

from math import exp, isnan, log

from domain.signal import Shape
from domain.units import duration_text, ratio_text
from domain.verdict import Verdict
from scorers.evidence import layout as at
from scorers.evidence import observe as col
from scorers.evidence.claims import claimed_limit, divergence
from scorers.evidence.verdicts import Case
from scorers.gate_score import stable_breaks


def reason_of(
    case: Case, verdict: Verdict, is_shared: bool, needed: float | None, eta_s: float | None
) -> str:
    """The sentence. ``needed`` are the canary's samples still to come, ``None`` when no number would do."""
    title = case.found.row.gate.title
    match verdict:
        case Verdict.NO_DATA:
            return f"{title}: {_no_data(case)}"
        case Verdict.SEVERE:
            return f"{title} {_comparison(case)}"
        case Verdict.FAIL:
            return f"{title} {_shared(case) if is_shared else _comparison(case)}"
        case Verdict.PASS:
            return f"{title}: {_proof(case)}"
        case Verdict.INCONCLUSIVE:
            return f"{title}: {_waiting(case, needed, eta_s)}"


def _no_data(case: Case) -> str:
    row = case.found.row
    if row.newest is None:
        return row.problem
    if row.stable is None:
        return "no data: stable's total is missing or too old"
    return f"no data: {ratio_text(case.damaged)} of the step's ticks are damaged"


def _rates(case: Case) -> tuple[float, float, float, float]:
    """Events and exposure of this step: canary, stable; of the window where the step has none yet."""
    memory = case.found.memory
    if memory[at.N_ALL]:
        step = (memory[at.CANARY_BAD], memory[at.N_ALL], memory[at.STABLE_STEP_BAD], memory[at.STABLE_STEP_N])
        return tuple(map(float, step))  # type: ignore[return-value]  # four of them
    return case.sums.canary_bad, case.sums.canary_n, case.sums.stable_bad, case.sums.stable_n


def _comparison(case: Case) -> str:
    """ "3.1 % vs 0.4 % on stable (ratio 4.9–12), 4,812 requests, false-alarm chance < 0.1 %"."""
    bad, n, base_bad, base_n = _rates(case)
    share = ratio_text(bad / n) if n else "unknown"
    what = _slower_than(case)
    if case.lacks_stable or not base_n:
        limit = ratio_text(case.found.row.gate.limit_share)
        chance = chance_text(exp(-max(case.log_slo, 0.0)))
        return f"{share}{what}, limit {limit}, {n:,.0f} requests, false-alarm chance {chance}"
    chance = chance_text(exp(-max(_certainty(case), 0.0)))
    return (
        f"{share}{what} vs {ratio_text(base_bad / base_n)} on stable{_ratio_text(case)}, "
        f"{n:,.0f} requests, false-alarm chance {chance}"
    )


def _certainty(case: Case) -> float:
    """Nats behind the verdict: of the rollout, or of the gate that speaks for itself."""
    if case.is_blamed:
        return case.log_e_rollout
    return max(case.found.log_e, case.log_slo) if case.is_beyond_severe else case.found.log_e


def _slower_than(case: Case) -> str:
    gate = case.found.row.gate
    return "" if gate.quantile is None else f" slower than {gate.slo:g} ms"


def _ratio_text(case: Case) -> str:
    low, high = (float(case.found.said[column]) for column in (col.RATIO_LOW, col.RATIO_HIGH))
    if isnan(low) and isnan(high):
        return ""
    if isnan(high):
        return f" (ratio at least {low:.2g})"
    if isnan(low):
        return f" (ratio at most {high:.2g})"
    return f" (ratio {low:.2g}–{high:.2g})"


def chance_text(chance: float) -> str:
    """A small probability, never said smaller than it is.

    >>> chance_text(0.034), chance_text(0.0004), chance_text(1e-12)
    ('3.4 %', '< 0.1 %', '< 0.1 %')
    """
    return "< 0.1 %" if chance < 0.001 else ratio_text(chance)


def _shared(case: Case) -> str:
    sums, gate = case.sums, case.found.row.gate
    share = ratio_text(sums.canary_bad / sums.canary_n) if sums.canary_n else "unknown"
    limit = ratio_text(gate.limit_share)
    over = f"{share}{_slower_than(case)} for {case.found.memory[at.OVER_RUN]:g} ticks (limit {limit})"
    if stable_breaks(gate, sums):
        base = ratio_text(sums.stable_bad / sums.stable_n)
        return f"{over}, and {base} on stable: the environment, not the canary"
    if case.lacks_stable:
        return f"{over}, with no stable traffic to compare with"
    if case.found.margin > 1.0:
        return f"{over}, which right after a weight change cannot be told from a cold start"
    return f"{over}, but no worse than stable as far as {sums.canary_n:,.0f} requests can tell"


def _proof(case: Case) -> str:
    gate, memory = case.found.row.gate, case.found.memory
    limit = claimed_limit(gate.limit_share, float(memory[at.CLAIM]), gate.kind.shape is Shape.COUNT)
    share = ratio_text(float(memory[at.BAD_ALL] / memory[at.N_ALL])) if memory[at.N_ALL] else "0 %"
    text = f"{share} of {memory[at.N_ALL]:,.0f}{_slower_than(case)}: below {ratio_text(limit)}"
    if memory[at.CLAIM] > 1.0:
        text += f" (this step's claim, {memory[at.CLAIM]:g}x the limit)"
    return f"{text}, chance of error {chance_text(exp(-case.log_pass))}"


def _waiting(case: Case, needed: float | None, eta_s: float | None) -> str:
    memory, row, gate = case.found.memory, case.found.row, case.found.row.gate
    is_idle = row.newest is not None and not row.newest.canary_n and not case.sums.canary_n
    if is_idle and row.moment.is_settled and not memory[at.N_ALL]:
        return "the canary gets no traffic"
    if not memory[at.CLAIM]:
        return "no whole tick after this step's warm-up yet"
    limit = claimed_limit(gate.limit_share, float(memory[at.CLAIM]), gate.kind.shape is Shape.COUNT)
    share = ratio_text(float(memory[at.BAD_ALL] / memory[at.N_ALL]))
    under = f"stays below {ratio_text(limit)}"
    if needed is None:
        return f"{share} of {memory[at.N_ALL]:,.0f}{_slower_than(case)} cannot show that it {under}"
    about = f" (about {duration_text(max(1, round(eta_s)))})" if eta_s is not None else ""
    return f"{needed:,.0f} more requests{about} to show that {share}{_slower_than(case)} {under}"


def still_needed(case: Case) -> float | None:
    """Canary samples until the claim should be proven, at the rate seen; 0 when it is, ``None`` for never."""
    memory, row = case.found.memory, case.found.row
    if case.has_proven:
        return 0.0
    is_count = row.gate.kind.shape is Shape.COUNT
    n = float(memory[at.N_ALL])
    if not n or not memory[at.CLAIM]:
        return 0.0
    rate = float(memory[at.BAD_ALL]) / n
    limit = claimed_limit(row.gate.limit_share, float(memory[at.CLAIM]), is_count)
    if rate >= limit:
        return None
    nats = log(1.0 / row.context.policy.beta) - case.log_pass
    return max(1.0, nats * case.found.regime.law.clustering / divergence(rate, limit, is_count))
