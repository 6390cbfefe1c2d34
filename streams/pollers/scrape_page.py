"""What the series of a scraped page mean: settings of the scrape source, and page → :class:`Reading`. Pure.

A version's requests are one group of counters and its latencies another, because not every endpoint has both.
The meaning of a series is worked out once and remembered by its text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from domain.signal import Channel
from streams.pollers.config import Regex, Seconds, SourceSettings, Template, Url
from streams.pollers.counters import Reading
from streams.pollers.exposition import PageParser, parse_series

MIB = 1024 * 1024

_ENVOY_STATS = (
    "/stats/prometheus?usedonly"
    r"&filter=^(cluster\..*\.(upstream_rq_([1-5]xx|time)|membership_total)|server\.uptime)$"
)
"""Only what is needed: 5 kB instead of 100."""

PRESETS: dict[str, dict[str, str]] = {
    "envoy": {
        # rq_total counts a request when it is sent, the classes when it is answered: only these add up.
        "requests": "envoy_cluster_upstream_rq_xx",
        "error_label": "envoy_response_code_class",
        "error_values": "5",
        "latency": "envoy_cluster_upstream_rq_time",
        "latency_unit": "ms",
        "presence": "envoy_cluster_membership_total",
        "version_label": "envoy_cluster_name",
        "version": "{service}_{version}",
        "path": _ENVOY_STATS,
    },
}


class Endpoint(BaseModel):
    """One page to read. ``labels`` are put on all its series, over the page's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Url
    labels: dict[str, str] = {}


class ScrapeSettings(SourceSettings):
    """``kind: scrape``: counters read straight from the pages of proxies or pods."""

    channel: ClassVar[Channel] = Channel.METRICS

    targets: tuple[Endpoint, ...] = Field(min_length=1)
    """URLs, or mappings with ``url`` and ``labels``."""
    preset: Literal["", "envoy"] = ""
    """Fills in everything below for a known exporter; keys that are set win."""
    path: str = "/metrics"
    """Added to URLs that have none."""
    requests: str = ""
    """The counter of requests."""
    errors: str = ""
    """The counter of failed ones, where that is another one than ``requests``."""
    error_label: str = ""
    error_values: Regex = ""
    """Which values of ``error_label`` are failures: a regular expression for the whole value."""
    latency: str = ""
    """The histogram of latencies, without ``_bucket``. Empty: this source has no latencies."""
    latency_unit: Literal["ms", "s"] = "s"
    presence: str = ""
    """A series that exists for every version the endpoint knows, even before its first request."""
    version_label: str = "version"
    version: Template = "{version}"
    """The label's value for a version; may use {service}, {environment} and {version}."""
    service_label: str = ""
    service: Template = "{service}"
    """Set ``service_label`` when several services share version names on this source."""
    replicas: bool = False
    """Whether each target is one replica (a pod, an instance) of the versions on its page. They are counted
    apart then. Not for proxies: all replicas answer behind each of them."""
    histogram: Literal["needed", "full"] = "needed"
    """Which bucket edges samples carry: those that the gates need, or all."""
    timeout: Seconds = 5.0
    """Never more than half an interval."""
    max_bytes: int = Field(default=16 * MIB, gt=0)
    token_file: str = ""
    """File with a bearer token, read anew for each request."""
    ca_file: str = ""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = values.get("preset", "")
        return {**PRESETS.get(preset, {}), **values} if isinstance(preset, str) else values

    @field_validator("targets", mode="before")
    @classmethod
    def _plain_urls(cls, targets: Any) -> Any:
        if not isinstance(targets, (list, tuple)):
            return targets
        return tuple({"url": each} if isinstance(each, str) else each for each in targets)

    @model_validator(mode="after")
    def _is_complete(self) -> ScrapeSettings:
        if not self.requests:
            raise ValueError("name the counter of requests, or use preset: envoy")
        if not self.errors and not self.error_label:
            raise ValueError("say which requests failed: errors (a counter), or error_label and error_values")
        if bool(self.error_label) != bool(self.error_values):
            raise ValueError("error_label and error_values go together")
        pages = {self.page_url(each) for each in self.targets}
        if self.replicas and len({replica_name(url) for url in pages}) < len(pages):
            raise ValueError("replicas are told apart by host, port and path; some targets share all three")
        return self

    def page_url(self, endpoint: Endpoint) -> str:
        """The endpoint's URL with :attr:`path` if it has none of its own."""
        parts = urlsplit(endpoint.url)
        return endpoint.url if parts.path.strip("/") or parts.query else endpoint.url.rstrip("/") + self.path


def replica_name(url: str) -> str:
    """The replica behind a page: a URL without its scheme, and without its query, which may hold a secret.

    >>> replica_name("http://10.0.0.7:8080/metrics?token=x")
    '10.0.0.7:8080/metrics'
    """
    parts = urlsplit(url)
    return parts.netloc + parts.path


class ArmKey(NamedTuple):
    """A version as the labels of a page name it."""

    service: str
    version: str


class Counted(Enum):
    """The groups of counters of a version."""

    REQUESTS = "requests"
    LATENCY = "latency"


class Group(NamedTuple):
    counted: Counted
    arm: ArmKey


TOTAL, BAD, COUNT = "total", "bad", "count"
"""Names of counters in a group; a bucket's name is its edge in milliseconds."""


class _Meaning(NamedTuple):
    """To which counters of which group a series adds its value."""

    group: Group
    names: tuple[str | float, ...]


class _Special(Enum):
    START_TIME = "process_start_time_seconds"
    UPTIME = "envoy_server_uptime"


@dataclass(slots=True)
class PageReader:
    """Reads the pages of endpoints with the same fixed labels."""

    settings: ScrapeSettings
    labels: Mapping[str, str]
    _meanings: dict[str, _Meaning | _Special | None] = field(default_factory=dict)
    _parser: PageParser = field(default_factory=PageParser)

    def read(self, text: str) -> Reading:
        """The counters of all versions on a page; :class:`SourceRejected` when it is no page of metrics."""
        groups: dict[Group, dict[str | float, float]] = {}
        present: set[ArmKey] = set()
        life: float | None = None
        for series, value in self._parser.parse(text).items():
            meaning = self._meaning(series)
            if meaning is None or not math.isfinite(value):
                continue
            if isinstance(meaning, _Special):
                life = value if meaning is _Special.UPTIME else -value
                continue
            if not meaning.names:
                present.add(meaning.group.arm)
                continue
            counters = groups.setdefault(meaning.group, {})
            for name in meaning.names:
                counters[name] = counters.get(name, 0.0) + value
        return Reading(_complete(groups, present), life)

    def _meaning(self, series: str) -> _Meaning | _Special | None:
        try:
            return self._meanings[series]
        except KeyError:
            if len(self._meanings) > _MOST_SERIES:
                self._meanings.clear()
            return self._meanings.setdefault(series, self._work_out(series))

    def _work_out(self, series: str) -> _Meaning | _Special | None:
        metric, own = parse_series(series)
        for special in _Special:
            if metric == special.value:
                return special
        names = self._names(metric, own)
        if names is None:
            return None
        labels = {**own, **self.labels}
        version = labels.get(self.settings.version_label)
        service = labels.get(self.settings.service_label) if self.settings.service_label else ""
        if version is None or service is None:
            return None
        counted = Counted.LATENCY if names and names[0] not in (TOTAL, BAD) else Counted.REQUESTS
        return _Meaning(Group(counted, ArmKey(service, version)), names)

    def _names(self, metric: str, labels: Mapping[str, str]) -> tuple[str | float, ...] | None:
        """The counters a series adds to; empty for one that only proves presence."""
        settings = self.settings
        if metric == settings.presence:
            return ()
        if metric == settings.requests:
            return (TOTAL, BAD) if not settings.errors and self._is_error(labels) else (TOTAL,)
        if settings.errors and metric == settings.errors:
            return (BAD,) if self._is_error(labels) else None
        if settings.latency and metric == settings.latency + "_count":
            return (COUNT,)
        if settings.latency and metric == settings.latency + "_bucket":
            edge = _edge_ms(labels.get("le", ""), settings.latency_unit)
            return None if edge is None else (edge,)
        return None

    def _is_error(self, labels: Mapping[str, str]) -> bool:
        settings = self.settings
        if not settings.error_label:
            return True
        return re.fullmatch(settings.error_values, labels.get(settings.error_label, "")) is not None


_MOST_SERIES = 200_000
"""Meanings kept per set of labels; beyond it label values come and go faster than they can be remembered."""


def _edge_ms(text: str, unit: str) -> float | None:
    """A bucket's edge in milliseconds; the last bucket has none, it equals the count."""
    try:
        edge = float(text)
    except ValueError:
        return None
    if not math.isfinite(edge):
        return None
    return edge if unit == "ms" else round(edge * 1000, 6)


def _complete(
    groups: dict[Group, dict[str | float, float]], present: set[ArmKey]
) -> dict[Group, dict[str | float, float]]:
    """The groups whose total is known; failures alone, or buckets without a count, say nothing.

    A version whose presence is proven has counted 0 of what it does not show yet.
    """
    needed = {Counted.REQUESTS: TOTAL, Counted.LATENCY: COUNT}
    complete = {group: counters for group, counters in groups.items() if needed[group.counted] in counters}
    for arm in present:
        for counted, name in needed.items():
            complete.setdefault(Group(counted, arm), {name: 0.0})
    return complete
