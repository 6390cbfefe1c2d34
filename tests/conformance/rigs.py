"""What the conformance suite runs on: one rig per adapter, each with a pristine target."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from actuators.base import Binding, TrafficAdapter
from actuators.checks import Skipped
from actuators.envoy import EnvoyAdapter
from actuators.envoy_routes import parse_version, strangers
from actuators.memory import MemoryAdapter, Platform
from domain.units import FULL_BP
from sentra.embedded.envoy import EnvoyProxy
from sentra.embedded.ports import free_ports

BINDING = Binding(service="demo", stable="v1", canary="v2", environment="test")


class MemoryRig:
    """The platform in memory."""

    name = "memory"

    def __init__(self) -> None:
        self.binding = BINDING
        self.platform = Platform({"v1": FULL_BP}, versions={"v1", "v2"})
        self.platform.stored = replace(self.platform.stored, strangers='{"timeouts": [1, 2.50]}')

    def open(self, binding: Binding | None = None) -> TrafficAdapter:
        return MemoryAdapter(binding or self.binding, self.platform)

    async def writes(self) -> int:
        return self.platform.writes

    async def edit(self, canary_bp: int) -> None:
        self.platform.edit({"v1": FULL_BP - canary_bp, "v2": canary_bp})

    async def strangers(self) -> bytes:
        return self.platform.stored.strangers.encode()

    async def splits(self) -> list[int]:
        return [state.weights.get("v2", 0) for state in self.platform.states]

    async def lose_answer(self) -> None:
        self.platform.faults.lose_answers = 1

    async def delay(self, seconds: float) -> None:
        self.platform.faults.propagation_s = seconds

    async def retire_canary(self) -> None:
        self.platform.versions = {"v1"}


class EnvoyRig:
    """A real Envoy with two clusters (nothing has to listen there) and others' routes beside ours."""

    name = "envoy"

    def __init__(self, proxy: EnvoyProxy) -> None:
        self._proxy = proxy
        target = {"rds": str(proxy.routes_path), "admin": proxy.admin_url}
        self.binding = Binding(service="demo", stable="v1", canary="v2", environment="test", target=target)
        self._seen = [0]

    def open(self, binding: Binding | None = None) -> TrafficAdapter:
        return EnvoyAdapter(binding or self.binding)

    async def writes(self) -> int:
        """The sequence number counts the writes of one epoch; no check changes the epoch in between."""
        return sum(parse_version(self._document()["version_info"]))

    async def edit(self, canary_bp: int) -> None:
        document = self._document()
        for route in document["resources"][0]["virtual_hosts"][0]["routes"]:
            if clusters := route.get("route", {}).get("weighted_clusters", {}).get("clusters"):
                for entry in clusters:
                    entry["weight"] = canary_bp if entry["name"] == "demo_v2" else FULL_BP - canary_bp
        _put(self._proxy.routes_path, document)

    async def strangers(self) -> bytes:
        return json.dumps(strangers(self._document())).encode()

    async def splits(self) -> list[int]:
        raise Skipped("nobody records every state of the file; test_envoy.py counts requests instead")

    async def lose_answer(self) -> None:
        raise Skipped("a file has no answer that could be lost")

    async def delay(self, seconds: float) -> None:
        raise Skipped("Envoy takes a file up in milliseconds; there is nothing to delay")

    async def retire_canary(self) -> None:
        raise Skipped("an Envoy with static clusters does not lose one while it runs")

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._proxy.routes_path.read_text())
        return document


@asynccontextmanager
async def running_envoy(folder: Path, upstreams: dict[str, int] | None = None) -> AsyncIterator[EnvoyProxy]:
    """An Envoy with v1 as stable and v2 as canary."""
    listen, admin, one, two = free_ports(4)
    proxy = EnvoyProxy(folder, listen, admin, upstreams or {"v1": one, "v2": two})
    proxy.start()
    try:
        await proxy.wait_until_ready()
        yield proxy
    finally:
        await proxy.stop()


def add_strangers(path: Path) -> None:
    """Routes and fields that another team keeps in the same file."""
    document = json.loads(path.read_text())
    host = document["resources"][0]["virtual_hosts"][0]
    health = {"name": "health", "match": {"path": "/healthz"}, "direct_response": {"status": 204}}
    host["routes"].insert(0, health)
    host["response_headers_to_add"] = [{"header": {"key": "x-team", "value": "café"}}]
    weighted = host["routes"][1]["route"]["weighted_clusters"]["clusters"]
    weighted[0]["request_headers_to_add"] = [{"header": {"key": "x-arm", "value": "stable"}}]
    document["resources"][0]["metadata"] = {"filter_metadata": {"shop": {"cost": 1.25}}}
    _put(path, document)


def _put(path: Path, document: dict[str, Any]) -> None:
    beside = path.with_name(".edited")
    beside.write_text(json.dumps(document))
    os.replace(beside, path)
