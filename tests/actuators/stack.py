"""A real Envoy in front of real services, with or without users, for tests of what requests experience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx

from actuators.base import Binding, Served
from actuators.envoy import EnvoyAdapter
from sentra.embedded.demo.control import ServiceVersion, load_child
from sentra.embedded.demo.request_log import Request, read_requests
from sentra.embedded.envoy import EnvoyProxy
from sentra.embedded.ports import free_ports


@dataclass
class Stack:
    """What runs. ``dead`` is a cluster where nobody listens."""

    proxy: EnvoyProxy
    folder: Path

    @property
    def binding(self) -> Binding:
        target = {"rds": str(self.proxy.routes_path), "admin": self.proxy.admin_url}
        return Binding(service="demo", stable="v1", canary="v2", target=target)

    @asynccontextmanager
    async def adapter(self) -> AsyncIterator[EnvoyAdapter]:
        opened = EnvoyAdapter(self.binding)
        try:
            yield opened
        finally:
            await opened.aclose()

    @asynccontextmanager
    async def users(self, rps: float) -> AsyncIterator[None]:
        """Requests at a fixed rate, whatever the answers; on return all of them have been written down."""
        load = load_child(self.proxy.url, rps, self.folder)
        load.start()
        try:
            yield
        finally:
            await load.stop(10.0)

    def requests(self) -> list[Request]:
        """What the users saw, in the order in which requests were due."""
        return sorted(read_requests(self.folder / "requests.jsonl"))

    async def ask(self, **headers: str) -> str:
        """The version that answers one request."""
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            answer = await client.get(self.proxy.url, headers=headers)
        return str(answer.headers.get("x-sentra-version", ""))


@asynccontextmanager
async def running_stack(folder: Path) -> AsyncIterator[Stack]:
    """v1 and v2 behind Envoy, all traffic on v1."""
    listen, admin, one, two, dead = free_ports(5)
    async with AsyncExitStack() as running:
        for version, port in (("v1", one), ("v2", two)):
            service = ServiceVersion(version, port, folder)
            service.start()
            running.push_async_callback(service.stop)
            await service.wait_until_ready()
        proxy = EnvoyProxy(folder, listen, admin, {"v1": one, "v2": two, "dead": dead})
        proxy.start()
        running.push_async_callback(proxy.stop)
        await proxy.wait_until_ready()
        yield Stack(proxy, folder)


async def until_served(adapter: EnvoyAdapter, requests: int, within_s: float = 30.0) -> Served:
    """Wait until so many more requests have been completed; the growth per version."""
    first = await _served(adapter)
    deadline = monotonic() + within_s
    while monotonic() < deadline:
        now = await _served(adapter)
        grown = Served(stable=now.stable - first.stable, canary=now.canary - first.canary)
        if grown.stable + grown.canary >= requests:
            return grown
        await asyncio.sleep(0.05)
    raise AssertionError(f"fewer than {requests} requests were completed within {within_s:g} s")


async def _served(adapter: EnvoyAdapter) -> Served:
    served = (await adapter.observe()).served
    assert served is not None
    return served
