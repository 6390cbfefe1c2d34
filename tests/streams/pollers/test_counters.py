"""Increments lose nothing, count nothing twice, and say what they cannot know."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.signal import Quality
from streams.pollers.counters import Ledger, Part, Reading, add_up

TICK = 5.0


def reading(total: float, *, life: float | None = None, **others: float) -> Reading:
    return Reading({"arm": {"total": total, **others}}, life)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[int], list[bool]]]:
    """For some endpoints: what each tick truly brought, and whether its end was read."""
    ticks = draw(st.integers(2, 25))
    return [
        (
            draw(st.lists(st.integers(0, 1000), min_size=ticks, max_size=ticks)),
            draw(st.lists(st.booleans(), min_size=ticks, max_size=ticks)),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


def parts_by_tick(endpoints: list[tuple[list[int], list[bool]]]) -> list[dict[str, Part]]:
    ledger = Ledger()
    totals = [0] * len(endpoints)
    ticks = []
    for tick in range(len(endpoints[0][0])):
        parts = {}
        for index, (brought, was_read) in enumerate(endpoints):
            totals[index] += brought[tick]
            if was_read[tick]:
                end = (tick + 1) * TICK
                parts |= {f"{index}": ledger.enter(f"{index}", end, reading(float(totals[index])))["arm"]}
        ticks.append(parts)
    return ticks


@given(histories())
@settings(deadline=None)
def test_increments_add_up_to_the_true_count_whatever_readings_are_missed(
    endpoints: list[tuple[list[int], list[bool]]],
) -> None:
    ticks = parts_by_tick(endpoints)
    increments = [
        add_up(list(parts.values()), end=(index + 1) * TICK, interval_s=TICK, is_partial=False)
        for index, parts in enumerate(ticks)
    ]
    told = sum(each.values["total"] for each in increments if each is not None)
    truth = 0
    for brought, was_read in endpoints:
        read = [tick for tick, yes in enumerate(was_read) if yes]
        if read:
            truth += sum(brought[read[0] + 1 : read[-1] + 1])
    assert told == truth


@given(histories())
@settings(deadline=None)
def test_increments_of_one_endpoint_never_overlap_and_leave_no_gap(
    endpoints: list[tuple[list[int], list[bool]]],
) -> None:
    ticks = parts_by_tick(endpoints)
    for index in range(len(endpoints)):
        spans = [
            (parts[f"{index}"].start, (tick + 1) * TICK)
            for tick, parts in enumerate(ticks)
            if f"{index}" in parts
        ]
        assert all(later[0] == earlier[1] for earlier, later in pairwise(spans))


@given(histories())
@settings(deadline=None)
def test_an_arm_claims_at_least_the_time_its_endpoints_counted_in(
    endpoints: list[tuple[list[int], list[bool]]],
) -> None:
    for index, parts in enumerate(parts_by_tick(endpoints)):
        end = (index + 1) * TICK
        increment = add_up(list(parts.values()), end=end, interval_s=TICK, is_partial=False)
        if increment is None:
            assert not parts
            continue
        starts = [part.start for part in parts.values() if part.start is not None]
        assert increment.start == min(starts, default=end - TICK)
        assert bool(increment.quality & Quality.SPANS) == (increment.end - increment.start > TICK)
        assert bool(increment.quality & Quality.FIRST) == (not starts)


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=2, max_size=20))
@settings(deadline=None)
def test_restarts_lose_only_what_was_counted_after_the_last_reading(ticks: list[tuple[int, bool]]) -> None:
    ledger, total, born, told, truth = Ledger(), 0, 0.0, 0.0, 0
    for number, (brought, restarts) in enumerate(ticks):
        end = (number + 1) * TICK
        if restarts:
            total, born = 0, end - 1.0
        total += brought
        part = ledger.enter("pod", end, reading(float(total), life=-born))["arm"]
        told += part.values["total"]
        truth += brought if number else 0
        assert part.is_reset == (restarts and number > 0)
    assert told == truth


def test_the_first_reading_counts_nothing() -> None:
    part = Ledger().enter("pod", 5.0, reading(1000.0, bad=3.0))["arm"]
    assert part == Part(None, {"total": 0.0, "bad": 0.0})
    increment = add_up([part], end=5.0, interval_s=TICK, is_partial=False)
    assert increment is not None
    assert (increment.start, increment.quality) == (0.0, Quality.FIRST)


def test_a_counter_that_fell_counts_from_the_restart() -> None:
    ledger = Ledger()
    ledger.enter("pod", 5.0, reading(1000.0, bad=3.0))
    part = ledger.enter("pod", 10.0, reading(12.0, bad=4.0))["arm"]
    assert part == Part(5.0, {"total": 12.0, "bad": 4.0}, is_reset=True)


def test_without_a_start_time_one_fallen_counter_condemns_the_whole_endpoint() -> None:
    ledger = Ledger()
    ledger.enter("pod", 5.0, Reading({"v1": {"total": 900.0}, "v2": {"total": 4.0}}))
    parts = ledger.enter("pod", 10.0, Reading({"v1": {"total": 50.0}, "v2": {"total": 9.0}}))
    assert parts["v2"] == Part(5.0, {"total": 9.0}, is_reset=True)


def test_in_a_living_process_a_version_made_anew_leaves_the_others_alone() -> None:
    ledger = Ledger()
    ledger.enter("proxy", 5.0, Reading({"v1": {"total": 900.0}, "v2": {"total": 40.0}}, life=100.0))
    parts = ledger.enter("proxy", 10.0, Reading({"v1": {"total": 950.0}, "v2": {"total": 9.0}}, life=105.0))
    assert parts["v1"] == Part(5.0, {"total": 50.0})
    assert parts["v2"] == Part(5.0, {"total": 9.0}, is_reset=True)


def test_a_version_that_vanished_from_a_page_goes_on_where_it_was() -> None:
    ledger = Ledger()
    ledger.enter("proxy", 5.0, reading(900.0))
    assert ledger.enter("proxy", 10.0, Reading({})) == {}
    assert ledger.enter("proxy", 15.0, reading(907.0))["arm"] == Part(5.0, {"total": 7.0})


def test_a_version_that_appears_on_a_known_endpoint_has_counted_from_zero() -> None:
    ledger = Ledger()
    ledger.enter("proxy", 5.0, Reading({}))
    assert ledger.enter("proxy", 10.0, reading(7.0))["arm"] == Part(5.0, {"total": 7.0})


def test_a_reading_that_is_not_newer_is_ignored() -> None:
    ledger = Ledger()
    ledger.enter("pod", 10.0, reading(100.0))
    assert ledger.enter("pod", 10.0, reading(120.0)) == {}
    assert ledger.enter("pod", 5.0, reading(50.0)) == {}
    assert ledger.enter("pod", 15.0, reading(130.0))["arm"].values == {"total": 30.0}


def test_bucket_edges_that_only_some_endpoints_have_are_left_out() -> None:
    parts = [Part(0.0, {"count": 9.0, 100.0: 5.0, 250.0: 8.0}), Part(0.0, {"count": 3.0, 100.0: 1.0})]
    increment = add_up(parts, end=5.0, interval_s=TICK, is_partial=True, common_only=True)
    assert increment is not None
    assert increment.values == {"count": 12.0, 100.0: 6.0}
    assert increment.quality == Quality.PARTIAL


def test_an_endpoint_read_for_the_first_time_makes_its_arm_partial() -> None:
    parts = [Part(0.0, {"total": 9.0}), Part(None, {"total": 0.0})]
    increment = add_up(parts, end=5.0, interval_s=TICK, is_partial=False)
    assert increment is not None
    assert (increment.values, increment.quality) == ({"total": 9.0}, Quality.PARTIAL)
