"""A file that one process at a time replaces by a rename, under its folder's lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from domain.errors import Conflict, Denied, TargetNotFound, Transient

LOCK_WITHIN_S = 1.0
"""A write takes milliseconds; whoever holds the lock longer is stuck."""


def read(path: Path) -> bytes:
    """The file's bytes.

    Raises
    ------
    TargetNotFound, Denied, Transient
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise TargetNotFound(f"there is no file {path}") from exc
    except PermissionError as exc:
        raise Denied(f"the file {path} may not be read") from exc
    except OSError as exc:
        raise Transient(f"the file {path} cannot be read: {exc.strerror}") from exc


def replace(path: Path, text: bytes) -> None:
    """Write beside and rename: a reader sees the old bytes or the new ones. On disk before it is seen.

    Raises
    ------
    Denied, Transient
        Nothing has changed.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with beside.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except PermissionError as exc:
        raise Denied(f"the folder {path.parent} may not be written to") from exc
    except OSError as exc:
        beside.unlink(missing_ok=True)
        raise Transient(f"the file {path} cannot be written: {exc.strerror}") from exc


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder's lock, which goes with the process. Blocks its thread for ``LOCK_WITHIN_S`` at most.

    Raises
    ------
    Conflict
        Somebody else holds it.
    TargetNotFound
        There is no such folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise TargetNotFound(f"the folder {folder} cannot be opened: {exc.strerror}") from exc
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    deadline = monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if monotonic() > deadline:
                raise Conflict(f"another controller holds the lock of {folder}") from exc
            sleep(0.002)
