"""What holds for every history, however things happen to fall."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.decision import ActionOutcome, Cause, CommandKind, Order
from domain.errors import IllegalTransition
from domain.policy import NoDataRule, OnDrift, OnFail, OnInconclusive
from domain.rollout import Phase, RolloutState
from domain.verdict import Verdict
from scorers.decision_machine import Conclusion, decide
from tests.scorers.situations import Rollout

Act = Callable[[Rollout], Conclusion]
BY_PEOPLE = (Cause.OPERATOR, Cause.ABORT)
UNHEARD = (Phase.QUEUED, Phase.STARTING, Phase.ROLLING_BACK, Phase.FINALISING)
"""Phases in which no verdict acts."""


def _tick(verdict: Verdict, skipped: int, lag_s: float, facts: dict[str, Any]) -> Act:
    return lambda rollout: rollout.tick(verdict, skipped=skipped, lag_s=lag_s, **facts)


def _command(kind: CommandKind, force: bool) -> Act:
    return lambda rollout: rollout.command(kind, force=force)


def _report(outcome: ActionOutcome, age: int, seen: int | None) -> Act:
    def act(rollout: Rollout) -> Conclusion:
        observed = rollout.state.ordered_bp if outcome is ActionOutcome.VERIFIED else seen
        return rollout.report(outcome, observed_bp=observed, generation=rollout.state.generation - age)

    return act


def _restart(seen: int | None, ahead: int) -> Act:
    return lambda rollout: rollout.restart(
        observed_bp=seen, generation=rollout.state.generation + ahead, seq=rollout.state.seq + ahead
    )


def _clock(seconds: float) -> Act:
    return lambda rollout: rollout.clock(seconds)


def _wait(seconds: float) -> Act:
    """Sentra's clock goes on; the next tick comes late."""

    def act(rollout: Rollout) -> Conclusion:
        rollout.wait(seconds)
        return rollout.clock(0.0)

    return act


def go_on(rollout: Rollout) -> Conclusion:
    """What a healthy rollout meets next: without it, random histories end long before the last step."""
    if rollout.state.in_flight is not None:
        return rollout.verified()
    if rollout.state.phase is Phase.PAUSED:
        return rollout.command(CommandKind.RESUME, force=True)
    return rollout.tick(Verdict.PASS)


weights = st.sampled_from([None, 0, 500, 2000, 10_000])
facts = st.fixed_dictionaries(
    {},
    optional={
        "shared": st.booleans(),
        "point_holds": st.booleans(),
        "canary_n": st.sampled_from([0.0, 50.0]),
        "stable_n": st.just(50.0),
    },
)
ticks = st.builds(
    _tick,
    st.sampled_from([Verdict.PASS, Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.NO_DATA, Verdict.FAIL]),
    st.sampled_from([0, 0, 0, 1, 3]),
    st.sampled_from([0.0, 0.0, 0.0, 10.0, 30.0]),
    facts,
)
commands = st.builds(
    _command, st.sampled_from([kind for kind in CommandKind if kind is not CommandKind.ABORT]), st.booleans()
)
reports = st.builds(
    _report,
    st.sampled_from([ActionOutcome.VERIFIED] * 4 + [each for each in ActionOutcome if each.value != "sent"]),
    st.sampled_from([0, 0, 0, 1]),
    weights,
)
times = st.builds(_clock, st.sampled_from([1.0, 30.0, 120.0, 700.0]))
waits = st.builds(_wait, st.sampled_from([30.0, 60.0, 900.0]))
restarts = st.builds(_restart, weights, st.sampled_from([0, 0, 3]))
aborts = st.builds(_command, st.just(CommandKind.ABORT), st.booleans())
going_on = st.just(go_on)
severe = st.builds(_tick, st.just(Verdict.SEVERE), st.just(0), st.just(0.0), facts)
rare = st.one_of(commands, commands, times, waits, restarts, reports, st.one_of(aborts, severe))
mixed = st.lists(st.one_of(going_on, going_on, ticks, ticks, rare), max_size=40)
preludes = st.integers(0, 14).map(lambda times: [go_on] * times)
histories = st.tuples(preludes, mixed).map(lambda parts: [*parts[0], *parts[1]])
policies = st.fixed_dictionaries(
    {},
    optional={
        "pass_count": st.sampled_from([1, 2, 3]),
        "warmup_s": st.sampled_from([0.0, 10.0]),
        "min_step_time_s": st.just(0.0),
        "max_step_time_s": st.sampled_from([60.0, 900.0]),
        "weights_bp": st.sampled_from([(10_000,), (500, 10_000), (500, 2000, 10_000)]),
        "keep_stable_for_s": st.sampled_from([0.0, 20.0]),
        "approvals": st.sampled_from([(), (1,)]),
        "auto_resume": st.booleans(),
        "on_fail": st.sampled_from(OnFail),
        "on_inconclusive": st.sampled_from(OnInconclusive),
        "on_drift": st.sampled_from(OnDrift),
        "on_overtime": st.sampled_from(OnFail),
        "max_rollout_time_s": st.sampled_from([300.0, 86_400.0]),
        "on_no_data": st.builds(
            NoDataRule, hold_s=st.sampled_from([0.0, 20.0]), then=st.sampled_from(OnFail)
        ),
    },
)


def try_out(rollout: Rollout, act: Act) -> Conclusion | None:
    """What came of it; ``None`` when the table has no such pair, and then nothing may have changed."""
    before = rollout.state
    try:
        return act(rollout)
    except IllegalTransition as exc:
        assert "no answer" in str(exc), "a handler went where the table does not lead"
        assert rollout.state is before
        return None


def steps(rules: dict[str, Any], history: list[Act]) -> list[tuple[RolloutState, Conclusion]]:
    """What each event that the table knows led from and to; the start is given and prepared."""
    rollout = Rollout(**{"min_step_time_s": 0.0, "max_step_time_s": 60.0, "warmup_s": 10.0} | rules)
    rollout.command(CommandKind.START)
    taken = []
    for act in history:
        before = rollout.state
        after = try_out(rollout, act)
        if after is not None:
            taken.append((before, after))
    return taken


def last_event(conclusion: Conclusion, before: RolloutState) -> Verdict | None:
    """The verdict of the tick just folded, if it was one that acts."""
    is_tick = conclusion.state.tick_end > before.tick_end
    return conclusion.state.verdict if is_tick and before.phase not in UNHEARD else None


many = settings(max_examples=300, deadline=None)


@many
@given(policies, histories)
def test_a_final_phase_is_final_and_leaves_no_order_behind(rules: dict[str, Any], history: list[Act]) -> None:
    for before, after in steps(rules, history):
        if before.phase.is_final:
            assert after.state.phase is before.phase
            assert after.decision is None
            assert after.state.ordered_bp == before.ordered_bp
        if after.state.phase.is_final:
            assert after.state.in_flight is None
        if after.state.phase in (Phase.ROLLED_BACK, Phase.ABORTED, Phase.FAILED):
            assert (after.state.ordered_bp, after.state.verified_bp) == (0, 0)


@many
@given(policies, histories)
def test_by_its_own_decision_no_rollout_gains_traffic_after_failing_until_it_passes(
    rules: dict[str, Any], history: list[Act]
) -> None:
    is_failing = False
    for before, after in steps(rules, history):
        verdict = last_event(after, before)
        if verdict in (Verdict.FAIL, Verdict.SEVERE):
            is_failing = True
        if verdict is Verdict.PASS:
            is_failing = False
        rises = after.state.ordered_bp > before.ordered_bp
        if rises and after.decision is not None and after.decision.cause not in BY_PEOPLE:
            assert not is_failing


@many
@given(policies, histories)
def test_no_data_and_time_never_raise_the_weight(rules: dict[str, Any], history: list[Act]) -> None:
    for before, after in steps(rules, history):
        if last_event(after, before) in (Verdict.NO_DATA, Verdict.FAIL, Verdict.SEVERE):
            assert after.state.ordered_bp <= before.ordered_bp
        if after.answer is None and after.state.tick_end == before.tick_end and before.phase is Phase.PAUSED:
            assert after.state.ordered_bp <= before.ordered_bp


@many
@given(policies, histories)
def test_inconclusive_raises_the_weight_only_where_the_policy_says_so_and_says_it_is_unproven(
    rules: dict[str, Any], history: list[Act]
) -> None:
    for before, after in steps(rules, history):
        rises = after.state.ordered_bp > before.ordered_bp
        if rises and last_event(after, before) is Verdict.INCONCLUSIVE:
            assert after.decision is not None
            assert after.decision.unproven
            assert rules.get("on_inconclusive") is OnInconclusive.ADVANCE_UNPROVEN


@many
@given(policies, histories)
def test_numbers_only_rise_and_every_decision_has_its_own_identity(
    rules: dict[str, Any], history: list[Act]
) -> None:
    taken = steps(rules, history)
    decisions = [after.decision for _, after in taken if after.decision is not None]
    assert len({each.decision_id for each in decisions}) == len(decisions)
    for before, after in taken:
        assert after.state.seq > before.seq
        assert after.state.generation >= before.generation
        assert after.state.now >= before.now
    orders = [each.generation for each in decisions if each.order is not Order.NONE]
    assert orders == sorted(set(orders))


@many
@given(policies, histories)
def test_at_most_the_newest_order_is_in_flight(rules: dict[str, Any], history: list[Act]) -> None:
    newest = None
    for before, after in steps(rules, history):
        if after.decision is not None and after.decision.order is not Order.NONE:
            newest = after.decision
            assert after.state.in_flight == newest
            assert after.state.generation == newest.generation
        elif after.state.in_flight is not None:
            assert after.state.in_flight == (newest or before.in_flight)
        if after.state.phase in (Phase.WARMING, Phase.ANALYSING, Phase.BAKING):
            assert after.state.in_flight is None
        if after.state.phase in (Phase.STARTING, Phase.SHIFTING, Phase.FINALISING, Phase.ROLLING_BACK):
            assert after.state.in_flight is not None


@many
@given(policies, histories)
def test_a_rollout_is_paused_for_a_cause_or_it_is_not_paused(
    rules: dict[str, Any], history: list[Act]
) -> None:
    for _, after in steps(rules, history):
        assert (after.state.phase is Phase.PAUSED) == bool(after.state.pause_causes)
        assert len(set(after.state.pause_causes)) == len(after.state.pause_causes)


@many
@given(policies, histories, mixed)
def test_after_severe_it_ends_down_as_soon_as_nothing_is_in_force(
    rules: dict[str, Any], history: list[Act], later: list[Act]
) -> None:
    rollout = Rollout(**rules)
    rollout.command(CommandKind.START)
    for act in history:
        try_out(rollout, act)
    if rollout.state.phase in UNHEARD or rollout.state.phase.is_final:
        return
    rollout.tick(Verdict.SEVERE)
    for act in later:
        try_out(rollout, act)
        assert rollout.state.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
    rollout.verified(observed_bp=0)
    assert rollout.state.phase is Phase.ROLLED_BACK


@many
@given(policies, histories)
def test_what_happened_leads_to_the_same_states_again(rules: dict[str, Any], history: list[Act]) -> None:
    rollout = Rollout(**rules)
    rollout.command(CommandKind.START)
    for act in history:
        try_out(rollout, act)
    state = RolloutState(rollout_id="r-1")
    for happening, was in zip(rollout.happenings, rollout.conclusions, strict=True):
        again = decide(state, rollout.context, happening)
        assert again == was
        state = again.state
