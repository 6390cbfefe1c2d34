"""Each rule of the decision machine at its borders. The whole table: ``test_decision_table``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from domain.decision import ActionOutcome, Cause, CommandKind, DecisionKind, IncidentKind, Order
from domain.errors import IllegalTransition
from domain.policy import NoDataRule, OnDrift, OnFail, OnInconclusive
from domain.rollout import PauseCause, Phase
from domain.verdict import Score, Verdict, combine
from scorers.decision_machine import TABLE, Conclusion, window_since
from scorers.events import Event, Happening
from tests.scorers.situations import (
    SITUATIONS,
    T0,
    Rollout,
    aborted,
    analysing,
    at_full_weight,
    baking,
    failed,
    finalising,
    paused_actuation,
    paused_approval,
    paused_drift,
    paused_fail,
    paused_inconclusive,
    paused_no_data,
    paused_operator,
    paused_shared,
    queued,
    rolling_back,
    shifting,
    starting,
    warming,
)

PASS, INCONCLUSIVE, NO_DATA = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.NO_DATA
FAIL, SEVERE = Verdict.FAIL, Verdict.SEVERE
UNTIMED = {"min_step_time_s": 0.0}


def kinds(conclusion: Conclusion) -> list[IncidentKind]:
    return [incident.kind for incident in conclusion.incidents]


def accepted(conclusion: Conclusion) -> bool:
    assert conclusion.answer is not None
    return conclusion.answer.accepted


# Rule 1: one order in flight.


def test_every_order_raises_the_generation_by_one_and_nothing_else_does() -> None:
    rollout = analysing(**UNTIMED)
    rollout.ticks(PASS, 3)
    rollout.verified()
    rollout.command(CommandKind.PAUSE)
    rollout.command(CommandKind.RESUME)
    rollout.command(CommandKind.ABORT)
    orders = [each for each in rollout.decisions if each.order is not Order.NONE]
    assert [each.order for each in orders] == [Order.PREPARE, Order.SHIFT, Order.SHIFT, Order.RESTORE]
    assert [each.generation for each in orders] == [1, 2, 3, 4]
    assert [each.generation for each in rollout.decisions if each.order is Order.NONE] == [3, 3]


@pytest.mark.parametrize("row", ["starting", "shifting", "paused_actuation", "rolling_back", "finalising"])
@pytest.mark.parametrize("outcome", [ActionOutcome.VERIFIED, ActionOutcome.NOT_APPLIED, ActionOutcome.DRIFT])
def test_the_outcome_of_an_older_order_is_counted_and_otherwise_ignored(
    row: str, outcome: ActionOutcome
) -> None:
    rollout = SITUATIONS[row]()
    before = rollout.state
    conclusion = rollout.report(outcome, observed_bp=0, generation=before.generation - 1)
    assert rollout.state == replace(before, seq=before.seq + 1)
    assert (conclusion.decision, conclusion.incidents) == (None, ())


def test_a_weight_verified_after_an_abort_does_not_bring_the_rollout_back() -> None:
    rollout = shifting()
    going_up = rollout.state.generation
    rollout.command(CommandKind.ABORT)
    rollout.report(ActionOutcome.VERIFIED, observed_bp=500, generation=going_up)
    assert rollout.state.phase is Phase.ROLLING_BACK


# Rule 2: down beats everything.


@pytest.mark.parametrize(
    "row", [row for row in SITUATIONS if row.startswith(("shift", "warm", "anal", "pause", "bak"))]
)
def test_severe_pre_empts_whatever_is_going_on(row: str) -> None:
    rollout = SITUATIONS[row]()
    conclusion = rollout.tick(SEVERE)
    assert rollout.state.phase is Phase.ROLLING_BACK
    assert conclusion.decision is not None
    assert (conclusion.decision.order, conclusion.decision.weight_bp) == (Order.RESTORE, 0)
    assert rollout.state.in_flight == conclusion.decision


def test_after_severe_nothing_resumes() -> None:
    rollout = rolling_back()
    rollout.ticks(PASS, 50)
    for kind in (CommandKind.RESUME, CommandKind.ADVANCE, CommandKind.PROMOTE, CommandKind.PAUSE):
        assert not accepted(rollout.command(kind, force=True))
    assert rollout.state.phase is Phase.ROLLING_BACK
    assert rollout.verified(observed_bp=0).state.phase is Phase.ROLLED_BACK


def test_severe_and_then_abort_ends_rolled_back() -> None:
    rollout = rolling_back()
    assert accepted(rollout.command(CommandKind.ABORT))
    assert rollout.verified(observed_bp=0).state.phase is Phase.ROLLED_BACK


def test_abort_and_then_severe_ends_aborted() -> None:
    rollout = analysing()
    rollout.command(CommandKind.ABORT)
    rollout.tick(SEVERE)
    assert rollout.verified(observed_bp=0).state.phase is Phase.ABORTED


def test_an_abort_while_starting_ends_only_when_nothing_is_in_force() -> None:
    rollout = starting()
    rollout.command(CommandKind.ABORT)
    assert rollout.state.phase is Phase.ROLLING_BACK
    assert rollout.verified(observed_bp=0).state.phase is Phase.ABORTED


def test_a_roll_back_is_not_over_while_the_canary_still_gets_traffic() -> None:
    rollout = rolling_back()
    conclusion = rollout.verified(observed_bp=100)
    assert rollout.state.phase is Phase.ROLLING_BACK
    assert conclusion.decision is not None
    assert conclusion.decision.order is Order.RESTORE


# Rule 3: a tick's verdict.


@pytest.mark.parametrize(
    ("required", "optional", "meant"),
    [
        (PASS, PASS, PASS),
        (PASS, INCONCLUSIVE, PASS),
        (PASS, NO_DATA, PASS),
        (PASS, FAIL, FAIL),
        (PASS, SEVERE, SEVERE),
        (INCONCLUSIVE, NO_DATA, INCONCLUSIVE),
        (NO_DATA, PASS, NO_DATA),
        (NO_DATA, FAIL, FAIL),
        (FAIL, SEVERE, SEVERE),
    ],
)
def test_an_optional_gate_may_fail_a_tick_but_never_block_it(
    required: Verdict, optional: Verdict, meant: Verdict
) -> None:
    scores = [
        Score(gate=0, signal="error_rate", verdict=required, reason=""),
        Score(gate=1, signal="trace_error_ratio", verdict=optional, reason="", required=False),
    ]
    assert combine(scores) is meant
    assert combine(scores[::-1]) is meant


def test_the_order_of_gravity_is_severe_fail_no_data_inconclusive_pass() -> None:
    ordered = sorted(Verdict, key=lambda verdict: verdict.gravity, reverse=True)
    assert ordered == [SEVERE, FAIL, NO_DATA, INCONCLUSIVE, PASS]


# Rule 4: the pass counter.


def test_the_last_of_the_passes_leads_on_and_the_one_before_does_not() -> None:
    rollout = analysing(**UNTIMED)
    assert rollout.ticks(PASS, 2).decision is None
    conclusion = rollout.tick(PASS)
    assert conclusion.decision is not None
    assert (conclusion.decision.kind, conclusion.decision.weight_bp) == (DecisionKind.ADVANCE, 2000)
    assert rollout.state.passes == 0


def test_an_inconclusive_tick_clears_the_counter() -> None:
    rollout = analysing(**UNTIMED)
    rollout.ticks(PASS, 2)
    rollout.tick(INCONCLUSIVE)
    rollout.ticks(PASS, 2)
    assert rollout.state.phase is Phase.ANALYSING
    assert rollout.tick(PASS).state.phase is Phase.SHIFTING


@pytest.mark.parametrize(("silent", "left"), [(1, 2), (2, 2), (3, 0)])
def test_no_data_freezes_the_counter_for_two_ticks_and_then_clears_it(silent: int, left: int) -> None:
    rollout = analysing(**UNTIMED)
    rollout.ticks(PASS, 2)
    rollout.ticks(NO_DATA, silent)
    assert rollout.state.passes == left
    rollout.tick(PASS)
    assert rollout.state.phase is (Phase.SHIFTING if left else Phase.ANALYSING)


def test_silences_apart_from_each_other_do_not_add_up() -> None:
    rollout = analysing(**UNTIMED, pass_count=5)
    for _ in range(4):
        rollout.ticks(NO_DATA, 2)
        rollout.tick(PASS)
    assert rollout.state.passes == 4


@pytest.mark.parametrize(("lag_s", "counts"), [(0.0, True), (9.99, True), (10.0, True), (10.01, False)])
def test_a_pass_counts_while_it_is_at_most_two_ticks_behind_the_clock(lag_s: float, counts: bool) -> None:
    rollout = analysing(**UNTIMED)
    rollout.ticks(PASS, 2)
    rollout.tick(PASS, lag_s=lag_s)
    assert rollout.state.phase is (Phase.SHIFTING if counts else Phase.ANALYSING)
    assert rollout.state.passes == (0 if counts else 2)


@pytest.mark.parametrize(("skipped", "left"), [(0, 3), (1, 3), (2, 3), (3, 1)])
def test_a_gap_of_more_than_two_ticks_clears_the_counter(skipped: int, left: int) -> None:
    rollout = analysing(**UNTIMED, pass_count=9)
    rollout.ticks(PASS, 2)
    rollout.tick(PASS, skipped=skipped)
    assert rollout.state.passes == left


def test_the_minimum_time_of_a_step_counts_from_verified_with_its_warm_up() -> None:
    rollout = warming(warmup_s=30.0, min_step_time_s=60.0)
    rollout.wait(30.0)
    rollout.ticks(PASS, 5)
    assert rollout.now - rollout.state.step_began == 55.0
    assert (rollout.state.phase, rollout.state.passes) == (Phase.ANALYSING, 5)
    assert rollout.tick(PASS).state.phase is Phase.SHIFTING
    assert rollout.now - rollout.state.step_began == 60.0


def test_the_clock_of_a_step_starts_when_its_weight_is_in_force_and_not_when_it_was_ordered() -> None:
    rollout = shifting()
    rollout.wait(25.0)
    rollout.verified()
    assert rollout.state.step_began == T0 + 25.0
    assert rollout.state.warm_at == T0 + 55.0


def test_passes_of_one_step_do_not_count_for_the_next() -> None:
    rollout = analysing(**UNTIMED)
    rollout.ticks(PASS, 3)
    rollout.verified()
    rollout.wait(30.0)
    rollout.ticks(PASS, 2)
    assert (rollout.state.step_index, rollout.state.phase) == (1, Phase.ANALYSING)


# Rule 5: which pauses end by themselves, and how.


@pytest.mark.parametrize("event", ["tick", "clock"])
def test_a_pause_by_failure_times_out_into_a_roll_back(event: str) -> None:
    rollout = paused_fail(pause_timeout_s=600.0)
    rollout.clock(599.0)
    assert rollout.state.phase is Phase.PAUSED
    rollout.wait(1.0)
    conclusion = rollout.tick(FAIL) if event == "tick" else rollout.clock(0.0)
    assert conclusion.decision is not None
    assert (conclusion.decision.kind, conclusion.decision.cause) == (
        DecisionKind.ROLL_BACK,
        Cause.PAUSE_TIMEOUT,
    )


@pytest.mark.parametrize(
    "row",
    [
        "paused_no_data",
        "paused_shared",
        "paused_inconclusive",
        "paused_operator",
        "paused_approval",
        "paused_drift",
        "paused_actuation",
    ],
)
def test_no_other_pause_rolls_back_by_time_but_people_are_told_once(row: str) -> None:
    rollout = SITUATIONS[row](pause_timeout_s=600.0, pause_alert_after_s=300.0)
    told = [kinds(rollout.clock(100.0)) for _ in range(100)]
    assert rollout.state.phase is Phase.PAUSED
    assert [index for index, each in enumerate(told) if each] == [2]
    assert told[2] == [IncidentKind.LONG_PAUSE]
    assert kinds(rollout.tick(INCONCLUSIVE)) == []


def test_a_failed_rollout_that_passes_again_goes_on_in_the_same_step() -> None:
    rollout = paused_fail()
    rollout.ticks(PASS, 2)
    assert rollout.state.phase is Phase.PAUSED
    conclusion = rollout.tick(PASS)
    assert conclusion.decision is not None
    assert (conclusion.decision.kind, conclusion.decision.cause) == (DecisionKind.RESUME, Cause.RECOVERED)
    assert (rollout.state.phase, rollout.state.step_index) == (Phase.ANALYSING, 0)
    assert rollout.state.passes == 0


@pytest.mark.parametrize("spoiler", [FAIL, INCONCLUSIVE])
def test_recovering_takes_passes_in_a_row(spoiler: Verdict) -> None:
    rollout = paused_fail()
    rollout.ticks(PASS, 2)
    rollout.tick(spoiler)
    rollout.ticks(PASS, 2)
    assert rollout.state.phase is Phase.PAUSED


def test_stale_passes_do_not_resume() -> None:
    for paused in (paused_fail(), paused_no_data(), paused_shared()):
        paused.ticks(PASS, 10, lag_s=60.0)
        assert paused.state.phase is Phase.PAUSED


def test_without_auto_resume_a_person_has_to_resume_and_a_passing_rollout_does_not_time_out() -> None:
    rollout = paused_fail(auto_resume=False, pause_timeout_s=600.0)
    rollout.ticks(PASS, 300)
    assert rollout.state.phase is Phase.PAUSED
    assert accepted(rollout.command(CommandKind.RESUME))
    assert rollout.state.phase.value == "analysing"


def test_without_auto_resume_failing_again_times_out_from_then() -> None:
    rollout = paused_fail(auto_resume=False, pause_timeout_s=600.0)
    rollout.ticks(PASS, 130)
    rollout.ticks(FAIL, 119)
    assert rollout.state.phase is Phase.PAUSED
    assert rollout.tick(FAIL).state.phase is Phase.ROLLING_BACK


@pytest.mark.parametrize("row", ["paused_no_data", "paused_shared"])
def test_without_auto_resume_no_pause_ends_by_passes(row: str) -> None:
    rollout = SITUATIONS[row](auto_resume=False)
    rollout.ticks(PASS, 20)
    assert rollout.state.phase is Phase.PAUSED


def test_an_operator_holds_a_recovered_rollout() -> None:
    rollout = paused_fail()
    rollout.command(CommandKind.PAUSE)
    rollout.ticks(PASS, 20)
    assert (rollout.state.phase, rollout.state.pause_causes) == (Phase.PAUSED, (PauseCause.OPERATOR,))
    rollout.clock(100_000.0)
    assert rollout.state.phase is Phase.PAUSED


def test_on_fail_roll_back_does_not_wait() -> None:
    rollout = analysing(on_fail=OnFail.ROLL_BACK)
    conclusion = rollout.tick(FAIL)
    assert conclusion.decision is not None
    assert (conclusion.decision.kind, conclusion.decision.cause) == (DecisionKind.ROLL_BACK, Cause.FAIL)


def test_a_failure_that_stable_shares_pauses_whatever_on_fail_says() -> None:
    rollout = analysing(on_fail=OnFail.ROLL_BACK)
    rollout.tick(FAIL, shared=True)
    assert rollout.state.pause_causes == (PauseCause.SHARED,)
    rollout.ticks(FAIL, 500, shared=True)
    assert rollout.state.phase is Phase.PAUSED


def test_no_data_is_borne_for_as_long_as_the_policy_says() -> None:
    rollout = analysing(on_no_data=NoDataRule(hold_s=60.0))
    rollout.ticks(NO_DATA, 12)
    assert rollout.state.phase is Phase.ANALYSING
    rollout.tick(NO_DATA)
    assert rollout.state.pause_causes == (PauseCause.NO_DATA,)


def test_a_policy_may_roll_back_for_want_of_data() -> None:
    rollout = analysing(on_no_data=NoDataRule(hold_s=0.0, then=OnFail.ROLL_BACK))
    conclusion = rollout.tick(NO_DATA)
    assert conclusion.decision is not None
    assert conclusion.decision.cause is Cause.NO_DATA
    assert rollout.state.phase is Phase.ROLLING_BACK


# Rule 6: bounded holding.


def _at_the_limit(**changes: object) -> Rollout:
    """The next tick ends exactly at ``max_step_time``."""
    rollout = analysing(**changes)
    left = rollout.state.step_began + rollout.context.policy.max_step_time_s - rollout.now
    rollout.wait(left - rollout.interval)
    return rollout


def test_a_step_is_held_until_its_maximum_time_and_then_pauses() -> None:
    rollout = _at_the_limit()
    rollout.wait(-rollout.interval)
    rollout.ended -= rollout.interval
    rollout.tick(INCONCLUSIVE)
    assert rollout.state.phase is Phase.ANALYSING
    conclusion = rollout.tick(INCONCLUSIVE)
    assert rollout.now - rollout.state.step_began == 900.0
    assert rollout.state.pause_causes == (PauseCause.INCONCLUSIVE,)
    assert kinds(conclusion) == [IncidentKind.PAUSED]


def test_on_inconclusive_roll_back_rolls_back_at_the_maximum_time() -> None:
    rollout = _at_the_limit(on_inconclusive=OnInconclusive.ROLL_BACK)
    conclusion = rollout.tick(INCONCLUSIVE)
    assert conclusion.decision is not None
    assert conclusion.decision.cause is Cause.INCONCLUSIVE
    assert rollout.state.phase is Phase.ROLLING_BACK


def test_on_inconclusive_advance_needs_the_point_check_and_says_that_it_is_unproven() -> None:
    rollout = _at_the_limit(on_inconclusive=OnInconclusive.ADVANCE_UNPROVEN)
    conclusion = rollout.tick(INCONCLUSIVE, point_holds=True)
    assert conclusion.decision is not None
    assert (conclusion.decision.kind, conclusion.decision.unproven) == (DecisionKind.ADVANCE, True)
    assert conclusion.decision.weight_bp == 2000
    assert rollout.state.unproven


@pytest.mark.parametrize("facts", [{"point_holds": False}, {"point_holds": True, "lag_s": 11.0}])
def test_without_a_fresh_point_check_nothing_advances_unproven(facts: dict[str, Any]) -> None:
    rollout = _at_the_limit(on_inconclusive=OnInconclusive.ADVANCE_UNPROVEN)
    rollout.tick(INCONCLUSIVE, **facts)
    assert rollout.state.pause_causes == (PauseCause.INCONCLUSIVE,)


@pytest.mark.parametrize("passes", [0, 1])
def test_nothing_advances_unproven_after_a_failure_until_it_has_passed(passes: int) -> None:
    rollout = paused_fail(on_inconclusive=OnInconclusive.ADVANCE_UNPROVEN)
    rollout.command(CommandKind.RESUME, force=True)
    for _ in range(passes):
        rollout.tick(PASS)
    rollout.wait(900.0)
    rollout.tick(INCONCLUSIVE, point_holds=True)
    assert rollout.state.phase is (Phase.SHIFTING if passes else Phase.PAUSED)


@pytest.mark.parametrize("keep_s", [0.0, 60.0])
def test_the_last_step_taken_unproven_says_so_as_well(keep_s: float) -> None:
    rollout = at_full_weight(on_inconclusive=OnInconclusive.ADVANCE_UNPROVEN, keep_stable_for_s=keep_s)
    rollout.wait(900.0)
    conclusion = rollout.tick(INCONCLUSIVE, point_holds=True)
    assert conclusion.decision is not None
    assert conclusion.decision.unproven
    assert rollout.state.unproven
    assert rollout.state.phase is (Phase.BAKING if keep_s else Phase.FINALISING)


def test_no_data_at_the_maximum_time_does_not_advance() -> None:
    rollout = analysing(on_inconclusive=OnInconclusive.ADVANCE_UNPROVEN, on_no_data=NoDataRule(hold_s=3600.0))
    rollout.wait(900.0)
    rollout.tick(NO_DATA, point_holds=True)
    assert rollout.state.phase is Phase.ANALYSING


@pytest.mark.parametrize("row", ["analysing", "paused_operator", "paused_inconclusive", "baking"])
@pytest.mark.parametrize("verdict", [PASS, NO_DATA])
@pytest.mark.parametrize("then", list(OnFail))
def test_a_rollout_that_lasts_too_long_is_noticed_once(row: str, verdict: Verdict, then: OnFail) -> None:
    patient = {"max_step_time_s": 1e6, "min_step_time_s": 1e5, "max_rollout_time_s": 3600.0}
    if row == "baking":
        patient = {"keep_stable_for_s": 1e5, "max_rollout_time_s": 3600.0}
    if row == "paused_inconclusive":
        patient = {"max_rollout_time_s": 3600.0}
    rollout = SITUATIONS[row](**patient, on_overtime=then, on_no_data=NoDataRule(hold_s=1e5))
    rollout.wait(3600.0)
    told = [kinds(rollout.tick(verdict)) for _ in range(3)]
    assert sum(each.count(IncidentKind.OVERTIME) for each in told) == 1
    assert rollout.state.phase is (Phase.PAUSED if then is OnFail.PAUSE else Phase.ROLLING_BACK)


# Rule 7: warm-up.


@pytest.mark.parametrize("verdict", [PASS, INCONCLUSIVE, NO_DATA, FAIL])
def test_while_warming_nothing_but_severe_acts(verdict: Verdict) -> None:
    rollout = warming(warmup_s=60.0, on_fail=OnFail.ROLL_BACK, on_no_data=NoDataRule(hold_s=0.0))
    rollout.ticks(verdict, 12)
    assert (rollout.state.phase, rollout.state.passes) == (Phase.WARMING, 0)
    assert rollout.tick(SEVERE).state.phase is Phase.ROLLING_BACK


@pytest.mark.parametrize(("late_s", "warm"), [(0.0, True), (0.05, True), (0.06, False)])
def test_a_tick_is_past_the_warm_up_when_it_starts_at_most_50_ms_before_its_end(
    late_s: float, warm: bool
) -> None:
    rollout = shifting(warmup_s=30.0)
    rollout.now += late_s
    rollout.verified()
    rollout.wait(30.0 - late_s)
    rollout.tick(PASS)
    assert rollout.state.phase is (Phase.ANALYSING if warm else Phase.WARMING)
    assert rollout.state.passes == (1 if warm else 0)


def test_the_window_begins_with_the_step_while_warming_and_with_the_end_of_the_warm_up_after_it() -> None:
    state = warming(warmup_s=30.0).state
    assert window_since(state, T0 + 10.0) == T0
    assert window_since(state, T0 + 30.0) == pytest.approx(T0 + 30.0, abs=0.051)


# Rule 8: timers run on folded time.


def test_timers_stand_still_while_sentra_is_down() -> None:
    rollout = paused_fail(pause_timeout_s=600.0)
    rollout.clock(500.0)
    rollout.wait(3600.0)
    rollout.restart()
    rollout.clock(99.0)
    assert rollout.state.phase is Phase.PAUSED
    assert rollout.clock(1.0).state.phase is Phase.ROLLING_BACK


def test_an_order_is_not_given_up_because_sentra_was_down() -> None:
    rollout = starting(verify_timeout_s=60.0)
    rollout.wait(3600.0)
    rollout.restart()
    rollout.clock(100.0)
    assert rollout.state.phase is Phase.STARTING
    assert rollout.clock(20.0).state.phase is Phase.FAILED


def test_a_step_does_not_run_out_of_time_because_sentra_was_down() -> None:
    rollout = analysing(on_inconclusive=OnInconclusive.ROLL_BACK)
    rollout.wait(3600.0)
    rollout.restart()
    rollout.tick(INCONCLUSIVE)
    assert rollout.state.phase is Phase.ANALYSING


# Rule 9: no traffic is not no data.


def test_an_idle_canary_is_one_incident_after_three_ticks() -> None:
    rollout = analysing()
    told = [kinds(rollout.tick(INCONCLUSIVE, canary_n=0.0, stable_n=50.0)) for _ in range(6)]
    assert told == [[], [], [IncidentKind.SPLIT], [], [], []]
    rollout.tick(INCONCLUSIVE, canary_n=1.0, stable_n=50.0)
    again = [kinds(rollout.tick(INCONCLUSIVE, canary_n=0.0, stable_n=50.0)) for _ in range(3)]
    assert again == [[], [], [IncidentKind.SPLIT]]


@pytest.mark.parametrize(("canary_n", "stable_n"), [(0.0, 0.0), (None, 50.0), (0.0, None)])
def test_no_traffic_at_all_and_unknown_traffic_are_no_idle_canary(
    canary_n: float | None, stable_n: float | None
) -> None:
    rollout = analysing()
    for _ in range(5):
        assert kinds(rollout.tick(INCONCLUSIVE, canary_n=canary_n, stable_n=stable_n)) == []


def test_at_weight_0_the_canary_owes_no_traffic() -> None:
    rollout = shifting()
    for _ in range(5):
        assert kinds(rollout.tick(INCONCLUSIVE, canary_n=0.0, stable_n=50.0)) == []


# Rule 10 is about verdicts without a comparator; the machine's part of it is the bake.


def test_a_bake_counts_good_ticks_and_ends_with_the_one_that_completes_it() -> None:
    rollout = baking(keep_stable_for_s=60.0)
    rollout.ticks(PASS, 11)
    assert rollout.state.phase is Phase.BAKING
    conclusion = rollout.tick(PASS)
    assert conclusion.decision is not None
    assert (conclusion.decision.kind, conclusion.decision.order) == (DecisionKind.PROMOTE, Order.FINALISE)
    assert not rollout.state.unproven


def test_a_bake_runs_on_inconclusive_ticks_unproven_and_stops_without_data() -> None:
    rollout = baking(keep_stable_for_s=60.0)
    assert kinds(rollout.tick(NO_DATA)) == [IncidentKind.NO_DATA]
    rollout.ticks(NO_DATA, 50)
    assert (rollout.state.phase, rollout.state.baked_s) == (Phase.BAKING, 0.0)
    rollout.ticks(INCONCLUSIVE, 12)
    assert (rollout.state.phase, rollout.state.unproven) == (Phase.FINALISING, True)


def test_a_bake_that_ends_proven_is_proven_however_long_the_proof_took() -> None:
    rollout = baking(keep_stable_for_s=60.0)
    rollout.ticks(INCONCLUSIVE, 11)
    rollout.tick(PASS)
    assert (rollout.state.phase, rollout.state.unproven) == (Phase.FINALISING, False)


def test_stale_ticks_do_not_bake() -> None:
    rollout = baking(keep_stable_for_s=60.0)
    rollout.ticks(PASS, 50, lag_s=11.0)
    assert (rollout.state.phase, rollout.state.baked_s) == (Phase.BAKING, 0.0)


def test_a_bake_that_is_paused_goes_on_where_it_stood() -> None:
    rollout = baking(keep_stable_for_s=60.0)
    rollout.ticks(PASS, 6)
    rollout.command(CommandKind.PAUSE)
    rollout.ticks(PASS, 50)
    rollout.command(CommandKind.RESUME)
    assert (rollout.state.phase, rollout.state.baked_s) == (Phase.BAKING, 30.0)


@pytest.mark.parametrize("on_fail", list(OnFail))
def test_a_bake_that_fails_pauses_with_stable_kept(on_fail: OnFail) -> None:
    rollout = baking(on_fail=on_fail)
    conclusion = rollout.tick(FAIL)
    assert rollout.state.pause_causes == (PauseCause.FAIL,)
    assert conclusion.decision is not None
    assert (conclusion.decision.order, rollout.state.ordered_bp) == (Order.NONE, 10_000)
    rollout.ticks(PASS, 3)
    assert rollout.state.phase is Phase.BAKING


def test_a_promoted_rollout_has_exactly_one_promote() -> None:
    for keep_s in (0.0, 60.0):
        rollout = baking(keep_stable_for_s=keep_s)
        if keep_s:
            rollout.ticks(PASS, 12)
        rollout.verified()
        assert rollout.state.phase is Phase.PROMOTED
        assert [each.kind for each in rollout.decisions].count(DecisionKind.PROMOTE) == 1


# Rule 11: operators override with a reason.


@pytest.mark.parametrize("kind", [CommandKind.ADVANCE, CommandKind.PROMOTE])
def test_advance_and_promote_are_refused_without_data_unless_forced(kind: CommandKind) -> None:
    rollout = analysing()
    rollout.tick(NO_DATA)
    refusal = rollout.command(kind)
    assert refusal.answer is not None
    assert not refusal.answer.accepted
    assert "abort" in refusal.answer.possible
    forced = rollout.command(kind, force=True)
    assert accepted(forced)
    assert forced.decision is not None
    assert forced.decision.override


@pytest.mark.parametrize("kind", [CommandKind.ADVANCE, CommandKind.PROMOTE])
def test_a_bake_without_data_is_not_ended_unless_forced(kind: CommandKind) -> None:
    rollout = baking()
    rollout.tick(NO_DATA)
    assert not accepted(rollout.command(kind))
    assert accepted(rollout.command(kind, force=True))
    assert rollout.state.phase is Phase.FINALISING


def test_a_promote_while_warming_is_refused_on_a_failing_tick() -> None:
    rollout = warming()
    rollout.tick(FAIL)
    assert not accepted(rollout.command(CommandKind.PROMOTE))


def test_an_operator_may_promote_to_the_end_past_every_step_and_approval() -> None:
    rollout = analysing(approvals=(2, 3), keep_stable_for_s=0.0)
    rollout.command(CommandKind.PROMOTE)
    assert (rollout.state.ordered_bp, rollout.state.step_index) == (10_000, 2)
    rollout.verified()
    rollout.wait(30.0)
    conclusion = rollout.tick(INCONCLUSIVE)
    assert conclusion.decision is not None
    assert (conclusion.decision.kind, conclusion.decision.override) == (DecisionKind.PROMOTE, True)
    assert rollout.verified().state.phase is Phase.PROMOTED


def test_a_promoted_override_still_pauses_on_a_failure_and_still_falls_on_severe() -> None:
    for verdict, phase in ((FAIL, Phase.PAUSED), (SEVERE, Phase.ROLLING_BACK)):
        rollout = analysing()
        rollout.command(CommandKind.PROMOTE)
        rollout.verified()
        rollout.wait(30.0)
        assert rollout.tick(verdict).state.phase is phase


def test_promoting_a_paused_bake_ends_it_and_does_not_begin_it_anew() -> None:
    rollout = baking(keep_stable_for_s=3600.0)
    rollout.command(CommandKind.PAUSE)
    assert not accepted(rollout.command(CommandKind.PROMOTE))
    rollout.command(CommandKind.PROMOTE, force=True)
    assert rollout.state.phase is Phase.FINALISING


def test_promoting_a_last_step_that_never_came_in_force_orders_it_first() -> None:
    rollout = paused_actuation(weights_bp=(10_000,))
    rollout.command(CommandKind.PROMOTE, force=True)
    assert (rollout.state.phase, rollout.state.ordered_bp) == (Phase.SHIFTING, 10_000)


def test_a_paused_and_failing_rollout_resumes_only_by_force() -> None:
    rollout = paused_fail()
    assert not accepted(rollout.command(CommandKind.RESUME))
    assert accepted(rollout.command(CommandKind.RESUME, force=True))
    assert (rollout.state.phase, rollout.state.passes) == (Phase.ANALYSING, 0)


def test_who_did_it_and_why_is_in_the_reason() -> None:
    conclusion = analysing().command(CommandKind.ABORT)
    assert conclusion.decision is not None
    assert "ann" in conclusion.decision.reason
    assert conclusion.decision.override


def test_a_pause_asked_for_in_flight_comes_when_the_weight_is_in_force() -> None:
    rollout = shifting()
    rollout.command(CommandKind.PAUSE)
    conclusion = rollout.verified()
    assert rollout.state.pause_causes == (PauseCause.OPERATOR,)
    assert conclusion.decision is not None
    rollout.command(CommandKind.RESUME)
    assert rollout.state.phase is Phase.WARMING
    assert not rollout.state.pause_asked


def test_a_pause_asked_for_in_flight_can_be_taken_back() -> None:
    rollout = shifting()
    rollout.command(CommandKind.PAUSE)
    rollout.command(CommandKind.RESUME)
    assert rollout.verified().state.phase is Phase.WARMING


def test_a_rollout_paused_before_its_first_step_begins_with_it_when_resumed() -> None:
    rollout = starting()
    rollout.command(CommandKind.PAUSE)
    rollout.verified(observed_bp=0)
    assert (rollout.state.pause_causes, rollout.state.ordered_bp) == ((PauseCause.OPERATOR,), 0)
    rollout.command(CommandKind.RESUME)
    assert (rollout.state.phase, rollout.state.ordered_bp) == (Phase.SHIFTING, 500)


def test_a_pause_asked_for_is_kept_when_a_lost_weight_comes_in_force_after_all() -> None:
    rollout = shifting()
    rollout.command(CommandKind.PAUSE)
    rollout.not_applied(observed_bp=0)
    rollout.not_applied(observed_bp=0)
    assert rollout.state.pause_causes == (PauseCause.ACTUATION,)
    conclusion = rollout.verified()
    assert (rollout.state.phase, rollout.state.pause_causes) == (Phase.PAUSED, (PauseCause.OPERATOR,))
    assert conclusion.decision is not None
    assert conclusion.decision.kind is DecisionKind.PAUSE


def test_resuming_takes_back_a_pause_that_was_asked_for_before() -> None:
    rollout = shifting()
    rollout.command(CommandKind.PAUSE)
    rollout.not_applied(observed_bp=0)
    rollout.not_applied(observed_bp=0)
    rollout.command(CommandKind.RESUME)
    assert rollout.verified().state.phase is Phase.WARMING


# Approvals.


@pytest.mark.parametrize("step", [1, 2, 3])
def test_no_traffic_moves_to_a_step_that_needs_approval_before_it_is_given(step: int) -> None:
    rollout = starting(approvals=(step,), **UNTIMED)
    rollout.verified(observed_bp=0)
    for _ in range(step - 1):
        rollout.verified()
        rollout.wait(30.0)
        rollout.ticks(PASS, 3)
    assert rollout.state.pause_causes == (PauseCause.APPROVAL,)
    assert rollout.state.ordered_bp == (0, 500, 2000)[step - 1]
    assert not accepted(rollout.command(CommandKind.PROMOTE))
    assert accepted(rollout.command(CommandKind.ADVANCE))
    assert (rollout.state.phase, rollout.state.ordered_bp) == (Phase.SHIFTING, (500, 2000, 10_000)[step - 1])
    assert rollout.state.step_index == step - 1


def test_a_failure_takes_precedence_over_an_approval() -> None:
    rollout = paused_approval()
    rollout.tick(FAIL)
    assert not accepted(rollout.command(CommandKind.ADVANCE, force=True))
    rollout.ticks(PASS, 3)
    assert rollout.state.pause_causes == (PauseCause.APPROVAL,)
    assert accepted(rollout.command(CommandKind.ADVANCE))


def test_an_operators_advance_is_its_own_approval() -> None:
    rollout = analysing(approvals=(2,))
    rollout.command(CommandKind.ADVANCE)
    assert (rollout.state.phase, rollout.state.ordered_bp) == (Phase.SHIFTING, 2000)


# Rule 12: policy changes.


@pytest.mark.parametrize("situation", [analysing, paused_fail, paused_no_data, paused_operator])
def test_changed_gates_clear_the_counter(situation: Callable[..., Rollout]) -> None:
    rollout = situation(**UNTIMED, auto_resume=False)
    rollout.ticks(PASS, 2)
    assert rollout.state.passes == 2
    assert accepted(rollout.command(CommandKind.CHANGE_POLICY))
    assert rollout.state.passes == 0


# Rule 13: verification and time-out.


def test_a_weight_that_was_not_applied_is_ordered_once_more_and_then_the_rollout_pauses() -> None:
    rollout = shifting()
    first = rollout.state.in_flight
    again = rollout.not_applied(observed_bp=0).decision
    assert first is not None
    assert again is not None
    assert (again.order, again.weight_bp, again.generation) == (Order.SHIFT, 500, first.generation + 1)
    assert again.decision_id != first.decision_id
    conclusion = rollout.not_applied(observed_bp=0)
    assert rollout.state.pause_causes == (PauseCause.ACTUATION,)
    assert IncidentKind.ACTUATION in kinds(conclusion)


def test_a_refused_weight_is_not_tried_again() -> None:
    rollout = shifting()
    rollout.report(ActionOutcome.REFUSED, observed_bp=0)
    assert rollout.state.pause_causes == (PauseCause.ACTUATION,)


def test_every_step_may_be_ordered_once_more() -> None:
    rollout = shifting(**UNTIMED)
    rollout.not_applied(observed_bp=0)
    rollout.verified()
    rollout.wait(30.0)
    rollout.ticks(PASS, 3)
    assert rollout.state.ordered_bp == 2000
    rollout.not_applied(observed_bp=500)
    assert rollout.state.phase is Phase.SHIFTING


def test_a_failing_rollout_does_not_win_its_traffic_back_by_a_second_order() -> None:
    rollout = shifting()
    rollout.tick(FAIL)
    conclusion = rollout.not_applied(observed_bp=0)
    assert rollout.state.pause_causes == (PauseCause.ACTUATION,)
    assert conclusion.decision is not None
    assert conclusion.decision.order is Order.NONE


def test_an_order_that_nobody_reports_on_is_given_up_after_two_verify_time_outs() -> None:
    rollout = shifting(verify_timeout_s=60.0)
    assert rollout.clock(119.0).decision is None
    again = rollout.clock(1.0).decision
    assert again is not None
    assert again.order is Order.SHIFT
    assert rollout.clock(119.0).decision is None
    rollout.clock(1.0)
    assert rollout.state.pause_causes == (PauseCause.ACTUATION,)


def test_a_start_that_nobody_reports_on_fails_without_traffic() -> None:
    rollout = starting(verify_timeout_s=60.0)
    rollout.clock(119.0)
    assert rollout.state.phase is Phase.STARTING
    assert kinds(rollout.clock(1.0)) == [IncidentKind.ACTUATION]
    assert (rollout.state.phase, rollout.state.ordered_bp) == (Phase.FAILED, 0)


def test_going_down_is_ordered_for_ever_and_people_are_called_once() -> None:
    rollout = rolling_back()
    told = []
    for _ in range(40):
        rollout.wait(5.0)
        conclusion = rollout.not_applied(observed_bp=500)
        assert conclusion.decision is not None
        assert (conclusion.decision.order, conclusion.decision.weight_bp) == (Order.RESTORE, 0)
        told.append(kinds(conclusion))
    assert [index for index, each in enumerate(told) if each] == [11]
    assert told[11] == [IncidentKind.STUCK_ROLL_BACK]


def test_people_are_called_by_the_clock_as_well() -> None:
    rollout = rolling_back()
    assert kinds(rollout.clock(59.0)) == []
    assert kinds(rollout.clock(1.0)) == [IncidentKind.STUCK_ROLL_BACK]
    assert kinds(rollout.clock(600.0)) == []


def test_a_roll_back_that_nobody_reports_on_is_ordered_again() -> None:
    rollout = rolling_back(verify_timeout_s=60.0)
    assert rollout.clock(119.0).decision is None
    again = rollout.clock(1.0).decision
    assert again is not None
    assert (again.order, again.weight_bp) == (Order.RESTORE, 0)
    assert rollout.clock(119.0).decision is None
    assert rollout.clock(1.0).decision is not None


def test_finalising_is_tried_again_when_nobody_reports() -> None:
    rollout = finalising(verify_timeout_s=60.0)
    conclusion = rollout.clock(120.0)
    assert conclusion.decision is not None
    assert conclusion.decision.order is Order.FINALISE
    assert kinds(conclusion) == [IncidentKind.ACTUATION]


def test_a_weight_that_comes_in_force_after_all_starts_its_step_then() -> None:
    rollout = paused_actuation()
    rollout.wait(500.0)
    rollout.verified()
    assert rollout.state.phase is Phase.WARMING
    assert rollout.state.step_began == rollout.now
    assert (rollout.state.pause_causes, rollout.state.verified_bp) == ((), 500)


@pytest.mark.parametrize("also", [CommandKind.PAUSE, FAIL])
def test_the_step_starts_then_even_if_something_else_still_holds_it(also: CommandKind | Verdict) -> None:
    rollout = paused_actuation()
    if isinstance(also, Verdict):
        rollout.tick(also)
    else:
        rollout.command(also)
    rollout.wait(200.0)
    conclusion = rollout.verified()
    cause = PauseCause.FAIL if also is FAIL else PauseCause.OPERATOR
    assert (rollout.state.phase, rollout.state.pause_causes) == (Phase.PAUSED, (cause,))
    assert conclusion.decision is None
    assert (rollout.state.step_began, rollout.state.verified_bp) == (rollout.now, 500)
    rollout.command(CommandKind.RESUME, force=True)
    assert rollout.state.phase is Phase.WARMING


# Drift.


def test_drift_pauses_and_resuming_orders_the_weight_again() -> None:
    rollout = analysing()
    conclusion = rollout.drift(700)
    assert kinds(conclusion) == [IncidentKind.DRIFT, IncidentKind.PAUSED]
    assert rollout.state.pause_causes == (PauseCause.DRIFT,)
    again = rollout.command(CommandKind.RESUME).decision
    assert again is not None
    assert (again.order, again.weight_bp) == (Order.SHIFT, 500)
    assert rollout.state.phase is Phase.SHIFTING


def test_drift_is_put_right_where_the_policy_says_so() -> None:
    rollout = analysing(on_drift=OnDrift.REASSERT)
    again = rollout.drift(0).decision
    assert again is not None
    assert (again.order, again.weight_bp, again.cause) == (Order.SHIFT, 500, Cause.DRIFT)
    assert rollout.state.phase is Phase.SHIFTING


@pytest.mark.parametrize(
    ("seen_bp", "expected"), [(0, Phase.PAUSED), (9000, Phase.SHIFTING)], ids=["less", "more"]
)
def test_a_failing_rollout_does_not_win_traffic_back_from_a_drift(seen_bp: int, expected: Phase) -> None:
    rollout = warming(on_drift=OnDrift.REASSERT)
    rollout.tick(FAIL)  # noted in the warm-up; no tick has passed since
    rollout.wait(rollout.context.policy.warmup_s)
    rollout.tick(Verdict.INCONCLUSIVE)
    rollout.drift(seen_bp)
    assert (rollout.state.phase, rollout.state.ordered_bp) == (expected, 500)


@pytest.mark.parametrize("make", [warming, baking], ids=["warming", "baking"])
def test_drift_pauses_outside_of_analysing_whatever_the_policy_says(make: Any) -> None:
    rollout = make(on_drift=OnDrift.REASSERT)
    rollout.drift(100)
    assert rollout.state.pause_causes == (PauseCause.DRIFT,)


def test_a_weight_that_is_neither_the_old_nor_the_new_one_is_not_ordered_again() -> None:
    rollout = shifting()
    rollout.not_applied(observed_bp=3333)
    assert rollout.state.pause_causes == (PauseCause.ACTUATION,)


def test_a_passing_step_is_not_ended_by_its_time_limit() -> None:
    rollout = analysing(on_inconclusive=OnInconclusive.ROLL_BACK, pass_count=5)
    rollout.wait(rollout.context.policy.max_step_time_s)
    rollout.tick(PASS)
    assert rollout.state.phase is Phase.ANALYSING


def test_a_recovering_rollout_is_not_rolled_back_in_the_middle_of_its_passes() -> None:
    rollout = paused_fail(pass_count=3, pause_timeout_s=10.0)
    rollout.wait(9.0)
    rollout.tick(PASS)
    rollout.wait(5.0)
    rollout.tick(PASS)
    assert rollout.state.phase is Phase.PAUSED
    rollout.tick(FAIL)
    assert rollout.state.phase is Phase.ROLLING_BACK


def test_drift_on_the_way_down_is_brought_down_too() -> None:
    rollout = rolling_back()
    conclusion = rollout.drift(4000)
    assert conclusion.decision is not None
    assert (conclusion.decision.order, conclusion.decision.weight_bp) == (Order.RESTORE, 0)


# A restart of Sentra.


def test_after_a_restart_passes_count_afresh() -> None:
    rollout = analysing(**UNTIMED)
    rollout.ticks(PASS, 2)
    rollout.restart(observed_bp=500)
    assert (rollout.state.phase, rollout.state.passes) == (Phase.ANALYSING, 0)


def test_after_a_restart_the_order_in_flight_is_the_same_decision() -> None:
    for situation in (starting, shifting, finalising, rolling_back):
        rollout = situation()
        before = rollout.state.in_flight
        conclusion = rollout.restart(generation=rollout.state.generation)
        assert conclusion.decision is None
        assert rollout.state.in_flight == before


@pytest.mark.parametrize("situation", [starting, shifting, finalising, rolling_back])
def test_a_restart_never_reuses_a_generation_or_a_number(situation: Callable[..., Rollout]) -> None:
    rollout = situation()
    before = rollout.state.in_flight
    conclusion = rollout.restart(generation=40, seq=1000)
    assert before is not None
    assert conclusion.decision is not None
    assert (conclusion.decision.order, conclusion.decision.generation) == (before.order, 41)
    assert (conclusion.decision.seq, rollout.state.seq) == (1001, 1001)
    assert conclusion.decision.decision_id != before.decision_id


def test_a_weight_that_changed_while_sentra_was_down_is_put_right() -> None:
    rollout = analysing()
    again = rollout.restart(observed_bp=0).decision
    assert again is not None
    assert (again.order, again.weight_bp, again.cause) == (Order.SHIFT, 500, Cause.RESTART)
    assert rollout.state.phase is Phase.SHIFTING


def test_a_failing_rollout_does_not_win_traffic_back_by_a_restart() -> None:
    rollout = warming()
    rollout.tick(FAIL)
    conclusion = rollout.restart(observed_bp=0)
    assert rollout.state.pause_causes == (PauseCause.DRIFT,)
    assert conclusion.decision is not None
    assert conclusion.decision.order is Order.NONE


def test_a_paused_rollout_whose_weight_changed_meanwhile_stays_paused_for_drift() -> None:
    rollout = paused_inconclusive()
    rollout.restart(observed_bp=9000)
    assert rollout.state.pause_causes == (PauseCause.INCONCLUSIVE, PauseCause.DRIFT)


def test_a_paused_drift_that_is_resumed_is_observed_before_it_is_judged() -> None:
    rollout = paused_drift()
    rollout.command(CommandKind.RESUME)
    rollout.ticks(PASS, 10)
    assert rollout.state.phase is Phase.SHIFTING


# What is impossible.


@pytest.mark.parametrize("row", list(TABLE))
def test_a_pair_without_a_cell_raises_and_leaves_the_state_alone(row: str) -> None:
    names = {"paused_data": "paused_shared", "paused_person": "paused_operator"}
    rollout = SITUATIONS[names.get(row, row)]()
    before = rollout.state
    for event in set(Event) - set(TABLE[row]):
        with pytest.raises(IllegalTransition, match="no answer"):
            rollout.happen(Happening(event=event, now=rollout.now))
        assert rollout.state is before


def test_a_second_start_is_impossible_in_every_state_but_the_first() -> None:
    assert [row for row, cells in TABLE.items() if Event.START in cells] == ["queued"]


def test_final_states_stay_whatever_is_asked() -> None:
    for rollout in (aborted(), failed()):
        phase, weight = rollout.state.phase, rollout.state.ordered_bp
        for kind in set(CommandKind) - {CommandKind.START}:
            rollout.command(kind, force=True)
        rollout.ticks(SEVERE, 3)
        rollout.clock(1e6)
        assert (rollout.state.phase, rollout.state.ordered_bp) == (phase, weight)


def test_an_abort_before_anything_moved_needs_no_actuator() -> None:
    rollout = queued()
    conclusion = rollout.command(CommandKind.ABORT)
    assert (rollout.state.phase, conclusion.decision) == (Phase.ABORTED, None)
