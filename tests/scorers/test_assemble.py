"""Samples become ticks: once each, in order, whatever order they come in."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.records import TickInput
from domain.rollout import SourceRef, context_of
from domain.signal import Arm, Channel, Freshness, Quality
from scorers.assemble import Assembler
from tests.scorers.situations import ERRORS, T0, policy, spec
from tests.scorers.telemetry import report, sample

METRICS = SourceRef(name="prom", channel=Channel.METRICS)
LOGS = SourceRef(name="loki", channel=Channel.LOGS)
LOG_GATE = replace(ERRORS, signal="log_error_ratio")
TWO_GATES = policy(gates=(ERRORS, LOG_GATE))
ENDS = [T0 + 5.0 * position for position in range(1, 5)]


def assembler(*sources: SourceRef) -> Assembler:
    fresh = Assembler()
    wanted = spec(TWO_GATES if len(sources) > 1 else policy(), sources=sources or (METRICS,))
    fresh.track("r-1", context_of(wanted), T0)
    return fresh


def metrics(joined: Assembler, end: float, now: float | None = None, **more: Any) -> list[TickInput]:
    samples = [sample(end, arm=arm, **more) for arm in Arm]
    return [each for _, each in joined.add(report("prom", end), samples, end + 0.5 if now is None else now)]


def logs(joined: Assembler, end: float, now: float | None = None) -> list[TickInput]:
    samples = [sample(end, arm=arm, signal="log_error_ratio") for arm in Arm]
    return [each for _, each in joined.add(report("loki", end), samples, end + 0.5 if now is None else now)]


def test_a_tick_closes_when_its_only_source_has_reported() -> None:
    (closed,) = metrics(assembler(), ENDS[0])
    assert (closed.start, closed.end, closed.now, closed.silent) == (T0, ENDS[0], ENDS[0] + 0.5, ())
    assert {(each.signal, each.arm) for each in closed.signals} == {("error_rate", arm) for arm in Arm}


def test_a_tick_waits_for_the_slower_of_two_sources() -> None:
    # metrics  ──┬──────▶
    # logs     ────┬────▶
    # tick     [───)  closes here, with both
    joined = assembler(METRICS, LOGS)
    assert metrics(joined, ENDS[0]) == []
    (closed,) = logs(joined, ENDS[0])
    assert len(closed.signals) == 4


def test_a_tick_waits_no_longer_than_its_lateness() -> None:
    # metrics  ──┬────┬──▶     the second report is 5 s after the first tick's end: past 1 s of lateness
    # logs     ──────────      nothing
    joined = assembler(METRICS, LOGS)
    metrics(joined, ENDS[0])
    (closed,) = metrics(joined, ENDS[1])
    assert (closed.end, closed.silent) == (ENDS[0], ("loki",))


def test_old_ticks_of_a_backlog_wait_for_every_source_that_is_still_being_read() -> None:
    # now      ──────────────────────────── an hour later ─┬─▶
    # metrics  ┬ ┬ ┬ ┬                                     all read first
    # logs     ┬ ┬ ┬ ┬                                     then these
    joined, later = assembler(METRICS, LOGS), T0 + 3600.0
    assert [closed for end in ENDS for closed in metrics(joined, end, later)] == []
    closed = [closed for end in ENDS for closed in logs(joined, end, later + 0.2)]
    assert [each.end for each in closed] == ENDS
    assert all(len(each.signals) == 4 for each in closed)
    assert joined.dropped["late"] == 0


def test_a_backlog_does_not_wait_for_a_source_that_says_nothing() -> None:
    joined, later = assembler(METRICS, LOGS), T0 + 3600.0
    metrics(joined, ENDS[0], later)
    closed = metrics(joined, ENDS[1], later + 1.5)
    assert [each.end for each in closed] == [ENDS[0]]


def test_a_silent_source_leaves_the_wait_by_the_clock() -> None:
    joined = assembler(METRICS, LOGS)
    metrics(joined, ENDS[0])
    assert joined.clock(ENDS[0] + 1.0, silent=()) == []
    ((_, closed),) = joined.clock(ENDS[0] + 1.0, silent=("loki",))
    assert (closed.end, closed.silent) == (ENDS[0], ("loki",))
    assert len(closed.signals) == 2


def test_total_silence_is_one_empty_tick_per_clock_record() -> None:
    joined = assembler()
    ((_, first),) = joined.clock(ENDS[1] + 1.5, silent=("prom",))
    assert (first.end, first.signals, first.silent) == (ENDS[1], (), ("prom",))
    assert joined.clock(ENDS[1] + 2.0, silent=("prom",)) == []
    assert not joined.has_pending()
    ((_, second),) = joined.clock(ENDS[2] + 1.5, silent=("prom",))
    assert second.end == ENDS[2]


def test_the_order_in_which_sources_report_changes_no_tick() -> None:
    closings = []
    for orders in itertools.product(itertools.permutations((metrics, logs)), repeat=len(ENDS)):
        joined = assembler(METRICS, LOGS)
        frames = [(add, end) for end, order in zip(ENDS, orders, strict=True) for add in order]
        closings.append([each for add, end in frames for each in add(joined, end)])
    assert len(closings) == 16
    assert [each.end for each in closings[0]] == ENDS
    assert all(each == closings[0] for each in closings)


@given(st.randoms(use_true_random=False))
def test_samples_of_a_tick_may_come_in_any_order_and_in_any_number_of_frames(drawn: random.Random) -> None:
    samples = [
        sample(ENDS[0], arm=arm, signal=name) for arm in Arm for name in ("error_rate", "log_error_ratio")
    ]
    drawn.shuffle(samples)
    joined = assembler(METRICS, LOGS)
    for each in samples[:3]:
        joined.add(report("other", ENDS[0]), [each], ENDS[0])
    joined.add(report("prom", ENDS[0]), samples[3:], ENDS[0])
    ((_, closed),) = joined.add(report("loki", ENDS[0]), [], ENDS[0])
    assert [(each.signal, each.arm.value) for each in closed.signals] == [
        ("error_rate", "canary"),
        ("error_rate", "stable"),
        ("log_error_ratio", "canary"),
        ("log_error_ratio", "stable"),
    ]


def test_what_comes_twice_counts_once() -> None:
    joined = assembler(METRICS, LOGS)
    for _ in range(3):
        metrics(joined, ENDS[0])
    (closed,) = logs(joined, ENDS[0])
    assert [each.exposure for each in closed.signals] == [100.0] * 4
    assert joined.dropped == {"duplicate": 4}


def test_a_second_version_of_a_tick_is_dropped_and_counted_apart() -> None:
    joined = assembler(METRICS, LOGS)
    metrics(joined, ENDS[0])
    metrics(joined, ENDS[0], exposure=7.0)
    (closed,) = logs(joined, ENDS[0])
    assert {each.exposure for each in closed.signals} == {100.0}
    assert joined.dropped == {"conflict": 2}


def test_what_is_late_is_counted_and_never_applied() -> None:
    joined = assembler()
    metrics(joined, ENDS[0])
    assert metrics(joined, ENDS[0], exposure=5000.0) == []
    assert joined.dropped == {"late": 2}
    (closed,) = metrics(joined, ENDS[1])
    assert {each.exposure for each in closed.signals} == {100.0}


@pytest.mark.parametrize(("ahead", "taken"), [(5.0, True), (5.1, False)])
def test_reports_from_the_future_are_refused(ahead: float, taken: bool) -> None:
    joined = assembler()
    closed = metrics(joined, ENDS[0], now=ENDS[0] - ahead)
    assert bool(closed) is taken
    assert joined.dropped["skewed"] == (0 if taken else 2)


def test_ticks_that_close_together_close_oldest_first() -> None:
    # metrics (near)  ──┬────┬────▶
    # logs (near)     ───────────┬▶    with one report on all that was
    # ticks             [───)[───)     close here
    joined = assembler(replace(METRICS, freshness=Freshness.NEAR), replace(LOGS, freshness=Freshness.NEAR))
    assert metrics(joined, ENDS[0]) == metrics(joined, ENDS[1]) == []
    closed = logs(joined, ENDS[1], now=ENDS[3])
    assert [(each.end, each.now) for each in closed] == [(ENDS[0], ENDS[3]), (ENDS[1], ENDS[3])]
    assert [len(each.signals) for each in closed] == [2, 4]


def test_frames_of_a_backlog_close_their_ticks_one_by_one_and_lag_behind_the_clock() -> None:
    joined = assembler()
    closed = [each for end in ENDS for each in metrics(joined, end, now=T0 + 600.0)]
    assert [each.end for each in closed] == ENDS
    assert {each.now for each in closed} == {T0 + 600.0}


def test_a_sources_own_words_travel_with_the_tick() -> None:
    joined = assembler()
    ((_, closed),) = joined.add(report("prom", ENDS[0], problem="503 from prom"), [], ENDS[0])
    assert closed.problems == {"prom": "503 from prom"}
    (after,) = metrics(joined, ENDS[1])
    assert after.problems == {}


def test_counts_between_closed_ticks_are_not_lost() -> None:
    # ends of an odd report  ┬      of a source nobody waits for
    # ticks              [───)[───)
    joined = assembler()
    joined.add(report("other", ENDS[0]), [sample(ENDS[0], events=2.0)], ENDS[0])
    (closed,) = [
        each for _, each in joined.add(report("prom", ENDS[1]), [sample(ENDS[1], events=3.0)], ENDS[1])
    ]
    (only,) = closed.signals
    assert (only.start, only.events, only.exposure) == (T0, 5.0, 200.0)


def test_buckets_add_up_edge_by_edge_and_those_of_other_edges_do_not() -> None:
    old: dict[str, Any] = {"signal": "latency_ms", "edges": (1.0, 2.0), "counts": (3.0, 4.0)}
    for edges, counts in (((1.0, 2.0), (8.0, 10.0)), ((1.0, 9.0), (5.0, 6.0))):
        joined = assembler()
        joined.add(report("other", ENDS[0]), [sample(ENDS[0], **old)], ENDS[0])
        new = sample(ENDS[1], signal="latency_ms", edges=edges, counts=(5.0, 6.0), quality=int(Quality.RESET))
        ((_, closed),) = joined.add(report("prom", ENDS[1]), [new], ENDS[1])
        assert closed.signals[0].counts == counts
        assert closed.signals[0].quality == int(Quality.RESET)


def test_a_slower_source_is_not_waited_for_and_what_it_brings_is_not_late() -> None:
    # metrics (realtime)  ──┬────┬────┬──▶
    # logs    (near)      ────────────┬──▶   about the first tick, when the third closes
    near = replace(LOGS, freshness=Freshness.NEAR)
    joined = assembler(METRICS, near)
    assert len(metrics(joined, ENDS[0])) == len(metrics(joined, ENDS[1])) == 1
    assert logs(joined, ENDS[0], now=ENDS[2]) == []
    (third,) = metrics(joined, ENDS[2])
    trailing = [each for each in third.signals if each.signal == "log_error_ratio"]
    assert [each.start for each in trailing] == [T0, T0]
    assert joined.dropped == {}


def test_a_slower_sources_tick_is_never_applied_twice_either() -> None:
    joined = assembler(METRICS, replace(LOGS, freshness=Freshness.NEAR))
    metrics(joined, ENDS[0])
    logs(joined, ENDS[0])
    metrics(joined, ENDS[1])
    logs(joined, ENDS[0])
    assert joined.dropped == {"late": 2}
    (third,) = metrics(joined, ENDS[2])
    assert {each.signal for each in third.signals} == {"error_rate"}


def test_rollouts_nobody_tracks_are_no_business_of_ours() -> None:
    joined = assembler()
    stray = replace(sample(ENDS[0]), rollout_id="r-2")
    assert joined.add(report("prom", ENDS[0], rollouts=("r-2",)), [stray], ENDS[0]) == []
    assert (joined.dropped, joined.has_pending()) == ({}, False)
    joined.forget("r-1")
    assert metrics(joined, ENDS[0]) == []
    assert (joined.tracks("r-1"), joined.sources()) == (False, set())


def test_pending_is_what_no_closed_tick_contains() -> None:
    joined = assembler(METRICS, LOGS)
    assert not joined.has_pending()
    metrics(joined, ENDS[0])
    assert joined.has_pending()
    logs(joined, ENDS[0])
    assert not joined.has_pending()
