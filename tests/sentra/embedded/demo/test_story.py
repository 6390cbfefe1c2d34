"""The story is the same however the topics' records come in, and its figures mean what they say."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.decision import ActionOutcome, Cause, DecisionKind, Order
from domain.rollout import Phase
from domain.verdict import Verdict
from sentra.embedded.demo.story import Shift, Story
from streams.bus import Incoming
from tests.sentra.embedded.demo.tale import ROLLOUT, Tale, interleaved, promoted, rolled_back


def read(records: Iterable[Incoming], story: Story | None = None) -> Story:
    story = story or Story(rollout_id=ROLLOUT)
    for record in records:
        story.read(record)
    return story


def told(story: Story) -> list[tuple[int, int, float, float | None, Verdict | None]]:
    return [(step.index, step.weight_bp, step.began, step.ended, step.verdict) for step in story.steps]


STEPS = [(0, 5000, 10.2, 20.3, Verdict.PASS), (1, 10_000, 20.3, 30.5, Verdict.PASS)]


def test_steps_last_from_one_verified_weight_to_the_next() -> None:
    story = read(interleaved(promoted(), []))
    assert told(story) == STEPS
    assert story.ended_at == 30.5
    assert story.phase is Phase.PROMOTED


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40))
def test_the_order_among_topics_changes_no_figure(picks: list[int]) -> None:
    story = read(interleaved(promoted(), picks))
    assert told(story) == STEPS
    assert story.delays() == pytest.approx([0.2, 0.3])
    assert story.shifts() == read(promoted().records()).shifts()
    assert story.is_over
    assert (story.evaluations, len(story.decisions)) == (9, 4)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 30))
def test_records_that_come_twice_count_once(picks: list[int], again_from: int) -> None:
    records = interleaved(promoted(), picks)
    story = read([*records, *records[again_from:]])
    assert told(story) == STEPS
    assert (story.evaluations, len(story.decisions), len(story.verified)) == (9, 4, 4)
    assert len([what for _, what in story.events if what == "in force: 50 %"]) == 1


def test_a_report_that_comes_before_its_decision_is_kept_for_it() -> None:
    tale = promoted()
    story = read(tale.actions)
    assert story.steps == []
    assert not story.is_in_force(0)
    read(tale.evaluations, story)
    assert story.is_in_force(1)
    assert told(story) == STEPS


def test_it_is_not_over_before_the_report_that_ended_it_was_read() -> None:
    tale = rolled_back()
    story = read([*tale.evaluations, *tale.states, *tale.actions[:-1]])
    assert story.phase is Phase.ROLLED_BACK
    assert not story.is_over
    read(tale.actions[-1:], story)
    assert story.is_over


def test_a_rollout_that_failed_is_over_though_its_order_was_never_verified() -> None:
    tale = Tale()
    order = tale.order(Order.PREPARE, 1.0, phase=Phase.STARTING, verdict=None)
    tale.report(order, 2.0, ActionOutcome.REFUSED)
    tale.end(2.1, Phase.FAILED)
    assert read(tale.records()).is_over


def test_delays_are_from_the_decision_to_the_read_back_of_each_shift() -> None:
    # decided    10.0       17.0
    # in force       10.2       17.6
    assert read(rolled_back().records()).delays() == pytest.approx([0.2, 0.6])


def test_a_shift_reaches_from_the_first_touch_to_the_last_report() -> None:
    # taken up 20.0 -- not applied 21.0 ...... taken up 22.5 -- verified 23.0
    tale = Tale()
    order = tale.order(Order.SHIFT, 19.9, weight_bp=5000)
    tale.report(order, 21.0, ActionOutcome.NOT_APPLIED, seconds=1.0)
    tale.report(order, 23.0, seconds=0.5)
    assert read(tale.records()).shifts() == [Shift(20.0, 23.0)]


def test_preparing_moves_no_traffic_and_is_no_shift() -> None:
    assert [shift.ended for shift in read(promoted().records()).shifts()] == [10.2, 20.3, 30.4]


def test_a_weight_that_is_ordered_again_stays_one_step() -> None:
    tale = Tale()
    tale.report(tale.order(Order.SHIFT, 10.0, weight_bp=5000), 10.2)
    tale.report(tale.order(Order.SHIFT, 14.0, weight_bp=5000, cause=Cause.RESTART), 14.2)
    tale.end(20.0, Phase.ROLLED_BACK)
    assert [(step.began, step.ended) for step in read(tale.records()).steps] == [(10.2, 20.0)]


def test_the_tick_that_passes_a_step_is_not_the_next_steps() -> None:
    tale = Tale()
    tale.report(tale.order(Order.SHIFT, 10.0, weight_bp=5000, verdict=None), 10.2)
    tale.tick(12.0, Verdict.INCONCLUSIVE)
    tale.report(tale.order(Order.SHIFT, 13.0, step=1, weight_bp=10_000, verdict=Verdict.PASS), 13.2)
    tale.tick(15.0, Verdict.NO_DATA, step=1)
    assert [step.verdict for step in read(tale.records()).steps] == [Verdict.PASS, Verdict.NO_DATA]


def test_passes_are_counted_within_a_step_and_lost_by_anything_else() -> None:
    tale = Tale()
    story = Story(rollout_id=ROLLOUT)
    seen = []
    for at, verdict in enumerate((Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.PASS), 10):
        tale.tick(float(at), verdict)
        read(tale.evaluations[-1:], story)
        seen.append(story.passes)
    assert seen == [1, 2, 0, 1]
    assert story.ticks == 4


def test_the_first_adverse_decision_is_one_of_evidence_and_after_the_moment() -> None:
    tale = rolled_back()
    story = read(tale.records())
    assert story.first_adverse_after(10.2) is story.decisions[1]
    assert story.first_adverse_after(15.5) is story.decisions[2]
    assert story.first_adverse_after(17.5) is None


def test_a_pause_by_a_person_is_no_answer_to_a_fault() -> None:
    tale = Tale()
    tale.order(Order.NONE, 15.0, kind=DecisionKind.PAUSE, cause=Cause.OPERATOR, phase=Phase.PAUSED)
    assert read(tale.records()).first_adverse_after(10.0) is None


def test_other_rollouts_records_change_nothing() -> None:
    other = Story(rollout_id="another")
    assert read(promoted().records(), other) == Story(rollout_id="another")


def test_an_older_public_state_does_not_replace_a_newer_one() -> None:
    tale = Tale()
    tale.state(Phase.ANALYSING, seq=5)
    tale.state(Phase.WARMING, seq=4)
    assert read(tale.states).phase is Phase.ANALYSING


def test_bad_news_is_news_in_the_warm_up_and_good_news_is_not() -> None:
    tale = Tale()
    tale.tick(10.0, Verdict.INCONCLUSIVE, phase=Phase.WARMING)
    tale.tick(11.0, Verdict.PASS, phase=Phase.WARMING)
    tale.tick(12.0, Verdict.SEVERE, phase=Phase.WARMING)
    assert list(read(tale.records()).events) == [(12.0, "SEVERE: gate 0 says so")]


def test_an_order_that_was_not_applied_is_told() -> None:
    tale = Tale()
    tale.report(tale.order(Order.SHIFT, 10.0, weight_bp=5000), 11.0, ActionOutcome.NOT_APPLIED)
    assert [what for _, what in read(tale.records()).events][-1].startswith("actuator: not_applied")


def test_a_verdict_and_the_decision_it_led_to_are_one_line_where_they_say_the_same() -> None:
    tale = Tale()
    for at, reason in ((15.0, "gate 0 says so"), (16.0, "another reason")):
        tale.order(
            Order.NONE,
            at,
            kind=DecisionKind.PAUSE,
            cause=Cause.FAIL,
            phase=Phase.PAUSED,
            verdict=Verdict.FAIL,
            reason=reason,
        )
    story = read(tale.evaluations)
    assert [what for _, what in story.events] == ["FAIL → PAUSE: gate 0 says so", "PAUSE: another reason"]
