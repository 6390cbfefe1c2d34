"""What to ask of the server for the signals of a source, and how labels name services and versions. Pure.

Metrics that are asked for with the same matchers of their own share one query, so all counters of a chunk of
services come from one look at the database.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from domain.signal import Arm
from streams.pollers.base import Target
from streams.pollers.prometheus_selectors import Selector, fill_in, one_of, quote_pattern, range_query
from streams.pollers.prometheus_settings import PER_REQUEST, PER_SECOND, PrometheusSettings

ERRORS, LATENCY = "error_rate", "latency_ms"


class Role(Enum):
    """What the samples of a metric are counted as."""

    TOTAL = "total"
    BAD = "bad"
    COUNT = "count"
    """Observations of a histogram."""
    BUCKET = "bucket"
    NATIVE = "native"
    """Whole native histograms."""
    PRESENT = "present"


class Use(NamedTuple):
    """A metric's part in a signal."""

    signal: str
    role: Role


@dataclass(frozen=True, slots=True)
class Ask:
    """Metrics that one query brings, and what each is used for."""

    matchers: tuple[str, ...]
    uses: Mapping[str, tuple[Use, ...]]

    def metrics(self, signals: frozenset[str]) -> list[str]:
        """The metrics that ``signals`` need; the presence of a version serves all of them."""
        return [
            metric
            for metric, uses in self.uses.items()
            if any(use.signal in signals or use.role is Role.PRESENT for use in uses)
        ]

    def signals(self, wanted: frozenset[str]) -> frozenset[str]:
        """Those of ``wanted`` that cannot do without this."""
        return frozenset(use.signal for uses in self.uses.values() for use in uses) & wanted

    def has_buckets(self, signals: frozenset[str]) -> bool:
        """Whether a classic histogram is among them, whose edges may be chosen."""
        return any(
            use.role is Role.BUCKET and use.signal in signals for uses in self.uses.values() for use in uses
        )


def asks_of(settings: PrometheusSettings) -> list[Ask]:
    """Every query of a source, in a fixed order."""
    grouped: dict[tuple[str, ...], dict[str, tuple[Use, ...]]] = {}
    for selector, use in _uses(settings):
        uses = grouped.setdefault(selector.matchers, {})
        uses[selector.metric] = (*uses.get(selector.metric, ()), use)
    return [Ask(matchers, uses) for matchers, uses in grouped.items()]


def _uses(settings: PrometheusSettings) -> Iterator[tuple[Selector, Use]]:
    yield Selector.parse(settings.requests), Use(ERRORS, Role.TOTAL)
    if settings.errors:
        yield Selector.parse(settings.errors), Use(ERRORS, Role.BAD)
    if settings.latency:
        histogram = Selector.parse(settings.latency)
        yield histogram.named("_count"), Use(LATENCY, Role.COUNT)
        yield histogram.named("_bucket"), Use(LATENCY, Role.BUCKET)
        yield histogram, Use(LATENCY, Role.NATIVE)
    for name, signal in settings.signals.items():
        yield Selector.parse(signal.events), Use(name, Role.BAD)
        if signal.exposure not in (PER_REQUEST, PER_SECOND):
            yield Selector.parse(signal.exposure), Use(name, Role.TOTAL)
    if settings.presence:
        yield Selector.parse(settings.presence), Use(ERRORS, Role.PRESENT)


def needed_signals(settings: PrometheusSettings, wanted: Iterable[str]) -> frozenset[str]:
    """Those of ``wanted`` that the source offers, and what they are divided by."""
    offered = {ERRORS, *settings.signals, *([LATENCY] if settings.latency else [])}
    signals = offered & set(wanted)
    if any(name in settings.signals and settings.signals[name].exposure == PER_REQUEST for name in signals):
        signals.add(ERRORS)
    return frozenset(signals)


def query_of(
    ask: Ask,
    signals: frozenset[str],
    scope: Iterable[str],
    edges: Iterable[str] | None,
    window_s: float,
) -> str:
    """The query for a chunk. ``edges`` are the texts of the wanted buckets' ``le``; ``None``: all of them."""
    matchers = [*ask.matchers, *scope]
    if edges is not None and ask.has_buckets(signals):
        # Metrics without buckets have no such label, which is the same as an empty one.
        matchers.append(one_of("le", ["", *map(quote_pattern, edges)]))
    return range_query(ask.metrics(signals), matchers, window_s)


class Place(NamedTuple):
    """A version as labels name it; empty where no label says."""

    environment: str
    service: str
    version: str


@dataclass(frozen=True, slots=True)
class ArmPattern:
    """Which places belong to one arm of a rollout."""

    environment: str
    service: str
    version: re.Pattern[str]
    exact: str | None
    """The only version it can be, if there is only one."""
    hint: str
    """What every version of it contains: looked for first, because most places belong to others."""

    def holds(self, place: Place) -> bool:
        """Whether ``place`` belongs to the arm."""
        if place.environment != self.environment or place.service != self.service:
            return False
        if self.exact is not None:
            return place.version == self.exact
        return self.hint in place.version and self.version.fullmatch(place.version) is not None

    def among(self, places: Collection[Place]) -> list[Place]:
        """Those of ``places``, all of one environment and service, that belong to the arm."""
        if self.exact is not None:
            place = Place(self.environment, self.service, self.exact)
            return [place] if place in places else []
        return [place for place in places if self.holds(place)]


@dataclass(frozen=True, slots=True)
class Naming:
    """How rollouts are found in labels."""

    settings: PrometheusSettings

    @property
    def scope_label(self) -> str:
        """The label by which services are asked for."""
        return self.settings.service_label or self.settings.version_label

    def pattern(self, target: Target, arm: Arm) -> ArmPattern:
        """Where an arm's series are found."""
        settings = self.settings
        return _arm_pattern(
            settings.pattern(is_canary=arm is Arm.CANARY),
            target.label_value(settings.environment, arm) if settings.environment_label else "",
            target.label_value(settings.service, arm) if settings.service_label else "",
            target.service,
            target.environment,
            target.version(arm),
        )

    def scopes(self, target: Target) -> tuple[str, ...]:
        """Patterns of the scope label that find all of a rollout's series."""
        arms = (self.pattern(target, Arm.STABLE), self.pattern(target, Arm.CANARY))
        if self.settings.service_label:
            return (quote_pattern(arms[0].service),)
        return tuple(dict.fromkeys(arm.version.pattern for arm in arms))

    def matchers(self, chunk: Iterable[str], environments: Iterable[str]) -> list[str]:
        """The matchers of a chunk of scope patterns."""
        matchers = [one_of(self.scope_label, chunk)]
        if self.settings.environment_label:
            values = map(quote_pattern, sorted(set(environments)))
            matchers.append(one_of(self.settings.environment_label, values))
        return matchers

    def place_of(self, labels: Mapping[str, str]) -> Place | None:
        """Where a series belongs; ``None`` when a label it needs is missing.

        A missing version label is an empty one, as in PromQL: ingress-nginx leaves stable's empty.
        """
        settings = self.settings
        service = labels.get(settings.service_label, "") if settings.service_label else ""
        environment = labels.get(settings.environment_label, "") if settings.environment_label else ""
        if (settings.service_label and not service) or (settings.environment_label and not environment):
            return None
        return Place(environment, service, labels.get(settings.version_label, ""))


@lru_cache(maxsize=16_384)
def _arm_pattern(
    template: str, env_value: str, service_value: str, service: str, environment: str, version: str
) -> ArmPattern:
    pattern = fill_in(template, service=service, environment=environment, version=version)
    bare = fill_in(template, service="", environment="", version="")
    is_plain = quote_pattern(bare) == bare
    return ArmPattern(
        environment=env_value,
        service=service_value,
        version=re.compile(pattern),
        exact=template.format(service=service, environment=environment, version=version)
        if is_plain
        else None,
        hint=service if "{service}" in template else "",
    )


def edge_ms(text: str, unit: str) -> float | None:
    """A bucket's edge in milliseconds; the last bucket has none, it equals the count.

    >>> edge_ms("0.25", "s"), edge_ms("+Inf", "s")
    (250.0, None)
    """
    try:
        edge = float(text)
    except ValueError:
        return None
    if not abs(edge) < float("inf"):
        return None
    return edge if unit == "ms" else round(edge * 1000, 6)
