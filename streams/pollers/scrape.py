"""The scrape source: counters straight from ``/metrics`` pages of proxies or pods, once per tick.

The freshest source there is (half a tick on average) and an exact one. Each endpoint fails alone: an arm is
the sum of its endpoints that answered, marked partial when one did not. With ``replicas: true`` each endpoint
has samples of its own, which the judge adds up to the same arm. The presence rule: a version whose total is
on no page gets no sample; one whose total is there and whose failures are not had none.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

from domain.clock import Clock
from domain.errors import SourceError, SourceRejected, SourceUnavailable
from domain.signal import Arm, Channel, Sample
from streams.pollers.base import Fetched, Target, histogram_sample, ratio_sample
from streams.pollers.config import SourceSettings
from streams.pollers.counters import Increment, Ledger, Part, Reading, add_up
from streams.pollers.exposition import HEADERS, refuse_other_media
from streams.pollers.scrape_page import (
    BAD,
    COUNT,
    TOTAL,
    ArmKey,
    Counted,
    Endpoint,
    Group,
    PageReader,
    ScrapeSettings,
    replica_name,
)

AT_ONCE = 100
"""Connections open at a time."""

REQUESTS_SIGNAL, LATENCY_SIGNAL = "error_rate", "latency_ms"


class ScrapeSource:
    """Implements :class:`streams.pollers.base.Source`."""

    Settings = ScrapeSettings
    channel = Channel.METRICS

    def __init__(self, name: str, settings: SourceSettings, clock: Clock) -> None:
        assert isinstance(settings, ScrapeSettings)
        self.name = name
        self.freshness = settings.freshness
        self._settings = settings
        self._endpoints = {settings.page_url(each): each for each in settings.targets}
        self._readers = _readers(settings)
        self._ledgers: dict[float, Ledger] = {}
        self._client: httpx.AsyncClient | None = None

    async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
        """Read every page once, then give each rollout its arms. See :class:`streams.pollers.base.Source`."""
        answers = await self._read_all(min(interval_s / 2, self._settings.timeout))
        failed = {url: answer for url, answer in answers.items() if isinstance(answer, SourceError)}
        if len(failed) == len(answers):
            raise _all_failed(list(failed.values()))
        ledger = self._ledgers.setdefault(interval_s, Ledger())
        tick = _Tick(self._settings, ledger, end, interval_s, self._silent(failed))
        for url, answer in answers.items():
            if isinstance(answer, Reading):
                tick.enter(url, answer)
        return tick.fetched(targets, failed)

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _silent(self, failed: Mapping[str, SourceError]) -> dict[str, Endpoint]:
        return {url: self._endpoints[url] for url in failed}

    async def _read_all(self, timeout_s: float) -> dict[str, Reading | SourceError]:
        client = self._open()
        gate = asyncio.Semaphore(AT_ONCE)

        async def read(url: str) -> Reading | SourceError:
            try:
                async with gate, asyncio.timeout(timeout_s):
                    return self._readers[url].read(await self._get(client, url))
            except TimeoutError:
                return SourceUnavailable(f"{_place(url)} did not answer within {timeout_s:g} s")
            except SourceError as exc:
                return type(exc)(f"{_place(url)} {exc}")

        found = await asyncio.gather(*(read(url) for url in self._endpoints))
        return dict(zip(self._endpoints, found, strict=True))

    def _open(self) -> httpx.AsyncClient:
        """The client of this source, made at the first fetch: proxies of the environment are not for it."""
        if self._client is None:
            authority = ssl.create_default_context(cafile=self._settings.ca_file or None)
            self._client = httpx.AsyncClient(verify=authority, trust_env=False, timeout=None)
        return self._client

    async def _get(self, client: httpx.AsyncClient, url: str) -> str:
        """The page's text, never more than the limit of it."""
        try:
            async with client.stream("GET", url, headers=self._headers()) as answer:
                _refuse_status(answer.status_code)
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > self._settings.max_bytes:
                        raise SourceRejected(f"answered more than {self._settings.max_bytes} bytes")
                text = body.decode(errors="replace")
                refuse_other_media(answer.headers.get("content-type", ""), text)
                return text
        except httpx.ConnectError as exc:
            raise SourceUnavailable("refused the connection") from exc
        except httpx.HTTPError as exc:
            raise SourceUnavailable(f"broke off: {type(exc).__name__}") from exc

    def _headers(self) -> dict[str, str]:
        if not self._settings.token_file:
            return HEADERS
        try:
            token = Path(self._settings.token_file).read_text().strip()
        except OSError as exc:
            raise SourceRejected(f"cannot be asked: token_file: {exc.strerror}") from exc
        return {**HEADERS, "Authorization": f"Bearer {token}"}


def _readers(settings: ScrapeSettings) -> dict[str, PageReader]:
    """A reader per page; pages with the same labels share one, and what it has learnt of their series."""
    shared: dict[frozenset[tuple[str, str]], PageReader] = {}
    readers = {}
    for each in settings.targets:
        labels = frozenset(each.labels.items())
        readers[settings.page_url(each)] = shared.setdefault(labels, PageReader(settings, each.labels))
    return readers


def _refuse_status(status: int) -> None:
    if status >= 500 or status == 429:
        raise SourceUnavailable(f"answered status {status}")
    if status != 200:
        raise SourceRejected(f"answered status {status}")


def _place(url: str) -> str:
    """An endpoint as messages name it: without its query."""
    return url.partition("?")[0]


def _all_failed(failed: Sequence[SourceError]) -> SourceError:
    """One error for all endpoints. If one of them may answer another time, so may the source."""
    more = f" (and {len(failed) - 1} more endpoints failed)" if len(failed) > 1 else ""
    kind = SourceRejected if all(isinstance(each, SourceRejected) for each in failed) else SourceUnavailable
    return kind(f"{failed[0]}{more}")


class _Tick:
    """One tick's increments of all versions on all pages, and the samples they make."""

    def __init__(
        self,
        settings: ScrapeSettings,
        ledger: Ledger,
        end: float,
        interval_s: float,
        silent: Mapping[str, Endpoint],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._end = end
        self._interval_s = interval_s
        self._silent = silent
        self._parts: dict[Group, dict[str, Part]] = {}
        """By group and URL."""

    def enter(self, url: str, reading: Reading) -> None:
        for group, part in self._ledger.enter(url, self._end, reading).items():
            self._parts.setdefault(group, {})[url] = part

    def fetched(self, targets: Sequence[Target], failed: Mapping[str, SourceError]) -> Fetched:
        samples: list[Sample] = []
        problems: dict[str, str] = {}
        for target in targets:
            found = [sample for arm in Arm for sample in self._samples(target, arm)]
            samples += found
            if not found:
                problems[target.rollout_id] = self._why_nothing(target, failed)
        return Fetched(end=self._end, samples=samples, problems=problems)

    def _samples(self, target: Target, arm: Arm) -> list[Sample]:
        key = self._key(target, arm)
        samples = []
        if REQUESTS_SIGNAL in target.signals:
            for replica, counted in self._increments(Group(Counted.REQUESTS, key)).items():
                samples.append(_requests(target, arm, counted, replica))
        if LATENCY_SIGNAL in target.signals:
            keep_all = self._settings.histogram == "full"
            for replica, counted in self._increments(Group(Counted.LATENCY, key)).items():
                samples.append(_latency(target, arm, counted, replica, keep_all))
        return samples

    def _key(self, target: Target, arm: Arm) -> ArmKey:
        settings = self._settings
        service = target.label_value(settings.service, arm) if settings.service_label else ""
        return ArmKey(service, target.label_value(settings.version, arm))

    def _increments(self, group: Group) -> dict[str, Increment]:
        """What an arm counted, by replica; the whole arm is ""."""
        parts = self._parts.get(group, {})
        if group.counted is Counted.LATENCY:
            # An endpoint that saw nothing has 0 at every edge, whether it shows the edge or not.
            seen = {url: part for url, part in parts.items() if part.start is None or part.values[COUNT] > 0}
            parts = seen or parts
        is_partial = any(self._may_hold(url, group) for url in self._silent)
        whole = self._add_up(group, list(parts.values()), is_partial)
        if whole is None:
            return {}
        if not self._settings.replicas:
            return {"": whole}
        if group.counted is Counted.LATENCY:
            parts = {url: _at_edges_of(whole, part) for url, part in parts.items()}
        alone = {replica_name(url): self._add_up(group, [part], is_partial) for url, part in parts.items()}
        return {name: counted for name, counted in alone.items() if counted is not None}

    def _add_up(self, group: Group, parts: Sequence[Part], is_partial: bool) -> Increment | None:
        return add_up(
            parts,
            end=self._end,
            interval_s=self._interval_s,
            is_partial=is_partial,
            common_only=group.counted is Counted.LATENCY,
        )

    def _may_hold(self, url: str, group: Group) -> bool:
        """Whether a silent endpoint belongs to an arm: if it did before, or if nothing speaks against it."""
        if self._ledger.knows(url):
            return self._ledger.holds(url, group)
        labels = self._silent[url].labels
        version = labels.get(self._settings.version_label, group.arm.version)
        service = labels.get(self._settings.service_label, group.arm.service)
        return (service, version) == tuple(group.arm)

    def _why_nothing(self, target: Target, failed: Mapping[str, SourceError]) -> str:
        """The failure of an endpoint that may hold the arms, or else what was looked for in vain."""
        keys = [self._key(target, arm) for arm in Arm]
        for url, error in failed.items():
            if any(self._may_hold(url, Group(counted, key)) for key in keys for counted in Counted):
                return str(error)
        label = self._settings.version_label
        wanted = " or ".join(repr(key.version) for key in keys)
        seen = sorted({group.arm.version for group in self._parts})
        return f"no series has {label}={wanted}; seen were {', '.join(seen[:8]) or 'none'}"


def _at_edges_of(whole: Increment, part: Part) -> Part:
    """A replica's part of its arm, with the arm's edges: counts of other edges could not be added up."""
    return replace(part, values={name: part.values.get(name, 0.0) for name in whole.values})


def _requests(target: Target, arm: Arm, counted: Increment, replica: str) -> Sample:
    return ratio_sample(
        target,
        REQUESTS_SIGNAL,
        arm,
        start=counted.start,
        end=counted.end,
        events=counted.values.get(BAD, 0.0),
        exposure=counted.values[TOTAL],
        quality=counted.quality,
        replica=replica,
    )


def _latency(target: Target, arm: Arm, counted: Increment, replica: str, keep_all: bool) -> Sample:
    """Its exposure is the histogram's own count: a proxy's histograms lag its counters."""
    buckets = {name: value for name, value in counted.values.items() if name != COUNT}
    if not buckets and counted.values[COUNT] == 0:
        buckets = dict.fromkeys(target.signals[LATENCY_SIGNAL], 0.0)
    return histogram_sample(
        target,
        LATENCY_SIGNAL,
        arm,
        start=counted.start,
        end=counted.end,
        exposure=counted.values[COUNT],
        buckets=buckets,
        keep_all=keep_all,
        quality=counted.quality,
        replica=replica,
    )
