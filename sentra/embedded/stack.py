"""The embedded stack: broker, Redis, database and one worker process, supervised.

Start-up order: the folder's lock, the database's schema, broker and Redis side by side, then the worker. A
worker or Redis that dies is started again. The embedded broker keeps nothing, so when it dies the worker goes
down with it and both come back with a new broker epoch: rollouts are then restored from the database.

Everything listens on 127.0.0.1, on ports found free at start. State stays under one folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import yaml

from domain.errors import ConfigError
from sentra.config import Profile, Settings, load
from sentra.embedded.broker import TansuBroker
from sentra.embedded.ports import free_ports
from sentra.embedded.processes import Child, birth_mark
from sentra.embedded.redis import RedisServer
from sentra.embedded.running import Running, announce, lock, withdraw
from sentra.role import ALL_ROLES, Role
from store.database import check_writable, upgrade

log = logging.getLogger(__name__)

WATCH_S = 0.1
"""How often the supervisor looks after its children."""
FIRST_RESTART_S = 0.1
LONGEST_RESTART_S = 5.0
"""Pause before a child that keeps dying is started again: doubling between these."""
STEADY_S = 30.0
"""A child that lived this long starts its next restarts from the shortest pause."""
WORKER_READY_S = 60.0


class Stack:
    """One embedded stack in ``state_dir``.

    Use as an async context manager; within it ``settings`` reach the running parts, and :meth:`supervise`
    keeps them running.
    """

    def __init__(
        self, state_dir: Path, *, sources: dict[str, Any] | None = None, roles: tuple[Role, ...] = ALL_ROLES
    ) -> None:
        self.state_dir = state_dir.absolute()
        self.logs = self.state_dir / "logs"
        self._sources = sources or {}
        self._roles = roles
        self._held: IO[str] | None = None
        self._restarts = 0
        self._restarted_at = 0.0
        self.ready_s = 0.0
        broker_port, redis_port = free_ports(2)
        self.broker = TansuBroker(broker_port, self.logs / "broker.log")
        self.redis = RedisServer(redis_port, self.logs / "redis.log")
        self.worker: Child | None = None

    @property
    def config_path(self) -> Path:
        """The settings file of the running worker."""
        return self.state_dir / "runtime.yaml"

    @property
    def settings(self) -> Settings:
        """Settings that reach the running parts."""
        return load(self.config_path)

    async def __aenter__(self) -> Stack:
        began = time.monotonic()
        self._held = lock(self.state_dir)
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self.ready_s = time.monotonic() - began
        self._announce()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def supervise(self) -> None:
        """Start again what dies, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            if not _is_alive(self.broker.child):
                log.error("the broker ended; starting it and the worker again, rollouts are restored")
                await self._renew_broker()
            elif not _is_alive(self.worker):
                log.error("the worker ended; starting it again")
                await self._renew_worker()
            if not _is_alive(self.redis.child):
                log.error("Redis ended; starting it again")
                await self._renew_redis()

    # --- start and stop

    async def _start(self) -> None:
        check_writable(self._base_settings().database_url)
        self.logs.mkdir(parents=True, exist_ok=True)
        upgrade(self._base_settings().database_url)
        self.broker.start()
        self.redis.start()
        await asyncio.gather(self.broker.wait_until_ready(), self.redis.wait_until_ready())
        await self._start_worker()

    async def _stop(self) -> None:
        """The worker first, so that it can say goodbye to the broker; then everything else."""
        withdraw(self.state_dir)
        if self.worker is not None:
            await self.worker.stop(grace_s=10.0)
        await asyncio.gather(self.broker.stop(), self.redis.stop())
        if self._held is not None:
            self._held.close()
            self._held = None

    async def _start_worker(self) -> None:
        self._write_config()
        self.worker = Child("the worker", self._worker_argv(), log_path=self.logs / "worker.log")
        self.worker.start()
        await self.worker.wait_until_ready(self._worker_is_ready, WORKER_READY_S)

    def _worker_argv(self) -> list[str]:
        roles = ",".join(role.value for role in self._roles)
        command = [sys.executable, "-m", "sentra.cli.main", "worker", "--roles", roles]
        return [*command, "--config", str(self.config_path), "--ready-file", str(self._ready_path)]

    @property
    def _ready_path(self) -> Path:
        return self.state_dir / "worker.ready"

    async def _worker_is_ready(self) -> bool:
        """Whether this very worker said that it works."""
        try:
            said = self._ready_path.read_text()
        except FileNotFoundError:
            return False
        return self.worker is not None and said == str(self.worker.pid)

    def _base_settings(self) -> Settings:
        return load(None, state_dir=self.state_dir, sources=self._sources)

    def _write_config(self) -> None:
        settings = {
            "state_dir": str(self.state_dir),
            "profile": Profile.EMBEDDED.value,
            "bootstrap": self.broker.bootstrap,
            "broker_epoch": self.broker.cluster_id,
            "database": self._base_settings().database_url,
            "redis": self.redis.url,
            "sources": self._sources,
        }
        beside = self.config_path.with_suffix(".new")
        beside.write_text(yaml.safe_dump(settings, sort_keys=False))
        beside.replace(self.config_path)

    def _announce(self) -> None:
        pid = os.getpid()
        running = Running(
            pid=pid,
            born=birth_mark(pid) or "",
            config=str(self.config_path),
            bootstrap=self.broker.bootstrap,
            redis=self.redis.url,
            database=self.settings.database_url,
            broker_epoch=self.broker.cluster_id,
            ready_s=self.ready_s,
        )
        announce(self.state_dir, running)

    # --- supervision

    async def _renew_worker(self) -> None:
        await self._pause()
        try:
            await self._start_worker()
        except ConfigError as exc:
            log.error("%s", exc)

    async def _renew_broker(self) -> None:
        """A new broker is a new log: nothing that speaks to the old one may live on."""
        if self.worker is not None:
            self.worker.kill()
        await self._pause()
        try:
            self.broker.start()
            await self.broker.wait_until_ready()
            await self._start_worker()
            self._announce()
        except ConfigError as exc:
            log.error("%s", exc)

    async def _renew_redis(self) -> None:
        try:
            self.redis.start()
            await self.redis.wait_until_ready()
        except ConfigError as exc:
            log.error("%s", exc)

    async def _pause(self) -> None:
        """Wait longer each time, so that a child that cannot live does not keep the machine busy."""
        now = time.monotonic()
        if now - self._restarted_at > STEADY_S:
            self._restarts = 0
        self._restarted_at = now
        await asyncio.sleep(min(FIRST_RESTART_S * 2**self._restarts, LONGEST_RESTART_S))
        self._restarts += 1


def _is_alive(child: Child | None) -> bool:
    return child is not None and child.is_alive()
