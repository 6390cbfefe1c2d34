"""The real Envoy: all to stable at first, then whatever a renamed routes file says, and it says which."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import ConfigError
from sentra.embedded.envoy import EnvoyProxy, write_initial_routes
from sentra.embedded.envoy_config import LATENCY_BUCKETS_MS, VERSION_HEADER, initial_routes
from sentra.embedded.ports import free_port, free_ports, is_free
from tests.sentra.embedded.waiting import eventually, listening, reply_to_each

pytestmark = pytest.mark.server


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
async def envoy(tmp_path: Path) -> AsyncIterator[EnvoyProxy]:
    """In front of a stable v1 that answers and a canary v2 that is dead."""
    listen, admin, stable, dead = free_ports(4)
    proxy = EnvoyProxy(tmp_path / "envoy", listen, admin, {"v1": stable, "v2": f"127.0.0.1:{dead}"})
    async with listening(partial(reply_to_each, reply=OK), stable):
        proxy.start()
        try:
            await proxy.wait_until_ready()
            yield proxy
        finally:
            await proxy.stop()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        yield client


def routes(proxy: EnvoyProxy, canary: str, weight: int, version: str) -> dict[str, Any]:
    content = initial_routes(proxy.cluster("v1"), canary)
    content["version_info"] = version
    route = content["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]
    stable, moved = route["weighted_clusters"]["clusters"]
    stable["weight"], moved["weight"] = 10_000 - weight, weight
    return content


def rename_into_place(proxy: EnvoyProxy, content: dict[str, Any]) -> None:
    beside = proxy.routes_path.with_suffix(".next")
    beside.write_text(json.dumps(content))
    os.replace(beside, proxy.routes_path)


async def answers(client: httpx.AsyncClient, url: str, count: int) -> Counter[tuple[int, str]]:
    got = [await client.get(url) for _ in range(count)]
    return Counter((answer.status_code, answer.headers[VERSION_HEADER]) for answer in got)


async def stat(client: httpx.AsyncClient, proxy: EnvoyProxy, name: str) -> int:
    text = (await client.get(f"{proxy.admin_url}/stats", params={"filter": f"^{name}$"})).text
    return int(text.rpartition(": ")[2])


async def test_everything_goes_to_stable_at_first(envoy: EnvoyProxy, client: httpx.AsyncClient) -> None:
    assert await envoy.routes_version() == "0.0"
    assert await answers(client, envoy.url, 100) == {(200, "v1"): 100}


async def test_a_renamed_file_moves_traffic_and_reads_back(
    envoy: EnvoyProxy, client: httpx.AsyncClient
) -> None:
    rename_into_place(envoy, routes(envoy, "demo_v2", 5_000, "1.1"))

    async def is_in_force() -> bool:
        return await envoy.routes_version() == "1.1"

    await eventually(is_in_force)
    split = await answers(client, envoy.url, 200)
    # The dead canary is named although it answers nothing itself. 6 sigma of a fair coin over 200 are 42.
    assert set(split) == {(200, "v1"), (503, "v2")}
    assert abs(split[503, "v2"] - 100) < 43


async def test_routes_to_an_unknown_cluster_are_refused_and_the_old_ones_stay(
    envoy: EnvoyProxy, client: httpx.AsyncClient
) -> None:
    rename_into_place(envoy, routes(envoy, "demo_v9", 5_000, "1.1"))

    async def is_refused() -> bool:
        return await stat(client, envoy, "http.ingress.rds.sentra.update_rejected") == 1

    await eventually(is_refused)
    assert await envoy.routes_version() == "0.0"
    assert await answers(client, envoy.url, 20) == {(200, "v1"): 20}


async def test_the_limits_of_the_default_policy_are_bucket_edges(
    envoy: EnvoyProxy, client: httpx.AsyncClient
) -> None:
    await answers(client, envoy.url, 1)
    edges: list[str] = []

    async def has_a_histogram() -> bool:
        page = await client.get(f"{envoy.admin_url}/stats/prometheus?usedonly")
        lines = [
            line for line in page.text.splitlines() if line.startswith("envoy_cluster_upstream_rq_time_b")
        ]
        edges[:] = [line.partition('le="')[2].partition('"')[0] for line in lines]
        return bool(edges)

    await eventually(has_a_histogram)
    assert edges == [*map(str, LATENCY_BUCKETS_MS), "+Inf"]
    assert {400, 800} <= set(LATENCY_BUCKETS_MS)


async def test_each_request_is_in_the_access_log(envoy: EnvoyProxy, client: httpx.AsyncClient) -> None:
    await answers(client, envoy.url, 3)
    rename_into_place(envoy, routes(envoy, "demo_v2", 10_000, "1.1"))

    async def is_dead() -> bool:
        return (await client.get(envoy.url)).status_code == 503

    await eventually(is_dead)
    rows: list[dict[str, Any]] = []

    def has_both() -> bool:
        rows[:] = [json.loads(line) for line in envoy.access_log_path.read_text().splitlines()]
        return any(row["response_code"] == 503 for row in rows)

    await eventually(has_both)
    assert set(rows[0]) == {"start_time", "response_code", "flags", "cluster", "duration", "details"}
    assert (rows[0]["response_code"], rows[0]["flags"], rows[0]["cluster"]) == (200, "-", "demo_v1")
    assert (rows[-1]["flags"], rows[-1]["cluster"]) == ("UF", "demo_v2")


async def test_a_restart_keeps_the_split_when_asked(envoy: EnvoyProxy, client: httpx.AsyncClient) -> None:
    rename_into_place(envoy, routes(envoy, "demo_v2", 10_000, "3.7"))
    await envoy.stop()
    assert is_free(envoy.listen_port)
    envoy.start(keep_routes=True)
    await envoy.wait_until_ready()
    assert await envoy.routes_version() == "3.7"
    await envoy.stop()
    envoy.start()
    await envoy.wait_until_ready()
    assert await envoy.routes_version() == "0.0"


async def test_a_second_envoy_on_the_port_is_refused(envoy: EnvoyProxy, tmp_path: Path) -> None:
    second = EnvoyProxy(tmp_path / "second", envoy.listen_port, free_port(), {"v1": free_port()})
    with pytest.raises(ConfigError, match=rf"port {envoy.listen_port} .* the proxy .* is in use"):
        second.start()


async def test_an_older_envoy_does_not_answer_for_a_new_one(
    envoy: EnvoyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentra.embedded.envoy.require_free", lambda port, what: None)
    second = EnvoyProxy(tmp_path / "second", envoy.listen_port, envoy.admin_port, {"v1": free_port()})
    second.start()
    try:
        with pytest.raises(ConfigError, match=r"the proxy \(Envoy\) .*Address already in use"):
            await second.wait_until_ready()
    finally:
        await second.stop()


def test_the_first_routes_are_put_in_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "routes" / "routes.json"
    write_initial_routes(path, "demo_v1", "demo_v2")
    assert json.loads(path.read_text()) == initial_routes("demo_v1", "demo_v2")
    assert [left.name for left in path.parent.iterdir()] == ["routes.json"]
