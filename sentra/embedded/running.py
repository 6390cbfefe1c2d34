"""Which embedded stack runs in a folder, and how to reach it. The stack writes it, everybody else reads it.

A file alone proves nothing: the process may be gone and its pid somebody else's. So the file names the pid
together with the moment of its birth, and the folder's lock is held as long as the stack lives.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

import msgspec

from domain.errors import ConfigError
from sentra.embedded.processes import birth_mark


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A stack that runs. ``config`` is the settings file its worker was started with."""

    pid: int
    born: str
    config: str
    bootstrap: str
    redis: str
    database: str
    broker_epoch: str
    ready_s: float
    """How long it took to be ready."""


class AlreadyRunning(ConfigError):
    """Another stack holds this folder."""


def lock(state_dir: Path) -> IO[str]:
    """Hold the folder until the returned file is closed or the process ends.

    Raises
    ------
    AlreadyRunning
        Somebody holds it; the sentence says who.
    ConfigError
        The folder cannot be written.
    """
    path = state_dir / "lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        held = path.open("a+")
    except OSError as exc:
        raise ConfigError(f"cannot write to {state_dir}: {exc.strerror}; choose another folder") from exc
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        pid = held.read().strip() or "unknown"
        held.close()
        raise AlreadyRunning(
            f"another sentra runs in {state_dir.absolute()} (pid {pid}); "
            "stop it first, or work in another folder"
        ) from None
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    return held


def announce(state_dir: Path, running: Running) -> None:
    """Say how to reach us, in one step."""
    beside = state_dir / "stack.json.new"
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(running), indent=1))
    beside.replace(state_dir / "stack.json")


def withdraw(state_dir: Path) -> None:
    """Say that nobody runs here any more."""
    (state_dir / "stack.json").unlink(missing_ok=True)


def find(state_dir: Path) -> Running | None:
    """The stack that runs in ``state_dir`` now, if any."""
    try:
        running = msgspec.json.decode((state_dir / "stack.json").read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None
    return running if birth_mark(running.pid) == running.born else None
