"""One question to a Prometheus API: sent with patience, read with limits, never logged.

What differs between the servers is in :data:`PARAMS` and :data:`TENANT_HEADERS`; the rest of Sentra does not
know which one it talks to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import httpx

from domain.clock import Clock
from domain.errors import SourceError, SourceRejected, SourceUnavailable
from streams.pollers.http_auth import HttpAccess, transport_error
from streams.pollers.prometheus_answers import (
    LONGEST_WAIT_S,
    AskedToWait,
    HttpAnswer,
    RawSeries,
    TooMuch,
    series_of,
    skew_of,
)
from streams.pollers.prometheus_settings import PrometheusSettings

PARAMS: dict[str, dict[str, str]] = {
    "prometheus": {},
    # Without them an answer is 30 s old and says that it is new (-search.latencyOffset).
    "victoriametrics": {"nocache": "1", "latency_offset": "1s", "deny_partial_response": "1"},
    # Deduplication may mix two counters into one at the newest edge; downsampled counters are not raw.
    "thanos": {"dedup": "false", "partial_response": "false", "max_source_resolution": "0s"},
    "mimir": {},
}
"""Parameters that make an answer fresh and whole, by kind."""

HEADERS: dict[str, dict[str, str]] = {"mimir": {"Cache-Control": "no-store"}}
TENANT_HEADERS: dict[str, str] = {"thanos": "THANOS-TENANT"}
"""Where a tenant is named, if not in ``X-Scope-OrgID``."""

SKEW_S = 5.0
"""Clocks that differ by more put samples into the wrong ticks; the judge sets the same limit for ends."""

PATIENT_FAILURES = 3
"""Failures in a row after which a source is left alone for a while."""
FIRST_WAIT_S, LONGEST_BACK_OFF_S = 5.0, 60.0


class Patience:
    """When a source may be asked again. Opens like a fuse after failures, and closes at the first success."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0
        self._reason = ""

    @property
    def is_tried(self) -> bool:
        """Whether the last question failed, so that one question should go ahead of the others."""
        return self._failures > 0

    def check(self, now: float) -> None:
        """:class:`SourceUnavailable` while the source should be left alone."""
        left = self._until - now
        # Longer than any wait: the clock was set back.
        if 0 < left <= LONGEST_WAIT_S:
            raise SourceUnavailable(f"{self._reason}; is asked again in {left:.0f} s")

    def failed(self, exc: SourceError, now: float) -> None:
        """Nothing was answered."""
        self._failures += 1
        self._reason = str(exc)
        if isinstance(exc, AskedToWait):
            self._until = now + exc.seconds
        elif self._failures >= PATIENT_FAILURES:
            more = self._failures - PATIENT_FAILURES
            self._until = now + min(FIRST_WAIT_S * 2.0 ** min(more, 10), LONGEST_BACK_OFF_S)

    def succeeded(self) -> None:
        """It answers."""
        self._failures = 0
        self._until = 0.0


class PrometheusClient:
    """Asks one server. Several questions may be under way; no more than ``concurrency`` reach the server."""

    def __init__(self, settings: PrometheusSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._access = HttpAccess(settings, clock)
        self._gate = asyncio.Semaphore(settings.concurrency)

    async def query(self, text: str, at: float, timeout_s: float) -> list[RawSeries]:
        """The answer to an instant query; :class:`SourceError` if there is none, or not all of it."""
        async with self._gate:
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self._post(self._form(text, at, timeout_s))
            except TimeoutError:
                raise SourceUnavailable(f"did not answer within {timeout_s:g} s") from None
        if answer.status == 401:
            self._access.refused()
        skew_s = skew_of(answer)
        if abs(skew_s) > SKEW_S:
            side = "ahead of" if skew_s > 0 else "behind"
            raise SourceUnavailable(
                f"has a clock {abs(skew_s):.0f} s {side} ours: samples would fall into the wrong ticks"
            )
        return series_of(answer, self._settings.max_series)

    async def close(self) -> None:
        """Close all connections."""
        await self._access.close()

    def _form(self, text: str, at: float, timeout_s: float) -> dict[str, str]:
        return {
            "query": text,
            "time": f"{at:.3f}",
            "timeout": f"{max(1, round(timeout_s * 1000))}ms",
            **PARAMS[self._settings.kind],
            **self._settings.extra_params,
        }

    async def _headers(self) -> Mapping[str, str]:
        kind = self._settings.kind
        headers = {"Accept": "application/json", **HEADERS.get(kind, {})}
        if self._settings.tenant:
            headers[TENANT_HEADERS.get(kind, "X-Scope-OrgID")] = self._settings.tenant
        return {**headers, **await self._access.headers()}

    async def _post(self, form: Mapping[str, str]) -> HttpAnswer:
        """By POST: the names of many services do not fit into a URL."""
        headers = await self._headers()
        url = f"{self._settings.url}/api/v1/query"
        with _translated():
            async with self._access.client().stream(
                "POST", url, data=dict(form), headers=dict(headers), extensions=self._access.extensions()
            ) as answer:
                received_at = self._clock.now()
                body = await self._read(answer)
        return HttpAnswer(answer.status_code, answer.headers, body, received_at)

    async def _read(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > self._settings.max_bytes:
                raise TooMuch(f"answered more than max_bytes ({self._settings.max_bytes})")
        return bytes(body)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as exc:
        raise transport_error(exc) from exc


def first_of(errors: Iterable[SourceError]) -> SourceError:
    """One error for many: one that may pass tells more than one that will not; the first of these."""
    found = list(errors)
    return next((each for each in found if not isinstance(each, SourceRejected)), found[0])
