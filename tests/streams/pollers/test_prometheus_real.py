"""The source against a real Prometheus that scrapes small exporters: what was sent is what was counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.clock import SystemClock, tick_floor
from domain.signal import Arm, Channel, Quality, Sample
from streams.pollers.base import Fetched, Target, target_of
from streams.pollers.prometheus import PrometheusSource
from streams.pollers.prometheus_settings import PrometheusSettings
from tests.prometheus_server import Prometheus, running_prometheus
from tests.streams.pollers.pages import PageServer, page, serving
from tests.streams.pollers.rollouts import spec

pytestmark = [pytest.mark.server, pytest.mark.slow]

CLOCK = SystemClock()
TARGET = target_of(spec(), Channel.METRICS)
SETTINGS = {
    "kind": "prometheus",
    "requests": "http_requests_total",
    "error_label": "code",
    "error_values": "5..",
    "latency": "http_seconds",
    "service_label": "app",
}
EDGES = ("0.1", "0.25", "0.5", "1", "2.5")


class Pod:
    """A process that counts requests and shows what it has counted."""

    def __init__(self, server: PageServer) -> None:
        self.server = server
        self.restart()

    def restart(self) -> None:
        """Begin anew: counters that were not used yet are not shown, as client libraries do it."""
        self.codes: Counter[str] = Counter()
        self.slow = 0
        self._show()

    def serve(self, good: int, bad: int = 0, slow: int = 0) -> None:
        """Count requests; ``slow`` of them took 2 s, all others 0.2 s."""
        self.codes.update({"200": good, "503": bad})
        self.slow += slow
        self._show()

    @property
    def total(self) -> int:
        return self.codes.total()

    def _show(self) -> None:
        lines = ["# TYPE http_requests_total counter"]
        lines += [
            f'http_requests_total{{code="{code}"}} {count}' for code, count in self.codes.items() if count
        ]
        lines.append("# TYPE http_seconds histogram")
        fast = self.total - self.slow
        counts = (0, fast, fast, fast, self.total)
        lines += [f'http_seconds_bucket{{le="{e}"}} {n}' for e, n in zip(EDGES, counts, strict=True)]
        lines += [f'http_seconds_bucket{{le="+Inf"}} {self.total}', f"http_seconds_count {self.total}"]
        self.server.answer = page("\n".join(lines) + "\n", media="text/plain; version=0.0.4")


class World:
    """Pods of both versions, a Prometheus that scrapes them, a source that asks it, and all it has said."""

    def __init__(
        self, prometheus: Prometheus, stable: Pod, canary: Pod, source: PrometheusSource, interval_s: float
    ) -> None:
        self.prometheus = prometheus
        self.stable, self.canary = stable, canary
        self.source = source
        self.interval_s = interval_s
        self.fetched: list[Fetched] = []
        self.end = tick_floor(CLOCK.now(), interval_s)

    async def tick(self, targets: Sequence[Target] = (TARGET,)) -> Fetched:
        """Wait for the end of the next tick and fetch it."""
        self.end += self.interval_s
        await asyncio.sleep(max(0.0, self.end - CLOCK.now()))
        self.fetched.append(await self.source.fetch(targets, self.end, self.interval_s))
        return self.fetched[-1]

    async def until_scraped(self, pod: Pod) -> None:
        """Tick until Prometheus has seen all that a pod has counted."""
        for _ in range(60):
            await self.tick()
            address = pod.server.url.removeprefix("http://")
            seen = await self.prometheus.ask(f'sum(http_requests_total{{instance="{address}"}})')
            if seen and float(seen[0]["value"][1]) == pod.total:
                return
        pytest.fail("Prometheus never saw it")

    def samples(self, signal: str, arm: Arm) -> list[Sample]:
        return [
            each
            for fetched in self.fetched
            for each in fetched.samples
            if (each.signal, each.arm) == (signal, arm)
        ]


@asynccontextmanager
async def world(
    folder: Path, *, interval_s: float = 1.0, scrape: str = "1s", **options: Any
) -> AsyncIterator[World]:
    async with serving(page(""), page("")) as (stable, canary):
        pods = Pod(stable), Pod(canary)
        labels = {
            each.url.removeprefix("http://"): {"app": "checkout", "version": version}
            for each, version in ((stable, "v1"), (canary, "v2"))
        }
        async with running_prometheus(folder, labels, scrape_interval=scrape) as prometheus:
            settings = PrometheusSettings.read("prom", {**SETTINGS, "url": prometheus.url, **options})
            source = PrometheusSource("prom", settings, CLOCK)
            while len(await prometheus.ask("up == 1")) < len(labels):
                await asyncio.sleep(0.05)
            try:
                yield World(prometheus, *pods, source, interval_s)
            finally:
                await source.close()


async def test_a_thousand_requests_and_37_failures_are_counted_though_the_pod_restarts(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as all_:
        all_.stable.serve(500)
        await all_.until_scraped(all_.stable)
        await all_.tick()
        before = sum(each.exposure for each in all_.samples("error_rate", Arm.STABLE))
        # The first failure comes after some ticks: its counter appears with a value, and all of that counts.
        for good, bad in ((100, 0), (163, 0), (200, 20)):
            all_.canary.serve(good, bad, slow=bad)
            all_.stable.serve(10)
            await all_.tick()
        await all_.until_scraped(all_.canary)
        all_.canary.restart()
        for good, bad in ((250, 2), (250, 15)):
            all_.canary.serve(good, bad, slow=bad)
            await all_.tick()
        await all_.until_scraped(all_.canary)
        await all_.until_scraped(all_.stable)
        await all_.tick()

        canary = all_.samples("error_rate", Arm.CANARY)
        assert sum(each.exposure for each in canary) == 1000
        assert sum(each.events for each in canary) == 37
        assert [bool(each.quality & Quality.RESET) for each in canary].count(True) == 1
        stable = all_.samples("error_rate", Arm.STABLE)
        assert (sum(each.exposure for each in stable) - before, sum(each.events for each in stable)) == (
            30,
            0,
        )
        latency = all_.samples("latency_ms", Arm.CANARY)
        # The limits are 400 and 800 ms: only the edges on both sides of them were asked for.
        assert {each.edges for each in latency} == {(250.0, 500.0, 1000.0)}
        assert sum(each.exposure for each in latency) == 1000
        assert sum(each.counts[1] for each in latency) == 1000 - 37
        for each in (*canary, *stable, *latency):
            assert each.start < each.end
            assert (each.end - each.start) % all_.interval_s == 0
            assert 0 <= each.age_s < 5


async def test_ticks_between_scrapes_say_nothing_and_the_next_one_spans_them(tmp_path: Path) -> None:
    async with world(tmp_path, scrape="3s") as all_:
        all_.canary.serve(50)
        await all_.until_scraped(all_.canary)
        before = sum(each.exposure for each in all_.samples("error_rate", Arm.CANARY))
        for _ in range(9):
            all_.canary.serve(7)
            await all_.tick()
        await all_.until_scraped(all_.canary)
        samples = all_.samples("error_rate", Arm.CANARY)
        assert sum(each.exposure for each in samples) - before == 63
        ends = [each.end for each in samples]
        assert len(set(ends)) == len(ends) < len(all_.fetched)
        assert all(each.quality & Quality.SPANS for each in samples if not each.quality & Quality.FIRST)
        silent = [each.problems["r-1"] for each in all_.fetched if "r-1" in each.problems]
        assert any("of scrapes every 3 s" in problem for problem in silent), silent


async def test_a_metric_that_is_renamed_is_missing_and_not_zero(tmp_path: Path) -> None:
    async with world(tmp_path, requests="http_requests_sum", latency="") as all_:
        all_.canary.serve(10)
        await all_.tick()
        fetched = await all_.tick()
    assert fetched.samples == []
    assert fetched.problems == {"r-1": "no series of http_requests_sum has app='checkout'"}
