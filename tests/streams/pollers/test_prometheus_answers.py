"""What each answer of the API means, from bodies as servers write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.errors import SourceError, SourceRejected, SourceUnavailable
from streams.pollers.prometheus_answers import (
    AskedToWait,
    HttpAnswer,
    TooMuch,
    labels_decoder,
    series_of,
    skew_of,
    wait_of,
)

NOON = 1_700_000_000.0
MATRIX = (
    '{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"hits","le":"+Inf"},'
    '"values":[[1700000000.781,"12"],[1700000005.781,"NaN"]]}]}}'
)
NATIVE = (
    '{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"seconds"},"histograms":'
    '[[1700000000.781,{"count":"5","sum":"1.7","buckets":[[3,"-0.001","0.001","1"],[0,"0.25","0.2973","4"]]}]]}]}}'
)
EMPTY = '{"status":"success","data":{"resultType":"vector","result":[]}}'


def answer(body: str, status: int = 200, **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status, {"content-type": "application/json", **named}, body.encode(), NOON)


def failure(kind: str, text: str) -> str:
    return json.dumps({"status": "error", "errorType": kind, "error": text})


def with_more(**fields: Any) -> str:
    return json.dumps({**json.loads(MATRIX), **fields})


def test_a_matrix_keeps_the_times_of_its_samples() -> None:
    [series] = series_of(answer(MATRIX), 10)
    assert series.values == [(1700000000.781, "12"), (1700000005.781, "NaN")]
    assert labels_decoder.decode(series.metric) == {"__name__": "hits", "le": "+Inf"}


def test_a_native_histogram_brings_its_buckets() -> None:
    [series] = series_of(answer(NATIVE), 10)
    assert series.histograms[0][1].buckets[1] == (0, "0.25", "0.2973", "4")


@pytest.mark.parametrize("body", [EMPTY, with_more(infos=["metric might not be a counter"]), MATRIX])
def test_an_empty_answer_and_remarks_are_answers(body: str) -> None:
    assert isinstance(series_of(answer(body), 10), list)


# Bodies of Prometheus 2.42 and 3, VictoriaMetrics 1.100, Thanos 0.35, nginx and Grafana Cloud.
TABLE: dict[str, tuple[HttpAnswer, type[SourceError], str]] = {
    "parse error": (
        answer(failure("bad_data", '1:3: parse error: unexpected "}"'), 400),
        SourceRejected,
        r"answered status 400: 1:3: parse error",
    ),
    "too many samples": (
        answer(failure("execution", "query processing would load too many samples into memory"), 422),
        TooMuch,
        r"answered status 422: query processing would load too many",
    ),
    "query too long": (answer("<html>413</html>", 413, content_type="text/html"), TooMuch, r"status 413"),
    "timed out": (
        answer(failure("timeout", "query timed out in expression evaluation"), 503),
        SourceUnavailable,
        r"answered status 503: query timed out in expression evaluation",
    ),
    "VictoriaMetrics' timeout": (
        answer(failure("503", "cannot complete the request during -search.maxQueryDuration"), 503),
        SourceUnavailable,
        r"maxQueryDuration",
    ),
    "not authorised": (answer("no token", 401), SourceRejected, r"does not authorise us: status 401"),
    "forbidden": (answer(failure("", "tenant"), 403), SourceRejected, r"status 403: tenant"),
    "HTML by a proxy": (
        answer("<html>bad gateway</html>", 502, content_type="text/html"),
        SourceUnavailable,
        r"answered status 502",
    ),
    "a log-in page": (
        answer("<html>log in</html>", content_type="text/html; charset=utf-8"),
        SourceRejected,
        r"answered text/html, not the JSON of the Prometheus API",
    ),
    "sent elsewhere": (answer("", 302), SourceRejected, r"perhaps to a log-in page"),
    "too many questions": (answer("slow down", 429, retry_after="7"), AskedToWait, r"status 429"),
    "Thanos in part": (
        answer(with_more(warnings=["receive series from Addr: 10.0.0.7: rpc error"])),
        SourceUnavailable,
        r"answered with a warning: receive series from Addr",
    ),
    "VictoriaMetrics in part": (answer(with_more(isPartial=True)), SourceUnavailable, r"in part only"),
    "a scalar": (
        answer('{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}'),
        SourceRejected,
        r"answered a scalar, not series",
    ),
    "another API": (answer('{"took":3,"hits":{}}'), SourceRejected, r"not the JSON of the Prometheus API"),
    "cut off": (answer(MATRIX[:-9]), SourceRejected, r"not the JSON of the Prometheus API"),
    "garbage inside": (answer(MATRIX.replace('"12"', "[]")), SourceRejected, r"no result of the Prometheus"),
}


@pytest.mark.parametrize("found, kind, words", TABLE.values(), ids=TABLE)
def test_whatever_is_not_a_whole_answer_is_an_error_that_says_why(
    found: HttpAnswer, kind: type[SourceError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        series_of(found, 10)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_more_series_than_wanted_are_too_much() -> None:
    with pytest.raises(TooMuch, match=r"answered 1 series, more than max_series \(0\)"):
        series_of(answer(MATRIX), 0)


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("7", 7.0),
        ("0", 1.0),
        ("86400", 300.0),
        ("Tue, 14 Nov 2023 22:14:00 GMT", 40.0),
        ("soon", 15.0),
        ("", 15.0),
    ],
)
def test_retry_after_is_a_number_or_a_date_within_reason(text: str, seconds: float) -> None:
    assert wait_of(answer("", 429, retry_after=text)) == seconds


def test_the_servers_clock_is_read_from_its_date() -> None:
    assert skew_of(answer("", date="Tue, 14 Nov 2023 22:14:20 GMT")) == 60.0
    assert skew_of(answer("")) == 0.0
