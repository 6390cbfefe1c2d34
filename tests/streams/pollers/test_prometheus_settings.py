"""Settings of the Prometheus sources: presets, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from domain.errors import ConfigError
from domain.signal import Arm, Channel, Freshness
from streams.pollers.base import Target, target_of
from streams.pollers.prometheus_plan import Naming, Place, Role, asks_of
from streams.pollers.prometheus_presets import PRESETS
from streams.pollers.prometheus_settings import PrometheusSettings
from streams.pollers.registry import KINDS
from tests.streams.pollers.rollouts import spec

URL = "http://127.0.0.1:9090"
TARGET = target_of(spec(), Channel.METRICS)
OWN: dict[str, Any] = {
    "requests": "hits",
    "error_label": "code",
    "error_values": "5..",
    "service_label": "app",
}


def read(**settings: Any) -> PrometheusSettings:
    return PrometheusSettings.read("prom", {"kind": "prometheus", "url": URL, **settings})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "prometheus:" in KINDS[kind]])
def test_every_kind_reads_the_same_settings_and_is_near(kind: str) -> None:
    settings = read(kind=kind, preset="istio")
    assert (settings.kind, settings.freshness) == (kind, Freshness.NEAR)


# What the label of a version says there: of stable, of the canary, of another service that looks alike.
LABELS: dict[str, tuple[str, str, str]] = {
    "otel-http": ("v1", "v2", "v3"),
    "otel-grpc": ("v1", "v2", "v3"),
    "otel-rpc": ("v1", "v2", "v3"),
    "istio": ("v1", "v2", "v3"),
    "istio-grpc": ("v1", "v2", "v3"),
    "linkerd": ("checkout-v1", "checkout-v2", "my-checkout-v2"),
    "linkerd-route": ("checkout-v1", "checkout-v2", "my-checkout-v2"),
    "envoy": ("checkout_v1", "checkout_v2", "my_checkout_v2"),
    "contour": ("prod_checkout-v1_80", "prod_checkout-v2_http", "test_checkout-v2_80"),
    "gloo": ("prod-checkout-v1-80_gloo-system", "prod-checkout-v2-80_gloo-system", "prod-checkout-v2"),
    "kgateway": ("kube_prod_checkout-v1_80", "kube_prod_checkout-v2_80", "kube_prod_my-checkout-v2_80"),
    "ingress-nginx": ("", "prod-checkout-canary-80", ""),
    "traefik": (
        "prod-checkout-v1-80@kubernetes",
        "prod-checkout-v2-80@kubernetescrd",
        "prod-checkout-v2@file",
    ),
    "haproxy": ("checkout-v1", "checkout-v2", "my-checkout-v2"),
    "kong": ("prod.checkout-v1.80", "prod.checkout-v2.http", "prod.my-checkout-v2.80"),
    "cilium": ("checkout-v1", "checkout-v2", "my-checkout-v2"),
    "knative": ("v1", "v2", "v3"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_finds_both_arms_and_nobody_else(preset: str) -> None:
    settings = read(preset=preset)
    naming = Naming(settings)
    service = TARGET.service if settings.service_label else ""
    stable, canary, other = (Place("", service, version) for version in LABELS[preset])
    if settings.service_label:
        other = Place("", "other", other.version)
    arms = {arm: naming.pattern(TARGET, arm) for arm in Arm}
    for pattern, own in ((arms[Arm.STABLE], stable), (arms[Arm.CANARY], canary)):
        assert [place for place in (stable, canary, other) if pattern.holds(place)] == [own]
        assert pattern.among({stable, canary, other}) == [own]
    # What finds the arms in Python finds them in RE2: no syntax that one of both lacks.
    for scope in naming.scopes(TARGET):
        assert not re.search(r"\(\?|\\[dwsbDWSB]", scope)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_says_what_total_and_failures_are(preset: str) -> None:
    roles = {use.role for ask in asks_of(read(preset=preset)) for uses in ask.uses.values() for use in uses}
    assert Role.TOTAL in roles
    settings = read(preset=preset)
    assert (Role.BUCKET in roles) == bool(settings.latency)
    assert settings.errors or settings.error_values


def test_counters_with_the_same_matchers_share_a_query() -> None:
    [ask] = asks_of(read(preset="istio"))
    assert ask.matchers == ('reporter="destination"',)
    assert set(ask.uses) >= {"istio_requests_total", "istio_request_duration_milliseconds_bucket"}


def test_names_are_not_patterns_and_regular_expressions_are() -> None:
    target = Target(
        rollout_id="r",
        service="a.b",
        environment="prod",
        stable="1.0",
        canary="1.1",
        signals={"error_rate": ()},
    )
    naming = Naming(read(**OWN, canary="{version}(-rc[0-9]+)?"))
    assert naming.scopes(target) == (r"a\.b",)
    assert not naming.pattern(target, Arm.STABLE).holds(Place("", "a.b", "1x0"))
    assert naming.pattern(target, Arm.CANARY).holds(Place("", "a.b", "1.1-rc2"))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "unknown preset": (
        {"preset": "nginx"},
        r"sources\.prom\.preset: unknown preset; known are otel-http, .*got",
    ),
    "a function": ({**OWN, "requests": "rate(hits[1m])"}, r"prom\.requests: a selector is a counter's name"),
    "no counter": ({}, r"sources\.prom: name the counter of requests, or use a preset"),
    "no failures": ({"requests": "hits"}, r"sources\.prom: say which requests failed"),
    "no service": (
        {**OWN, "service_label": ""},
        r"sources\.prom: without service_label, the version's pattern must contain \{service\}",
    ),
    "no version": ({**OWN, "version": "v.+"}, r"must contain \{version\}, or stable and canary differ"),
    "unknown place": ({**OWN, "canary": "{pod}"}, r"canary: a template may use \{service\}, .*got '\{pod\}'"),
    "no pattern": ({**OWN, "canary": "v("}, r"canary: not a regular expression"),
    "a taken name": (
        {**OWN, "signals": {"error_rate": {"events": "x"}}},
        r"signals: error_rate must be custom:NAME or count:NAME",
    ),
    "a share of seconds": (
        {**OWN, "signals": {"custom:x": {"events": "x", "exposure": "seconds"}}},
        r"custom:x: exposure: seconds is for count:NAME only",
    ),
    "a query in the URL": ({**OWN, "url": f"{URL}/?token=x"}, r"prom\.url: a URL of an API has no query"),
    "a password in the URL": ({**OWN, "url": "http://ann:s3cret@host"}, r"must not hold credentials"),
    "a written secret": (
        {**OWN, "basic_auth": {"username": "ann", "password": "s3cret"}},
        r"basic_auth\.password: unknown key; known are",
    ),
    "no secret": ({**OWN, "authorization": {}}, r"credentials_file or credentials_env, one of both"),
    "two identities": (
        {
            **OWN,
            "basic_auth": {"username": "a", "password_file": "f"},
            "authorization": {"credentials_file": "f"},
        },
        r"sources\.prom: basic_auth and authorization exclude each other",
    ),
    "unverified TLS": (
        {**OWN, "tls_config": {"insecure_skip_verify": True}},
        r"insecure_skip_verify: .*False",
    ),
    "half a certificate": ({**OWN, "tls_config": {"cert_file": "f"}}, r"cert_file and key_file go together"),
}


@pytest.mark.parametrize("settings, words", BROKEN.values(), ids=BROKEN)
def test_a_broken_setting_is_named_with_its_rule(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(**settings)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
