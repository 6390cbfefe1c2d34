"""The Prometheus source: what is asked, what is counted of it, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from domain.clock import ManualClock
from domain.signal import Arm, Channel, Quality, Sample
from streams.pollers.base import Fetched, Target, target_of
from streams.pollers.prometheus import PrometheusSource
from streams.pollers.prometheus_settings import PrometheusSettings
from tests.streams.pollers.prometheus_api import ApiServer, api
from tests.streams.pollers.rollouts import gate, spec

NOON = 1_700_000_000.0
TARGET = target_of(spec(interval_s=5.0), Channel.METRICS)
OWN: dict[str, Any] = {
    "kind": "prometheus",
    "requests": "hits",
    "error_label": "code",
    "error_values": "5..",
    "latency": "seconds",
    "service_label": "app",
}


class Asking:
    """Asks a source tick by tick, by a clock that is moved."""

    def __init__(self, server: ApiServer, source: PrometheusSource, clock: ManualClock) -> None:
        self.server = server
        self.source = source
        self.clock = clock
        self.targets: Sequence[Target] = (TARGET,)
        self.interval_s = 5.0

    @property
    def now(self) -> float:
        return self.clock.now()

    async def tick(self, ticks: int = 1) -> Fetched:
        self.clock.advance(ticks * self.interval_s)
        return await self.source.fetch(self.targets, self.now, self.interval_s)

    def pod(
        self, version: str, good: float, bad: float = 0, *, at: float | None = None, **labels: str
    ) -> None:
        """A scrape of a pod: half a second ago unless ``at`` says when; all but the failures were fast."""
        moment = self.now - 0.5 if at is None else at
        own = {"app": "checkout", "version": version, "instance": version, **labels}
        self.server.scrape(moment, "hits", good, code="200", **own)
        if bad:
            self.server.scrape(moment, "hits", bad, code="503", **own)
        for edge in ("0.25", "0.5", "1.0", "2.5", "+Inf"):
            self.server.scrape(
                moment, "seconds_bucket", good + (bad if edge in ("2.5", "+Inf") else 0), le=edge, **own
            )
        self.server.scrape(moment, "seconds_count", good + bad, **own)


@asynccontextmanager
async def asking(**options: Any) -> AsyncIterator[Asking]:
    clock = ManualClock(NOON)
    async with api() as server:
        settings = PrometheusSettings.read("prom", {**OWN, "url": server.url, **options})
        source = PrometheusSource("prom", settings, clock)
        try:
            yield Asking(server, source, clock)
        finally:
            await source.close()


def only(fetched: Fetched, signal: str, arm: Arm) -> Sample:
    [found] = [each for each in fetched.samples if (each.signal, each.arm) == (signal, arm)]
    return found


def numbers(sample: Sample) -> tuple[float, float]:
    return sample.events, sample.exposure


async def test_increments_of_both_arms_with_their_age_and_the_edges_that_are_needed() -> None:
    async with asking() as it:
        it.pod("v1", 100, at=NOON - 1)
        it.pod("v2", 10, at=NOON - 1)
        await it.source.fetch(it.targets, NOON, 5.0)
        it.pod("v1", 190, at=NOON + 4)
        it.pod("v2", 17, 3, at=NOON + 3.5)
        fetched = await it.tick()
    canary = only(fetched, "error_rate", Arm.CANARY)
    assert numbers(canary) == (3.0, 10.0)
    # Scraped at -1 and at 3.5: the increment begins in the tick before, and says so.
    assert (canary.start, canary.end) == (NOON - 5, NOON + 5)
    assert canary.quality == int(Quality.SPANS)
    assert canary.age_s == 1.5
    latency = only(fetched, "latency_ms", Arm.CANARY)
    assert (latency.edges, latency.counts) == ((250.0, 500.0, 1000.0), (7.0, 7.0, 7.0))
    assert latency.exposure == 10.0
    assert fetched.problems == {}


async def test_one_query_a_tick_brings_both_arms_and_all_signals() -> None:
    async with asking() as it:
        it.pod("v1", 100, at=NOON - 1)
        it.pod("v2", 10, at=NOON - 1)
        await it.tick()
        it.server.questions.clear()
        await it.tick()
        [question] = it.server.questions
    assert question.path == "/api/v1/query"
    assert question.query.startswith(
        '{__name__=~"hits|seconds_count|seconds_bucket|seconds",app=~"checkout",le=~"|0\\\\.25|0\\\\.5|1\\\\.0"}['
    )
    assert float(question.form["time"]) == NOON + 10


async def test_a_thousand_rollouts_take_four_queries_a_tick() -> None:
    async with asking(latency="") as it:
        it.targets = [
            target_of(spec(f"r-{number}", service=f"service-{number}"), Channel.METRICS)
            for number in range(1000)
        ]
        await it.tick()
        it.server.questions.clear()
        await it.tick()
        assert len(it.server.questions) == 4
        assert max(len(each.query) for each in it.server.questions) <= 12_000


async def test_a_tick_without_a_new_scrape_has_no_sample_and_a_problem_that_says_how_old() -> None:
    async with asking() as it:
        for at in (NOON - 14, NOON + 1):
            it.pod("v1", 100 + at - NOON, at=at)
            it.pod("v2", 100 + at - NOON, at=at)
        await it.tick()
        fetched = await it.tick()
        assert fetched.samples == []
        assert fetched.problems == {"r-1": "no new sample: the newest is 9.0 s old, of scrapes every 15 s"}
        it.pod("v2", 116, at=NOON + 16)
        fetched = await it.tick(2)
        canary = only(fetched, "error_rate", Arm.CANARY)
        assert numbers(canary) == (0.0, 15.0)
        assert (canary.start, canary.end) == (NOON, NOON + 20)
        assert canary.quality & Quality.SPANS


async def test_an_outage_is_made_up_for_by_one_sample_that_spans_it() -> None:
    async with asking() as it:
        it.pod("v2", 100, at=NOON + 4)
        await it.tick()
        for second in range(9, 60, 5):
            it.pod("v2", 100 + second, second // 10, at=NOON + second)
        fetched = await it.tick(11)
        canary = only(fetched, "error_rate", Arm.CANARY)
    assert numbers(canary) == (5.0, 64.0)
    assert (canary.start, canary.end) == (NOON, NOON + 60)


async def test_a_rollout_that_joins_gets_a_whole_first_tick() -> None:
    async with asking() as it:
        other = target_of(spec("r-2", service="cart"), Channel.METRICS)
        it.targets = [other]
        await it.tick()
        for at, good in ((NOON + 4, 100), (NOON + 9, 130)):
            it.pod("v1", good, at=at)
            it.pod("v2", good, at=at)
        it.targets = [other, TARGET]
        fetched = await it.tick()
        assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 30.0)


async def test_a_new_limit_brings_a_new_bucket_and_invents_nothing() -> None:
    async with asking() as it:
        for at in (NOON - 1, NOON + 4):
            it.pod("v2", 100_000 + at - NOON, at=at)
        await it.tick()
        gates = (gate("latency_ms", 2000.0, 2500.0, quantile=0.95),)
        it.targets = [target_of(spec(gates=gates), Channel.METRICS)]
        it.pod("v2", 100_009, at=NOON + 9)
        fetched = await it.tick()
        latency = only(fetched, "latency_ms", Arm.CANARY)
    assert (latency.edges, latency.counts, latency.exposure) == ((1000.0, 2500.0), (5.0, 5.0), 5.0)


async def test_a_version_that_is_not_there_is_said_with_those_that_are() -> None:
    async with asking() as it:
        it.pod("v7", 100, at=NOON + 1)
        fetched = await it.tick()
    assert fetched.samples == []
    assert fetched.problems == {"r-1": "no series of hits has version='v1' or 'v2'; seen were v7"}


async def test_a_signal_that_the_source_does_not_have_is_said() -> None:
    async with asking(latency="") as it:
        it.targets = [target_of(spec(gates=(gate("latency_ms", 400.0, 800.0, 0.95),)), Channel.METRICS)]
        assert (await it.tick()).problems == {"r-1": "it is not set up to give latency_ms"}


async def test_failures_without_a_total_are_no_data() -> None:
    async with asking(errors="faults", error_label="", error_values="", latency="") as it:
        for at in (NOON - 1, NOON + 4):
            it.server.scrape(at, "faults", at, app="checkout", version="v2", instance="a")
        fetched = await it.tick()
        assert [each for each in fetched.samples if each.arm is Arm.CANARY] == []


async def test_values_that_are_no_numbers_are_passed_over() -> None:
    async with asking() as it:
        it.pod("v2", 100, at=NOON - 1)
        it.pod("v2", float("nan"), at=NOON + 1)
        it.pod("v2", 107, at=NOON + 4)
        fetched = await it.tick()
        assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 7.0)
        it.pod("v2", float("nan"), at=NOON + 9)
        fetched = await it.tick()
    assert fetched.samples == []
    assert "no new sample" in fetched.problems["r-1"]


async def test_a_pair_of_servers_counts_once() -> None:
    async with asking(kind="thanos", dedup_labels=["replica"]) as it:
        for server, shift in (("a", 0.0), ("b", 1.5)):
            for at in (NOON - 3, NOON + 2):
                it.pod("v2", 100 + at + shift - NOON, at=at + shift, replica=server)
        fetched = await it.tick()
        assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 5.0)
        # One of the two is gone; nothing is lost or counted twice.
        it.pod("v2", 107, at=NOON + 7, replica="a")
        fetched = await it.tick()
        assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 3.5)
        question = it.server.questions[-1]
    assert question.form["dedup"] == "false"
    assert question.form["partial_response"] == "false"


async def test_native_histograms_are_counted_at_fixed_edges() -> None:
    def native(at: float, fast: int, slow: int) -> None:
        buckets = [[0, "0.25", "0.5", str(fast)], [0, "1", "2", str(slow)]]
        value = {"count": str(fast + slow), "sum": "1", "buckets": buckets}
        it.server.scrape(at, "seconds", value, app="checkout", version="v2", instance="a")

    async with asking() as it:
        it.server.scrape(NOON - 1, "hits", 100, code="200", app="checkout", version="v2", instance="a")
        native(NOON - 1, 100, 10)
        native(NOON + 4, 130, 12)
        fetched = await it.tick()
        latency = only(fetched, "latency_ms", Arm.CANARY)
    assert latency.exposure == 32.0
    assert (latency.edges, latency.counts) == ((250.0, 500.0, 1000.0), (0.0, 30.0, 30.0))


async def test_labels_are_lent_by_an_info_metric() -> None:
    async with asking(service_label="job", service="shop/{service}", info="target_info", latency="") as it:
        for instance, version in (("a", "v1"), ("b", "v2")):
            own = {"job": "shop/checkout", "instance": instance}
            it.server.scrape(NOON, "target_info", 1, version=version, **own)
            for at in (NOON - 1, NOON + 4):
                it.server.scrape(at, "hits", 100 + at - NOON, code="200", **own)
        fetched = await it.tick()
    assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (0.0, 5.0)
    assert numbers(only(fetched, "error_rate", Arm.STABLE)) == (0.0, 5.0)


async def test_a_version_that_is_present_and_shows_no_counter_had_no_requests() -> None:
    async with asking(presence="ready") as it:
        for at in (NOON - 1, NOON + 4):
            it.server.scrape(at, "ready", 1, app="checkout", version="v2", instance="v2")
        fetched = await it.tick()
        canary = only(fetched, "error_rate", Arm.CANARY)
        assert (numbers(canary), canary.quality & Quality.FIRST) == ((0.0, 0.0), 0)
        # Its first requests are counted as well: it was seen without them.
        it.server.scrape(NOON + 9, "ready", 1, app="checkout", version="v2", instance="v2")
        it.pod("v2", 40, 2, at=NOON + 9)
        fetched = await it.tick()
        assert numbers(only(fetched, "error_rate", Arm.CANARY)) == (2.0, 42.0)
        assert only(fetched, "latency_ms", Arm.CANARY).exposure == 42.0


async def test_replicas_are_counted_apart_when_a_label_tells_them_apart() -> None:
    async with asking(replicas="pod") as it:
        for at, count in ((NOON - 1, 10), (NOON + 4, 15)):
            for pod in ("p1", "p2"):
                it.pod("v2", count * int(pod[1]), at=at, instance=pod, pod=pod)
        fetched = await it.tick()
    rows = [each for each in fetched.samples if (each.signal, each.arm) == ("error_rate", Arm.CANARY)]
    assert {each.replica: each.exposure for each in rows} == {"p1": 5.0, "p2": 10.0}
    latencies = [each for each in fetched.samples if each.signal == "latency_ms"]
    assert {each.edges for each in latencies} == {(250.0, 500.0, 1000.0)}


async def test_signals_of_ones_own_are_shares_and_counts() -> None:
    signals = {
        "custom:fraud": {"events": "fraud", "exposure": 'checks{kind="card"}'},
        "custom:refused": {"events": "refused"},
        "count:gc": {"events": "gc", "exposure": "seconds"},
        "count:calls": {"events": "calls"},
    }
    gates = tuple(gate(name) for name in signals)
    async with asking(signals=signals) as it:
        it.targets = [target_of(spec(gates=gates), Channel.METRICS)]
        for at, step in ((NOON - 1, 0), (NOON + 4, 1)):
            it.pod("v2", 100 + 20 * step, at=at)
            own = {"app": "checkout", "version": "v2", "instance": "v2"}
            for name, each in (("fraud", 1), ("checks", 50), ("refused", 3), ("gc", 2), ("calls", 90)):
                it.server.scrape(
                    at, name, 1000 + each * step, **own, **({"kind": "card"} if name == "checks" else {})
                )
        fetched = await it.tick()
    assert numbers(only(fetched, "custom:fraud", Arm.CANARY)) == (1.0, 50.0)
    assert numbers(only(fetched, "custom:refused", Arm.CANARY)) == (3.0, 20.0)
    assert numbers(only(fetched, "count:gc", Arm.CANARY)) == (2.0, 5.0)
    assert numbers(only(fetched, "count:calls", Arm.CANARY)) == (90.0, 20.0)


async def test_events_wait_for_the_exposure_that_another_endpoint_brings() -> None:
    signals = {"custom:fraud": {"events": "fraud", "exposure": "checks"}}
    async with asking(signals=signals) as it:
        it.targets = [target_of(spec(gates=(gate("custom:fraud"),)), Channel.METRICS)]
        own = {"app": "checkout", "version": "v2"}
        for name, at in (("fraud", NOON - 1), ("checks", NOON - 4)):
            it.server.scrape(at, name, 0, instance=name, **own)
        await it.tick()
        it.server.scrape(NOON + 6, "fraud", 2, instance="fraud", **own)
        assert (await it.tick()).samples == []
        it.server.scrape(NOON + 11, "checks", 40, instance="checks", **own)
        fetched = await it.tick()
    sample = only(fetched, "custom:fraud", Arm.CANARY)
    assert numbers(sample) == (2.0, 40.0)
    assert sample.start == NOON - 5


async def test_an_endpoint_that_cannot_be_scraped_makes_its_arm_partial_and_one_that_left_does_not() -> None:
    async with asking() as it:
        for second in range(-6, 3, 5):
            for instance in ("p1", "p2", "p3"):
                it.pod("v2", 100 + second, at=NOON + second, instance=instance)
        await it.tick()
        # p2 does not answer any more; p3 was removed, and Prometheus has forgotten it.
        for second in range(4, 30, 5):
            it.pod("v2", 100 + second, at=NOON + second, instance="p1")
            it.server.scrape(NOON + second, "up", 0, instance="p2")
        fetched = await it.tick(5)
        canary = only(fetched, "error_rate", Arm.CANARY)
        assert canary.quality & Quality.PARTIAL
        it.server.series = {key: of for key, of in it.server.series.items() if ("__name__", "up") not in key}
        it.pod("v2", 140, at=NOON + 34)
        fetched = await it.tick()
        assert not only(fetched, "error_rate", Arm.CANARY).quality & Quality.PARTIAL


@pytest.mark.parametrize(
    "kind, form, headers",
    [
        ("prometheus", {}, {"x-scope-orgid": "team-a"}),
        ("victoriametrics", {"nocache": "1", "latency_offset": "1s"}, {"x-scope-orgid": "team-a"}),
        ("thanos", {"dedup": "false", "max_source_resolution": "0s"}, {"thanos-tenant": "team-a"}),
        ("mimir", {}, {"cache-control": "no-store", "x-scope-orgid": "team-a"}),
    ],
)
async def test_each_server_is_asked_so_that_its_answer_is_fresh_and_whole(
    kind: str, form: dict[str, str], headers: dict[str, str]
) -> None:
    async with asking(kind=kind, tenant="team-a", extra_params={"extra_label": "env=prod"}) as it:
        await it.tick()
        for question in it.server.questions:
            assert form.items() <= question.form.items()
            assert headers.items() <= question.headers.items()
            assert question.form["extra_label"] == "env=prod"
            assert question.form["timeout"] == "2500ms"
