"""The picture: every verdict has a shape and a word, and nothing is cut at 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from domain.decision import Order
from domain.policy import Policy
from domain.rollout import Phase
from domain.verdict import Verdict
from sentra.embedded.demo.story import Story
from sentra.embedded.demo.view import LAST_EVENTS, MARKS, render
from tests.sentra.embedded.demo.tale import ROLLOUT, Tale, quick_policy, score

WIDTH = 80


def shown(story: Story, policy: Policy | None = None) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, record=True)
    console.print(render(story, policy or quick_policy(), "sentra demo · test", now=42.0, began=10.0))
    return console.export_text()


def told(tale: Tale) -> Story:
    story = Story(rollout_id=ROLLOUT)
    for record in tale.records():
        story.read(record)
    return story


def test_every_verdict_has_a_shape_of_its_own() -> None:
    assert set(MARKS) == set(Verdict)
    assert len({shape for shape, _ in MARKS.values()}) == len(Verdict)


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_is_shown_as_shape_and_word(verdict: Verdict) -> None:
    story = Story(rollout_id=ROLLOUT)
    story.scores = (score(verdict, gate=0), score(verdict, gate=1, quantile_ms=1234.4))
    lines = shown(story).splitlines()
    (rate,) = [line for line in lines if "error_rate" in line]
    (latency,) = [line for line in lines if "p95 latency_ms" in line]
    assert f"{MARKS[verdict][0]} {verdict.value}" in rate
    assert f"{MARKS[verdict][0]} {verdict.value} 1234 ms" in latency
    assert "≤ 5 % > 400 ms" in latency
    assert "12.3 %" in rate
    assert "1,234" in rate


@pytest.mark.parametrize("verdict", Verdict)
def test_a_gate_takes_one_line_at_80_columns(verdict: Verdict) -> None:
    story = Story(rollout_id=ROLLOUT)
    empty = shown(story).splitlines()
    story.scores = tuple(score(verdict, gate=gate, quantile_ms=1234.4) for gate in range(3))
    assert len(shown(story).splitlines()) == len(empty)


@pytest.mark.parametrize("phase", Phase)
def test_each_phase_is_shown_by_its_name(phase: Phase) -> None:
    tale = Tale()
    tale.state(phase, seq=1)
    text = shown(told(tale))
    assert f"{phase.value.replace('_', ' ')}" in text
    assert "ordered 20 %, in force 20 %" in text
    assert "waits for something" in text


def test_a_pause_says_why() -> None:
    tale = Tale()
    tale.state(Phase.PAUSED, seq=1)
    assert "paused (no data)" in shown(told(tale))


def test_before_anything_was_heard_it_waits_for_the_first_decision() -> None:
    text = shown(Story(rollout_id=ROLLOUT))
    assert "waits for the first decision" in text
    assert all(weight in text for weight in ("5 %", "20 %", "40 %", "70 %", "100 %"))


def test_steps_that_are_done_and_the_one_in_force_have_marks_not_only_colours() -> None:
    tale = Tale()
    tale.report(tale.order(Order.SHIFT, 11.0, weight_bp=2000), 11.1)
    tale.report(tale.order(Order.SHIFT, 12.0, step=1, weight_bp=4000), 12.1)
    tale.state(Phase.WARMING, seq=2)
    text = shown(told(tale))
    assert "✓ 20 %" in text
    assert "▸ 40 %" in text
    assert "✓ 40 %" not in text


def test_the_last_events_are_shown_with_their_time_since_the_beginning() -> None:
    story = Story(rollout_id=ROLLOUT)
    story.events.extend((10.0 + index, f"event number {index}") for index in range(20))
    text = shown(story)
    assert text.count("event number") == LAST_EVENTS
    assert " 19.0  event number 19" in text


def test_an_event_that_is_too_long_or_looks_like_markup_is_cut_and_not_obeyed() -> None:
    story = Story(rollout_id=ROLLOUT)
    story.events.append((11.0, "[/red] " + "x" * 200))
    lines = shown(story).splitlines()
    assert "[/red]" in lines[-2]
    assert "…" in lines[-2]
    assert {len(line) for line in lines} == {WIDTH}
