"""A real Prometheus as a test server, on a free port of 127.0.0.1, with a database of its own.

It is Debian's package ``prometheus``. Without it the tests that need it are skipped with that reason; under
``CI=true`` they fail instead.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sentra.embedded.ports import HOST, free_port
from sentra.embedded.processes import Child


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str
    pid: int

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """The result of an instant query, now."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{self.url}/api/v1/query", data={"query": query})
        answer.raise_for_status()
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result


@asynccontextmanager
async def running_prometheus(
    folder: Path, targets: Mapping[str, Mapping[str, str]], *, scrape_interval: str = "1s"
) -> AsyncIterator[Prometheus]:
    """A server that scrapes ``targets``: ``host:port``, with the labels it puts on their series."""
    program = _program()
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    scrapes = [{"targets": [address], "labels": dict(labels)} for address, labels in targets.items()]
    config = {
        "global": {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval},
        "scrape_configs": [{"job_name": "pods", "static_configs": scrapes}],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    command = [
        program,
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]
    server = Child("Prometheus", command, log_path=folder / "prometheus.log")
    server.start()
    url = f"http://{HOST}:{port}"
    try:
        await server.wait_until_ready(lambda: _is_ready(url), 30.0)
        assert server.pid is not None
        yield Prometheus(url, server.pid)
    finally:
        await server.stop(10.0)


async def _is_ready(url: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{url}/-/ready")).status_code == 200
    except httpx.HTTPError:
        return False


def _program() -> str:
    found = shutil.which("prometheus")
    if found is None:
        reason = "Prometheus: needs prometheus on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
