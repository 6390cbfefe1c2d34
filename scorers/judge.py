"""The port between ticks and verdicts: a judge answers many rollouts at once, each from its own gates' rows.

A judge is a pure function of its rows, and answers a rollout the same whether it is asked about it alone or
among thousands; that is what makes replays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.errors import PolicyError
from domain.policy import JudgeName
from domain.rollout import GateState
from domain.verdict import Score
from scorers import threshold
from scorers.evidence import judge as evidence
from scorers.gate_row import GateRow

Judge = Callable[[Sequence[Sequence[GateRow]]], list[list[tuple[GateState, Score]]]]
"""The rows of each rollout's gates in; each gate's next state and score out, in the same order."""

JUDGES: dict[JudgeName, Judge] = {
    JudgeName.EVIDENCE: evidence.judge,
    JudgeName.THRESHOLD: threshold.judge,
}
"""Judges by the name that policies use."""


def judge_named(name: JudgeName) -> Judge:
    """The judge of that name; :class:`PolicyError` for one that this release does not have."""
    if name not in JUDGES:
        known = ", ".join(each.value for each in JUDGES)
        raise PolicyError(f"judge: {name.value} is not available in this release; available: {known}")
    return JUDGES[name]
