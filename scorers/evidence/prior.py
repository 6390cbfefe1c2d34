"""When a regression may begin: the weight that each tick of a rollout gets.

A change-point prior that sums to at most one makes the mixture over starts an e-process for the whole
rollout. Most of it lies where regressions begin: with the first traffic, and with each new weight.
"""

from __future__ import annotations

from domain.policy import Policy
from scorers.evidence.compiled import compiled
from scorers.evidence.effects import (
    ANY_TIME,
    AT_ONCE,
    AT_ONCE_UNLEARNT,
    AT_STEPS,
    AT_STEPS_UNLEARNT,
    WHEN_WARM_UNLEARNT,
)


def horizon_of(policy: Policy) -> int:
    """Ticks a rollout may take: every step to its end. Later regressions have no weight of their own."""
    return max(1, round(len(policy.weights_bp) * policy.max_step_time_s / policy.interval_s))


@compiled
def _any_time(tick: int, horizon: int, share: float) -> float:
    return share / max(1, horizon - 1) if 1 < tick <= horizon else 0.0


@compiled
def start_weight(
    tick: int,
    step: int,
    steps: int,
    horizon: int,
    opens_step: bool,
    ends_warmup: bool,
    has_learnt_warmup: bool,
) -> float:
    """The prior that a regression begins with this tick (1-based) of a rollout with ``steps`` steps.

    ``opens_step`` marks the first tick at a step's weight, ``ends_warmup`` the first one after its warm-up.
    """
    later = max(1, steps - 1)
    if has_learnt_warmup:
        weight = AT_ONCE if tick == 1 else 0.0
        if opens_step and step > 0:
            weight += AT_STEPS / later
        return weight + _any_time(tick, horizon, ANY_TIME)
    weight = AT_ONCE_UNLEARNT if tick == 1 else 0.0
    if ends_warmup:
        weight += WHEN_WARM_UNLEARNT if step == 0 else AT_STEPS_UNLEARNT / later
    if opens_step and step > 0:
        weight += AT_STEPS_UNLEARNT / later
    rest = 1.0 - AT_ONCE_UNLEARNT - WHEN_WARM_UNLEARNT - 2 * AT_STEPS_UNLEARNT
    return weight + _any_time(tick, horizon, rest)
