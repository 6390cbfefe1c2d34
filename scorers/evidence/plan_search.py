"""Plans that the traffic can decide, in place of one that it cannot: other weights, or more time.

Weights are tried from the gentlest on, which is the one that shows the canary to the fewest users first.
Every proposal has passed the same check as the plan it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from domain.errors import PolicyError
from domain.policy import Policy, Strategy, check
from domain.units import FULL_BP
from scorers.evidence.plan import decides
from scorers.evidence.plan_values import Known

STANDARD = (
    (500, 2_000, 4_000, 7_000, 10_000),
    (1_000, 3_000, 6_000, 10_000),
    (2_000, 4_000, 7_000, 10_000),
    (2_500, 5_000, 10_000),
    (5_000, 10_000),
)
"""Weights that serve most services."""

MINUTES = (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1_440)
"""Times that people write as ``max_step_time``."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that decides: the policy's own but for these."""

    weights_bp: tuple[int, ...]
    max_step_time_s: float


def proposals(policy: Policy, known: Known) -> tuple[Proposal, ...]:
    """The gentlest weights that decide in the time allowed, and the time in which the policy's own do.

    Neither, when no traffic proves what the policy asks for. Where no weights decide in time, they come with
    the time that they need, unless the policy's own need no more.
    """
    weights = _first_decided(_other_weights(policy), known)
    time = _first_decided(_longer(policy), known)
    if weights is None:
        weights = _first_decided(_slower(policy, time), known)
    found = (each for each in (weights, time) if each is not None)
    return tuple(Proposal(each.weights_bp, each.max_step_time_s) for each in found)


def _first_decided(candidates: Iterator[Policy], known: Known) -> Policy | None:
    return next((each for each in candidates if decides(each, known)), None)


def _other_weights(policy: Policy) -> Iterator[Policy]:
    """The policy's own weights without the first ones, and the standard ones, the gentlest first."""
    if policy.strategy is Strategy.BLUE_GREEN:
        return
    own = [policy.weights_bp[first:] for first in range(1, len(policy.weights_bp) - 1)]
    lists = {each for each in (*own, *STANDARD) if each != policy.weights_bp and 0 < each[0] < FULL_BP}
    for weights in sorted(lists, key=lambda each: (each[0], -len(each), each)):
        try:
            yield check(replace(policy, weights_bp=weights))
        except PolicyError:  # approvals may name steps that these weights do not have
            continue


def _longer(policy: Policy) -> Iterator[Policy]:
    for minutes in MINUTES:
        if minutes * 60.0 > policy.max_step_time_s:
            yield replace(policy, max_step_time_s=minutes * 60.0)


def _slower(policy: Policy, other: Policy | None) -> Iterator[Policy]:
    """Other weights with the least time that any of them needs, while that is less than ``other`` does."""
    for longer in _longer(policy):
        if other is not None and longer.max_step_time_s >= other.max_step_time_s:
            return
        yield from _other_weights(longer)
