"""What a demo comes to: counting, and which failures are a shift's."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from domain.rollout import Phase
from sentra.embedded.demo.request_log import RESET, TIMED_OUT, Request, line_of
from sentra.embedded.demo.story import Shift, Story
from sentra.embedded.demo.summary import (
    PROXY_FAULTS,
    Summary,
    count_requests,
    count_shift_failures,
    fault_to_decision,
    outcome_of,
    show,
    steps_of,
)
from tests.sentra.embedded.demo.tale import ROLLOUT, Tale, promoted, rolled_back

SHIFT = Shift(100.0, 100.5)


def request(
    status: int, sent: float, *, ended: float | None = None, version: str = "", preview: bool = False
) -> Request:
    return Request(sent, sent, sent + 0.02 if ended is None else ended, status, version, preview)


def entry(
    began: float, flags: str, *, code: int = 503, cluster: str = "demo_v2", duration_ms: int = 0
) -> dict[str, object]:
    """A line of Envoy's access log."""
    return {
        "start_time": f"{began:.6f}",
        "response_code": code,
        "flags": flags,
        "cluster": cluster,
        "duration": duration_ms,
    }


def lost(
    folder: Path,
    *,
    rows: list[Request] | None = None,
    entries: list[dict[str, object]] | None = None,
    shifts: tuple[Shift, ...] = (SHIFT,),
    killed: Mapping[str, float] | None = None,
) -> int:
    log = folder / "access.log"
    log.write_text("".join(json.dumps(each) + "\n" for each in entries or []))
    return count_shift_failures(shifts, rows or [], log, killed or {})


# --- counting


def test_requests_and_failures_are_counted_by_who_answered(tmp_path: Path) -> None:
    rows = [
        request(200, 1.0, version="v1"),
        request(500, 1.1, version="v1"),
        request(404, 1.2, version="v2"),
        request(503, 1.3, version="v2"),
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(line_of(row) + "\n" for row in rows))
    requests, failed, read = count_requests(path)
    assert requests == {"stable": 2, "canary": 2}
    assert failed == {"stable": 1, "canary": 1}
    assert read == rows


def test_requests_that_nobody_answered_belong_to_no_arm_and_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(line_of(request(status, 1.0)) + "\n" for status in (RESET, TIMED_OUT)))
    requests, failed, rows = count_requests(path)
    assert requests == failed == {"stable": 0, "canary": 0, "unknown": 2}
    assert sum(requests.values()) == len(rows)


def test_a_demo_without_traffic_counts_nothing(tmp_path: Path) -> None:
    assert count_requests(tmp_path / "none") == ({"stable": 0, "canary": 0}, {"stable": 0, "canary": 0}, [])


# --- shift failures
#
#   taken up      in force            + 2 s
#   |-------------|-------------------|
#   100.0         100.5               102.5


@pytest.mark.parametrize(
    ("broke", "counts"), [(99.9, 0), (100.0, 1), (100.3, 1), (100.5, 1), (102.5, 1), (102.6, 0)]
)
def test_a_reset_counts_when_it_happens_near_a_shift(tmp_path: Path, broke: float, counts: int) -> None:
    assert lost(tmp_path, rows=[request(RESET, broke - 0.01, ended=broke)]) == counts


def test_a_request_that_was_under_way_and_is_cut_by_the_shift_counts(tmp_path: Path) -> None:
    #   sent 98 ------ cut 100.2
    assert lost(tmp_path, rows=[request(RESET, 98.0, ended=100.2)]) == 1


def test_a_time_out_counts_by_when_it_was_sent(tmp_path: Path) -> None:
    #             sent 101 ----------------------------- given up 106
    #   sent 97 ------------------------------- given up 102
    assert lost(tmp_path, rows=[request(TIMED_OUT, 101.0, ended=106.0)]) == 1
    assert lost(tmp_path, rows=[request(TIMED_OUT, 97.0, ended=102.0)]) == 0


def test_what_the_service_itself_answers_is_never_the_shifts(tmp_path: Path) -> None:
    answers = [request(500, 100.3, version="v2"), request(200, 100.3, version="v1")]
    assert lost(tmp_path, rows=answers, entries=[entry(100.3, "-", code=500)]) == 0


@pytest.mark.parametrize("flag", sorted(PROXY_FAULTS))
def test_the_proxys_own_failures_near_a_shift_count(tmp_path: Path, flag: str) -> None:
    assert lost(tmp_path, entries=[entry(100.3, flag), entry(110.0, flag)]) == 1
    assert lost(tmp_path, entries=[entry(100.3, f"{flag},URX")]) == 1


def test_every_flag_of_the_definition_is_known() -> None:
    assert {"NR", "UH", "NC", "UC", "DC"} == PROXY_FAULTS


@pytest.mark.parametrize("flags", ["-", "", "UF", "UT", "RL"])
def test_other_flags_do_not_count(tmp_path: Path, flags: str) -> None:
    assert lost(tmp_path, entries=[entry(100.3, flags)]) == 0


def test_a_good_answer_does_not_count_whatever_its_flags(tmp_path: Path) -> None:
    assert lost(tmp_path, entries=[entry(100.3, "UC", code=200)]) == 0


def test_the_proxys_failure_counts_when_it_happened_not_when_it_began(tmp_path: Path) -> None:
    #   began 98.0 ------ cut 100.2
    assert lost(tmp_path, entries=[entry(98.0, "UC", duration_ms=2200)]) == 1


def test_a_cut_that_user_and_proxy_both_saw_counts_once(tmp_path: Path) -> None:
    rows = [request(RESET, 100.2, ended=100.3)]
    assert lost(tmp_path, rows=rows, entries=[entry(100.2, "DC", code=0)]) == 1


def test_a_cut_that_only_the_proxy_saw_counts(tmp_path: Path) -> None:
    assert lost(tmp_path, entries=[entry(100.2, "DC", code=0), entry(100.3, "DC", code=0)]) == 2


def test_cuts_and_refusals_add_up(tmp_path: Path) -> None:
    rows = [request(RESET, 100.2, ended=100.3)]
    assert lost(tmp_path, rows=rows, entries=[entry(100.2, "NC"), entry(100.25, "NC")]) == 3


def test_a_failure_near_two_shifts_counts_once(tmp_path: Path) -> None:
    near_both = (SHIFT, Shift(101.0, 101.2))
    assert lost(tmp_path, shifts=near_both, entries=[entry(102.0, "UH")]) == 1


def test_without_a_shift_nothing_is_a_shifts_fault(tmp_path: Path) -> None:
    assert lost(tmp_path, shifts=(), rows=[request(RESET, 100.2)], entries=[entry(100.2, "UH")]) == 0


def test_what_reached_for_a_killed_version_does_not_count(tmp_path: Path) -> None:
    #   killed 100.1; before that its failures are as bad as any other
    killed = {"v2": 100.1}
    assert lost(tmp_path, entries=[entry(100.2, "UC")], killed=killed) == 0
    assert lost(tmp_path, entries=[entry(99.0, "UC", duration_ms=1500)], killed=killed) == 0
    assert lost(tmp_path, entries=[entry(100.05, "UC")], killed=killed) == 1
    assert lost(tmp_path, entries=[entry(100.2, "UC", cluster="demo_v1")], killed=killed) == 1


def test_an_access_log_that_ends_in_the_middle_of_a_line_is_read_up_to_there(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text(json.dumps(entry(100.2, "UH")) + '\n{"start_time": "100.')
    assert count_shift_failures([SHIFT], [], log, {}) == 1


def test_no_access_log_is_no_failure(tmp_path: Path) -> None:
    assert count_shift_failures([SHIFT], [], tmp_path / "none", {}) == 0


# --- delays


def told(tale: Tale) -> Story:
    story = Story(rollout_id=ROLLOUT)
    for record in tale.records():
        story.read(record)
    return story


def test_a_fault_that_was_there_before_counts_from_the_first_canary_traffic() -> None:
    #   fault 3.0      in force 10.2 ---- 4.8 s ---- PAUSE 15.0
    assert fault_to_decision(told(rolled_back()), 3.0) == 4.8


def test_a_later_fault_counts_from_its_own_beginning() -> None:
    #   in force 10.2     fault 14.0 -- 1 s -- PAUSE 15.0
    assert fault_to_decision(told(rolled_back()), 14.0) == 1.0


def test_without_a_fault_or_an_answer_to_it_there_is_no_delay() -> None:
    assert fault_to_decision(told(rolled_back()), None) is None
    assert fault_to_decision(told(rolled_back()), 18.0) is None
    assert fault_to_decision(Story(rollout_id=ROLLOUT), 3.0) is None


def test_steps_show_percent_seconds_and_the_last_verdict() -> None:
    steps = steps_of(told(promoted()), now=99.0)
    assert [(step.weight_pct, step.seconds, step.verdict) for step in steps] == [
        (50.0, 10.1, "PASS"),
        (100.0, 10.2, "PASS"),
    ]


def test_a_step_that_has_not_ended_lasts_until_now() -> None:
    story = Story(rollout_id=ROLLOUT)
    tale = rolled_back()
    for record in (*tale.evaluations[:1], *tale.actions[:1]):
        story.read(record)
    assert [step.seconds for step in steps_of(story, now=12.2)] == [2.0]


# --- outcome and text


def test_each_end_has_its_word_and_everything_else_is_a_failure() -> None:
    words = {phase: outcome_of(phase) for phase in Phase}
    assert words.pop(Phase.PROMOTED) == "promoted"
    assert words.pop(Phase.ROLLED_BACK) == "rolled_back"
    assert words.pop(Phase.PAUSED) == "paused"
    assert words.pop(Phase.ABORTED) == "aborted"
    assert set(words.values()) == {"failed"}
    assert outcome_of(None) == "failed"


def a_summary(**changes: object) -> Summary:
    summary = Summary(
        rollout_id=ROLLOUT,
        scenario="errors",
        judge="evidence",
        outcome="rolled_back",
        expected=("rolled_back",),
        reason="error_rate: 8 % [/no markup]",
        seconds=20.25,
        ready_s=4.0,
        fault_to_decision_s=None,
        decision_to_effect_s=0.25,
        requests={"stable": 1234, "canary": 56},
        failed={"stable": 0, "canary": 7},
        shift_failures=0,
        steps=(),
        evaluations=12,
        decisions=3,
        policy="abc",
    )
    return msgspec.structs.replace(summary, **changes)


def shown(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=80, record=True)
    show(console, summary)
    return console.export_text()


def test_people_read_the_outcome_the_reason_and_the_counts() -> None:
    text = shown(a_summary())
    assert "rolled back after 20.2 s · error_rate: 8 % [/no markup]" in text
    assert "stable 1,234 (0 failed) · canary 56 (7 failed)" in text
    assert "0.25 s (slowest shift)" in text
    assert any(line.split() == ["judge", "evidence"] for line in text.splitlines())
    assert "expected" not in text


def test_a_figure_that_does_not_exist_is_a_dash() -> None:
    lines = shown(a_summary(decision_to_effect_s=None)).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("fault to", "decision to"))] == ["–", "–"]


def test_an_unexpected_end_says_what_was_expected() -> None:
    summary = a_summary(outcome="promoted")
    assert not summary.is_as_expected
    assert "expected: rolled back" in shown(summary)
