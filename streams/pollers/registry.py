"""The kinds of sources. A kind's module, and what that needs, is imported when a source of it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from domain.clock import Clock
from domain.errors import ConfigError
from streams.pollers.base import Source
from streams.pollers.config import SourceSettings

KINDS: dict[str, str] = {
    "otlp": "streams.pollers.otlp:OtlpSource",
    "otlp_kafka": "streams.pollers.otlp_kafka:OtlpKafkaSource",
    "scrape": "streams.pollers.scrape:ScrapeSource",
    "tail": "streams.pollers.tail:TailSource",
    "prometheus": "streams.pollers.prometheus:PrometheusSource",
    "victoriametrics": "streams.pollers.prometheus:PrometheusSource",
    "thanos": "streams.pollers.prometheus:PrometheusSource",
    "mimir": "streams.pollers.prometheus:PrometheusSource",
}
"""Kind, as ``sources.NAME.kind`` says it, to ``module:Class``."""


class SourceClass(Protocol):
    """What a source's class offers: its settings, and a constructor that touches nothing outside."""

    Settings: type[SourceSettings]

    def __call__(self, name: str, settings: SourceSettings, clock: Clock) -> Source: ...


def source_class(kind: object) -> SourceClass:
    """The class behind a kind.

    Raises
    ------
    ConfigError
        For an unknown kind (with the known ones), or one whose libraries are not installed.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}; known are {', '.join(sorted(KINDS))}")
    module, _, name = KINDS[kind].partition(":")
    try:
        return cast(SourceClass, getattr(import_module(module), name))
    except ModuleNotFoundError as exc:
        raise ConfigError(f"kind {kind} needs the package {exc.name}, which is not installed") from exc


def read_sources(sources: object) -> dict[str, SourceSettings]:
    """The settings of every source in the ``sources:`` mapping of the configuration, by name.

    Raises
    ------
    ConfigError
        Naming the source, the key, the value and the rule it breaks.
    """
    if not isinstance(sources, dict):
        raise ConfigError(f"sources must map names to settings, got {type(sources).__name__}")
    return {str(name): _read_source(str(name), settings) for name, settings in sources.items()}


def _read_source(name: str, settings: object) -> SourceSettings:
    if not isinstance(settings, dict):
        raise ConfigError(f"sources.{name} must be a mapping of settings, got {settings!r}")
    try:
        found = source_class(settings.get("kind"))
    except ConfigError as exc:
        raise ConfigError(f"sources.{name}.kind: {exc}") from exc
    return found.Settings.read(name, settings)


def open_sources(settings: dict[str, SourceSettings], clock: Clock) -> dict[str, Source]:
    """A source for each settings; nothing is connected or opened before the first fetch."""
    return {name: source_class(each.kind)(name, each, clock) for name, each in settings.items()}
