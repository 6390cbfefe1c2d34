"""The port between ticks and verdicts: a judge answers many gates at once, each from its own row.

A judge is a pure function of its rows, and answers a row the same whether it is asked about it alone or among
thousands; that is what makes replays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.errors import PolicyError
from domain.policy import JudgeName
from domain.rollout import GateState
from domain.verdict import Score
from scorers import threshold
from scorers.gate_row import GateRow

Judge = Callable[[Sequence[GateRow]], list[tuple[GateState, Score]]]

JUDGES: dict[JudgeName, Judge] = {JudgeName.THRESHOLD: threshold.judge}
"""Judges by the name that policies use."""


def judge_named(name: JudgeName) -> Judge:
    """The judge of that name; :class:`PolicyError` for one that this release does not have."""
    if name not in JUDGES:
        known = ", ".join(each.value for each in JUDGES)
        raise PolicyError(f"judge: {name.value} is not available in this release; available: {known}")
    return JUDGES[name]
