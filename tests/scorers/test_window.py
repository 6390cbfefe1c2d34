"""Windows: whole ticks of one weight, no older than the window is long."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.records import SignalInput
from domain.rollout import WindowTick
from domain.signal import Arm, Quality
from scorers.window import add_up, index, see, slide
from tests.reference.naive_judge import Seen, in_window
from tests.scorers.situations import ERRORS, LATENCY


def tick(start: float, end: float, n: float = 10, bad: float = 1) -> WindowTick:
    return WindowTick(start, end, n, bad, bad, 0.0, 100.0, 2.0)


def slid(ticks: list[WindowTick], *, since: float = 0.0, window_s: float = 15.0) -> list[float]:
    """The starts of what is left after all of ``ticks`` came, one by one."""
    window: tuple[WindowTick, ...] = ()
    for each in ticks:
        window = slide(window, each, since=since, end=each.end, window_s=window_s)
    return [each.start for each in window]


def test_a_window_keeps_the_newest_ticks_that_fit_into_it() -> None:
    #        0    5    10   15   20
    # ticks  [────)[───)[───)[───)
    # window      [──────────────)      15 s
    assert slid([tick(start, start + 5) for start in (0, 5, 10, 15)]) == [5, 10, 15]


def test_a_tick_before_since_is_never_in_the_window() -> None:
    #        0    5    10   15   20
    # ticks  [────)[───)[───)[───)
    # since             │
    assert slid([tick(start, start + 5) for start in (0, 5, 10, 15)], since=10.0, window_s=60) == [10, 15]


def test_a_tick_that_spans_the_weight_change_is_in_no_window() -> None:
    #        0    5    10   15   20
    # old    [────)
    # spans       [─────────)
    # since           │                 the weight changed here
    # new                    [───)
    assert slid([tick(0, 5), tick(5, 15), tick(15, 20)], since=7.0, window_s=60) == [15]


def test_a_new_step_empties_the_window() -> None:
    window = tuple(tick(start, start + 5) for start in (0.0, 5.0, 10.0))
    assert slide(window, tick(15, 20), since=15.0, end=20.0, window_s=60.0) == (tick(15, 20),)
    assert slide(window, None, since=15.0, end=20.0, window_s=60.0) == ()


def test_silence_lets_the_window_grow_old() -> None:
    #        0    5    10   15   20   25
    # ticks  [────)[───)  nothing
    # window           [──────────────)
    window = (tick(0, 5), tick(5, 10))
    assert slide(window, None, since=0.0, end=20.0, window_s=15.0) == (tick(5, 10),)
    assert slide(window, None, since=0.0, end=25.0, window_s=15.0) == ()


def test_a_window_as_long_as_a_tick_holds_one() -> None:
    assert slid([tick(0, 5), tick(5, 10)], window_s=5.0) == [5]


def test_an_empty_window_adds_up_to_nothing() -> None:
    sums = add_up(())
    assert (sums.canary_n, sums.canary_bad, sums.span_s, sums.newest_n) == (0.0, 0.0, 0.0, 0.0)


def test_sums_do_not_depend_on_order_or_grouping() -> None:
    drawn = random.Random(7)
    ticks = [tick(i * 5.0, i * 5.0 + 5, drawn.randrange(1000), drawn.randrange(50)) for i in range(50)]
    shuffled = ticks[:]
    drawn.shuffle(shuffled)
    one, other = add_up(tuple(ticks)), add_up(tuple(shuffled))
    assert (one.canary_n, one.canary_bad, one.stable_n) == (other.canary_n, other.canary_bad, other.stable_n)
    first, second = add_up(tuple(ticks[:20])), add_up(tuple(ticks[20:]))
    assert first.canary_n + second.canary_n == one.canary_n


steps = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 3), st.booleans(), st.integers(0, 50)), max_size=40
)


@given(steps, st.sampled_from([5, 10, 15, 60]))
def test_sliding_equals_looking_at_everything(
    history: list[tuple[int, int, bool, int]], window_s: int
) -> None:
    """Ticks of one to three intervals, gaps between them, and now and then a change of weight."""
    window: tuple[WindowTick, ...] = ()
    kept: list[Seen] = []
    now, since = 0, 0
    for length, gap, changes, n in history:
        start = now + 5 * gap
        now = start + 5 * length
        since = start + 3 if changes else since
        window = slide(
            window,
            WindowTick(float(start), float(now), n, 1, 1, 0, 0, 0),
            since=float(since),
            end=float(now),
            window_s=float(window_s),
        )
        kept.append(Seen(start, now, n, 1, 1, 0))
        naive = in_window(kept, since=since, end=now, window_s=window_s)
        assert [each.start for each in window] == [each.start for each in naive]
        assert add_up(window).canary_n == sum(each.n for each in naive)
        assert all(one.end <= other.start for one, other in pairwise(window))
        assert all(each.start >= since for each in window)


# What a gate sees of a tick.


def given_input(signal: str, arm: Arm, events: float, exposure: float, **more: object) -> SignalInput:
    return SignalInput(signal, arm, 0.0, events, exposure, **more)  # type: ignore[arg-type]  # plain kwargs


CANARY = given_input("error_rate", Arm.CANARY, 2, 100)
STABLE = given_input("error_rate", Arm.STABLE, 9, 900)


def test_a_gate_sees_both_arms() -> None:
    seen = see(ERRORS, index([CANARY, STABLE]), 5.0, per_request=False, max_age_s=11.0)
    assert seen == WindowTick(0.0, 5.0, 100, 2, 2, 2, 900, 9)


def test_a_missing_canary_is_no_data_and_a_missing_stable_is_none_of_its_business() -> None:
    assert see(ERRORS, index([STABLE]), 5.0, per_request=False, max_age_s=11.0) is None
    seen = see(ERRORS, index([CANARY]), 5.0, per_request=False, max_age_s=11.0)
    assert seen is not None
    assert (seen.stable_n, seen.stable_bad) == (0.0, 0.0)


def test_numbers_that_are_too_old_or_stillborn_are_no_data() -> None:
    for more in (
        {"age_s": 11.1},
        {"quality": int(Quality.FIRST)},
        {"quality": int(Quality.FIRST | Quality.PARTIAL)},
    ):
        canary = given_input("error_rate", Arm.CANARY, 2, 100, **more)
        assert see(ERRORS, index([canary]), 5.0, per_request=False, max_age_s=11.0) is None
    fresh = given_input("error_rate", Arm.CANARY, 2, 100, age_s=11.0, quality=int(Quality.RESET))
    assert see(ERRORS, index([fresh]), 5.0, per_request=False, max_age_s=11.0) is not None


def test_no_traffic_is_seen_as_no_traffic_and_not_as_no_data() -> None:
    idle = given_input("error_rate", Arm.CANARY, 0, 0)
    seen = see(ERRORS, index([idle]), 5.0, per_request=False, max_age_s=11.0)
    assert seen is not None
    assert seen.canary_n == 0


def test_log_errors_are_counted_per_request_and_never_beyond_one_each() -> None:
    gate = replace(ERRORS, signal="log_error_ratio")
    lines = given_input("log_error_ratio", Arm.CANARY, 300, 5000)
    seen = see(gate, index([CANARY, lines]), 5.0, per_request=True, max_age_s=11.0)
    assert seen is not None
    assert (seen.canary_n, seen.canary_bad) == (100, 100)
    assert see(gate, index([lines]), 5.0, per_request=True, max_age_s=11.0) is None


def test_a_latency_gate_sees_what_lies_beyond_its_limits() -> None:
    latencies = given_input(
        "latency_ms", Arm.CANARY, 0, 100, edges=(100.0, 300.0, 500.0, 2000.0), counts=(50.0, 90.0, 95.0, 99.0)
    )
    seen = see(LATENCY, index([latencies]), 5.0, per_request=False, max_age_s=11.0)
    assert seen is not None
    assert (seen.canary_bad, seen.canary_suspect, seen.canary_worse) == (5, 10, 1)
