"""Draws are seeded, as healthy as promised, and as ill as told."""

from __future__ import annotations

from itertools import groupby, islice

import msgspec
import pytest

from sentra.embedded.demo.behaviour import HEALTHY, Answer, Behaviour, Fault

MANY = 20_000


def drawn(seed: int = 1, version: str = "v1", fault: Fault = HEALTHY, count: int = MANY) -> list[Answer]:
    behaviour = Behaviour(seed, version, fault)
    return [behaviour.next_answer() for _ in range(count)]


def latency_at(answers: list[Answer], share: float) -> float:
    return sorted(answer.latency_ms for answer in answers)[int(len(answers) * share)]


def test_one_seed_gives_one_sequence() -> None:
    assert drawn(count=100) == drawn(count=100)
    assert drawn(count=100) != drawn(seed=2, count=100)
    assert drawn(count=100) != drawn(version="v2", count=100)


def test_a_healthy_version_is_quick_and_without_errors() -> None:
    answers = drawn()
    assert latency_at(answers, 0.5) == pytest.approx(20.0, rel=0.05)
    assert latency_at(answers, 0.99) < 150.0
    assert not any(answer.failed or any(answer.bad_lines) for answer in answers)


def test_errors_come_at_the_ratio_asked_for_with_one_bad_line_each() -> None:
    answers = drawn(fault=Fault(error_ratio=0.08))
    failed = [answer for answer in answers if answer.failed]
    assert len(failed) / MANY == pytest.approx(0.08, rel=0.1)
    assert all(answer.bad_lines == (False, False, answer.failed) for answer in answers)


def rows_of_failures(answers: list[Answer]) -> list[int]:
    return [len(list(row)) for failed, row in groupby(answers, lambda answer: answer.failed) if failed]


def test_failures_that_come_in_rows_are_no_more_than_asked_for() -> None:
    answers = drawn(fault=Fault(error_ratio=0.05, burst=5))
    assert sum(answer.failed for answer in answers) / MANY == pytest.approx(0.05, rel=0.15)
    assert all(row % 5 == 0 for row in rows_of_failures(answers)[:-1]), "the last row may be cut by the end"
    assert max(rows_of_failures(drawn(fault=Fault(error_ratio=0.05)))) < 5


def test_failures_may_leave_no_trace_in_the_log() -> None:
    failed = [each for each in drawn(fault=Fault(error_ratio=0.2, unlogged_ratio=0.7)) if each.failed]
    assert sum(any(each.bad_lines) for each in failed) / len(failed) == pytest.approx(0.3, rel=0.1)


def test_slow_answers_are_beyond_the_demos_limit_and_short_of_its_severe_one() -> None:
    answers = drawn(fault=Fault(slow_ratio=0.1))
    slow = [each.latency_ms for each in answers if each.latency_ms > 400.0]
    assert len(slow) / MANY == pytest.approx(0.1, rel=0.1)
    assert max(slow) < 800.0
    assert latency_at(answers, 0.5) < 50.0


def test_slowness_has_the_percentile_asked_for() -> None:
    assert latency_at(drawn(fault=Fault(latency_p95_ms=900.0)), 0.95) == pytest.approx(900.0, rel=0.05)


def test_log_errors_come_without_failures() -> None:
    answers = drawn(fault=Fault(log_error_ratio=0.02))
    assert not any(answer.failed for answer in answers)
    bad = sum(sum(answer.bad_lines) for answer in answers)
    assert bad / (3 * MANY) == pytest.approx(0.02, rel=0.1)


def test_a_fault_and_its_end_leave_the_later_draws_as_they_were() -> None:
    behaviour = Behaviour(
        1, "v1", Fault(error_ratio=1.0, slow_ratio=1.0, unlogged_ratio=0.5, latency_p95_ms=900.0)
    )
    ill = [behaviour.next_answer() for _ in range(10)]
    behaviour.fault = HEALTHY
    assert all(answer.failed for answer in ill)
    assert list(islice(drawn(count=50), 10, 50)) == [behaviour.next_answer() for _ in range(40)]


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"error_ratio":1.5}',
        b'{"error_ratio":-0.1}',
        b'{"eror_ratio":0.1}',
        b'{"latency_p95_ms":0}',
        b'{"burst":0}',
    ],
)
def test_impossible_faults_are_refused(wrong: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wrong, type=Fault)
