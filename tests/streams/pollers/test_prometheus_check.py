"""What is found out before a rollout starts."""

from __future__ import annotations

from domain.signal import Channel
from streams.pollers.base import Target, target_of
from streams.pollers.prometheus_check import Finding, Severity, check
from tests.streams.pollers.prometheus_api import Reply, failure, vector
from tests.streams.pollers.rollouts import gate, spec
from tests.streams.pollers.test_prometheus import NOON, TARGET, Asking, asking


async def found(it: Asking, target: Target = TARGET) -> list[Finding]:
    return await check(it.source, target, 5.0, NOON + 5)


def texts(findings: list[Finding], severity: Severity) -> list[str]:
    return [f"{each.subject}: {each.text}" for each in findings if each.severity is severity]


async def test_a_good_source_is_fine_but_for_limits_that_are_no_edges() -> None:
    async with asking() as it:
        for at in (NOON - 1, NOON + 4):
            it.pod("v1", 100, at=at)
            it.pod("v2", 100, at=at)
        findings = await found(it)
    assert texts(findings, Severity.FAULT) == []
    assert len(texts(findings, Severity.FINE)) == 4
    assert "error_rate of canary (v2): 1 series, the newest sample is 1.0 s old" in texts(
        findings, Severity.FINE
    )
    assert texts(findings, Severity.WARNING) == [
        "latency_ms: 400 ms is no bucket edge; next to it are 250 and 500 ms",
        "latency_ms: 800 ms is no bucket edge; next to it are 500 and 1000 ms",
    ]


async def test_scrapes_rarer_than_ticks_are_a_warning() -> None:
    async with asking(latency="") as it:
        for at in (NOON - 10, NOON + 5):
            it.pod("v1", 100, at=at)
            it.pod("v2", 100, at=at)
        findings = await found(it)
    assert (
        "error_rate of canary (v2): it is scraped every 15s: most ticks of 5s will have no data; "
        "set the policy's interval to 15s or more" in texts(findings, Severity.WARNING)
    )


async def test_a_missing_version_and_old_samples_are_faults() -> None:
    async with asking(latency="") as it:
        it.pod("v1", 100, at=NOON - 70)
        findings = await found(it)
    assert texts(findings, Severity.FAULT) == [
        "latency_ms: the source is not set up to give it",
        "error_rate of stable (v1): its newest sample is 75 s old",
        "error_rate of canary (v2): no series of its total has version='v2'",
    ]


async def test_labels_that_series_lack_are_named() -> None:
    async with asking(latency="") as it:
        it.server.script = lambda question: (
            vector([({}, (NOON, "12"))]) if question.query.startswith("count(") else None
        )
        findings = await found(it)
    assert "prom: 12 of 12 series of hits have no label app" in texts(findings, Severity.FAULT)


async def test_a_metric_that_does_not_exist_is_named() -> None:
    async with asking(latency="") as it:
        it.server.script = lambda question: vector([]) if question.query.startswith("count(") else None
        findings = await found(it)
    assert "prom: there is no series of hits" in texts(findings, Severity.FAULT)


async def test_a_server_that_does_not_answer_is_a_finding() -> None:
    def script(_: object) -> Reply:
        return failure(503, "timeout", "slow")

    async with asking() as it:
        it.server.script = script
        findings = await found(it)
    assert texts(findings, Severity.FAULT) == ["prom: answered status 503: slow"]


async def test_a_wrong_selector_of_ones_own_is_found() -> None:
    signals = {"custom:x": {"events": 'wrong{zone="a"}', "exposure": "requests"}}
    async with asking(signals=signals, latency="") as it:
        it.server.script = lambda question: (
            failure(400, "bad_data", "no such thing") if "wrong" in question.query else None
        )
        target = target_of(spec(gates=(gate("custom:x"),)), Channel.METRICS)
        findings = await found(it, target)
    assert "custom:x: answered status 400: no such thing" in texts(findings, Severity.FAULT)
