"""The plan check: its times against the published ones and against the judge on simulated rollouts."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from msgspec.structs import replace

from domain.calibration import Calibration, Law, Tier
from domain.errors import PolicyError
from domain.policy import Gate, Policy, Strategy
from domain.rollout import GateState, JudgingContext
from domain.units import FULL_BP
from domain.verdict import Verdict
from scorers.evidence import plan_passing
from scorers.evidence.effects import UNDER_LIMIT
from scorers.evidence.judge import judge
from scorers.evidence.plan import decides, plan_of
from scorers.evidence.plan_passing import Pace, Proof, pace_of, passing, tick_of
from scorers.evidence.plan_search import STANDARD, proposals
from scorers.evidence.plan_values import Known, Origin, Plan
from scorers.evidence.plan_walk import first_passes
from scorers.evidence.types import Floats, Ints
from scorers.gate_row import Moment
from tests.scorers.evidence.rows import Seen, context, evident, row
from tests.scorers.situations import ERRORS

LOGS = Gate(signal="log_error_ratio", slo=0.005, severe=0.025, window_s=60.0, min_samples=100, min_events=3)
SLOWNESS = Gate(
    signal="latency_ms", quantile=0.95, slo=400.0, severe=2000.0, window_s=60.0, min_samples=100, min_events=3
)
LOW = (500, 1_000, 2_500, 5_000, 7_500, FULL_BP)


def _plan(known: Known, **of_policy: object) -> Plan:
    return plan_of(evident(**({"gates": (ERRORS,), "warmup_s": 30.0} | of_policy)), known)


# --- against published times


def _bad_that_an_even_grid_bears(per_tick: float, ticks: int, nats: float) -> Floats:
    """Most bad events at each tick with which "the rate is 1 % or more" is rejected, every effect alike."""
    most, bad = np.zeros(ticks), -1
    for tick in range(ticks):
        n = per_tick * (tick + 1)

        def log_e(bad: int, n: float = n) -> float:
            gains = [bad * log(r) + (n - bad) * log((1 - 0.01 * r) / (1 - 0.01)) for r in UNDER_LIMIT]
            return float(np.logaddexp.reduce(gains)) - log(len(gains))

        while log_e(bad + 1) >= nats:
            bad += 1
        most[tick] = bad
    return most


@pytest.mark.parametrize(
    ("weight", "rps", "medians"),
    [
        (0.05, 100, (95, 200, 508)),
        (0.05, 1000, (10, 25, 60)),
        (0.25, 10, (190, 410, 930)),
        (0.25, 100, (20, 50, 105)),
        (0.25, 1000, (5, 10, 15)),
        (0.50, 10, (95, 233, 513)),
        (0.50, 100, (10, 25, 60)),
        (0.50, 1000, (5, 5, 10)),
    ],
)
def test_passing_takes_as_long_as_was_published(
    weight: float, rps: float, medians: tuple[float, ...]
) -> None:
    """Medians of 400 simulated steps against a limit of 1 % with healthy rates of .1, .3 and .5 %, for a
    kernel with an even grid that spends half of its prior on a later start: one tick on either side, and
    what 400 steps leave open (five per cent of them)."""
    per_tick = rps * weight * 5.0
    most = _bad_that_an_even_grid_bears(per_tick, 720, log(2 / 0.05))
    for rate, median in zip((0.001, 0.003, 0.005), medians, strict=True):
        passed = first_passes(per_tick * rate, most, 1, 0)
        tick = round(median / 5.0) - 1
        assert passed[max(0, tick - 2)] <= 0.55 or tick == 0
        assert passed[tick + 1] >= 0.45


# --- against the judge


def _moment(policy: Policy, tick: int) -> Moment:
    """A step whose weight came into force in mid-tick."""
    start = 5e8 + tick * policy.interval_s
    began = 5e8 - policy.interval_s / 2
    warm_at = began + policy.warmup_s - 0.05
    return Moment(
        start=start, end=start + policy.interval_s, step=0, is_settled=True, step_began=began, warm_at=warm_at
    )


def _judged(
    of: JudgingContext, rps: float, rates: tuple[float, ...], ratio: float, *, ticks: int, runs: int = 200
) -> tuple[Ints, Ints]:
    """Ticks at which simulated first steps pass, and are severe; ``ticks`` where they never do.

    Requests are Poisson, bad ones independent; the first gate's are ``ratio`` times as frequent on the
    canary.
    """
    rng = np.random.default_rng(20)
    policy, share = of.policy, of.policy.weights_bp[0] / FULL_BP
    states = [[GateState() for _ in policy.gates] for _ in range(runs)]
    passed, severe, row_of = np.full(runs, ticks), np.full(runs, ticks), np.zeros(runs, dtype=int)
    for tick in range(ticks):
        moment = _moment(policy, tick)
        n = rng.poisson(rps * share * policy.interval_s, runs)
        base_n = rng.poisson(rps * (1.0 - share) * policy.interval_s, runs)
        bad = [rng.binomial(n, rate * (ratio if i == 0 else 1.0)) for i, rate in enumerate(rates)]
        base = [rng.binomial(base_n, rate) for rate in rates]
        rows = [
            [
                row(
                    Seen(n=n[run], bad=bad[i][run], base_n=base_n[run], base_bad=base[i][run]),
                    of,
                    moment,
                    gate=gate,
                    state=states[run][i],
                    index=i,
                )
                for i, gate in enumerate(policy.gates)
            ]
            for run in range(runs)
        ]
        for run, answers in enumerate(judge(rows)):
            states[run] = [state for state, _ in answers]
            verdicts = [score.verdict for _, score in answers]
            if Verdict.SEVERE in verdicts:
                severe[run] = min(severe[run], tick)
            all_pass = moment.start >= moment.warm_at and all(each is Verdict.PASS for each in verdicts)
            row_of[run] = row_of[run] + 1 if all_pass else 0
            is_due = moment.end - moment.step_began >= policy.min_step_time_s
            if row_of[run] >= policy.pass_count and is_due:
                passed[run] = min(passed[run], tick)
    return passed, severe


@pytest.mark.parametrize(("weight_bp", "rps", "rate"), [(2_500, 20.0, 0.002), (500, 100.0, 0.004)])
def test_steps_pass_when_the_plan_says_that_they_do(weight_bp: int, rps: float, rate: float) -> None:
    ticks, runs = 160, 250
    rates = {"error_rate": rate}
    calibration = Calibration(tier=Tier.R0, interval_s=1.0, rates=rates)
    of = context(calibration, gates=(ERRORS,), warmup_s=30.0, weights_bp=(weight_bp, FULL_BP))
    plan = plan_of(of.policy, Known(rps, calibration))
    gate = plan.steps[0].gates[0]
    proof = Proof(gate.ceiling, False, 0.05, rate / gate.ceiling)
    per_tick = rps * weight_bp / FULL_BP * 5.0
    said = passing(pace_of(of.policy), proof, ticks, per_tick, rate)
    passed, _ = _judged(of, rps, (rate,), 1.0, ticks=ticks, runs=runs)
    seen = np.array([np.mean(passed <= tick) for tick in range(ticks)])
    # Two ticks for the requests' own fluctuation, and what 250 steps leave open: 1.36 / sqrt(250).
    assert np.all(seen[:-2] <= said[2:] + 0.086)
    assert np.all(seen[2:] >= said[:-2] - 0.086)
    ninth = tick_of(said, 0.9)
    assert ninth is not None
    assert seen[ninth] == pytest.approx(0.9, abs=0.07)


def test_gates_that_have_to_pass_together_do_so_when_the_plan_says() -> None:
    other = replace(ERRORS, signal="trace_error_ratio")
    calibration = Calibration(
        tier=Tier.R0, interval_s=1.0, rates={"error_rate": 0.002, "trace_error_ratio": 0.002}
    )
    of = context(calibration, gates=(ERRORS, other), warmup_s=30.0, weights_bp=(2_500, FULL_BP))
    passes = plan_of(of.policy, Known(20.0, calibration)).steps[0].passes
    passed, _ = _judged(of, 20.0, (0.002, 0.002), 1.0, ticks=80)
    ends = np.sort(passed) * 5.0 + 7.5
    assert passes.typical_s is not None
    assert passes.slow_s is not None
    assert ends[100] == pytest.approx(passes.typical_s, abs=15.0)
    assert ends[180] == pytest.approx(passes.slow_s, abs=30.0)


KNOWN_WELL = Calibration(
    tier=Tier.R2,
    interval_s=5.0,
    laws={"error_rate": Law(warmup_margin=((1.5,), (1.0,)), has_learnt_warmup=True)},
    rates={"error_rate": 0.002},
)


@pytest.mark.parametrize(
    ("calibration", "weight_bp", "rps", "ratio"),
    [
        (KNOWN_WELL, 5_000, 100.0, 4.0),
        (KNOWN_WELL, 500, 1000.0, 2.0),
        (KNOWN_WELL, 500, 200.0, 4.0),
        (None, 5_000, 100.0, 4.0),
        (None, 500, 1000.0, 4.0),
    ],
)
def test_regressions_are_found_when_the_plan_says_that_they_are(
    calibration: Calibration | None, weight_bp: int, rps: float, ratio: float
) -> None:
    """The plan's estimate is an approximation: within a fifth, and a tick."""
    of = context(calibration, gates=(ERRORS,), warmup_s=30.0, weights_bp=(weight_bp, FULL_BP))
    plan = plan_of(of.policy, Known(rps, calibration))
    said = plan.steps[0].gates[0].finds[ratio]
    assert said.typical_s is not None
    assert said.slow_s is not None
    _, severe = _judged(of, rps, (0.002,), ratio, ticks=round(said.slow_s / 5.0 * 1.5))
    ends = np.sort(severe) * 5.0 + 7.5
    assert said.typical_s == pytest.approx(ends[100], rel=0.2, abs=5.0)
    assert said.slow_s == pytest.approx(ends[180], rel=0.2, abs=5.0)


def test_a_regression_that_the_plan_does_not_find_is_mostly_missed() -> None:
    of = context(None, gates=(ERRORS,), warmup_s=30.0, weights_bp=(500, FULL_BP))
    plan = plan_of(of.policy, Known(10.0))
    assert plan.steps[0].gates[0].finds[4.0].typical_s is None
    _, severe = _judged(of, 10.0, (0.002,), 4.0, ticks=180, runs=100)
    assert np.mean(severe < 180) < 0.25


# --- how it counts


def test_ticks_are_counted_from_a_weight_that_came_in_mid_tick() -> None:
    pace = pace_of(evident(warmup_s=30.0, min_step_time_s=60.0))
    assert (pace.warming, pace.earliest) == (6, 11)
    assert pace.end_of(6) == 37.5
    assert pace.end_of(11) == 62.5
    assert pace.ticks_within(62.5) == 12
    assert pace.ticks_within(62.4) == 11


def test_a_coarse_grid_of_many_bad_events_counts_as_the_fine_one() -> None:
    """Just below and just above 16 bad events per tick, where the grid's cells begin to hold two."""
    pace, proof = Pace(5.0, 6, 0, 3), Proof(0.05, False, 0.05, 0.8)
    fine, coarse = (passing(pace, proof, 200, bad / 0.04, 0.04) for bad in (15.9, 16.1))
    assert 0.1 < fine[20] < 0.9
    assert np.max(np.abs(fine - coarse)) < 0.03


def test_long_steps_are_followed_in_longer_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, proof, ticks = Pace(1.0, 30, 59, 3), Proof(0.01, False, 0.05, 0.5), 6_000
    pooled = passing(pace, proof, ticks, 0.5, 0.005)
    monkeypatch.setattr(plan_passing, "MOST_TICKS", ticks)
    exact = passing(pace, proof, ticks, 0.5, 0.005)
    assert np.array_equal(pooled[:2_000], exact[:2_000])
    for share in (0.3, 0.5, 0.7):
        short, long = tick_of(exact, share), tick_of(pooled, share)
        assert short is not None
        assert long is not None
        assert abs(long - short) <= 0.01 * short


def test_clustered_events_take_as_many_times_longer_as_there_are_in_a_cluster() -> None:
    law = Law(clustering=3.0, warmup_margin=((1.0,), (1.0,)), has_learnt_warmup=True)
    single = replace(law, clustering=1.0)
    known = [
        Known(rps, Calibration(tier=Tier.R2, interval_s=5.0, laws={"error_rate": each}))
        for rps, each in ((30.0, law), (10.0, single))
    ]
    # The claim does not know of clusters, so compare where the strict one is made anyway.
    slow, fast = (_plan(each, weights_bp=(5_000, FULL_BP)).steps[0].passes for each in known)
    assert slow == fast


def test_more_traffic_is_never_slower() -> None:
    slow = [
        _plan(Known(rps), weights_bp=(5_000, FULL_BP)).steps[0].passes.slow_s or np.inf
        for rps in (5.0, 10.0, 20.0, 50.0, 100.0, 1000.0, 100_000.0)
    ]
    assert slow == sorted(slow, reverse=True)
    assert slow[-1] == 62.5


# --- what it concludes


def test_at_10_rps_and_5_percent_steps_pass_but_find_nothing() -> None:
    """What is published: 150 canary requests in five minutes, less than one of stable's errors; even a judge
    that knows everything needs ten minutes and misses a fifth."""
    plan = _plan(Known(10.0), weights_bp=LOW)
    assert plan.undecidable == ()
    assert [step.gates[0].claim for step in plan.steps] == [4.0, 3.0, 2.0, 1.5, 1.0, 1.0]
    assert all(step.gates[0].finds[4.0].slow_s is None for step in plan.steps[:-1])
    assert plan.steps[-1].gates[0].finds == {}


def test_a_first_step_with_too_little_traffic_is_undecidable() -> None:
    plan = _plan(Known(10.0), weights_bp=LOW, gates=(ERRORS, LOGS), max_step_time_s=600.0)
    assert [step.step for step in plan.undecidable] == [1]
    assert plan.steps[0].slowest.gate is LOGS
    assert plan.steps[0].gates[0].origin is Origin.ASSUMED


@pytest.mark.parametrize("rps", [0.5, 2.0, 6.0, 10.0, 30.0])
@pytest.mark.parametrize("gates", [(ERRORS,), (ERRORS, SLOWNESS, LOGS)])
def test_every_proposal_is_accepted_by_the_same_check(rps: float, gates: tuple[Gate, ...]) -> None:
    policy = evident(gates=gates, warmup_s=30.0, weights_bp=(100, 500, 10_000), max_step_time_s=300.0)
    assert plan_of(policy, Known(rps)).undecidable
    found = proposals(policy, Known(rps))
    assert found
    for each in found:
        changed = replace(policy, weights_bp=each.weights_bp, max_step_time_s=each.max_step_time_s)
        assert not plan_of(changed, Known(rps)).undecidable


@pytest.mark.parametrize("rps", [100.0, 20.0, 6.0])
def test_the_gentlest_weights_that_decide_are_proposed(rps: float) -> None:
    policy = evident(gates=(ERRORS,), warmup_s=30.0, weights_bp=(100, 10_000), max_step_time_s=300.0)
    best = proposals(policy, Known(rps))[0].weights_bp
    gentler = [each for each in STANDARD if each[0] < best[0]]
    assert len(gentler) == {100.0: 0, 20.0: 0, 6.0: 1}[rps]
    assert not any(decides(replace(policy, weights_bp=each), Known(rps)) for each in gentler)


def test_a_blue_green_policy_is_only_offered_more_time() -> None:
    policy = evident(
        gates=(ERRORS,), strategy=Strategy.BLUE_GREEN, weights_bp=(0, 10_000), max_step_time_s=120.0
    )
    plan = plan_of(policy, Known(2.0))
    assert [step.step for step in plan.undecidable] == [2]
    assert plan.steps[0].gates == ()
    found = proposals(policy, Known(2.0))
    assert [each.weights_bp for each in found] == [(0, 10_000)]


def test_a_healthy_rate_above_the_limit_decides_nothing_and_nothing_helps() -> None:
    policy, known = evident(gates=(ERRORS,)), Known(1000.0, healthy={"error_rate": 0.02})
    plan = plan_of(policy, known)
    assert plan.steps[2].passes.slow_s is None
    assert proposals(policy, known) == ()


def test_a_healthy_rate_just_below_the_limit_is_never_proven() -> None:
    """The judge argues for 85 % of the limit at most: 98 % of it looks no better than all of it."""
    policy = evident(gates=(ERRORS,), weights_bp=(5_000, 10_000))
    assert plan_of(policy, Known(1e6, healthy={"": 0.0098})).steps[0].passes.slow_s is None
    assert plan_of(policy, Known(1e6, healthy={"": 0.0085})).steps[0].is_decidable


def test_history_is_believed_before_assumptions_and_users_before_history() -> None:
    assert KNOWN_WELL.rates == {"error_rate": 0.002}
    learnt = _plan(Known(10.0, KNOWN_WELL)).steps[0].gates[0]
    told = _plan(Known(10.0, KNOWN_WELL, {"": 0.004})).steps[0].gates[0]
    assert (learnt.rate, learnt.origin) == (0.002, Origin.HISTORY)
    assert (told.rate, told.origin) == (0.004, Origin.GIVEN)


def test_what_lies_far_beyond_the_time_allowed_is_told_roughly() -> None:
    passes = _plan(Known(0.02), weights_bp=(500, FULL_BP)).steps[0].passes
    assert passes.is_rough
    assert passes.slow_s is not None
    assert passes.slow_s > 86_400.0


@pytest.mark.parametrize("known", [(0.0, {}), (float("nan"), {}), (10.0, {"error_rate": 1.0})])
def test_traffic_and_rates_that_cannot_be_are_refused(known: tuple[float, dict[str, float]]) -> None:
    with pytest.raises(PolicyError, match=r"must lie"):
        Known(known[0], healthy=known[1])
