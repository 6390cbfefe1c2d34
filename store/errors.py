"""The database's errors, in our words: one sentence that says what is wrong and what to do.

Rule: `StoreUnavailable` when the same call may work later, `StoreError` when it never will. No sentence holds
a password: only the hidden form of the URL is shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from domain.errors import StoreError, StoreUnavailable

_SQLITE_ADVICE = {
    sqlite3.SQLITE_FULL: "there is no disk space left for the store at {where}; free some and try again",
    sqlite3.SQLITE_READONLY: "the store at {where} is read-only; make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: (
        "the store at {where} cannot be opened; make sure that its directory exists and is writable"
    ),
    sqlite3.SQLITE_PERM: "the store at {where} may not be opened by this user; change its permissions",
    sqlite3.SQLITE_BUSY: "the store at {where} is locked by another writer; try again",
    sqlite3.SQLITE_LOCKED: "the store at {where} is locked by another writer; try again",
    sqlite3.SQLITE_IOERR: "the disk under the store at {where} fails to read or write; check the disk",
}
"""By primary result code (https://www.sqlite.org/rescode.html)."""

_NO_ANSWER = "the database at {where} does not answer; check that it runs and can be reached"
_TAKEN = "rows of the store at {where} are locked by another writer; try again"
_FULL = "there is no disk space left for the store at {where}; free some and try again"

_MYSQL_ADVICE = {
    1021: _FULL,  # ER_DISK_FULL
    1114: _FULL,  # ER_RECORD_FILE_FULL
    1040: "the database at {where} has no connection left; raise max_connections or run fewer processes",
    1053: _NO_ANSWER,  # ER_SERVER_SHUTDOWN
    1205: _TAKEN,  # ER_LOCK_WAIT_TIMEOUT
    1290: "the database at {where} is read-only; point the store at the primary",
    1836: "the database at {where} is read-only; point the store at the primary",
    2002: _NO_ANSWER,
    2003: _NO_ANSWER,
    2006: _NO_ANSWER,
    2013: _NO_ANSWER,
    1927: _NO_ANSWER,  # ER_CONNECTION_KILLED (MariaDB)
}
"""By server or client error number."""

_CONTENDED = frozenset({1213, 1020})
"""Deadlock, and MariaDB's "record has changed since last read"."""


class AlreadyActive(StoreError):
    """The service, or what its traffic runs through, is held by another rollout that has not ended."""

    def __init__(self, message: str, *, rollout_id: str) -> None:
        self.rollout_id = rollout_id
        super().__init__(message)


class UnknownRollout(StoreError):
    """No rollout of this id is stored."""


class Contended(StoreUnavailable):
    """Two writers held each other up and this one was sent home: the same call works the next moment."""


class Duplicate(StoreError):
    """Somebody stored a row of this identity before us."""


def place(url: URL) -> str:
    """Where the store is, for people: the file, or the server without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or "memory"
    return url.render_as_string(hide_password=True)


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Raise what SQLAlchemy raises inside as `StoreUnavailable` or `StoreError`."""
    try:
        yield
    except PoolTimeout as exc:
        raise StoreUnavailable(f"all connections to {place(url)} are in use; try again") from exc
    except DBAPIError as exc:
        raise _translation(exc, place(url)) from exc
    except SQLAlchemyError as exc:
        raise StoreError(f"the store at {place(url)} cannot be used: {_first_line(exc)}") from exc


def _translation(exc: DBAPIError, where: str) -> StoreError:
    cause = exc.orig
    if _number(cause) in _CONTENDED:
        return Contended(_TAKEN.format(where=where))
    advice = _advice(cause)
    if advice is not None:
        return StoreUnavailable(advice.format(where=where))
    if exc.connection_invalidated:
        return StoreUnavailable(_NO_ANSWER.format(where=where))
    if _is_duplicate(cause):
        return Duplicate(f"the store at {where} holds such a row already: {cause}")
    return StoreError(f"the store at {where} refused: {cause}")


def _first_line(exc: BaseException) -> str:
    # SQLAlchemy's further lines are the statement and a link.
    return str(exc).partition("\n")[0]


def _is_duplicate(cause: BaseException | None) -> bool:
    if isinstance(cause, sqlite3.IntegrityError):
        return cause.sqlite_errorcode in (
            sqlite3.SQLITE_CONSTRAINT_UNIQUE,
            sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        )
    return _number(cause) == 1062  # ER_DUP_ENTRY


def _advice(cause: BaseException | None) -> str | None:
    if isinstance(cause, sqlite3.Error):
        # The low byte is the primary code; the rest says more than anybody needs here.
        return _SQLITE_ADVICE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF)
    return _MYSQL_ADVICE.get(_number(cause))


def _number(cause: BaseException | None) -> int:
    """MySQL's error number; 0 for anything else."""
    number = cause.args[0] if cause is not None and cause.args else 0
    return number if isinstance(number, int) else 0
