"""Query text: selectors are plain counters, values are quoted, chunks fit."""

from __future__ import annotations

import pytest

from streams.pollers.prometheus_selectors import (
    NAMES,
    QUERY_BYTES,
    Selector,
    chunks,
    fill_in,
    instant_query,
    one_of,
    quote,
    quote_pattern,
)


@pytest.mark.parametrize(
    "text, metric, matchers",
    [
        ("hits", "hits", ()),
        ("hits{}", "hits", ()),
        ("hits{$S}", "hits", ()),
        ("a:b:rate{code!=\"5}\",path=~'/a,b',$S}", "a:b:rate", ('code!="5}"', "path=~'/a,b'")),
    ],
)
def test_a_selector_is_a_name_and_matchers(text: str, metric: str, matchers: tuple[str, ...]) -> None:
    assert Selector.parse(text) == Selector(metric, matchers)


@pytest.mark.parametrize(
    "text", ["", "rate(hits[1m])", "hits[5m]", 'sum(hits{a="b"})', "hits{a=b}", 'hits{a="b"} > 1', "hits{a}"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a selector is|no matcher of"):
        Selector.parse(text)


def test_names_are_quoted_for_the_label_and_for_the_expression() -> None:
    assert one_of("app", [quote_pattern("a.b"), quote_pattern('c"|d')]) == 'app=~"a\\\\.b|c\\"\\\\|d"'
    assert quote("zürich\n") == '"zürich\\n"'


def test_what_fills_a_pattern_stands_for_itself() -> None:
    filled = fill_in("{service}_{version}-[0-9]{2}", service="a+b", environment="", version="v(1)")
    assert filled == r"a\+b_v\(1\)-[0-9]{2}"


def test_one_metric_is_asked_for_by_name_and_several_by_pattern() -> None:
    assert instant_query(["hits"], []) == '{__name__="hits"}'
    assert instant_query(["a", "b"], ['x="y"']) == '{__name__=~"a|b",x="y"}'


def test_chunks_hold_everything_once_in_order_and_fit() -> None:
    names = [f"service-{number:04}" for number in range(1000)]
    groups = list(chunks(names, 2_000))
    assert [name for group in groups for name in group] == names
    assert len(groups) == 4
    assert max(map(len, groups)) == NAMES


def test_long_names_make_smaller_chunks() -> None:
    names = [f"{'x' * 200}-{number}" for number in range(100)]
    groups = list(chunks(names, 2_000))
    assert all(len(quote("|".join(group)).encode()) + 2_000 <= QUERY_BYTES for group in groups)
    assert len(groups) == 3


def test_a_name_too_long_for_any_query_is_asked_for_alone() -> None:
    assert list(chunks(["a", "b" * 20_000, "c"], 0)) == [("a",), ("b" * 20_000,), ("c",)]
