"""Service, Envoy and load as processes: the rate is held and three records of it agree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sentra.embedded.demo.behaviour import Fault
from sentra.embedded.demo.control import ServiceVersion, load_child
from sentra.embedded.demo.request_log import Request, read_requests, summarise
from sentra.embedded.envoy import EnvoyProxy
from sentra.embedded.ports import free_ports
from sentra.embedded.processes import Child
from tests.sentra.embedded.waiting import eventually

pytestmark = pytest.mark.server


class World:
    """A service behind Envoy, under load."""

    def __init__(self, directory: Path) -> None:
        listen, admin, port = free_ports(3)
        self.directory = directory
        self.service = ServiceVersion("v1", port, directory, seed=1)
        self.envoy = EnvoyProxy(directory, listen, admin, {"v1": port})
        self.load: Child | None = None

    def start_load(self, rps: float) -> Child:
        self.load = load_child(self.envoy.url, rps, self.directory)
        self.load.start()
        return self.load

    def requests(self) -> list[Request]:
        path = self.directory / "requests.jsonl"
        return list(read_requests(path)) if path.exists() else []

    def access_log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.envoy.access_log_path.read_text().splitlines()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    try:
        world.service.start()
        world.envoy.start()
        await world.service.wait_until_ready()
        await world.envoy.wait_until_ready()
        yield world
    finally:
        if world.load is not None:
            await world.load.stop()
        await world.envoy.stop()
        await world.service.stop()


@pytest.mark.parametrize("rps", [200, 600])
async def test_the_rate_is_held_and_the_records_agree(world: World, rps: int) -> None:
    load = world.start_load(rps)
    await eventually(lambda: len(world.requests()) >= 2 * rps)
    await load.stop()
    total = summarise(world.requests())
    assert load.exit_code == 0
    assert json.loads(load.last_log_lines()[0])["requests"] == total.requests
    assert total.failed == 0
    assert total.rps == pytest.approx(rps, rel=0.001)
    assert total.by_version == {"v1": total.requests}
    await world.envoy.stop()
    await world.service.stop()
    assert len(world.access_log()) == total.requests
    assert len(world.service.service_log_path.read_text().splitlines()) == 3 * total.requests


async def test_an_injected_error_ratio_reaches_the_users(world: World) -> None:
    await world.service.inject(Fault(error_ratio=0.2))
    load = world.start_load(300)
    await eventually(lambda: len(world.requests()) >= 600)
    await load.stop()
    rows = world.requests()
    assert {row.status for row in rows} == {200, 500}
    # 600 draws at 20 %: one sigma is 1.6 points, so this leaves more than four.
    assert summarise(rows).failed / len(rows) == pytest.approx(0.2, abs=0.07)


async def test_a_killed_service_shows_as_failures_of_its_version(world: World) -> None:
    world.start_load(100)
    await eventually(lambda: len(world.requests()) >= 20)
    world.service.kill()
    await eventually(lambda: sum(row.status == 503 for row in world.requests()) >= 20)
    assert {row.version for row in world.requests()} == {"v1"}
