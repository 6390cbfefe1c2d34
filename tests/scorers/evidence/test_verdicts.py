"""The table of verdicts, row by row and at its borders."""

from __future__ import annotations

from math import log

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.calibration import Calibration, Law, Tier
from domain.decision import CommandKind
from domain.policy import Strategy
from domain.signal import Quality
from domain.verdict import Score, Verdict
from scorers.evidence import layout as at
from scorers.fold import fold
from tests.scorers.evidence.rows import IDEAL, SOURCES, WARM, Seen, Told, evidence, evident
from tests.scorers.situations import ERRORS, T0, spec
from tests.scorers.telemetry import command, errors, tick, warm

HEALTHY = Seen(n=1000, bad=5, base_n=9000, base_bad=45)
PATIENT = replace(WARM, threshold=60.0)
"""History in which nothing short of 60 nats is severe: what else makes a gate severe can be seen."""
LOGS = replace(ERRORS, signal="log_error_ratio")
TRACES = replace(ERRORS, signal="trace_error_ratio")
KNOWN = replace(WARM, laws={each.signal: WARM.laws["error_rate"] for each in (ERRORS, LOGS, TRACES)})
DOUBT = log(20.0)


def verdicts(told: Told, *seen: Seen | None) -> list[Verdict]:
    return [told.tick(each).verdict for each in seen]


# NO_DATA.


def test_without_the_canarys_total_there_is_no_data() -> None:
    told = Told()
    told.ticks(5, HEALTHY)
    score = told.tick(None)
    assert (score.verdict, score.reason) == (Verdict.NO_DATA, "error_rate: no data: prom is silent")


def test_without_stables_total_there_is_no_data_while_it_should_have_traffic() -> None:
    alone = Seen(n=1000, bad=5, has_stable=False)
    told = Told()
    told.ticks(5, HEALTHY)
    score = told.tick(alone)
    assert (score.verdict, score.reason) == (
        Verdict.NO_DATA,
        "error_rate: no data: stable's total is missing or too old",
    )
    assert told.tick(alone, is_settled=False).verdict is not Verdict.NO_DATA
    told.go_to(3)
    assert told.tick(alone).verdict is not Verdict.NO_DATA


@pytest.mark.parametrize(
    ("whole", "damaged", "is_too_much"),
    [(1, 1, False), (8, 2, False), (7, 2, True), (80, 20, False), (79, 20, True)],
)
def test_more_than_a_fifth_of_the_steps_ticks_damaged_is_no_data(
    whole: int, damaged: int, is_too_much: bool
) -> None:
    told = Told()
    told.ticks(damaged, Seen(n=1000, bad=5, base_n=9000, base_bad=45, quality=Quality.PARTIAL))
    score = told.ticks(whole, HEALTHY)
    assert (score.verdict is Verdict.NO_DATA) == is_too_much
    assert score.verdict in (Verdict.PASS, Verdict.NO_DATA)
    assert evidence(score).damaged == pytest.approx(damaged / (whole + damaged), abs=1e-9)
    told.go_to(1)
    score = told.ticks(8, HEALTHY)
    assert (score.verdict, evidence(score).damaged) == (Verdict.PASS, 0.0)


def test_damaged_ticks_excuse_no_failure() -> None:
    told = Told(PATIENT)
    score = told.ticks(3, Seen(n=1000, bad=20, base_n=9000, base_bad=45, quality=Quality.PARTIAL))
    assert (score.verdict, evidence(score).damaged) == (Verdict.FAIL, 1.0)


# SEVERE by the rollout's evidence.


@pytest.mark.parametrize(("tier", "share"), [(Tier.R2, 0.004), (Tier.R1, 0.007)])
def test_thresholds_spend_their_tiers_share_of_alpha_or_what_history_asks(tier: Tier, share: float) -> None:
    known = replace(WARM, tier=tier)
    for changes in range(4):
        spent = share / 2**changes
        told = Told(known, changes=changes)
        assert evidence(told.tick(HEALTHY)).threshold == pytest.approx(log(1 / spent), abs=1e-9)
        asked = Told(replace(known, threshold=7.5), changes=changes)
        assert evidence(asked.tick(HEALTHY)).threshold == pytest.approx(7.5 + changes * log(2), abs=1e-9)
        modest = Told(replace(known, threshold=0.1), changes=changes)
        assert evidence(modest.tick(HEALTHY)).threshold == pytest.approx(log(1 / spent), abs=1e-9)


def test_a_threshold_learnt_for_another_alpha_is_taken_for_this_one() -> None:
    known = replace(WARM, threshold=9.0, alpha=0.05)
    assert evidence(Told(known).tick(HEALTHY)).threshold == pytest.approx(9.0 + log(5), abs=1e-9)


def test_what_nobody_knows_is_held_to_the_whole_alpha() -> None:
    score = Told(None).tick(HEALTHY)
    assert (evidence(score).threshold, evidence(score).tier) == (pytest.approx(log(100), abs=1e-9), "R0")


def test_a_calibration_of_another_tick_length_is_none() -> None:
    assert evidence(Told(replace(WARM, interval_s=10.0)).tick(HEALTHY)).tier == "R0"


@given(st.lists(st.sampled_from([0, 5, 8, 12, 15, 30]), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_verdicts_follow_from_the_numbers_beside_them(bads: list[int]) -> None:
    """Evidence at the threshold is severe, one in twenty fails, a proof passes; the rest is open."""
    told, over_run, was_severe = Told(), 0, False
    window: list[int] = []
    for bad in bads:
        score = told.tick(Seen(n=1000, bad=bad, base_n=9000, base_bad=45))
        found = evidence(score)
        window = [*window[-11:], bad]
        over_run = over_run + 1 if sum(window) >= 3 and sum(window) > 0.01 * 1000 * len(window) else 0
        was_severe = was_severe or found.log_e_rollout >= found.threshold
        if was_severe:
            assert score.verdict is Verdict.SEVERE
        elif found.log_e_fail >= DOUBT:
            assert (score.verdict, score.shared) == (Verdict.FAIL, False)
        elif over_run >= 3:
            assert (score.verdict, score.shared) == (Verdict.FAIL, True)
        elif found.log_e_pass >= log(20.0):
            assert score.verdict is Verdict.PASS
        else:
            assert score.verdict is Verdict.INCONCLUSIVE


def test_a_severe_gate_stays_severe_whatever_follows() -> None:
    told = Told()
    assert told.ticks(3, Seen(n=1000, bad=40, base_n=9000, base_bad=45)).verdict is Verdict.SEVERE
    silent = Seen(n=1000, bad=0, has_stable=False)
    assert verdicts(told, *[HEALTHY] * 40, None, silent) == [Verdict.SEVERE] * 42
    assert evidence(told.tick(HEALTHY)).log_e_fail < evidence(told.tick(HEALTHY)).threshold
    told.go_to(1)
    assert told.tick(HEALTHY).verdict is Verdict.SEVERE


def test_anytime_p_never_rises() -> None:
    told, last = Told(), 1.0
    rng = np.random.default_rng(8)
    for _ in range(60):
        found = evidence(told.tick(Seen(n=1000, bad=float(rng.poisson(7)), base_n=9000, base_bad=45)))
        assert found.anytime_p <= last
        last = found.anytime_p
    assert last < 0.5


# Immaterial.


@pytest.mark.parametrize("ratio", [1.1, 1.2])
def test_a_small_regression_at_huge_traffic_neither_rolls_back_nor_fails(ratio: float) -> None:
    told = Told()
    seen = Seen(n=1e6, bad=round(4000 * ratio), base_n=1e6, base_bad=4000)
    assert verdicts(told, *[seen] * 60)[-1] is Verdict.PASS
    assert Verdict.FAIL not in verdicts(told, *[seen] * 10)
    if ratio == 1.2:
        assert evidence(told.tick(seen)).log_e_fail > evidence(told.tick(seen)).threshold


def test_a_small_regression_stays_small_when_one_tick_proves_it() -> None:
    gate = replace(ERRORS, slo=0.5, severe=0.9)
    told = Told(gates=(gate,))
    seen = Seen(n=400_000, bad=round(80_000 * 1.22), base_n=400_000, base_bad=80_000)
    assert told.tick(seen).verdict is not Verdict.SEVERE


@pytest.mark.parametrize(("min_ratio", "verdict"), [(1.25, Verdict.SEVERE), (3.0, Verdict.PASS)])
def test_what_is_material_is_for_the_policy_to_say(min_ratio: float, verdict: Verdict) -> None:
    told = Told(min_ratio=min_ratio)
    assert told.ticks(20, Seen(n=100_000, bad=800, base_n=900_000, base_bad=3600)).verdict is verdict


# SEVERE by the severe limit.


@pytest.mark.parametrize(("bad", "verdict"), [(49, Verdict.FAIL), (50, Verdict.SEVERE)])
def test_at_its_severe_limit_a_gate_is_severe_before_the_rollouts_evidence_is(
    bad: int, verdict: Verdict
) -> None:
    score = Told(PATIENT).tick(Seen(n=1000, bad=bad, base_n=9000, base_bad=45))
    assert evidence(score).log_e_rollout < evidence(score).threshold
    assert score.verdict is verdict


@pytest.mark.parametrize(("worse", "verdict"), [(2, Verdict.FAIL), (3, Verdict.SEVERE)])
def test_a_severe_limit_needs_enough_events_beyond_it(worse: int, verdict: Verdict) -> None:
    gate = replace(ERRORS, severe=0.03)
    seen = Seen(n=60, bad=20, worse=worse, base_n=9000, base_bad=45)
    assert Told(PATIENT, gates=(gate,)).tick(seen).verdict is verdict


def test_a_severe_breach_that_chance_may_explain_is_not_severe() -> None:
    """A share of 5 % of sixty requests: three errors, which a limit of 1 % may well bring."""
    score = Told(PATIENT).tick(Seen(n=60, bad=3, base_n=100_000, base_bad=1))
    assert evidence(score).log_e_fail >= DOUBT
    assert evidence(score).log_e_slo < log(100)
    assert score.verdict is Verdict.FAIL


@pytest.mark.parametrize(("changes", "verdict"), [(0, Verdict.SEVERE), (1, Verdict.FAIL)])
def test_a_severe_breach_has_to_convince_at_the_alpha_that_is_left(changes: int, verdict: Verdict) -> None:
    score = Told(PATIENT, changes=changes).tick(Seen(n=152, bad=8, base_n=100_000, base_bad=10))
    assert log(100) <= evidence(score).log_e_slo < log(200)
    assert score.verdict is verdict


def test_a_severe_breach_that_stable_shares_is_the_environments() -> None:
    told = Told(PATIENT)
    outage = Seen(n=1000, bad=300, base_n=9000, base_bad=2700)
    first, second, third = (told.tick(outage) for _ in range(3))
    assert [first.verdict, second.verdict] == [Verdict.INCONCLUSIVE] * 2
    assert (third.verdict, third.shared) == (Verdict.FAIL, True)
    assert evidence(third).log_e_slo > 50
    assert third.reason == (
        "error_rate 30 % for 3 ticks (limit 1 %), and 30 % on stable: the environment, not the canary"
    )


# FAIL.


@pytest.mark.parametrize("fail_count", [1, 3, 5])
def test_a_window_over_its_limit_fails_after_so_many_ticks(fail_count: int) -> None:
    told = Told(fail_count=fail_count)
    over = Seen(n=1000, bad=11, base_n=9000, base_bad=99)
    found = [told.tick(over) for _ in range(fail_count)]
    assert Verdict.FAIL not in [score.verdict for score in found[:-1]]
    assert (found[-1].verdict, found[-1].shared) == (Verdict.FAIL, True)


def test_a_window_at_its_limit_keeps_it_and_one_good_tick_starts_the_count_again() -> None:
    gate = replace(ERRORS, window_s=5.0)
    over, at_limit = Seen(n=1000, bad=11, base_bad=99), Seen(n=1000, bad=10, base_bad=90)
    assert Verdict.FAIL not in verdicts(Told(gates=(gate,)), *[at_limit] * 10)
    told = Told(gates=(gate,))
    found = verdicts(told, over, over, at_limit, over, over, None, over)
    assert found.count(Verdict.FAIL) == 1
    assert found[-1] is Verdict.FAIL


@pytest.mark.parametrize(("n", "bad"), [(99.0, 50.0), (1000.0, 2.0)])
def test_a_window_of_few_samples_or_events_fails_nobody(n: float, bad: float) -> None:
    gate = replace(ERRORS, slo=0.001, window_s=5.0)
    seen = Seen(n=n, bad=bad, base_n=9 * n, base_bad=9 * bad)
    assert Verdict.FAIL not in verdicts(Told(gates=(gate,)), *[seen] * 5)


def test_a_breach_that_cannot_be_told_from_stables_is_said_to_be_so() -> None:
    gate = replace(ERRORS, window_s=15.0)
    score = Told(gates=(gate,)).ticks(4, Seen(n=100, bad=2, base_n=900, base_bad=9))
    assert (score.verdict, score.shared) == (Verdict.FAIL, True)
    assert score.reason == (
        "error_rate 2 % for 3 ticks (limit 1 %), but no worse than stable as far as 300 requests can tell"
    )


# PASS.


def test_a_proof_passes_at_its_beta_and_not_before() -> None:
    for beta in (0.5, 0.05, 0.001):
        told = Told(beta=beta)
        for _ in range(60):
            score = told.tick(Seen(n=100, bad=0, base_n=900, base_bad=4))
            assert (score.verdict is Verdict.PASS) == (evidence(score).log_e_pass >= log(1 / beta))
        assert score.verdict is Verdict.PASS


def test_a_new_step_has_to_prove_its_own_claim() -> None:
    told = Told()
    small = Seen(n=100, bad=0, base_n=900, base_bad=4)
    first = told.ticks(60, small)
    told.go_to(1)
    second = told.tick(small)
    assert (first.verdict, second.verdict) == (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert 0.0 < evidence(second).log_e_pass < log(20.0) < evidence(first).log_e_pass
    assert evidence(second).log_e_fail == pytest.approx(evidence(first).log_e_fail, abs=0.5)


def test_the_last_step_before_all_traffic_proves_the_limit_itself() -> None:
    """1.5 % keeps claims of 3 and 2 %, never the limit of 1 %. Nobody looks at the window here."""
    gate = replace(ERRORS, min_samples=10**9)
    told = Told(replace(WARM, rates={"error_rate": 0.015}), gates=(gate,))
    between = Seen(n=1000, bad=15, base_n=9000, base_bad=135)
    found = []
    for step in range(3):
        told.go_to(step)
        found.append(told.ticks(20, between))
    assert [evidence(score).claim for score in found] == [3.0, 2.0, 1.0]
    assert [score.verdict for score in found] == [Verdict.PASS, Verdict.PASS, Verdict.INCONCLUSIVE]


def test_what_may_be_bad_proves_nothing_and_is_held_against_nobody() -> None:
    """A latency limit between two bucket edges: 0.2 % are slower for certain, 4 % perhaps."""
    doubtful = Seen(n=1000, bad=2, suspect=40, base_n=9000, base_bad=18)
    told = Told()
    found = [told.tick(doubtful) for _ in range(10)]
    assert {score.verdict for score in found} == {Verdict.INCONCLUSIVE}
    assert evidence(found[-1]).log_e_pass < 0.0
    assert evidence(found[-1]).log_e_slo < 0.0
    assert not found[-1].point_holds


def test_nothing_passes_before_the_warm_up_is_over() -> None:
    told = Told(warmup_s=10.0)
    found = [told.tick(HEALTHY) for _ in range(3)]
    assert [score.verdict for score in found] == [Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, Verdict.PASS]
    assert found[0].reason == "error_rate: no whole tick after this step's warm-up yet"


def test_an_open_step_says_how_many_requests_and_seconds_are_missing() -> None:
    score = Told().ticks(3, Seen(n=40, bad=0, base_n=360, base_bad=2))
    assert score.verdict is Verdict.INCONCLUSIVE
    assert score.eta_s is not None
    assert score.samples_needed > 0
    assert score.eta_s == pytest.approx(score.samples_needed / 8.0, abs=0.1)
    assert score.reason.startswith(f"error_rate: {score.samples_needed:,.0f} more requests (about ")


def test_more_requests_cannot_help_a_canary_beyond_its_claim() -> None:
    gate = replace(ERRORS, min_samples=10_000)
    score = Told(gates=(gate,)).ticks(3, Seen(n=100, bad=6, base_n=900, base_bad=54))
    assert (score.verdict, score.samples_needed, score.eta_s) == (Verdict.INCONCLUSIVE, 0.0, None)
    assert score.reason == "error_rate: 6 % of 300 cannot show that it stays below 3 %"


def test_an_idle_canary_is_said_to_be_idle() -> None:
    score = Told().ticks(2, Seen(n=0, base_n=9000, base_bad=45))
    assert (score.verdict, score.reason) == (Verdict.INCONCLUSIVE, "error_rate: the canary gets no traffic")


def test_a_busy_canary_is_not_said_to_be_idle() -> None:
    """Its first increment reaches back before the weight, so it is no evidence; but it is traffic."""
    score = Told().tick(Seen(n=1000, bad=5, base_n=9000, base_bad=45, reach_s=3.0))
    assert score.reason == "error_rate: no whole tick after this step's warm-up yet"


# Nothing to compare with.


def at_full(before: Seen, *then: Seen, known: Calibration | None = WARM) -> list[Score]:
    """Twenty ticks at 50 %, and then all traffic on the canary."""
    told = Told(known)
    told.go_to(2)
    told.ticks(20, before)
    told.go_to(3)
    return [told.tick(each) for each in then]


ALONE = {share: Seen(n=2000, bad=2000 * share, base_n=0) for share in (0.002, 0.03, 0.05, 0.2)}
AT_HALF = Seen(n=1000, bad=5, base_n=1000, base_bad=5)
STABLE_BROKEN = Seen(n=1000, bad=30, base_n=1000, base_bad=30)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_alone_a_severe_breach_is_severe_when_stable_kept_the_limit(share: float) -> None:
    (score,) = at_full(AT_HALF, ALONE[share])
    assert evidence(score).log_e_slo >= log(100)
    assert score.verdict is Verdict.SEVERE
    assert score.reason.startswith(
        f"error_rate {share * 100:g} %, limit 1 %, 2,000 requests, false-alarm chance"
    )


def test_alone_a_severe_breach_only_fails_when_stable_broke_the_limit_as_well() -> None:
    found = at_full(STABLE_BROKEN, *[ALONE[0.2]] * 4)
    assert {(score.verdict, score.shared) for score in found} == {(Verdict.FAIL, True)}
    assert evidence(found[-1]).log_e_slo > 50


def test_alone_a_milder_breach_only_fails() -> None:
    found = at_full(AT_HALF, *[ALONE[0.03]] * 20)
    assert (found[-1].verdict, found[-1].shared) == (Verdict.FAIL, True)
    assert Verdict.SEVERE not in {score.verdict for score in found}
    assert (
        found[-1].reason == "error_rate 3 % for 20 ticks (limit 1 %), with no stable traffic to compare with"
    )


def test_alone_a_severe_share_that_chance_may_explain_is_not_severe() -> None:
    (score,) = at_full(AT_HALF, Seen(n=60, bad=3, base_n=0))
    assert evidence(score).log_e_slo < log(100)
    assert score.verdict is not Verdict.SEVERE


def test_alone_a_healthy_canary_passes() -> None:
    found = at_full(AT_HALF, *[ALONE[0.002]] * 3)
    assert found[-1].verdict is Verdict.PASS
    assert evidence(found[-1]).damaged == 0.0


def test_a_first_deployment_has_nothing_to_compare_with_either() -> None:
    assert Told().tick(Seen(n=2000, bad=400, base_n=0)).verdict is Verdict.SEVERE
    mild = Told().ticks(5, Seen(n=2000, bad=50, base_n=0))
    assert (mild.verdict, mild.shared) == (Verdict.FAIL, True)


@pytest.mark.parametrize(("stable_bad", "verdict"), [(5, Verdict.SEVERE), (30, Verdict.FAIL)])
def test_after_a_blue_green_switch_stables_last_window_decides(stable_bad: int, verdict: Verdict) -> None:
    told = Told(strategy=Strategy.BLUE_GREEN, weights_bp=(0, 10_000))
    told.ticks(12, Seen(n=0, base_n=1000, base_bad=stable_bad))
    told.go_to(1)
    score = told.ticks(3, ALONE[0.2])
    assert score.verdict is verdict


# Several gates.


def test_only_the_guilty_gate_is_severe() -> None:
    told = Told(KNOWN, gates=(ERRORS, LOGS, TRACES))
    broken = Seen(n=1000, bad=40, base_n=9000, base_bad=45)
    told.ticks(3, HEALTHY, broken, HEALTHY)
    found = told.all(HEALTHY, broken, HEALTHY)
    assert [score.verdict for score in found] == [Verdict.PASS, Verdict.SEVERE, Verdict.PASS]
    assert len({evidence(score).log_e_rollout for score in found}) == 1
    assert evidence(found[1]).log_e_rollout == pytest.approx(evidence(found[1]).log_e_fail - log(3), abs=1e-6)


def test_one_gates_evidence_is_shared_out_among_all() -> None:
    """What convicts alone need not convict in the company of nine: the promise is the rollout's."""
    broken = Seen(n=1000, bad=17, base_n=9000, base_bad=45)
    alone, three = Told(KNOWN), Told(KNOWN, gates=(ERRORS, LOGS, TRACES))
    for _ in range(50):
        one, many = alone.tick(broken), three.tick(broken, HEALTHY, HEALTHY)
        if one.verdict is Verdict.SEVERE:
            break
    assert one.verdict is Verdict.SEVERE
    assert many.verdict is Verdict.FAIL
    assert evidence(many).log_e_rollout < evidence(one).log_e_rollout


def test_gates_of_unlike_thresholds_have_to_reach_the_highest() -> None:
    """Log lines of a service whose errors alone are known: tier R2 asks for more than R0."""
    for gates in ((ERRORS, LOGS), (LOGS, ERRORS)):
        found = Told(WARM, gates=gates).all(HEALTHY, HEALTHY)
        assert {evidence(score).tier for score in found} == {"R0", "R2"}
        assert {evidence(score).threshold for score in found} == {round(log(250), 9)}


def test_gates_in_another_order_have_the_same_scores() -> None:
    rng = np.random.default_rng(9)
    gates = (ERRORS, LOGS, TRACES)
    order = (2, 0, 1)
    one, other = Told(KNOWN, gates=gates), Told(KNOWN, gates=tuple(gates[each] for each in order))
    for _ in range(40):
        seen = [Seen(n=1000, bad=float(rng.poisson(rate)), base_n=9000, base_bad=45) for rate in (5, 9, 6)]
        found, shuffled = one.all(*seen), other.all(*(seen[each] for each in order))
        assert [replace(score, gate=0) for score in shuffled] == [
            replace(found[each], gate=0) for each in order
        ]


def test_changed_gates_start_afresh_with_half_of_alpha() -> None:
    current = warm(spec(evident(), sources=SOURCES, calibration=WARM))
    for position in range(1, 6):
        end = T0 + 5.0 * position
        folded = fold(current, tick(end, errors(end, 3.0, 300.0, stable_bad=14.0)))
        current = folded.fold
    before = evidence(folded.evaluation.scores[0])
    wanted = replace(current.context.policy, gates=(replace(ERRORS, slo=0.02),))
    current = fold(current, command(CommandKind.CHANGE_POLICY, T0 + 26.0, policy=wanted)).fold
    assert current.gates[0].memory == b""
    folded = fold(current, tick(T0 + 30.0, errors(T0 + 30.0, 0.0, 1.0)))
    after = evidence(folded.evaluation.scores[0])
    assert after.threshold == pytest.approx(before.threshold + log(2), abs=1e-9)
    assert (after.log_e_fail, after.anytime_p) == (pytest.approx(0.0, abs=1e-6), pytest.approx(1.0))


# Reasons.

MANY = st.tuples(
    st.sampled_from([0.0, 1.0, 60.0, 1000.0, 1e6]), st.sampled_from([0.0, 0.004, 0.03, 0.5, 1.0])
)


@given(
    st.lists(st.tuples(MANY, MANY, st.integers(0, 9), st.booleans()), min_size=1, max_size=10),
    st.sampled_from([None, IDEAL, WARM, PATIENT]),
)
@settings(max_examples=150, deadline=None)
def test_every_reason_is_one_short_line_and_every_score_can_be_stored(
    ticks: list[tuple[tuple[float, float], tuple[float, float], int, bool]], known: Calibration | None
) -> None:
    told = Told(known, warmup_s=5.0)
    for (n, rate), (base_n, base_rate), odd, moves in ticks:
        seen = Seen(
            n=n,
            bad=float(round(n * rate)),
            base_n=base_n,
            base_bad=float(round(base_n * base_rate)),
            has_stable=odd != 1,
            quality=Quality.PARTIAL if odd == 2 else Quality.WHOLE,
        )
        score = told.tick(None if odd == 0 else seen, is_settled=odd != 3)
        assert "\n" not in score.reason
        assert 10 < len(score.reason) < 160, score.reason
        assert "nan" not in score.reason
        assert "inf" not in score.reason
        assert "-" not in score.reason.replace("false-alarm", "").replace("warm-up", ""), (
            "no negative numbers"
        )
        assert msgspec.json.decode(msgspec.json.encode(score), type=Score) == score
        if moves:
            told.go_to(min(told.step + 1, 3))


def test_what_people_read() -> None:
    told = Told()
    assert told.tick(HEALTHY).reason == (
        "error_rate: 0.5 % of 1,000: below 3 % (this step's claim, 3x the limit), chance of error < 0.1 %"
    )
    failing = Told(PATIENT).ticks(2, Seen(n=1000, bad=20, base_n=9000, base_bad=45))
    assert failing.reason == (
        "error_rate 2 % vs 0.5 % on stable (ratio 2–7.6), 2,000 requests, false-alarm chance < 0.1 %"
    )


def test_a_law_with_warm_up_margins_says_so() -> None:
    law = Law(warmup_margin=((4.0, 2.0), (1.5,)), has_learnt_warmup=True)
    told = Told(replace(WARM, laws={"error_rate": law}), warmup_s=30.0)
    margins = [evidence(told.tick(HEALTHY)).margin for _ in range(10)]
    assert margins == [4.0, 4.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0]
    told.go_to(1)
    assert evidence(told.tick(HEALTHY)).margin == 1.5
    assert told.memory()[at.TICKS] == 11
