"""From numbers to a verdict; the table of what each one means, in the order it is asked.

===============  =====================================================================================
``SEVERE``       it was so before; or the rollout's evidence reached its threshold and this gate is to
                 blame for it; or the severe limit is breached, beyond chance and worse than stable beyond
                 reasonable doubt
``NO_DATA``      the total of an arm that should have traffic is missing, or (below ``FAIL``) over a fifth of
                 the step's ticks are damaged
``FAIL``         worse than stable beyond reasonable doubt; or the window is over the limit, tick after
                 tick: then it is the environment's fault as long as the canary is not seen to be worse
``PASS``         the step's claim is proven, and no reasonable doubt speaks against the canary
``INCONCLUSIVE`` anything else
===============  =====================================================================================

A regression smaller than the policy's ``min_ratio`` is immaterial: it neither rolls back nor holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from domain.verdict import Verdict
from scorers.evidence import layout as at
from scorers.evidence import observe as col
from scorers.evidence.gather import expects_stable
from scorers.evidence.weigh import DIGITS, Weighed
from scorers.window import Sums

DOUBT = round(log(20.0), DIGITS)
"""Evidence beyond reasonable doubt for a pause: one in twenty."""
MOST_DAMAGED = 0.2
"""Share of a step's damaged ticks from which its numbers are no data; a single tick never is enough."""


@dataclass(frozen=True, slots=True)
class Case:
    """A gate's numbers beside its rollout's."""

    found: Weighed
    sums: Sums
    log_e_rollout: float
    is_blamed: bool

    @property
    def is_material(self) -> bool:
        """Whether the canary is so much worse that it matters."""
        return self.found.ratio >= self.found.row.context.policy.min_ratio

    @property
    def is_worse(self) -> bool:
        """Whether it is worse than stable beyond reasonable doubt, and materially."""
        return self.found.log_e >= DOUBT and self.is_material

    @property
    def log_pass(self) -> float:
        return round(float(self.found.said[col.LOG_PASS]), DIGITS)

    @property
    def log_slo(self) -> float:
        return round(float(self.found.said[col.LOG_SLO]), DIGITS)

    @property
    def has_proven(self) -> bool:
        """Whether the step's claim holds."""
        is_chosen = self.found.memory[at.CLAIM] > 0.0
        return bool(is_chosen) and self.log_pass >= log(1.0 / self.found.row.context.policy.beta)

    @property
    def damaged(self) -> float:
        """Share of the step's ticks."""
        ticks = float(self.found.memory[at.STEP_TICKS])
        return float(self.found.memory[at.DAMAGED]) / ticks if ticks else 0.0

    @property
    def is_damaged(self) -> bool:
        return float(self.found.memory[at.DAMAGED]) > 1.0 and self.damaged > MOST_DAMAGED

    @property
    def lacks_stable(self) -> bool:
        """Whether there is nothing to compare with: all traffic is the canary's, or stable never had any."""
        return not expects_stable(self.found.row) or not float(self.found.memory[at.STABLE_N])

    @property
    def is_over(self) -> bool:
        """Whether the window is over its limit, on enough samples and events."""
        gate, sums = self.found.row.gate, self.sums
        has_enough = sums.canary_n >= gate.min_samples and sums.canary_bad >= gate.min_events
        return has_enough and sums.canary_bad / sums.canary_n > gate.limit_share

    @property
    def is_beyond_severe(self) -> bool:
        """Whether the window is at its severe limit or worse."""
        gate, sums = self.found.row.gate, self.sums
        return sums.canary_worse >= gate.min_events and sums.canary_worse / sums.canary_n >= gate.severe_share


def verdict_of(case: Case) -> tuple[Verdict, bool]:
    """The verdict, and whether it is the environment's fault."""
    row, memory = case.found.row, case.found.memory
    if memory[at.LATCHED]:
        return Verdict.SEVERE, False
    if row.newest is None or (expects_stable(row) and row.stable is None and row.moment.is_settled):
        return Verdict.NO_DATA, False
    if _is_severe(case):
        return Verdict.SEVERE, False
    if case.is_worse:
        return Verdict.FAIL, False
    if memory[at.OVER_RUN] >= row.context.policy.fail_count:
        return Verdict.FAIL, True
    if case.is_damaged:
        return Verdict.NO_DATA, False
    return (Verdict.PASS if case.has_proven else Verdict.INCONCLUSIVE), False


def _is_severe(case: Case) -> bool:
    alpha = case.found.row.context.policy.alpha / 2.0**case.found.row.context.changes
    if case.is_blamed and case.is_material:
        return True
    is_breach = case.is_beyond_severe and case.log_slo >= round(log(1.0 / alpha), DIGITS)
    if case.lacks_stable:
        return is_breach and bool(case.found.memory[at.STABLE_KEPT])
    return is_breach and case.is_worse
