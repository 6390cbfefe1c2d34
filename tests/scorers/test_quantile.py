"""Quantile limits as counts, against counting one by one."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.quantile import estimate, maybe_slower, surely_slower
from tests.reference.naive_judge import slower_than

latencies = st.lists(st.integers(1, 1000).map(float), max_size=60)
edges = st.lists(st.integers(1, 900).map(float), min_size=1, max_size=8, unique=True).map(sorted)


def buckets(edges: list[float], seen: list[float]) -> list[float]:
    ordered = sorted(seen)
    return [float(bisect_right(ordered, edge)) for edge in edges]


@given(latencies, edges, st.integers(1, 1000).map(float))
def test_the_truth_lies_between_surely_and_maybe(seen: list[float], at: list[float], limit: float) -> None:
    counts, total = buckets(at, seen), float(len(seen))
    surely, maybe = surely_slower(limit, at, counts, total), maybe_slower(limit, at, counts, total)
    assert 0 <= surely <= slower_than(limit, seen) <= maybe <= total


@given(latencies, edges, st.data())
def test_a_limit_on_an_edge_is_exact(seen: list[float], at: list[float], data: st.DataObject) -> None:
    limit = data.draw(st.sampled_from(at))
    counts, total = buckets(at, seen), float(len(seen))
    assert surely_slower(limit, at, counts, total) == slower_than(limit, seen)
    assert maybe_slower(limit, at, counts, total) == slower_than(limit, seen)


def test_beyond_the_edges_nothing_is_sure() -> None:
    #   edges  100  200        limit 400: nobody knows how much of the rest is slower
    assert surely_slower(400, (100, 200), (5, 8), 10) == 0
    assert maybe_slower(400, (100, 200), (5, 8), 10) == 2
    assert maybe_slower(50, (100, 200), (5, 8), 10) == 10


def test_without_buckets_nothing_is_known() -> None:
    assert surely_slower(400, (), (), 10) == 0
    assert maybe_slower(400, (), (), 10) == 10
    assert estimate(0.95, (), (), 10) is None
    assert estimate(0.95, (100,), (0,), 0) is None


@given(latencies.filter(bool), edges, st.floats(0.01, 0.99))
def test_an_estimate_lies_in_the_bucket_of_the_quantile(
    seen: list[float], at: list[float], quantile: float
) -> None:
    counts, total = buckets(at, seen), float(len(seen))
    value = estimate(quantile, at, counts, total)
    assert value is not None
    assert 0 <= value <= at[-1]
    if value < at[-1]:
        upper = next(edge for edge, count in zip(at, counts, strict=True) if count >= quantile * total)
        assert value <= upper


@pytest.mark.parametrize(("quantile", "value"), [(0.25, 100.0), (0.5, 150.0), (0.75, 200.0), (0.99, 200.0)])
def test_an_estimate_is_read_off_by_straight_lines(quantile: float, value: float) -> None:
    assert estimate(quantile, (100, 200), (25, 75), 100) == value
