"""Sources as the configuration names them: read, or refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from domain.clock import SystemClock
from domain.errors import ConfigError
from domain.signal import Channel, Freshness
from streams.pollers.config import SourceSettings
from streams.pollers.registry import KINDS, open_sources, read_sources, source_class
from streams.pollers.scrape_page import ScrapeSettings

SCRAPE: dict[str, Any] = {"kind": "scrape", "preset": "envoy", "targets": ["http://127.0.0.1:9901"]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_a_class_with_settings(kind: str) -> None:
    assert issubclass(source_class(kind).Settings, SourceSettings)


async def test_a_configuration_becomes_sources_by_name() -> None:
    spans = {"kind": "otlp", "carries": "traces"}
    files = {"kind": "tail", "files": "logs/*.jsonl"}
    settings = read_sources({"mesh": SCRAPE, "files": files, "spans": spans})
    assert {name: each.channel for name, each in settings.items()} == {
        "mesh": Channel.METRICS,
        "files": Channel.LOGS,
        "spans": Channel.TRACES,
    }
    assert settings["mesh"].freshness is Freshness.REALTIME
    sources = open_sources(settings, SystemClock())
    assert {each.name for each in sources.values()} == {"mesh", "files", "spans"}
    for each in sources.values():
        await each.close()


def test_a_preset_fills_in_and_keys_that_are_set_win() -> None:
    settings = read_sources({"mesh": SCRAPE | {"version_label": "cluster", "timeout": "250ms"}})["mesh"]
    assert isinstance(settings, ScrapeSettings)
    assert settings.requests == "envoy_cluster_upstream_rq_xx"
    assert settings.version_label == "cluster"
    assert settings.timeout == 0.25


BROKEN: dict[str, tuple[Any, str]] = {
    "no mapping": (["mesh"], r"sources must map names to settings, got list"),
    "no settings": ({"mesh": None}, r"sources\.mesh must be a mapping of settings, got None"),
    "no kind": ({"mesh": {}}, r"sources\.mesh\.kind: unknown kind None; known are .*scrape, tail"),
    "unknown kind": ({"mesh": {"kind": "graphite"}}, r"unknown kind 'graphite'; known are .*scrape, tail"),
    "unknown key": ({"mesh": SCRAPE | {"urls": []}}, r"sources\.mesh\.urls: unknown key; known are kind,"),
    "no targets": ({"mesh": {"kind": "scrape", "preset": "envoy"}}, r"sources\.mesh\.targets is missing"),
    "empty targets": ({"mesh": SCRAPE | {"targets": []}}, r"sources\.mesh\.targets: .*at least 1 item"),
    "bad url": ({"mesh": SCRAPE | {"targets": ["pods:80"]}}, r"sources\.mesh\.targets\.0\.url: a URL starts"),
    "unknown preset": ({"mesh": SCRAPE | {"preset": "istio"}}, r"sources\.mesh\.preset: .*got 'istio'"),
    "bare number": ({"mesh": SCRAPE | {"timeout": 5}}, r"sources\.mesh\.timeout: a duration .*; got 5"),
    "bad pattern": ({"mesh": SCRAPE | {"error_values": "5("}}, r"error_values: not a regular expression"),
    "bad template": ({"mesh": SCRAPE | {"version": "{pod}"}}, r"version: a template may use .*got '\{pod\}'"),
    "bad freshness": ({"mesh": SCRAPE | {"freshness": "live"}}, r"freshness: .*'realtime', 'near' or 'slow'"),
    "no metric": (
        {"mesh": {"kind": "scrape", "targets": ["http://a"]}},
        r"sources\.mesh: name the counter of requests, or use preset: envoy",
    ),
    "no errors": (
        {"mesh": {"kind": "scrape", "targets": ["http://a"], "requests": "x"}},
        r"sources\.mesh: say which requests failed",
    ),
    "no files": ({"files": {"kind": "tail"}}, r"sources\.files\.files is missing"),
}


@pytest.mark.parametrize("sources, words", BROKEN.values(), ids=BROKEN)
def test_a_broken_configuration_names_source_key_value_and_rule(sources: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_sources(sources)
    assert "\n" not in str(caught.value)


def test_a_secret_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="must not hold credentials") as caught:
        read_sources({"mesh": SCRAPE | {"targets": ["http://ann:s3cret@host/metrics"]}})
    assert "s3cret" not in str(caught.value)
