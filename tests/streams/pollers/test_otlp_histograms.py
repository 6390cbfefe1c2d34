"""Histograms at bucket edges, against plain lists of observations."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.pollers.otlp_histograms import GRID_SCALE, Explicit, Exponential, Histogram, since, sum_of

durations = st.lists(st.floats(1e-4, 1e4, allow_nan=False), max_size=40)
scales = st.integers(-3, 8)


def exponential(observed: list[float], scale: int) -> Exponential:
    """The bucket of each observation from its definition, ``base**i < x <= base**(i+1)``."""
    buckets: Counter[int] = Counter()
    for each in observed:
        index = math.ceil(math.log2(each) * 2.0**scale) - 1
        while 2.0 ** (index / 2.0**scale) >= each:
            index -= 1
        while 2.0 ** ((index + 1) / 2.0**scale) < each:
            index += 1
        buckets[index] += 1
    return Exponential(scale, 0.0, {index: float(count) for index, count in buckets.items()}, 1.0)


def explicit(observed: list[float], edges: tuple[float, ...]) -> Explicit:
    below = [sum(each <= edge for each in observed) for edge in edges] + [len(observed)]
    return Explicit(edges, tuple(float(now - then) for then, now in zip([0, *below], below, strict=False)))


@given(durations, scales, scales, st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_counts_at_exponential_edges_are_those_of_the_observations(
    observed: list[float], scale: int, other_scale: int, limit: float
) -> None:
    half = len(observed) // 2
    both = sum_of(exponential(observed[:half], scale), exponential(observed[half:], other_scale))
    assert isinstance(both, Exponential)
    found = both.at_scale(GRID_SCALE).at_edges([limit])
    # An observation within a rounding of an edge may lie on either side of it.
    for edge, count in found.items():
        surely = sum(each <= edge * (1 - 1e-9) for each in observed)
        maybe = sum(each <= edge * (1 + 1e-9) for each in observed)
        assert surely <= count <= maybe
    assert max(edge for edge in found if edge <= limit * (1 + 1e-9)) <= limit * (1 + 1e-9)
    assert any(edge >= limit * (1 - 1e-9) for edge in found)
    assert both.count == len(observed)


@given(durations, durations, scales, scales)
@settings(deadline=None)
def test_a_later_reading_less_an_earlier_one_is_what_came_between(
    earlier: list[float], later: list[float], scale: int, coarser: int
) -> None:
    now = exponential(earlier + later, min(scale, coarser))
    between = since(now, exponential(earlier, scale))
    assert between is not None
    assert between == exponential(later, min(scale, coarser))
    edges = (0.1, 1.0, 10.0)
    assert since(explicit(earlier + later, edges), explicit(earlier, edges)) == explicit(later, edges)


@given(durations, durations)
@settings(deadline=None)
def test_explicit_histograms_of_different_edges_add_up_at_the_common_ones(
    one: list[float], two: list[float]
) -> None:
    both = sum_of(explicit(one, (0.1, 1.0, 10.0)), explicit(two, (0.5, 1.0, 10.0, 50.0)))
    assert both == explicit(one + two, (1.0, 10.0))


@pytest.mark.parametrize(
    "now, earlier",
    [
        (Explicit((1.0,), (3.0, 0.0)), Explicit((1.0,), (4.0, 0.0))),
        (Explicit((1.0,), (3.0, 0.0)), Explicit((2.0,), (1.0, 0.0))),
        (Exponential(0, 0.0, {1: 2.0}, 1.0), Exponential(0, 0.0, {2: 1.0}, 1.0)),
        (Exponential(0, 0.0, {1: 2.0}, 1.0), Exponential(0, 1.0, {}, 1.0)),
        (Exponential(0, 0.0, {1: 2.0}, 1.0), Exponential(0, 0.0, {1: 1.0}, 1000.0)),
        (Explicit((1.0,), (3.0, 0.0)), Exponential(0, 0.0, {}, 1.0)),
    ],
)
def test_what_is_no_earlier_state_cannot_be_taken_away(now: Histogram, earlier: Histogram) -> None:
    assert since(now, earlier) is None


def test_different_kinds_do_not_add_up() -> None:
    assert sum_of(Explicit((1.0,), (3.0, 0.0)), Exponential(0, 0.0, {}, 1.0)) is None


def test_edges_coarser_than_the_grid_are_told() -> None:
    assert [Exponential(scale, 0.0, {}, 1.0).is_coarse for scale in (2, 3, 4)] == [True, False, False]
