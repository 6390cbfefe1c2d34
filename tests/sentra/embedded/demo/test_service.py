"""The demo service as a process: answers, logs, takes faults, and refuses them from users."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import ConfigError
from sentra.embedded.demo.behaviour import HEALTHY, Fault
from sentra.embedded.demo.control import ServiceVersion, put_fault, read_status
from sentra.embedded.ports import HOST, free_port
from tests.sentra.embedded.waiting import eventually

pytestmark = pytest.mark.server


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceVersion]:
    service = ServiceVersion("v2", free_port(), tmp_path, seed=7)
    service.start()
    try:
        await service.wait_until_ready()
        yield service
    finally:
        await service.stop()


@pytest.fixture
async def client(service: ServiceVersion) -> AsyncIterator[httpx.AsyncClient]:
    base = f"http://{HOST}:{service.port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=10.0) as client:
        yield client


def log_lines(service: ServiceVersion) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.service_log_path.read_text().splitlines()]


async def test_it_answers_with_its_version(client: httpx.AsyncClient) -> None:
    answer = await client.get("/checkout")
    assert (answer.status_code, answer.headers["x-version"], answer.json()) == (200, "v2", {"ok": True})


async def test_an_error_ratio_shows_in_answers_and_in_the_log(
    service: ServiceVersion, client: httpx.AsyncClient
) -> None:
    assert {(await client.get("/")).status_code for _ in range(10)} == {200}
    await service.inject(Fault(error_ratio=1.0))
    assert {(await client.get("/")).status_code for _ in range(5)} == {500}
    await service.inject(HEALTHY)
    assert {(await client.get("/")).status_code for _ in range(10)} == {200}
    await service.stop()
    lines = log_lines(service)
    assert len(lines) == 3 * 25
    assert [line["msg"] for line in lines if line["level"] == "error"] == ["answered 500"] * 5
    assert {line["version"] for line in lines} == {"v2"}
    assert [line["ts"] for line in lines] == sorted(line["ts"] for line in lines)


async def test_the_log_can_be_read_while_it_runs(service: ServiceVersion, client: httpx.AsyncClient) -> None:
    await client.get("/")
    await eventually(lambda: len(log_lines(service)) == 3)


async def test_the_fault_in_force_can_be_read(service: ServiceVersion) -> None:
    await service.inject(Fault(latency_p95_ms=900.0, log_error_ratio=0.02))
    status = await read_status(service.port)
    assert status is not None
    assert (status.version, status.fault) == ("v2", Fault(latency_p95_ms=900.0, log_error_ratio=0.02))


async def test_an_impossible_fault_is_refused_and_the_old_one_stays(
    service: ServiceVersion, client: httpx.AsyncClient
) -> None:
    answer = await client.put("/__fault", json={"error_ratio": 8})
    assert answer.status_code == 400
    assert "error_ratio" in answer.json()["error"]
    status = await read_status(service.port)
    assert status is not None
    assert status.fault == HEALTHY


async def test_who_comes_through_the_proxy_cannot_inject_faults(client: httpx.AsyncClient) -> None:
    answer = await client.put("/__fault", json={"error_ratio": 1}, headers={"x-forwarded-proto": "http"})
    assert answer.status_code == 404
    assert (await client.get("/")).status_code == 200


async def test_it_can_be_killed_and_come_back_on_its_port_with_a_fault(service: ServiceVersion) -> None:
    service.kill()
    assert await read_status(service.port) is None
    with pytest.raises(ConfigError, match="took no fault"):
        await put_fault(service.port, HEALTHY)
    service.start(Fault(error_ratio=0.5))
    await service.wait_until_ready()
    status = await read_status(service.port)
    assert status is not None
    assert status.fault.error_ratio == 0.5


async def test_a_second_one_on_the_port_is_refused(service: ServiceVersion, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"port {service.port} .* demo service v3 needs"):
        ServiceVersion("v3", service.port, tmp_path).start()
