"""What raw samples are counted as: every event once, whatever is seen when."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from streams.pollers.prometheus_counters import Counted, Counters, Lane, Timeline

POD = Lane("pod-1", "v2")
Samples = Sequence[tuple[float, float]]


def line(
    series: str,
    samples: Samples,
    *,
    lane: Lane = POD,
    asked_since: float = -math.inf,
    count_from: float = -math.inf,
    server: str = "",
) -> Timeline:
    return Timeline(series, lane, samples, asked_since, count_from, server)


def amounts(counted: Sequence[Counted]) -> dict[object, tuple[float | None, float]]:
    """Start and amount by series."""
    return {each.series: (each.start, each.amount) for each in counted}


def test_counting_goes_on_from_the_last_sample_used_and_a_sample_counts_once() -> None:
    counters = Counters()
    assert amounts(counters.enter([line("a", [(1.0, 100.0)])], 5.0)) == {"a": (None, 0.0)}
    assert counters.enter([line("a", [(1.0, 100.0)])], 10.0) == []
    seen = [(1.0, 100.0), (11.0, 130.0), (14.0, 131.0)]
    assert amounts(counters.enter([line("a", seen)], 15.0)) == {"a": (1.0, 31.0)}
    assert counters.enter([line("a", seen)], 20.0) == []


def test_a_service_that_joins_gets_what_it_counted_in_its_first_tick() -> None:
    seen = [(1.0, 100.0), (4.0, 110.0), (9.0, 125.0)]
    joined = line("a", seen, asked_since=0.0, count_from=5.0)
    assert amounts(Counters().enter([joined], 10.0)) == {"a": (4.0, 15.0)}


def test_a_counter_that_appears_beside_others_began_at_zero() -> None:
    counters = Counters()
    counters.enter([line("ok", [(1.0, 100.0)])], 5.0)
    both = [line("ok", [(6.0, 150.0)]), line("bad", [(6.0, 37.0)])]
    assert amounts(counters.enter(both, 10.0)) == {"ok": (1.0, 50.0), "bad": (1.0, 37.0)}


def test_a_counter_that_becomes_visible_one_tick_late_counts_all_the_same() -> None:
    counters = Counters()
    counters.enter([line("ok", [(1.0, 100.0)])], 5.0)
    counters.enter([line("ok", [(6.0, 150.0)])], 10.0)
    late = [line("ok", [(6.0, 150.0), (11.0, 160.0)]), line("bad", [(6.0, 37.0), (11.0, 38.0)])]
    assert amounts(counters.enter(late, 15.0)) == {"ok": (6.0, 10.0), "bad": (1.0, 38.0)}


def test_a_counter_that_nobody_asked_for_before_did_not_begin_at_zero() -> None:
    """It may have counted for a year: only what is seen of it counts."""
    counters = Counters()
    counters.enter([line("ok", [(1.0, 100.0)])], 5.0)
    new = [line("ok", [(6.0, 150.0)]), line("bad", [(6.0, 5_000.0)], asked_since=5.5)]
    assert amounts(counters.enter(new, 10.0))["bad"] == (None, 0.0)


def test_the_first_sample_of_a_new_endpoint_is_where_counting_begins() -> None:
    counters = Counters()
    counters.enter([line("a", [(1.0, 100.0)])], 5.0)
    other = line("b", [(6.0, 5_000.0)], lane=Lane("pod-2", "v2"))
    assert amounts(counters.enter([line("a", [(6.0, 101.0)]), other], 10.0))["b"] == (None, 0.0)


def test_series_that_all_get_other_labels_at_once_invent_no_events() -> None:
    counters = Counters()
    counters.enter([line("ok", [(1.0, 9_000.0)]), line("bad", [(1.0, 700.0)])], 5.0)
    renamed = [line("ok{zone}", [(6.0, 9_010.0)]), line("bad{zone}", [(6.0, 700.0)])]
    assert {each.amount for each in counters.enter(renamed, 10.0)} == {0.0}


def test_a_fall_resets_every_counter_of_the_process_and_no_other() -> None:
    other = Lane("pod-1", "v1")
    counters = Counters()
    before = [line("ok", [(1.0, 100.0)]), line("bad", [(1.0, 2.0)]), line("x", [(1.0, 50.0)], lane=other)]
    counters.enter(before, 5.0)
    after = [line("ok", [(6.0, 30.0)]), line("bad", [(6.0, 5.0)]), line("x", [(6.0, 51.0)], lane=other)]
    counted = counters.enter(after, 10.0)
    # The failures overtook their old value: without the fall of the others they would look like 3.
    assert amounts(counted) == {"ok": (1.0, 30.0), "bad": (1.0, 5.0), "x": (1.0, 1.0)}
    assert [each.is_reset for each in counted] == [True, True, False]


def test_two_restarts_within_a_tick_are_both_seen() -> None:
    counters = Counters()
    counters.enter([line("a", [(1.0, 100.0)])], 5.0)
    assert amounts(counters.enter([line("a", [(6.0, 110.0), (7.0, 4.0), (8.0, 3.0)])], 10.0)) == {
        "a": (1.0, 17.0)
    }


def test_what_was_counted_while_nobody_asked_is_nobodys_evidence() -> None:
    counters = Counters()
    counters.enter([line("a", [(1.0, 100.0)])], 5.0)
    again = line("a", [(900.0, 4_000.0), (904.0, 4_010.0)], asked_since=880.0, count_from=900.0)
    assert amounts(counters.enter([again], 905.0)) == {"a": (900.0, 10.0)}


def test_of_a_pair_of_servers_each_event_counts_once_whoever_is_ahead() -> None:
    counters = Counters()
    one = lambda *samples: line("a", samples, server="one")  # noqa: E731 - reads as data
    two = lambda *samples: line("a", samples, server="two")  # noqa: E731 - reads as data
    counters.enter([one((1.0, 100.0)), two((3.0, 102.0))], 5.0)
    total = sum(each.amount for each in counters.enter([one((6.0, 110.0)), two((8.0, 115.0))], 10.0))
    # One of them dies; the other goes on.
    total += sum(each.amount for each in counters.enter([two((13.0, 130.0))], 15.0))
    total += sum(each.amount for each in counters.enter([one((19.0, 140.0)), two((18.0, 138.0))], 20.0))
    total += sum(each.amount for each in counters.enter([one((24.0, 150.0))], 25.0))
    assert total == 150.0 - 102.0


def test_a_server_whose_clock_is_behind_shows_no_reset() -> None:
    counters = Counters()
    counters.enter([line("a", [(1.0, 100.0)], server="one"), line("a", [(0.0, 100.0)], server="two")], 5.0)
    counters.enter([line("a", [(9.0, 120.0)], server="one")], 10.0)
    counted = counters.enter([line("a", [(12.0, 119.0)], server="two")], 15.0)
    assert [(each.amount, each.is_reset) for each in counted] == [(0.0, False)]
    counted = counters.enter([line("a", [(17.0, 125.0)], server="two")], 20.0)
    assert [(each.amount, each.is_reset) for each in counted] == [(5.0, False)]


def test_a_server_that_saw_the_counter_fall_shows_a_reset() -> None:
    counters = Counters()
    counters.enter([line("a", [(4.0, 100.0)], server="one"), line("a", [(3.0, 99.0)], server="two")], 5.0)
    counted = counters.enter([line("a", [(9.0, 7.0)], server="two")], 10.0)
    assert [(each.amount, each.is_reset) for each in counted] == [(7.0, True)]


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 50),  # requests since the last scrape
            st.integers(0, 5),  # failures among them
            st.booleans(),  # whether the process restarts after this scrape
            st.integers(0, 3),  # ticks (of 5 s) that end before the next scrape is visible
            st.booleans(),  # whether those ticks' answers get lost
        ),
        min_size=2,
        max_size=30,
    ),
    gap_s=st.sampled_from([1.0, 5.0, 15.0]),
)
def test_every_scraped_event_counts_once_whenever_ticks_end(
    steps: list[tuple[int, int, bool, int, bool]], gap_s: float
) -> None:
    """The naive twin is the process itself: it knows what it has done."""
    counters = Counters()
    shown: dict[str, list[tuple[float, float]]] = {"ok": [], "bad": []}
    process = {"ok": 1, "bad": 0}
    at, end, counted, true = 0.0, 0.0, 0.0, 0.0

    def scrape() -> None:
        for name, value in process.items():
            if value or any(shown[name]):
                shown[name].append((at, float(value)))

    def fetch() -> float:
        lines = [line(name, samples) for name, samples in shown.items() if samples]
        return sum(each.amount for each in counters.enter(lines, end))

    scrape()
    fetch()
    for requests, failures, restarts, ticks, is_lost in steps:
        process["ok"] += requests
        process["bad"] += failures
        true += requests + failures
        at += gap_s
        scrape()
        for _ in range(ticks):
            end = max(end + 5.0, at)
            if not is_lost:
                counted += fetch()
        if restarts:
            counted += fetch()
            # A value that does not fall cannot be told from going on; the next scrape shows 0 first.
            process = {"ok": 0, "bad": 0}
            at += gap_s
            scrape()
    end = max(end, at) + 5.0
    counted += fetch()
    assert counted == true
