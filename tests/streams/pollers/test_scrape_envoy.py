"""The Envoy preset against a real Envoy: exact counts, a dead canary, a restart."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.clock import SystemClock
from domain.signal import Arm, Channel, Quality, Sample
from sentra.embedded.envoy import EnvoyProxy
from sentra.embedded.envoy_config import initial_routes
from sentra.embedded.ports import free_ports
from streams.pollers.base import target_of
from streams.pollers.scrape import ScrapeSource
from streams.pollers.scrape_page import ScrapeSettings
from tests.sentra.embedded.waiting import eventually, listening, reply_to_each
from tests.streams.pollers.rollouts import spec

pytestmark = pytest.mark.server

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
TARGET = target_of(spec(service="demo"), Channel.METRICS)


@pytest.fixture
async def envoy(tmp_path: Path) -> AsyncIterator[EnvoyProxy]:
    """In front of a stable v1 that answers and a canary v2 that is dead."""
    listen, admin, stable, dead = free_ports(4)
    proxy = EnvoyProxy(tmp_path / "envoy", listen, admin, {"v1": stable, "v2": dead})
    async with listening(partial(reply_to_each, reply=OK), stable):
        proxy.start()
        try:
            await proxy.wait_until_ready()
            yield proxy
        finally:
            await proxy.stop()


class Scene:
    """A source on the proxy's admin page, and a client of the proxy."""

    def __init__(self, envoy: EnvoyProxy, client: httpx.AsyncClient) -> None:
        settings = {"kind": "scrape", "preset": "envoy", "targets": [envoy.admin_url], "timeout": "5s"}
        self.source = ScrapeSource("mesh", ScrapeSettings.read("mesh", settings), SystemClock())
        self.envoy = envoy
        self.client = client
        self.end = 1_700_000_000.0

    async def request(self, count: int) -> None:
        for _ in range(count):
            await self.client.get(self.envoy.url)

    async def tick(self) -> dict[tuple[str, Arm], Sample]:
        self.end += 60.0
        fetched = await self.source.fetch([TARGET], self.end, 60.0)
        assert fetched.problems == {}
        return {(each.signal, each.arm): each for each in fetched.samples}

    async def total(self, signal: str, arm: Arm, wanted: float) -> list[Sample]:
        """The samples until ``wanted`` is reached: Envoy shows what it counted a moment later."""
        seen: list[Sample] = []

        async def is_there() -> bool:
            seen.append((await self.tick())[signal, arm])
            return sum(each.exposure for each in seen) >= wanted

        await eventually(is_there)
        return seen

    async def send_all_to(self, cluster: str) -> None:
        content: dict[str, Any] = initial_routes(cluster, None)
        content["version_info"] = "1.1"
        beside = self.envoy.routes_path.with_suffix(".next")
        beside.write_text(json.dumps(content))
        os.replace(beside, self.envoy.routes_path)

        async def is_in_force() -> bool:
            return await self.envoy.routes_version() == "1.1"

        await eventually(is_in_force)


@pytest.fixture
async def scene(envoy: EnvoyProxy) -> AsyncIterator[Scene]:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        scene = Scene(envoy, client)
        try:
            yield scene
        finally:
            await scene.source.close()


async def test_every_request_is_counted_once_in_both_signals(scene: Scene) -> None:
    await scene.tick()
    await scene.request(37)
    requests = await scene.total("error_rate", Arm.STABLE, 37)
    assert sum(each.exposure for each in requests) == 37
    assert sum(each.events for each in requests) == 0
    await scene.request(5)
    latencies = await scene.total("latency_ms", Arm.STABLE, 5)
    assert latencies[-1].edges == (400.0, 800.0)
    assert all(each.counts[-1] <= each.exposure for each in latencies)


async def test_a_canary_that_no_request_reached_had_no_traffic(scene: Scene) -> None:
    await scene.request(3)
    await scene.tick()
    samples = await scene.tick()
    canary = samples["error_rate", Arm.CANARY]
    assert (canary.events, canary.exposure, canary.quality) == (0.0, 0.0, 0)
    assert samples["latency_ms", Arm.CANARY].exposure == 0.0


async def test_a_dead_canary_is_nothing_but_errors(scene: Scene) -> None:
    await scene.tick()
    await scene.send_all_to(scene.envoy.cluster("v2"))
    await scene.request(9)
    requests = await scene.total("error_rate", Arm.CANARY, 9)
    assert sum(each.exposure for each in requests) == 9
    assert sum(each.events for each in requests) == 9


async def test_a_restarted_envoy_counts_from_its_restart(scene: Scene) -> None:
    await scene.request(30)

    async def is_old() -> bool:
        page = await scene.client.get(f"{scene.envoy.admin_url}/stats?filter=server.uptime")
        return int(page.text.split(":")[1]) >= 2

    await eventually(is_old)  # Envoy tells its age in whole seconds
    await scene.tick()
    await scene.envoy.stop()
    scene.envoy.start()
    await scene.envoy.wait_until_ready()
    await scene.request(4)
    requests = await scene.total("error_rate", Arm.STABLE, 4)
    assert sum(each.exposure for each in requests) == 4
    assert [bool(each.quality & Quality.RESET) for each in requests].count(True) == 1
