"""Silence is counted in clock records and measured in a rollout's own intervals."""

from __future__ import annotations

from streams.agents.silence import CLOCK_S, SILENT_INTERVALS, Silence


def passed(silence: Silence, records: int) -> None:
    for _ in range(records):
        silence.pass_clock({"prom", "loki"})


def test_a_source_is_silent_after_three_intervals_without_a_word() -> None:
    silence = Silence()
    patience = round(SILENT_INTERVALS / CLOCK_S)
    passed(silence, patience)
    assert silence.at(1.0) == frozenset()
    passed(silence, 1)
    assert silence.at(1.0) == {"prom", "loki"}


def test_a_word_ends_the_silence_of_its_source_alone() -> None:
    silence = Silence()
    passed(silence, 10)
    silence.heard("prom")
    assert silence.at(1.0) == {"loki"}


def test_slow_rollouts_are_more_patient_than_quick_ones() -> None:
    silence = Silence()
    passed(silence, 10)
    assert silence.at(1.0) == {"prom", "loki"}
    assert silence.at(60.0) == frozenset()


def test_a_source_that_nobody_waits_for_is_forgotten() -> None:
    silence = Silence()
    passed(silence, 10)
    silence.pass_clock({"loki"})
    passed(silence, 1)
    assert silence.at(1.0) == {"loki"}
