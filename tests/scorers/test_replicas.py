"""Replicas add up to their arm, and a replica stays in its half."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.records import SignalInput, TickInput
from domain.rollout import SourceRef, context_of
from domain.signal import Arm, Channel, Freshness, Quality, Sample
from scorers.assemble import Assembler
from scorers.replicas import is_first, split_bit
from tests.scorers.situations import ERRORS, T0, policy, spec
from tests.scorers.telemetry import report, sample

METRICS = SourceRef(name="prom", channel=Channel.METRICS)
LOGS = SourceRef(name="loki", channel=Channel.LOGS, freshness=Freshness.NEAR)
ENDS = [T0 + 5.0 * position for position in range(1, 4)]
EDGES = (50.0, 400.0, 800.0)
PODS = [f"checkout-{number}" for number in range(6)]
HALF = ("half_events", "half_exposure", "half_counts")
UNSPLIT = (-1.0, -1.0, ())


def assembler(*sources: SourceRef) -> Assembler:
    fresh = Assembler()
    gates = (ERRORS, replace(ERRORS, signal="log_error_ratio")) if len(sources) > 1 else (ERRORS,)
    fresh.track("r-1", context_of(spec(policy(gates=gates), sources=sources or (METRICS,))), T0)
    return fresh


def closed_by(joined: Assembler, end: float, *samples: Sample) -> TickInput:
    ((_, closed),) = joined.add(report("prom", end), samples, end + 0.5)
    return closed


def arm_of(*samples: Sample) -> SignalInput:
    (only,) = closed_by(assembler(), ENDS[0], *samples).signals
    return only


def pods(count: int, end: float = ENDS[0], **more: Any) -> list[Sample]:
    """Replicas that counted 100, 101, … and failed 0, 1, …"""
    return [
        sample(end, replica=name, **({"events": float(index), "exposure": 100.0 + index} | more))
        for index, name in enumerate(PODS[:count])
    ]


def half(of: SignalInput) -> tuple[Any, ...]:
    return tuple(getattr(of, name) for name in HALF)


@st.composite
def readings(draw: st.DrawFn) -> list[Sample]:
    """What the replicas of both arms counted in three ticks; some come, go, miss a tick or begin."""
    found = []
    for end in ENDS:
        for arm in Arm:
            for name in draw(st.sets(st.sampled_from(PODS), min_size=1)):
                counts = sorted(draw(st.lists(st.integers(0, 90), min_size=3, max_size=3)))
                exposure = float(counts[-1] + draw(st.integers(0, 9)))
                quality = draw(st.sampled_from([0, 0, 0, *map(int, Quality)]))
                if quality == Quality.FIRST:
                    counts, exposure = [0, 0, 0], 0.0
                common: dict[str, Any] = {"arm": arm, "replica": name, "quality": quality}
                common["start"] = end - (10.0 if quality == Quality.SPANS else 5.0)
                events = float(draw(st.integers(0, int(exposure))))
                found += [
                    sample(end, events=events, exposure=exposure, **common),
                    sample(
                        end,
                        signal="latency_ms",
                        events=0.0,
                        exposure=exposure,
                        edges=EDGES,
                        counts=tuple(map(float, counts)),
                        **common,
                    ),
                ]
    return found


def ticks(samples: list[Sample]) -> list[TickInput]:
    """Every tick, whatever the order of ``samples``: each comes in a frame of its own."""
    joined = assembler()
    for each in samples:
        joined.add(report("other", each.end), [each], each.end)
    assert joined.dropped == {}
    return [closed for end in ENDS for _, closed in joined.add(report("prom", end), [], end + 0.5)]


def twin_of(samples: list[Sample]) -> Sample:
    """The whole arm as a source that does not tell replicas apart would report it."""
    counted = [each for each in samples if each.quality != Quality.FIRST] or samples
    quality = 0
    for each in counted:
        quality |= each.quality
    if len(counted) < len(samples):
        quality |= Quality.PARTIAL
    return replace(
        samples[0],
        replica="",
        start=min(each.start for each in counted),
        events=sum(each.events for each in counted),
        exposure=sum(each.exposure for each in counted),
        counts=tuple(map(sum, zip(*(each.counts for each in counted), strict=True))),
        quality=int(quality),
    )


def grouped(samples: list[Sample]) -> dict[tuple[str, Arm, float], list[Sample]]:
    found: dict[tuple[str, Arm, float], list[Sample]] = {}
    for each in samples:
        found.setdefault((each.signal, each.arm, each.end), []).append(each)
    return found


@given(readings(), st.randoms(use_true_random=False))
def test_replicas_may_come_in_any_order(samples: list[Sample], drawn: random.Random) -> None:
    expected = ticks(samples)
    drawn.shuffle(samples)
    assert ticks(samples) == expected


@given(readings())
def test_an_arm_of_replicas_is_the_arm_that_a_source_without_them_reports(samples: list[Sample]) -> None:
    whole = ticks([twin_of(each) for each in grouped(samples).values()])
    split = [
        replace(
            tick,
            signals=tuple(replace(each, **dict(zip(HALF, UNSPLIT, strict=True))) for each in tick.signals),
        )
        for tick in ticks(samples)
    ]
    assert split == whole


@given(readings())
def test_two_halves_are_the_whole_and_nobody_changes_sides(samples: list[Sample]) -> None:
    bits: dict[Arm, int | None] = dict.fromkeys(Arm)
    for tick in ticks(samples):
        for arm in Arm:
            names = {each.replica for each in samples if (each.arm, each.end) == (arm, tick.end)}
            bits[arm] = split_bit(names) if bits[arm] is None else bits[arm]  # chosen once, never again
        for seen in tick.signals:
            bit = bits[seen.arm]
            of = grouped(samples)[seen.signal, seen.arm, tick.end]
            counted = [each for each in of if each.quality != Quality.FIRST] or of
            first, second = (
                [each for each in counted if bit is not None and is_first(each.replica, bit) is side]
                for side in (True, False)
            )
            assert (seen.half_exposure >= 0) is bool(first and second)
            if seen.half_exposure < 0:
                continue
            assert seen.half_events == sum(each.events for each in first)
            assert seen.half_exposure == sum(each.exposure for each in first)
            assert seen.events - seen.half_events == sum(each.events for each in second)
            assert seen.exposure - seen.half_exposure == sum(each.exposure for each in second)
            for index in range(len(seen.counts)):
                assert seen.half_counts[index] == sum(each.counts[index] for each in first)


@given(st.sets(st.text(min_size=1), min_size=2, max_size=8))
def test_any_two_replicas_give_two_halves(names: set[str]) -> None:
    bit = split_bit(names)
    assert bit is not None
    assert {is_first(name, bit) for name in names} == {True, False}
    if bit > 0:
        assert len({is_first(name, 0) for name in names}) == 1, "a lower bit would have told them apart"


def test_the_half_of_a_name_is_the_same_on_every_machine() -> None:
    # printf checkout-0 | sha256sum, last hex digit's lowest bit; and so on.
    assert [is_first(name, 0) for name in PODS] == [True, False, False, True, True, True]


@pytest.mark.parametrize("form", ["checkout-{}", "10.4.7.{}:8080/metrics", "checkout-6d8f9c5b7-x{:04x}"])
def test_halves_of_many_replicas_are_about_equal(form: str) -> None:
    first = sum(is_first(form.format(number), 0) for number in range(200))
    assert 75 <= first <= 125  # 3.5 standard deviations of a fair coin


def test_an_arm_without_replicas_is_not_split() -> None:
    assert half(arm_of(sample(ENDS[0]))) == UNSPLIT


def test_one_replica_is_the_whole_arm() -> None:
    only = arm_of(*pods(1))
    assert (only.events, only.exposure, only.quality) == (0.0, 100.0, 0)
    assert half(only) == UNSPLIT


def test_an_arm_is_split_only_while_both_halves_report() -> None:
    joined = assembler()
    first, second = pods(2, ENDS[0])
    (both,) = closed_by(joined, ENDS[0], first, second).signals
    assert {both.half_exposure, both.exposure - both.half_exposure} == {100.0, 101.0}
    (alone,) = closed_by(joined, ENDS[1], *pods(1, ENDS[1], quality=int(Quality.PARTIAL))).signals
    assert (alone.exposure, alone.quality) == (100.0, int(Quality.PARTIAL))
    assert half(alone) == UNSPLIT


def test_a_newcomer_moves_nobody() -> None:
    # 1 and 2 share bit 0, so a higher one splits them; 0 has the other bit 0, but it is too late for that.
    joined = assembler()
    names = PODS[1:3]
    bit = split_bit(names)
    assert bit is not None and bit > 0
    counts = dict.fromkeys(names, 10.0) | {PODS[0]: 1000.0}
    closed_by(joined, ENDS[0], *(sample(ENDS[0], replica=name, exposure=10.0) for name in names))
    later = [sample(ENDS[1], replica=name, exposure=count) for name, count in counts.items()]
    (seen,) = closed_by(joined, ENDS[1], *later).signals
    assert seen.half_exposure == sum(count for name, count in counts.items() if is_first(name, bit))
    assert seen.half_exposure % 100 == 10.0, "one of the two is in each half"


def test_a_replica_that_begins_makes_its_arm_partial_and_no_worse() -> None:
    begun = sample(ENDS[0], replica=PODS[3], events=0.0, exposure=0.0, quality=int(Quality.FIRST))
    seen = arm_of(*pods(3), begun)
    assert (seen.exposure, seen.quality) == (303.0, int(Quality.PARTIAL))


def test_an_arm_whose_replicas_all_begin_is_empty_and_says_so() -> None:
    seen = arm_of(*pods(2, events=0.0, exposure=0.0, quality=int(Quality.FIRST)))
    assert (seen.exposure, seen.quality) == (0.0, int(Quality.FIRST))


def test_what_one_replica_assumes_the_arm_assumes() -> None:
    first, second = pods(2)
    seen = arm_of(first, replace(second, quality=int(Quality.ASSUMED)))
    assert seen.quality == int(Quality.ASSUMED)


def test_an_arm_is_as_old_as_its_oldest_replica() -> None:
    first, second = pods(2)
    assert arm_of(replace(first, age_s=2.0), replace(second, age_s=7.0)).age_s == 7.0


def buckets(replica: str, edges: tuple[float, ...], counts: tuple[float, ...], exposure: float) -> Sample:
    return sample(
        ENDS[0],
        signal="latency_ms",
        replica=replica,
        events=0.0,
        exposure=exposure,
        edges=edges,
        counts=counts,
    )


def test_only_edges_that_all_replicas_have_are_added_up() -> None:
    seen = arm_of(
        buckets(PODS[0], (100.0, 250.0, 500.0), (1.0, 2.0, 3.0), 4.0),
        buckets(PODS[1], (250.0, 400.0, 500.0), (10.0, 20.0, 30.0), 40.0),
    )
    assert (seen.edges, seen.counts, seen.exposure) == ((250.0, 500.0), (12.0, 33.0), 44.0)
    assert seen.half_counts in ((2.0, 3.0), (10.0, 30.0))


def test_replicas_without_a_common_edge_tell_nothing_but_how_many_they_saw() -> None:
    seen = arm_of(
        buckets(PODS[0], (100.0,), (1.0,), 4.0),
        buckets(PODS[1], (250.0,), (10.0,), 40.0),
    )
    assert (seen.edges, seen.counts, seen.exposure) == ((), (), 44.0)


def test_a_replica_that_observed_nothing_takes_no_edge_away() -> None:
    seen = arm_of(
        buckets(PODS[0], (250.0, 500.0), (3.0, 4.0), 4.0),
        buckets(PODS[1], (400.0,), (0.0,), 0.0),
    )
    assert (seen.edges, seen.counts) == ((250.0, 500.0), (3.0, 4.0))


def test_each_replica_counts_once() -> None:
    joined = assembler()
    joined.add(report("other", ENDS[0]), pods(3), ENDS[0])
    joined.add(report("other", ENDS[0]), pods(3), ENDS[0])
    joined.add(report("other", ENDS[0]), pods(1, exposure=7.0), ENDS[0])
    (seen,) = closed_by(joined, ENDS[0]).signals
    assert seen.exposure == 303.0
    assert joined.dropped == {"duplicate": 3, "conflict": 1}
    assert joined.add(report("prom", ENDS[0]), pods(4), ENDS[0]) == []
    assert joined.dropped["late"] == 4


@pytest.mark.parametrize("whole_first", [True, False])
def test_where_the_whole_arm_is_there_its_replicas_are_not_added_to_it(whole_first: bool) -> None:
    joined = assembler()
    both = [[sample(ENDS[0], exposure=500.0)], pods(3)]
    for each in both if whole_first else reversed(both):
        joined.add(report("other", ENDS[0]), each, ENDS[0])
    (seen,) = closed_by(joined, ENDS[0]).signals
    assert seen.exposure == 500.0
    assert half(seen) == UNSPLIT
    assert joined.dropped == {"conflict": 3}


def test_halves_of_ticks_that_close_as_one_are_added_up() -> None:
    joined = assembler()
    joined.add(report("other", ENDS[0]), pods(2, ENDS[0]), ENDS[0])
    (seen,) = closed_by(joined, ENDS[1], *pods(2, ENDS[1])).signals
    assert seen.exposure == 402.0
    assert {seen.half_exposure, seen.exposure - seen.half_exposure} == {200.0, 202.0}


def test_a_tick_in_which_one_part_is_not_split_is_not_split() -> None:
    joined = assembler()
    joined.add(report("other", ENDS[0]), [sample(ENDS[0])], ENDS[0])
    (seen,) = closed_by(joined, ENDS[1], *pods(2, ENDS[1])).signals
    assert (seen.exposure, half(seen)) == (301.0, UNSPLIT)


def test_replicas_of_a_slower_source_are_late_one_by_one() -> None:
    # metrics (realtime)  ──┬────┬────┬──▶
    # logs    (near)      ────────┬─┬───▶    one replica about the first tick, then both
    joined = assembler(METRICS, LOGS)
    closed_by(joined, ENDS[0])
    first, second = pods(2, ENDS[0], signal="log_error_ratio")
    joined.add(report("loki", ENDS[0]), [first], ENDS[1])
    closed_by(joined, ENDS[1])
    joined.add(report("loki", ENDS[0]), [first, second], ENDS[2])
    assert joined.dropped == {"late": 1}
    (seen,) = closed_by(joined, ENDS[2]).signals
    assert seen.exposure == 101.0


def test_the_whole_of_a_slower_source_is_late_once_a_replica_of_it_counted_and_the_other_way_round() -> None:
    whole, parts = [sample(ENDS[0], signal="log_error_ratio")], pods(2, signal="log_error_ratio")
    for before, after in ((whole, parts), (parts, whole)):
        joined = assembler(METRICS, LOGS)
        joined.add(report("loki", ENDS[0]), before, ENDS[0])
        closed_by(joined, ENDS[0])
        joined.add(report("loki", ENDS[0]), after, ENDS[1])
        assert joined.dropped == {"late": len(after)}
