"""Settings of the sources that speak the Prometheus HTTP API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from domain.signal import COUNT_PREFIX, CUSTOM_PREFIX, SIGNALS, Channel, Freshness
from streams.pollers.config import Seconds, SourceSettings, Url
from streams.pollers.http_auth import HttpSettings
from streams.pollers.prometheus_presets import PRESETS
from streams.pollers.prometheus_selectors import Selector, fill_in

MIB = 1024 * 1024

KINDS = ("prometheus", "victoriametrics", "thanos", "mimir")
"""What may be named as ``kind``; they differ in the parameters that make an answer fresh and whole."""

DEDUP_LABELS = ("prometheus_replica", "__replica__")
"""External labels by which the two servers of a pair usually say who scraped."""

PER_REQUEST, PER_SECOND = "requests", "seconds"


def _check_selector(text: str) -> str:
    if text:
        Selector.parse(text)
    return text


def _check_template(text: str) -> str:
    try:
        fill_in(text, service="", environment="", version="")
    except (LookupError, ValueError) as exc:
        raise ValueError("a template may use {service}, {environment} and {version}") from exc
    return text


def _check_pattern(text: str) -> str:
    try:
        re.compile(fill_in(_check_template(text), service="", environment="", version=""))
    except re.error as exc:
        raise ValueError(f"not a regular expression: {exc}") from exc
    return text


SelectorText = Annotated[str, AfterValidator(_check_selector)]
"""``metric`` or ``metric{matchers}``; ``$S`` among the matchers says where the services go."""
Template = Annotated[str, AfterValidator(_check_template)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""A regular expression for a whole value, in which {service}, {environment} and {version} may stand."""


class CustomSignal(BaseModel):
    """A signal of the user's own: ``custom:NAME`` is a share, ``count:NAME`` a number per exposure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    events: SelectorText
    exposure: str = PER_REQUEST
    """A selector; or ``requests``; or, for a count, ``seconds``: those that the arm's replicas lived."""

    @field_validator("exposure")
    @classmethod
    def _word_or_selector(cls, text: str) -> str:
        return text if text in (PER_REQUEST, PER_SECOND) else _check_selector(text)


class PrometheusSettings(SourceSettings, HttpSettings):
    """``kind: prometheus``, ``victoriametrics``, ``thanos`` or ``mimir``: counters from a database."""

    channel: ClassVar[Channel] = Channel.METRICS

    kind: Literal["prometheus", "victoriametrics", "thanos", "mimir"]
    freshness: Freshness = Freshness.NEAR
    """Near: what is counted is as old as the last scrape."""
    url: Url
    """Of the API, without ``/api/v1/…``."""
    tenant: str = ""
    """Whose data, where a server holds that of many (``X-Scope-OrgID``, ``THANOS-TENANT``)."""
    extra_params: dict[str, str] = Field(default={})
    """Sent with every query, such as VictoriaMetrics' ``extra_label``."""

    preset: str = ""
    """Fills in everything below for a known exporter; keys that are set win."""
    requests: SelectorText = ""
    """The counter of requests."""
    errors: SelectorText = ""
    """The counter of failed ones, where that is another one than ``requests``."""
    error_label: str = ""
    error_values: Pattern = ""
    """Which values of ``error_label`` are failures: a regular expression for the whole value."""
    latency: SelectorText = ""
    """The histogram of latencies, without ``_bucket``. Empty: this source has no latencies."""
    latency_unit: Literal["ms", "s"] = "s"
    signals: dict[str, CustomSignal] = Field(default={})
    """Signals of your own, by name."""
    presence: SelectorText = ""
    """A series that exists for every version, even before its first request."""

    service_label: str = ""
    service: Template = "{service}"
    """The label's value for a service. Without ``service_label`` the version's label tells services apart."""
    environment_label: str = ""
    environment: Template = "{environment}"
    version_label: str = "version"
    version: Pattern = "{version}"
    """The label's value for a version."""
    stable: Pattern | None = None
    canary: Pattern | None = None
    """The value for that arm alone, where it is not ``version``."""
    info: str = ""
    """A metric (``target_info``) whose labels are lent to all series of the same ``job`` and ``instance``."""
    replicas: str = ""
    """The label that tells the replicas of a version apart (``pod``). They are counted apart then."""
    dedup_labels: tuple[str, ...] = DEDUP_LABELS
    """Labels that tell apart the servers of a pair that scrape the same things; counted is one of them."""

    histogram: Literal["needed", "full"] = "needed"
    """Which bucket edges samples carry: those that the gates need, or all."""
    lookback: Seconds = Field(default=120.0, ge=10.0, le=3600.0)
    """How far back a service is looked for when it is new: at least two scrapes."""
    timeout: Seconds = Field(default=5.0, gt=0)
    """Never more than half an interval."""
    concurrency: int = Field(default=4, ge=1, le=64)
    max_bytes: int = Field(default=64 * MIB, gt=0)
    max_series: int = Field(default=100_000, gt=0)
    """Limits of one answer; what would be larger is asked for in parts."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = values.get("preset", "")
        return {**PRESETS.get(preset, {}), **values} if isinstance(preset, str) else values

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, preset: str) -> str:
        if preset and preset not in PRESETS:
            raise ValueError(f"unknown preset; known are {', '.join(PRESETS)}")
        return preset

    @field_validator("url")
    @classmethod
    def _no_query(cls, url: str) -> str:
        if "?" in url or "#" in url:
            raise ValueError("a URL of an API has no query; use extra_params")
        return url.rstrip("/").removesuffix("/api/v1")

    @field_validator("signals")
    @classmethod
    def _own_names(cls, signals: dict[str, CustomSignal]) -> dict[str, CustomSignal]:
        for name, each in signals.items():
            if not name.startswith((CUSTOM_PREFIX, COUNT_PREFIX)):
                known = ", ".join(SIGNALS)
                raise ValueError(
                    f"{name} must be {CUSTOM_PREFIX}NAME or {COUNT_PREFIX}NAME ({known} are taken)"
                )
            if each.exposure == PER_SECOND and not name.startswith(COUNT_PREFIX):
                raise ValueError(f"{name}: exposure: seconds is for {COUNT_PREFIX}NAME only")
        return signals

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.requests:
            raise ValueError("name the counter of requests, or use a preset")
        if not self.errors and not self.error_label:
            raise ValueError("say which requests failed: errors (a counter), or error_label and error_values")
        if bool(self.error_label) != bool(self.error_values):
            raise ValueError("error_label and error_values go together")
        if not self.service_label:
            for pattern in (self.pattern(is_canary=False), self.pattern(is_canary=True)):
                if "{service}" not in pattern:
                    raise ValueError("without service_label, the version's pattern must contain {service}")
        if self.pattern(is_canary=False) == self.pattern(is_canary=True) and "{version}" not in self.version:
            raise ValueError("the version's pattern must contain {version}, or stable and canary differ")
        return self

    def pattern(self, *, is_canary: bool) -> str:
        """The pattern of an arm's version label."""
        own = self.canary if is_canary else self.stable
        return self.version if own is None else own
