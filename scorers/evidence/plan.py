"""Whether a policy's traffic can decide: how long each step needs to pass, and to find a regression.

For every step and gate the plan makes the claim that the judge would make, and asks ``plan_passing`` how long
a healthy canary takes to prove it and ``plan_finding`` how long a worse one stays unseen. A step *decides*
when nine healthy canaries of ten pass it within the policy's ``max_step_time``. All required gates have to
pass together; they are taken to be independent, which errs on the slow side where they fail together.

What a healthy canary shows is what the user says, else history's rate, else a fifth of the limit. Failures by
the window's point values are left out. Every signal is taken to be counted per request: one log line, one
server span each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from domain.calibration import Calibration, Law, series_name
from domain.policy import Gate, Policy
from domain.rollout import JudgingContext
from domain.signal import Shape
from domain.units import FULL_BP
from scorers.evidence.claims import SLOW_REQUESTS, choose_claim, claimed_limit, ladder
from scorers.evidence.plan_finding import UNLUCKY, Flow, finding, season_of
from scorers.evidence.plan_passing import Pace, Proof, pace_of, passing, tick_of
from scorers.evidence.plan_values import GatePlan, Known, Origin, Plan, StepPlan, Times, sought_s
from scorers.evidence.regime import Regime, regime_of
from scorers.evidence.types import Floats

HEALTHY_SHARE = 0.2
"""Of the limit: what a healthy canary is taken to show where nothing is known; limits leave room."""
RATIOS = (4.0, 2.0)
"""Regressions that a plan looks for, as multiples of stable's rate."""
TYPICAL, SLOW = 0.5, 0.9
"""Shares of healthy canaries that have passed by the times a plan tells; a step decides by the slow one."""
LOOK_AHEAD_S = 86_400.0
"""Seconds up to which times are computed, whatever the policy allows."""
TYPICAL_REQUESTS = 1.2
"""Beyond that: requests that the median step needs, in the units of :data:`SLOW_REQUESTS`; measured 1.1 to
1.3."""
FOR_EVER_S = 30 * 86_400.0
"""Nobody waits for a step longer than this."""


def plan_of(policy: Policy, known: Known) -> Plan:
    """The plan of a policy: everything about each of its steps."""
    regimes = _regimes(policy, known)
    steps = (_step(policy, known, regimes, index) for index in range(len(policy.weights_bp)))
    return Plan(
        policy, known, min((each.tier for each in regimes), key=lambda tier: tier.value), tuple(steps)
    )


def decides(policy: Policy, known: Known) -> bool:
    """Whether the plan has no undecidable step; much faster than making it."""
    numbers = [index for index, weight in enumerate(policy.weights_bp) if weight]
    if not all(_is_provable(policy, known, index) for index in numbers):
        return False
    regimes = _regimes(policy, known)
    return all(_step(policy, known, regimes, index, in_full=False).is_decidable for index in numbers)


def _is_provable(policy: Policy, known: Known, index: int) -> bool:
    """Whether enough requests would prove the claims of a step's required gates."""
    canary_rps = known.rps * policy.weights_bp[index] / FULL_BP
    rates = [(gate, expected_rate(gate, known)[0]) for gate in policy.gates if gate.required]
    return all(_proof(policy, gate, known, index, rate, canary_rps).speed(rate) for gate, rate in rates)


def _regimes(policy: Policy, known: Known) -> list[Regime]:
    context = JudgingContext(policy=policy, sources=(), calibration=known.calibration)
    return [regime_of(context, gate) for gate in policy.gates]


def expected_rate(gate: Gate, known: Known) -> tuple[float, Origin]:
    """What a healthy canary shows of a gate's bad events, and who says so."""
    given = known.healthy or {}
    if gate.signal in given or "" in given:
        return given.get(gate.signal, given.get("", 0.0)), Origin.GIVEN
    learnt = _learnt_rate(gate, known.calibration)
    if learnt is not None:
        return learnt, Origin.HISTORY
    return gate.limit_share * HEALTHY_SHARE, Origin.ASSUMED


def _learnt_rate(gate: Gate, calibration: Calibration | None) -> float | None:
    edge = gate.slo if gate.quantile is not None else None
    return calibration.rates.get(series_name(gate.signal, edge)) if calibration else None


def _step(
    policy: Policy, known: Known, regimes: Sequence[Regime], index: int, *, in_full: bool = True
) -> StepPlan:
    """One step; not ``in_full`` it looks no further than the time allowed, and for no regressions."""
    weight_bp = policy.weights_bp[index]
    canary_rps = known.rps * weight_bp / FULL_BP
    if not weight_bp:
        return StepPlan(index + 1, weight_bp, canary_rps, (), Times(None, None), True)
    pace, allowed = pace_of(policy), policy.max_step_time_s
    ticks = max(1, pace.ticks_within(max(allowed, LOOK_AHEAD_S) if in_full else allowed))
    plans, laws = [], []
    for gate, regime in zip(policy.gates, regimes, strict=True):
        rate, origin = expected_rate(gate, known)
        proof = _proof(policy, gate, known, index, rate, canary_rps / regime.law.clustering)
        passed = _passed(pace, proof, ticks, canary_rps * policy.interval_s, rate, regime.law)
        found = _finds(policy, known, regimes, gate, regime, index, rate) if in_full else {}
        rough = _rough(policy, proof, rate, canary_rps, regime.law)
        times = _times(pace, passed, rough)
        plans.append(
            GatePlan(
                gate, rate, origin, round(proof.ceiling / gate.limit_share, 6), proof.ceiling, times, found
            )
        )
        if gate.required:
            laws.append((passed, rough))
    together = np.prod([passed for passed, _ in laws], axis=0)
    worst = tuple(max(rough[which] for _, rough in laws) for which in (0, 1))
    within = pace.ticks_within(allowed)
    return StepPlan(
        index + 1,
        weight_bp,
        canary_rps,
        tuple(plans),
        _times(pace, together, worst),
        within > 0 and bool(together[within - 1] >= SLOW),
    )


def _proof(policy: Policy, gate: Gate, known: Known, index: int, rate: float, canary_rps: float) -> Proof:
    """What the judge will ask of the gate: its claim is chosen from history, or from what stable shows."""
    learnt = _learnt_rate(gate, known.calibration)
    expected = rate if learnt is None else learnt
    is_count = gate.kind.shape is Shape.COUNT
    time_left = max(0.0, policy.min_step_time_s - policy.warmup_s)
    most = ladder(policy)[index]
    claim = choose_claim(gate.limit_share, is_count, expected, canary_rps, time_left, most, policy.beta)
    ceiling = claimed_limit(gate.limit_share, claim, is_count)
    return Proof(ceiling, is_count, policy.beta, min(1.0, max(1e-6, expected / ceiling)))


def _passed(pace: Pace, proof: Proof, ticks: int, per_tick: float, rate: float, law: Law) -> Floats:
    """The chance of having passed by each tick. What cannot be proven passes by mistake: not at all."""
    if proof.speed(rate) == 0.0:
        return np.zeros(ticks)
    return passing(pace, proof, ticks, per_tick / law.clustering, rate)


def _rough(policy: Policy, proof: Proof, rate: float, canary_rps: float, law: Law) -> tuple[float, float]:
    """Seconds for half and nine tenths of healthy canaries by rule of thumb; infinite for never."""
    speed = proof.speed(rate)
    if speed == 0.0:
        return float("inf"), float("inf")
    unit = log(1.0 / proof.beta) * law.clustering / speed
    last = policy.pass_count * policy.interval_s
    return TYPICAL_REQUESTS * unit / canary_rps + last, SLOW_REQUESTS * unit / canary_rps + last


def _times(pace: Pace, passed: Floats, rough: tuple[float, ...]) -> Times:
    exact = [tick_of(passed, share) for share in (TYPICAL, SLOW)]
    end = pace.end_of(len(passed))
    seconds = [
        pace.end_of(tick) if tick is not None else max(end, guess)
        for tick, guess in zip(exact, rough, strict=True)
    ]
    typical, slow = (each if each < FOR_EVER_S else None for each in seconds)
    return Times(typical, slow, is_rough=None in exact and slow is not None)


def _finds(
    policy: Policy,
    known: Known,
    regimes: Sequence[Regime],
    gate: Gate,
    regime: Regime,
    index: int,
    rate: float,
) -> dict[float, Times]:
    """Until each regression is found within the step; nothing where there is no stable traffic beside it."""
    weight = policy.weights_bp[index] / FULL_BP
    if weight >= 1.0:
        return {}
    pace, per_tick = pace_of(policy), known.rps * policy.interval_s
    season = season_of(policy, regime, pace, index, max(1, pace.ticks_within(sought_s(policy))))
    flow = Flow(per_tick * weight, per_tick * (1.0 - weight), rate)
    # One gate among many, and one edge among many, has to convince for all: their e-values are averaged.
    nats = max(each.threshold for each in regimes) + log(len(regimes)) + log(regime.layout.series)
    watched = float(index * max(1, round(policy.min_step_time_s / policy.interval_s)))
    found = {}
    for ratio in RATIOS:
        ticks = [finding(regime, season, flow, ratio, nats, watched, luck) for luck in (0.0, UNLUCKY)]
        typical, slow = (None if tick is None else pace.end_of(tick) for tick in ticks)
        found[ratio] = Times(typical, slow)
    return found
