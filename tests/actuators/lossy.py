"""An adapter that loses requests with each shift: the negative control of whoever counts failed shifts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from actuators import envoy_file
from actuators.base import Capabilities, Observed, Receipt, ShiftRequest, TrafficAdapter


class LossyAdapter:
    """Sends all traffic to a cluster where nobody listens for a moment, then does what ``inner`` does.

    That is how a proxy behaves that is reloaded carelessly. ``path`` is the routes file.
    """

    def __init__(self, inner: TrafficAdapter, path: Path, *, dead_cluster: str, for_s: float = 0.1) -> None:
        self._inner, self._path = inner, path
        self._dead_cluster, self._for_s = dead_cluster, for_s

    @property
    def name(self) -> str:
        return self._inner.name

    def capabilities(self) -> Capabilities:
        return self._inner.capabilities()

    async def preflight(self) -> tuple[str, ...]:
        return await self._inner.preflight()

    async def observe(self) -> Observed:
        return await self._inner.observe()

    async def apply(self, request: ShiftRequest) -> Receipt:
        good = envoy_file.read(self._path)
        envoy_file.replace(self._path, self._all_dead(good))
        await asyncio.sleep(self._for_s)
        envoy_file.replace(self._path, good)
        return await self._inner.apply(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _all_dead(self, good: bytes) -> bytes:
        document = json.loads(good)
        for host in document["resources"][0]["virtual_hosts"]:
            for route in host["routes"]:
                route["route"] = {"cluster": self._dead_cluster}
        document["version_info"] += "-lossy"
        return json.dumps(document).encode()
