"""The demo's data plane: two versions of a service behind a real Envoy, and users who never stop asking."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sentra.embedded.demo.control import ServiceVersion, load_child
from sentra.embedded.demo.policies import LOGS, METRICS, SERVICE
from sentra.embedded.demo.relay import TcpRelay
from sentra.embedded.envoy import EnvoyProxy
from sentra.embedded.ports import HOST, free_ports
from sentra.embedded.processes import Child

STABLE, CANARY = "v1", "v2"


class DataPlane:
    """Everything that carries the demo's traffic. Use as an async context manager."""

    def __init__(self, directory: Path, *, seed: int) -> None:
        stable_port, canary_port, listen_port, admin_port, relay_port = free_ports(5)
        self.directory = directory
        self.stable = ServiceVersion(STABLE, stable_port, directory, seed=seed)
        self.canary = ServiceVersion(CANARY, canary_port, directory, seed=seed)
        clusters: dict[str, int | str] = {STABLE: stable_port, CANARY: canary_port}
        self.envoy = EnvoyProxy(directory / "envoy", listen_port, admin_port, clusters, service=SERVICE)
        self.relay = TcpRelay(relay_port, admin_port)
        self.load: Child | None = None
        self._seed = seed

    @property
    def target(self) -> dict[str, str]:
        """``traffic.target`` for the Envoy adapter."""
        return {
            "rds": str(self.envoy.routes_path),
            "admin": self.envoy.admin_url,
            "cluster": "{service}_{version}",
        }

    @property
    def sources(self) -> dict[str, Any]:
        """The telemetry sources: Envoy's own statistics through the relay, and the service's log files."""
        return {
            METRICS: {
                "kind": "scrape",
                "preset": "envoy",
                "targets": [f"http://{HOST}:{self.relay.port}"],
                "histogram": "full",
            },
            LOGS: {"kind": "tail", "files": [str(self.directory / "service-*.jsonl")]},
        }

    async def __aenter__(self) -> DataPlane:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.stable.start()
            self.canary.start()
            self.envoy.start()
            await asyncio.gather(
                self.stable.wait_until_ready(), self.canary.wait_until_ready(), self.envoy.wait_until_ready()
            )
            await self.relay.start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def start_load(self, rps: float, *, preview_rps: float) -> None:
        """Let the users in."""
        self.load = load_child(
            self.envoy.url, rps, self.directory, seed=self._seed, poisson=True, preview_rps=preview_rps
        )
        self.load.start()

    async def stop_load(self) -> None:
        """Send the users home; what they saw is complete afterwards."""
        if self.load is not None:
            await self.load.stop()

    async def _stop(self) -> None:
        await self.stop_load()
        await self.relay.close()
        await asyncio.gather(self.envoy.stop(), self.stable.stop(), self.canary.stop())
