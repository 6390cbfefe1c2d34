"""Answers of the Prometheus HTTP API: a body and its status become series, or the error that they mean. Pure.

==================================  ============================================  ==========================
answer                              meaning                                       outcome
==================================  ============================================  ==========================
200, ``success``, no warnings       all there is, possibly nothing                the series
200 with ``warnings``, isPartial    a part of the servers behind it answered      SourceUnavailable
400 ``bad_data``                    the query itself is wrong                     SourceRejected
401, 403                            not authorised                                SourceRejected
413, 422 ``execution``              more than the server takes at once            TooMuch: ask for less
429                                 too many questions; Retry-After says when     AskedToWait
503 ``timeout``, other 5xx          overloaded or broken                          SourceUnavailable
anything that is not JSON           a proxy or a log-in page answered             by its status
==================================  ============================================  ==========================

An empty result is no error here and no good news either: whoever wanted the series says that they are
missing. ``infos`` are remarks about the query and mean nothing for the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from domain.errors import SourceError, SourceRejected, SourceUnavailable

LONGEST_WAIT_S = 300.0
"""A server that asks for more patience than this is asked again all the same."""
WAIT_S = 15.0
"""How long to wait after a 429 that does not say."""


class TooMuch(SourceRejected):
    """The question is right and its answer too large; smaller questions may be answered."""


class AskedToWait(SourceUnavailable):
    """The server wants no questions for ``seconds``."""

    def __init__(self, message: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(message)


class NativeHistogram(msgspec.Struct, gc=False):
    """A native histogram sample. Buckets are ``[rule, lower, upper, count]``, populated ones only."""

    count: str
    buckets: list[tuple[int, str, str, str]] = []


class RawSeries(msgspec.Struct, gc=False):
    """One series of a matrix or a vector. ``metric`` is the text of its labels."""

    metric: msgspec.Raw
    values: list[tuple[float, str]] = []
    value: tuple[float, str] | None = None
    histograms: list[tuple[float, NativeHistogram]] = []


class _Data(msgspec.Struct):
    resultType: str
    result: msgspec.Raw


class _Body(msgspec.Struct):
    status: str
    data: _Data | None = None
    errorType: str = ""
    error: str = ""
    warnings: list[str] | None = None
    isPartial: bool = False


_body_decoder = msgspec.json.Decoder(_Body)
_series_decoder = msgspec.json.Decoder(list[RawSeries])
labels_decoder = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back. ``received_at`` is our clock's."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float


def series_of(answer: HttpAnswer, max_series: int) -> list[RawSeries]:
    """The series of an answer.

    Raises
    ------
    SourceError
        For anything but a whole answer, by the table above.
    """
    if answer.status == 429:
        raise AskedToWait("answered status 429: too many questions", wait_of(answer))
    body = _body_of(answer)
    if answer.status != 200 or body.status != "success" or body.data is None:
        raise error_of(answer.status, body.errorType, body.error)
    if body.isPartial:
        raise SourceUnavailable("answered in part only (isPartial)")
    if body.warnings:
        raise SourceUnavailable(f"answered with a warning: {_cut(body.warnings[0])}")
    if body.data.resultType not in ("matrix", "vector"):
        raise SourceRejected(f"answered a {_cut(body.data.resultType)}, not series")
    try:
        found = _series_decoder.decode(body.data.result)
    except msgspec.DecodeError as exc:
        raise SourceRejected("answered what is no result of the Prometheus API") from exc
    if len(found) > max_series:
        raise TooMuch(f"answered {len(found)} series, more than max_series ({max_series})")
    return found


def _body_of(answer: HttpAnswer) -> _Body:
    try:
        return _body_decoder.decode(answer.body)
    except msgspec.DecodeError as exc:
        media = answer.headers.get("content-type", "").partition(";")[0].strip() or "no media type"
        if answer.status != 200:
            raise error_of(answer.status, "", "") from exc
        raise SourceRejected(f"answered {_cut(media)}, not the JSON of the Prometheus API") from exc


def error_of(status: int, kind: str, text: str) -> SourceError:
    """What a failure means, by status first: proxies know nothing of the API's own error types."""
    said = f": {_cut(text)}" if text else ""
    sentence = f"answered status {status}{said}"
    if status in (401, 403):
        return SourceRejected(f"does not authorise us: status {status}{said}")
    if status in (413, 422):
        return TooMuch(sentence)
    if status >= 500 or kind in ("timeout", "canceled", "unavailable", "internal"):
        return SourceUnavailable(sentence)
    if 300 <= status < 400:
        return SourceRejected(f"{sentence}: it sends us elsewhere, perhaps to a log-in page")
    return SourceRejected(sentence)


def wait_of(answer: HttpAnswer) -> float:
    """The seconds that ``Retry-After`` asks for: a number, or a date.

    >>> wait_of(HttpAnswer(429, {"retry-after": "7"}, b"", 0.0))
    7.0
    """
    text = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        moment = _date_of(text)
        seconds = WAIT_S if moment is None else moment - answer.received_at
    return min(max(seconds, 1.0), LONGEST_WAIT_S) if math.isfinite(seconds) else WAIT_S


def skew_of(answer: HttpAnswer) -> float:
    """By how many seconds the server's clock is ahead of ours, to about one; 0 when it does not say."""
    moment = _date_of(answer.headers.get("date", ""))
    return 0.0 if moment is None else moment - answer.received_at


def _date_of(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _cut(text: Any) -> str:
    """A server's words, short and on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= 200 else line[:199] + "…"
