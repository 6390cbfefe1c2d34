"""A server or worker that runs as our child: started, watched, stopped, and never left behind.

Rules kept here:

* A child does not outlive its parent. The kernel kills it when the parent dies, however the parent dies
  (``PR_SET_PDEATHSIG``; Linux only). The kernel counts from the *thread* that started the child, so children
  are started on the main thread.
* Ctrl-C reaches the supervisor alone; it decides who stops, in which order. So children get a session of
  their own.
* "Ready" means that the child *answers as itself*: the probe says yes and the child is still alive. A
  connection that succeeds proves nothing, since an older stack may be listening on the port.
* What a child prints goes to its log file; errors quote its last line.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from domain.errors import ConfigError

Probe = Callable[[], Awaitable[bool]]
"""Asks a server whether it is up and is the one we started. ``OSError`` and time-outs count as "not yet"."""

POLL_S = 0.02
"""How often a child is asked whether it is ready or gone; small beside the 50 ms Envoy takes to start."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TAIL_BYTES = 64 * 1024

# Loaded once, before any fork: between fork and exec only what is already in memory may be used.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Child:
    """One supervised child process.

    Parameters
    ----------
    name
        What people call it ("Envoy", "demo service v2"); used in errors.
    argv
        Program and arguments; the program is a path, no shell is involved.
    env
        Variables added to ours.
    cwd
        Where it runs; by default where we run.
    log_path
        Gets standard output and standard error, appended. Its folder is made if need be.
    die_with_parent
        Whether the kernel kills it when we die. Only for a child that must be left running is this false.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        die_with_parent: bool = True,
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log_path = log_path
        self._env = dict(env or {})
        self._cwd = cwd
        self._die_with_parent = die_with_parent
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Spawn it. May be called again once the former process is gone.

        Raises
        ------
        ConfigError
            The program is not there or may not be run.
        RuntimeError
            It is running already, or this is not the main thread (the child would die with the thread).
        """
        if self.is_alive():
            raise RuntimeError(f"{self.name} is running already (pid {self.pid})")
        if self._die_with_parent and threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self.name} must be started on the main thread: it dies with its thread")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = self._spawn(log.fileno())

    @property
    def pid(self) -> int | None:
        """Of the running or last process; ``None`` before the first start."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs or was never started; minus the signal's number when a signal ended it."""
        return self._process.poll() if self._process is not None else None

    def is_alive(self) -> bool:
        """Whether the process runs now (a stopped one, SIGSTOP, counts as alive)."""
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to end (SIGTERM) without waiting; nothing happens when it is gone."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once (SIGKILL) and collect it. Safe to repeat."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Ask it to end and, if it has not after ``grace_s`` seconds, kill it. Safe to repeat."""
        self.terminate()
        if not await self.has_ended(grace_s):
            self.kill()

    async def has_ended(self, within_s: float) -> bool:
        """Wait up to ``within_s`` seconds for it to end."""
        deadline = time.monotonic() + within_s
        while self.is_alive():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def wait_until_ready(self, probe: Probe, timeout_s: float = 10.0) -> None:
        """Return once ``probe`` says yes while the child is alive.

        Raises
        ------
        ConfigError
            It ended, or was not ready in time. The sentence quotes its last log line.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            answered = await _says_yes(probe, max(deadline - time.monotonic(), POLL_S))
            # Asked after the probe: a stranger on the port may answer for a child that has just died.
            if not self.is_alive():
                raise ConfigError(f"{self.name} {self._how_it_ended()} before it was ready: {self._quote()}")
            if answered:
                return
            if time.monotonic() >= deadline:
                raise ConfigError(f"{self.name} was not ready within {timeout_s:g} s: {self._quote()}")
            await asyncio.sleep(POLL_S)

    def last_log_lines(self, count: int = 1) -> list[str]:
        """The last ``count`` non-empty lines that this start of the child has printed, oldest first."""
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:] if count > 0 else []

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        wish = _death_wish(os.getpid()) if self._die_with_parent else None
        try:
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env={**os.environ, **self._env},
                start_new_session=True,
                preexec_fn=wish,  # noqa: PLW1509 - two calls, both loaded before the fork, no allocation between
            )
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise ConfigError(f"{self.name} could not be started: {self.argv[0]}: {reason}") from exc

    def _how_it_ended(self) -> str:
        code = self.exit_code
        if code is None:
            return "was never started"
        if code < 0:
            return f"was ended by signal {-code} ({signal.strsignal(-code)})"
        return f"ended with exit code {code}"

    def _quote(self) -> str:
        lines = self.last_log_lines(1)
        said = f"its last words were {lines[0].strip()!r}" if lines else "it printed nothing"
        return f"{said} (log: {self.log_path})"


def birth_mark(pid: int) -> str | None:
    """When the process was born, in the kernel's ticks since boot; ``None`` when there is no such process.

    A pid may have been given to somebody else since; pid and birth mark together name one process until the
    next boot. Zombies count as gone. Linux only (``None`` elsewhere).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in field 2 may hold spaces and brackets, so count from the last one: 3 state, 22 start time.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


async def port_answers(host: str, port: int) -> bool:
    """Whether something accepts connections there. Part of a probe, never the whole of it."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def _says_yes(probe: Probe, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await probe()
    except OSError:  # refused, reset; TimeoutError is one too
        return False


def _death_wish(parent: int) -> Callable[[], None] | None:
    """What the child runs between fork and exec to be killed when ``parent`` dies."""
    libc = _libc
    if libc is None:
        return None

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the wish was heard
            os._exit(1)

    return ask_the_kernel
