"""A service whose versions write logs while its traffic is moved, and the ``sentra up`` that judges it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from domain.clock import SystemClock
from sentra.embedded.running import Running, find

PERIOD_S = 0.1
LINES = 8
"""Log lines per version and period: enough for the few samples that the tests' policies ask for."""
READY_S = 60.0


def write_settings(folder: Path) -> None:
    """``sentra.yaml`` with one log source."""
    source = {"kind": "tail", "files": str(folder / "logs" / "*.jsonl")}
    (folder / "sentra.yaml").write_text(yaml.safe_dump({"sources": {"app-logs": source}}))
    (folder / "logs").mkdir(exist_ok=True)


def spawn_up(folder: Path) -> subprocess.Popen[str]:
    """``sentra up`` in ``folder``, as its own process."""
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-m", "sentra.cli.main", "up"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running_up(folder: Path) -> Iterator[Running]:
    """A ready ``sentra up`` in ``folder``; it is told to stop afterwards."""
    write_settings(folder)
    process = spawn_up(folder)
    try:
        yield _ready(folder, process)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _ready(folder: Path, process: subprocess.Popen[str]) -> Running:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        running = find(folder / ".sentra")
        if running is not None:
            return running
        if process.poll() is not None:
            raise AssertionError(f"sentra up ended: {process.communicate()[0]}")
        time.sleep(0.05)
    raise AssertionError(f"sentra up was not ready within {READY_S:g} s")


@contextmanager
def worker_stopped(folder: Path) -> Iterator[None]:
    """The worker of the stack in ``folder`` stands still, as if its machine did."""
    pid = int((folder / ".sentra" / "worker.ready").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Shop:
    """One service with a name and versions of its own.

    ``errors`` is the canary's share of error lines; it may be changed at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = f"shop-{secrets.token_hex(3)}"
        self.stable, self.canary = f"{self.service}-v1", f"{self.service}-v2"
        self.errors = 0.0
        self._stop = threading.Event()

    @contextmanager
    def open(self) -> Iterator[Shop]:
        """Traffic, until the end."""
        writer = threading.Thread(target=self._write)
        writer.start()
        try:
            yield self
        finally:
            self._stop.set()
            writer.join()

    def policy(self, name: str = "", **changes: Any) -> str:
        """Write a quick policy and return its file's name; ``None`` removes a key."""
        content: dict[str, Any] = {
            "service": self.service,
            "environment": "test",
            "steps": [10, 90],
            "interval": "1s",
            "warmup": "1s",
            "window": "10s",
            "pass_count": 2,
            "min_step_time": "1s",
            "max_step_time": "60s",
            "min_samples": 20,
            "gates": [{"signal": "log_error_ratio", "slo": "<= 5%", "severe": ">= 40%"}],
            "telemetry": {"logs": "app-logs"},
            "traffic": {"adapter": "memory", "target": {"name": self.service}},
        }
        kept = {key: value for key, value in (content | changes).items() if value is not None}
        path = self.folder / (name or f"{self.service}.yaml")
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path.name

    def start_line(self, *more: str, **changes: Any) -> tuple[str, ...]:
        """The command line that starts a rollout of it under a policy with ``changes``."""
        versions = ("--stable", self.stable, "--canary", self.canary)
        where = ("--service", self.service, "--env", "test", "--policy", self.policy(**changes))
        return ("rollout", "start", *where, *versions, *more)

    def slow_line(self, *more: str, **changes: Any) -> tuple[str, ...]:
        """The same for a rollout that stays at its first step for minutes."""
        slow = {"min_step_time": "5m", "max_step_time": "10m"}
        return self.start_line(*more, **(slow | changes))

    def _write(self) -> None:
        clock, owed = SystemClock(), 0.0
        with (self.folder / "logs" / f"{self.service}.jsonl").open("a", buffering=1) as log:
            while not self._stop.wait(PERIOD_S):
                owed += self.errors * LINES
                bad, owed = int(owed), owed - int(owed)
                levels = ["error"] * bad + ["info"] * (LINES - bad)
                lines = [_line(clock.now(), self.stable, "info") for _ in range(LINES)]
                lines += [_line(clock.now(), self.canary, level) for level in levels]
                log.write("".join(lines))


def _line(at: float, version: str, level: str) -> str:
    return json.dumps({"ts": at, "level": level, "version": version}) + "\n"
