"""Native histograms become cumulative counts at edges that do not move."""

from __future__ import annotations

import random

import pytest

from streams.pollers.prometheus_answers import NativeHistogram
from streams.pollers.prometheus_native import counts_at


def native(values: list[float], schema: int) -> NativeHistogram:
    """What a client library makes of observations, by the definition of the schema."""
    base = 2.0 ** (2.0**-schema)
    buckets: dict[int, int] = {}
    for value in values:
        index = 0
        while base**index < value:
            index += 1
        while base ** (index - 1) >= value:
            index -= 1
        buckets[index] = buckets.get(index, 0) + 1
    rows = [(0, repr(base ** (i - 1)), repr(base**i), str(n)) for i, n in sorted(buckets.items())]
    return NativeHistogram(count=str(len(values)), buckets=rows)


@pytest.mark.parametrize("schema", [0, 2, 3, 5, 8])
def test_counts_at_edges_are_those_of_the_observations(schema: int) -> None:
    chance = random.Random(schema)
    values = [chance.lognormvariate(-1.0, 0.8) for _ in range(300)]
    count, counts = counts_at(native(values, schema), [0.4, 0.8])
    assert count == 300
    # At schema 0 the boundaries around both limits meet at 0.5.
    assert len(counts) == (3 if schema == 0 else 4)
    below, above = sorted(counts)[:2]
    assert below <= 0.4 <= above
    for edge, found in counts.items():
        assert found == sum(value <= edge for value in values)


def test_finer_schemas_are_read_at_the_same_edges() -> None:
    values = [0.1, 0.3, 0.39, 0.41, 0.5, 2.0]
    assert counts_at(native(values, 3), [0.4]) == counts_at(native(values, 8), [0.4])


def test_an_edge_within_a_populated_bucket_is_not_known() -> None:
    wide = NativeHistogram(count="4", buckets=[(0, "0.25", "0.5", "4")])
    assert counts_at(wide, [0.4])[1] == {0.25: 0.0, 0.5: 4.0}
    custom = NativeHistogram(count="9", buckets=[(0, "0.25", "0.5", "4"), (0, "0.3", "0.45", "5")])
    assert 0.4 not in counts_at(custom, [0.4])[1]


def test_nothing_observed_is_zero_at_every_edge() -> None:
    count, counts = counts_at(NativeHistogram(count="0"), [0.4])
    assert count == 0
    assert set(counts.values()) == {0.0}
