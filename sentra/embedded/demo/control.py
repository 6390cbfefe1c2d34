"""Starts the demo's processes as children and changes the service's behaviour while it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import msgspec

from domain.errors import ConfigError
from sentra.embedded.demo.behaviour import HEALTHY, Fault
from sentra.embedded.demo.service import FAULT_PATH, Status
from sentra.embedded.ports import HOST, require_free
from sentra.embedded.processes import Child


class ServiceVersion:
    """One version of the demo service, as a child process.

    ``service_log_path`` is what the service logs (JSON lines, telemetry); ``log_path`` is what the process
    prints (trouble).
    """

    def __init__(self, version: str, port: int, directory: Path, *, seed: int = 0) -> None:
        self.version = version
        self.port = port
        self.seed = seed
        self.name = f"demo service {version}"
        self.service_log_path = directory / f"service-{version}.jsonl"
        self.log_path = directory / f"service-{version}.log"
        self.child: Child | None = None

    def start(self, fault: Fault = HEALTHY) -> None:
        """Spawn it; may be called again after it was killed.

        Raises
        ------
        ConfigError
            The port is taken.
        """
        require_free(self.port, self.name)
        self.child = Child(self.name, self._argv(fault), log_path=self.log_path)
        self.child.start()

    async def wait_until_ready(self, timeout_s: float = 15.0) -> None:
        """Return when this very process answers.

        Raises
        ------
        ConfigError
            It ended, or did not answer in time.
        """
        if self.child is None:
            raise RuntimeError(f"start {self.name} before waiting for it")
        await self.child.wait_until_ready(self._answers_as_itself, timeout_s)

    async def inject(self, fault: Fault) -> None:
        """Behave like this from the next request on."""
        await put_fault(self.port, fault)

    def kill(self) -> None:
        """As a crash does it: no goodbye, connections reset."""
        if self.child is not None:
            self.child.kill()

    async def stop(self, grace_s: float = 5.0) -> None:
        """End it; safe to repeat."""
        if self.child is not None:
            await self.child.stop(grace_s)

    def _argv(self, fault: Fault) -> list[str]:
        module = [sys.executable, "-m", "sentra.embedded.demo.service"]
        who = ["--version", self.version, "--port", str(self.port), "--seed", str(self.seed)]
        log = ["--log", str(self.service_log_path.absolute())]
        return [*module, *who, *log, "--fault", msgspec.json.encode(fault).decode()]

    async def _answers_as_itself(self) -> bool:
        status = await read_status(self.port)
        return status is not None and self.child is not None and status.pid == self.child.pid


def load_child(
    url: str,
    rps: float,
    directory: Path,
    *,
    seed: int = 0,
    poisson: bool = False,
    preview_rps: float = 0.0,
    preview_header: str = "x-canary=always",
) -> Child:
    """The load generator, not yet started; it writes ``requests.jsonl`` (see ``request_log.py``)."""
    argv = [sys.executable, "-m", "sentra.embedded.demo.load", "--url", url, "--rps", str(rps)]
    argv += ["--seed", str(seed), "--out", str((directory / "requests.jsonl").absolute())]
    argv += ["--poisson"] if poisson else []
    if preview_rps > 0:
        argv += ["--preview-header", preview_header, "--preview-rps", str(preview_rps)]
    return Child("demo load", argv, log_path=directory / "load.log")


async def put_fault(port: int, fault: Fault) -> None:
    """Tell the service on ``port`` how to behave.

    Raises
    ------
    ConfigError
        Nobody is there, or it refused.
    """
    try:
        async with _client() as client:
            body = msgspec.json.encode(fault)
            (await client.put(_control_url(port), content=body)).raise_for_status()
    except httpx.HTTPError as exc:
        raise ConfigError(f"the demo service on port {port} took no fault: {exc}") from exc


async def read_status(port: int) -> Status | None:
    """Who serves on ``port`` and how; ``None`` when nobody answers, or a stranger does."""
    try:
        async with _client() as client:
            answer = await client.get(_control_url(port))
        return msgspec.json.decode(answer.content, type=Status)
    except (httpx.HTTPError, msgspec.DecodeError):
        return None


def _control_url(port: int) -> str:
    return f"http://{HOST}:{port}{FAULT_PATH.decode()}"


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=2.0, trust_env=False, verify=False)
